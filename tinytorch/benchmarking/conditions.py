"""The same environment for every model: one thread, no collector, evaluation mode; all is put back."""

from __future__ import annotations

import copy
import gc
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np

from tinytorch.benchmarking.contenders import Contender
from tinytorch.core import inference
from tinytorch.core.autograd import no_grad
from tinytorch.perf.profiling.contents import arrays_of, layers_of
from tinytorch.perf.profiling.states import undoing

# Objects made since the last collection beyond which one runs, between samples and not timed.
_PILED_UP = 20_000


@contextmanager
def evaluating(contenders: Iterable[Contender]) -> Iterator[None]:
    """Hold all layers of all models in evaluation mode, and record no operations.

    Modes, buffers, random states and what caches hold are put back. Models keep their caches in the block,
    because with a cache a model is another one to measure.
    """
    layers = {id(layer): layer for c in contenders for layer in layers_of(c.model)}.values()
    caches = {id(cache): cache for cache in map(inference.cached, layers) if cache is not None}.values()
    undo = [undo for layer in layers for undo in undoing(layer)] + [_filling_again(cache) for cache in caches]
    try:
        for layer in layers:
            layer.training = False
        with no_grad():
            yield
    finally:
        for restore in undo:
            restore()


def _filling_again(cache: Any) -> Callable[[], None]:
    """Return a function that gives a cache back its memory and what it held."""
    fields = {name: (value, copy.copy(value)) for name, value in vars(cache).items()}
    contents = [(array, array.copy()) for array in arrays_of(cache)]

    def restore() -> None:
        for name, (value, kept) in fields.items():
            if isinstance(value, list):
                value[:] = kept
            setattr(cache, name, value)
        for array, kept in contents:
            np.copyto(array, kept)

    return restore


@contextmanager
def single_threaded() -> Iterator[None]:
    """Let BLAS, OpenMP and compiled loops use one thread."""
    from threadpoolctl import threadpool_limits

    with ExitStack() as restore:
        restore.enter_context(threadpool_limits(limits=1))
        numba = sys.modules.get("numba")
        if numba is not None:
            restore.callback(numba.set_num_threads, numba.get_num_threads())
            numba.set_num_threads(1)
        yield


@contextmanager
def collector_paused() -> Iterator[None]:
    """Collect garbage now and not in between, except where `collect_if_piled_up` says so."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        (gc.enable if was_enabled else gc.disable)()


def collect_if_piled_up() -> None:
    """Collect garbage where much of it may have been made since the last time."""
    if gc.get_count()[0] > _PILED_UP:
        gc.collect()
