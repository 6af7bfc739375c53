"""Columns of samples as compressed text, for files that stay small and exact."""

from __future__ import annotations

import base64
import binascii
import zlib
from typing import Any

import numpy as np

# Almost an hour of pairs at the highest rate. Text that claims to hold more would fill its reader's memory.
MOST_VALUES = 1 << 25

_WIDTHS = (1, 2, 4, 8)


class PackingError(ValueError):
    """Text that `pack` did not write, or that was damaged since."""


def pack(values: np.ndarray[Any, Any]) -> dict[str, Any]:
    """Write a one-dimensional array of booleans or integers of zero or more as text.

    The values become the smallest unsigned type that holds them, little-endian, all lowest bytes first, then
    all second bytes and so on (durations differ in their low bytes only, so that the rest compresses to
    nothing), then zlib, then base64.

    Raises:
        ValueError: another kind of array, or one that is too long to be read again.
    """
    if len(values) > MOST_VALUES:
        raise ValueError(f"at most {MOST_VALUES} values are packed, got {len(values)}")
    if values.ndim != 1 or values.dtype.kind not in "biu" or (values.size and int(values.min()) < 0):
        raise ValueError(
            f"only flat arrays of integers of zero or more are packed, got {values.dtype} {values.shape}"
        )
    small = np.min_scalar_type(int(values.max()) if values.size else 0).newbyteorder("<")
    narrow = np.ascontiguousarray(values.astype(small))
    planes = narrow.view(np.uint8).reshape(len(values), narrow.itemsize).T
    text = base64.b64encode(zlib.compress(planes.tobytes(), 9)).decode("ascii")
    return {
        "type": "bool" if values.dtype.kind == "b" else "int",
        "width": narrow.itemsize,
        "length": len(values),
        "data": text,
    }


def unpack(packed: Any) -> np.ndarray[Any, Any]:
    """Read the array that `pack` wrote: int64, or bool.

    Raises:
        PackingError: the text is damaged, or is not what it says it is.
    """
    match packed:
        case {"type": "int" | "bool" as kind, "width": int(width), "length": int(length), "data": str(text)}:
            pass
        case _:
            raise PackingError("samples need `type`, `width`, `length` and `data`")
    if width not in _WIDTHS or not 0 <= length <= MOST_VALUES:
        raise PackingError(f"samples of {width} bytes, {length} of them, are not of this format")
    raw = _decompressed(text, width * length)
    planes = np.frombuffer(raw, dtype=np.uint8).reshape(width, length)
    values = np.ascontiguousarray(planes.T).view(f"<u{width}").reshape(length)
    largest = int(values.max()) if length else 0
    if largest > (1 if kind == "bool" else np.iinfo(np.int64).max):
        raise PackingError(f"samples of type {kind!r} hold {largest}")
    return values.astype(np.bool_ if kind == "bool" else np.int64)


def _decompressed(text: str, size: int) -> bytes:
    """Exactly `size` bytes, whatever else the text may unfold to."""
    unpacker = zlib.decompressobj()
    try:
        raw = unpacker.decompress(base64.b64decode(text, validate=True), size + 1)
    except (binascii.Error, ValueError, zlib.error) as error:
        raise PackingError(f"samples are damaged ({error})") from None
    if len(raw) != size or not unpacker.eof or unpacker.unused_data:
        raise PackingError(f"samples are damaged (not the {size} bytes that they should be)")
    return raw
