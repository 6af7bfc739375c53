"""What the rows of a claim in the table say: claimed and measured, for each piece of evidence."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeGuard

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
_NOT_CLAIMED = "nothing claimed"


@dataclass(frozen=True, slots=True)
class Line:
    """What is claimed of one piece of evidence, its label, and what was measured."""

    claimed: str
    label: str
    measured: str

    @property
    def left(self) -> str:
        """Label and claim together, as they stand beside what was measured."""
        return f"{self.label}: {self.claimed}" if self.label else self.claimed


def lines_of(result: ClaimResult) -> Iterator[Line]:
    """What each criterion found, then what was measured though no criterion speaks of it."""
    judged = {id(r.criterion): r for r in result.criteria}
    matched: dict[str, list[CriterionResult]] = {}
    for criterion in result.claim.criteria:
        found = judged.get(id(criterion))
        if isinstance(criterion, OutputsMatch) and _passed(found):
            matched.setdefault(wording.thresholds(criterion), []).append(found)
        elif not isinstance(criterion, OutputsMatch) or _worth_a_line(found, result.claim):
            yield from _of_criterion(criterion, found, result)
    yield from (_of_matches(claimed, results) for claimed, results in matched.items())
    for piece in result.evidence.pieces:
        measured = None if _spoken_of(piece, result.claim) else _measured(piece)
        if measured is not None:
            names = (getattr(piece, "name", None), piece.label)
            yield Line(_NOT_CLAIMED, ", ".join(name for name in names if name), measured)


def _passed(found: CriterionResult | None) -> TypeGuard[CriterionResult]:
    return found is not None and bool(found.findings) and found.outcome is Outcome.CONFIRMED


def _worth_a_line(found: CriterionResult | None, claim: Claim) -> bool:
    """A check of outputs that was not made needs none, beside other criteria."""
    return (found is not None and bool(found.findings)) or len(claim.criteria) == 1


def _of_matches(claimed: str, results: Sequence[CriterionResult]) -> Line:
    """One line for all checks of outputs that passed under one tolerance."""
    checks = sum(len(result.findings) for result in results)
    label = results[0].criterion.label if len(results) == 1 else None
    return Line(claimed, label or "", _MATCH[Outcome.CONFIRMED] if checks == 1 else f"all {checks} match")


def _of_criterion(criterion: Criterion, found: CriterionResult | None, result: ClaimResult) -> Iterator[Line]:
    if found is None or not found.findings:
        yield Line(wording.thresholds(criterion), criterion.label or "", "-")
        return
    for finding in found.findings:
        claimed = wording.thresholds(criterion, finding.unit)
        yield Line(claimed, finding.label or "", _found(criterion, finding, result))


def _found(criterion: Criterion, finding: Finding, result: ClaimResult) -> str:
    if isinstance(criterion, OutputsMatch):
        return _MATCH[finding.outcome]
    if isinstance(criterion, Value) and isinstance(criterion.equals, bool):
        return wording.answer(finding.estimate)
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
