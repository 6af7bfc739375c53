"""Giving a language model a cache, and taking it away."""

from __future__ import annotations

from tinytorch.core import inference
from tinytorch.core.checks import positive_int
from tinytorch.core.inference.recognition import overridden
from tinytorch.core.transformers import GPT
from tinytorch.perf.memoization.cache import KVCache


def enable_kv_cache(
    model: GPT,
    *,
    batch_size: int | None = None,
    max_seq_len: int | None = None,
    dtype: str = "float32",
    window: int | None = None,
) -> KVCache:
    """Give a model a cache, and return it; `generate` then uses it, and so does `forward` under `no_grad`.

    `forward(tokens, start_pos=p)` with p = 0 starts anew, and with p up to the number of positions held goes
    on after the first p of them. Weights are not copied, but for quantized layers: query, key and value are
    packed together now. Enabling it a second time returns the same cache, unless its sizes or kind differ;
    for another `batch_size` it forgets what it holds. A copy of the model has no cache until it is given one.

    Args:
        model: a GPT, or of a subclass that has no `forward` of its own. Layers in the place of its Linear
            ones may be of any class with `out_features` that treats each position by itself.
        batch_size: to allocate for now, 1 unless given; another one, at the start of a sequence, allocates
            anew.
        max_seq_len: how many positions to keep room for, those of the model unless given.
        dtype: "float32" or "int8"; see `KVCache`.
        window: attend to this many of the latest positions only, at most `max_seq_len`.

    Raises:
        ValueError: `model` is no GPT, or was changed so that its steps are not known, or so that its blocks
            have different heads; or a size is wrong.
    """
    if not isinstance(model, GPT):
        raise ValueError(
            f"`model` must be a GPT, got {type(model).__name__}: other models call CachedMultiHeadAttention "
            "with a KVCache"
        )
    longest = model.max_seq_len if max_seq_len is None else positive_int(max_seq_len, "max_seq_len")
    if longest > model.max_seq_len:
        raise ValueError(f"`max_seq_len` (={longest}) is beyond that of the model, {model.max_seq_len}")
    steps = inference.steps_of(model)
    if steps is None and (method := overridden(model)) is not None:
        raise ValueError(
            f"a cache needs `model` to compute what GPT does, got one with a {method} of its own: such "
            "models call CachedMultiHeadAttention with a KVCache"
        )
    if steps is None:
        raise ValueError(f"a cache needs the blocks of GPT as they are, got {model.blocks!r}")
    if steps.sizes is None:
        raise ValueError("a cache needs blocks of the same heads, got blocks that differ in `num_heads`")
    size = None if batch_size is None else positive_int(batch_size, "batch_size")
    cache: KVCache | None = inference.cached(model)
    wanted = (longest, dtype, window, *steps.sizes)
    if cache is None or wanted != _kind(cache):
        cache = KVCache(size or 1, longest, *steps.sizes, dtype=dtype, window=window)
    elif size is not None and size != cache.batch_size:
        cache.begin(size)
    inference.enable(model, cache)
    return cache


def disable_kv_cache(model: GPT) -> None:
    """Take the cache of a model away; without one nothing happens.

    Raises:
        ValueError: `model` is no GPT.
    """
    if not isinstance(model, GPT):
        raise ValueError(f"`model` must be a GPT, got {type(model).__name__}")
    inference.disable(model)


def _kind(cache: KVCache) -> tuple[int | str | None, ...]:
    sizes = (cache.num_layers, cache.num_heads, cache.head_dim)
    return (cache.max_seq_len, cache.dtype, cache.window, *sizes)
