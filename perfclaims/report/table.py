"""The table: claimed, measured with its interval, and verdict, with a line for every piece of evidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from perfclaims.codes import Verdict
from perfclaims.evidence import Timing
from perfclaims.report.layout import grid, room_beside, widths_of, wrapped
from perfclaims.report.lines import Line, lines_of
from perfclaims.results import ClaimResult, ModuleResult

_COLOURS = {
    Verdict.PASS: "32",
    Verdict.PARTIAL: "33",
    Verdict.FAIL: "31",
    Verdict.ERROR: "35",
}
_FAINT = "2"
_BESIDE = ("claim", "claimed", "measured", "verdict")
_STACKED = ("claim", "measured", "verdict")
_LEGEND = "Grades A to D: noise of at most 0.25 %, 1 %, 5 %, or more; a star: one instance only."


@dataclass(frozen=True, slots=True)
class Entry:
    """A claim's lines; `shown` is its verdict as it is printed, with or without colour."""

    claim: str
    verdict: Verdict
    shown: str
    lines: list[Line]


# Cells on the left, what was measured, and the verdict.
Row = tuple[tuple[str, ...], Line, str]


def table(modules: Sequence[ModuleResult], *, colour: bool = False) -> str:
    """All claims of a run, module by module, in columns of the same widths."""
    entries = [[_entry(result, colour=colour) for result in module.claims] for module in modules]
    shown = [entry for module in entries for entry in module]
    if not shown:
        return ""
    narrowest = max(line.narrowest for entry in shown for line in entry.lines)
    stacked = _room(shown, stacked=False) < narrowest
    room = _room(shown, stacked=stacked)
    header = _STACKED if stacked else _BESIDE
    drawn = [
        [cells for entry in module for row in _rows(entry, stacked=stacked) for cells in _cells(row, room)]
        for module in entries
    ]
    widths = [*widths_of([header[:-1], *(cells[:-1] for rows in drawn for cells in rows)]), len(header[-1])]
    parts = [
        f"{module.title} ({module.module})\n\n{grid(header, rows, widths)}"
        for module, rows in zip(modules, drawn, strict=True)
        if rows
    ]
    graded = any(
        isinstance(p, Timing) for m in modules for result in m.claims for p in result.evidence.pieces
    )
    return "\n\n".join([*parts, *([wrapped(_LEGEND)] if graded else [])])


def _room(entries: Sequence[Entry], *, stacked: bool) -> int:
    """Columns left for what was measured."""
    rows = [row for entry in entries for row in _rows(entry, stacked=stacked)]
    left = widths_of([(_STACKED if stacked else _BESIDE)[:-2], *(row[0] for row in rows)])
    verdict = max(len("verdict"), *(len(entry.verdict) for entry in entries))
    return room_beside([*left, verdict])


def _rows(entry: Entry, *, stacked: bool) -> list[Row]:
    """A claim's rows; on a narrow screen what is claimed stands below its claim."""
    if stacked:
        below: list[Row] = [((f"  {line.claimed}",), line, "") for line in entry.lines]
        return [((entry.claim,), Line("", "", ""), entry.shown), *below]
    return [
        ((entry.claim if i == 0 else "", line.claimed), line, entry.shown if i == 0 else "")
        for i, line in enumerate(entry.lines)
    ]


def _cells(row: Row, room: int) -> list[tuple[str, ...]]:
    left, line, verdict = row
    first, *more = line.fitted(room)
    return [(*left, first, verdict), *((*("" for _ in left), text, "") for text in more)]


def _entry(result: ClaimResult, *, colour: bool) -> Entry:
    audited = result.status == "audited"
    claim = f"{result.id} (audited)" if audited else result.id
    lines = list(lines_of(result)) or [Line("-", "", "-")]
    return Entry(claim, result.verdict, painted(result.verdict, audited=audited, colour=colour), lines)


def painted(verdict: Verdict, *, audited: bool, colour: bool) -> str:
    """A verdict, coloured where it is one of ours, or where it is an ERROR, which counts either way."""
    if not colour:
        return str(verdict)
    ours = not audited or verdict is Verdict.ERROR
    return f"\033[{_COLOURS.get(verdict, _FAINT) if ours else _FAINT}m{verdict}\033[0m"
