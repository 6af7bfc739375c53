"""INT8 convolution: an implicit matrix product over quantized images, as in `implicit`, but of bytes.

The bytes of four channels lie together, so that a vector holds as many positions as it has int32, and one
instruction adds four channels of all of them. Positions that reach from one row into the next are computed
too, and left out when the result is copied.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tinytorch.kernels import FloatArray, compiled
from tinytorch.kernels.convolution import Window, columns_reference
from tinytorch.kernels.int8 import (
    GROUP,
    Bytes,
    Integers,
    Kernel,
    Range,
    agreed,
    called,
    check_lengths,
    check_range,
    check_sums,
    chosen_way,
    quantized_rows,
)

Shape = tuple[int, int, int, int]

#: output channels whose weights lie together
BLOCK = 8
# Positions of the widest tile of any variant.
_WIDEST = 48


class PackedKernels(NamedTuple):
    """The kernels of a convolution, in the order in which compiled loops read them.

    Attributes:
        blocks: int8, shape (O / 8, C / 4 kh kw, 8, 4), padded.
        scales: float32, of each output channel.
        sums: int32, of the weights of each output channel.
        bias: float32, of each output channel.
    """

    blocks: Bytes
    scales: FloatArray
    sums: Integers
    bias: FloatArray


def pack(q: Bytes, scales: FloatArray, bias: FloatArray | None) -> PackedKernels:
    """Pack quantized kernels (O, C, kh, kw), and what belongs to each output channel.

    Raises:
        ValueError: sums of this many products could leave int32, a weight is -128, or there are not as many
            scales and biases as output channels.
    """
    o, c, kh, kw = q.shape
    check_sums(q, (1, 2, 3))
    check_lengths(o, scales, bias)
    padded = np.zeros((-(-o // BLOCK) * BLOCK, -(-c // GROUP) * GROUP, kh, kw), np.int8)
    padded[:o, :c] = q
    grouped = padded.reshape(-1, BLOCK, padded.shape[1] // GROUP, GROUP, kh, kw).transpose(0, 2, 4, 5, 1, 3)
    return PackedKernels(
        np.ascontiguousarray(grouped).reshape(len(grouped), -1, BLOCK, GROUP),
        np.array(scales, np.float32),
        q.sum(axis=(1, 2, 3), dtype=np.int32),
        np.zeros(o, np.float32) if bias is None else np.array(bias, np.float32),
    )


def unpack(blocks: Bytes, shape: Shape) -> Bytes:
    """Return the kernels of shape (O, C, kh, kw) out of their blocks."""
    o, c, kh, kw = shape
    groups = -(-c // GROUP)
    grouped = blocks.reshape(len(blocks), groups, kh, kw, BLOCK, GROUP).transpose(0, 4, 1, 5, 2, 3)
    return np.ascontiguousarray(grouped.reshape(-1, groups * GROUP, kh, kw)[:o, :c])


def forward(
    x: FloatArray, packed: PackedKernels, channels: int, window: Window, fixed: Range | None
) -> FloatArray:
    """Return the convolution (N, O, H', W').

    Args:
        x: images, contiguous float32, shape (N, channels, H, W). An image that holds NaN or infinity
            becomes NaN.
        packed: of `pack`.
        channels: of the images.
        window: where the kernels are put.
        fixed: range of the activations; that of each image unless given.

    Raises:
        ValueError: the arrays do not fit each other, or no byte can have this range.
    """
    _check(x, packed, channels, window)
    check_range(fixed)
    way = chosen_way()
    kernel = None if isinstance(way, str) else image_kernel(way)
    if kernel is None:
        return forward_reference(x, packed, channels, window, fixed)
    return _run(kernel, x, packed, window, fixed)


def forward_reference(
    x: FloatArray, packed: PackedKernels, channels: int, window: Window, fixed: Range | None
) -> FloatArray:
    """The same in NumPy."""
    n, o = len(x), packed.scales.size
    quantized, image_scales, zeros = quantized_rows(x.reshape(n, -1), fixed)
    # Around an image are zeros: with zero points taken off first, padding is zero as it is for floats.
    centred = quantized.astype(np.float64) - zeros[:, None]
    down, across = window.positions(*x.shape[2:])
    patches = columns_reference(centred.reshape(x.shape), window).reshape(n, -1, down * across)
    weights = unpack(packed.blocks, (o, channels, *window.kernel)).reshape(o, -1)
    exact = np.matmul(weights.astype(np.float64), patches).astype(np.float32)
    total = exact * (packed.scales[:, None] * image_scales[:, None, None]) + packed.bias[:, None]
    return np.asarray(total, np.float32).reshape(n, o, down, across)


@functools.cache
def image_kernel(way: int) -> Kernel | None:
    """Return the compiled loops of a variant; None where they disagree with NumPy, which is warned of."""
    from tinytorch.kernels.int8_compiled import image_body

    one, four = "float32[::1]", "float32[:,:,:,::1]"
    constant = "Array(int64, 1, 'C', readonly=True)"
    signature = (
        f"void({four}, int8[:,:,:,::1], {one}, int32[::1], {one}, intp, float32, int32, {constant}, "
        f"intp, intp, intp, intp, {constant}, {four})"
    )
    return agreed(compiled(image_body(way), signature), _agrees, "int8_correlate", way)


class _Layout(NamedTuple):
    """Where in the line of an image everything lies."""

    high: int
    wide: int
    length: int
    span: int
    shifts: NDArray[np.int64]
    steps: NDArray[np.int64]


@functools.lru_cache(maxsize=256)
def _layout(channels: int, height: int, width: int, window: Window) -> _Layout:
    (kh, kw), (down, across), padding = window
    high, wide = (
        -(-(size + 2 * pad) // step)
        for size, pad, step in zip((height, width), padding, (down, across), strict=True)
    )
    groups, u, v = np.ogrid[: -(-channels // GROUP), :kh, :kw]
    phases = (groups * down + u % down) * across + v % across
    shifts = np.asarray((phases * high + u // down) * wide + v // across, np.int64).reshape(-1)
    positions = window.positions(height, width)
    span = -(-((positions[0] - 1) * wide + positions[1]) // _WIDEST) * _WIDEST
    steps = np.array((down, across, *padding), np.int64)
    for array in (shifts, steps):
        array.flags.writeable = False
    length = -(-channels // GROUP) * down * across * high * wide + span
    return _Layout(high, wide, length, span, shifts, steps)


def _run(
    kernel: Kernel, x: FloatArray, packed: PackedKernels, window: Window, fixed: Range | None
) -> FloatArray:
    at = _layout(*x.shape[1:], window)
    out = np.empty((len(x), packed.scales.size, *window.positions(*x.shape[2:])), np.float32)
    mode, scale, zero = (0, 1.0, 0) if fixed is None else (1, *fixed)
    called(
        kernel, x, packed.blocks, packed.scales, packed.sums, packed.bias, mode, scale, zero, at.shifts,
        at.length, at.span, at.high, at.wide, at.steps, out,
    )  # fmt: skip
    return out


def _check(x: FloatArray, packed: PackedKernels, channels: int, window: Window) -> None:
    """Refuse what compiled code would misread: it goes by addresses."""
    if x.dtype != np.float32 or x.ndim != 4 or x.shape[1] != channels or not x.flags.c_contiguous:
        raise ValueError(
            f"`x` must be contiguous float32 of shape (N, {channels}, H, W), got {x.dtype} {x.shape}"
        )
    kh, kw = window.kernel
    o = packed.scales.size
    expected = (-(-o // BLOCK), -(-channels // GROUP) * kh * kw, BLOCK, GROUP)
    blocks = packed.blocks
    if blocks.shape != expected or blocks.dtype != np.int8 or not blocks.flags.c_contiguous:
        raise ValueError(f"`packed` must hold contiguous int8 of shape {expected}, got {blocks.shape}")
    if not packed.scales.shape == packed.sums.shape == packed.bias.shape == (o,):
        raise ValueError(f"`packed` must hold {o} scales, sums and biases")
    if min(window.positions(*x.shape[2:])) < 1 or min(window.padding) < 0 or min(window.stride) < 1:
        raise ValueError(f"kernels of {window} do not fit into images of {x.shape[2:]}")


def _agrees(kernel: Kernel) -> bool:
    rng = np.random.default_rng(0)
    windows = Window((3, 2), (1, 1), (1, 2)), Window((3, 3), (2, 3), (1, 0)), Window((1, 3), (1, 1), (0, 1))
    for c, o, width, window in zip((5, 4, 3), (11, 8, 3), (19, 12, 6), windows, strict=True):
        x = rng.standard_normal((4, c, 9, width), np.float32)
        x[1], x[2], x[3, 0, 1, 1] = np.abs(x[1]), 0, np.nan
        q = rng.integers(-127, 128, (o, c, *window.kernel)).astype(np.int8)
        packed = pack(q, rng.random(o, np.float32), rng.standard_normal(o, np.float32))
        for fixed in (None, Range(0.02, 100)):
            expected = forward_reference(x, packed, c, window, fixed)
            found = _run(kernel, x, packed, window, fixed)
            if not np.allclose(found, expected, rtol=1e-5, atol=1e-3, equal_nan=True):
                return False
    return True
