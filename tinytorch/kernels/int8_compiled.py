"""The compiled loops of INT8 layers; `int8` and `int8_images` check and prepare what goes in.

They are compiled as IEEE arithmetic is written, so that a number half-way between two steps goes the way it
does in NumPy; sums of integers may be reordered all the same.

This module imports numba, so import it only where a kernel is compiled.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba.extending import register_jitable

from tinytorch.kernels.dots import (
    PANEL,
    VARIANTS,
    dequantized_panels,
    dequantized_row,
    dot_tile,
    quantized_row,
    shifted_dots,
    weighted_panel,
)

Kernel = Callable[..., None]
#: where the range of the activations comes from: each row or image itself, fixed, or they are bytes already
DYNAMIC, STATIC, GIVEN = 0, 1, 2
# Bits of infinity, and of minus infinity in the order of `_ordered`.
_INFINITY, _MINUS_INFINITY = 0x7F800000, -0x7F800001
_TINY = 1.1754944e-38  # the smallest float32 whose inverse is finite


def linear_body(way: int) -> Kernel:
    """Return the loops of a linear layer for one of `VARIANTS`; numba compiles them."""
    most, columns = VARIANTS[way].rows, VARIANTS[way].columns
    narrow = PANEL // VARIANTS[way].lanes  # vectors in a panel
    wide = columns // narrow  # panels in a tile
    offset = VARIANTS[way].offset

    def int8_linear(
        x: Any, given: Any, panels: Any, scales: Any, sums: Any, bias: Any, mode: int, scale: Any,
        zero: Any, integers: Any, out: Any,
    ) -> None:  # fmt: skip
        n, count, last = scales.size, panels.shape[1], panels.shape[0]
        length = given.shape[0] if mode == GIVEN else x.shape[0]
        # What reaches beyond the inputs meets weights of zero, so it may hold anything.
        quantized = given if mode == GIVEN else np.empty((length, 4 * count), np.uint8)
        row_scales, zeros = np.empty(length, np.float32), np.empty(length, np.int32)
        tile = np.empty((most, wide * PANEL), np.int32)
        if mode != GIVEN:
            for i in range(length):
                row_scales[i], zeros[i] = _fixed(x[i], scale, zero) if mode == STATIC else _own(x[i])
                _quantize(x[i], row_scales[i], zeros[i], quantized[i])
        panel_bytes = count * PANEL * 4
        groups = (length + most - 1) // most
        panel = 0
        while panel < last:
            together = wide if last - panel >= wide else 1
            first = panel * PANEL
            width = min(n - first, together * PANEL)
            for group in range(groups):
                start, stop = group * length // groups, (group + 1) * length // groups
                rows, pitch, step = stop - start, quantized.shape[1], tile.shape[1]
                at, target = quantized.ctypes.data + start * pitch, tile.ctypes.data
                source_of = panels.ctypes.data + panel * panel_bytes
                if together < wide:
                    for r in range(rows):
                        dot_tile(
                            way, 1, narrow, at + r * pitch, pitch, source_of, panel_bytes, count,
                            target + 4 * r * step, step,
                        )  # fmt: skip
                elif rows == 1:
                    dot_tile(way, 1, columns, at, pitch, source_of, panel_bytes, count, target, step)
                elif rows == 2:
                    dot_tile(way, 2, columns, at, pitch, source_of, panel_bytes, count, target, step)
                elif rows == 3:
                    dot_tile(way, 3, columns, at, pitch, source_of, panel_bytes, count, target, step)
                elif rows == 4:
                    dot_tile(way, 4, columns, at, pitch, source_of, panel_bytes, count, target, step)
                elif rows == 5:
                    dot_tile(way, 5, columns, at, pitch, source_of, panel_bytes, count, target, step)
                else:
                    dot_tile(way, 6, columns, at, pitch, source_of, panel_bytes, count, target, step)
                for r in range(stop - start):
                    i, source = start + r, tile[r]
                    if mode == GIVEN:
                        for j in range(width):
                            integers[i, first + j] = source[j] + offset * sums[first + j]
                    else:
                        whole, done = width // PANEL, width - width % PANEL
                        dequantized_panels(
                            source.ctypes.data, sums.ctypes.data + 4 * first, scales.ctypes.data + 4 * first,
                            bias.ctypes.data + 4 * first, zeros[i] - offset, row_scales[i], whole,
                            out.ctypes.data + 4 * (i * n + first),
                        )  # fmt: skip
                        for j in range(done, width):
                            total = np.float32(source[j] - (zeros[i] - offset) * sums[first + j])
                            out[i, first + j] = total * (scales[first + j] * row_scales[i]) + bias[first + j]
            panel += together

    return int8_linear


def image_body(way: int) -> Kernel:
    """Return the loops of a convolution of stride 1 for one of `VARIANTS`; numba compiles them."""
    rows, across_tile = VARIANTS[way].image_rows, VARIANTS[way].image_columns * VARIANTS[way].lanes
    offset = VARIANTS[way].offset

    def int8_correlate(
        x: Any, weights: Any, scales: Any, sums: Any, bias: Any, mode: int, fixed_scale: Any,
        fixed_zero: Any, shifts: Any, size: int, span: int, high: int, wide: int, steps: Any, out: Any,
    ) -> None:  # fmt: skip
        down, across, count = out.shape[2], out.shape[3], shifts.size
        block_rows = weights.shape[2]
        line, tile = np.empty(size, np.int32), np.empty((rows, span), np.int32)
        for image in range(x.shape[0]):
            flat = x[image].reshape(x[image].size)
            scale, zero = _own(flat) if mode == DYNAMIC else _fixed(flat, fixed_scale, fixed_zero)
            _lay_out(x[image], scale, zero, line, high, wide, steps)
            for first in range(0, scales.size, rows):
                block, inside = first // block_rows, first % block_rows
                at = weights.ctypes.data + 4 * (block * count * block_rows + inside)
                for start in range(0, span, across_tile):
                    shifted_dots(
                        way, line.ctypes.data + 4 * start, shifts.ctypes.data, at, 4 * block_rows, count,
                        tile.ctypes.data + 4 * start, span,
                    )  # fmt: skip
                for r in range(min(rows, scales.size - first)):
                    o = first + r
                    taken, factor, added = (zero - offset) * sums[o], scale * scales[o], bias[o]
                    for i in range(down):
                        source = tile.ctypes.data + 4 * (r * span + i * wide)
                        target = out.ctypes.data + 4 * ((image * scales.size + o) * down + i) * across
                        if across >= 16:
                            dequantized_row(16, source, taken, factor, added, across, target)
                        elif across >= 8:
                            dequantized_row(8, source, taken, factor, added, across, target)
                        else:
                            dequantized_row(1, source, taken, factor, added, across, target)

    return int8_correlate


def weight_only(x: Any, panels: Any, scales: Any, bias: Any, sums: Any, out: Any) -> None:
    """Multiply rows of floats by weights that become floats in registers."""
    count = panels.shape[1]
    for i in range(x.shape[0]):
        for panel in range(panels.shape[0]):
            weighted_panel(
                x.ctypes.data + 4 * i * x.shape[1], panels.ctypes.data + panel * count * PANEL * 4, count,
                sums.ctypes.data,
            )  # fmt: skip
            first = panel * PANEL
            for j in range(min(PANEL, scales.size - first)):
                out[i, first + j] = sums[j] * scales[first + j] + bias[first + j]


@register_jitable
def _own(row: Any) -> tuple[Any, Any]:
    """Return scale and zero point of a row's own range; NaN where it is not finite."""
    bits = row.view(np.int32)
    low = high = np.int32(0)  # the range holds zero
    for k in range(bits.size):
        value = _ordered(bits[k])
        high, low = max(high, value), min(low, value)
    if high >= np.int32(_INFINITY) or low <= np.int32(_MINUS_INFINITY):
        return np.float32(np.nan), np.int32(0)
    bottom = np.float64(np.int32(_ordered(low)).view(np.float32))
    top = np.float64(np.int32(_ordered(high)).view(np.float32))
    if top == bottom:
        return np.float32(1), np.int32(0)
    scale = np.float32(max((top - bottom) / 255, _TINY))
    return scale, np.int32(np.rint(-bottom / scale))


@register_jitable
def _fixed(row: Any, scale: Any, zero: Any) -> tuple[Any, Any]:
    """Return the scale and zero point that are given; NaN where the row is not finite."""
    bits = row.view(np.int32)
    high = np.int32(0)
    for k in range(bits.size):
        high = max(high, np.int32(bits[k] & np.int32(0x7FFFFFFF)))
    return np.float32(np.nan) if high >= np.int32(_INFINITY) else np.float32(scale), np.int32(zero)


@register_jitable
def _ordered(bits: Any) -> Any:
    """Return the bits of a float as an integer of the same order, and back; integers vectorise."""
    return np.int32(bits ^ ((bits >> np.int32(31)) & np.int32(0x7FFFFFFF)))


@register_jitable
def _quantize(row: Any, scale: Any, zero: Any, out: Any) -> None:
    if np.isnan(scale):
        out[:] = 0
        return
    inverse, low, high = np.float32(1) / scale, np.float32(-zero), np.float32(255 - zero)
    for k in range(row.size):
        out[k] = np.uint8(np.int32(np.rint(min(max(row[k] * inverse, low), high))) + zero)


@register_jitable
def _lay_out(planes: Any, scale: Any, zero: Any, line: Any, high: int, wide: int, steps: Any) -> None:
    """Quantize an image (C, H, W) into the line: four channels in each int32, zero points around.

    With steps of more than one, the pixels that a kernel element can meet are those of one phase, and lie
    together: so every step is one in its phase. `steps` holds the steps and the paddings.
    """
    c, height, width = planes.shape
    down, across, ph, pw = steps[0], steps[1], steps[2], steps[3]
    line[:] = zero * np.int32(0x01010101)
    if np.isnan(scale):
        return
    inverse = np.float32(1) / scale
    if width == 0:  # all is padding, and the loops over rows take at least one number
        return
    for group in range((c + 3) // 4):
        for i in range(height):
            row = ((group * down + (i + ph) % down) * across * high) + (i + ph) // down
            first = planes.ctypes.data + 4 * (4 * group * height + i) * width
            # Where channels are missing their weights are zero, and any bytes will do.
            plane, most = 4 * height * width, c - 1 - 4 * group
            second, third = first + min(1, most) * plane, first + min(2, most) * plane
            fourth = first + min(3, most) * plane
            if across > 1:
                _spread(planes, 4 * group, i, inverse, zero, line, row, high, wide, across, pw)
                continue
            target = line.ctypes.data + 4 * (row * wide + pw)
            if width >= 16:
                quantized_row(16, first, second, third, fourth, inverse, zero, width, target)
            elif width >= 8:
                quantized_row(8, first, second, third, fourth, inverse, zero, width, target)
            else:
                quantized_row(1, first, second, third, fourth, inverse, zero, width, target)


@register_jitable
def _spread(
    planes: Any, channel: int, i: int, inverse: Any, zero: Any, line: Any, row: int, high: int, wide: int,
    across: int, pw: int,
) -> None:  # fmt: skip
    """Quantize row `i` of four channels into the phases of its columns."""
    low, high_value = np.float32(-zero), np.float32(255 - zero)
    for j in range(planes.shape[2]):
        together = np.int32(0)
        for part in range(min(4, planes.shape[0] - channel)):
            value = min(max(planes[channel + part, i, j] * inverse, low), high_value)
            together |= np.int32((np.int32(np.rint(value)) + zero) << np.int32(8 * part))
        line[(row + (j + pw) % across * high) * wide + (j + pw) // across] = together
