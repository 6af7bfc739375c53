"""A run in one sentence, and the list of what a run would measure."""

from __future__ import annotations

from collections.abc import Sequence

from perfclaims import wording
from perfclaims.claims import Claim
from perfclaims.codes import Verdict
from perfclaims.report.layout import columns_beside, folded, grid, table_width
from perfclaims.report.table import stated
from perfclaims.results import ClaimResult, ModuleResult, run_verdict

_LIST_HEADER = (("claim", "takes about", "notes"), ("    criteria", "", ""))
# `audited, slow, left out`, the longest there is.
_NOTES = 23
# Claims of one verdict in the final sentence.
_MOST_NAMED = 10


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


def verdicts_hold(modules: Sequence[ModuleResult]) -> str:
    """That judging again gave what a file says: `all 3 verdicts follow from the samples`."""
    number = sum(len(module.claims) for module in modules)
    if number == 1:
        return "the verdict follows from the samples"
    return f"all {number} verdicts follow from the samples" if number else "there are no verdicts"


def _counts(modules: Sequence[ModuleResult]) -> list[str]:
    claims = [claim for module in modules for claim in module.claims]
    asserted = [c for c in claims if c.status == "asserted" and c.ran]
    audited = [c for c in claims if c.status == "audited" and c.ran]
    parts = []
    if asserted:
        passed = _count(asserted, Verdict.PASS)
        parts.append(f"{passed} of {_claims(len(asserted), 'asserted ')} passed")
    parts += [
        f"{_count(asserted, verdict)} {verdict} ({_names(asserted, verdict)})"
        for verdict in (Verdict.PARTIAL, Verdict.FAIL, Verdict.ERROR)
        if _count(asserted, verdict)
    ]
    if audited:
        found = ", ".join(f"{_count(audited, v)} {v}" for v in Verdict if _count(audited, v))
        # An ERROR counts wherever it is.
        erred = _names(audited, Verdict.ERROR)
        parts.append(f"{len(audited)} audited ({found}{f': {erred}' if erred else ''})")
    parts += [
        f"{_count(claims, verdict)} {words}"
        for verdict, words in ((Verdict.NOT_RUN, "not run"), (Verdict.NOT_APPLICABLE, "not applicable"))
        if _count(claims, verdict)
    ]
    broken = [module.module for module in modules if module.error is not None]
    return [*parts, *([f"{', '.join(broken)} could not be loaded"] if broken else [])]


def _claims(number: int, kind: str = "") -> str:
    return f"{number} {kind}{'claim' if number == 1 else 'claims'}"


def _names(claims: Sequence[ClaimResult], verdict: Verdict) -> str:
    ids = [c.id for c in claims if c.verdict is verdict]
    more = [f"{len(ids) - _MOST_NAMED} more"] if len(ids) > _MOST_NAMED else []
    return ", ".join(ids[:_MOST_NAMED] + more)


def _count(claims: Sequence[ClaimResult], verdict: Verdict) -> int:
    return sum(c.verdict is verdict for c in claims)


def listing(name: str, title: str, claims: Sequence[tuple[Claim, float, str | None]]) -> str:
    """The claims of a suite: what each says, its thresholds and its expected duration.

    Args:
        name, title: of the suite.
        claims: claim, expected seconds, and why the preset leaves it out.
    """
    rows: list[tuple[str, ...]] = []
    for claim, expected_s, left_out in claims:
        marks = {"audited": claim.status == "audited", "slow": claim.slow, "left out": left_out is not None}
        notes = ", ".join(mark for mark, holds in marks.items() if holds)
        rows.append((claim.id, wording.duration(expected_s), notes))
        rows += [(line,) for line in stated(claim.statement, claim.source if marks["audited"] else "")]
        for criterion in claim.criteria:
            label = f"{criterion.label}: " if criterion.label else ""
            demanded = label + wording.thresholds(criterion)
            rows += [(line,) for line in folded(demanded, table_width(), "    ", "      ")]
    widths = columns_beside(*map(len, _LIST_HEADER[0][1:-1]), _NOTES)
    return f"{title} ({name})\n\n{grid(_LIST_HEADER, rows, widths)}"
