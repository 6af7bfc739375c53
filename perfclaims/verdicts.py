"""From evidence to a verdict: pure, so that an archived run can be judged again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from perfclaims.claims import Claim
from perfclaims.codes import Outcome, Reason, Verdict
from perfclaims.criteria import Criterion, OutputsMatch, Speedup, Value
from perfclaims.evaluation import evaluate
from perfclaims.evidence import Evidence, Missing, Piece, Scaling, Timing
from perfclaims.findings import CriterionResult, Finding


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
        if isinstance(piece, Timing | Scaling) and not piece.finished:
            name = piece.kind if piece.label is None else f"{piece.kind} {piece.label!r}"
            return Verdict.ERROR, [Reason.EVIDENCE_MISSING], f"{name} was not finished; raise the time limit"
    for result in criteria:
        if result.missing:
            return Verdict.ERROR, [Reason.EVIDENCE_MISSING], _missing(result, evidence)
    return None


def _missing(result: CriterionResult, evidence: Evidence) -> str:
    for finding in result.findings:
        if Reason.EVIDENCE_MISSING in finding.reasons:
            return _labelled(finding)
    criterion = result.criterion
    labels = sorted({repr(p.label) for p in evidence.pieces if p.label is not None})
    wanted = f" with label {criterion.label!r}" if criterion.label else ""
    known = f"; there is evidence with label {', '.join(labels)}" if criterion.label and labels else ""
    name = getattr(criterion, "name", "")
    named = f" named {name!r}" if name else ""
    needed = f"{criterion.kind} needs evidence of kind {criterion.evidence_kind!r}{named}{wanted}"
    label = f", label={criterion.label!r}" if criterion.label else ""
    calls = " or ".join(f"experiment.{call}{label})" for call in _calls(criterion))
    return f"{needed}, and there is none{known}; call {calls}"


def _calls(criterion: Criterion) -> tuple[str, ...]:
    """Calls that give a criterion its evidence, as far as their last argument."""
    if isinstance(criterion, Value):
        named = repr(criterion.name)
        return f"value({named}, number", f"rate({named}, successes, trials"
    return {
        "timing": ("time(baseline, optimized",),
        "outputs": ("time(baseline, optimized", "outputs(expected, actual"),
        "sizes": ("sizes(baseline=..., optimized=...",),
        "outcomes": ("outcomes(baseline=..., optimized=...",),
        "scaling": ("scaling(build_for_size, sizes",),
    }[criterion.evidence_kind]


def _decide(claim: Claim, evidence: Evidence, criteria: Sequence[CriterionResult]) -> Decision:
    broken = [r for r in criteria if r.criterion.is_gate and r.outcome is Outcome.REFUTED]
    if broken:
        return Verdict.FAIL, _reasons(broken, refuted=Reason.BELOW_THRESHOLD), _labelled(broken[0].decisive)
    open_ = [r for r in criteria if r.outcome is not Outcome.CONFIRMED]
    unchecked = [Reason.OUTPUTS_NOT_CHECKED] if _unchecked(claim, evidence) else []
    if not open_ and not unchecked:
        return Verdict.PASS, [], _first_sentence(criteria)
    if not open_:
        remedy = "but outputs were not compared; add OutputsMatch to the criteria"
        return Verdict.PARTIAL, unchecked, f"{_first_sentence(criteria)}, {remedy}"
    benefits = [r for r in criteria if not r.criterion.is_gate]
    if any(r.outcome is Outcome.CONFIRMED or r.worthwhile for r in benefits):
        reasons = _reasons(open_, refuted=Reason.BELOW_THRESHOLD)
        return Verdict.PARTIAL, reasons + unchecked, _first_sentence(open_)
    return Verdict.FAIL, _reasons(open_, refuted=Reason.NO_BENEFIT) + unchecked, _first_sentence(open_)


def _reasons(results: Sequence[CriterionResult], *, refuted: Reason) -> list[Reason]:
    """The reasons of all findings, and `refuted` where a claimed benefit or a bound was not met."""
    found: list[Reason] = []
    for result in results:
        for finding in result.findings:
            found += finding.reasons
            if finding.outcome is Outcome.REFUTED and (not result.criterion.is_gate or not finding.reasons):
                found.append(refuted)
    return found


def _unchecked(claim: Claim, evidence: Evidence) -> bool:
    """Whether a speedup counts whose outputs no criterion speaks of."""
    speedups = [c for c in claim.criteria if isinstance(c, Speedup)]
    checks = [c for c in claim.criteria if isinstance(c, OutputsMatch)]
    return any(
        not any(c.label in (None, timing.label) for c in checks)
        for timing in evidence.pieces
        if isinstance(timing, Timing) and any(c.label in (None, timing.label) for c in speedups)
    )


def _first_sentence(results: Sequence[CriterionResult]) -> str:
    """The sentence of the result that a reader wants first: a measured benefit before a passed check."""

    def rank(result: CriterionResult) -> tuple[bool, bool]:
        return result.outcome is not Outcome.REFUTED, isinstance(result.criterion, OutputsMatch)

    return _labelled(min(results, key=rank).decisive)


def _labelled(finding: Finding) -> str:
    return f"{finding.label}: {finding.sentence}" if finding.label else finding.sentence


def _sentence(text: str) -> str:
    text = text.strip()
    return text if not text or text.endswith((".", "!", "?")) else text + "."
