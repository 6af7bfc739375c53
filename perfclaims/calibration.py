"""How long a call of each side takes, before it is known how many of them make a sample."""

from __future__ import annotations

import random
from collections.abc import Sequence

from perfclaims.plan import INSTANCES, SAMPLE_NS
from perfclaims.sides import Instance

# Calls this short are made once more, and those this short in batches.
_REPEAT_BELOW_NS = 20_000_000
_BATCH_BELOW_NS = 200_000
_BATCHES = 5
_ROUNDS = 3


def call_durations(instance: Instance, single_ns: Sequence[int], coins: random.Random) -> list[float]:
    """Nanoseconds per call of the baseline and of the optimised side.

    The least of several samples, in which the sides take turns, so that what disturbs one disturbs the other:
    batches of unequal length would make a difference where there is none. A single call of 2 us takes 10 when
    it finds the caches cold, so quick calls are timed in batches, as they will be later.

    Args:
        instance: with several sets of arguments, of which the first two were used.
        single_ns: what single calls of the two sides took.
        coins: for the order of the sides.
    """
    call_ns = [float(ns) for ns in single_ns]
    sides = instance.baseline, instance.optimized
    for which, side in enumerate(sides):
        if call_ns[which] < _REPEAT_BELOW_NS:
            # A position of its own, where the other side cannot have left an answer.
            call_ns[which] = min(call_ns[which], side.sample(2 + which))
    quick = [which for which in (0, 1) if call_ns[which] < _BATCH_BELOW_NS]
    calls = [1, 1]
    for _ in range(_ROUNDS if quick else 0):
        for which in quick:
            calls[which] = max(1, round(SAMPLE_NS / call_ns[which]))
        instance.batch(calls[0], calls[1], INSTANCES)
        for position in range(_BATCHES):
            for which in coins.sample(quick, len(quick)):
                per_call = sides[which].sample(position) / calls[which]
                call_ns[which] = max(0.1, min(call_ns[which], per_call))
        if all(calls[which] * call_ns[which] > SAMPLE_NS / 2 for which in quick):
            break
    return call_ns
