"""How much memory a call needs, beyond what the model holds."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence

from tinytorch.benchmarking.contenders import Contender
from tinytorch.benchmarking.data import Data
from tinytorch.benchmarking.latency import refusing
from tinytorch.benchmarking.limits import time_limit

# Tracing makes CPython's benchmarks 3.3 times slower in geometric mean.
_SLOWER = 4


def peak_bytes(contender: Contender, datasets: Sequence[Data], time_limit_s: float) -> int:
    """Return how many bytes more than before are in use at the peak of a pass over all data.

    Counted is what Python and NumPy allocate, also where compiled loops fill it. Tracing, which slows
    everything, stops again, also where the model raises.
    """
    inputs = [contender.prepared(data.inputs) for data in datasets]
    was_tracing = tracemalloc.is_tracing()
    if not was_tracing:
        tracemalloc.start()
    try:
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        with (
            refusing(contender, "its memory was traced"),
            time_limit(_SLOWER * time_limit_s * len(inputs)),
        ):
            for item in inputs:
                contender.call(item)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        if not was_tracing:
            tracemalloc.stop()
    return max(0, peak - before)
