"""The largest and the average of each patch of images, forward and backward."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tinytorch.kernels.choice import Kernel, compiled_or_none, fits
from tinytorch.kernels.convolution import Window, columns_reference, folded_reference

Array = NDArray[np.floating]
Winners = NDArray[np.int32]

# Below this NumPy's copies of slices take no longer than the compiled call.
_SMALLEST = 512


def largest(x: Array, window: Window) -> tuple[Array, Winners]:
    """Return the largest of each patch, and which of its pixels that is.

    Args:
        x: images, shape (N, C, H, W).
        window: the patches; what they see beyond the image does not count.

    Returns:
        Shapes (N, C, H', W') twice; pixels are counted along the rows of the patch. The first of equal pixels
        is taken, and a NaN is larger than anything.
    """
    if fits(_SMALLEST, x) and (kernel := _largest_kernel()) is not None:
        shape = (*x.shape[:2], *window.positions(*x.shape[2:]))
        out, winners = np.empty(shape, np.float32), np.empty(shape, np.int32)
        kernel(x, out, winners, *window.kernel, *window.stride, *window.padding)
        return out, winners
    return largest_reference(x, window)


def largest_backward(g: Array, winners: Winners, shape: tuple[int, ...], window: Window) -> Array:
    """Return the gradient with respect to images of `shape`: each patch gives its to its largest pixel."""
    fitting = winners.shape == g.shape and winners.flags.carray and 0 not in shape
    if fitting and fits(_SMALLEST, g) and (kernel := _backward_kernel()) is not None:
        of_x = np.zeros(shape, np.float32)
        kernel(g, winners, of_x, window.kernel[1], *window.stride, *window.padding)
        return of_x
    return largest_backward_reference(g, winners, shape, window)


def largest_reference(x: Array, window: Window) -> tuple[Array, Winners]:
    """`largest` in NumPy."""
    ph, pw = window.padding
    padded = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)), constant_values=-np.inf)
    split = columns_reference(padded, Window(window.kernel, window.stride, (0, 0)))
    flat = split.reshape(*split.shape[:2], -1, *split.shape[4:])
    winners = np.argmax(flat, axis=2)  # NaN counts as largest
    out: Array = np.take_along_axis(flat, winners[:, :, None], axis=2)[:, :, 0]
    # Among pixels of -inf, as beyond the image, the first that is of the image.
    down, across = out.shape[2:]
    first = np.maximum(0, ph - window.stride[0] * np.arange(down))[:, None] * window.kernel[1]
    first = first + np.maximum(0, pw - window.stride[1] * np.arange(across))
    return out, np.where(np.isneginf(out), first, winners).astype(np.int32)


def largest_backward_reference(g: Array, winners: Winners, shape: tuple[int, ...], window: Window) -> Array:
    """`largest_backward` in NumPy."""
    kh, kw = window.kernel
    chosen = winners[:, :, None] == np.arange(kh * kw)[:, None, None]
    share = np.where(chosen, g[:, :, None], g.dtype.type(0))  # a product with an infinite one would be NaN
    return folded_reference(share.reshape(*shape[:2], kh, kw, *g.shape[2:]), shape, window)


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
    x: Array, out: Array, winners: Winners, kh: int, kw: int, sh: int, sw: int, ph: int, pw: int
) -> None:
    n, c, height, width = x.shape
    down, across = out.shape[2:]
    for image in range(n):
        for channel in range(c):
            for i in range(down):
                best, which = out[image, channel, i], winners[image, channel, i]
                if kh == 2 and kw == 2 and sw == 2 and ph == 0 and pw == 0:
                    # By far the most common: three times as quick when all four pixels are looked at at once.
                    upper, lower = x[image, channel, i * sh], x[image, channel, i * sh + 1]
                    for j in range(across):
                        p, q, r, s = upper[2 * j], upper[2 * j + 1], lower[2 * j], lower[2 * j + 1]
                        right = (q > p) | ((q != q) & (p == p))  # noqa: PLR0124 - a NaN where none was before
                        above = q if right else p
                        other = (s > r) | ((s != s) & (r == r))  # noqa: PLR0124
                        below = s if other else r
                        down_there = (below > above) | ((below != below) & (above == above))  # noqa: PLR0124
                        best[j] = below if down_there else above
                        which[j] = np.int32(2) + np.int32(other) if down_there else np.int32(right)
                    continue
                best[:] = -np.inf
                # Where all of a patch is -inf nothing is larger: its first pixel in the image is taken.
                for j in range(across):
                    which[j] = max(0, ph - i * sh) * kw + max(0, pw - j * sw)
                for u in range(max(0, ph - i * sh), min(kh, height + ph - i * sh)):
                    line = x[image, channel, i * sh + u - ph]
                    for v in range(kw):
                        first = min(across, max(0, -((v - pw) // sw)))
                        last = min(across, max(first, (width - 1 + pw - v) // sw + 1))
                        here = np.int32(u * kw + v)
                        # Cut out first: for all the compiler knows j * sw + v - pw is negative, and the check
                        # for that keeps the loop from vectorising. A step of 2 is known to it, any other not.
                        values, held, winner = (
                            line[first * sw + v - pw :],
                            best[first:last],
                            which[first:last],
                        )
                        if sw == 2:
                            for j in range(held.size):
                                value, before = values[2 * j], held[j]
                                # The second half: a NaN where none was found before.
                                better = (value > before) | ((value != value) & (before == before))  # noqa: PLR0124
                                held[j] = value if better else before
                                winner[j] = here if better else winner[j]
                        else:
                            for j in range(held.size):
                                value, before = values[j * sw], held[j]
                                better = (value > before) | ((value != value) & (before == before))  # noqa: PLR0124
                                held[j] = value if better else before
                                winner[j] = here if better else winner[j]


def _backward(g: Array, winners: Winners, of_x: Array, kw: int, sh: int, sw: int, ph: int, pw: int) -> None:
    n, c, down, across = g.shape
    for image in range(n):
        for channel in range(c):
            for i in range(down):
                for j in range(across):
                    winner = winners[image, channel, i, j]
                    u = winner // kw
                    y, z = i * sh + u - ph, j * sw + winner - u * kw - pw
                    of_x[image, channel, y, z] += g[image, channel, i, j]


_FOUR, _WINNERS = "float32[:, :, :, ::1]", "int32[:, :, :, ::1]"


def _largest_kernel() -> Kernel | None:
    return compiled_or_none(_largest, f"void({_FOUR}, {_FOUR}, {_WINNERS}{', intp' * 6})", _agrees)


def _backward_kernel() -> Kernel | None:
    return compiled_or_none(_backward, f"void({_FOUR}, {_WINNERS}, {_FOUR}{', intp' * 5})", _backward_agrees)


_CASES = (Window((2, 2), (2, 2), (0, 0)), Window((3, 2), (1, 2), (1, 1)))


def _case() -> Array:
    x = np.random.default_rng(0).standard_normal((1, 2, 6, 5), np.float32)
    x[0, 0, 2, 2], x[0, 1, :3, :3] = np.nan, -np.inf
    return x


def _agrees(kernel: Kernel) -> bool:
    x = _case()
    for window in _CASES:
        expected, where = largest_reference(x, window)
        out, winners = np.empty_like(expected), np.empty_like(where)
        kernel(x, out, winners, *window.kernel, *window.stride, *window.padding)
        if not (np.array_equal(out, expected, equal_nan=True) and np.array_equal(winners, where)):
            return False
    return True


def _backward_agrees(kernel: Kernel) -> bool:
    x = _case()
    for window in _CASES:
        shape = (1, 2, *window.positions(6, 5))
        g = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
        winners = largest_reference(x, window)[1]
        of_x = np.zeros_like(x)
        kernel(g, winners, of_x, window.kernel[1], *window.stride, *window.padding)
        if not np.allclose(of_x, largest_backward_reference(g, winners, x.shape, window)):
            return False
    return True
