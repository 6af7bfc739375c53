"""Models as files: their arrays, and the layers they are made of, from which they are rebuilt."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from tinytorch.core.checkpoints import Arrays, bit_generator_name, read_arrays, write_arrays
from tinytorch.core.layers import Layer
from tinytorch.core.tensor import Parameter, Tensor

#: where the classes are that a file may name
_MODULES = (
    *(
        f"tinytorch.core.{name}"
        for name in ("layers", "activations", "losses", "spatial", "embeddings", "attention", "transformers")
    ),
    "tinytorch.perf.quantization.layers",
    "tinytorch.perf.compression.sparse",
)
# What was found out about a model is no part of it.
_NOT_SAVED = frozenset({"quantization_report"})
# In a model these may stand for each other, as their weights are the same in another form.
_LINEAR = frozenset({"Linear", "QuantizedLinear", "SparseLinear"})
_CONVOLUTIONS = frozenset({"Conv2d", "QuantizedConv2d", "SparseConv2d"})
# What padded arrays do not tell.
_SIZES = frozenset({"in_features", "out_features", "in_channels", "out_channels", "shape"})
_BIT_GENERATORS = ("PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64")


def save_model(model: Layer, path: str | Path) -> None:
    """Write a model to one file: its arrays, and what layers it is made of.

    What was found out about it, its `quantization_report`, is no part of it, and is not written.

    Raises:
        ValueError: `model` is no Layer.
    """
    if not isinstance(model, Layer):
        raise ValueError(f"`model` must be a Layer, got {type(model).__name__}")
    arrays: Arrays = {}
    tree = _describe(model, "model", arrays, {})
    write_arrays(path, arrays, {"kind": "model", "tree": tree})


def load_model(path: str | Path, model: Layer | None = None) -> Layer:
    """Return a model as it was saved; its outputs are the same bits.

    Args:
        path: what `save_model` wrote.
        model: where classes of one's own are part of it: a model made like the saved one. It is filled in
            place, and what is no layer or array is taken from the file. A Linear or Conv2d in it is replaced
            where a quantized or sparse layer, or low-rank factors, of as many inputs and outputs were saved,
            and the other way round.

    Raises:
        ValueError: the file is damaged, names a class that only `model` could provide, or does not fit
            `model`, which has other layers or other shapes; then nothing was changed.
    """
    if model is not None and not isinstance(model, Layer):
        raise ValueError(f"`model` must be a Layer made like the saved one, got {type(model).__name__}")
    arrays, metadata = read_arrays(path)
    if not isinstance(metadata, dict) or metadata.get("kind") != "model":
        raise ValueError(f"{str(path)!r} is no saved model: Trainer.load_checkpoint() reads checkpoints")
    builder = _Builder(arrays, str(path))
    built: Layer = builder.value(metadata["tree"], model, "model")
    for change in builder.changes:  # all is checked by now
        change()
    return built


def _describe(value: Any, path: str, arrays: Arrays, seen: dict[int, str]) -> dict[str, Any]:
    """Return what JSON can say of an attribute; its arrays go into `arrays` under their paths."""
    if id(value) in seen:
        return {"same": seen[id(value)]}
    if isinstance(value, Layer | Tensor | np.ndarray | np.random.Generator):
        seen[id(value)] = path
    if value is None or isinstance(value, bool | int | float | str):
        return {"value": value}
    if isinstance(value, np.generic):
        return {"value": value.item()}
    if isinstance(value, Layer):
        attributes = {
            name: _describe(item, f"{path}.{name}", arrays, seen)
            for name, item in vars(value).items()
            if name not in _NOT_SAVED
        }
        known = _layer_class(type(value).__name__) is type(value)
        return {"layer": type(value).__name__, "known": known, "path": path, "attributes": attributes}
    if isinstance(value, Tensor | np.ndarray):
        arrays[path] = value.data if isinstance(value, Tensor) else value
        kind = {Parameter: "parameter", Tensor: "tensor"}.get(type(value), "array")
        return {kind: path}
    if isinstance(value, np.random.Generator):
        return {"generator": value.bit_generator.state, "path": path}
    if isinstance(value, list | tuple):
        kind = {list: "list", tuple: "tuple"}.get(type(value), type(value).__name__)
        return {kind: [_describe(v, f"{path}.{i}", arrays, seen) for i, v in enumerate(value)]}
    return {"own": type(value).__name__}


class _Builder:
    """Makes values of their descriptions, in place of those of a skeleton where there is one."""

    def __init__(self, arrays: Arrays, file: str) -> None:
        self.arrays = arrays
        self.file = file
        self.made: dict[str, Any] = {}
        self.changes: list[Callable[[], None]] = []
        self.used: set[int] = set()

    def value(self, node: dict[str, Any], old: Any, path: str) -> Any:
        """Return the value that `node` describes; `old` is what the skeleton has there."""
        match node:
            case {"value": value}:
                return value
            case {"same": first}:
                return self.shared(self.made[first], old, path)
            case {"layer": str()}:
                return self.layer(node, old, path)
            case {"parameter": key} | {"tensor": key} | {"array": key}:
                self.made[path] = self.array(self.arrays[key], old, path, next(iter(node)))
                return self.made[path]
            case {"generator": state}:
                self.made[path] = self.generator(state, old)
                return self.made[path]
            case {"own": name}:
                if old is None:
                    raise ValueError(_unknown(self.file, name, path))
                return old
        kind, items = next(iter(node.items()))
        olds = [*(old if isinstance(old, list | tuple) else ()), *[None] * len(items)]
        values = [
            self.value(item, o, f"{path}.{i}") for i, (item, o) in enumerate(zip(items, olds, strict=False))
        ]
        if isinstance(old, list | tuple) and len(old) != len(items) and (_holds(old) or _holds(values)):
            raise self.misfit(f"{path} has {len(items)} entries in the file and {len(old)} in the model")
        if kind == "Window":
            from tinytorch.kernels.convolution import Window

            return Window(*values)
        return values if kind == "list" else tuple(values)

    def layer(self, node: dict[str, Any], old: Any, path: str) -> Layer:
        """Fill the layer of the skeleton, or make a new one where it is of another class."""
        name, attributes = node["layer"], node["attributes"]
        cls = _layer_class(name) if node["known"] else None
        same = isinstance(old, Layer) and type(old).__name__ == name and (cls is None or type(old) is cls)
        if cls is None and not same:
            if old is None:
                raise ValueError(_unknown(self.file, name, path))
            raise self.misfit(f"{path} is {name} in the file and {type(old).__name__} in the model")
        kept = same and self.first_use(old)
        layer: Layer = old if kept else Layer.__new__(cls or type(old))
        self.made[path] = layer
        if kept:
            self.changes.append(self.filling(layer, attributes, path))
            return layer
        vars(layer).update({n: self.value(item, None, f"{path}.{n}") for n, item in attributes.items()})
        if old is not None and _role(layer) != _role(old):
            raise self.misfit(f"{path} is {_named(layer)} in the file and {_named(old)} in the model")
        return layer

    def shared(self, found: Any, old: Any, path: str) -> Any:
        """Return what the file has in several places; the skeleton may have a part of its own in each."""
        if isinstance(old, Tensor) and isinstance(found, Tensor) and old.shape != found.shape:
            raise self.misfit(f"{path} has shape {found.shape} in the file and {old.shape} in the model")
        if isinstance(old, Layer) and isinstance(found, Layer) and vars(found) and _role(found) != _role(old):
            raise self.misfit(f"{path} is {_named(found)} in the file and {_named(old)} in the model")
        return found

    def filling(self, layer: Layer, attributes: dict[str, Any], path: str) -> Callable[[], None]:
        """Return what gives a layer of the skeleton the attributes of the file."""
        before = dict(vars(layer))
        for name, old in before.items():
            if name not in attributes and (_holds(old) or isinstance(old, Tensor)):
                raise self.misfit(f"it lacks {path}.{name}")
        values: dict[str, Any] = {"training": True}
        for name, item in attributes.items():
            old = before.get(name)
            values[name] = value = self.value(item, old, f"{path}.{name}")
            if old is None and _holds(value):
                raise self.misfit(f"it holds {path}.{name}, which the model lacks")
            if _holds(old) and not (_holds(value) or isinstance(value, Tensor)):
                raise self.misfit(f"it lacks {path}.{name}")
        if _layer_class(type(layer).__name__) is type(layer):
            for name, value in values.items():
                if name in _SIZES and value != before.get(name):
                    now = before.get(name)
                    raise self.misfit(f"{path}.{name} is {value} in the file and {now} in the model")
        return lambda: vars(layer).update(values)

    def misfit(self, difference: str) -> ValueError:
        """Return the error that says where the file and the skeleton differ first."""
        return ValueError(
            f"{self.file!r} does not fit `model`: {difference}; pass one made like the model that was saved"
        )

    def array(self, array: Any, old: Any, path: str, kind: str) -> Any:
        """Return the tensor of the skeleton, to be overwritten, or a new one; arrays are always new.

        Whoever took an array of the skeleton, such as packed weights, then sees that it is another one.
        """
        target = old._array if isinstance(old, Tensor) else old
        if isinstance(target, np.ndarray) and target.shape != array.shape:
            raise self.misfit(f"{path} has shape {array.shape} in the file and {target.shape} in the model")
        if isinstance(old, Layer):
            raise self.misfit(f"{path} is an array in the file and {type(old).__name__} in the model")
        wanted = Parameter if kind == "parameter" else Tensor
        if isinstance(old, wanted) and old.dtype == array.dtype and self.first_use(old):
            self.changes.append(lambda: _overwrite(old, array))
            return old
        if kind == "array":
            return np.array(array)
        return wanted(array)

    def first_use(self, old: Any) -> bool:
        """Return whether nothing took this part of the skeleton yet: it may share what the file does not."""
        first = id(old) not in self.used
        self.used.add(id(old))
        return first

    def generator(self, state: dict[str, Any], old: Any) -> np.random.Generator:
        """Return the generator of the skeleton, to be set, or a new one."""
        name = bit_generator_name(state)
        if isinstance(old, np.random.Generator) and old.bit_generator.state["bit_generator"] == name:
            self.changes.append(lambda: setattr(old.bit_generator, "state", state))
            return old
        if name not in _BIT_GENERATORS:
            raise ValueError(f"{self.file!r} names a bit generator that NumPy does not have: {name!r}")
        bits = getattr(np.random, name)()
        bits.state = state
        return np.random.Generator(bits)


def _overwrite(tensor: Tensor, array: Any) -> None:
    """Copy into the memory of a tensor; where that is read-only, give it new memory."""
    if tensor._array.flags.writeable:
        tensor.data[...] = array
    else:
        tensor.data = np.array(array)


def _layer_class(name: str) -> type[Layer] | None:
    """Return the layer of this package that is called so; nothing else is ever imported."""
    for module in _MODULES:
        found = vars(import_module(module)).get(name)
        if isinstance(found, type) and issubclass(found, Layer) and found.__module__ == module:
            return found
    return None


def _holds(value: Any) -> bool:
    """Return whether a value is a layer or a parameter, or a list with some in it."""
    items = value if isinstance(value, list | tuple) else (value,)
    return any(isinstance(item, Layer | Parameter) for item in items)


def _role(value: Any) -> Any:
    """Return what a layer does in a model; of those with the same, one may take the place of another.

    Linear maps and convolutions are alike whatever form their weights have, others by class and shapes.
    """
    if not isinstance(value, Layer):
        return type(value), []
    layer: Any = value
    name = type(value).__name__ if _layer_class(type(value).__name__) is type(value) else ""
    if name in _LINEAR:
        return "linear", layer.in_features, layer.out_features
    if name in _CONVOLUTIONS:
        return "convolution", layer.in_channels, layer.out_channels, layer.window.kernel
    roles = [_role(part) for part in layer] if name == "Sequential" else []
    if roles and all(role[0] == "linear" for role in roles):
        return "linear", roles[0][1], roles[-1][2]
    return type(value), [(n, p.shape) for n, p in value.named_parameters()]


def _named(value: Any) -> str:
    """Return what to call a layer in a message: with its sizes, where it is no container of others."""
    container = isinstance(value, Layer) and any(True for _ in value.children())
    return repr(value) if isinstance(value, Layer) and not container else type(value).__name__


def _unknown(file: str, name: str, path: str) -> str:
    return f"{file!r} holds {name} at {path}, which is not of tinytorch: pass `model`, one made like it"
