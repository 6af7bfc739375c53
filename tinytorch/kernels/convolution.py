"""Convolution as matrix products: patches of the images become columns, and the kernels a matrix.

`columns` lays the patches out and `folded`, its adjoint, adds columns back onto the pixels they came
from. With them the forward pass and both gradients are one product of BLAS for each image. Steps of one
pixel need no columns: `implicit` then multiplies the same matrices without laying them out.
"""

from __future__ import annotations

from types import ModuleType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tinytorch.kernels.choice import Kernel, compiled_or_none, enabled, fits, usable

Array = NDArray[np.floating]

# Below this NumPy's copies of slices take no longer than the compiled call.
_SMALLEST = 2048
# Below this many products columns and BLAS take no longer (single images of 8 x 8 and less).
_FEWEST_PRODUCTS = 20_000
# The same for the gradient of images: 0.5x at 37 thousand products, 1.5x at 590 thousand.
_FEWEST_FOR_INPUT = 200_000
# A tile computes several channels at once, and fewer leave it mostly empty: 1.0x with 3 channels.
_FEWEST_CHANNELS = 4
# Kernel elements beyond which their sums, a vector for each, leave the cache and BLAS is faster, columns
# included: 1.8x at 37 thousand, 1.2x at 83 thousand, 1.0x at 147 thousand, 0.3x at 590 thousand.
_MOST_SUMS = 83_000


class Window(NamedTuple):
    """Where a kernel is put: (height, width) of the kernel, of its steps, and of the zeros on each side."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]

    def positions(self, height: int, width: int) -> tuple[int, int]:
        """Return how many positions there are, down and across an image of this size."""
        down, across = (
            (size + 2 * pad - length) // step + 1
            for size, length, step, pad in zip((height, width), *self, strict=True)
        )
        return down, across


def forward(x: Array, weight: Array, bias: Array | None, window: Window) -> tuple[Array, Array | None]:
    """Return the convolution, and the columns if it made them; `of_weight` needs them again.

    Args:
        x: images, shape (N, C, H, W).
        weight: kernels, shape (O, C, kh, kw). They are not flipped: it is a correlation.
        bias: shape (O,), or None.
        window: where the kernels are put.

    Returns:
        Shapes (N, O, H', W') and (N, C kh kw, H' W').
    """
    down, across = window.positions(*x.shape[2:])
    if _tiled(window, len(x) * weight.size * down * across, x, weight):
        out: Array | None = _implicit().correlate(usable(x), usable(weight), bias, window.padding)
        if out is not None:
            return out, None
    patches = columns(x, window)
    out = np.matmul(weight.reshape(len(weight), -1), patches)
    if bias is not None:
        out += bias[:, None]
    return out.reshape(len(x), len(weight), down, across), patches


def of_input(g: Array, weight: Array, shape: tuple[int, ...], window: Window) -> Array:
    """Return the gradient with respect to images of `shape`, from that of the result, (N, O, H', W').

    For stride 1 it is the correlation of the gradient with the kernels turned by half a circle.
    """
    around = window.kernel[0] - 1 - window.padding[0], window.kernel[1] - 1 - window.padding[1]
    products = g.size * weight[0].size
    enough = shape[1] >= _FEWEST_CHANNELS and products >= _FEWEST_FOR_INPUT
    if enough and min(around) >= 0 and _tiled(window, products, g, weight):
        turned = np.ascontiguousarray(weight[:, :, ::-1, ::-1].swapaxes(0, 1))
        of_x: Array | None = _implicit().correlate(usable(g), turned, None, around)
        if of_x is not None:
            return of_x
    patches: Array = np.matmul(weight.reshape(len(weight), -1).T, g.reshape(*g.shape[:2], -1))
    return folded(patches, shape, window)


def of_weight(g: Array, x: Array, window: Window, patches: Array | None = None) -> Array:
    """Return the gradient with respect to the kernels, from that of the result, (N, O, H', W').

    Args:
        g: the gradient with respect to the result.
        x: the images.
        window: where the kernels were put.
        patches: what `forward` returned beside the result.
    """
    shape = (g.shape[1], x.shape[1], *window.kernel)
    elements = int(np.prod(shape))
    if patches is None and elements <= _MOST_SUMS and _tiled(window, elements * g[:, 0].size, x, g):
        tiled: Array | None = _implicit().of_weight(usable(x), usable(g), shape, window.padding)
        # Between the rows zeros meet pixels: with an infinite one that is NaN, and not part of the gradient.
        if tiled is not None and np.isfinite(tiled).all():
            return tiled
    patches = columns(x, window) if patches is None else patches
    each: Array = np.matmul(g.reshape(*g.shape[:2], -1), patches.swapaxes(1, 2))
    total: Array = np.add.reduce(each, axis=0)
    return total.reshape(shape)


def _tiled(window: Window, products: int, *arrays: Array) -> bool:
    """Return whether the implicit product is worth a call: for stride 1, float32 and enough to do."""
    return (
        window.stride == (1, 1)
        and products >= _FEWEST_PRODUCTS
        and all(array.dtype == np.float32 for array in arrays)
        and enabled()
    )


def _implicit() -> ModuleType:
    from tinytorch.kernels import implicit  # imports numba

    return implicit


def columns(x: Array, window: Window) -> Array:
    """Return all patches that the window sees as columns: (N, C, H, W) to (N, C kh kw, H' W')."""
    n, c = x.shape[:2]
    down, across = window.positions(*x.shape[2:])
    if window == Window((1, 1), (1, 1), (0, 0)):
        return x.reshape(n, c, down * across)
    if fits(_SMALLEST, x) and (kernel := _columns_kernel()) is not None:
        out = np.empty((n, c, *window.kernel, down, across), np.float32)
        kernel(x, out, *window.stride, *window.padding)
    else:
        out = columns_reference(x, window)
    return out.reshape(n, c * window.kernel[0] * window.kernel[1], down * across)  # of no images too


def folded(patches: Array, shape: tuple[int, ...], window: Window) -> Array:
    """Add columns (N, C kh kw, H' W') onto the pixels they came from, in images of `shape`."""
    if window == Window((1, 1), (1, 1), (0, 0)):
        return patches.reshape(shape)
    split = patches.reshape(*shape[:2], *window.kernel, *window.positions(*shape[2:]))
    if fits(_SMALLEST, split) and (kernel := _folded_kernel()) is not None:
        out = np.zeros(shape, np.float32)
        kernel(split, out, *window.stride, *window.padding)
        return out
    return folded_reference(split, shape, window)


def columns_reference(x: Array, window: Window) -> Array:
    """`columns` in NumPy, in the shape (N, C, kh, kw, H', W')."""
    (kh, kw), (ph, pw) = window.kernel, window.padding
    padded = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)))
    out = np.empty((*x.shape[:2], kh, kw, *window.positions(*x.shape[2:])), x.dtype)
    for u in range(kh):
        for v in range(kw):
            out[:, :, u, v] = padded[_seen(u, v, window, out.shape[4:])]
    return out


def folded_reference(split: Array, shape: tuple[int, ...], window: Window) -> Array:
    """`folded` in NumPy, from the shape (N, C, kh, kw, H', W')."""
    (kh, kw), (ph, pw) = window.kernel, window.padding
    padded = np.zeros((*shape[:2], shape[2] + 2 * ph, shape[3] + 2 * pw), split.dtype)
    for u in range(kh):
        for v in range(kw):
            padded[_seen(u, v, window, split.shape[4:])] += split[:, :, u, v]
    return padded[:, :, ph : ph + shape[2], pw : pw + shape[3]]


def _seen(u: int, v: int, window: Window, positions: tuple[int, ...]) -> tuple[slice, ...]:
    """Return the pixels of padded images that stand under kernel element (u, v), at all positions."""
    (sh, sw), (down, across) = window.stride, positions
    return (slice(None), slice(None), slice(u, u + sh * down, sh), slice(v, v + sw * across, sw))


def _columns(x: Array, out: Array, sh: int, sw: int, ph: int, pw: int) -> None:
    n, c, height, width = x.shape
    kh, kw, down, across = out.shape[2:]
    shifted = sh == 1 and sw == 1 and across == width
    for image in range(n):
        for channel in range(c):
            for u in range(kh):
                # Positions first to last - 1 lie inside the image, those before and after on the padding.
                top = min(down, max(0, -((u - ph) // sh)))
                bottom = min(down, max(top, (height - 1 + ph - u) // sh + 1))
                for v in range(kw):
                    first = min(across, max(0, -((v - pw) // sw)))
                    last = min(across, max(first, (width - 1 + pw - v) // sw + 1))
                    block = out[image, channel, u, v]
                    block[:top] = 0
                    block[bottom:] = 0
                    if shifted:
                        # The image as one long row, moved: what runs over the ends of rows is cleared below.
                        move = (u - ph) * width + v - pw
                        start, end = max(top * width, -move), min(bottom * width, height * width - move)
                        source = x[image, channel].reshape(height * width)[start + move : end + move]
                        target = block.reshape(down * across)[start:end]
                        for j in range(target.size):
                            target[j] = source[j]
                    for i in range(top, bottom):
                        row = block[i]
                        row[:first] = 0
                        row[last:] = 0
                        if not shifted:
                            line = x[image, channel, i * sh + u - ph]
                            begin = first * sw + v - pw
                            for j in range(last - first):
                                row[first + j] = line[begin + j * sw]


def _folded(split: Array, out: Array, sh: int, sw: int, ph: int, pw: int) -> None:
    n, c, height, width = out.shape
    kh, kw, down, across = split.shape[2:]
    for image in range(n):
        for channel in range(c):
            for u in range(kh):
                for v in range(kw):
                    first = min(across, max(0, -((v - pw) // sw)))
                    last = min(across, max(first, (width - 1 + pw - v) // sw + 1))
                    start = first * sw + v - pw
                    for i in range(down):
                        y = i * sh + u - ph
                        if y < 0 or y >= height:
                            continue
                        row = split[image, channel, u, v, i, first:last]
                        if sw == 1:
                            target = out[image, channel, y, start : start + last - first]
                            for j in range(row.size):
                                target[j] += row[j]
                        else:
                            for j in range(row.size):
                                out[image, channel, y, start + j * sw] += row[j]


_FOUR, _SIX = "float32[:, :, :, ::1]", "float32[:, :, :, :, :, ::1]"
_STEPS = "intp, intp, intp, intp"


def _columns_kernel() -> Kernel | None:
    return compiled_or_none(_columns, f"void({_FOUR}, {_SIX}, {_STEPS})", _columns_agrees)


def _folded_kernel() -> Kernel | None:
    return compiled_or_none(_folded, f"void({_SIX}, {_FOUR}, {_STEPS})", _folded_agrees)


_CASES = (Window((3, 2), (1, 1), (1, 0)), Window((2, 3), (2, 3), (0, 2)), Window((1, 4), (1, 2), (2, 3)))


def _columns_agrees(kernel: Kernel) -> bool:
    x = np.arange(60, dtype=np.float32).reshape(1, 2, 6, 5)
    for window in _CASES:
        expected = columns_reference(x, window)
        out = np.full_like(expected, np.nan)
        kernel(x, out, *window.stride, *window.padding)
        if not np.array_equal(out, expected):
            return False
    return True


def _folded_agrees(kernel: Kernel) -> bool:
    for window in _CASES:
        shape = (1, 2, *window.kernel, *window.positions(6, 5))
        split = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
        out = np.zeros((1, 2, 6, 5), np.float32)
        kernel(split, out, *window.stride, *window.padding)
        if not np.array_equal(out, folded_reference(split, out.shape, window)):
            return False
    return True
