"""Who has the processor: the referee and its players share one, and nobody changes its share."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import numpy as np


@contextlib.contextmanager
def on_one_cpu(rng: np.random.Generator) -> Iterator[None]:
    """Keep this thread, and the processes it starts, on one of its CPUs, where the system can.

    Referee and players take turns, so they need no more; and an answer from the same CPU takes 50 us, from
    another one 110 us, which would tell apart where processes happen to run and not how fast they are.

    Args:
        rng: chooses the CPU.
    """
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {int(rng.choice(sorted(allowed)))})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def turns_of(process: int) -> tuple[Any, ...]:
    """Return by what the system gives a process the processor: priority, and on Linux processors and policy.

    Args:
        process: its number; 0 is the thread that asks.

    Raises:
        ProcessLookupError: there is none.
    """
    found: tuple[Any, ...] = (os.getpriority(os.PRIO_PROCESS, process),)
    if hasattr(os, "sched_getaffinity"):
        found += (frozenset(os.sched_getaffinity(process)), os.sched_getscheduler(process))
    return found
