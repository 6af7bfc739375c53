"""From evidence to a verdict: pure, so that an archived run can be judged again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from perfclaims.claims import Claim
from perfclaims.codes import Outcome, Reason, Verdict
from perfclaims.criteria import OutputsMatch, Speedup
from perfclaims.evaluation import CriterionResult, evaluate
from perfclaims.evidence import Evidence, Missing, Piece, Timing


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict with its reasons, the criteria behind it, and one plain sentence."""

    verdict: Verdict
    reasons: tuple[Reason, ...]
    criteria: tuple[CriterionResult, ...]
    summary: str


def judge(claim: Claim, evidence: Evidence | Sequence[Piece]) -> Judgement:
    """Decide about a claim from its evidence alone."""
    if not isinstance(evidence, Evidence):
        evidence = Evidence(tuple(evidence))
    if evidence.not_run is not None:
        return Judgement(Verdict.NOT_RUN, (), (), _sentence(evidence.not_run))
    if evidence.not_applicable is not None:
        why = (Reason.CPU_FEATURE_MISSING,) if evidence.cpu_feature_missing else ()
        return Judgement(Verdict.NOT_APPLICABLE, why, (), _sentence(evidence.not_applicable))
    criteria = tuple(evaluate(criterion, evidence.pieces) for criterion in claim.criteria)
    verdict, reasons, summary = _failure(evidence, criteria) or _decide(claim, evidence, criteria)
    ordered = tuple(reason for reason in Reason if reason in reasons)
    return Judgement(verdict, ordered, criteria, _sentence(summary))


Decision = tuple[Verdict, list[Reason], str]


def _failure(evidence: Evidence, criteria: Sequence[CriterionResult]) -> Decision | None:
    """An ERROR, where the claim could not be measured as declared."""
    if evidence.trouble is not None:
        return Verdict.ERROR, [evidence.trouble.reason], evidence.trouble.message
    for piece in evidence.pieces:
        if isinstance(piece, Missing):
            message = f"{piece.wanted} could not be measured: {piece.message}"
            return Verdict.ERROR, [Reason.EVIDENCE_MISSING], message
    for result in criteria:
        if result.missing:
            return Verdict.ERROR, [Reason.EVIDENCE_MISSING], _missing(result, evidence)
    return None


def _missing(result: CriterionResult, evidence: Evidence) -> str:
    criterion = result.criterion
    labels = sorted({repr(p.label) for p in evidence.pieces if p.label is not None})
    wanted = f" with label {criterion.label!r}" if criterion.label else ""
    known = f"; there is evidence with label {', '.join(labels)}" if criterion.label and labels else ""
    name = getattr(criterion, "name", "")
    named = f" named {name!r}" if name else ""
    needed = f"{criterion.kind} needs evidence of kind {criterion.evidence_kind!r}{named}{wanted}"
    return f"{needed}, and there is none{known}"


def _decide(claim: Claim, evidence: Evidence, criteria: Sequence[CriterionResult]) -> Decision:
    gates = [r for r in criteria if r.criterion.is_gate]
    benefits = [r for r in criteria if not r.criterion.is_gate]
    broken = [r for r in gates if r.outcome is Outcome.REFUTED]
    if broken:
        return Verdict.FAIL, _reasons_of_gates(broken), broken[0].decisive.sentence
    open_ = [r for r in criteria if r.outcome is not Outcome.CONFIRMED]
    unchecked = _unchecked(claim, evidence)
    if not open_ and not unchecked:
        return Verdict.PASS, [], _first_sentence(criteria)
    if not open_:
        summary = (
            f"{_first_sentence(criteria)}, but outputs were not compared; add OutputsMatch to the criteria"
        )
        return Verdict.PARTIAL, [Reason.OUTPUTS_NOT_CHECKED], summary
    reasons = [reason for r in open_ for finding in r.findings for reason in finding.reasons]
    reasons += [Reason.OUTPUTS_NOT_CHECKED] if unchecked else []
    if any(r.outcome is Outcome.CONFIRMED or r.worthwhile for r in benefits):
        reasons += [Reason.BELOW_THRESHOLD for r in open_ if r.outcome is Outcome.REFUTED]
        return Verdict.PARTIAL, reasons, _first_sentence(open_)
    if benefits:
        reasons += [Reason.NO_BENEFIT for r in open_ if r.outcome is Outcome.REFUTED]
    return Verdict.FAIL, reasons or [Reason.UNDECIDED], _first_sentence(open_)


def _reasons_of_gates(broken: Sequence[CriterionResult]) -> list[Reason]:
    reasons = [reason for r in broken for finding in r.findings for reason in finding.reasons]
    return reasons or [Reason.BELOW_THRESHOLD]


def _unchecked(claim: Claim, evidence: Evidence) -> bool:
    """Whether a speedup counts of which nobody compared the outputs."""
    speedups = [c for c in claim.criteria if isinstance(c, Speedup)]
    if speedups and not any(isinstance(c, OutputsMatch) for c in claim.criteria):
        return True
    return any(
        isinstance(piece, Timing) and not piece.checks
        for piece in evidence.pieces
        if any(c.label in (None, piece.label) for c in speedups)
    )


def _first_sentence(results: Sequence[CriterionResult]) -> str:
    """The sentence of the result that a reader wants first: a measured benefit before a passed check."""

    def rank(result: CriterionResult) -> tuple[bool, bool]:
        return result.outcome is not Outcome.REFUTED, isinstance(result.criterion, OutputsMatch)

    first = min(results, key=rank).decisive
    return f"{first.label}: {first.sentence}" if first.label else first.sentence


def _sentence(text: str) -> str:
    text = text.strip()
    return text if not text or text.endswith((".", "!", "?")) else text + "."
