"""The state of the process while it times: collector, threads and CPU, all put back afterwards."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from perfclaims.evidence import Threads

# Objects allocated since the last collection beyond which one runs, untimed, between passes.
_PILED_UP = 20_000
_SPREAD_BYTES = 30 << 20

_prepared = False


@dataclass(frozen=True, slots=True)
class Conditions:
    """What held while timing: threads allowed, and the one CPU it was pinned to, if any."""

    threads: Threads
    cpu: int | None


def prepare_process() -> None:
    """Once per process: spread the heap and collect what start-up left behind.

    The GNU C library serves blocks of 128 kB and more by mmap, all at one offset within a page, until the
    first such block is freed; from then on they come from the heap, where each instance gets an alignment of
    its own. Without this, ten instances of array code are ten copies of one accident of alignment: ratios of
    unchanged code were seen from 0.63 to 0.97 from process to process, each with a tight interval.
    """
    global _prepared  # noqa: PLW0603 - a property of the process, not of an object
    if not _prepared:
        _prepared = True
        bytearray(_SPREAD_BYTES)
        gc.collect()


@contextmanager
def measuring(threads: Threads = 1) -> Iterator[Conditions]:
    """Hold the process in the state for timing.

    The collector is off and what exists is frozen (a collection then costs microseconds, not 10 to 20 ms).
    With one thread the measurement is pinned to one allowed CPU where the system can.
    """
    prepare_process()
    with ExitStack() as restore:
        restore.enter_context(_collector_off())
        cpu = restore.enter_context(_pinned()) if threads == 1 else None
        restore.enter_context(limited_threads(threads))
        yield Conditions(threads, cpu)


def collect_if_piled_up() -> None:
    """Collect garbage when enough objects were made since the last time; call it between timed passes."""
    if gc.get_count()[0] > _PILED_UP:
        gc.collect()


@contextmanager
def _collector_off() -> Iterator[None]:
    was_enabled = gc.isenabled()
    # Objects that the caller froze must stay frozen, and `unfreeze` knows no subsets: then leave all as it is.
    freeze = gc.get_freeze_count() == 0
    gc.disable()
    if freeze:
        gc.freeze()
    try:
        yield
    finally:
        if freeze:
            gc.unfreeze()
        if was_enabled:
            gc.enable()


@contextmanager
def _pinned() -> Iterator[int | None]:
    """Pin this thread to the last allowed CPU: interrupts gather on the first ones."""
    if not hasattr(os, "sched_setaffinity"):
        yield None
        return
    allowed = os.sched_getaffinity(0)
    cpu = max(allowed)
    try:
        os.sched_setaffinity(0, {cpu})
    except OSError:
        yield None
        return
    try:
        yield cpu
    finally:
        os.sched_setaffinity(0, allowed)


@contextmanager
def limited_threads(threads: Threads) -> Iterator[None]:
    """Set the threads of BLAS, OpenMP and numba explicitly: `threads`, or as many as there are CPUs."""
    from threadpoolctl import threadpool_limits

    number = available_cpus() if threads == "all" else threads
    with ExitStack() as restore:
        restore.enter_context(threadpool_limits(limits=number))
        numba = sys.modules.get("numba")
        if numba is not None:
            before = numba.get_num_threads()
            numba.set_num_threads(min(number, numba.config.NUMBA_NUM_THREADS))
            restore.callback(numba.set_num_threads, before)
        yield


def available_cpus() -> int:
    """CPUs this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
