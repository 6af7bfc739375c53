"""What there is to say about single claims: why they did not pass, how to repeat them, and warnings."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Sequence

from perfclaims.codes import Outcome, Verdict
from perfclaims.report.layout import wrapped
from perfclaims.results import ClaimResult, ModuleResult

_NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e[+-]?\d+)?")


# The command that repeats a run, with another budget where one is given.
Repeat = Callable[[float | None], str]


def remarks(modules: Sequence[ModuleResult], repeat: Repeat | None) -> str:
    """Reasons of all that did not pass, ours before the statements of others, then warnings.

    Args:
        modules: of the run.
        repeat: the command to which `--claim ID` is added; None: nothing is said about repeating.
    """
    claims = [claim for module in modules for claim in module.claims]
    open_ = [claim for claim in claims if claim.ran and claim.verdict is not Verdict.PASS]
    parts = [wrapped(f"{m.module}: ERROR. {m.error}") for m in modules if m.error is not None]
    parts += [_remark(claim, repeat) for claim in sorted(open_, key=lambda c: c.status == "audited")]
    parts += list(_not_measured(claims))
    parts += list(_warnings(claims))
    return "\n".join(parts)


def _remark(result: ClaimResult, repeat: Repeat | None) -> str:
    verdict = f"{result.verdict} ({', '.join(result.reasons)})" if result.reasons else str(result.verdict)
    if result.status == "audited":
        who = f"stated by {result.source}" if result.source else "a statement of others"
        verdict = f"{who}, {_standing(result)}: {verdict}"
    lines = [
        wrapped(f"{result.id}: {verdict}. {result.summary}"),
        wrapped(f"claimed: {result.statement}", "    "),
    ]
    if repeat is not None:
        lines.append(f"    repeat: {repeat(_deciding_budget(result))} --claim {shlex.quote(result.id)}")
    return "\n".join(lines)


def _deciding_budget(result: ClaimResult) -> float | None:
    """Seconds a comparison that would decide all that is open, as far as that is known."""
    budgets = [f.budget_s for c in result.criteria for f in c.findings if f.budget_s is not None]
    return None if result.verdict is Verdict.ERROR else max(budgets, default=None)


def _standing(result: ClaimResult) -> str:
    """What became of a statement of others that did not pass."""
    if result.verdict is Verdict.ERROR:
        return "not measured"
    if not any(criterion.outcome is Outcome.REFUTED for criterion in result.criteria):
        return "not decided"
    return "holds in part" if result.verdict is Verdict.PARTIAL else "does not hold"


def _not_measured(claims: Sequence[ClaimResult]) -> Iterable[str]:
    """Claims without a measurement, those with one reason together."""
    together: dict[tuple[Verdict, str], list[str]] = {}
    for claim in claims:
        if not claim.ran:
            together.setdefault((claim.verdict, claim.summary), []).append(claim.id)
    for (verdict, reason), ids in together.items():
        yield wrapped(f"{verdict}: {', '.join(ids)}: {reason}")


def _warnings(claims: Sequence[ClaimResult]) -> Iterable[str]:
    """Warnings that differ in their numbers only are one, with the range of each number."""
    together: dict[str, tuple[list[str], list[str]]] = {}
    for claim in claims:
        for piece in claim.evidence.pieces:
            for warning in getattr(piece, "warnings", ()):
                texts, ids = together.setdefault(_NUMBER.sub("#", warning), ([], []))
                texts.append(warning)
                ids.append(claim.id)
    for texts, ids in together.values():
        concerned = list(dict.fromkeys(ids))
        timed = {c.id for c in claims if any(hasattr(piece, "warnings") for piece in c.evidence.pieces)}
        whom = f"all {len(timed)} timed claims" if len(concerned) == len(timed) > 1 else ", ".join(concerned)
        yield wrapped(f"warning for {whom}: {_merged(texts)}")


def _merged(texts: Sequence[str]) -> str:
    """One text for several that differ in their numbers: `3% and 12%` becomes `3 to 12%`."""
    columns = zip(*(_NUMBER.findall(text) for text in texts), strict=True)
    ranges = iter([_range(column) for column in columns])
    return _NUMBER.sub(lambda _: next(ranges), texts[0])


def _range(numbers: Sequence[str]) -> str:
    low, high = min(numbers, key=float), max(numbers, key=float)
    return low if float(low) == float(high) else f"{low} to {high}"
