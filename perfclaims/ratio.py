"""From raw pairs to a speedup with its interval: pure functions of archived samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfclaims.activity import busy_warning
from perfclaims.evidence import PairedSamples, PairingPlan, Timing
from perfclaims.statistics import Interval, hodges_lehmann_interval, median_interval

Floats = NDArray[np.float64]

# What a timed call is wrong by in a way that more pairs do not show: 0.12 to 0.33 % were seen at ratio 2.
SYSTEMATIC = 0.001
# Two identical objects in one process differ by 0.03 to 0.16 %, each measured more finely than that.
SYSTEMATIC_SINGLE = 0.0025
# A clock that did not move between two readings must not make a ratio infinite.
_SHORTEST_NS = 1e-3

_GRADES = ((0.0025, "A"), (0.01, "B"), (0.05, "C"))
# An instance of fewer pairs has no median that a burst of other work could not move. Where the machine was
# busy, or this system does not tell, such comparisons in noise beyond grade C are judged at a fifth of alpha:
# with half the CPU taken by another program, 4 of 60 decisions at 95 % were wrong, as many as 95 % allows.
_STEADY_PAIRS = 3
_DISTURBED = _GRADES[-1][0]
_DISTURBED_SHARE = 0.2


@dataclass(frozen=True, slots=True)
class Ratio:
    """A comparison, analysed.

    Attributes:
        log_speedup: logarithm of baseline time over optimised time, with the interval that judges.
        added_us: microseconds that a call of the optimised side takes more than one of the baseline.
        half_width: of the Hodges-Lehmann interval of the log ratio; the noise grade comes from it.
        noise_grade: A to D, with a star for a single instance.
        instance_speedups: one per instance, in the order in which they were built.
        instance_half_width: how finely one instance knows its own log ratio, in the middle of all of them.
        mean_speedup: ratio of the mean times; apart from the speedup where slow paths are rare.
        log_speedup_on_new_arguments, added_us_on_new_arguments: the same in the last round; None where the
            callables take no arguments.
        baseline_ms, optimized_ms: median time of a call; NaN without pairs.
    """

    log_speedup: Interval
    added_us: Interval
    half_width: float
    noise_grade: str
    instance_speedups: tuple[float, ...]
    instance_half_width: float
    mean_speedup: float
    log_speedup_on_new_arguments: Interval | None
    added_us_on_new_arguments: Interval | None
    baseline_ms: float
    optimized_ms: float
    baseline_mean_ms: float
    optimized_mean_ms: float

    @property
    def speedup(self) -> Interval:
        """Baseline time over optimised time; without an interval low is 0 and high is infinite."""
        return exponential(self.log_speedup)

    @property
    def on_new_arguments(self) -> Interval | None:
        """Speedup in the last round; None where the callables take no arguments."""
        fresh = self.log_speedup_on_new_arguments
        return None if fresh is None else exponential(fresh)


def analyse(timing: Timing) -> Ratio:
    """Speedup, interval and noise grade of one comparison."""
    plan, calls = timing.plan, calls_of(timing.plan)
    groups = grouped_minima(timing.samples, plan.group_size, calls)
    logs, added = _log_ratios(groups), _added_us(groups)
    final = _widened(_final_interval(logs, plan), plan)
    judging = _judging(timing, final.half_width)
    baseline_ns, optimized_ns = per_call(timing.samples, calls)
    fresh = _last_round(timing)
    return Ratio(
        log_speedup=_widened(judging(logs, plan), plan),
        added_us=_widened_us(judging(added, plan), groups, plan),
        half_width=final.half_width,
        noise_grade=noise_grade(final.half_width, single=not plan.rebuilt),
        instance_speedups=tuple(float(np.exp(np.median(values))) for values in logs),
        instance_half_width=_typical_half_width(logs, plan.confidence),
        mean_speedup=_mean(baseline_ns) / _mean(optimized_ns),
        log_speedup_on_new_arguments=None if fresh is None else fresh[0],
        added_us_on_new_arguments=None if fresh is None else fresh[1],
        baseline_ms=_median(baseline_ns) / 1e6,
        optimized_ms=_median(optimized_ns) / 1e6,
        baseline_mean_ms=_mean(baseline_ns) / 1e6,
        optimized_mean_ms=_mean(optimized_ns) / 1e6,
    )


def calls_of(plan: PairingPlan) -> tuple[int, int]:
    """Calls per sample of both sides."""
    return plan.baseline_calls, plan.optimized_calls


def decided(samples: PairedSamples, plan: PairingPlan) -> bool:
    """Whether an early look may stop: everything lies on one side of every threshold.

    With rebuilt instances this asks that all instance medians agree, which a fair coin does once in 512
    times for ten of them.
    """
    logs = _log_ratios(grouped_minima(samples, plan.group_size, calls_of(plan)))
    interval = _widened(_look_interval(logs, plan), plan)
    return all(interval.excludes(math.log(threshold)) for threshold in plan.thresholds)


def grouped_minima(
    samples: PairedSamples, group_size: int, calls: tuple[int, int]
) -> list[tuple[Floats, Floats]]:
    """Per instance, each side's smallest time per call in every group of consecutive pairs, in ns.

    The last group of an instance is smaller where its pairs do not fill it; an instance without pairs is left
    out.

    Returns:
        One (baseline, optimised) pair of arrays of shape (groups,) for every instance, in their order.
    """
    result = []
    for instance in np.unique(samples.instance):
        chosen = samples.instance == instance
        starts = np.arange(0, np.count_nonzero(chosen), group_size)
        baseline, optimized = (
            np.maximum(np.minimum.reduceat(side[chosen], starts) / number, _SHORTEST_NS)
            for side, number in zip((samples.baseline_ns, samples.optimized_ns), calls, strict=True)
        )
        result.append((baseline, optimized))
    return result


def per_call(samples: PairedSamples, calls: tuple[int, int]) -> tuple[Floats, Floats]:
    """All samples of both sides as nanoseconds per call."""
    baseline_ns, optimized_ns = samples.baseline_ns / calls[0], samples.optimized_ns / calls[1]
    return np.maximum(baseline_ns, _SHORTEST_NS), np.maximum(optimized_ns, _SHORTEST_NS)


def noise_grade(half_width: float, *, single: bool) -> str:
    """A (at most 0.25 %), B (1 %), C (5 %) or D, by the half width of the interval of the log ratio."""
    grade = next((letter for limit, letter in _GRADES if half_width <= limit), "D")
    return grade + "*" if single else grade


def mean_log_speedup(timings: Sequence[Timing]) -> tuple[Interval, Interval | None]:
    """Logarithm of the geometric mean of several comparisons' speedups, on all and on new arguments.

    Instances were built independently, so the i-th instances of all comparisons together are one draw of the
    mean. Where that cannot be said (a single instance, different numbers of them, a comparison that a look
    ended), the ends of the intervals are averaged instead, which is wider: a mean varies no more than what it
    is the mean of. The same is done on new arguments; None where no comparison has any.
    """
    ratios = [analyse(timing) for timing in timings]
    parts = [ratio.log_speedup for ratio in ratios]
    fresh = [ratio.log_speedup_on_new_arguments for ratio in ratios]
    # What a comparison does not tell about new arguments, the others tell all the same.
    substituted = [
        new if new is not None and new.exists else old for new, old in zip(fresh, parts, strict=True)
    ]
    on_new = None if fresh == [None] * len(fresh) else _averaged(substituted)
    plans = [timing.plan for timing in timings]
    draws = [ratio.instance_speedups for ratio in ratios]
    together = (
        all(plan.rebuilt for plan in plans)
        and not any(timing.decided_early for timing in timings)
        and len({len(values) for values in draws}) == 1
        and len(draws[0]) > 0
    )
    if not together:
        return _averaged(parts), on_new
    alpha = min(plan.final_alpha for plan in plans)
    means = np.log(np.array(draws)).mean(axis=0)
    found = hodges_lehmann_interval(means, 1.0 - alpha)
    if found.half_width > _DISTURBED and any(_prey_of_bursts(timing) for timing in timings):
        found = _stricter(means, found, alpha)
    return _widened(found, plans[0]), on_new


def exponential(interval: Interval) -> Interval:
    """From a log ratio to the ratio."""

    def exp(value: float) -> float:
        return math.inf if value > 700 else math.exp(value)

    return replace(interval, estimate=exp(interval.estimate), low=exp(interval.low), high=exp(interval.high))


def _log_ratios(groups: Sequence[tuple[Floats, Floats]]) -> list[Floats]:
    return [np.log(baseline / optimized) for baseline, optimized in groups]


def _added_us(groups: Sequence[tuple[Floats, Floats]]) -> list[Floats]:
    return [(optimized - baseline) / 1000.0 for baseline, optimized in groups]


def _look_interval(values: Sequence[Floats], plan: PairingPlan) -> Interval:
    """Interval at the level of one early look; for instances that is from the smallest to the largest."""
    return _located(values, plan, plan.look_alpha, by_sign=True)


def _final_interval(values: Sequence[Floats], plan: PairingPlan) -> Interval:
    return _located(values, plan, plan.final_alpha, by_sign=not plan.rebuilt)


def _judging(timing: Timing, half_width: float) -> Callable[[Sequence[Floats], PairingPlan], Interval]:
    if timing.decided_early:
        return _look_interval
    if timing.plan.rebuilt and half_width > _DISTURBED and _prey_of_bursts(timing):
        return _disturbed_interval
    return _final_interval


def _prey_of_bursts(timing: Timing) -> bool:
    instances, pairs = np.unique(timing.samples.instance, return_counts=True)
    few = len(instances) > 0 and bool(np.median(pairs) < _STEADY_PAIRS)
    activity = timing.activity
    return few and (activity is None or busy_warning(activity, threads=timing.threads) is not None)


def _disturbed_interval(values: Sequence[Floats], plan: PairingPlan) -> Interval:
    points = np.array([np.median(v) for v in values])
    return _stricter(points, _final_interval(values, plan), plan.final_alpha)


def _stricter(points: Floats, found: Interval, alpha: float) -> Interval:
    """The interval at a smaller alpha; as `found` where so few points have none, from end to end as it is."""
    stricter = hodges_lehmann_interval(points, 1.0 - alpha * _DISTURBED_SHARE)
    return stricter if stricter.exists else found


def _located(values: Sequence[Floats], plan: PairingPlan, alpha: float, *, by_sign: bool) -> Interval:
    """Where the centre lies: of the instance medians, or of the groups of a single instance."""
    if not values:
        return Interval(math.nan, -math.inf, math.inf, 1.0, "no pairs were timed")
    points = np.array([np.median(v) for v in values]) if plan.rebuilt else values[0]
    interval = (median_interval if by_sign else hodges_lehmann_interval)(points, 1.0 - alpha)
    if plan.rebuilt and by_sign:
        # The estimate is the same whether or not a look ended the measurement.
        return replace(interval, estimate=hodges_lehmann_interval(points, 0.5).estimate)
    return interval


def _widened(interval: Interval, plan: PairingPlan) -> Interval:
    """Allow for the systematic error of a timed call, larger where calls per sample differ."""
    error = SYSTEMATIC if plan.rebuilt else SYSTEMATIC_SINGLE

    def margin(end: float) -> float:
        return error * (1 + 3 * abs(end)) if math.isfinite(end) else 0.0

    return replace(
        interval, low=interval.low - margin(interval.low), high=interval.high + margin(interval.high)
    )


def _widened_us(interval: Interval, groups: Sequence[tuple[Floats, Floats]], plan: PairingPlan) -> Interval:
    """The same for a difference: a share of the slower side's time."""
    slower_ns = max((float(np.median(side)) for pair in groups for side in pair), default=0.0)
    error_us = (SYSTEMATIC if plan.rebuilt else SYSTEMATIC_SINGLE) * slower_ns / 1000.0
    return replace(interval, low=interval.low - error_us, high=interval.high + error_us)


def _last_round(timing: Timing) -> tuple[Interval, Interval] | None:
    """Log speedup and added time on arguments that were never seen before; None where there were none."""
    last, plan = timing.last_round, timing.plan
    if last is None or not timing.fresh_arguments or len(last) == 0:
        return None
    groups = grouped_minima(last, 1, timing.last_calls)

    def interval(values: Sequence[Floats]) -> Interval:
        return _located(values, plan, 1.0 - plan.confidence, by_sign=not plan.rebuilt)

    return (
        _widened(interval(_log_ratios(groups)), plan),
        _widened_us(interval(_added_us(groups)), groups, plan),
    )


def _typical_half_width(logs: Sequence[Floats], confidence: float) -> float:
    widths = [median_interval(values, confidence).half_width for values in logs]
    return float(np.median(widths)) if widths else math.inf


def _averaged(parts: Sequence[Interval]) -> Interval:
    def mean(of: Callable[[Interval], float]) -> float:
        return float(np.mean([of(part) for part in parts]))

    return Interval(
        mean(lambda part: part.estimate),
        mean(lambda part: part.low),
        mean(lambda part: part.high),
        min(part.confidence for part in parts),
        next((part.warning for part in parts if part.warning is not None), None),
    )


def _mean(values: NDArray[Any]) -> float:
    return float(np.mean(values)) if len(values) else math.nan


def _median(values: NDArray[Any]) -> float:
    return float(np.median(values)) if len(values) else math.nan
