"""Softmax and its logarithm over the last axis, forward and backward.

NumPy's exponential is vectorised and the best part of these, so they are passes of NumPy that reuse their
arrays; the largest element of each row is subtracted first, so that nothing overflows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]


def softmax(x: Array) -> Array:
    """Return exp(x) divided by its sum over the last axis."""
    out: Array = x - x.max(axis=-1, keepdims=True)
    np.exp(out, out=out)
    out /= np.add.reduce(out, axis=-1, keepdims=True)
    return out


def softmax_backward(g: Array, out: Array) -> Array:
    """Return the gradient with respect to x, from that of the result `out`."""
    of_x = g - _row_products(g, out)
    of_x *= out
    return of_x


def log_softmax(x: Array) -> Array:
    """Return the logarithm of `softmax(x)`, computed without the division."""
    out: Array = x - x.max(axis=-1, keepdims=True)
    out -= np.log(np.add.reduce(np.exp(out), axis=-1, keepdims=True))
    return out


def log_softmax_backward(g: Array, out: Array) -> Array:
    """Return the gradient with respect to x, from that of the result `out`."""
    of_x = np.exp(out)
    of_x *= -np.add.reduce(g, axis=-1, keepdims=True)
    of_x += g
    return of_x


def masked_softmax(scores: Array, mask: NDArray[np.bool_] | None, scale: float) -> Array:
    """Return the softmax of `scores * scale` over what the mask keeps, as attention needs it.

    Args:
        scores: shape (..., queries, keys).
        mask: booleans that broadcast to `scores`, true = keep; None keeps everything.
        scale: a number that all scores are multiplied by.

    Returns:
        The weights, in the shape of `scores`. A row that keeps nothing is all zeros.
    """
    out = scores * scores.dtype.type(scale)
    if mask is None:
        largest = out.max(axis=-1, keepdims=True)
    else:
        np.copyto(out, -np.inf, where=~mask)
        largest = out.max(axis=-1, keepdims=True)
        largest[np.isneginf(largest)] = 0  # nothing was kept: exp(-inf - 0) is 0, where -inf - -inf is NaN
    out -= largest
    np.exp(out, out=out)
    total = np.add.reduce(out, axis=-1, keepdims=True)
    if mask is not None:
        total[total == 0] = 1
    out /= total
    return out


def masked_softmax_backward(g: Array, out: Array, scale: float) -> Array:
    """Return the gradient with respect to `scores`; where the mask kept nothing it is zero."""
    of_scores = softmax_backward(g, out)
    of_scores *= of_scores.dtype.type(scale)
    return of_scores


def _row_products(a: Array, b: Array) -> Array:
    """Return the sum of a * b over the last axis, which is kept."""
    products: Array = np.einsum("...i,...i->...", a, b)
    return products[..., None]
