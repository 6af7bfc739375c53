"""The largest and the average of each patch of images, forward and backward."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tinytorch.kernels.choice import Kernel, compiled_or_none, fits
from tinytorch.kernels.convolution import Window, columns_reference, folded_reference

Array = NDArray[np.floating]

# Below this NumPy's copies of slices take no longer than the compiled call.
_SMALLEST = 512


def largest(x: Array, window: Window) -> tuple[Array, NDArray[np.intp]]:
    """Return the largest of each patch, and which pixel of its image that is.

    Args:
        x: images, shape (N, C, H, W).
        window: the patches; what they see beyond the image does not count.

    Returns:
        Shapes (N, C, H', W') twice; pixels are counted along the rows. The first of equal pixels is taken,
        and a NaN is larger than anything.
    """
    if fits(_SMALLEST, x) and (kernel := _largest_kernel()) is not None:
        shape = (*x.shape[:2], *window.positions(*x.shape[2:]))
        out, pixels = np.empty(shape, np.float32), np.empty(shape, np.intp)
        kernel(x, out, pixels, *window.kernel, *window.stride, *window.padding)
        return out, pixels
    return largest_reference(x, window)


def largest_backward(g: Array, pixels: NDArray[np.intp], shape: tuple[int, ...]) -> Array:
    """Return the gradient with respect to images of `shape`: each patch gives its to its largest pixel."""
    n, c, height, width = shape
    planes = pixels.reshape(n * c, -1) + np.arange(n * c)[:, None] * (height * width)
    of_x = np.bincount(planes.ravel(), g.ravel(), n * c * height * width)
    return of_x.reshape(shape).astype(g.dtype, copy=False)


def largest_reference(x: Array, window: Window) -> tuple[Array, NDArray[np.intp]]:
    """`largest` in NumPy."""
    ph, pw = window.padding
    padded = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)), constant_values=-np.inf)
    inside = Window(window.kernel, window.stride, (0, 0))
    split = columns_reference(padded, inside)
    flat = split.reshape(*split.shape[:2], -1, *split.shape[4:])
    winners = np.argmax(flat, axis=2)  # NaN counts as largest
    u, v = np.divmod(winners, window.kernel[1])
    rows = np.arange(split.shape[4])[:, None] * window.stride[0] - ph + u
    across = np.arange(split.shape[5]) * window.stride[1] - pw + v
    pixels: NDArray[np.intp] = rows * x.shape[3] + across
    return np.take_along_axis(flat, winners[:, :, None], axis=2)[:, :, 0], pixels


def average(x: Array, window: Window) -> Array:
    """Return the mean of each patch, (N, C, H, W) to (N, C, H', W'); zeros around the image count."""
    out: Array = columns_reference(x, window).mean(axis=(2, 3))
    return out


def average_backward(g: Array, shape: tuple[int, ...], window: Window) -> Array:
    """Return the gradient with respect to images of `shape`: each patch gives every pixel an equal share."""
    share = g / g.dtype.type(window.kernel[0] * window.kernel[1])
    split = np.broadcast_to(share[:, :, None, None], (*g.shape[:2], *window.kernel, *g.shape[2:]))
    return folded_reference(split, shape, window)


def _largest(
    x: Array, out: Array, pixels: NDArray[np.intp], kh: int, kw: int, sh: int, sw: int, ph: int, pw: int
) -> None:
    n, c, height, width = x.shape
    down, across = out.shape[2:]
    for image in range(n):
        for channel in range(c):
            plane = x[image, channel]
            for i in range(down):
                top = i * sh - ph
                for j in range(across):
                    left = j * sw - pw
                    y, z = max(top, 0), max(left, 0)
                    best, where = plane[y, z], y * width + z
                    for p in range(y, min(top + kh, height)):
                        for q in range(z, min(left + kw, width)):
                            value = plane[p, q]
                            # The second half: a NaN where none was found before.
                            if value > best or (value != value and best == best):  # noqa: PLR0124
                                best, where = value, p * width + q
                    out[image, channel, i, j] = best
                    pixels[image, channel, i, j] = where


def _largest_kernel() -> Kernel | None:
    four = "float32[:, :, :, ::1]"
    return compiled_or_none(_largest, f"void({four}, {four}, intp[:, :, :, ::1]{', intp' * 6})", _agrees)


def _agrees(kernel: Kernel) -> bool:
    x = np.random.default_rng(0).standard_normal((1, 2, 6, 5), np.float32)
    x[0, 0, 2, 2] = np.nan
    for window in (Window((2, 2), (2, 2), (0, 0)), Window((3, 2), (1, 2), (1, 1))):
        expected, where = largest_reference(x, window)
        out, pixels = np.empty_like(expected), np.empty_like(where)
        kernel(x, out, pixels, *window.kernel, *window.stride, *window.padding)
        if not (np.array_equal(out, expected, equal_nan=True) and np.array_equal(pixels, where)):
            return False
    return True
