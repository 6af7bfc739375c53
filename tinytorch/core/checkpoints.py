"""Files: arrays with a checksum, training that can be resumed, and models that can be rebuilt.

A file is in the safetensors format, which holds arrays and text and can run nothing. Its header names
the SHA-256 of the whole file, computed with zeros in the place of that number.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tinytorch.core.layers import Layer
from tinytorch.core.random import generator
from tinytorch.core.tensor import Parameter, Tensor

if TYPE_CHECKING:
    from tinytorch.core.training import Trainer

Arrays = dict[str, np.ndarray[Any, Any]]

_NO_DIGEST = "0" * 64
#: where the classes are that a file may name
_MODULES = tuple(
    f"tinytorch.core.{name}"
    for name in ("layers", "activations", "losses", "spatial", "embeddings", "attention", "transformers")
)
_BIT_GENERATORS = ("PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64")


def write_arrays(path: str | Path, arrays: Mapping[str, np.ndarray[Any, Any]], metadata: Any) -> None:
    """Write arrays and what JSON can say to one file, completely or not at all.

    Args:
        path: the file, whatever its suffix; one that is there is replaced at the end.
        arrays: of booleans, integers or floats.
        metadata: goes through JSON.
    """
    from safetensors.numpy import save

    text = json.dumps(metadata, default=_plain)
    header = {"metadata": text, "sha256": _NO_DIGEST}
    content = save({name: np.asarray(array, order="C") for name, array in arrays.items()}, header)
    _write(Path(os.path.realpath(path)), _with_digest(content, hashlib.sha256(content).hexdigest()))


def read_arrays(path: str | Path) -> tuple[Arrays, Any]:
    """Return the arrays and the metadata of a file that `write_arrays` wrote.

    Raises:
        ValueError: the file is damaged, or something else.
        OSError: it cannot be read.
    """
    content = Path(path).read_bytes()
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length])["__metadata__"]
        zeroed = _with_digest(content, _NO_DIGEST, header["sha256"])
        if hashlib.sha256(zeroed).hexdigest() == header["sha256"]:
            return load(content), json.loads(header["metadata"])
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError):
        pass  # however it fails, the bytes are not those that were written
    raise ValueError(
        f"{str(path)!r} is damaged or was not written by tinytorch: use another copy of the file"
    )


def save_checkpoint(trainer: Trainer, path: str | Path) -> None:
    """Write weights, optimizer, counters, history and all random states of a trainer to one file."""
    optimizer = trainer.optimizer
    arrays = {f"model/{name}": array for name, array in trainer.model.state_dict().items()}
    arrays |= {f"optimizer/{name}": np.asarray(a) for name, a in optimizer.state_dict().items()}
    metadata = {
        "kind": "checkpoint",
        "optimizer": type(optimizer).__name__,
        "lr": optimizer.lr,
        "epoch": trainer.epoch,
        "step": trainer.step,
        "history": trainer.history,
        "random": {name: rng.bit_generator.state for name, rng in _generators(trainer.model).items()},
    }
    write_arrays(path, arrays, metadata)


def load_checkpoint(trainer: Trainer, path: str | Path) -> None:
    """Bring a trainer into the state that `save_checkpoint` found, down to the bits.

    Raises:
        ValueError: the file is damaged, or of another model or optimizer; then nothing was changed.
    """
    arrays, metadata = read_arrays(path)
    if not isinstance(metadata, dict) or metadata.get("kind") != "checkpoint":
        raise ValueError(f"{str(path)!r} is no checkpoint of a trainer: load_model() reads saved models")
    name = type(trainer.optimizer).__name__
    if metadata["optimizer"] != name:
        raise ValueError(f"{str(path)!r} was written with {metadata['optimizer']}, the trainer has {name}")
    state = _under("model/", arrays)
    _check_state(trainer.model.state_dict(), state, path)
    generators = _generators(trainer.model)
    differing = [
        n
        for n in generators.keys() ^ metadata["random"].keys()
        if n not in generators or n not in metadata["random"]
    ]
    differing += [
        n
        for n, rng in generators.items()
        if n not in differing and rng.bit_generator.state["bit_generator"] != _kind(metadata["random"][n])
    ]
    if differing:
        raise ValueError(f"{str(path)!r} has other random states than this model: {', '.join(differing)}")
    trainer.optimizer.load_state_dict(_under("optimizer/", arrays))  # checks, then assigns
    trainer.model.load_state_dict(state)
    for n, rng in generators.items():
        rng.bit_generator.state = metadata["random"][n]
    trainer.optimizer.lr = metadata["lr"]
    trainer.epoch, trainer.step = metadata["epoch"], metadata["step"]
    trainer.history = metadata["history"]


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
            name: _describe(item, f"{path}.{name}", arrays, seen) for name, item in vars(value).items()
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
        """Return the tensor or array of the skeleton, to be overwritten, or a new one."""
        target = old.data if isinstance(old, Tensor) else old
        if isinstance(target, np.ndarray):
            if target.shape != array.shape:
                raise ValueError(
                    f"{self.file!r} does not fit `model`: {path} has shape {array.shape} in the file and "
                    f"{target.shape} in the model"
                )
            self.changes.append(lambda: np.copyto(target, array, casting="unsafe"))
            return old
        if kind == "array":
            return np.array(array)
        return Parameter(array) if kind == "parameter" else Tensor(array)

    def generator(self, state: dict[str, Any], old: Any) -> np.random.Generator:
        """Return the generator of the skeleton, to be set, or a new one."""
        name = _kind(state)
        if isinstance(old, np.random.Generator) and old.bit_generator.state["bit_generator"] == name:
            self.changes.append(lambda: setattr(old.bit_generator, "state", state))
            return old
        if name not in _BIT_GENERATORS:
            raise ValueError(f"{self.file!r} names a bit generator that NumPy does not have: {name!r}")
        bits = getattr(np.random, name)()
        bits.state = state
        return np.random.Generator(bits)


def _layer_class(name: str) -> type[Layer] | None:
    """Return the layer of this package that is called so; nothing else is ever imported."""
    for module in _MODULES:
        found = vars(import_module(module)).get(name)
        if isinstance(found, type) and issubclass(found, Layer) and found.__module__ == module:
            return found
    return None


def _unknown(file: str, name: str, path: str) -> str:
    return f"{file!r} holds {name} at {path}, which is not of tinytorch: pass `model`, one made like it"


def _check_state(own: Mapping[str, Any], given: Mapping[str, Any], path: str | Path) -> None:
    differing = [f"{n} is missing in the file" for n in own if n not in given]
    differing += [f"{n} is missing in the model" for n in given if n not in own]
    differing += [
        f"{n} has shape {given[n].shape} in the file and {own[n].shape} in the model"
        for n in own
        if n in given and own[n].shape != given[n].shape
    ]
    if differing:
        more = f" and {len(differing) - 4} more" if len(differing) > 4 else ""
        raise ValueError(f"{str(path)!r} is of another model: {', '.join(differing[:4])}{more}")


def _generators(model: Layer) -> dict[str, np.random.Generator]:
    """Return every generator of a model by its dotted name, and the default one as ""."""
    found = {
        f"{path}.{name}": value
        for path, layer in model.named_layers()
        for name, value in vars(layer).items()
        if isinstance(value, np.random.Generator)
    }
    return {"": generator(), **found}


def _kind(state: Any) -> Any:
    return state.get("bit_generator") if isinstance(state, dict) else None


def _under(prefix: str, arrays: Arrays) -> Arrays:
    return {name.removeprefix(prefix): a for name, a in arrays.items() if name.startswith(prefix)}


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise ValueError(f"`metadata` must be plain values, got {type(value).__name__}")


def _with_digest(content: bytes, digest: str, old: str = _NO_DIGEST) -> bytes:
    """Replace the digest in the header; text in quotes cannot imitate it, because JSON escapes quotes."""
    before, after = (f'"sha256":"{value}"'.encode() for value in (old, digest))
    end = 8 + int.from_bytes(content[:8], "little")
    if content.count(before, 0, end) != 1:
        raise ValueError("the header must hold its digest once")
    return content[:end].replace(before, after) + content[end:]


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
