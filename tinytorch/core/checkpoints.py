"""Files of arrays with a checksum, and training that can be resumed from them.

A file is in the safetensors format, which holds arrays and text and can run nothing. Its header names
the SHA-256 of the whole file, computed with zeros in the place of that number.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tinytorch.core.layers import Layer
from tinytorch.core.random import generator

if TYPE_CHECKING:
    from tinytorch.core.training import Trainer

Arrays = dict[str, np.ndarray[Any, Any]]

_NO_DIGEST = "0" * 64
_FORMAT = "tinytorch/1"


def write_arrays(path: str | Path, arrays: Mapping[str, np.ndarray[Any, Any]], metadata: Any) -> None:
    """Write arrays and what JSON can say to one file, completely or not at all.

    Args:
        path: the file, whatever its suffix; one that is there is replaced at the end.
        arrays: of booleans, integers or floats.
        metadata: goes through JSON.

    Raises:
        OSError: the file cannot be written, as where its folder does not exist.
    """
    from safetensors.numpy import save

    text = json.dumps(metadata, default=_plain)
    header = {"format": _FORMAT, "metadata": text, "sha256": _NO_DIGEST}
    content = _in_order(save({name: np.asarray(array, order="C") for name, array in arrays.items()}, header))
    _write(Path(os.path.realpath(path)), _with_digest(content, hashlib.sha256(content).hexdigest()))


def _in_order(content: bytes) -> bytes:
    """Return a file with its metadata in order, so that the same model gives the same bytes."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # the arrays stay aligned
    return len(text).to_bytes(8, "little") + text + content[8 + length :]


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
        if hashlib.sha256(zeroed).hexdigest() == header["sha256"] and header["format"] == _FORMAT:
            return load(content), json.loads(header["metadata"])
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError):
        pass  # however it fails, the bytes are not those that were written
    raise ValueError(
        f"{str(path)!r} is damaged or was not written by tinytorch, or by another version of it: use "
        "another copy of the file"
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
        if n not in differing
        and bit_generator_name(rng.bit_generator.state) != bit_generator_name(metadata["random"][n])
    ]
    if differing:
        raise ValueError(f"{str(path)!r} has other random states than this model: {', '.join(differing)}")
    changes = trainer.model.state_changes(state)  # checks
    trainer.optimizer.load_state_dict(_under("optimizer/", arrays))  # checks, then assigns
    for change in changes:
        change()
    for n, rng in generators.items():
        rng.bit_generator.state = metadata["random"][n]
    trainer.optimizer.lr = metadata["lr"]
    trainer.epoch, trainer.step = metadata["epoch"], metadata["step"]
    trainer.history = metadata["history"]


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


def bit_generator_name(state: Any) -> Any:
    """Return which bit generator a state belongs to; None where it is no state."""
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
    if not path.parent.is_dir():
        why = f"the folder {str(path.parent)!r} does not exist: make it, or write to another one"
        raise FileNotFoundError(errno.ENOENT, why, str(path))
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
