"""Convolution by im2col and BLAS, in the layout that is faster: what a competent person writes in NumPy."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from perfclaims import ScientificTimer

Array = NDArray[np.float32]
Convolution = Callable[[Array], Array]


def im2col_nchw(weight: Array, bias: Array) -> Convolution:
    """Patches as columns, and one product of BLAS for each image; 3x3 kernels with a border of one."""
    outputs, channels = weight.shape[:2]
    matrix = weight.reshape(outputs, -1)

    def run(x: Array) -> Array:
        n, _, height, width = x.shape
        padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
        patches = np.empty((n, channels, 3, 3, height, width), np.float32)
        for u in range(3):
            for v in range(3):
                patches[:, :, u, v] = padded[:, :, u : u + height, v : v + width]
        out = np.matmul(matrix, patches.reshape(n, channels * 9, -1))
        out += bias[:, None]
        return out.reshape(n, outputs, height, width)

    return run


def im2col_nhwc(weight: Array, bias: Array) -> Convolution:
    """Patches as rows, in which channels lie together, and one product of BLAS for all images.

    Images come and go as (N, C, H, W); what goes out is a view of that shape.
    """
    outputs, channels = weight.shape[:2]
    matrix = np.ascontiguousarray(weight.transpose(2, 3, 1, 0).reshape(-1, outputs))

    def run(x: Array) -> Array:
        n, _, height, width = x.shape
        padded = np.zeros((n, height + 2, width + 2, channels), np.float32)
        padded[:, 1:-1, 1:-1] = x.transpose(0, 2, 3, 1)
        patches = np.empty((n, height, width, 3, 3, channels), np.float32)
        for u in range(3):
            for v in range(3):
                patches[:, :, :, u, v] = padded[:, u : u + height, v : v + width]
        out = patches.reshape(-1, 9 * channels) @ matrix
        out += bias
        return out.reshape(n, height, width, outputs).transpose(0, 3, 1, 2)

    return run


@functools.cache
def faster_im2col(n: int, channels: int, side: int, outputs: int) -> Callable[[Array, Array], Convolution]:
    """The one of both ways that takes less time on images of these sizes, here and now."""
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((outputs, channels, 3, 3), dtype=np.float32)
    bias = rng.standard_normal(outputs, dtype=np.float32)
    x = rng.standard_normal((n, channels, side, side), dtype=np.float32)
    timer = ScientificTimer(budget_s=0.02)

    def duration(way: Callable[[Array, Array], Convolution]) -> float:
        return timer.measure_function(way(weight, bias), (x,)).median_time_ms

    return min((im2col_nchw, im2col_nhwc), key=duration)
