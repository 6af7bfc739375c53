"""The table of derivative rules of the elementary operations.

A rule is a function of arrays. It returns the result and, for each array, the function that turns the
gradient `g` with respect to the result into the gradient with respect to that array: its
vector-Jacobian product. Where an array was broadcast, the gradient may keep the broadcast shape; the
engine adds it up. Rules work in the precision of their arrays and never write into `g`.

Fused operations (a layer's product with its bias, normalisation, losses) have their rules beside the
layers that use them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tinytorch.core.autograd import Array, Vjps
from tinytorch.kernels.products import product

Rule = Callable[..., tuple[Array, Vjps]]
Axis = int | tuple[int, ...] | None


def add(a: Array, b: Array) -> tuple[Array, Vjps]:
    """Return a + b."""
    return a + b, (lambda g: g, lambda g: g)


def subtract(a: Array, b: Array) -> tuple[Array, Vjps]:
    """Return a - b."""
    return a - b, (lambda g: g, lambda g: -g)


def multiply(a: Array, b: Array) -> tuple[Array, Vjps]:
    """Return a * b, element by element."""
    return a * b, (lambda g: g * b, lambda g: g * a)


def divide(a: Array, b: Array) -> tuple[Array, Vjps]:
    """Return a / b, element by element."""
    out = np.divide(a, b)
    return out, (lambda g: g / b, lambda g: -g * out / b)


def negative(x: Array) -> tuple[Array, Vjps]:
    """Return -x."""
    return -x, (lambda g: -g,)


def power(x: Array, exponent: float) -> tuple[Array, Vjps]:
    """Return x to a constant power; whole ones by multiplying, which is many times quicker."""
    out = _power(x, exponent)
    return out, (lambda g: g * (exponent * _power(x, exponent - 1)), None)


def exp(x: Array) -> tuple[Array, Vjps]:
    """Return e to the power x."""
    out = np.exp(x)
    return out, (lambda g: g * out,)


def log(x: Array) -> tuple[Array, Vjps]:
    """Return the natural logarithm."""
    return np.log(x), (lambda g: g / x,)


def sqrt(x: Array) -> tuple[Array, Vjps]:
    """Return the square root."""
    out = np.sqrt(x)
    return out, (lambda g: g * 0.5 / out,)


def absolute(x: Array) -> tuple[Array, Vjps]:
    """Return |x|, whose derivative at 0 is taken as 0."""
    return np.abs(x), (lambda g: g * np.sign(x),)


def clip(x: Array, low: float | None, high: float | None) -> tuple[Array, Vjps]:
    """Return x held between two bounds, which pass the gradient on themselves and nothing beyond."""
    out = np.clip(x, low, high)
    return out, (lambda g: g * (out == x), None, None)


def matmul(a: Array, b: Array) -> tuple[Array, Vjps]:
    """Return the product of (..., m, k) and (..., k, n), or of vectors, as `np.matmul` does."""

    def left(g: Array) -> Any:
        if b.ndim == 1:
            return g[..., None] * b
        if a.ndim == 1:
            return np.matmul(b, g[..., None])[..., 0]
        return np.matmul(g, b.swapaxes(-1, -2))

    def right(g: Array) -> Any:
        if a.ndim == 1:
            return a * g if b.ndim == 1 else a[:, None] * g[..., None, :]
        if b.ndim == 1:
            return np.matmul(a.swapaxes(-1, -2), g[..., None])[..., 0]
        if (
            b.ndim == 2
        ):  # one product over all rows, where a product for each matrix would have to be added up
            return np.matmul(a.reshape(-1, a.shape[-1]).T, g.reshape(-1, g.shape[-1]))
        return np.matmul(a.swapaxes(-1, -2), g)

    return product(a, b), (left, right)


def reshape(x: Array, shape: tuple[int, ...]) -> tuple[Array, Vjps]:
    """Return the elements in another shape."""
    return x.reshape(shape), (lambda g: g.reshape(x.shape), None)


def permute(x: Array, axes: tuple[int, ...]) -> tuple[Array, Vjps]:
    """Return the axes in another order, as a view."""
    return x.transpose(axes), (lambda g: g.transpose(np.argsort(axes)), None)


def sum_(x: Array, axis: Axis, keepdims: bool) -> tuple[Array, Vjps]:
    """Return the sum over some axes or all."""
    total = np.asarray(x.sum(axis=axis, keepdims=keepdims))
    return total, (lambda g: np.broadcast_to(_with_axes(g, x, axis, keepdims), x.shape), None, None)


def mean(x: Array, axis: Axis, keepdims: bool) -> tuple[Array, Vjps]:
    """Return the average over some axes or all."""
    out = np.asarray(x.mean(axis=axis, keepdims=keepdims))
    share = out.size / max(x.size, 1)
    return out, (lambda g: np.broadcast_to(_with_axes(g * share, x, axis, keepdims), x.shape), None, None)


def max_(x: Array, axis: Axis, keepdims: bool) -> tuple[Array, Vjps]:
    """Return the largest over some axes or all; elements that tie share the gradient equally."""
    return _extreme(x, np.asarray(x.max(axis=axis, keepdims=keepdims)), axis, keepdims)


def min_(x: Array, axis: Axis, keepdims: bool) -> tuple[Array, Vjps]:
    """Return the smallest over some axes or all; elements that tie share the gradient equally."""
    return _extreme(x, np.asarray(x.min(axis=axis, keepdims=keepdims)), axis, keepdims)


def getitem(x: Array, key: Any) -> tuple[Array, Vjps]:
    """Return `x[key]` for anything that indexes an array; an element taken twice gets both gradients."""

    def vjp(g: Array) -> Array:
        full = np.zeros(x.shape, g.dtype)
        if _takes_each_once(key):
            full[key] = g
        else:
            np.add.at(full, key, g)
        return full

    return np.asarray(x[key]), (vjp, None)


def concatenate(*arrays: Array, axis: int) -> tuple[Array, Vjps]:
    """Return the arrays one after the other along an existing axis."""
    ends = np.cumsum([array.shape[axis] for array in arrays])

    def part(index: int) -> Callable[[Array], Array]:
        start = ends[index] - arrays[index].shape[axis]
        return lambda g: np.moveaxis(np.moveaxis(g, axis, 0)[start : ends[index]], 0, axis)

    return np.concatenate(arrays, axis=axis), tuple(part(index) for index in range(len(arrays)))


def _power(x: Array, exponent: float) -> Array:
    if exponent in _PRODUCTS:
        return _PRODUCTS[exponent](x)
    out: Array = x**exponent
    return out


_PRODUCTS: dict[float, Callable[[Array], Array]] = {
    0: np.ones_like,
    1: np.copy,
    2: lambda x: x * x,
    3: lambda x: x * x * x,
    0.5: np.sqrt,
    -1: np.reciprocal,
}


def _with_axes(g: Array, x: Array, axis: Axis, keepdims: bool) -> Array:
    """Return `g` with the axes put back that reducing `x` took away."""
    if keepdims or axis is None:
        return g
    axes = axis if isinstance(axis, tuple) else (axis,)
    return np.expand_dims(g, tuple(item % x.ndim for item in axes))


def _extreme(x: Array, out: Array, axis: Axis, keepdims: bool) -> tuple[Array, Vjps]:
    def vjp(g: Array) -> Any:
        chosen = x == _with_axes(out, x, axis, keepdims)
        ties = chosen.sum(axis=axis, keepdims=True)
        return np.where(chosen, _with_axes(g, x, axis, keepdims) / ties.astype(g.dtype), g.dtype.type(0))

    return out, (vjp, None, None)


def _takes_each_once(key: Any) -> bool:
    """Return whether no element is taken twice: slices, numbers and masks do not, arrays of indices may."""
    items = key if isinstance(key, tuple) else (key,)
    return all(
        item is None
        or item is Ellipsis
        or isinstance(item, int | np.integer | slice)
        or (isinstance(item, np.ndarray) and item.dtype == bool)
        for item in items
    )
