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
_BIT_GENERATORS = ("PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64")


def save_model(model: Layer, path: str | Path) -> None:
    """Write a model to one file: its arrays, and what layers it is made of.

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
            place; layers in it that were of another class when saved, such as quantized ones, are replaced.

    Raises:
        ValueError: the file is damaged, names a class that only `model` could provide, or does not fit
            `model`; then nothing was changed.
    """
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
                return self.made[first]
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
        olds = list(old) if isinstance(old, list | tuple) and len(old) == len(items) else [None] * len(items)
        values = [
            self.value(item, o, f"{path}.{i}") for i, (item, o) in enumerate(zip(items, olds, strict=True))
        ]
        if kind == "Window":
            from tinytorch.kernels.convolution import Window

            return Window(*values)
        return values if kind == "list" else tuple(values)

    def layer(self, node: dict[str, Any], old: Any, path: str) -> Layer:
        """Fill the layer of the skeleton, or make a new one where it is of another class."""
        name, attributes = node["layer"], node["attributes"]
        cls = _layer_class(name) if node["known"] else None
        kept = isinstance(old, Layer) and type(old).__name__ == name and (cls is None or type(old) is cls)
        kept = kept and self.first_use(old)
        if not kept and cls is None:
            raise ValueError(_unknown(self.file, name, path))
        layer: Layer = old if kept else Layer.__new__(cls or Layer)
        self.made[path] = layer
        before = vars(layer) if kept else {}
        extra = [n for n, v in before.items() if n not in attributes and isinstance(v, Tensor | Layer)]
        if extra:
            raise ValueError(f"{self.file!r} does not fit `model`: it lacks {path}.{extra[0]}")
        values = {n: self.value(item, before.get(n), f"{path}.{n}") for n, item in attributes.items()}
        if kept and "training" not in values:
            values["training"] = True
        self.changes.append(lambda: vars(layer).update(values))
        return layer

    def array(self, array: Any, old: Any, path: str, kind: str) -> Any:
        """Return the tensor of the skeleton, to be overwritten, or a new one; arrays are always new.

        Whoever took an array of the skeleton, such as packed weights, then sees that it is another one.
        """
        target = old._array if isinstance(old, Tensor) else old
        if isinstance(target, np.ndarray) and target.shape != array.shape:
            raise ValueError(
                f"{self.file!r} does not fit `model`: {path} has shape {array.shape} in the file and "
                f"{target.shape} in the model"
            )
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


def _unknown(file: str, name: str, path: str) -> str:
    return f"{file!r} holds {name} at {path}, which is not of tinytorch: pass `model`, one made like it"
