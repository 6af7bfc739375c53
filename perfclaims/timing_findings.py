"""Criteria on time: speedups, their geometric mean, and overhead."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from perfclaims import wording
from perfclaims.advice import Advice, noisiest, what_would_decide
from perfclaims.codes import Outcome, Reason
from perfclaims.criteria import Overhead, Speedup
from perfclaims.evidence import Timing
from perfclaims.findings import Finding, ends
from perfclaims.ratio import Ratio, analyse, exponential, mean_log_speedup
from perfclaims.statistics import Interval
from perfclaims.threshold import TIE, Answer, Quantity

# Medians hide rare slow calls; a ratio of means this far from the estimate is worth a remark.
_MEANS_APART = 0.1
_SINGLE_COMMENT = (
    f"one instance, of one memory layout, decides nothing within {wording.percent(TIE)} % of a tie"
)


def speedup_finding(criterion: Speedup, timing: Timing) -> Finding:
    """One comparison against a claimed speedup."""
    if timing.arguments_changed:
        return _changed(timing)
    ratio = analyse(timing)
    quantity = _log_speedup(ratio, single=not timing.plan.rebuilt)
    threshold = math.log(criterion.at_least)
    answer = quantity.reaches_or_pays(threshold, math.log(criterion.worthwhile))
    shown = _Shown("x", exponential, _by_mean_times(ratio), wording.thresholds(criterion))
    advice = _advice(quantity, answer, threshold, timing, ratio, unit=1.0)
    return shown.finding(timing.label, quantity, answer, _comment_on_speed(answer), advice)


def geometric_mean_finding(criterion: Speedup, timings: Sequence[Timing]) -> Finding:
    """The geometric mean of all comparisons against a claimed speedup."""
    for timing in timings:
        if timing.arguments_changed:
            return _changed(timing)
    main, fresh = mean_log_speedup(timings)
    single = not all(timing.plan.rebuilt for timing in timings)
    quantity = Quantity.of_logs(main, fresh, main.half_width, single=single)
    threshold = math.log(criterion.at_least)
    answer = quantity.reaches_or_pays(threshold, math.log(criterion.worthwhile))
    claimed = wording.thresholds(replace(criterion, over=None))
    shown = _Shown("x", exponential, f" in geometric mean of {len(timings)}", claimed)
    worst = noisiest(timings, [analyse(timing) for timing in timings])
    advice = _advice(quantity, answer, threshold, *worst, unit=1.0)
    return shown.finding(criterion.label, quantity, answer, _comment_on_speed(answer), advice)


def overhead_finding(criterion: Overhead, timing: Timing) -> Finding:
    """One comparison against a claimed overhead, as a fraction or in microseconds."""
    if timing.arguments_changed:
        return _changed(timing)
    ratio, single = analyse(timing), not timing.plan.rebuilt
    remark, claimed = _by_mean_times(ratio), wording.thresholds(criterion)
    if criterion.at_most_us is not None:
        unit = 1000.0 * ratio.baseline_ms
        quantity, threshold = _saved_us(ratio, unit, single=single), -criterion.at_most_us
        shown = _Shown("us", _negative, remark, claimed)
    else:
        assert criterion.at_most is not None
        unit = 1.0
        quantity, threshold = _log_speedup(ratio, single=single), -math.log1p(criterion.at_most)
        shown = _Shown("fraction", _added_fraction, remark, claimed)
    answer = quantity.reaches(threshold)
    advice = _advice(quantity, answer, threshold, timing, ratio, unit=unit)
    comment = "more than that" if answer.outcome is Outcome.REFUTED else "too noisy to tell"
    return shown.finding(timing.label, quantity, answer, comment, advice)


def _log_speedup(ratio: Ratio, *, single: bool) -> Quantity:
    fresh = ratio.log_speedup_on_new_arguments
    return Quantity.of_logs(ratio.log_speedup, fresh, ratio.half_width, single=single)


def _saved_us(ratio: Ratio, call_us: float, *, single: bool) -> Quantity:
    fresh = ratio.added_us_on_new_arguments
    saved_on_new = None if fresh is None else _negative(fresh)
    return Quantity.of_time(_negative(ratio.added_us), saved_on_new, call_us, single=single)


@dataclass(frozen=True, slots=True)
class _Shown:
    """How a quantity is written: the unit, the numbers in it, a remark behind them, and what is claimed."""

    unit: str
    numbers: Callable[[Interval], Interval]
    remark: str
    claimed: str

    def finding(
        self, label: str | None, quantity: Quantity, answer: Answer, comment: str, advice: Advice
    ) -> Finding:
        """The answer in numbers and words; `comment` and `advice` are for one that is not a plain yes."""
        main, fresh = (None if v is None else self._text(v) for v in (quantity.main, quantity.fresh))
        if answer.on_new_arguments:
            sentence = f"{fresh} on arguments not seen before ({main} on repeated ones)"
        else:
            remark = f" ({fresh} on arguments not seen before)" if answer.less_on_new_arguments else ""
            sentence = f"{main}{self.remark}{remark}"
        sentence += f" against {self.claimed}"
        if answer.outcome is not Outcome.CONFIRMED:
            single = Reason.SINGLE_INSTANCE in answer.reasons
            sentence += f": {_SINGLE_COMMENT if single else comment}"
        if answer.outcome is Outcome.INCONCLUSIVE:
            sentence += f"; {advice.text}"
        return Finding(
            label,
            answer.outcome,
            *ends(self.numbers(answer.interval)),
            self.unit,
            worthwhile=answer.worthwhile,
            reasons=answer.reasons,
            sentence=sentence,
            budget_s=advice.budget_s,
        )

    def _text(self, interval: Interval) -> str:
        return wording.interval(*ends(self.numbers(interval)), self.unit)


def _comment_on_speed(answer: Answer) -> str:
    low, high = answer.interval.low, answer.interval.high
    if answer.outcome is Outcome.REFUTED:
        if high < 0:
            return "slower than the baseline"
        return "faster, but by less" if low > 0 else "not shown to be faster"
    if low <= 0 <= high:
        return "too noisy to tell, not shown to be slower"
    return f"{'faster' if low > 0 else 'slower'}, but too noisy to tell by how much"


def _advice(
    quantity: Quantity, answer: Answer, threshold: float, timing: Timing, ratio: Ratio, *, unit: float
) -> Advice:
    if answer.outcome is not Outcome.INCONCLUSIVE:
        return Advice()
    if Reason.SINGLE_INSTANCE in answer.reasons:
        return Advice("pass Implementation(name, build), so that it is built anew in other layouts")
    return what_would_decide(
        timing,
        ratio,
        half_width=quantity.main.half_width,
        distance=abs(quantity.main.estimate - threshold),
        unit=unit,
    )


def _by_mean_times(ratio: Ratio) -> str:
    """A remark where the means tell another story than the medians."""
    speedup, mean = ratio.speedup, ratio.mean_speedup
    apart = abs(math.log(mean) - ratio.log_speedup.estimate)
    if not apart > _MEANS_APART or speedup.low <= mean <= speedup.high:
        return ""
    return f" ({wording.ratio(mean)}x by mean times, which see rare slow calls)"


def _changed(timing: Timing) -> Finding:
    return Finding(
        timing.label,
        Outcome.REFUTED,
        None,
        reasons=(Reason.ARGUMENTS_CHANGED,),
        sentence=f"{timing.arguments_changed}, so that both sides do not do the same work",
    )


def _negative(interval: Interval) -> Interval:
    return replace(interval, estimate=-interval.estimate, low=-interval.high, high=-interval.low)


def _added_fraction(log_speedup: Interval) -> Interval:
    """From the log of a speedup to the added fraction of time."""

    def added(log: float) -> float:
        return math.inf if log < -700 else math.expm1(-log)

    estimate, low, high = (added(v) for v in (log_speedup.estimate, log_speedup.high, log_speedup.low))
    return replace(log_speedup, estimate=estimate, low=low, high=high)
