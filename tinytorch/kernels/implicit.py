"""Convolution of stride 1 without columns: an implicit matrix product over padded planes.

A padded plane is read as one line of numbers, row after row. A kernel element (u, v) then sees, for every
output position at once, that line shifted by u * width + v, so a table with one offset for each kernel
element replaces the columns. Positions that reach from one row into the next are computed too, and left
out when the result is copied: a few in a hundred for usual sizes, and vectors need not end with the rows.

This module imports numba, so import it only where a kernel is compiled.
"""

from __future__ import annotations

import functools

import numpy as np
from numba.extending import register_jitable
from numpy.typing import NDArray

from tinytorch.kernels.choice import Kernel, compiled_or_none
from tinytorch.kernels.tiles import (
    COLUMNS,
    LANES,
    ROWS,
    add_products,
    copy_numbers,
    sums_of_one_shifted,
    sums_of_shifted,
)

Array = NDArray[np.float32]
Offsets = NDArray[np.int64]
Pair = tuple[int, int]

_TILE = LANES * COLUMNS
# Vectors for each row may be so many times those of one line: their results need not be copied.
_MORE_VECTORS = 1.1


def correlate(x: Array, weight: Array, bias: Array | None, padding: Pair) -> Array | None:
    """Return the correlation of images with kernels, (N, O, H', W'); None where it cannot be compiled.

    Args:
        x: contiguous float32, shape (N, C, H, W).
        weight: float32, shape (O, C, kh, kw).
        bias: float32, shape (O,), or None.
        padding: zeros above and below, left and right.
    """
    kernel = _correlate_kernel()
    return None if kernel is None else _run_correlate(kernel, x, weight, bias, padding)


def of_weight(x: Array, g: Array, shape: tuple[int, ...], padding: Pair) -> Array | None:
    """Return the gradient with respect to kernels of `shape`; None where it cannot be compiled.

    Args:
        x: images, contiguous float32, shape (N, C, H, W).
        g: the gradient with respect to the correlation, contiguous float32, shape (N, O, H', W').
        shape: (O, C, kh, kw).
        padding: as in `correlate`.
    """
    kernel = _of_weight_kernel()
    return None if kernel is None else _run_of_weight(kernel, x, g, shape, padding)


def _run_correlate(kernel: Kernel, x: Array, weight: Array, bias: Array | None, padding: Pair) -> Array:
    high, wide, down, across = _sizes(x, weight.shape, padding)
    o, c, kh, kw = weight.shape
    blocks, used = -(-o // ROWS), c * kh * kw
    matrix = np.ascontiguousarray(weight, np.float32).reshape(o, used)
    packed, added = np.zeros((blocks, used, ROWS), np.float32), np.zeros(blocks * ROWS, np.float32)
    if bias is not None:
        added[:o] = bias
    places, targets, direct = _vectors(down, across, wide)
    lanes, length = (min(across, LANES), down * across) if direct else (LANES, int(places[-1]) + LANES)
    spare = np.empty((ROWS, length), np.float32)  # for results that have gaps, and those of no output
    out = np.empty((len(x), o, down, across), np.float32)
    kernel(
        x, matrix, packed, _shifts(c, kh, kw, high, wide), added, _line(c, high, wide), wide, *padding,
        places, targets, lanes, direct, spare, out,
    )  # fmt: skip
    return out


def _run_of_weight(kernel: Kernel, x: Array, g: Array, shape: tuple[int, ...], padding: Pair) -> Array:
    high, wide, down, across = _sizes(x, shape, padding)
    o, c, kh, kw = shape
    if g.shape != (len(x), o, down, across) or g.dtype != np.float32 or not g.flags.c_contiguous:
        raise ValueError(
            f"`g` must be contiguous float32 of shape {(len(x), o, down, across)}, got {g.shape}"
        )
    shifts = _shifts(c, kh, kw, high, wide)
    used = shifts.size
    shifts = np.append(shifts, np.zeros(-used % COLUMNS, np.int64))  # whole tiles; what is added is not used
    spread = np.zeros((-(-o // ROWS) * ROWS, -(-((down - 1) * wide + across) // LANES) * LANES), np.float32)
    sums = np.zeros((len(spread), shifts.size, LANES), np.float32)
    kernel(x, g, shifts, _line(c, high, wide), wide, *padding, spread, sums)
    total: Array = sums[:o, :used].sum(axis=2).reshape(shape)
    return total


def _sizes(x: Array, shape: tuple[int, ...], padding: Pair) -> tuple[int, int, int, int]:
    """Return height and width of padded images and of the result, for arrays that fit each other.

    Compiled code reads by address: nothing but this stands between a wrong shape and foreign memory.
    """
    if not (x.ndim == len(shape) == 4 and x.shape[1] == shape[1] and min(padding) >= 0):
        raise ValueError(f"`x` must be images for kernels of shape {shape}, got shape {x.shape}")
    if x.dtype != np.float32 or not x.flags.c_contiguous:
        raise ValueError(f"`x` must be contiguous float32, got {x.dtype} of strides {x.strides}")
    high, wide = (size + 2 * pad for size, pad in zip(x.shape[2:], padding, strict=True))
    if not (1 <= shape[2] <= high and 1 <= shape[3] <= wide):
        raise ValueError(f"kernels of shape {shape} do not fit into padded images of {(high, wide)}")
    return high, wide, high - shape[2] + 1, wide - shape[3] + 1


@functools.lru_cache(maxsize=256)
def _shifts(c: int, kh: int, kw: int, high: int, wide: int) -> Offsets:
    """Return where in the line of an image each kernel element starts to read."""
    planes, rows, columns = np.ogrid[:c, :kh, :kw]
    return np.asarray((planes * high + rows) * wide + columns, np.int64).reshape(-1)


def _line(c: int, high: int, wide: int) -> Array:
    """Return zeros for the padded planes of an image, and for what the last tile reads beyond them."""
    return np.zeros(c * high * wide + _TILE, np.float32)


@functools.lru_cache(maxsize=256)
def _vectors(down: int, across: int, wide: int) -> tuple[Offsets, Offsets, bool]:
    """Return where vectors of output positions start in the line, where their results go, and if directly.

    Either every row has vectors of its own, of which the last ends with the row and may repeat positions of
    the one before, and which go to their places in the result. Or all rows are read as one line, into which
    the gaps between them count, and so is their result: fewer vectors, where rows fill theirs badly.
    """
    together = np.arange(0, (down - 1) * wide + across, LANES, dtype=np.int64)
    starts = np.maximum(np.minimum(np.arange(0, across, LANES), across - LANES), 0)
    if down * starts.size > _MORE_VECTORS * together.size:
        return together, together, False
    rows = np.arange(down, dtype=np.int64)[:, None]
    return (rows * wide + starts).reshape(-1), (rows * across + starts).reshape(-1), True


def _correlate(
    x: Array, matrix: Array, packed: Array, shifts: Offsets, bias: Array, line: Array, wide: int, ph: int,
    pw: int, places: Offsets, targets: Offsets, lanes: int, direct: bool, spare: Array, out: Array,
) -> None:  # fmt: skip
    o, down, across = out.shape[1:]
    for r in range(o):
        for k in range(shifts.size):
            packed[r // ROWS, k, r % ROWS] = matrix[r, k]
    rows = np.empty(ROWS, np.int64)
    for image in range(x.shape[0]):
        _lay_out(x[image], line, wide, ph, pw)
        for block in range(packed.shape[0]):
            planes = out.ctypes.data + 4 * (image * o + block * ROWS) * down * across
            used = min(ROWS, o - block * ROWS)
            for r in range(ROWS):
                own = direct and r < used
                rows[r] = planes + 4 * r * down * across if own else spare[r].ctypes.data
            _sum_up(packed[block], bias[block * ROWS :], line, shifts, places, rows, targets, lanes)
            if not direct:
                for r in range(used):
                    for i in range(down):
                        target = planes + 4 * (r * down + i) * across
                        copy_numbers(rows[r] + 4 * i * wide, target, across)


@register_jitable
def _sum_up(
    weights: Array, bias: Array, line: Array, shifts: Offsets, places: Offsets, rows: Offsets,
    targets: Offsets, lanes: int,
) -> None:  # fmt: skip
    """Compute ROWS outputs at all places: tiles of COLUMNS vectors, and then of one."""
    first = 0
    while first < places.size:
        where, whither = places.ctypes.data + 8 * first, targets.ctypes.data + 8 * first
        if first + COLUMNS <= places.size:
            sums_of_shifted(
                line.ctypes.data, shifts.ctypes.data, weights.ctypes.data, shifts.size, where,
                bias.ctypes.data, rows.ctypes.data, whither, lanes,
            )  # fmt: skip
            first += COLUMNS
        else:
            sums_of_one_shifted(
                line.ctypes.data, shifts.ctypes.data, weights.ctypes.data, shifts.size, where,
                bias.ctypes.data, rows.ctypes.data, whither, lanes,
            )  # fmt: skip
            first += 1


def _of_weight(
    x: Array, g: Array, shifts: Offsets, line: Array, wide: int, ph: int, pw: int, spread: Array, sums: Array
) -> None:
    o, down, across = g.shape[1:]
    for image in range(x.shape[0]):
        _lay_out(x[image], line, wide, ph, pw)
        for channel in range(o):  # the line's positions, with zeros where one reaches into the next row
            source = g.ctypes.data + 4 * (image * o + channel) * down * across
            target = spread.ctypes.data + 4 * channel * spread.shape[1]
            for i in range(down):
                copy_numbers(source + 4 * i * across, target + 4 * i * wide, across)
        for block in range(0, spread.shape[0], ROWS):
            for group in range(0, shifts.size, COLUMNS):
                add_products(
                    spread.ctypes.data + 4 * block * spread.shape[1], spread.shape[1],
                    line.ctypes.data, shifts.ctypes.data + 8 * group, spread.shape[1] // LANES,
                    sums.ctypes.data + 4 * LANES * (block * shifts.size + group), shifts.size * LANES,
                )  # fmt: skip


@register_jitable
def _lay_out(planes: Array, line: Array, wide: int, ph: int, pw: int) -> None:
    """Copy the planes (C, H, W) of an image into the line, whose padding stays zero."""
    c, height, width = planes.shape
    for channel in range(c):
        for i in range(height):
            start = (channel * (height + 2 * ph) + i + ph) * wide + pw
            row = planes.ctypes.data + 4 * (channel * height + i) * width
            copy_numbers(row, line.ctypes.data + 4 * start, width)


_ONE, _TWO, _THREE, _FOUR = (f"float32[{':, ' * axes}::1]" for axes in range(4))


def _correlate_kernel() -> Kernel | None:
    offsets = "int64[::1]"
    signature = (
        f"void({_FOUR}, {_TWO}, {_THREE}, {offsets}, {_ONE}, {_ONE}, intp, intp, intp, {offsets}, {offsets}, "
        f"intp, boolean, {_TWO}, {_FOUR})"
    )
    return compiled_or_none(_correlate, signature, _correlate_agrees)


def _of_weight_kernel() -> Kernel | None:
    signature = f"void({_FOUR}, {_FOUR}, int64[::1], {_ONE}, intp, intp, intp, {_TWO}, {_THREE})"
    return compiled_or_none(_of_weight, signature, _of_weight_agrees)


def _case() -> tuple[Array, Array, Array, Array]:
    """Return images, kernels, biases and a result whose sums are exact, for a padding of (1, 2)."""
    rng = np.random.default_rng(0)
    shapes = (2, 3, 9, 11), (9, 3, 3, 2), (9,), (2, 9, 9, 14)
    x, weight, bias, g = (rng.integers(-9, 10, shape).astype(np.float32) for shape in shapes)
    return x, weight, bias, g


def _views(x: Array) -> Array:
    """Return every patch of the case: shape (2, 3, 9, W + 3, 3, 2)."""
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (2, 2)))
    return np.lib.stride_tricks.sliding_window_view(padded, (3, 2), (2, 3))


def _correlate_agrees(kernel: Kernel) -> bool:
    x, weight, bias, _ = _case()
    # Rows read as one line; rows that fill a part of a vector; rows of vectors that overlap.
    for width in (4, 11, 26):
        images = np.ascontiguousarray(np.resize(x, (*x.shape[:3], width)))
        expected = np.einsum("ncijuv,ocuv->noij", _views(images), weight) + bias[:, None, None]
        if not np.array_equal(_run_correlate(kernel, images, weight, bias, (1, 2)), expected):
            return False
    return True


def _of_weight_agrees(kernel: Kernel) -> bool:
    x, weight, _, g = _case()
    expected = np.einsum("ncijuv,noij->ocuv", _views(x), g)
    return np.array_equal(_run_of_weight(kernel, x, g, weight.shape, (1, 2)), expected)
