"""The table: each claim with its statement and verdict, then what is claimed beside what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

from perfclaims.codes import Verdict
from perfclaims.evidence import Timing
from perfclaims.report.layout import columns_beside, folded, grid, table_width, wrapped
from perfclaims.report.lines import Line, lines_of
from perfclaims.results import ClaimResult, ModuleResult

_COLOURS = {
    Verdict.PASS: "32",
    Verdict.PARTIAL: "33",
    Verdict.FAIL: "31",
    Verdict.ERROR: "35",
}
_FAINT = "2"
_HEADER = (("claim", "verdict"), ("    claimed", "measured"))
# Of the second column: `1.123x [1.123, 1.123] B` and most values with their units.
_MEASURED = 32
_INDENT = "    "
_LEGEND = "Grades A to D: noise of at most 0.25 %, 1 %, 5 %, or more; a star: one instance only."


def table(modules: Sequence[ModuleResult], *, colour: bool = False) -> str:
    """All claims of a run, module by module; the columns depend on the width of the screen alone."""
    widths = columns_beside(_MEASURED)
    parts = [
        f"{module.title} ({module.module})\n\n{grid(_HEADER, rows, widths)}"
        for module in modules
        if (rows := [row for result in module.claims for row in _rows(result, widths, colour=colour)])
    ]
    graded = any(
        isinstance(p, Timing) for m in modules for result in m.claims for p in result.evidence.pieces
    )
    return "\n\n".join([*parts, *([wrapped(_LEGEND)] if graded and parts else [])])


def _rows(result: ClaimResult, widths: Sequence[int], *, colour: bool) -> list[tuple[str, ...]]:
    audited = result.status == "audited"
    name = f"{result.id} (audited)" if audited else result.id
    rows: list[tuple[str, ...]] = [(name, painted(result.verdict, audited=audited, colour=colour))]
    rows += [(line,) for line in stated(result.statement, result.source if audited else "")]
    for line in lines_of(result):
        rows += _cells(line, widths)
    return rows


def _cells(line: Line, widths: Sequence[int]) -> list[tuple[str, str]]:
    """A line in its two columns, each folded where it is too long."""
    left = folded(line.left, widths[0], _INDENT, _INDENT + "  ")
    return list(zip_longest(left, folded(line.measured, widths[1], hanging="  "), fillvalue=""))


def stated(statement: str, source: str) -> list[str]:
    """What a claim says, and who says so where that is given, in lines across a table."""
    text = f"{statement.rstrip('.')}. Source: {source}" if source else statement
    return folded(text, table_width(), "  ", "  ")


def painted(verdict: Verdict, *, audited: bool, colour: bool) -> str:
    """A verdict, coloured where it is one of ours, or where it is an ERROR, which counts either way."""
    if not colour:
        return str(verdict)
    ours = not audited or verdict is Verdict.ERROR
    return f"\033[{_COLOURS.get(verdict, _FAINT) if ours else _FAINT}m{verdict}\033[0m"
