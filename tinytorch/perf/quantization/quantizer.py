"""Quantizing tensors: q = round(x / scale) + zero_point, within -128 and 127."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinytorch.core.tensor import Tensor, array_of, wrap

Bytes = NDArray[np.int8]
Scales = NDArray[np.float32]
Zeros = NDArray[np.int32]

#: a scale below has no inverse in float32, and one above is none
SMALLEST_SCALE, LARGEST_SCALE = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)


def affine(low: Any, high: Any) -> tuple[Any, Any]:
    """Return scales and zero points of ranges, each widened to hold zero, such that all of int8 is used.

    Source: Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference", section 2.1.
    """
    bottom = np.minimum(np.asarray(low, np.float64), 0)
    top = np.maximum(np.asarray(high, np.float64), 0)
    scale = np.where(top > bottom, np.maximum((top - bottom) / 255, SMALLEST_SCALE), 1).astype(np.float32)
    return scale, (np.rint(-bottom / scale) - 128).astype(np.int32)


def symmetric(low: Any, high: Any) -> tuple[Any, Any]:
    """Return scales and zero points, which are 0, of ranges widened to be symmetric about zero."""
    largest = np.maximum(np.abs(np.asarray(low, np.float64)), np.abs(np.asarray(high, np.float64)))
    scale = np.where(largest > 0, np.maximum(largest / 127, SMALLEST_SCALE), 1).astype(np.float32)
    return scale, np.zeros(scale.shape, np.int32)


def quantized(x: Any, scale: Any, zero_point: Any, low: int = -128) -> Bytes:
    """Return int8: the nearest steps, clipped to `low` and 127."""
    steps = np.asarray(np.asarray(x, np.float32) / np.asarray(scale, np.float32))
    np.rint(steps, out=steps)
    steps += np.asarray(zero_point, np.float32)
    return np.asarray(np.clip(steps, low, 127, out=steps), np.int8)


def finite(x: Any, name: str) -> NDArray[np.float32]:
    """Return `x` as float32.

    Raises:
        ValueError: it is empty, or holds NaN or infinity.
    """
    array = array_of(x, name)
    if array.size == 0:
        raise ValueError(f"`{name}` must not be empty, got shape {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"`{name}` must be finite, got {int((~np.isfinite(array)).sum())} NaN or infinite")
    return array


class INT8Quantizer:
    """Turns tensors into int8 and back, with the range from the smallest to the largest element.

    Args:
        symmetric: whether zero is byte 0 and both signs get the same range; otherwise the range is that of
            the elements and zero, and a zero point says which byte is zero.
        per_channel: whether every channel has a scale: an output, so a column, of a matrix of weights
            (in, out), a kernel of those of a convolution (O, C, kh, kw).
        axis: of the channels, where it is another one.

    Raises:
        ValueError: `axis` is given without `per_channel`.
    """

    def __init__(self, symmetric: bool = True, per_channel: bool = False, *, axis: int | None = None) -> None:
        if axis is not None and not per_channel:
            raise ValueError(f"`axis` (={axis}) is that of the channels: it needs per_channel=True")
        self.symmetric = symmetric
        self.per_channel = per_channel
        self.axis = axis

    def quantize_tensor(self, x: Any) -> tuple[Bytes, Any, Any]:
        """Return int8 of the shape of `x`, the scale and the zero point.

        Both are numbers, or arrays that broadcast with `x` where every channel has its own. Nothing is
        clipped: (q - zero_point) * scale is at most half a scale from `x`.

        Raises:
            ValueError: `x` is empty or not finite, or has no axis of channels.
        """
        array = finite(x, "x")
        axes = self._reduced(array)
        low, high = (f(array, axis=axes, keepdims=axes is not None) for f in (np.min, np.max))
        scale, zero_point = (symmetric if self.symmetric else affine)(low, high)
        q = quantized(array, scale, zero_point)
        if axes is None:
            return q, float(scale), int(zero_point)
        if array.ndim == 2 and self._axis(array) == 1:  # a vector broadcasts along the last axis
            return q, scale[0], zero_point[0]
        return q, scale, zero_point

    def dequantize_tensor(self, q: Any, scale: Any, zero_point: Any) -> Tensor:
        """Return float32, (q - zero_point) * scale; half a step beyond the largest float32 is that number.

        Args:
            q: int8, of any shape.
            scale: a number, or an array that broadcasts with `q`; also one number for each kernel (O,) of
                `q` (O, C, kh, kw).
            zero_point: the same.

        Raises:
            ValueError: shapes do not fit, or `q` is not of integers.
        """
        bytes_ = np.asarray(q)
        if bytes_.dtype.kind not in "iu":
            raise ValueError(f"`q` must hold integers, got {bytes_.dtype}")
        scales, zeros = (_along(np.asarray(value), bytes_.ndim) for value in (scale, zero_point))
        try:
            exact = np.asarray((bytes_.astype(np.float64) - zeros) * scales)
        except ValueError:
            exact = np.empty(0)
        if exact.shape != bytes_.shape:
            raise ValueError(
                f"`scale` and `zero_point` must broadcast with `q` of shape {bytes_.shape}, got shapes "
                f"{scales.shape} and {zeros.shape}"
            )
        if np.isfinite(scales).all():
            np.clip(exact, -LARGEST_SCALE, LARGEST_SCALE, out=exact)
        return wrap(exact.astype(np.float32))

    def _axis(self, array: NDArray[np.float32]) -> int:
        if self.axis is None:
            return array.ndim - 1 if array.ndim <= 2 else 0
        return self.axis % max(array.ndim, 1)

    def _reduced(self, array: NDArray[np.float32]) -> tuple[int, ...] | None:
        if not self.per_channel:
            return None
        if array.ndim < 2 or (self.axis is not None and not -array.ndim <= self.axis < array.ndim):
            raise ValueError(
                f"per_channel=True needs a tensor of two or more axes, and axis {self.axis} in it, got shape "
                f"{array.shape}"
            )
        return tuple(i for i in range(array.ndim) if i != self._axis(array))

    def __repr__(self) -> str:
        return f"INT8Quantizer(symmetric={self.symmetric}, per_channel={self.per_channel})"


def _along(values: NDArray[Any], axes: int) -> NDArray[Any]:
    """Give one number for each kernel the axes that it needs to broadcast."""
    return values.reshape(-1, 1, 1, 1) if values.ndim == 1 and values.size > 1 and axes == 4 else values
