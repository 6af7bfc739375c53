"""Times one callable: calibrated, warmed up, summarised without assumptions about noise."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfclaims.claims import check_threads
from perfclaims.conditions import collect_if_piled_up, measuring
from perfclaims.criteria import is_number
from perfclaims.evidence import Threads
from perfclaims.plan import SAMPLE_NS
from perfclaims.statistics import median_interval, samples_needed

_clock = time.perf_counter_ns

# A first call this many times slower than the median did something once, such as compiling or importing.
_SLOW_FIRST_CALL = 5.0
# Half of the time in the mean that the median does not see: rare slow calls.
_HEAVY_TAIL = 1.5
_UNSTABLE = 0.05
_MOST_SAMPLES = 10_000


@dataclass(frozen=True, slots=True)
class TimingWarning:
    """Something the reader of a measurement should know, with what to do about it."""

    code: str
    message: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.message}; {self.remedy}"


@dataclass(frozen=True, slots=True, eq=False)
class Measurement:
    """Durations of one callable, per call, in milliseconds.

    Attributes:
        samples_ns: shape (samples,), in execution order; each is the duration of `calls_per_sample` calls.
        first_call_ms: the very first call, apart from the samples.
        ci_low_ms, ci_high_ms: 95 % interval of the median, from order statistics (0 and infinity where there
            are too few samples). It speaks of this object in this process: the same code built again can
            differ by more, which is what PerformanceComparator measures.
        warnings: each with a remedy.
    """

    name: str
    median_time_ms: float
    mean_time_ms: float
    std_time_ms: float
    min_time_ms: float
    ci_low_ms: float
    ci_high_ms: float
    first_call_ms: float
    calls_per_sample: int
    samples_ns: NDArray[np.int64]
    warnings: tuple[TimingWarning, ...]

    @property
    def coefficient_of_variation(self) -> float:
        """Standard deviation over mean."""
        return self.std_time_ms / self.mean_time_ms if self.mean_time_ms > 0 else 0.0

    def __str__(self) -> str:
        return (
            f"{self.name}: {self.median_time_ms:.4g} ms [{self.ci_low_ms:.4g}, {self.ci_high_ms:.4g}], "
            f"{len(self.samples_ns)} samples of {self.calls_per_sample} calls"
        )


class ScientificTimer:
    """Measures one callable; to compare two, use PerformanceComparator, which interleaves them.

    Args:
        budget_s: seconds of timing.
        warmup_runs: calls before the first sample, two at least; the first of them is reported by itself.
        measurement_runs: number of samples; None: as the budget allows, from 6 to 10 000.
        threads: of BLAS and compiled code: a number, or "all".

    Raises:
        ValueError: an argument that makes no sense, by name.
    """

    def __init__(
        self,
        budget_s: float = 0.5,
        warmup_runs: int = 3,
        measurement_runs: int | None = None,
        threads: Threads = 1,
    ) -> None:
        if not is_number(budget_s) or budget_s <= 0:
            raise ValueError(f"`budget_s` must be a positive number of seconds, got {budget_s!r}")
        if not isinstance(warmup_runs, int) or isinstance(warmup_runs, bool) or warmup_runs < 0:
            raise ValueError(f"`warmup_runs` must be an integer of zero or more, got {warmup_runs!r}")
        runs = measurement_runs
        if runs is not None and (not isinstance(runs, int) or isinstance(runs, bool) or runs < 1):
            raise ValueError(f"`measurement_runs` must be a positive integer or None, got {runs!r}")
        self.budget_s = float(budget_s)
        self.warmup_runs = warmup_runs
        check_threads(threads, "ScientificTimer")
        self.measurement_runs = measurement_runs
        self.threads: Threads = threads

    def measure_function(
        self,
        func: Callable[..., Any],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        name: str | None = None,
    ) -> Measurement:
        """Time `func(*args, **kwargs)`.

        Raises:
            ValueError: `func` cannot be called or `args` is no sequence; and whatever `func` raises.
        """
        if not callable(func):
            raise ValueError(f"`func` must be callable, got {func!r}")
        if isinstance(args, str) or not isinstance(args, Sequence):
            raise ValueError(f"`args` must be a tuple or list of arguments, got {args!r}; for one write (x,)")
        call = _bound(func, tuple(args), dict(kwargs or {}))
        with measuring(self.threads) as conditions:
            with conditions.setting_up():
                first_ns = timed(call, 1)
            # One more at least: the first may have compiled something.
            warm_ns = [timed(call, 1) for _ in range(max(1, self.warmup_runs - 1))]
            calls = calibrated_calls(call, min(warm_ns))
            samples = self._samples(call, calls)
        return _summary(name or str(getattr(func, "__name__", "function")), samples, calls, first_ns)

    def _samples(self, call: Callable[[], Any], calls: int) -> NDArray[np.int64]:
        samples: list[int] = []
        wanted = self.measurement_runs
        fewest = samples_needed(0.95) if wanted is None else wanted
        most = _MOST_SAMPLES if wanted is None else wanted
        stop = _clock() + int(self.budget_s * 1e9)
        while len(samples) < fewest or (len(samples) < most and _clock() < stop):
            samples.append(timed(call, calls))
            collect_if_piled_up()
        return np.array(samples, dtype=np.int64)


def _bound(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Callable[[], Any]:
    if not args and not kwargs:
        return func
    if not kwargs:
        return lambda: func(*args)
    return lambda: func(*args, **kwargs)


def timed(call: Callable[[], Any], calls: int) -> int:
    """Nanoseconds of one sample of so many calls."""
    if calls == 1:
        start = _clock()
        call()
        return _clock() - start
    start = _clock()
    for _ in repeat(None, calls):
        call()
    return _clock() - start


def calibrated_calls(call: Callable[[], Any], single_ns: int) -> int:
    """Calls that fill a sample long enough for the clock, where one of them takes about `single_ns`."""
    if single_ns > SAMPLE_NS:
        return 1
    calls = max(1, round(SAMPLE_NS / max(1, single_ns)))
    per_call = min(timed(call, calls) for _ in range(2)) / calls
    return max(1, round(SAMPLE_NS / max(0.1, per_call)))


def _summary(name: str, samples: NDArray[np.int64], calls: int, first_ns: int) -> Measurement:
    per_call_ms = samples / (calls * 1e6)
    interval = median_interval(per_call_ms)
    mean, median = float(per_call_ms.mean()), interval.estimate
    deviation = float(per_call_ms.std(ddof=1)) if len(samples) > 1 else 0.0
    return Measurement(
        name=name,
        median_time_ms=median,
        mean_time_ms=mean,
        std_time_ms=deviation,
        min_time_ms=float(per_call_ms.min()),
        ci_low_ms=max(0.0, interval.low),
        ci_high_ms=interval.high,
        first_call_ms=first_ns / 1e6,
        calls_per_sample=calls,
        samples_ns=samples,
        warnings=tuple(_warnings(samples, median, mean, interval.half_width, first_ns / 1e6)),
    )


def _warnings(
    samples: NDArray[np.int64], median: float, mean: float, half_width: float, first_ms: float
) -> list[TimingWarning]:
    found = []
    fewest = samples_needed(0.95)
    if len(samples) < fewest:
        found.append(
            TimingWarning(
                "too-few-samples",
                f"{len(samples)} samples give no interval of the median",
                f"take {fewest} or more: raise `measurement_runs` or `budget_s`",
            )
        )
    elif half_width > _UNSTABLE * median:
        found.append(
            TimingWarning(
                "unstable",
                f"the median is known to {half_width / median:.0%} only",
                "raise `budget_s`, or close what else uses the machine",
            )
        )
    if mean > _HEAVY_TAIL * median:
        found.append(
            TimingWarning(
                "heavy-tail",
                f"the mean is {mean / median:.1f} times the median: some calls are much slower",
                "look at `samples_ns` for rare slow paths, or at what else uses the machine",
            )
        )
    if first_ms > _SLOW_FIRST_CALL * median and first_ms > 1:
        found.append(
            TimingWarning(
                "slow-first-call",
                f"the first call took {first_ms:.3g} ms, {first_ms / median:.0f} times the median",
                "report it apart where start-up matters: it may compile, import or fill a cache",
            )
        )
    return found
