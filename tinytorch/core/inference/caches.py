"""Which model has which steps and which cache, kept beside the models, which stay as they are."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinytorch.core.autograd import recording
from tinytorch.core.inference.projections import Array, replaced_forward
from tinytorch.core.inference.recognition import known_blocks, parts_of
from tinytorch.core.inference.steps import Steps
from tinytorch.core.layers import Layer

_ENABLED: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()
#: caches that `generate` is using, by identity
_GENERATING: dict[int, object] = {}
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


@contextmanager
def generating(model: Any) -> Iterator[None]:
    """Run the block with the cache of a model, if it has one, for itself.

    Raises:
        RuntimeError: another thread is doing so.
    """
    cache, mine = cached(model), object()
    if cache is None:
        yield
        return
    if _GENERATING.setdefault(id(cache), mine) is not mine:
        raise RuntimeError(
            "the cache is in use: another thread is generating with this model; give each thread a copy of "
            "the model, with a cache of its own"
        )
    try:
        yield
    finally:
        del _GENERATING[id(cache)]


@contextmanager
def set_aside(model: Any) -> Iterator[None]:
    """Run the block without the caches of a model and of what is in it; then give them back as they were."""
    layers = [layer for _, layer in model.named_layers()] if isinstance(model, Layer) else []
    found = {layer: _ENABLED.pop(layer) for layer in layers if cached(layer) is not None}
    try:
        yield
    finally:
        _ENABLED.update(found)


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


def steps_of(model: Any, thorough: bool = True) -> Steps | None:
    """Return the steps of a GPT; None where it, or a part of it, is of another class than it was made of.

    They are made once for each model, and again where a layer was replaced.

    Args:
        model: any layer.
        thorough: look for a `forward` that was assigned to a layer, too, which takes longer.
    """
    known = _STEPS.get(model)
    if known is not None and known.parts == parts_of(model) and known.current():
        forwards = tuple(map(replaced_forward, known.parts)) if thorough else known.forwards
        if forwards == known.forwards and not (thorough and replaced_forward(model)):
            return known
    blocks = known_blocks(model)
    if blocks is None:
        return None
    steps = _STEPS[model] = Steps(model, blocks)
    return steps
