"""What this machine can do at most, measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from tinytorch.perf.profiling.timer import TRACING

# A product of 1024 x 1024 gets within a few percent of what larger ones get, in a tenth of the time.
_PEAK_SIZE = 1024
# Three arrays of 64 MB are several times what caches hold.
_STREAM_ELEMENTS = 1 << 24
_ROUNDS = 7


@dataclass(frozen=True, slots=True)
class Machine:
    """What this machine can do at most, with as many threads as BLAS has here and now.

    Attributes:
        peak_gflops: 1e9 FLOPs in a second, of a float32 product.
        bandwidth_gb_s: 1e9 bytes in a second, of adding two arrays into a third, all in main memory.
    """

    peak_gflops: float
    bandwidth_gb_s: float

    @property
    def ridge(self) -> float:
        """FLOPs for each byte from which on arithmetic is the bound, not memory."""
        return self.peak_gflops / self.bandwidth_gb_s

    def attainable_gflops(self, intensity: float) -> float:
        """Return the most that an operation of so many FLOPs for each byte can do."""
        return min(self.peak_gflops, intensity * self.bandwidth_gb_s)


def measure_machine() -> Machine:
    """Measure the peak and the bandwidth of this machine; takes about half a second and 200 MB.

    Each is the best of several rounds: whatever else runs can only slow them down.

    Raises:
        RuntimeError: inside `with MemoryProfiler()`, which makes everything slower.
    """
    if TRACING:
        raise RuntimeError("measure_machine() cannot run inside `with MemoryProfiler()`: measure it before")
    return Machine(_peak_flops() / 1e9, _bandwidth_bytes() / 1e9)


def _peak_flops() -> float:
    n = _PEAK_SIZE
    left, right, product = (np.ones((n, n), np.float32) for _ in range(3))
    return 2 * n**3 / _best_s(lambda: np.matmul(left, right, out=product))


def _bandwidth_bytes() -> float:
    left, right, total = (np.ones(_STREAM_ELEMENTS, np.float32) for _ in range(3))
    return 3 * total.nbytes / _best_s(lambda: np.add(left, right, out=total))


def _best_s(run: Callable[[], object]) -> float:
    best = float("inf")
    for _ in range(_ROUNDS):
        start = perf_counter()
        run()
        best = min(best, perf_counter() - start)
    return best
