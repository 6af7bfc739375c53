"""From raw pairs to a speedup with its interval: pure functions of archived samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perfclaims.evidence import PairedSamples, PairingPlan, Timing
from perfclaims.statistics import Interval, hodges_lehmann_interval, median_interval

# What a timed call is wrong by in a way that more pairs do not show: 0.12 to 0.33 % were seen at ratio 2.
SYSTEMATIC = 0.001
# Two identical objects in one process differ by 0.03 to 0.16 %, each measured more finely than that.
SYSTEMATIC_SINGLE = 0.0025

_GRADES = ((0.0025, "A"), (0.01, "B"), (0.05, "C"), (math.inf, "D"))


@dataclass(frozen=True, slots=True)
class Ratio:
    """A comparison, analysed.

    Attributes:
        speedup: baseline time over optimised time; without an interval low is 0 and high is infinite.
        added_us: microseconds that a call of the optimised side takes more than one of the baseline.
        half_width: of the Hodges-Lehmann interval of the log ratio; the noise grade comes from it.
        noise_grade: A to D, with a star for a single instance.
        instance_speedups: one per instance, from the fastest-looking memory layout to the slowest.
        mean_speedup: ratio of the mean times; apart from the speedup where slow paths are rare.
        on_new_arguments: speedup in the last round, with its interval.
    """

    speedup: Interval
    added_us: Interval
    half_width: float
    noise_grade: str
    instance_speedups: tuple[float, ...]
    mean_speedup: float
    on_new_arguments: Interval | None
    baseline_ms: float
    optimized_ms: float
    baseline_mean_ms: float
    optimized_mean_ms: float

    @property
    def slower_on_new_arguments(self) -> bool:
        """Whether fresh arguments excluded the estimate from the faster side."""
        fresh = self.on_new_arguments
        return fresh is not None and fresh.high < self.speedup.estimate


def analyse(timing: Timing) -> Ratio:
    """Speedup, interval and noise grade of one comparison."""
    plan = timing.plan
    groups = grouped_minima(timing.samples, plan.group_size, calls_of(plan))
    logs = [np.log(baseline / optimized) for baseline, optimized in groups]
    added = [(optimized - baseline) / 1000.0 for baseline, optimized in groups]
    interval = _interval(logs, plan, timing.decided_early)
    final = _final_interval(logs, plan) if timing.decided_early else interval
    baseline_ns, optimized_ns = per_call(timing.samples, calls_of(plan))
    typical = float(np.median(baseline_ns)) if len(baseline_ns) else math.nan
    return Ratio(
        speedup=_exponential(interval),
        added_us=_widened_difference(
            _interval(added, plan, timing.decided_early, widen=False), typical, plan
        ),
        half_width=final.half_width,
        noise_grade=noise_grade(final.half_width, single=not plan.rebuilt),
        instance_speedups=tuple(float(np.exp(np.median(values))) for values in logs if len(values)),
        mean_speedup=_quotient(baseline_ns, optimized_ns, np.mean),
        on_new_arguments=_last_round(timing),
        baseline_ms=_milliseconds(baseline_ns, np.median),
        optimized_ms=_milliseconds(optimized_ns, np.median),
        baseline_mean_ms=_milliseconds(baseline_ns, np.mean),
        optimized_mean_ms=_milliseconds(optimized_ns, np.mean),
    )


def calls_of(plan: PairingPlan) -> tuple[int, int]:
    """Calls per sample of both sides."""
    return plan.baseline_calls, plan.optimized_calls


def decided(samples: PairedSamples, plan: PairingPlan) -> bool:
    """Whether an early look may stop: everything lies on one side of every threshold.

    With rebuilt instances this asks that all instance medians agree, which a fair coin does once in 512
    times for ten of them.
    """
    groups = grouped_minima(samples, plan.group_size, calls_of(plan))
    interval = _look_interval([np.log(baseline / optimized) for baseline, optimized in groups], plan)
    return all(interval.excludes(math.log(threshold)) for threshold in plan.thresholds)


def grouped_minima(
    samples: PairedSamples, group_size: int, calls: tuple[int, int]
) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Per instance, each side's smallest time per call in every group of consecutive pairs, in ns.

    Returns:
        One (baseline, optimised) pair of arrays of shape (groups,) for every instance, in their order.
    """
    result = []
    for instance in range(int(samples.instance.max()) + 1 if len(samples) else 0):
        chosen = samples.instance == instance
        groups = int(chosen.sum()) // group_size
        minima = [
            side[chosen][: groups * group_size].reshape(groups, group_size).min(axis=1) / number
            for side, number in zip((samples.baseline_ns, samples.optimized_ns), calls, strict=True)
        ]
        result.append((np.maximum(minima[0], 1e-3), np.maximum(minima[1], 1e-3)))
    return result


def per_call(
    samples: PairedSamples, calls: tuple[int, int]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """All samples of both sides as nanoseconds per call."""
    return samples.baseline_ns / calls[0], samples.optimized_ns / calls[1]


def noise_grade(half_width: float, *, single: bool) -> str:
    """A (at most 0.25 %), B (1 %), C (5 %) or D, by the half width of the interval of the log ratio."""
    grade = next(letter for limit, letter in _GRADES if not half_width > limit)
    return grade + "*" if single else grade


def _interval(
    values: list[NDArray[np.float64]], plan: PairingPlan, decided_early: bool, *, widen: bool = True
) -> Interval:
    chosen = _look_interval if decided_early else _final_interval
    return chosen(values, plan, widen=widen)


def _look_interval(values: list[NDArray[np.float64]], plan: PairingPlan, *, widen: bool = True) -> Interval:
    """Interval at the level of one early look; for instances that is from the smallest to the largest."""
    return _located(values, plan, plan.look_alpha, by_sign=True, widen=widen)


def _final_interval(values: list[NDArray[np.float64]], plan: PairingPlan, *, widen: bool = True) -> Interval:
    return _located(values, plan, plan.final_alpha, by_sign=not plan.rebuilt, widen=widen)


def _located(
    values: list[NDArray[np.float64]], plan: PairingPlan, alpha: float, *, by_sign: bool, widen: bool
) -> Interval:
    present = [v for v in values if len(v)]
    if not present:
        return Interval(math.nan, -math.inf, math.inf, 1.0, "no pairs were timed")
    points = np.array([np.median(v) for v in present]) if plan.rebuilt else present[0]
    # A hair less than asked, so that 1 - (1 - alpha) does not round an attainable level away.
    interval = (median_interval if by_sign else hodges_lehmann_interval)(points, 1.0 - alpha * (1 + 1e-9))
    if plan.rebuilt and by_sign:
        # The estimate is the same whether or not a look ended the measurement.
        estimate = hodges_lehmann_interval(points, 0.5).estimate
        interval = Interval(estimate, interval.low, interval.high, interval.confidence, interval.warning)
    return _widened(interval, plan) if widen else interval


def _widened(interval: Interval, plan: PairingPlan) -> Interval:
    """Allow for the systematic error of a timed call, larger where calls per sample differ."""
    error = SYSTEMATIC if plan.rebuilt else SYSTEMATIC_SINGLE

    def margin(end: float) -> float:
        return error * (1 + 3 * abs(end)) if math.isfinite(end) else 0.0

    return Interval(
        interval.estimate,
        interval.low - margin(interval.low),
        interval.high + margin(interval.high),
        interval.confidence,
        interval.warning,
    )


def _widened_difference(interval: Interval, baseline_ns: float, plan: PairingPlan) -> Interval:
    error = (SYSTEMATIC if plan.rebuilt else SYSTEMATIC_SINGLE) * baseline_ns / 1000.0
    return Interval(
        interval.estimate, interval.low - error, interval.high + error, interval.confidence, interval.warning
    )


def _last_round(timing: Timing) -> Interval | None:
    """Speedup on arguments that were never seen before; None where there were none."""
    last = timing.last_round
    if last is None or not timing.fresh_arguments or len(last) == 0:
        return None
    groups = grouped_minima(last, 1, timing.last_calls)
    logs = [np.log(baseline / optimized) for baseline, optimized in groups]
    plan = timing.plan
    alpha = 1.0 - plan.confidence
    return _exponential(_located(logs, plan, alpha, by_sign=not plan.rebuilt, widen=True))


def _exponential(interval: Interval) -> Interval:
    def exp(value: float) -> float:
        return math.exp(value) if value < 700 else math.inf

    return Interval(
        exp(interval.estimate), exp(interval.low), exp(interval.high), interval.confidence, interval.warning
    )


def _quotient(baseline: NDArray[np.float64], optimized: NDArray[np.float64], of: object) -> float:
    if not len(baseline):
        return math.nan
    return float(of(baseline) / of(optimized))  # type: ignore[operator]


def _milliseconds(per_call_ns: NDArray[np.float64], of: object) -> float:
    return float(of(per_call_ns) / 1e6) if len(per_call_ns) else math.nan  # type: ignore[operator]


def mean_speedup_interval(timings: Sequence[Timing]) -> Interval:
    """Geometric mean of several comparisons' speedups, with its interval.

    Instances were built independently, so the i-th instances of all comparisons together are one draw of the
    mean. Where a comparison has a single instance, the ends of the intervals are averaged, which is wider.
    """
    medians = [np.log(analyse(timing).instance_speedups) for timing in timings]
    plans = [timing.plan for timing in timings]
    if not all(plan.rebuilt for plan in plans):
        parts = [analyse(timing).speedup for timing in timings]
        ends = [
            float(np.exp(np.mean([math.log(v) if v > 0 else -math.inf for v in values])))
            for values in ([p.estimate for p in parts], [p.low for p in parts], [p.high for p in parts])
        ]
        return Interval(ends[0], ends[1], ends[2], min(part.confidence for part in parts))
    count = min(len(values) for values in medians)
    draws = np.mean([values[:count] for values in medians], axis=0)
    return _exponential(_widened(hodges_lehmann_interval(draws, plans[0].confidence), plans[0]))
