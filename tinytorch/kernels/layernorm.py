"""Layer normalisation over the last axis, forward and backward, in one pass over memory each."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinytorch.kernels.choice import Kernel, compiled_or_none, fits

Array = NDArray[np.floating[Any]]

# Below this the calls around a compiled kernel take as long as NumPy's passes save.
_SMALLEST = 2048


def forward(x: Array, gamma: Array, beta: Array, eps: float) -> tuple[Array, Array, Array, Array]:
    """Return `(x - mean) / sqrt(variance + eps) * gamma + beta` and what `backward` needs.

    Args:
        x: shape (..., d).
        gamma: shape (d,).
        beta: shape (d,).
        eps: added to the variance, which is that of the d numbers as they are (not of a sample).

    Returns:
        The result, the normalised input, 1 / standard deviation of shape (..., 1), and `gamma`.
    """
    whole = gamma.shape == beta.shape == x.shape[-1:]  # loops would read beyond anything shorter
    if whole and fits(_SMALLEST, x, gamma, beta) and (kernel := _forward_kernel()) is not None:
        out, normalized = np.empty_like(x), np.empty_like(x)
        inverse = np.empty((*x.shape[:-1], 1), np.float32)
        d = x.shape[-1]
        kernel(
            x.reshape(-1, d),
            gamma,
            beta,
            eps,
            out.reshape(-1, d),
            normalized.reshape(-1, d),
            inverse.reshape(-1),
        )
        return out, normalized, inverse, gamma
    return forward_reference(x, gamma, beta, eps)


def backward(g: Array, normalized: Array, inverse: Array, gamma: Array) -> tuple[Array, Array, Array]:
    """Return the gradients with respect to x, gamma and beta, from that of the result."""
    whole = g.shape == normalized.shape and gamma.shape == g.shape[-1:] and inverse.flags.carray
    if whole and fits(_SMALLEST, normalized, g, gamma) and (kernel := _backward_kernel()) is not None:
        of_x = np.empty_like(g)
        of_gamma, of_beta = np.zeros_like(gamma), np.zeros_like(gamma)
        d = g.shape[-1]
        kernel(
            g.reshape(-1, d),
            normalized.reshape(-1, d),
            inverse.reshape(-1),
            gamma,
            of_x.reshape(-1, d),
            of_gamma,
            of_beta,
        )
        return of_x, of_gamma, of_beta
    return backward_reference(g, normalized, inverse, gamma)


def forward_reference(x: Array, gamma: Array, beta: Array, eps: float) -> tuple[Array, Array, Array, Array]:
    """`forward` in NumPy, in the precision of its arrays."""
    normalized = x - x.mean(axis=-1, keepdims=True)
    inverse = _row_products(normalized, normalized)
    inverse /= x.shape[-1]
    inverse += inverse.dtype.type(eps)
    np.sqrt(inverse, out=inverse)
    np.reciprocal(inverse, out=inverse)
    normalized *= inverse
    out = normalized * gamma
    out += beta
    return out, normalized, inverse, gamma


def backward_reference(
    g: Array, normalized: Array, inverse: Array, gamma: Array
) -> tuple[Array, Array, Array]:
    """`backward` in NumPy: what remains of `g * gamma` without its mean and its part along `normalized`."""
    d = g.shape[-1]
    scaled = g * gamma
    of_x = normalized * (_row_products(scaled, normalized) / -d)
    of_x += scaled
    of_x -= scaled.mean(axis=-1, keepdims=True)
    of_x *= inverse
    rows = tuple(range(g.ndim - 1))
    return of_x, (g * normalized).sum(axis=rows), g.sum(axis=rows)


def _row_products(a: Array, b: Array) -> Array:
    """Return the sum of a * b over the last axis, which is kept."""
    products: Array = np.einsum("...i,...i->...", a, b)
    return products[..., None]


def _forward(
    x: Array, gamma: Array, beta: Array, eps: float, out: Array, normalized: Array, inverse: Array
) -> None:
    rows, d = x.shape
    for i in range(rows):
        row, norm, result = x[i], normalized[i], out[i]
        total = np.float32(0)
        for j in range(d):
            total += row[j]
        mean = total / np.float32(d)
        squares = np.float32(0)
        for j in range(d):
            centred = row[j] - mean
            norm[j] = centred
            squares += centred * centred
        scale = np.float32(1) / np.sqrt(squares / np.float32(d) + np.float32(eps))
        inverse[i] = scale
        for j in range(d):
            value = norm[j] * scale
            norm[j] = value
            result[j] = value * gamma[j] + beta[j]


def _backward(
    g: Array, normalized: Array, inverse: Array, gamma: Array, of_x: Array, of_gamma: Array, of_beta: Array
) -> None:
    rows, d = g.shape
    for i in range(rows):
        given, norm, result = g[i], normalized[i], of_x[i]
        total, along = np.float32(0), np.float32(0)
        for j in range(d):
            scaled = given[j] * gamma[j]
            total += scaled
            along += scaled * norm[j]
        total /= np.float32(d)
        along /= np.float32(d)
        scale = inverse[i]
        for j in range(d):
            result[j] = (given[j] * gamma[j] - total - norm[j] * along) * scale
            of_gamma[j] += given[j] * norm[j]
            of_beta[j] += given[j]


_MATRIX, _VECTOR = "float32[:, ::1]", "float32[::1]"


def _forward_kernel() -> Kernel | None:
    signature = f"void({_MATRIX}, {_VECTOR}, {_VECTOR}, float64, {_MATRIX}, {_MATRIX}, {_VECTOR})"
    return compiled_or_none(_forward, signature, _forward_agrees)


def _backward_kernel() -> Kernel | None:
    signature = f"void({_MATRIX}, {_MATRIX}, {_VECTOR}, {_VECTOR}, {_MATRIX}, {_VECTOR}, {_VECTOR})"
    return compiled_or_none(_backward, signature, _backward_agrees)


def _case() -> tuple[Array, Array, Array]:
    rng = np.random.default_rng(0)
    return tuple(rng.standard_normal(shape, np.float32) for shape in ((3, 37), (37,), (37,)))  # type: ignore[return-value]


def _forward_agrees(kernel: Kernel) -> bool:
    x, gamma, beta = _case()
    found = [np.empty_like(x), np.empty_like(x), np.empty(3, np.float32)]
    kernel(x, gamma, beta, 1e-5, *found)
    return all(
        np.allclose(a.reshape(b.shape), b, rtol=1e-5, atol=1e-5)
        for a, b in zip(found, forward_reference(x, gamma, beta, 1e-5), strict=False)
    )


def _backward_agrees(kernel: Kernel) -> bool:
    g, gamma, beta = _case()
    _, normalized, inverse, _ = forward_reference(g[::-1].copy(), gamma, beta, 1e-5)
    found = [np.empty_like(g), np.zeros_like(gamma), np.zeros_like(gamma)]
    kernel(g, normalized, inverse.reshape(-1), gamma, *found)
    return all(
        np.allclose(a, b, rtol=1e-5, atol=1e-5)
        for a, b in zip(found, backward_reference(g, normalized, inverse, gamma), strict=True)
    )
