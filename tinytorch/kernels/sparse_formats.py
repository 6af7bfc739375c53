"""Matrices without their zeros, in formats that are smaller than an array.

A matrix of (inputs, outputs) is cut into panels of 256 inputs. Entries stand panel by panel, in a panel
output by output, and in an output by input. There are three formats:

- "csr": the value of each entry and, in one byte, its input inside the panel; and how many entries there
  are in each panel for each output.
- "bitmask": the values, and a bit for each place.
- "dense": all values, zeros too, in the shape (inputs, outputs).

Values are float32, or int8 with a scale for each output.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tinytorch.kernels import FloatArray

#: inputs whose columns a product keeps close: 256 of 32 numbers are 32 kB, and an index fits one byte
PANEL = 256
FORMATS = ("dense", "csr", "bitmask")
VALUES = ("float32", "int8")


class Packed(NamedTuple):
    """A matrix in one of the formats.

    Attributes:
        shape: (inputs, outputs).
        format: one of `FORMATS`.
        values: float32 or int8, shape (entries,), for "dense" (inputs, outputs).
        counts: for "csr", entries of each panel and output, uint16 of shape (panels, outputs).
        indices: for "csr", uint8 of shape (entries,).
        mask: for "bitmask", uint8 of shape (outputs * ceil(inputs / 8),): panel by panel, output by output,
            the first input in the lowest bit.
        scale: of each output, float32, for int8 values.
    """

    shape: tuple[int, int]
    format: str
    values: NDArray[Any]
    counts: NDArray[np.uint16] | None = None
    indices: NDArray[np.uint8] | None = None
    mask: NDArray[np.uint8] | None = None
    scale: FloatArray | None = None


def pack(weight: FloatArray, form: str = "auto", values: str = "float32") -> Packed:
    """Return a matrix in a format, by default the smallest.

    Args:
        weight: shape (inputs, outputs).
        form: "dense", "csr", "bitmask", or "auto": that of the fewest bytes.
        values: "float32", or "int8": rounded to 255 steps of max|w| / 127 for each output.

    Raises:
        ValueError: there is no such format or type, `weight` is no matrix, or it is to become int8 and holds
            NaN or infinity.
    """
    if form not in ("auto", *FORMATS):
        raise ValueError(f"`format` must be one of auto, {', '.join(FORMATS)}, got {form!r}")
    if values not in VALUES:
        raise ValueError(f"`values` must be one of {', '.join(VALUES)}, got {values!r}")
    if weight.ndim != 2:
        raise ValueError(f"`weight` must have shape (inputs, outputs), got {weight.shape}")
    scale, stored = _quantized(weight) if values == "int8" else (None, np.asarray(weight, np.float32))
    inputs, outputs = shape = stored.shape
    chosen = smallest_format(shape, int(np.count_nonzero(stored)), values) if form == "auto" else form
    if chosen == "dense":
        return Packed(shape, chosen, np.array(stored, order="C"), scale=scale)
    by_output = np.ascontiguousarray(stored.T)
    panels = [by_output[:, first : first + PANEL] for first in range(0, inputs, PANEL)]
    kept = [panel != 0 for panel in panels]
    entries = _joined([panel[k] for panel, k in zip(panels, kept, strict=True)], stored.dtype)
    if chosen == "bitmask":
        bits = [np.packbits(k, axis=1, bitorder="little").reshape(-1) for k in kept]
        return Packed(shape, chosen, entries, mask=_joined(bits, np.uint8), scale=scale)
    counts = np.array([k.sum(axis=1) for k in kept], np.uint16).reshape(len(panels), outputs)
    places = _joined([np.nonzero(k)[1] for k in kept], np.uint8)
    return Packed(shape, chosen, entries, counts, places, scale=scale)


def smallest_format(shape: tuple[int, int], entries: int, values: str) -> str:
    """Return the format of the fewest bytes for so many entries that are not zero."""
    inputs, outputs = shape
    each = 1 if values == "int8" else 4
    sizes = {
        "dense": each * inputs * outputs,
        "csr": (each + 1) * entries + 2 * outputs * -(-inputs // PANEL),
        "bitmask": each * entries + outputs * -(-inputs // 8),
    }
    return min(sizes, key=sizes.__getitem__)


def stored_bytes(packed: Packed) -> int:
    """Return the bytes of all arrays."""
    return sum(part.nbytes for part in packed if isinstance(part, np.ndarray))


def unpack(packed: Packed) -> FloatArray:
    """Return the matrix as an array of shape (inputs, outputs)."""
    if packed.format == "dense":
        dense = packed.values.astype(np.float32)
    else:
        outputs, inputs, values = coordinates(packed)
        dense = np.zeros(packed.shape, np.float32)
        dense[inputs, outputs] = values
    return dense if packed.scale is None else dense * packed.scale


def places_reference(
    mask: NDArray[np.uint8], shape: tuple[int, int]
) -> tuple[NDArray[np.uint16], NDArray[np.uint8]]:
    """Return the counts and indices of a mask, in NumPy."""
    inputs, outputs = shape
    counts, places, at = [], [], 0
    for first in range(0, inputs, PANEL):
        width = min(PANEL, inputs - first)
        size = -(-width // 8)
        part = mask[at : at + outputs * size].reshape(outputs, size)
        bits = np.unpackbits(part, axis=1, count=width, bitorder="little")
        counts.append(bits.sum(axis=1))
        places.append(np.nonzero(bits)[1])
        at += outputs * size
    return np.array(counts, np.uint16).reshape(-1, outputs), _joined(places, np.uint8)


def coordinates(packed: Packed) -> tuple[Any, Any, Any]:
    """Return output, input and value of each entry."""
    counts, indices = (
        (packed.counts, packed.indices)
        if packed.counts is not None
        else places_reference(packed.mask, packed.shape)  # type: ignore[arg-type]
    )
    assert counts is not None
    assert indices is not None
    panels, outputs = counts.shape
    rows = np.repeat(np.tile(np.arange(outputs), panels), counts.reshape(-1))
    first = np.repeat(PANEL * np.arange(panels), counts.sum(axis=1, dtype=np.intp))
    return rows, first + indices, packed.values.astype(np.float32)


def problem(packed: Packed) -> str | None:
    """Return what is wrong with the arrays of a matrix; they may come from anywhere."""
    inputs, outputs = packed.shape
    values, counts, mask = packed.values, packed.counts, packed.mask
    panels = -(-inputs // PANEL)
    if (values.dtype == np.int8) != (packed.scale is not None):
        return "int8 values need a scale, and others have none"
    if not fitting(values, values.dtype, (inputs, outputs) if packed.format == "dense" else (values.size,)):
        return f"values have shape {values.shape} in the format {packed.format!r}"
    if values.dtype not in (np.float32, np.int8):
        return f"values are {values.dtype}"
    if packed.format == "dense":
        return None
    if packed.format == "csr":
        if packed.indices is None or not fitting(packed.indices, np.uint8, (values.size,)):
            return "there must be one index of one byte for each value"
        if counts is None or not fitting(counts, np.uint16, (panels, outputs)):
            return f"counts must be uint16 of shape {(panels, outputs)}"
        if int(np.maximum.reduce(counts, axis=None, initial=0)) > PANEL:
            return f"an output has {counts.max()} entries in a panel of {PANEL} inputs"
        stored = int(np.add.reduce(counts, axis=None, dtype=np.intp))
        return None if stored == values.size else f"counts add up to {stored}, not to {values.size}"
    if packed.format != "bitmask":
        return f"there is no format {packed.format!r}"
    if mask is None or not fitting(mask, np.uint8, (outputs * -(-inputs // 8),)):
        return f"the mask must be uint8 of shape {(outputs * -(-inputs // 8),)}"
    used = inputs % 8  # bits of the last byte of each output, of which there is one for every eight inputs
    size = -(-(inputs % PANEL) // 8)
    if used and np.any(mask[mask.size - outputs * size :][size - 1 :: size] >> used):
        return f"the mask has bits beyond its {inputs} inputs"
    stored = int(np.bitwise_count(mask).sum(dtype=np.intp))
    return None if stored == values.size else f"the mask has {stored} bits for {values.size} values"


def fitting(array: NDArray[Any], dtype: Any, shape: tuple[int, ...]) -> bool:
    """Return whether an array is contiguous and of this type and shape."""
    return array.dtype == dtype and array.shape == shape and array.flags.c_contiguous


def _joined(parts: list[Any], dtype: Any) -> NDArray[Any]:
    return np.concatenate(parts).astype(dtype) if parts else np.empty(0, dtype)


def _quantized(weight: FloatArray) -> tuple[FloatArray, NDArray[Any]]:
    if not np.isfinite(weight).all():
        raise ValueError("`weight` must be finite to be stored as int8, got NaN or infinity: use float32")
    largest = np.abs(weight).max(axis=0, initial=0)
    # A smaller step would be subnormal, so far off that weights were cut to 127 steps of it.
    steps = np.maximum(largest / np.float32(127), np.finfo(np.float32).tiny)
    scale = np.where(largest > 0, steps, 1).astype(np.float32)
    return scale, np.clip(np.rint(weight / scale), -127, 127).astype(np.int8)
