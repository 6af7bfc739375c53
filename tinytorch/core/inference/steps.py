"""The steps of a GPT, fused, with a cache of keys and values or without."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinytorch.core.attention import causal_mask
from tinytorch.core.inference.blocks import Block, attention_of, normalized, queries_keys_values, split_heads
from tinytorch.core.inference.projections import Array, Projection, n_bytes_of, replaced_forward
from tinytorch.core.inference.recognition import parts_of
from tinytorch.core.tensor import OBSERVER
from tinytorch.kernels import decoding
from tinytorch.kernels.products import ACTIVE

_NO_SCALES = np.empty((0, 0, 0, 0), np.float32)


class Steps:
    """The steps of a GPT; its weights are looked at anew in each, its layers by `steps_of`."""

    def __init__(self, model: Any, blocks: list[Block]) -> None:
        self.parts = parts_of(model) or ()
        self.forwards = tuple(map(replaced_forward, self.parts))
        self.model = weakref.proxy(model)
        self.blocks = blocks
        self.head = Projection(model.lm_head)
        inside = [p for b in blocks for p in (b.query, b.key, b.value, b.out, b.first, b.second)]
        self.projections = [*inside, self.head]
        self.norms = [*(norm for b in blocks for norm in (b.ln1, b.ln2)), model.ln_f]
        self.plain = all(projection.live for projection in inside)
        self.packed = [(p.layer, p.packed.panels) for p in self.projections if p.packed is not None]
        together = [p.layer for b in blocks if b.merged is not None for p in (b.query, b.key, b.value)]
        self.ranges = [(layer, layer.activation_scale, layer.activation_zero) for layer in together]
        self.dropouts = [model.dropout, *(part for b in model.blocks for part in (b.dropout, b.mlp.dropout))]
        #: of a cache that fits: number of layers, and of heads in each, and their width; None if these differ
        sizes = {(len(blocks), b.attention.num_heads, b.attention.head_dim) for b in blocks}
        self.sizes = sizes.pop() if len(sizes) == 1 else None

    def current(self) -> bool:
        """Return whether quantized layers hold the same arrays and ranges as when these steps were made."""
        for layer, panels in self.packed:
            if layer.panels is not panels:
                return False
        for layer, scale, zero in self.ranges:
            if layer.activation_scale != scale or layer.activation_zero != zero:
                return False
        return True

    def n_bytes(self, shape: tuple[int, ...], start: int, cache: Any) -> int:
        """Return the bytes that a pass over ids of shape (B, T) reads and writes beside them and its scores.

        These are rows of the embeddings, all weights once, keys and values that the cache held before, and
        those that are put into it; what one block hands to the next is not counted.
        """
        batch, new = shape
        weights: int = sum(projection.n_bytes for projection in self.projections)
        weights += sum(n_bytes_of(norm.gamma) + n_bytes_of(norm.beta) for norm in self.norms)
        rows: int = (batch + 1) * new * 4 * self.norms[0].normalized_shape
        if cache is None:
            return weights + rows
        vector = cache.head_dim * cache.keys[0].itemsize + (4 if cache.scales[0].size else 0)
        kept = min(start + 1, cache.capacity) - 1 if new == 1 else min(start, cache.capacity)
        places: int = batch * cache.num_heads * (kept + min(new, cache.capacity))
        return weights + rows + 2 * len(self.blocks) * places * int(vector)

    def logits(self, ids: NDArray[np.intp], start: int, cache: Any, last_only: bool) -> Array:
        """Return scores of the next token, (B, T, vocab), or (B, 1, vocab) for the last position only.

        Args:
            ids: shape (B, T).
            start: position of the first one.
            cache: a KVCache that holds `start` positions, or None; the new ones are put into it.
            last_only: whether only the last position meets the head.

        Raises:
            ValueError: the cache was made for blocks of other numbers or heads.
        """
        if cache is not None and self.sizes != (cache.num_layers, cache.num_heads, cache.head_dim):
            raise ValueError(_unfitting(self, cache))
        observer = OBSERVER.get()
        if observer is None:
            return self._logits(ids, start, cache, last_only)
        options = {"steps": self, "start": start, "cache": cache, "last_only": last_only}
        scores: Array = observer.operation(fused_step, [ids], options)[0]
        return scores

    def _logits(self, ids: NDArray[np.intp], start: int, cache: Any, last_only: bool) -> Array:
        model = self.model
        batch, length = ids.shape
        x = model.token_embedding.weight._array.take(ids, axis=0)
        x += model.position_embedding.weight._array[start : start + length]
        x = x.reshape(batch * length, model.embed_dim)
        added: Array | None = None
        bias = x[0]
        alone = len(x) == 1 and self.plain and (cache is None or cache.dtype == "float32")
        if alone and ACTIVE.get() is np.matmul and self._one(x, cache):
            if cache is not None:
                cache.advance()
            scores = self.head(normalized(x, None, bias, model.ln_f))
            scores += self.head.bias
            return scores.reshape(1, 1, -1)
        for index, block in enumerate(self.blocks):
            h = normalized(x, added, bias, block.ln1)
            added, bias = block.out(self._attended(block, index, h, batch, cache)), block.out.bias
            h = decoding.biased_gelu(block.first(normalized(x, added, bias, block.ln2)), block.first.bias)
            added, bias = block.second(h), block.second.bias
        if last_only and length > 1:
            x, added = (_last(a, batch) for a in (x, added))
            length = 1
        if cache is not None:
            cache.advance(ids.shape[1])
        scores = self.head(normalized(x, added, bias, model.ln_f))
        scores += self.head.bias
        return scores.reshape(batch, length, -1)

    def _one(self, x: Array, cache: Any) -> bool:
        """Put one position of one sequence through all blocks; return whether kernels for it are there."""
        if cache is None:  # there is nothing before it, and nothing to keep
            attention = self.blocks[0].attention
            room = np.empty((2, 1, attention.num_heads, 1, attention.head_dim), np.float32)
            return all(
                decoding.block_step(x, block.weights(), (room[0], room[1], _NO_SCALES), 0, 1)
                for block in self.blocks
            )
        slot, valid = cache.length % cache.capacity, min(cache.length + 1, cache.capacity)
        for index, block in enumerate(self.blocks):
            stored = cache.keys[index], cache.values[index], cache.scales[index]
            if not decoding.block_step(x, block.weights(), stored, slot, valid):
                return False
            cache._written[index] = cache.length + 1
        return True

    def _attended(self, block: Block, index: int, h: Array, batch: int, cache: Any) -> Array:
        rows, biases = queries_keys_values(block, h)
        if cache is None:
            q, k, v = (split_heads(r, b, batch, block) for r, b in zip(rows, biases, strict=True))
            return attention_of(q, k, v, causal_mask(q.shape[2]))
        if len(h) == batch:
            slot = cache.length % cache.capacity
            valid = min(cache.length + 1, cache.capacity)
            stored = cache.keys[index], cache.values[index], cache.scales[index]
            cache._written[index] = cache.length + 1
            return decoding.attend(rows, biases, *stored, slot, valid)
        q, k, v = (split_heads(r, b, batch, block) for r, b in zip(rows, biases, strict=True))
        start = 0
        earlier = cache.ordered(index) if cache.length else None
        cache.update(index, k, v)
        if earlier is not None:
            start = earlier[0].shape[2]
            k, v = (np.concatenate([old, new], axis=2) for old, new in zip(earlier, (k, v), strict=True))
        return attention_of(q, k, v, causal_mask(q.shape[2], start, cache.window))


def fused_step(
    ids: NDArray[np.intp], *, steps: Steps, start: int, cache: Any, last_only: bool
) -> tuple[Array, tuple[()]]:
    """Rule of `Steps.logits`, for those who observe operations; there is nothing to differentiate.

    It has all of the work: layers that it calls, where those are no plain or quantized ones, are not observed
    a second time.
    """
    unobserved = OBSERVER.set(None)
    try:
        return steps._logits(ids, start, cache, last_only), ()
    finally:
        OBSERVER.reset(unobserved)


def _last(rows: Array | None, batch: int) -> Array | None:
    """Return the last of the positions of each sequence, (B T, d) to (B, d)."""
    return None if rows is None else np.ascontiguousarray(rows.reshape(batch, -1, rows.shape[1])[:, -1])


def _unfitting(steps: Steps, cache: Any) -> str:
    if steps.sizes is None:
        return (
            "a cache needs blocks of the same heads: call disable_kv_cache() where they differ in `num_heads`"
        )
    return (
        f"the cache does not fit the blocks of the model: these have {steps.sizes} layers, heads and "
        f"head_dim, got {cache!r}: call enable_kv_cache() again after changing blocks"
    )
