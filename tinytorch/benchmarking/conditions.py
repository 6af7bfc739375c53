"""The same environment for every model: one thread, no collector, evaluation mode; all is put back."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

from tinytorch.benchmarking.contenders import Contender
from tinytorch.benchmarking.contents import layers_of
from tinytorch.core.autograd import no_grad

# Objects made since the last collection beyond which one runs, between samples and not timed.
_PILED_UP = 20_000


@contextmanager
def evaluating(contenders: Iterable[Contender]) -> Iterator[None]:
    """Hold all layers of all models in evaluation mode, and record no operations."""
    before = [(layer, layer.training) for c in contenders for layer in layers_of(c.model)]
    try:
        for layer, _ in before:
            layer.training = False
        with no_grad():
            yield
    finally:
        for layer, training in before:
            layer.training = training


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
