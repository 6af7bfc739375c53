"""One criterion against the evidence: where the interval lies, and why. Pure functions, no clock."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from perfclaims import wording
from perfclaims.codes import Outcome, Reason
from perfclaims.criteria import (
    AccuracyDrop,
    Criterion,
    OutputsMatch,
    Overhead,
    ScalingExponent,
    SizeRatio,
    Speedup,
    Value,
)
from perfclaims.exponent import exponent_interval
from perfclaims.evidence import Number, Outcomes, OutputCheck, Outputs, Piece, Scaling, Sizes, Timing
from perfclaims.paired_accuracy import accuracy_drop_interval
from perfclaims.ratio import Ratio, analyse, mean_speedup_interval
from perfclaims.statistics import Interval

P = TypeVar("P")

# Below this distance from a tie, one instance cannot decide: memory layout alone moves array code by more.
REGRESSION_MARGIN = math.log(1.05)


@dataclass(frozen=True, slots=True)
class Finding:
    """What one piece of evidence says to one criterion.

    Attributes:
        low, high: None where the number is exact.
        worthwhile: the whole interval is above the criterion's worthwhile level.
        sentence: why, for a reader; without a final stop.
    """

    label: str | None
    outcome: Outcome
    estimate: float | None
    low: float | None = None
    high: float | None = None
    unit: str | None = None
    worthwhile: bool = False
    reasons: tuple[Reason, ...] = ()
    sentence: str = ""


@dataclass(frozen=True, slots=True)
class CriterionResult:
    """A criterion, judged: the decisive finding in front, all findings behind it.

    Without findings the evidence is missing.
    """

    criterion: Criterion
    findings: tuple[Finding, ...] = ()
    decisive: Finding = field(default=Finding(None, Outcome.INCONCLUSIVE, None))

    @property
    def outcome(self) -> Outcome:
        """Confirmed only where every finding is."""
        return self.decisive.outcome

    @property
    def missing(self) -> bool:
        """Whether there was no evidence of the kind that the criterion needs."""
        return not self.findings

    @property
    def worthwhile(self) -> bool:
        """Whether every finding is a benefit worth having, whatever was claimed."""
        return bool(self.findings) and all(f.worthwhile for f in self.findings)


def evaluate(criterion: Criterion, pieces: Sequence[Piece]) -> CriterionResult:
    """Judge one criterion on all evidence of its kind, or on that with its label."""
    spoken_of = [p for p in pieces if criterion.label is None or p.label == criterion.label]
    findings = tuple(_findings(criterion, spoken_of))
    if not findings:
        return CriterionResult(criterion)
    rank = {Outcome.REFUTED: 0, Outcome.INCONCLUSIVE: 1, Outcome.CONFIRMED: 2}
    return CriterionResult(criterion, findings, min(findings, key=lambda f: rank[f.outcome]))


def _findings(criterion: Criterion, pieces: Sequence[Piece]) -> Iterable[Finding]:
    match criterion:
        case OutputsMatch():
            return _outputs(criterion, pieces)
        case Speedup(over=None):
            return sorted((_speedup(criterion, t) for t in _of(pieces, Timing)), key=_by_estimate)
        case Speedup():
            return _geometric_mean(criterion, _of(pieces, Timing))
        case Overhead():
            return [_overhead(criterion, t) for t in _of(pieces, Timing)]
        case SizeRatio():
            return sorted((_size(criterion, s) for s in _of(pieces, Sizes)), key=_by_estimate)
        case AccuracyDrop():
            return [_accuracy(criterion, o) for o in _of(pieces, Outcomes)]
        case ScalingExponent():
            return [_scaling(criterion, s) for s in _of(pieces, Scaling)]
        case Value():
            return [_value(criterion, n) for n in _of(pieces, Number) if n.name == criterion.name]
    raise TypeError(f"unknown criterion {criterion!r}")


def _of(pieces: Sequence[Piece], kind: type[P]) -> list[P]:
    return [piece for piece in pieces if isinstance(piece, kind)]


def _by_estimate(finding: Finding) -> float:
    return math.inf if finding.estimate is None else finding.estimate


def _outputs(criterion: OutputsMatch, pieces: Sequence[Piece]) -> list[Finding]:
    found = []
    for piece in pieces:
        if isinstance(piece, Timing) and piece.arguments_changed:
            found.append(
                Finding(
                    piece.label,
                    Outcome.REFUTED,
                    None,
                    reasons=(Reason.ARGUMENTS_CHANGED,),
                    sentence=f"{piece.arguments_changed}, so that both sides cannot be given the same",
                )
            )
        elif isinstance(piece, Timing | Outputs):
            fresh = isinstance(piece, Timing) and piece.fresh_arguments
            checks = [c for c in piece.checks if c.tolerance == criterion.tolerance]
            found += [_check(piece.label, check, fresh=fresh) for check in checks if check.comparisons]
    return found


def _check(label: str | None, check: OutputCheck, *, fresh: bool) -> Finding:
    bad = next((c for c in check.comparisons if not c.matched), None)
    if bad is None:
        worst = max((c.relative_l2 or 0.0 for c in check.comparisons), default=0.0)
        estimate = worst if check.tolerance.relative_l2 is not None else None
        return Finding(label, Outcome.CONFIRMED, estimate, sentence=check.message)
    where = ""
    if bad.returned_nothing:
        reason = Reason.RETURNED_NOTHING
    elif fresh and bad is check.after:
        reason, where = Reason.OUTPUTS_DIFFER_ON_NEW_INPUTS, " on arguments not seen before"
    else:
        reason = Reason.OUTPUTS_DIFFER
    return Finding(
        label,
        Outcome.REFUTED,
        bad.relative_l2 if check.tolerance.relative_l2 is not None else bad.largest_difference,
        reasons=(reason,),
        sentence=f"the outputs do not agree{where}: {bad.message}",
    )


def _speedup(criterion: Speedup, timing: Timing) -> Finding:
    ratio = analyse(timing)
    if timing.arguments_changed:
        return _changed(timing)
    fresh = ratio.on_new_arguments
    interval, threshold = ratio.speedup, criterion.at_least
    if fresh is not None and fresh.high < min(threshold, interval.estimate):
        measured = wording.interval(interval.estimate, interval.low, interval.high, "x")
        return Finding(
            timing.label,
            Outcome.REFUTED,
            *_ends(fresh),
            "x",
            worthwhile=fresh.low > criterion.worthwhile,
            reasons=(Reason.SLOWER_ON_NEW_INPUTS,),
            sentence=f"{_shown(fresh, 'x')} on arguments not seen before, against {measured} on repeated ones",
        )
    outcome = _beyond(interval, threshold)
    reasons = _doubts(outcome, ratio, interval, threshold)
    if Reason.SINGLE_INSTANCE in reasons:
        outcome = Outcome.INCONCLUSIVE
    return Finding(
        timing.label,
        outcome,
        *_ends(interval),
        "x",
        worthwhile=interval.low > criterion.worthwhile
        and not _within_margin(timing, interval, criterion.worthwhile),
        reasons=reasons,
        sentence=_timing_sentence(timing, ratio, outcome, interval, f"at least {wording.ratio(threshold)}x"),
    )


def _geometric_mean(criterion: Speedup, timings: Sequence[Timing]) -> list[Finding]:
    if not timings:
        return []
    changed = [t for t in timings if t.arguments_changed]
    if changed:
        return [_changed(changed[0])]
    interval = mean_speedup_interval(timings)
    outcome = _beyond(interval, criterion.at_least)
    return [
        Finding(
            criterion.label,
            outcome,
            *_ends(interval),
            "x",
            worthwhile=interval.low > criterion.worthwhile,
            reasons=(Reason.UNDECIDED,) if outcome is Outcome.INCONCLUSIVE else (),
            sentence=f"{_shown(interval, 'x')} in geometric mean of {len(timings)}",
        )
    ]


def _overhead(criterion: Overhead, timing: Timing) -> Finding:
    if timing.arguments_changed:
        return _changed(timing)
    ratio = analyse(timing)
    if criterion.at_most_us is not None:
        interval, unit, limit = ratio.added_us, "us", criterion.at_most_us
        outcome = _below(interval, limit)
        reasons: tuple[Reason, ...] = (Reason.UNDECIDED,) if outcome is Outcome.INCONCLUSIVE else ()
    else:
        assert criterion.at_most is not None
        interval, unit, limit = _inverse(ratio.speedup), "%", criterion.at_most
        outcome = _below(interval, limit)
        reasons = _doubts(outcome, ratio, ratio.speedup, 1 / (1 + limit))
        if Reason.SINGLE_INSTANCE in reasons:
            outcome = Outcome.INCONCLUSIVE
    return Finding(
        timing.label,
        outcome,
        *_ends(interval),
        unit,
        reasons=reasons,
        sentence=_timing_sentence(timing, ratio, outcome, interval, wording.thresholds(criterion), unit),
    )


def _changed(timing: Timing) -> Finding:
    return Finding(
        timing.label,
        Outcome.REFUTED,
        None,
        reasons=(Reason.ARGUMENTS_CHANGED,),
        sentence=f"{timing.arguments_changed}, so that both sides do not do the same work",
    )


def _size(criterion: SizeRatio, sizes: Sizes) -> Finding:
    value = sizes.baseline / sizes.optimized
    return Finding(
        sizes.label,
        Outcome.CONFIRMED if value >= criterion.at_least else Outcome.REFUTED,
        value,
        unit="x",
        worthwhile=value > criterion.worthwhile,
        sentence=f"{wording.ratio(value)}x smaller: {sizes.baseline} bytes against {sizes.optimized}",
    )


def _accuracy(criterion: AccuracyDrop, outcomes: Outcomes) -> Finding:
    interval = accuracy_drop_interval(outcomes.baseline, outcomes.optimized)
    outcome = _below(interval, criterion.at_most)
    reasons = {
        Outcome.CONFIRMED: (),
        Outcome.REFUTED: (Reason.ACCURACY_DROPPED,),
        Outcome.INCONCLUSIVE: (Reason.UNDECIDED,),
    }[outcome]
    return Finding(
        outcomes.label,
        outcome,
        *_ends(interval),
        "%",
        reasons=reasons,
        sentence=(
            f"{wording.percent(interval.estimate)} points of accuracy lost, at most "
            f"{wording.percent(interval.high)} with 95 % confidence, on {len(outcomes.baseline)} examples"
        ),
    )


def _scaling(criterion: ScalingExponent, scaling: Scaling) -> Finding:
    interval = exponent_interval(scaling)
    outcome = _inside(interval, criterion.at_least, criterion.at_most)
    return Finding(
        scaling.label,
        outcome,
        *_ends(interval),
        reasons=(Reason.UNDECIDED,) if outcome is Outcome.INCONCLUSIVE else (),
        sentence=f"time grows as size to the power {_shown(interval, None)}",
    )


def _value(criterion: Value, value: Number) -> Finding:
    interval = Interval(
        value.number,
        value.number if value.low is None else value.low,
        value.number if value.high is None else value.high,
        1.0,
    )
    if criterion.equals is not None:
        same = interval.low == interval.high == criterion.equals
        outcome = Outcome.CONFIRMED if same else Outcome.REFUTED
    else:
        outcome = _inside(interval, criterion.at_least, criterion.at_most)
    shown = wording.interval(value.number, value.low, value.high, value.unit)
    return Finding(
        value.label,
        outcome,
        value.number,
        value.low,
        value.high,
        value.unit,
        reasons=(Reason.UNDECIDED,) if outcome is Outcome.INCONCLUSIVE else (),
        sentence=f"{value.name} is {shown}",
    )


def _beyond(interval: Interval, threshold: float) -> Outcome:
    """Claimed: at least the threshold."""
    return _inside(interval, threshold, None)


def _below(interval: Interval, threshold: float) -> Outcome:
    """Claimed: at most the threshold."""
    return _inside(interval, None, threshold)


def _inside(interval: Interval, at_least: float | None, at_most: float | None) -> Outcome:
    low_bound = -math.inf if at_least is None else at_least
    high_bound = math.inf if at_most is None else at_most
    if low_bound <= interval.low and interval.high <= high_bound:
        return Outcome.CONFIRMED
    if interval.high < low_bound or interval.low > high_bound:
        return Outcome.REFUTED
    return Outcome.INCONCLUSIVE


def _doubts(outcome: Outcome, ratio: Ratio, speedup: Interval, threshold: float) -> tuple[Reason, ...]:
    """Why a comparison does not decide about a threshold."""
    single = ratio.noise_grade.endswith("*")
    if single and abs(math.log(threshold)) <= REGRESSION_MARGIN and not _clear_of(speedup, threshold):
        return (Reason.UNDECIDED, Reason.SINGLE_INSTANCE)
    if outcome is not Outcome.INCONCLUSIVE:
        return ()
    if math.isfinite(ratio.half_width) and abs(math.log(threshold)) < ratio.half_width:
        return (Reason.UNDECIDED, Reason.FINER_THAN_NOISE)
    return (Reason.UNDECIDED,)


def _within_margin(timing: Timing, interval: Interval, threshold: float) -> bool:
    """Whether one instance is too close to a threshold near a tie to say on which side it is."""
    near = abs(math.log(threshold)) <= REGRESSION_MARGIN
    return near and not timing.plan.rebuilt and not _clear_of(interval, threshold)


def _clear_of(speedup: Interval, threshold: float) -> bool:
    """Whether the interval stays further from a threshold than memory layout could move it."""
    low = speedup.low / threshold if speedup.low > 0 else 0.0
    return low > math.exp(REGRESSION_MARGIN) or speedup.high / threshold < math.exp(-REGRESSION_MARGIN)


def _timing_sentence(
    timing: Timing,
    ratio: Ratio,
    outcome: Outcome,
    interval: Interval,
    claimed: str,
    unit: str = "x",
) -> str:
    sentence = f"{_shown(interval, unit)} against {claimed}"
    if outcome is not Outcome.INCONCLUSIVE:
        return sentence
    return f"{sentence}, which is too noisy to tell: {_what_would_decide(timing, ratio)}"


def _what_would_decide(timing: Timing, ratio: Ratio) -> str:
    if not math.isfinite(ratio.half_width):
        return f"{len(timing.samples)} pairs give no interval; raise the time limit"
    if not timing.plan.rebuilt:
        return "one instance shows one memory layout; pass Implementation(name, build) so that it can be built anew"
    half = f"the noise is {wording.percent(ratio.half_width)} % (grade {ratio.noise_grade})"
    activity = timing.activity
    if (
        activity is not None
        and activity.cpu_share is not None
        and timing.threads == 1
        and activity.cpu_share < 0.9
    ):
        return f"{half} and other programs took {1 - activity.cpu_share:.0%} of the time; rerun on an idle machine"
    spread = max(ratio.instance_speedups) / min(ratio.instance_speedups) - 1
    if spread > 2 * ratio.half_width and len(timing.samples) >= 30 * timing.plan.instances:
        return f"{half}, because instances differ by {spread:.0%} with their memory layout; more time will not help"
    return f"{half}; raise the budget above {wording.duration(timing.plan.budget_s)} a comparison"


def _inverse(speedup: Interval) -> Interval:
    """From a speedup to the added fraction of time."""

    def added(value: float) -> float:
        return 1 / value - 1 if value > 0 else math.inf

    return Interval(added(speedup.estimate), added(speedup.high), added(speedup.low), speedup.confidence)


def _ends(interval: Interval) -> tuple[float | None, float | None, float | None]:
    return tuple(v if math.isfinite(v) else None for v in (interval.estimate, interval.low, interval.high))  # type: ignore[return-value]


def _shown(interval: Interval, unit: str | None) -> str:
    return wording.interval(*_ends(interval), unit)
