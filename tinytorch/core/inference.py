"""Running a GPT without recording anything: fused steps, with a cache of keys and values or without.

This is what `generate` runs, and `forward` under `no_grad` where a cache is enabled. Without a cache every
token costs a pass over all positions, though only the last position meets the head; that pass is as fused
as a cached step is, because it is what caching is measured against.
"""

from __future__ import annotations

import math
import weakref
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tinytorch.core.activations import GELU
from tinytorch.core.attention import MultiHeadAttention, causal_mask
from tinytorch.core.autograd import recording
from tinytorch.core.embeddings import Embedding
from tinytorch.core.layers import Dropout, Layer, LayerNorm, Linear
from tinytorch.core.tensor import OBSERVER, Tensor
from tinytorch.kernels import decoding, int8, softmax
from tinytorch.kernels.decoding import BlockWeights
from tinytorch.kernels.int8 import Packed, Range
from tinytorch.kernels.products import ACTIVE, product

Array = NDArray[np.float32]
_NO_SCALES = np.empty((0, 0, 0, 0), np.float32)


class Projection:
    """A linear layer: its product with rows, and the bias that the next kernel adds."""

    __slots__ = ("layer", "live", "packed", "zeros")

    def __init__(self, layer: Any) -> None:
        self.layer = layer
        self.live = type(layer) is Linear and _forward(layer) is None
        self.packed = _packed(layer) if _is_quantized(layer) else None
        self.zeros = np.zeros(layer.out_features, np.float32)

    def __call__(self, rows: Array) -> Array:
        """Return rows (n, out), without the bias where the layer is a plain one."""
        if self.live:
            return product(rows, self.layer.weight._array)
        if self.packed is not None:
            layer = self.layer
            fixed = None if layer.activation_scale is None else layer._fixed
            return int8.linear(rows, self.packed, layer.out_features, fixed)
        return np.array(self.layer(rows).numpy(), np.float32, order="C")  # what follows writes into it

    @property
    def bias(self) -> Array:
        """What is missing from the product, shape (out,)."""
        if self.live and self.layer.bias is not None:
            found: Array = self.layer.bias._array
            return found
        return self.zeros

    @property
    def n_bytes(self) -> int:
        """The bytes of what is read for rows, however many: packed weights, or all that the layer holds."""
        if self.packed is not None:
            return sum(array.nbytes for array in self.packed)
        return sum(
            _n_bytes(value) for _, layer in self.layer.named_layers() for value in vars(layer).values()
        )


class Merged(NamedTuple):
    """Quantized query, key and value layers, packed together: rows are quantized once."""

    packed: Packed
    outputs: int
    fixed: Range | None


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


class Steps:
    """The steps of a GPT; its weights are looked at anew in each, its layers by `steps_of`."""

    def __init__(self, model: Any, blocks: list[Block]) -> None:
        self.parts = _parts(model) or ()
        self.forwards = tuple(map(_forward, self.parts))
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
        weights += sum(_n_bytes(norm.gamma) + _n_bytes(norm.beta) for norm in self.norms)
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
            scores = self.head(_normalized(x, None, bias, model.ln_f))
            scores += self.head.bias
            return scores.reshape(1, 1, -1)
        for index, block in enumerate(self.blocks):
            h = _normalized(x, added, bias, block.ln1)
            added, bias = block.out(self._attended(block, index, h, batch, cache)), block.out.bias
            h = decoding.biased_gelu(block.first(_normalized(x, added, bias, block.ln2)), block.first.bias)
            added, bias = block.second(h), block.second.bias
        if last_only and length > 1:
            x, added = (_last(a, batch) for a in (x, added))
            length = 1
        if cache is not None:
            cache.advance(ids.shape[1])
        scores = self.head(_normalized(x, added, bias, model.ln_f))
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
        rows, biases = _queries_keys_values(block, h)
        if cache is None:
            q, k, v = (_heads(r, b, batch, block) for r, b in zip(rows, biases, strict=True))
            return _attention(q, k, v, causal_mask(q.shape[2]))
        if len(h) == batch:
            slot = cache.length % cache.capacity
            valid = min(cache.length + 1, cache.capacity)
            stored = cache.keys[index], cache.values[index], cache.scales[index]
            cache._written[index] = cache.length + 1
            return decoding.attend(rows, biases, *stored, slot, valid)
        q, k, v = (_heads(r, b, batch, block) for r, b in zip(rows, biases, strict=True))
        start = 0
        earlier = cache.ordered(index) if cache.length else None
        cache.update(index, k, v)
        if earlier is not None:
            start = earlier[0].shape[2]
            k, v = (np.concatenate([old, new], axis=2) for old, new in zip(earlier, (k, v), strict=True))
        return _attention(q, k, v, causal_mask(q.shape[2], start, cache.window))


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


_ENABLED: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()
_STEPS: weakref.WeakKeyDictionary[Any, Steps] = weakref.WeakKeyDictionary()


def enable(model: Any, cache: Any) -> None:
    """Let a model use a KVCache; what quantized layers were packed into is made anew."""
    _STEPS.pop(model, None)
    _ENABLED[model] = cache


def disable(model: Any) -> None:
    """Take the cache of a model away."""
    _ENABLED.pop(model, None)


def cached(model: Any) -> Any:
    """Return the KVCache that a model was given, or None."""
    return _ENABLED.get(model) if _ENABLED else None


def continued(model: Any, ids: NDArray[np.intp], start: int) -> Array | None:
    """Return the logits of `forward` by way of the cache; None where there is none, or gradients are wanted.

    Raises:
        ValueError: `start` or the batch does not fit what the cache holds, or dropout is on.
    """
    cache = cached(model)
    if cache is None or recording():
        return None
    steps = steps_of(model, thorough=start == 0)
    if steps is None:
        raise ValueError(f"a cache needs the blocks of GPT as they are: disable_kv_cache() {model!r} first")
    for layer in steps.dropouts:
        if layer.training and layer.p:
            raise ValueError("a cache has no dropout: call model.eval() first, or disable_kv_cache(model)")
    if start == 0:
        cache.room(0, ids.shape[1])
        cache.begin(len(ids))
    else:
        if len(ids) != cache.batch_size:
            raise ValueError(
                f"the cache holds a batch of {cache.batch_size}, got {len(ids)} sequences: start anew at 0"
            )
        cache.room(start, ids.shape[1])
        cache.rewind(start)
    return steps.logits(ids, start, cache, last_only=False)


def _unfitting(steps: Steps, cache: Any) -> str:
    if steps.sizes is None:
        return (
            "a cache needs blocks of the same heads: call disable_kv_cache() where they differ in `num_heads`"
        )
    return (
        f"the cache does not fit the blocks of the model: these have {steps.sizes} layers, heads and "
        f"head_dim, got {cache!r}: call enable_kv_cache() again after changing blocks"
    )


def steps_of(model: Any, thorough: bool = True) -> Steps | None:
    """Return the steps of a GPT; None where it, or a part of it, is of another class than it was made of.

    They are made once for each model, and again where a layer was replaced.

    Args:
        model: any layer.
        thorough: look for a `forward` that was assigned to a layer, too, which takes longer.
    """
    known = _STEPS.get(model)
    if known is not None and known.parts == _parts(model) and known.current():
        forwards = tuple(map(_forward, known.parts)) if thorough else known.forwards
        if forwards == known.forwards and not (thorough and _forward(model)):
            return known
    steps = _new_steps(model)
    if steps is not None:
        _STEPS[model] = steps
    return steps


def _parts(model: Any) -> tuple[Any, ...] | None:
    """Return all layers that steps depend on, equal only to themselves; None where a block has others."""
    parts = [model.token_embedding, model.position_embedding, model.dropout, model.lm_head, model.ln_f]
    try:
        for block in model.blocks:
            attention, mlp = block.attention, block.mlp
            parts += (
                block, attention, mlp, block.ln1, block.ln2, block.dropout, mlp.gelu, mlp.linear1,
                mlp.linear2, mlp.dropout, attention.q_proj, attention.k_proj, attention.v_proj,
                attention.out_proj,
            )  # fmt: skip
    except AttributeError:
        return None
    return tuple(parts)


def _new_steps(model: Any) -> Steps | None:
    from tinytorch.core.transformers import GPT

    if type(model) is not GPT or not model.blocks or not all(map(_is_known_block, model.blocks)):
        return None
    around = (model, model.token_embedding, model.position_embedding, model.dropout, model.ln_f)
    if not _are(around, (GPT, Embedding, Embedding, Dropout, LayerNorm)) or _outputs(model.lm_head) is None:
        return None
    blocks = []
    for block in model.blocks:
        attention, mlp = block.attention, block.mlp
        layers = (
            attention.q_proj,
            attention.k_proj,
            attention.v_proj,
            attention.out_proj,
            mlp.linear1,
            mlp.linear2,
        )
        if any(_outputs(layer) is None for layer in layers):
            return None
        q, k, v, out, first, second = map(Projection, layers)
        blocks.append(
            Block(attention, q, k, v, _merged(*layers[:3]), out, first, second, block.ln1, block.ln2)
        )
    return Steps(model, blocks)


def _is_known_block(block: Any) -> bool:
    from tinytorch.core.transformers import MLP, TransformerBlock

    if type(block) is not TransformerBlock:
        return False
    mlp = block.mlp
    kinds = (TransformerBlock, MultiHeadAttention, LayerNorm, LayerNorm, Dropout, MLP)
    return _are((block, block.attention, block.ln1, block.ln2, block.dropout, mlp), kinds) and _are(
        (mlp.gelu, mlp.dropout), (GELU, Dropout)
    )


def _are(layers: tuple[Any, ...], kinds: tuple[type, ...]) -> bool:
    """Return whether layers are of these very classes, and compute what these compute."""
    return all(
        type(layer) is kind and _forward(layer) is None for layer, kind in zip(layers, kinds, strict=True)
    )


def _forward(layer: Any) -> Any:
    """Return the `forward` that was assigned to a layer in the place of that of its class, or None."""
    return getattr(layer, "__dict__", {}).get("forward")


def _n_bytes(value: Any) -> int:
    array = value._array if isinstance(value, Tensor) else value
    return array.nbytes if isinstance(array, np.ndarray) else 0


def _outputs(layer: Any) -> Any:
    """Return how many outputs a layer has that can stand where a Linear was, or None.

    Like a Linear, such a layer is taken to treat each position by itself: it is called with rows.
    """
    return getattr(layer, "out_features", None) if isinstance(layer, Layer) else None


def _is_quantized(layer: Any) -> bool:
    from tinytorch.perf.quantization.layers import QuantizedLinear

    return type(layer) is QuantizedLinear and _forward(layer) is None


def _packed(layer: Any) -> Packed:
    return Packed(layer.panels, layer.scales, layer.sums, layer.padded_bias)


def _merged(*layers: Any) -> Merged | None:
    """Pack quantized layers of the same rows together; None where they are not, or do not fit."""
    if not all(map(_is_quantized, layers)) or layers[0].out_features % int8.PANEL:
        return None
    if len({(layer.activation_scale, layer.activation_zero) for layer in layers}) > 1:
        return None
    parts = zip(*map(_packed, layers), strict=True)
    packed = Packed(*(np.concatenate(part) for part in parts))
    return Merged(packed, sum(layer.out_features for layer in layers), layers[0]._fixed)


def _queries_keys_values(
    block: Block, h: Array
) -> tuple[tuple[Array, Array, Array], tuple[Array, Array, Array]]:
    biases = block.query.bias, block.key.bias, block.value.bias
    if block.merged is None:
        return (block.query(h), block.key(h), block.value(h)), biases
    together = int8.linear(h, *block.merged)
    d = together.shape[1] // 3
    if len(h) == 1:
        return (together[:, :d], together[:, d : 2 * d], together[:, 2 * d :]), biases
    q, k, v = (np.ascontiguousarray(together[:, i * d : (i + 1) * d]) for i in range(3))
    return (q, k, v), biases


def _normalized(x: Array, added: Array | None, bias: Array, layer: LayerNorm) -> Array:
    return decoding.add_normalized(x, added, bias, layer.gamma._array, layer.beta._array, layer.eps)


def _last(rows: Array | None, batch: int) -> Array | None:
    """Return the last of the positions of each sequence, (B T, d) to (B, d)."""
    return None if rows is None else np.ascontiguousarray(rows.reshape(batch, -1, rows.shape[1])[:, -1])


def _heads(rows: Array, bias: Array, batch: int, block: Block) -> Array:
    """(B T, d) to (B, heads, T, head_dim), a view, with the bias added in place."""
    rows += bias
    heads, width = block.attention.num_heads, block.attention.head_dim
    return rows.reshape(batch, -1, heads, width).transpose(0, 2, 1, 3)


def _attention(q: Array, k: Array, v: Array, mask: NDArray[np.bool_]) -> Array:
    batch, heads, length, width = q.shape
    weights = softmax.masked_softmax(np.matmul(q, k.swapaxes(2, 3)), mask, 1 / math.sqrt(width))
    out = np.empty((batch, length, heads, width), np.float32)
    np.matmul(weights, v, out=out.transpose(0, 2, 1, 3))
    return out.reshape(batch * length, heads * width)
