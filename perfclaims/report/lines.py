"""What the rows of a claim in the table say: claimed and measured, for each piece of evidence."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from perfclaims import wording
from perfclaims.claims import Claim
from perfclaims.codes import Outcome
from perfclaims.criteria import (
    AccuracyDrop,
    Criterion,
    OutputsMatch,
    ScalingExponent,
    SizeRatio,
    Speedup,
    Value,
)
from perfclaims.evaluation import evaluate
from perfclaims.evidence import Number, Outcomes, Piece, Scaling, Sizes, Timing
from perfclaims.findings import CriterionResult, Finding
from perfclaims.ratio import analyse
from perfclaims.results import ClaimResult

_MATCH = {
    Outcome.CONFIRMED: "they match",
    Outcome.REFUTED: "they differ",
    Outcome.INCONCLUSIVE: "not compared",
}


@dataclass(frozen=True, slots=True)
class Line:
    """What is claimed of one piece of evidence, its label, and what was measured."""

    claimed: str
    label: str
    measured: str

    @property
    def text(self) -> str:
        """Label and measurement on one line."""
        return f"{self.label}: {self.measured}" if self.label else self.measured

    @property
    def narrowest(self) -> int:
        """Columns that it cannot do without."""
        return len(self.measured) + (2 if self.label else 0)

    def fitted(self, room: int) -> list[str]:
        """The text, with the measurement below its label where the room is too small for both."""
        if len(self.text) <= room or not self.label:
            return [self.text]
        return [f"{self.label}:", f"  {self.measured}"]


def lines_of(result: ClaimResult) -> Iterator[Line]:
    """What each criterion found, then what was measured though no criterion speaks of it."""
    judged = {id(r.criterion): r for r in result.criteria}
    for criterion in result.claim.criteria:
        found = judged.get(id(criterion))
        if _worth_a_line(criterion, found, result.claim):
            yield from _of_criterion(criterion, found, result)
    for piece in result.evidence.pieces:
        measured = None if _spoken_of(piece, result.claim) else _measured(piece)
        if measured is not None:
            names = (getattr(piece, "name", None), piece.label)
            yield Line("-", ", ".join(name for name in names if name), measured)


def _worth_a_line(criterion: Criterion, found: CriterionResult | None, claim: Claim) -> bool:
    """A check of outputs that passed needs none, beside other criteria."""
    passed = found is None or not found.findings or found.outcome is Outcome.CONFIRMED
    return not (isinstance(criterion, OutputsMatch) and passed) or len(claim.criteria) == 1


def _of_criterion(criterion: Criterion, found: CriterionResult | None, result: ClaimResult) -> Iterator[Line]:
    claimed = wording.thresholds(criterion)
    if found is None or not found.findings:
        yield Line(claimed, criterion.label or "", "-")
        return
    for i, finding in enumerate(found.findings):
        yield Line(claimed if i == 0 else "", finding.label or "", _found(criterion, finding, result))


def _found(criterion: Criterion, finding: Finding, result: ClaimResult) -> str:
    if isinstance(criterion, OutputsMatch):
        return _MATCH[finding.outcome]
    timings = [p for p in result.evidence.pieces if isinstance(p, Timing) and p.label == finding.label]
    graded = criterion.evidence_kind == "timing" and timings
    return f"{finding.measured} {_grade(timings[0])}".rstrip() if graded else finding.measured


def _grade(timing: Timing) -> str:
    return analyse(timing).noise_grade if len(timing.samples) else ""


def _spoken_of(piece: Piece, claim: Claim) -> bool:
    return any(
        criterion.evidence_kind == piece.kind
        and criterion.label in (None, piece.label)
        and getattr(criterion, "name", None) == getattr(piece, "name", None)
        for criterion in claim.criteria
    )


def _measured(piece: Piece) -> str | None:
    """A piece of evidence by itself, as a criterion would find it; None where there is no figure in it."""
    match piece:
        case Timing():
            return f"{_alone(Speedup(at_least=1), piece)} {_grade(piece)}" if len(piece.samples) else None
        case Sizes():
            return f"{_alone(SizeRatio(at_least=1), piece)} smaller"
        case Number():
            return _alone(Value(piece.name, at_least=0), piece)
        case Outcomes():
            return f"accuracy lost {_alone(AccuracyDrop(), piece)}"
        case Scaling():
            return f"exponent {_alone(ScalingExponent(at_least=1), piece)}"
    return None


def _alone(criterion: Criterion, piece: Piece) -> str:
    return evaluate(criterion, [piece]).decisive.measured
