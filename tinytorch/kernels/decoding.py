"""What one step of a language model needs beside its products: fused, without anything for gradients.

Only sizes are checked first: a compiled kernel itself refuses arrays that are not contiguous, aligned,
writable float32 of its number of axes, before it changes anything, and then the reference runs. To look at
all of them would take longer than the kernels of a small model.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tinytorch.kernels import gelu, layernorm
from tinytorch.kernels.choice import Kernel, compiled_or_none, enabled

Array = NDArray[np.float32]

_EMPTY = np.empty((0, 0), np.float32)
_INT8 = np.dtype(np.int8)
# A step that is smaller would be subnormal, or zero, and what is divided by it anything.
_TINY = np.finfo(np.float32).tiny


def add_normalized(
    x: Array, added: Array | None, bias: Array, gamma: Array, beta: Array, eps: float
) -> Array:
    """Add `added` and `bias` to `x`, in place, unless `added` is None; return its normalised rows.

    Args:
        x: contiguous float32, shape (rows, d).
        added: the same.
        bias: shape (d,).
        gamma, beta: what normalised numbers are multiplied by, and what is added, shape (d,).
        eps: added to the variance.

    Raises:
        ValueError: shapes do not fit each other.
    """
    d = x.shape[1]
    if not d == gamma.size == beta.size == bias.size or (added is not None and added.shape != x.shape):
        raise ValueError(f"`x` of shape {x.shape} does not fit what is added to it, or its scale and shift")
    kernel = _normalize_kernel()
    if kernel is not None:
        out = np.empty(x.shape, np.float32)
        try:
            kernel(x, _EMPTY if added is None else added, bias, gamma, beta, eps, out)
        except TypeError:
            pass
        else:
            return out
    _check_axes(bias, gamma, beta)
    return np.ascontiguousarray(add_normalized_reference(x, added, bias, gamma, beta, eps))


def add_normalized_reference(
    x: Array, added: Array | None, bias: Array, gamma: Array, beta: Array, eps: float
) -> Array:
    """The same in NumPy."""
    if added is not None:
        x += added
        x += bias
    return layernorm.forward_reference(x, gamma, beta, eps)[0]


def biased_gelu(x: Array, bias: Array) -> Array:
    """Replace `x`, contiguous float32 of shape (rows, d), by gelu(x + bias), and return it.

    Raises:
        ValueError: `bias` has not shape (d,).
    """
    if x.shape[1] != bias.size:
        raise ValueError(f"`bias` must have {x.shape[1]} elements, got {bias.size}")
    kernel = _gelu_kernel()
    if kernel is not None:
        try:
            kernel(x, bias)
        except TypeError:
            pass
        else:
            return x
    _check_axes(bias)
    return biased_gelu_reference(x, bias)


def biased_gelu_reference(x: Array, bias: Array) -> Array:
    """The same in NumPy."""
    x += bias
    x[...] = gelu.forward_reference(x)[0]
    return x


def attend(
    rows: tuple[Array, Array, Array], biases: tuple[Array, Array, Array], keys: NDArray[Any],
    values: NDArray[Any], scales: Array, slot: int, valid: int,
) -> Array:  # fmt: skip
    """Put one position into the cache of a layer, and let it look at what is there; return (B, d).

    Args:
        rows: queries, keys and values of the position, contiguous float32, each of shape (B, d).
        biases: what is added to each, shape (d,).
        keys, values: of the layer, shape (B, heads, capacity, head_dim), float32 or int8.
        scales: of int8 keys and values, shape (2, B, heads, capacity); empty for float32.
        slot: where the position goes.
        valid: how many slots, from the first on, are looked at.

    Raises:
        ValueError: shapes do not fit each other, or the slots the cache.
    """
    batch, heads, capacity, width = keys.shape
    shape = (batch, heads * width)
    if not (0 <= slot < valid <= capacity and values.shape == keys.shape):
        raise ValueError(f"slot {slot} and {valid} slots do not fit into a cache of {capacity}")
    q, k, v = rows
    q_bias, k_bias, v_bias = biases
    d = shape[1]
    if not q.shape == k.shape == v.shape == shape or not q_bias.size == k_bias.size == v_bias.size == d:
        raise ValueError(
            f"`rows` must have shape {shape} and `biases` ({d},), got {[row.shape for row in rows]} and "
            f"{[bias.shape for bias in biases]}"
        )
    quantized = keys.dtype == _INT8
    if scales.shape != ((2, batch, heads, capacity) if quantized else (0, 0, 0, 0)):
        raise ValueError(f"`scales` does not fit keys of {keys.dtype}, got shape {scales.shape}")
    kernel = _attend_kernel("int8" if quantized else "float32")
    if kernel is not None:
        out = np.empty(shape, np.float32)
        try:
            kernel(q, k, v, q_bias, k_bias, v_bias, keys, values, scales, slot, valid, out)
        except TypeError:
            pass
        else:
            return out
    _check_axes(*biases)
    if values.dtype != keys.dtype:
        raise ValueError(f"`values` must have the type of `keys`, {keys.dtype}, got {values.dtype}")
    return attend_reference(rows, biases, keys, values, scales, slot, valid)


def attend_reference(
    rows: tuple[Array, Array, Array], biases: tuple[Array, Array, Array], keys: NDArray[Any],
    values: NDArray[Any], scales: Array, slot: int, valid: int,
) -> Array:  # fmt: skip
    """The same in NumPy."""
    batch, heads, _, width = keys.shape
    q, k, v = ((row + bias).reshape(batch, heads, width) for row, bias in zip(rows, biases, strict=True))
    if keys.dtype == np.int8:
        for which, (new, stored) in enumerate(((k, keys), (v, values))):
            stored[:, :, slot], scales[which, :, :, slot] = as_bytes(new)
        seen_keys = keys[:, :, :valid] * scales[0, :, :, :valid, None]
        seen_values = values[:, :, :valid] * scales[1, :, :, :valid, None]
    else:
        keys[:, :, slot], values[:, :, slot] = k, v
        seen_keys, seen_values = keys[:, :, :valid], values[:, :, :valid]
    scores = np.matmul(seen_keys, q[..., None])[..., 0] / np.float32(math.sqrt(width))
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=-1, keepdims=True)
    out: Array = np.matmul(scores[:, :, None], seen_values).reshape(batch, heads * width)
    return out


def as_bytes(vectors: Array) -> tuple[NDArray[np.int8], Array]:
    """Return vectors, along the last axis, as symmetric int8, and the scale of each.

    One that holds NaN or infinity becomes zeros with a scale of NaN: it is NaN again when it is read.
    """
    scales = byte_scales(vectors)
    steps = np.rint(np.divide(vectors, scales[..., None]))
    return np.where(np.isnan(steps), np.float32(0), steps).astype(np.int8), scales


def byte_scales(vectors: Array) -> Array:
    """Return what a symmetric int8 step of each vector, along the last axis, stands for.

    It is NaN for a vector that holds NaN or infinity.
    """
    largest = np.abs(vectors).max(axis=-1, initial=0)
    steps = np.maximum(largest / np.float32(127), _TINY)
    return np.where(np.isfinite(largest), steps, np.float32(np.nan))


def block_step(
    x: Array, weights: BlockWeights, cache: tuple[Array, Array, Array], slot: int, valid: int
) -> bool:
    """Put one position of one sequence through a whole transformer block, in place; return whether it was.

    Not where kernels cannot be compiled; then nothing was changed. For weights that the kernel does not take
    it is done in NumPy: the blocks before have changed `x` and the cache already.

    Args:
        x: contiguous float32, shape (1, d).
        weights: of the block.
        cache: keys and values (1, heads, capacity, head_dim) in float32, and an empty array.
        slot: where the position goes.
        valid: how many slots, from the first on, are looked at.

    Raises:
        ValueError: shapes do not fit each other.
    """
    kernel = _block_kernel()
    if kernel is None:
        return False
    keys, values, scales = cache
    d = x.shape[1]
    _, heads, capacity, width = keys.shape
    if x.shape != (1, d) or heads * width != d or keys.shape != values.shape or len(keys) != 1 or scales.size:
        raise ValueError(f"`x` of shape {x.shape} does not fit a cache of shape {keys.shape}")
    if not 0 <= slot < valid <= capacity:
        raise ValueError(f"slot {slot} and {valid} slots do not fit into a cache of {capacity}")
    if not weights.fit(d):
        raise ValueError(f"the weights of a block do not fit {d} numbers")
    try:
        kernel(x, *weights[:9], keys, values, scales, slot, valid, *weights[9:])
    except TypeError:
        if not keys.dtype == values.dtype == np.float32:
            message = f"a cache without scales must hold float32, got {keys.dtype} and {values.dtype}"
            raise ValueError(message) from None
        _check_axes(*weights.vectors())
        block_reference(x, weights, cache, slot, valid)
    return True


class BlockWeights(NamedTuple):
    """All numbers of a transformer block, in the order in which they are used."""

    gamma: Array
    beta: Array
    eps: float
    query: Array
    key: Array
    value: Array
    query_bias: Array
    key_bias: Array
    value_bias: Array
    out: Array
    out_bias: Array
    second_gamma: Array
    second_beta: Array
    second_eps: float
    first: Array
    first_bias: Array
    last: Array
    last_bias: Array

    def fit(self, d: int) -> bool:
        """Return whether all sizes fit rows of `d` numbers."""
        hidden = self.first_bias.size
        return (
            self.query.shape == self.key.shape == self.value.shape == self.out.shape == (d, d)
            and self.first.shape == (d, hidden)
            and self.last.shape == (hidden, d)
            and d == self.gamma.size == self.beta.size == self.second_gamma.size == self.second_beta.size
            and d == self.query_bias.size == self.key_bias.size == self.value_bias.size
            and d == self.out_bias.size == self.last_bias.size
        )

    def vectors(self) -> tuple[Array, ...]:
        """Return what is no matrix."""
        return (
            self.gamma, self.beta, self.query_bias, self.key_bias, self.value_bias, self.out_bias,
            self.second_gamma, self.second_beta, self.first_bias, self.last_bias,
        )  # fmt: skip


def _check_axes(*vectors: Array) -> None:
    """Refuse what has as many elements as a row and other axes: NumPy would broadcast it to a matrix."""
    for vector in vectors:
        if vector.ndim != 1:
            raise ValueError(f"biases, scales and shifts must have one axis, got shape {vector.shape}")


_MATRIX, _VECTOR = "float32[:, ::1]", "float32[::1]"


@functools.cache
def _normalize_kernel() -> Kernel | None:
    if not enabled():
        return None
    from tinytorch.kernels.decoding_compiled import add_normalized as body

    signature = f"void({_MATRIX}, {_MATRIX}, {_VECTOR}, {_VECTOR}, {_VECTOR}, float64, {_MATRIX})"
    return compiled_or_none(body, signature, _normalize_agrees)


@functools.cache
def _gelu_kernel() -> Kernel | None:
    if not enabled():
        return None
    from tinytorch.kernels.decoding_compiled import biased_gelu as body

    return compiled_or_none(body, f"void({_MATRIX}, {_VECTOR})", _gelu_agrees)


@functools.cache
def _attend_kernel(kind: str) -> Kernel | None:
    if not enabled():
        return None
    from tinytorch.kernels.decoding_compiled import attend_body

    four = "float32[:, :, :, ::1]"
    stored = four.replace("float32", kind)
    signature = (
        f"void({', '.join([_MATRIX] * 3 + [_VECTOR] * 3)}, {stored}, {stored}, {four}, intp, intp, {_MATRIX})"
    )
    agrees = _attend_agrees_int8 if kind == "int8" else _attend_agrees
    return compiled_or_none(attend_body(int(kind == "int8")), signature, agrees)


@functools.cache
def _block_kernel() -> Kernel | None:
    if not enabled():
        return None
    from tinytorch.kernels.decoding_compiled import block_step as body

    four = "float32[:, :, :, ::1]"
    signature = ", ".join(
        [_MATRIX, _VECTOR, _VECTOR, "float64"] + [_MATRIX] * 3 + [_VECTOR] * 3 + [four] * 3 + ["intp", "intp"]
        + [_MATRIX, _VECTOR, _VECTOR, _VECTOR, "float64", _MATRIX, _VECTOR, _MATRIX, _VECTOR]
    )  # fmt: skip
    return compiled_or_none(body, f"void({signature})", _block_agrees)


def _normalize_agrees(kernel: Kernel) -> bool:
    rng = np.random.default_rng(0)
    x, added, out = (rng.standard_normal((3, 37), np.float32) for _ in range(3))
    bias, gamma, beta = (rng.standard_normal(37, np.float32) for _ in range(3))
    for more in (None, added):
        mine, theirs = x.copy(), x.copy()
        kernel(mine, _EMPTY if more is None else more, bias, gamma, beta, 1e-5, out)
        expected = add_normalized_reference(theirs, more, bias, gamma, beta, 1e-5)
        if not (np.allclose(out, expected, rtol=1e-4, atol=1e-5) and np.allclose(mine, theirs, rtol=1e-5)):
            return False
    return True


def _gelu_agrees(kernel: Kernel) -> bool:
    x = np.linspace(-12, 12, 333, dtype=np.float32).reshape(3, 111)
    bias = np.random.default_rng(0).standard_normal(111, np.float32)
    mine = x.copy()
    kernel(mine, bias)
    return np.allclose(mine, biased_gelu_reference(x.copy(), bias), rtol=1e-5, atol=2e-6)


def _attend_agrees(kernel: Kernel) -> bool:
    return _same_attention(kernel, np.float32)


def _attend_agrees_int8(kernel: Kernel) -> bool:
    return _same_attention(kernel, np.int8)


def _same_attention(kernel: Kernel, kind: type) -> bool:
    rng = np.random.default_rng(0)
    batch, heads, capacity, width = 2, 3, 9, 21
    q, k, v = (rng.standard_normal((batch, heads * width), np.float32) for _ in range(3))
    rows, biases = (q, k, v), (q[0].copy(), k[1].copy(), v[0].copy())
    shape = (batch, heads, capacity, width)
    keys: NDArray[Any] = np.asarray(20 * rng.standard_normal(shape), kind)
    values: NDArray[Any] = np.asarray(20 * rng.standard_normal(shape), kind)
    scales = rng.random((2, *shape[:3]) if kind is np.int8 else (0, 0, 0, 0), np.float32)
    mine, theirs = ((keys.copy(), values.copy(), scales.copy()) for _ in range(2))
    out = np.empty((batch, heads * width), np.float32)
    kernel(*rows, *biases, *mine, 4, 7, out)
    expected = attend_reference(rows, biases, *theirs, 4, 7)
    stored = all(np.allclose(a, b, rtol=1e-5, atol=1) for a, b in zip(mine, theirs, strict=True))
    return stored and np.allclose(out, expected, rtol=1e-3, atol=1e-2 if kind is np.int8 else 1e-4)


def _block_agrees(kernel: Kernel) -> bool:
    rng = np.random.default_rng(0)
    d, hidden, heads, capacity = 22, 37, 2, 9

    def some(*shape: int) -> Array:
        return rng.standard_normal(shape, np.float32) / np.float32(math.sqrt(shape[0]))

    w = BlockWeights(
        some(d), some(d), 1e-5, some(d, d), some(d, d), some(d, d), some(d), some(d), some(d), some(d, d),
        some(d), some(d), some(d), 1e-5, some(d, hidden), some(hidden), some(hidden, d), some(d),
    )  # fmt: skip
    x, keys, values = some(1, d), some(1, heads, capacity, d // heads), some(1, heads, capacity, d // heads)
    mine, theirs = ((x.copy(), keys.copy(), values.copy()) for _ in range(2))
    nothing = np.zeros((0, 0, 0, 0), np.float32)
    kernel(mine[0], *w[:9], mine[1], mine[2], nothing, 3, 7, *w[9:])
    block_reference(theirs[0], w, (theirs[1], theirs[2], nothing), 3, 7)
    return all(np.allclose(a, b, rtol=1e-4, atol=1e-4) for a, b in zip(mine, theirs, strict=True))


def block_reference(
    x: Array, w: BlockWeights, cache: tuple[Array, Array, Array], slot: int, valid: int
) -> None:
    """`block_step` in NumPy."""
    h = add_normalized_reference(x, None, w.out_bias, w.gamma, w.beta, w.eps)
    rows, biases = (h @ w.query, h @ w.key, h @ w.value), (w.query_bias, w.key_bias, w.value_bias)
    added = attend_reference(rows, biases, *cache, slot, valid) @ w.out
    h = add_normalized_reference(x, added, w.out_bias, w.second_gamma, w.second_beta, w.second_eps)
    x += biased_gelu_reference(h @ w.first, w.first_bias) @ w.last
    x += w.last_bias
