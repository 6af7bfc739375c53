"""Files of arrays: written whole or not at all, and refused when a single byte is wrong.

The format is that of safetensors, which holds arrays and text and can run nothing. Among the text is a
checksum of the whole file, computed with zeros in its own place.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

_FORMAT = "tinytorch/1"
_CHECKSUM = re.compile(rb'"sha256":"([0-9a-f]{64})"')
_NO_CHECKSUM = b'"sha256":"' + b"0" * 64 + b'"'
Arrays = dict[str, np.ndarray[Any, Any]]


def write_arrays(path: str | os.PathLike[str], arrays: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    """Write arrays, and what is said about them, to exactly `path`.

    Args:
        path: of the file; its folder exists.
        arrays: by name, of any shape and numeric type.
        about: what JSON can hold.

    Raises:
        OSError: the file cannot be written; what was there before is still there.
    """
    from safetensors.numpy import save

    contiguous = {
        name: np.ascontiguousarray(array).reshape(np.shape(array)) for name, array in arrays.items()
    }
    text = {"format": _FORMAT, "about": json.dumps(about, sort_keys=True), "sha256": "0" * 64}
    content = save(contiguous, text)
    checksum = hashlib.sha256(content).hexdigest().encode()
    _write_whole(Path(path), content.replace(_NO_CHECKSUM, b'"sha256":"' + checksum + b'"', 1))


def read_arrays(path: str | os.PathLike[str]) -> tuple[Arrays, dict[str, Any]]:
    """Read what `write_arrays` wrote.

    Raises:
        ValueError: the file is damaged, or something else.
        OSError: it cannot be read.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    content = Path(path).read_bytes()
    length = int.from_bytes(content[:8], "little")
    found = _CHECKSUM.search(content, 8, min(8 + length, len(content)))
    if found is None:
        raise ValueError(f"'{path}' is damaged, or was not written by tinytorch: it has no checksum")
    zeroed = content[: found.start()] + _NO_CHECKSUM + content[found.end() :]
    if hashlib.sha256(zeroed).hexdigest().encode() != found[1]:
        raise ValueError(f"'{path}' is damaged: its checksum does not fit")
    try:
        metadata = json.loads(content[8 : 8 + length])["__metadata__"]
        arrays, about = load(content), json.loads(metadata["about"])
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise ValueError(f"'{path}' cannot be read: {error}") from error
    if metadata.get("format") != _FORMAT:
        raise ValueError(f"'{path}' has the format {metadata.get('format')!r}, expected {_FORMAT!r}")
    return arrays, about


def _write_whole(path: Path, content: bytes) -> None:
    """Write beside `path` and put it there in one step."""
    folder = path.parent
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=folder)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise
