"""How speed is asked for: one query after the other, or everything at once; and for how long."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from tinytorch.benchmarking.statistics import checked_confidence, finite_values
from tinytorch.core.checks import positive, positive_int

#: the share of the queries whose latency single-stream reports, as MLPerf does
PERCENTILE = 0.9
#: fewer pairs of processes have no interval at 95 %
FEWEST_SITTINGS = 6


@dataclass(frozen=True, slots=True)
class Scenario:
    """A way of asking.

    Attributes:
        name: "single-stream", whose figure is the 90th percentile of the latencies, or "offline", whose
            figure is the throughput.
        task: "predict": scores for inputs; "generate": a text continued greedily.
        batch: examples in a query.
        queries: queries in a round; a round of the reference model stands beside each of a submission.
        prompt, new_tokens: for texts to be continued.
    """

    name: str
    task: str
    batch: int
    queries: int
    prompt: int = 0
    new_tokens: int = 0


SINGLE_STREAM = Scenario("single-stream", "predict", batch=1, queries=32)
OFFLINE = Scenario("offline", "predict", batch=256, queries=1)
GENERATE = Scenario("single-stream", "generate", batch=1, queries=2, prompt=16, new_tokens=32)


@dataclass(frozen=True, slots=True)
class Settings:
    """How long and within which limits a submission is measured.

    Args:
        min_duration_s: for each scenario, over all sittings, both models together.
        sittings: fresh pairs of processes; one process for each model would compare two accidents of memory
            layout. Fewer than six have no interval.
        min_rounds: for each sitting and scenario, however long they take.
        call_limit_s: for one answer, loading included.
        memory_limit_mb: of address space for a submission's process, libraries included.

    Raises:
        ValueError: one is not positive.
    """

    min_duration_s: float = 10.0
    sittings: int = 8
    min_rounds: int = 3
    call_limit_s: float = 30.0
    memory_limit_mb: int = 4096

    def __post_init__(self) -> None:
        for name in ("min_duration_s", "call_limit_s"):
            positive(getattr(self, name), name)
        for name in ("sittings", "min_rounds", "memory_limit_mb"):
            positive_int(getattr(self, name), name)


@dataclass(frozen=True, slots=True)
class Percentile:
    """A percentile and how bad it may be.

    Attributes:
        estimate: the smallest value that at least that share of the values do not exceed.
        bound: an upper bound; None where there are too few values for one.
        count: of values.
    """

    estimate: float
    bound: float | None
    count: int


def upper_percentile(values: ArrayLike, share: float = PERCENTILE, confidence: float = 0.95) -> Percentile:
    """Return a percentile with its upper bound, one of the values, whatever their distribution.

    The k-th smallest of n values lies above the percentile unless at least k values lie below it:
    P(Binomial(n, share) < k) >= confidence. For the 90th percentile at 95 % that takes 29 values; few values
    report a higher bound, so measuring less never looks better.

    Raises:
        ValueError: no values, or one is no finite number; `share` is not between 0 and 1.

    Source: Conover, Practical Nonparametric Statistics, 3rd ed., section 3.2.
    """
    ordered = np.sort(finite_values(values, "values"))
    if not 0 < share < 1:
        raise ValueError(f"`share` must lie between 0 and 1, both excluded, got {share!r}")
    from scipy.special import bdtr

    n = ordered.size
    # The product may round to just above a whole number: 0.9 * 10 must be the ninth.
    estimate = float(ordered[math.ceil(share * n - 1e-9) - 1])
    enough = bdtr(np.arange(n), n, share) >= checked_confidence(confidence)
    bound = float(ordered[int(enough.argmax())]) if enough.any() else None
    return Percentile(estimate, bound, n)


def fewest_values(share: float = PERCENTILE, confidence: float = 0.95) -> int:
    """Return how many values a bound takes: the largest must exceed the percentile with `confidence`."""
    return math.ceil(math.log(1 - checked_confidence(confidence)) / math.log(share))
