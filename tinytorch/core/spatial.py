"""Layers for images, in the order (N, C, H, W): number of images, channels, height, width."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinytorch.core.autograd import Array, Vjps
from tinytorch.core.checks import fraction, positive, positive_int
from tinytorch.core.layers import Layer
from tinytorch.core.random import generator
from tinytorch.core.tensor import Parameter, Tensor, apply, as_tensor
from tinytorch.kernels import convolution, pooling
from tinytorch.kernels.convolution import Window


class Conv2d(Layer):
    """Slides kernels over images: each output pixel is the product of a kernel with the patch under it.

    Args:
        in_channels: of the images.
        out_channels: number of kernels.
        kernel_size: height and width of a kernel, one number or two.
        stride: steps down and across, one number or two.
        padding: zeros around the image, one number or two.
        bias: whether each kernel has one; it starts at zero.
        rng: for the weights, which are normal with variance 2 / (inputs of a kernel) (He et al. 2015).

    Attributes:
        weight: shape (out_channels, in_channels, kh, kw).
        bias: shape (out_channels,), or None.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        bias: bool = True,
        *,
        rng: np.random.Generator | None = None,
    ) -> None:
        self.in_channels = positive_int(in_channels, "in_channels")
        self.out_channels = positive_int(out_channels, "out_channels")
        self.window = _window(kernel_size, stride, padding)
        shape = (self.out_channels, self.in_channels, *self.window.kernel)
        self.weight = Parameter(generator(rng).normal(0, np.sqrt(2 / np.prod(shape[1:])), shape))
        self.bias = Parameter(np.zeros(self.out_channels)) if bias else None

    def forward(self, x: Any) -> Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, H', W'), H' = (H + 2 padding - kh) // stride + 1.

        Raises:
            ValueError: another number of channels or axes, no images, or images smaller than a kernel.
        """
        images = _images(self, as_tensor(x, "x"), self.in_channels, self.window)
        parameters = (self.weight,) if self.bias is None else (self.weight, self.bias)
        return apply(convolve, images, *parameters, window=self.window)

    def __repr__(self) -> str:
        return f"Conv2d({self.in_channels}, {self.out_channels}, {_described(self.window, 1)})"


class _Pool2d(Layer):
    """What both kinds of pooling share: patches, and what they do with images that do not fit."""

    def __init__(
        self,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] | None = None,
        padding: int | tuple[int, int] = 0,
    ) -> None:
        self.window = _pooling_window(kernel_size, stride, padding)

    def forward(self, x: Any) -> Tensor:
        """Map (N, C, H, W) to (N, C, H', W'), H' = (H + 2 padding - kh) // stride + 1.

        Raises:
            ValueError: another number of axes, no images, or images smaller than a patch.
        """
        return self._pooled(_images(self, as_tensor(x, "x"), None, self.window))

    def _pooled(self, images: Tensor) -> Tensor:
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{type(self).__name__}({_described(self.window, self.window.kernel)})"


class MaxPool2d(_Pool2d):
    """The largest pixel of each patch; the first one, where several are equal, gets the gradient.

    Args:
        kernel_size: height and width of a patch, one number or two.
        stride: steps down and across, those of the patch unless given.
        padding: how far patches reach beyond the image, at most half a patch; nothing there counts.
    """

    def _pooled(self, images: Tensor) -> Tensor:
        return apply(max_pool, images, window=self.window)


class AvgPool2d(_Pool2d):
    """The average of each patch; zeros around the image count as pixels.

    Args:
        kernel_size: height and width of a patch, one number or two.
        stride: steps down and across, those of the patch unless given.
        padding: zeros around the image, at most half a patch.
    """

    def _pooled(self, images: Tensor) -> Tensor:
        return apply(average_pool, images, window=self.window)


class BatchNorm2d(Layer):
    """Normalises each channel to mean 0 and variance 1, then scales and shifts it (Ioffe and Szegedy 2015).

    In training mean and variance are those of the batch, and running averages are kept of them; in
    evaluation these averages are used.

    Args:
        num_features: number of channels.
        eps: added to the variance.
        momentum: how much of a batch the running averages take.

    Attributes:
        gamma: shape (num_features,), ones at first.
        beta: shape (num_features,), zeros at first.
        running_mean: shape (num_features,), zeros at first.
        running_var: shape (num_features,), ones at first: of the variance of the batch as it is, by which
            training divides, so that a batch seen often enough gives the same in evaluation.
    """

    buffers = ("running_mean", "running_var")

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        self.num_features = positive_int(num_features, "num_features")
        self.eps = positive(eps, "eps")
        self.momentum = fraction(momentum, "momentum")
        self.gamma = Parameter(np.ones(self.num_features))
        self.beta = Parameter(np.zeros(self.num_features))
        self.running_mean = np.zeros(self.num_features, np.float32)
        self.running_var = np.ones(self.num_features, np.float32)

    def forward(self, x: Any) -> Tensor:
        """Keep the shape (N, num_features, H, W) of `x`.

        Raises:
            ValueError: another number of channels or axes, or no images.
        """
        images = _images(self, as_tensor(x, "x"), self.num_features, None)
        if not self.training:
            scale: Tensor = self.gamma * (1 / np.sqrt(self.running_var + self.eps))
            shift: Tensor = self.beta - scale * self.running_mean
            return images * scale.reshape(-1, 1, 1) + shift.reshape(-1, 1, 1)
        array = images.numpy()
        mean, variance = array.mean(axis=(0, 2, 3)), array.var(axis=(0, 2, 3))
        self.running_mean += self.momentum * (mean - self.running_mean)
        self.running_var += self.momentum * (variance - self.running_var)
        return apply(batch_norm, images, self.gamma, self.beta, mean=mean, variance=variance, eps=self.eps)

    def __repr__(self) -> str:
        return f"BatchNorm2d({self.num_features})"


def convolve(x: Array, weight: Array, bias: Array | None = None, *, window: Window) -> tuple[Array, Vjps]:
    """Rule of `Conv2d`."""
    out, patches = convolution.forward(x, weight, bias, window)
    vjps = (
        lambda g: convolution.of_input(g, weight, x.shape, window),
        lambda g: convolution.of_weight(g, x, window, patches),
        lambda g: g.sum(axis=(0, 2, 3)),
    )
    return out, vjps[: 2 if bias is None else 3]


def max_pool(x: Array, *, window: Window) -> tuple[Array, Vjps]:
    """Rule of `MaxPool2d`."""
    out, winners = pooling.largest(x, window)
    return out, (lambda g: pooling.largest_backward(g, winners, x.shape, window),)


def average_pool(x: Array, *, window: Window) -> tuple[Array, Vjps]:
    """Rule of `AvgPool2d`."""
    return pooling.average(x, window), (lambda g: pooling.average_backward(g, x.shape, window),)


def batch_norm(
    x: Array, gamma: Array, beta: Array, *, mean: Array, variance: Array, eps: float
) -> tuple[Array, Vjps]:
    """Rule of `BatchNorm2d` in training, where mean and variance depend on `x` too."""
    inverse = 1 / np.sqrt(variance + variance.dtype.type(eps))
    normalized = (x - mean[:, None, None]) * inverse[:, None, None]
    pixels = x.size // x.shape[1]

    def vjp(g: Array) -> tuple[Array, Array, Array]:
        of_beta, of_gamma = g.sum(axis=(0, 2, 3)), (g * normalized).sum(axis=(0, 2, 3))
        of_x = normalized * (-of_gamma / pixels)[:, None, None]
        of_x += g
        of_x -= (of_beta / pixels)[:, None, None]
        of_x *= (gamma * inverse)[:, None, None]
        return of_x, of_gamma, of_beta

    return normalized * gamma[:, None, None] + beta[:, None, None], vjp


def _window(kernel: Any, stride: Any, padding: Any) -> Window:
    return Window(_pair(kernel, "kernel_size", 1), _pair(stride, "stride", 1), _pair(padding, "padding", 0))


def _pooling_window(kernel: Any, stride: Any, padding: Any) -> Window:
    window = _window(kernel, kernel if stride is None else stride, padding)
    if any(2 * pad > size for pad, size in zip(window.padding, window.kernel, strict=True)):
        raise ValueError(
            f"`padding` must be at most half of `kernel_size` {window.kernel}, got {window.padding}"
        )
    return window


def _pair(value: Any, name: str, smallest: int) -> tuple[int, int]:
    pair = tuple(value) if isinstance(value, tuple | list) else (value, value)
    whole = all(isinstance(item, int | np.integer) and not isinstance(item, bool) for item in pair)
    if len(pair) != 2 or not whole or min(pair) < smallest:
        raise ValueError(f"`{name}` must be a whole number of at least {smallest}, or two, got {value!r}")
    return int(pair[0]), int(pair[1])


def _images(layer: Layer, x: Tensor, channels: int | None, window: Window | None) -> Tensor:
    expected = f"(N, {'C' if channels is None else channels}, H, W)"
    if x.ndim != 4 or x.shape[0] == 0 or x.shape[1] != (channels or x.shape[1]):
        raise ValueError(f"{layer!r} expects images of shape {expected}, at least one, got {x.shape}")
    if window is not None and min(window.positions(*x.shape[2:])) < 1:
        raise ValueError(
            f"{layer!r} expects images of at least {window.kernel} with their padding of {window.padding} "
            f"on each side, got shape {x.shape}"
        )
    return x


def _described(window: Window, usual_stride: Any) -> str:
    """Return the arguments that differ from the usual ones, for a repr."""

    def short(pair: tuple[int, int]) -> str:
        return str(pair[0]) if pair[0] == pair[1] else str(pair)

    usual = (usual_stride, usual_stride) if isinstance(usual_stride, int) else usual_stride
    parts = [short(window.kernel)]
    parts += [f"stride={short(window.stride)}"] * (window.stride != usual)
    parts += [f"padding={short(window.padding)}"] * (window.padding != (0, 0))
    return ", ".join(parts)
