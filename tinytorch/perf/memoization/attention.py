"""Attention for models of one's own, with a cache that is handed in."""

from __future__ import annotations

from typing import Any

from tinytorch.core.attention import MultiHeadAttention, causal_mask, scaled_dot_product_attention
from tinytorch.core.tensor import Tensor, as_tensor, concatenate
from tinytorch.perf.memoization.cache import KVCache


class CachedMultiHeadAttention(MultiHeadAttention):
    """Causal attention in several heads: each position looks at itself and at those before it.

    With a cache, those before are what it holds, and the new positions are put into it. The caller calls
    `cache.advance(T)` once all layers have done so.

    Args:
        embed_dim: width of the input and of the output.
        num_heads: number of heads; it divides `embed_dim`.
        rng: for the weights.
    """

    def forward(self, x: Any, cache: KVCache | None = None, layer_idx: int = 0) -> Tensor:
        """Keep the shape (B, T, embed_dim) of `x`, the T positions after those that the cache holds.

        Keys and values in the cache have no gradient; those of `x` do.

        Raises:
            ValueError: another shape, no positions, or no KVCache, or one of other sizes or without room.
        """
        if cache is not None and not isinstance(cache, KVCache):
            raise ValueError(f"`cache` must be a KVCache or None, got {type(cache).__name__}")
        inputs = as_tensor(x, "x")
        if inputs.ndim != 3 or inputs.shape[-1] != self.embed_dim or inputs.shape[1] == 0:
            raise ValueError(
                f"{self!r} expects shape (B, T, {self.embed_dim}), at least one position, got {inputs.shape}"
            )
        q, k, v = (self.split(project(inputs)) for project in (self.q_proj, self.k_proj, self.v_proj))
        start = 0
        if cache is not None:
            earlier = cache.ordered(layer_idx) if cache.length else None
            cache.update(layer_idx, k, v)
            if earlier is not None:
                start = earlier[0].shape[2]
                k, v = (concatenate([old, new], axis=2) for old, new in zip(earlier, (k, v), strict=True))
        mask = causal_mask(inputs.shape[1], start, None if cache is None else cache.window)
        return self.out_proj(self.join(scaled_dot_product_attention(q, k, v, mask)[0]))

    def __repr__(self) -> str:
        return f"CachedMultiHeadAttention({self.embed_dim}, {self.num_heads})"
