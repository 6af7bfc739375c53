"""One transformer block in a fused step: its projections, its attention and its norms."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tinytorch.core.attention import MultiHeadAttention
from tinytorch.core.inference.projections import Array, Merged, Projection
from tinytorch.core.layers import LayerNorm
from tinytorch.kernels import decoding, int8, softmax
from tinytorch.kernels.decoding import BlockWeights


@dataclass(frozen=True, slots=True)
class Block:
    """One transformer block."""

    attention: MultiHeadAttention
    query: Projection
    key: Projection
    value: Projection
    merged: Merged | None
    out: Projection
    first: Projection
    second: Projection
    ln1: LayerNorm
    ln2: LayerNorm

    def weights(self) -> BlockWeights:
        """Return the arrays of plain layers, as they are now."""
        ln1, ln2 = self.ln1, self.ln2
        return BlockWeights(
            ln1.gamma._array, ln1.beta._array, ln1.eps, self.query.layer.weight._array,
            self.key.layer.weight._array, self.value.layer.weight._array, self.query.bias, self.key.bias,
            self.value.bias, self.out.layer.weight._array, self.out.bias, ln2.gamma._array, ln2.beta._array,
            ln2.eps, self.first.layer.weight._array, self.first.bias, self.second.layer.weight._array,
            self.second.bias,
        )  # fmt: skip


def queries_keys_values(
    block: Block, h: Array
) -> tuple[tuple[Array, Array, Array], tuple[Array, Array, Array]]:
    """Return three products with rows, and the biases that are still to be added to them."""
    biases = block.query.bias, block.key.bias, block.value.bias
    if block.merged is None:
        return (block.query(h), block.key(h), block.value(h)), biases
    together = int8.linear(h, *block.merged)
    d = together.shape[1] // 3
    if len(h) == 1:
        return (together[:, :d], together[:, d : 2 * d], together[:, 2 * d :]), biases
    q, k, v = (np.ascontiguousarray(together[:, i * d : (i + 1) * d]) for i in range(3))
    return (q, k, v), biases


def normalized(x: Array, added: Array | None, bias: Array, layer: LayerNorm) -> Array:
    """Add rows and a bias to `x`, in place, and return it normalized."""
    return decoding.add_normalized(x, added, bias, layer.gamma._array, layer.beta._array, layer.eps)


def split_heads(rows: Array, bias: Array, batch: int, block: Block) -> Array:
    """(B T, d) to (B, heads, T, head_dim), a view, with the bias added in place."""
    rows += bias
    heads, width = block.attention.num_heads, block.attention.head_dim
    return rows.reshape(batch, -1, heads, width).transpose(0, 2, 1, 3)


def attention_of(q: Array, k: Array, v: Array, mask: NDArray[np.bool_]) -> Array:
    """Attend where `mask` lets it: (B, heads, T, head_dim) each, to rows (B T, d)."""
    batch, heads, length, width = q.shape
    weights = softmax.masked_softmax(np.matmul(q, k.swapaxes(2, 3)), mask, 1 / math.sqrt(width))
    out = np.empty((batch, length, heads, width), np.float32)
    np.matmul(weights, v, out=out.transpose(0, 2, 1, 3))
    return out.reshape(batch * length, heads * width)
