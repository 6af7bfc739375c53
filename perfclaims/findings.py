"""What evidence says to one criterion: where the interval lies and why."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from perfclaims import wording
from perfclaims.codec import NOT_RECORDED
from perfclaims.codes import Outcome, Reason
from perfclaims.criteria import Criterion
from perfclaims.statistics import Interval


@dataclass(frozen=True, slots=True)
class Finding:
    """What one piece of evidence says to one criterion.

    Attributes:
        low, high: ends of the interval; None where it is open, and both None where the number is exact.
        unit: "x", "us", "fraction", that of a Value, or None.
        worthwhile: the whole interval is above the criterion's worthwhile level.
        sentence: why, for a reader; without a final stop.
        budget_s: seconds a comparison that would decide it; not in run files, since it follows from the rest.
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
    budget_s: float | None = field(default=None, metadata=NOT_RECORDED)

    @property
    def measured(self) -> str:
        """The number with its interval, as it stands in tables."""
        text = wording.interval(self.estimate, self.low, self.high, self.unit)
        # An exact number decides every question, so this one is not exact.
        open_ended = self.outcome is Outcome.INCONCLUSIVE and self.low is None and self.high is None
        return f"{text} (no interval)" if open_ended and self.estimate is not None else text


@dataclass(frozen=True, slots=True)
class CriterionResult:
    """A criterion, judged by all findings, in the order in which the evidence was measured."""

    criterion: Criterion
    findings: tuple[Finding, ...] = ()

    @property
    def decisive(self) -> Finding:
        """The finding that decides: the first of the worst outcome, and the worst number among those."""
        nothing = Finding(None, Outcome.INCONCLUSIVE, None)
        return min(self.findings, key=self._severity, default=nothing)

    @property
    def outcome(self) -> Outcome:
        """Confirmed only where every finding is."""
        return self.decisive.outcome

    @property
    def missing(self) -> bool:
        """Whether evidence that the criterion needs is not there."""
        return not self.findings or any(Reason.EVIDENCE_MISSING in f.reasons for f in self.findings)

    @property
    def worthwhile(self) -> bool:
        """Whether every finding is a benefit worth having, whatever was claimed."""
        return bool(self.findings) and all(f.worthwhile for f in self.findings)

    def _severity(self, finding: Finding) -> tuple[int, float]:
        worst_first = (Outcome.REFUTED, Outcome.INCONCLUSIVE, Outcome.CONFIRMED)
        # Claims of "at least" suffer from small numbers, all others from large ones.
        sign = -1.0 if getattr(self.criterion, "at_least", None) is None else 1.0
        number = math.inf if finding.estimate is None else sign * finding.estimate
        return worst_first.index(finding.outcome), number


def place(interval: Interval, at_least: float | None = None, at_most: float | None = None) -> Outcome:
    """Where the whole interval lies: within the bounds, beyond one of them, or across; a bound is within."""
    low_bound = -math.inf if at_least is None else at_least
    high_bound = math.inf if at_most is None else at_most
    if low_bound <= interval.low and interval.high <= high_bound:
        return Outcome.CONFIRMED
    if interval.high < low_bound or interval.low > high_bound:
        return Outcome.REFUTED
    return Outcome.INCONCLUSIVE


def ends(interval: Interval) -> tuple[float | None, float | None, float | None]:
    """Estimate, low and high for a Finding: None for what is not a finite number."""
    estimate, low, high = (
        v if math.isfinite(v) else None for v in (interval.estimate, interval.low, interval.high)
    )
    return estimate, low, high
