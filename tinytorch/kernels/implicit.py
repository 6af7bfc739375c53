"""Convolution of stride 1 without columns: an implicit matrix product over padded planes.

A padded plane is read as one line of numbers, row after row. A kernel element (u, v) then sees, for every
output position at once, that line shifted by u * width + v, so a table with one offset for each kernel
element replaces the columns. Positions that reach from one row into the next are computed too, and left
out when the result is copied: a few in a hundred for usual sizes, and vectors need not end with the rows.

This module imports numba, so import it only where a kernel is compiled.
"""

from __future__ import annotations

import numpy as np
from numba.extending import register_jitable
from numpy.typing import NDArray

from tinytorch.kernels.choice import Kernel, compiled_or_none
from tinytorch.kernels.tiles import COLUMNS, LANES, ROWS, add_products, sums_of_shifted

Array = NDArray[np.float32]
Offsets = NDArray[np.int64]
Pair = tuple[int, int]

_TILE = LANES * COLUMNS


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
    blocks = -(-o // ROWS)
    rows = np.zeros((blocks * ROWS, c * kh * kw), np.float32)
    rows[:o] = weight.reshape(o, -1)
    packed = np.ascontiguousarray(rows.reshape(blocks, ROWS, -1).transpose(0, 2, 1))
    added = np.zeros(o, np.float32)
    if bias is not None:
        added += bias
    span = -(-((down - 1) * wide + across) // _TILE) * _TILE
    tile, out = np.empty((ROWS, span), np.float32), np.empty((len(x), o, down, across), np.float32)
    kernel(x, packed, _shifts(c, kh, kw, high, wide), added, _line(c, high, wide), wide, *padding, tile, out)
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


def _shifts(c: int, kh: int, kw: int, high: int, wide: int) -> Offsets:
    """Return where in the line of an image each kernel element starts to read."""
    planes, rows, columns = np.ogrid[:c, :kh, :kw]
    return np.asarray((planes * high + rows) * wide + columns, np.int64).reshape(-1)


def _line(c: int, high: int, wide: int) -> Array:
    """Return zeros for the padded planes of an image, and for what the last tile reads beyond them."""
    return np.zeros(c * high * wide + _TILE, np.float32)


def _correlate(
    x: Array, weights: Array, shifts: Offsets, bias: Array, line: Array, wide: int, ph: int, pw: int,
    tile: Array, out: Array,
) -> None:  # fmt: skip
    o, down, across = out.shape[1:]
    for image in range(x.shape[0]):
        _lay_out(x[image], line, wide, ph, pw)
        for block in range(weights.shape[0]):
            for start in range(0, tile.shape[1], _TILE):
                sums_of_shifted(
                    line.ctypes.data + 4 * start, shifts.ctypes.data,
                    weights.ctypes.data + 4 * block * shifts.size * ROWS, shifts.size,
                    tile.ctypes.data + 4 * start, tile.shape[1],
                )  # fmt: skip
            first = block * ROWS
            for r in range(min(ROWS, o - first)):
                for i in range(down):
                    source, target = tile[r, i * wide : i * wide + across], out[image, first + r, i]
                    for j in range(across):
                        target[j] = source[j] + bias[first + r]


def _of_weight(
    x: Array, g: Array, shifts: Offsets, line: Array, wide: int, ph: int, pw: int, spread: Array, sums: Array
) -> None:
    o, down, across = g.shape[1:]
    for image in range(x.shape[0]):
        _lay_out(x[image], line, wide, ph, pw)
        for channel in range(o):  # the line's positions, with zeros where one reaches into the next row
            for i in range(down):
                source, target = g[image, channel, i], spread[channel, i * wide : i * wide + across]
                for j in range(across):
                    target[j] = source[j]
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
            source, target = planes[channel, i], line[start : start + width]
            for j in range(width):
                target[j] = source[j]


_ONE, _TWO, _THREE, _FOUR = (f"float32[{':, ' * axes}::1]" for axes in range(4))


def _correlate_kernel() -> Kernel | None:
    signature = f"void({_FOUR}, {_THREE}, int64[::1], {_ONE}, {_ONE}, intp, intp, intp, {_TWO}, {_FOUR})"
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
    """Return every patch of the case: shape (2, 3, 9, 14, 3, 2)."""
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (2, 2)))
    return np.lib.stride_tricks.sliding_window_view(padded, (3, 2), (2, 3))


def _correlate_agrees(kernel: Kernel) -> bool:
    x, weight, bias, _ = _case()
    expected = np.einsum("ncijuv,ocuv->noij", _views(x), weight) + bias[:, None, None]
    return np.array_equal(_run_correlate(kernel, x, weight, bias, (1, 2)), expected)


def _of_weight_agrees(kernel: Kernel) -> bool:
    x, weight, _, g = _case()
    expected = np.einsum("ncijuv,noij->ocuv", _views(x), g)
    return np.array_equal(_run_of_weight(kernel, x, g, weight.shape, (1, 2)), expected)
