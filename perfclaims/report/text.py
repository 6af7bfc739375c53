"""A run in one sentence, and the list of what a run would measure."""

from __future__ import annotations

from collections.abc import Sequence

from perfclaims import wording
from perfclaims.claims import Claim
from perfclaims.codes import Verdict
from perfclaims.report.layout import grid, widths_of
from perfclaims.results import ClaimResult, ModuleResult, run_verdict


def sentence(
    modules: Sequence[ModuleResult],
    code: int,
    *,
    interrupted: bool = False,
    left: int = 0,
    problem: str | None = None,
) -> str:
    """The run in one sentence, with its verdict and exit code.

    Args:
        modules: as far as they got.
        code: the exit code.
        interrupted: whether the run was ended before its time.
        left: claims that it should have measured still.
        problem: why the exit code is not the one of the verdict.
    """
    parts = ", ".join(_counts(modules))
    verdict = run_verdict(modules)
    if interrupted:
        before = f" with {_claims(left)} left" if left else ""
        text = f"Interrupted{before}: {parts or 'nothing was measured'}"
    elif verdict is None:
        text = "No verdict: nothing was measured that is asserted" + (f" ({parts})" if parts else "")
    else:
        text = f"{verdict}: {parts}"
    return f"{text}{f'; but {problem}' if problem else ''}; exit code {code}."


def _counts(modules: Sequence[ModuleResult]) -> list[str]:
    claims = [claim for module in modules for claim in module.claims]
    asserted = [c for c in claims if c.status == "asserted" and c.ran]
    audited = [c for c in claims if c.status == "audited" and c.ran]
    parts = []
    if asserted:
        passed = _count(asserted, Verdict.PASS)
        parts.append(f"{passed} of {_claims(len(asserted), 'asserted ')} passed")
    parts += [
        f"{_count(asserted, verdict)} {verdict}"
        for verdict in (Verdict.PARTIAL, Verdict.FAIL, Verdict.ERROR)
        if _count(asserted, verdict)
    ]
    if audited:
        found = ", ".join(f"{_count(audited, v)} {v}" for v in Verdict if _count(audited, v))
        parts.append(f"{len(audited)} audited ({found})")
    parts += [
        f"{_count(claims, verdict)} {words}"
        for verdict, words in ((Verdict.NOT_RUN, "not run"), (Verdict.NOT_APPLICABLE, "not applicable"))
        if _count(claims, verdict)
    ]
    broken = [module.module for module in modules if module.error is not None]
    return [*parts, *([f"{', '.join(broken)} could not be loaded"] if broken else [])]


def _claims(number: int, kind: str = "") -> str:
    return f"{number} {kind}{'claim' if number == 1 else 'claims'}"


def _count(claims: Sequence[ClaimResult], verdict: Verdict) -> int:
    return sum(c.verdict is verdict for c in claims)


def listing(name: str, title: str, claims: Sequence[tuple[Claim, float, str | None]]) -> str:
    """The claims of a suite with thresholds and expected durations.

    Args:
        name, title: of the suite.
        claims: claim, expected seconds, and why the preset leaves it out.
    """
    header = ("claim", "criteria", "takes about", "")
    rows = []
    for claim, expected_s, left_out in claims:
        marks = {"audited": claim.status == "audited", "slow": claim.slow, "left out": left_out is not None}
        notes = ", ".join(mark for mark, holds in marks.items() if holds)
        for i, criterion in enumerate(claim.criteria):
            about = (claim.id, wording.duration(expected_s), notes) if i == 0 else ("", "", "")
            label = f"{criterion.label}: " if criterion.label else ""
            rows.append((about[0], label + wording.thresholds(criterion), *about[1:]))
    return f"{title} ({name})\n\n{grid(header, rows, widths_of([header, *rows]))}"
