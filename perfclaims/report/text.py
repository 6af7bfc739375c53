"""Runs as plain text: the table, what did not pass and how to repeat it, and one final sentence."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Sequence

from perfclaims import wording
from perfclaims.claims import Claim
from perfclaims.codes import Verdict
from perfclaims.criteria import Criterion, OutputsMatch
from perfclaims.evaluation import CriterionResult, Finding
from perfclaims.evidence import Timing
from perfclaims.ratio import analyse
from perfclaims.results import ClaimResult, ModuleResult, exit_code, run_verdict

_COLOURS = {
    Verdict.PASS: "32",
    Verdict.PARTIAL: "33",
    Verdict.FAIL: "31",
    Verdict.ERROR: "35",
    Verdict.NOT_APPLICABLE: "2",
    Verdict.NOT_RUN: "2",
}
_WIDEST = 110


def table(modules: Sequence[ModuleResult], *, colour: bool = False) -> str:
    """Claimed, measured with its interval, and verdict: a line for every piece of evidence."""
    from tabulate import tabulate

    parts = []
    for module in modules:
        rows = [row for result in module.claims for row in _rows(result, colour=colour)]
        if not rows:
            continue
        body = tabulate(
            rows,
            headers=["claim", "claimed", "measured", "verdict"],
            tablefmt="simple",
            disable_numparse=True,
        )
        parts.append(f"{module.title} ({module.module})\n\n{body}")
    return "\n\n".join(parts)


def _rows(result: ClaimResult, *, colour: bool) -> list[list[str]]:
    lines = [
        line
        for criterion, judged in _judged(result)
        if not isinstance(criterion, OutputsMatch) or len(result.claim.criteria) == 1
        for line in _lines(criterion, judged, result)
    ] or [("", "")]
    verdict = _painted(result.verdict, colour=colour) + (" (audited)" if result.status == "audited" else "")
    first = [result.id, *lines[0], verdict]
    return [first, *(["", claimed, measured, ""] for claimed, measured in lines[1:])]


def _judged(result: ClaimResult) -> list[tuple[Criterion, CriterionResult | None]]:
    by_criterion = {id(r.criterion): r for r in result.criteria}
    return [(c, by_criterion.get(id(c))) for c in result.claim.criteria]


def _lines(
    criterion: Criterion, judged: CriterionResult | None, result: ClaimResult
) -> list[tuple[str, str]]:
    claimed = wording.thresholds(criterion)
    if judged is None or judged.missing:
        return [(claimed, "-")]
    measured = [_measured(criterion, finding, result) for finding in judged.findings]
    return [(claimed if i == 0 else "", line) for i, line in enumerate(measured)]


def _measured(criterion: Criterion, finding: Finding, result: ClaimResult) -> str:
    if isinstance(criterion, OutputsMatch):
        text = finding.outcome.value
    else:
        text = wording.interval(finding.estimate, finding.low, finding.high, finding.unit)
    grade = _grade(finding, result) if criterion.evidence_kind == "timing" else ""
    return " ".join(part for part in (f"{finding.label}:" if finding.label else "", text, grade) if part)


def _grade(finding: Finding, result: ClaimResult) -> str:
    timings = [p for p in result.evidence.pieces if isinstance(p, Timing) and p.label == finding.label]
    return analyse(timings[0]).noise_grade if timings and len(timings[0].samples) else ""


def _painted(verdict: Verdict, *, colour: bool) -> str:
    return f"\033[{_COLOURS[verdict]}m{verdict}\033[0m" if colour else str(verdict)


def remarks(modules: Sequence[ModuleResult], repeat: str) -> str:
    """Why claims did not pass and the command that repeats just that claim; warnings on those that did.

    Args:
        repeat: command to which `--claim ID` is added.
    """
    parts = [f"{module.module}: ERROR. {module.error}" for module in modules if module.error is not None]
    for result in (r for module in modules for r in module.claims):
        notes = warnings_of(result)
        if result.verdict is Verdict.PASS and not notes:
            continue
        reasons = f" ({', '.join(result.reasons)})" if result.reasons else ""
        text = [_wrapped(f"{result.id}: {result.verdict}{reasons}. {result.summary}")]
        text += [_wrapped(f"warning: {note}", indent="    ") for note in notes]
        if result.ran and result.verdict is not Verdict.PASS:
            text.append(f"    repeat: {repeat} --claim {result.id}")
        parts.append("\n".join(text))
    return "\n".join(parts)


def warnings_of(result: ClaimResult) -> list[str]:
    """Warnings of all evidence, each once, with the labels it concerns."""
    found: dict[str, list[str]] = {}
    for piece in result.evidence.pieces:
        for warning in getattr(piece, "warnings", ()):
            found.setdefault(warning, []).append(piece.label or "")
    return [
        f"{', '.join(label for label in labels if label)}: {warning}" if any(labels) else warning
        for warning, labels in found.items()
    ]


def sentence(modules: Sequence[ModuleResult], *, interrupted: bool = False) -> str:
    """The run in one sentence, with its verdict and exit code."""
    claims = [c for module in modules for c in module.claims]
    asserted = [c for c in claims if c.status == "asserted" and c.ran]
    audited = [c for c in claims if c.status == "audited" and c.ran]
    others = len(claims) - len(asserted) - len(audited)
    parts = (
        [f"{_count(asserted, Verdict.PASS)} of {len(asserted)} asserted claims passed"] if asserted else []
    )
    parts += [
        f"{_count(asserted, verdict)} {verdict}"
        for verdict in (Verdict.PARTIAL, Verdict.FAIL, Verdict.ERROR)
        if _count(asserted, verdict)
    ]
    if audited:
        counts = ", ".join(f"{_count(audited, v)} {v}" for v in Verdict if _count(audited, v))
        parts.append(f"{len(audited)} audited: {counts}")
    if others:
        parts.append(f"{others} not run or not applicable")
    broken = [m.module for m in modules if m.error is not None]
    if broken:
        parts.append(f"{', '.join(broken)} could not be loaded")
    if interrupted:
        return f"Interrupted: {', '.join(parts) or 'nothing was measured'}; exit code 130."
    verdict = run_verdict(modules)
    if verdict is None:
        detail = f" ({', '.join(parts)})" if parts else ""
        return f"No verdict: nothing was measured that the project asserts{detail}; exit code 2."
    return f"{verdict}: {', '.join(parts)}; exit code {exit_code(modules)}."


def _count(claims: Sequence[ClaimResult], verdict: Verdict) -> int:
    return sum(c.verdict is verdict for c in claims)


def listing(name: str, title: str, claims: Sequence[tuple[Claim, float, str | None]]) -> str:
    """The claims of a suite with thresholds and expected durations.

    Args:
        claims: claim, expected seconds, and why the preset leaves it out.
    """
    from tabulate import tabulate

    rows = []
    for claim, expected_s, left_out in claims:
        demands = [wording.thresholds(c) for c in claim.criteria]
        marks = {"audited": claim.status == "audited", "slow": claim.slow, "left out": left_out is not None}
        notes = [mark for mark, holds in marks.items() if holds]
        for i, demand in enumerate(demands):
            first = i == 0
            rows.append(
                [
                    claim.id if first else "",
                    demand,
                    f"{wording.duration(expected_s)}" if first else "",
                    ", ".join(notes) if first else "",
                ]
            )
    body = tabulate(
        rows, headers=["claim", "criteria", "takes about", ""], tablefmt="simple", disable_numparse=True
    )
    return f"{title} ({name})\n\n{body}"


def width() -> int:
    """Columns to fill."""
    return min(_WIDEST, shutil.get_terminal_size((100, 24)).columns)


def _wrapped(text: str, indent: str = "") -> str:
    return textwrap.fill(
        " ".join(text.split()),
        width(),
        initial_indent=indent,
        subsequent_indent=indent + "    ",
        break_long_words=False,
        break_on_hyphens=False,
    )
