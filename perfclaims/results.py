"""Results of claims, modules and runs, and how verdicts add up."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from perfclaims.claims import Claim
from perfclaims.codes import Reason, Verdict
from perfclaims.evaluation import CriterionResult
from perfclaims.evidence import Evidence
from perfclaims.verdicts import judge

_RAN = (Verdict.PASS, Verdict.PARTIAL, Verdict.FAIL, Verdict.ERROR)


@dataclass(frozen=True, slots=True)
class ClaimResult:
    """A claim with its evidence and the judgement that follows from it."""

    claim: Claim
    evidence: Evidence
    verdict: Verdict
    reasons: tuple[Reason, ...]
    criteria: tuple[CriterionResult, ...]
    summary: str
    duration_s: float

    @classmethod
    def of(cls, claim: Claim, evidence: Evidence, duration_s: float) -> ClaimResult:
        """Judge the evidence."""
        found = judge(claim, evidence)
        return cls(claim, evidence, found.verdict, found.reasons, found.criteria, found.summary, duration_s)

    @property
    def id(self) -> str:
        """The claim's id."""
        return self.claim.id

    @property
    def statement(self) -> str:
        """The claim in a sentence."""
        return self.claim.statement

    @property
    def source(self) -> str:
        """Who says so."""
        return self.claim.source

    @property
    def status(self) -> str:
        """Asserted or audited."""
        return self.claim.status

    @property
    def ran(self) -> bool:
        """Whether it was measured, or tried to be."""
        return self.verdict in _RAN


@dataclass(frozen=True, slots=True)
class ModuleResult:
    """The claims of one suite; `error` where the suite itself could not be loaded."""

    module: str
    title: str
    claims: tuple[ClaimResult, ...]
    duration_s: float
    error: str | None = None

    @property
    def verdict(self) -> Verdict | None:
        """How the asserted claims that ran add up; None where there are none."""
        return Verdict.ERROR if self.error is not None else combined(self.claims)


def combined(claims: Iterable[ClaimResult]) -> Verdict | None:
    """Verdict of several claims: those asserted count where they ran; an ERROR counts wherever it is.

    PASS when all pass, ERROR when one errs, FAIL when none passes or is partial, else PARTIAL; None where
    nothing counts.
    """
    ran = [c for c in claims if c.ran]
    if any(c.verdict is Verdict.ERROR for c in ran):
        return Verdict.ERROR
    verdicts = [c.verdict for c in ran if c.status == "asserted"]
    if not verdicts:
        return None
    if all(v is Verdict.PASS for v in verdicts):
        return Verdict.PASS
    return Verdict.PARTIAL if {Verdict.PASS, Verdict.PARTIAL} & set(verdicts) else Verdict.FAIL


def run_verdict(modules: Sequence[ModuleResult]) -> Verdict | None:
    """Verdict of a whole run."""
    if any(m.error is not None for m in modules):
        return Verdict.ERROR
    return combined(claim for module in modules for claim in module.claims)


def exit_code(modules: Sequence[ModuleResult]) -> int:
    """0 every asserted claim passed, 1 at least one FAIL, 2 an ERROR or nothing measured, 3 otherwise."""
    verdict = run_verdict(modules)
    if verdict is None or verdict is Verdict.ERROR:
        return 2
    if verdict is Verdict.PASS:
        return 0
    claims = [c for module in modules for c in module.claims]
    failed = any(c.verdict is Verdict.FAIL and c.status == "asserted" for c in claims)
    return 1 if failed else 3
