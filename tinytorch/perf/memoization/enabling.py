"""Giving a language model a cache, and taking it away."""

from __future__ import annotations

from tinytorch.core import inference
from tinytorch.core.checks import positive_int
from tinytorch.core.transformers import GPT
from tinytorch.perf.memoization.cache import KVCache


def enable_kv_cache(
    model: GPT,
    *,
    batch_size: int = 1,
    max_seq_len: int | None = None,
    dtype: str = "float32",
    window: int | None = None,
) -> KVCache:
    """Give a model a cache, and return it; `generate` then uses it, and so does `forward` under `no_grad`.

    `forward(tokens, start_pos=p)` with p = 0 starts anew, and with p up to the number of positions held goes
    on after the first p of them. Weights are not copied, but for quantized layers: query, key and value are
    packed together now. Enabling it a second time returns the same cache, unless its sizes or kind differ.

    Args:
        model: a GPT, of any layers inside.
        batch_size: to allocate for now; another one, at the start of a sequence, allocates anew.
        max_seq_len: how many positions to keep room for, those of the model unless given.
        dtype: "float32" or "int8"; see `KVCache`.
        window: attend to this many of the latest positions only.

    Raises:
        ValueError: `model` is no GPT, or was changed so that its steps are not known; or a size is wrong.
    """
    if not isinstance(model, GPT):
        raise ValueError(
            f"`model` must be a GPT, got {type(model).__name__}: other models call CachedMultiHeadAttention "
            "with a KVCache"
        )
    longest = model.max_seq_len if max_seq_len is None else positive_int(max_seq_len, "max_seq_len")
    if longest > model.max_seq_len:
        raise ValueError(f"`max_seq_len` (={longest}) is beyond that of the model, {model.max_seq_len}")
    if inference.steps_of(model) is None:
        raise ValueError(f"a cache needs the blocks of GPT as they are, got {model.blocks!r}")
    found: KVCache | None = inference.cached(model)
    wanted = (longest, dtype, window)
    if found is not None and wanted == (found.max_seq_len, found.dtype, found.window):
        return found
    cache = KVCache(
        batch_size, longest, model.num_layers, model.num_heads, model.embed_dim // model.num_heads,
        dtype=dtype, window=window,
    )  # fmt: skip
    inference.enable(model, cache)
    return cache


def disable_kv_cache(model: GPT) -> None:
    """Take the cache of a model away; without one nothing happens."""
    inference.disable(model)
