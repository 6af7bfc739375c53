"""Activations: layers without parameters that act on each element, or normalise an axis."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinytorch.core.autograd import Array, Vjps
from tinytorch.core.chains import link
from tinytorch.core.derivatives import Rule
from tinytorch.core.layers import Layer
from tinytorch.core.tensor import Tensor, apply, as_tensor
from tinytorch.kernels import FloatArray
from tinytorch.kernels import gelu as gelu_kernel
from tinytorch.kernels import softmax as softmax_kernel

_ZERO = np.float32(0)


class ReLU(Layer):
    """max(x, 0), whose derivative at 0 is taken as 0."""

    def forward(self, x: Any) -> Tensor:
        """Keep the shape of `x`."""
        return apply(relu, as_tensor(x, "x"))


class GELU(Layer):
    """x times the normal distribution function of x, in its tanh form (see `kernels.gelu`)."""

    def forward(self, x: Any) -> Tensor:
        """Keep the shape of `x`."""
        return apply(gelu, as_tensor(x, "x"))


class Sigmoid(Layer):
    """1 / (1 + exp(-x))."""

    def forward(self, x: Any) -> Tensor:
        """Keep the shape of `x`."""
        return apply(sigmoid, as_tensor(x, "x"))


class Tanh(Layer):
    """The hyperbolic tangent."""

    def forward(self, x: Any) -> Tensor:
        """Keep the shape of `x`."""
        return apply(tanh, as_tensor(x, "x"))


class Softmax(Layer):
    """exp(x) divided by its sum along an axis.

    Args:
        dim: the axis, the last one unless named.
    """

    def __init__(self, dim: int = -1) -> None:
        self.dim = dim

    def forward(self, x: Any, dim: int | None = None) -> Tensor:
        """Keep the shape of `x`.

        Raises:
            ValueError: `x` has no such axis.
        """
        return self._along(as_tensor(x, "x"), self.dim if dim is None else dim)

    @property
    def rule(self) -> Rule:
        """What normalises the last axis."""
        return softmax

    def _along(self, x: Tensor, dim: int) -> Tensor:
        if not -x.ndim <= dim < x.ndim:
            raise ValueError(f"`dim` must name one of the {x.ndim} axes of shape {x.shape}, got {dim}")
        last = x.ndim - 1
        if dim % x.ndim == last:
            return apply(self.rule, x)
        return apply(self.rule, x.transpose(dim, last)).transpose(dim, last)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.dim})"


class LogSoftmax(Softmax):
    """The logarithm of Softmax, exact also where that is too small for a float.

    Args:
        dim: the axis, the last one unless named.
    """

    @property
    def rule(self) -> Rule:
        """What normalises the last axis."""
        return log_softmax


def relu(x: Array) -> tuple[Array, Vjps]:
    """Rule of max(x, 0)."""
    out = np.maximum(x, 0)
    return out, (lambda g: g * (out > 0),)


def _linked(_: ReLU, x: FloatArray, owned: bool) -> FloatArray:
    out: FloatArray = np.maximum(x, _ZERO, out=x if owned else None)
    return out


link(ReLU, _linked)


def gelu(x: Array) -> tuple[Array, Vjps]:
    """Rule of GELU."""
    out, saved = gelu_kernel.forward(x)
    return out, (lambda g: gelu_kernel.backward(g, x, saved),)


def sigmoid(x: Array) -> tuple[Array, Vjps]:
    """Rule of 1 / (1 + exp(-x)), by way of tanh, which never overflows."""
    half = x.dtype.type(0.5)
    out = np.tanh(x * half)
    out *= half
    out += half
    return out, (lambda g: g * out * (1 - out),)


def tanh(x: Array) -> tuple[Array, Vjps]:
    """Rule of the hyperbolic tangent."""
    out = np.tanh(x)
    return out, (lambda g: g * (1 - out * out),)


def softmax(x: Array) -> tuple[Array, Vjps]:
    """Rule of softmax over the last axis."""
    out = softmax_kernel.softmax(x)
    return out, (lambda g: softmax_kernel.softmax_backward(g, out),)


def log_softmax(x: Array) -> tuple[Array, Vjps]:
    """Rule of the logarithm of softmax over the last axis."""
    out = softmax_kernel.log_softmax(x)
    return out, (lambda g: softmax_kernel.log_softmax_backward(g, out),)
