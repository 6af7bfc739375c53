"""What recording costs, measured where it is asked for."""

from __future__ import annotations

from time import perf_counter_ns
from typing import Any

import numpy as np

from tinytorch.core.autograd import no_grad
from tinytorch.core.derivatives import add
from tinytorch.perf.profiling.recording import Log, Recorder, Span

_CALLS = 200
_ROUNDS = 7


def overhead_per_record_us() -> float:
    """Return the microseconds that recording adds to an operation; measuring that takes about 2 ms.

    The least of several rounds with recording, minus the least of those without.
    """
    arrays = [np.ones(1, np.float32)] * 2
    recorder = Recorder(Log())
    recorder.current = Span()  # operations mostly run inside a layer
    with no_grad():
        without, recorded = (
            min(_duration_ns(run, arrays) for _ in range(_ROUNDS)) for run in (_plainly, recorder.operation)
        )
    return max(recorded - without, 0) / _CALLS / 1e3


def _plainly(rule: Any, arrays: Any, options: Any) -> Any:
    return rule(*arrays, **options)


def _duration_ns(run: Any, arrays: Any) -> int:
    start = perf_counter_ns()
    for _ in range(_CALLS):
        run(add, arrays, {})
    return perf_counter_ns() - start
