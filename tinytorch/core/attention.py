"""Attention: every position asks, and takes from the positions whose keys answer (Vaswani et al. 2017)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinytorch.core.autograd import Array, Vjps
from tinytorch.core.checks import positive_int
from tinytorch.core.layers import Layer, Linear
from tinytorch.core.random import generator
from tinytorch.core.tensor import Tensor, apply, as_tensor
from tinytorch.kernels import softmax as kernels

Mask = NDArray[np.bool_]


def scaled_dot_product_attention(q: Any, k: Any, v: Any, mask: Any = None) -> tuple[Tensor, Tensor]:
    """Return `softmax(q k^T / sqrt(d)) v`, and the softmax: the weights.

    Args:
        q: queries, shape (..., queries, d).
        k: keys, shape (..., keys, d).
        v: values, shape (..., keys, width).
        mask: 1 or true where a query may look at a key, 0 where not; it broadcasts to (..., queries, keys).
            A query that may look at nothing gets zeros.

    Returns:
        Shapes (..., queries, width) and (..., queries, keys).

    Raises:
        ValueError: shapes do not fit, or the mask holds anything but 0 and 1.
    """
    q, k, v = as_tensor(q, "q"), as_tensor(k, "k"), as_tensor(v, "v")
    if min(q.ndim, k.ndim, v.ndim) < 2 or q.shape[-1] != k.shape[-1] or k.shape[-2] != v.shape[-2]:
        raise ValueError(
            "attention expects q (..., queries, d), k (..., keys, d) and v (..., keys, width), "
            f"got {q.shape}, {k.shape} and {v.shape}"
        )
    scores = q @ k.transpose()
    weights = apply(
        attention_weights, scores, _kept(mask, scores.shape), scale=1 / math.sqrt(max(q.shape[-1], 1))
    )
    return weights @ v, weights


def causal_mask(length: int, start: int = 0, window: int | None = None) -> Mask:
    """Return which of `start + length` positions each of the last `length` may look at: itself and the past.

    Args:
        length: of the queries.
        start: number of positions before them.
        window: if given, how many of the latest positions each may look at, itself among them.

    Returns:
        Booleans of shape (length, start + length).
    """
    kept: Mask = np.tri(length, start + length, start, dtype=bool)
    if window is not None:
        kept &= ~np.tri(length, start + length, start - window, dtype=bool)
    return kept


class MultiHeadAttention(Layer):
    """Attention of positions to each other, in several heads that each see a part of the width.

    Args:
        embed_dim: width of the input and of the output.
        num_heads: number of heads; it divides `embed_dim`.
        rng: for the weights.

    Attributes:
        q_proj, k_proj, v_proj, out_proj: Linear layers of (embed_dim, embed_dim).
        head_dim: embed_dim / num_heads.
    """

    def __init__(self, embed_dim: int, num_heads: int, *, rng: np.random.Generator | None = None) -> None:
        self.embed_dim = positive_int(embed_dim, "embed_dim")
        self.num_heads = positive_int(num_heads, "num_heads")
        if self.embed_dim % self.num_heads:
            raise ValueError(f"`num_heads` (={num_heads}) must divide `embed_dim` (={embed_dim})")
        self.head_dim = self.embed_dim // self.num_heads
        rng = generator(rng)
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (
            Linear(self.embed_dim, self.embed_dim, rng=rng) for _ in range(4)
        )

    def forward(self, x: Any, mask: Any = None) -> Tensor:
        """Keep the shape (B, T, embed_dim) of `x`.

        Args:
            x: shape (B, T, embed_dim).
            mask: 1 = keep; it broadcasts to (B, heads, T, T). A mask of shape (B, T, T) is for all heads.

        Raises:
            ValueError: `x` or the mask has another shape.
        """
        inputs = as_tensor(x, "x")
        if inputs.ndim != 3 or inputs.shape[-1] != self.embed_dim:
            raise ValueError(f"{self!r} expects shape (B, T, {self.embed_dim}), got {inputs.shape}")
        q, k, v = (self.split(project(inputs)) for project in (self.q_proj, self.k_proj, self.v_proj))
        return self.out_proj(self.join(scaled_dot_product_attention(q, k, v, _for_heads(mask))[0]))

    def split(self, x: Tensor) -> Tensor:
        """(B, T, embed_dim) to (B, heads, T, head_dim), a view."""
        batch, length, _ = x.shape
        return x.reshape(batch, length, self.num_heads, self.head_dim).permute(0, 2, 1, 3)

    def join(self, x: Tensor) -> Tensor:
        """(B, heads, T, head_dim) to (B, T, embed_dim)."""
        batch, _, length, _ = x.shape
        return x.permute(0, 2, 1, 3).reshape(batch, length, self.embed_dim)

    def __repr__(self) -> str:
        return f"MultiHeadAttention({self.embed_dim}, {self.num_heads})"


def attention_weights(scores: Array, mask: Mask | None, *, scale: float) -> tuple[Array, Vjps]:
    """Rule of the softmax of `scores * scale` over the keys that the mask keeps."""
    out = kernels.masked_softmax(scores, mask, scale)
    return out, (lambda g: kernels.masked_softmax_backward(g, out, scale), None)


def _for_heads(mask: Any) -> Any:
    """Give a mask of shape (B, T, T) an axis for the heads."""
    if mask is None:
        return None
    array = np.asarray(mask.data if isinstance(mask, Tensor) else mask)
    return array[:, None] if array.ndim == 3 else array


def _kept(mask: Any, shape: tuple[int, ...]) -> Mask | None:
    if mask is None:
        return None
    array = np.asarray(mask.data if isinstance(mask, Tensor) else mask)
    if array.dtype != bool:
        if not ((array == 0) | (array == 1)).all():
            raise ValueError("`mask` must hold 1 (keep) and 0 (block) only, and is not added to the scores")
        array = array == 1
    try:
        fitting = np.broadcast_shapes(array.shape, shape) == shape
    except ValueError:
        fitting = False
    if not fitting:
        raise ValueError(f"`mask` must broadcast to the scores' shape {shape}, got {array.shape}")
    return array
