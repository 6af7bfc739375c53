"""The compiled loops of decoding; `decoding` checks and prepares what goes in.

This module imports numba, so import it only where a kernel is compiled.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba.extending import register_jitable

from tinytorch.kernels.attention_rows import row_scores, weighted_rows
from tinytorch.kernels.gelu import _CUBIC, _LINEAR

# See `gelu` for this way to compute exp.
_LOG2_E = np.float32(math.log2(math.e))
_C1, _C2, _C3, _C4, _C5, _C6 = (np.float32(math.log(2) ** k / math.factorial(k)) for k in range(1, 7))
# Above the one power is infinite, and below the other no normal number, as 2 to the power t is.
_HIGHEST, _LOWEST = np.float32(128), np.float32(-126)
_TINY = np.float32(np.finfo(np.float32).tiny)
_FLOAT_LINEAR, _FLOAT_CUBIC = np.float32(_LINEAR), np.float32(_CUBIC)


@register_jitable
def _exp(value: Any) -> Any:
    t = min(max(value * _LOG2_E, _LOWEST), _HIGHEST)
    n = np.floor(t + np.float32(0.5))
    f = t - n
    power = np.float32(1) + f * (_C1 + f * (_C2 + f * (_C3 + f * (_C4 + f * (_C5 + f * _C6)))))
    power *= np.int32((np.int32(n) + np.int32(127)) << np.int32(23)).view(np.float32)
    # The smallest normal number would make subnormal products, which take a hundred times as long.
    return power if t > _LOWEST else np.float32(0)


@register_jitable
def add_normalized(x: Any, added: Any, bias: Any, gamma: Any, beta: Any, eps: float, out: Any) -> None:
    """Add `added` and `bias` to `x` in place, unless there are none, and normalise each row into `out`."""
    rows, d = x.shape
    for i in range(rows):
        row, result = x[i], out[i]
        if added.shape[0] > 0:
            more = added[i]
            for j in range(d):
                row[j] += more[j] + bias[j]
        total = np.float32(0)
        for j in range(d):
            total += row[j]
        mean = total / np.float32(d)
        squares = np.float32(0)
        for j in range(d):
            centred = row[j] - mean
            squares += centred * centred
        scale = np.float32(1) / np.sqrt(squares / np.float32(d) + np.float32(eps))
        for j in range(d):
            result[j] = (row[j] - mean) * scale * gamma[j] + beta[j]


@register_jitable
def biased_gelu(x: Any, bias: Any) -> None:
    """Replace each element of the rows of `x` by GELU of it plus its bias."""
    rows, d = x.shape
    for i in range(rows):
        row = x[i]
        for j in range(d):
            v = row[j] + bias[j]
            share = np.float32(1) / (np.float32(1) + _exp(-v * (_FLOAT_LINEAR + _FLOAT_CUBIC * v * v)))
            row[j] = v * share


def attend_body(quantized: int) -> Callable[..., None]:
    """Return the loops of attention over a cache of float32 (0) or of int8 (1); numba compiles them."""
    size = 1 if quantized else 4

    def attend(
        q: Any, k: Any, v: Any, q_bias: Any, k_bias: Any, v_bias: Any, keys: Any, values: Any, scales: Any,
        slot: int, valid: int, out: Any,
    ) -> None:  # fmt: skip
        batch, heads, capacity, width = keys.shape
        scores, asked = np.empty(valid, np.float32), np.empty(width, np.float32)
        factor = np.float32(1 / math.sqrt(width))
        for b in range(batch):
            for h in range(heads):
                first = h * width
                for j in range(width):
                    asked[j] = (q[b, first + j] + q_bias[first + j]) * factor
                if quantized:
                    scales[0, b, h, slot] = _store_bytes(k[b], k_bias, first, keys[b, h, slot])
                    scales[1, b, h, slot] = _store_bytes(v[b], v_bias, first, values[b, h, slot])
                else:
                    for j in range(width):
                        keys[b, h, slot, j] = k[b, first + j] + k_bias[first + j]
                        values[b, h, slot, j] = v[b, first + j] + v_bias[first + j]
                start = (b * heads + h) * capacity * width * size
                row_scores(
                    quantized, asked.ctypes.data, keys.ctypes.data + start, valid, width, scores.ctypes.data
                )
                if quantized:
                    for p in range(valid):
                        scores[p] *= scales[0, b, h, p]
                share = np.float32(1) / _exponentials(scores)
                if quantized:
                    for p in range(valid):
                        scores[p] *= scales[1, b, h, p]
                result = out.ctypes.data + 4 * (b * heads * width + first)
                weighted_rows(quantized, scores.ctypes.data, values.ctypes.data + start, valid, width, result)
                for j in range(width):
                    out[b, first + j] *= share

    return attend


@register_jitable
def _exponentials(scores: Any) -> Any:
    """Replace scores by exp of their distance to the largest, and return their sum."""
    largest = np.float32(-np.inf)
    for p in range(scores.size):
        largest = max(largest, scores[p])
    total, spoiled = np.float32(0), np.float32(0)
    for p in range(scores.size):
        difference = scores[p] - largest
        scores[p] = _exp(difference)
        total += scores[p]
        # max and min let go of a NaN; minus infinity is none, and has no share.
        spoiled += difference if difference != difference else np.float32(0)  # noqa: PLR0124
    return total + spoiled


@register_jitable
def _store_bytes(row: Any, bias: Any, first: int, out: Any) -> Any:
    """Store one head's part of a row as symmetric int8, and return what a step stands for.

    That is NaN where a number is NaN or infinite.
    """
    largest, spoiled = np.float32(0), np.float32(0)
    for j in range(out.size):
        value = row[first + j] + bias[first + j]
        largest = max(largest, abs(value))
        spoiled += value * np.float32(0)
    if np.isnan(spoiled):
        out[:] = 0
        return np.float32(np.nan)
    scale = max(largest / np.float32(127), _TINY)
    for j in range(out.size):
        out[j] = np.int8(np.rint((row[first + j] + bias[first + j]) / scale))
    return scale


_attend_floats: Any = register_jitable(attend_body(0))


def block_step(
    x: Any, gamma: Any, beta: Any, eps: float, query: Any, key: Any, value: Any, query_bias: Any,
    key_bias: Any, value_bias: Any, keys: Any, values: Any, scales: Any, slot: int, valid: int, out: Any,
    out_bias: Any, second_gamma: Any, second_beta: Any, second_eps: float, first: Any, first_bias: Any,
    last: Any, last_bias: Any,
) -> None:  # fmt: skip
    """Put one position of one sequence, x of shape (1, d), through a transformer block, in place."""
    d, hidden = x.shape[1], first.shape[1]
    rows, inner = np.empty((5, 1, d), np.float32), np.empty((1, hidden), np.float32)
    none = np.empty((0, d), np.float32)
    add_normalized(x, none, out_bias, gamma, beta, eps, rows[0])
    _times(rows[0, 0], query, rows[1, 0])
    _times(rows[0, 0], key, rows[2, 0])
    _times(rows[0, 0], value, rows[3, 0])
    _attend_floats(
        rows[1],
        rows[2],
        rows[3],
        query_bias,
        key_bias,
        value_bias,
        keys,
        values,
        scales,
        slot,
        valid,
        rows[4],
    )
    _times(rows[4, 0], out, rows[0, 0])
    add_normalized(x, rows[0], out_bias, second_gamma, second_beta, second_eps, rows[1])
    _times(rows[1, 0], first, inner[0])
    biased_gelu(inner, first_bias)
    _times(inner[0], last, rows[0, 0])
    for j in range(d):
        x[0, j] += rows[0, 0, j] + last_bias[j]


@register_jitable
def _times(row: Any, weight: Any, out: Any) -> None:
    """Multiply a row by a matrix, read once from its beginning to its end: as fast as memory is."""
    count, width = weight.shape
    out[:] = 0
    whole = count - count % 4
    for k in range(0, whole, 4):
        a, b, c, e = row[k], row[k + 1], row[k + 2], row[k + 3]
        one, two, three, four = weight[k], weight[k + 1], weight[k + 2], weight[k + 3]
        for j in range(width):
            out[j] += a * one[j] + b * two[j] + (c * three[j] + e * four[j])
    for k in range(whole, count):
        a, one = row[k], weight[k]
        for j in range(width):
            out[j] += a * one[j]
