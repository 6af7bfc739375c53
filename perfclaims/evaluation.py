"""One criterion against the evidence. Pure functions, no clock."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

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
from perfclaims.evidence import Number, Outcomes, OutputCheck, Outputs, Piece, Scaling, Sizes, Timing
from perfclaims.exponent import exponent_interval
from perfclaims.findings import CriterionResult, Finding, ends, place
from perfclaims.paired_accuracy import accuracy_drop_interval
from perfclaims.statistics import Interval, binomial_interval, samples_needed
from perfclaims.timing_findings import geometric_mean_finding, overhead_finding, speedup_finding

__all__ = ["CriterionResult", "Finding", "evaluate"]

P = TypeVar("P")


def evaluate(criterion: Criterion, pieces: Sequence[Piece]) -> CriterionResult:
    """Judge one criterion on all evidence of its kind, or on that with its label."""
    spoken_of = [p for p in pieces if criterion.label in (None, p.label)]
    return CriterionResult(criterion, tuple(_findings(criterion, spoken_of)))


def _findings(criterion: Criterion, pieces: Sequence[Piece]) -> list[Finding]:
    timings = _of(pieces, Timing)
    match criterion:
        case OutputsMatch():
            return [_outputs(criterion, p) for p in pieces if isinstance(p, Timing | Outputs)]
        case Speedup(over=None):
            return [speedup_finding(criterion, timing) for timing in timings]
        case Speedup():
            return [geometric_mean_finding(criterion, timings)] if timings else []
        case Overhead():
            return [overhead_finding(criterion, timing) for timing in timings]
        case SizeRatio():
            return [_size(criterion, sizes) for sizes in _of(pieces, Sizes)]
        case AccuracyDrop():
            return [_accuracy(criterion, outcomes) for outcomes in _of(pieces, Outcomes)]
        case ScalingExponent():
            return [_scaling(criterion, scaling) for scaling in _of(pieces, Scaling)]
        case Value():
            return [_value(criterion, n) for n in _of(pieces, Number) if n.name == criterion.name]
    raise TypeError(f"unknown criterion {criterion!r}")


def _of(pieces: Sequence[Piece], kind: type[P]) -> list[P]:
    return [piece for piece in pieces if isinstance(piece, kind)]


def _outputs(criterion: OutputsMatch, piece: Timing | Outputs) -> Finding:
    changed = piece.arguments_changed if isinstance(piece, Timing) else None
    if changed:
        return Finding(
            piece.label,
            Outcome.REFUTED,
            None,
            reasons=(Reason.ARGUMENTS_CHANGED,),
            sentence=f"{changed}, so that both sides cannot be given the same",
        )
    check = next((c for c in piece.checks if c.tolerance == criterion.tolerance and c.comparisons), None)
    if check is None:
        return Finding(
            piece.label,
            Outcome.INCONCLUSIVE,
            None,
            reasons=(Reason.EVIDENCE_MISSING,),
            sentence=f"the outputs were not compared under {criterion.tolerance.describe()}",
        )
    return _check(piece.label, check, fresh=isinstance(piece, Timing) and piece.fresh_arguments)


def _check(label: str | None, check: OutputCheck, *, fresh: bool) -> Finding:
    relative = check.tolerance.relative_l2 is not None
    bad = next((c for c in check.comparisons if not c.matched), None)
    if bad is None:
        worst = max((c.relative_l2 or 0.0 for c in check.comparisons), default=0.0)
        return Finding(label, Outcome.CONFIRMED, worst if relative else None, sentence=check.message)
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
        bad.relative_l2 if relative else bad.largest_difference,
        reasons=(reason,),
        sentence=f"the outputs do not agree{where}: {bad.message}",
    )


def _size(criterion: SizeRatio, sizes: Sizes) -> Finding:
    value = sizes.baseline / sizes.optimized
    smaller = f"{wording.ratio(value)}x smaller: {sizes.baseline} bytes against {sizes.optimized}"
    met = value >= criterion.at_least
    return Finding(
        sizes.label,
        Outcome.CONFIRMED if met else Outcome.REFUTED,
        value,
        unit="x",
        worthwhile=value > criterion.worthwhile,
        sentence=smaller if met else f"{smaller}, and {wording.thresholds(criterion)} is claimed",
    )


def _accuracy(criterion: AccuracyDrop, outcomes: Outcomes) -> Finding:
    interval = accuracy_drop_interval(outcomes.baseline, outcomes.optimized)
    examples = len(outcomes.baseline)
    sentence = (
        f"{wording.percent(interval.estimate)} points of accuracy lost, at most "
        f"{wording.percent(interval.high)} with 95 % confidence, on {examples} examples"
    )
    outcome = place(interval, at_most=criterion.at_most)
    reasons: tuple[Reason, ...] = ()
    if outcome is Outcome.REFUTED:
        reasons = (Reason.ACCURACY_DROPPED,)
        sentence += f"; at least {wording.percent(interval.low)}, against {wording.thresholds(criterion)}"
    elif outcome is Outcome.INCONCLUSIVE:
        reasons = (Reason.UNDECIDED,)
        sentence += f", which does not show {wording.thresholds(criterion)}: "
        sentence += _examples_needed(interval, criterion.at_most, outcomes)
    return Finding(outcomes.label, outcome, *ends(interval), "fraction", reasons=reasons, sentence=sentence)


def _examples_needed(interval: Interval, at_most: float, outcomes: Outcomes) -> str:
    """How many examples would bring the bound down to what is claimed."""
    room = at_most - interval.estimate
    if room <= 0:
        return "more examples would decide, against the claim if the loss stays as it is"
    # The bound stays above the estimate by a normal quantile of the discordant examples, and where these are
    # few by three examples: 3 / n + 1.645 sqrt(rate / n) = room.
    slope = 1.645 * math.sqrt(float(np.mean(outcomes.baseline != outcomes.optimized)))
    root = (math.sqrt(slope**2 + 12 * room) - slope) / 6
    return f"about {wording.about(root**-2)} examples would, if the loss stays as it is"


def _scaling(criterion: ScalingExponent, scaling: Scaling) -> Finding:
    interval = exponent_interval(scaling)
    outcome = place(interval, criterion.at_least, criterion.at_most)
    shown = wording.interval(*ends(interval), None)
    sentence = f"time grows as size to the power {shown} against {wording.thresholds(criterion)}"
    reasons: tuple[Reason, ...] = ()
    if outcome is Outcome.INCONCLUSIVE:
        reasons = (Reason.UNDECIDED,)
        remedy = "sizes further apart or a larger budget would decide"
        if not interval.exists:
            needed = samples_needed(scaling.confidence)
            remedy = (
                f"{scaling.instances} instances give no interval, {needed} are needed; raise the time limit"
            )
        sentence += f", which is too noisy to tell: {remedy}"
    return Finding(scaling.label, outcome, *ends(interval), reasons=reasons, sentence=sentence)


def _value(criterion: Value, value: Number) -> Finding:
    interval = _interval_of(value)
    reasons: tuple[Reason, ...] = ()
    exact = interval.low == interval.high
    if criterion.equals is not None:
        outcome = place(interval, criterion.equals, criterion.equals)
    else:
        outcome = place(interval, criterion.at_least, criterion.at_most)
    estimate, low, high = ends(interval)
    if exact:
        low = high = None
    if isinstance(criterion.equals, bool):
        sentence, claimed = f"{value.name}: {wording.answer(estimate)}", ", and {} is claimed"
    else:
        shown = wording.interval(estimate, low, high, value.unit)
        sentence, claimed = f"{value.name} is {shown}", " against {}"
    if outcome is not Outcome.CONFIRMED:
        sentence += claimed.format(wording.value_bounds(criterion, value.unit))
    if outcome is Outcome.INCONCLUSIVE:
        reasons = (Reason.UNDECIDED,)
        more = "a narrower interval" if value.trials is None else f"more than {value.trials} trials"
        sentence += f", which does not decide: {more} would"
    return Finding(value.label, outcome, estimate, low, high, value.unit, reasons=reasons, sentence=sentence)


def _interval_of(value: Number) -> Interval:
    """The interval of a rate follows from its counts; one end alone leaves the other open; none is exact."""
    if value.successes is not None and value.trials is not None:
        return binomial_interval(value.successes, value.trials, value.confidence)
    if value.low is None and value.high is None:
        return Interval(value.number, value.number, value.number, 1.0)
    low = -math.inf if value.low is None else value.low
    high = math.inf if value.high is None else value.high
    return Interval(value.number, low, high, 1.0)
