"""A leaderboard as text, Markdown or one HTML file."""

from __future__ import annotations

from collections.abc import Sequence

from tinytorch.benchmarking.tinymlperf.entries import Entry
from tinytorch.benchmarking.tinymlperf.events import EVENTS
from tinytorch.benchmarking.tinymlperf.standings import Standing, Table, tables

FORMATS = ("text", "markdown", "html")
_HEADS = ("rank", "name", "times as fast as the reference", "95 % interval", "figure", "quality", "verified")
_NOTE = (
    "Ratios are the reference model's time divided by the submission's, measured in turn on the same "
    "machine. Of two in one rank it is not known which is faster. The test data are public: in the open "
    "division a model may have been trained on them, or be a table in which it looks for the nearest one."
)

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>TinyMLPerf</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70em; margin: 2em auto; padding: 0 1em; }
table { border-collapse: collapse; margin: 0 0 2em; }
caption { text-align: left; font-weight: 600; padding: 0.5em 0; }
th, td { text-align: left; padding: 0.3em 1em 0.3em 0; border-bottom: 1px solid #bbb; }
@media (prefers-color-scheme: dark) { body { background: #111; color: #eee; } }
</style>
</head>
<body>
<h1>TinyMLPerf</h1>
<p>{{ note }}</p>
{% for title, rows in boards %}
<table>
<caption>{{ title }}</caption>
<thead><tr>{% for head in heads %}<th scope="col">{{ head }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in rows %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</tbody>
</table>
{% else %}
<p>No submission has a rank yet.</p>
{% endfor %}
{% if refused %}
<h2>Without a rank</h2>
<ul>
{% for line in refused %}<li>{{ line }}</li>
{% endfor %}</ul>
{% endif %}
</body>
</html>
"""


def rendered(entries: Sequence[Entry], form: str = "text") -> str:
    """Return all tables, and the entries without a rank, in one of three forms, ending in a newline.

    Raises:
        ValueError: there is no such form.
    """
    if form not in FORMATS:
        raise ValueError(f"`form` must be one of {', '.join(FORMATS)}, got {form!r}")
    boards = tables(entries)
    refused = [
        f"{_plain(e.name)} ({_event(e)}, {e.division}): {_plain(e.refused)}" for e in entries if e.refused
    ]
    if form == "html":
        return _html(boards, refused)
    return _text(boards, refused, form)


def _text(boards: Sequence[Table], refused: Sequence[str], form: str) -> str:
    from tabulate import tabulate

    markdown = form == "markdown"
    shown = _escaped if markdown else _unchanged
    parts = ["# TinyMLPerf\n" if markdown else "TinyMLPerf\n", _NOTE + "\n"]
    for board in boards:
        rows = [[shown(cell) for cell in _cells(standing)] for standing in board.standings]
        parts.append(f"## {shown(board.title)}\n" if markdown else board.title)
        style = "github" if markdown else "simple"
        parts.append(tabulate(rows, _HEADS, tablefmt=style, disable_numparse=True) + "\n")
    if not boards:
        parts.append("No submission has a rank yet.\n")
    if refused:
        parts.append("## Without a rank\n" if markdown else "Without a rank")
        parts.append("\n".join(f"- {shown(line)}" for line in refused) + "\n")
    return "\n".join(parts)


def _html(boards: Sequence[Table], refused: Sequence[str]) -> str:
    from jinja2 import Environment

    page = Environment(autoescape=True, trim_blocks=True, keep_trailing_newline=True).from_string(_PAGE)
    rows = [(board.title, [_cells(standing) for standing in board.standings]) for board in boards]
    return page.render(note=_NOTE, heads=_HEADS, boards=rows, refused=refused)


def _cells(standing: Standing) -> tuple[str, ...]:
    entry = standing.entry
    name = _plain(entry.name) + (" (own code)" if entry.own_code else "")
    return (
        f"{standing.rank}{' =' if standing.tied else ''}",
        name,
        f"{entry.ratio:.2f}",
        f"[{entry.low:.2f}, {entry.high:.2f}]",
        _figure(entry),
        _quality(entry),
        ", ".join(entry.badges) or "-",
    )


def _figure(entry: Entry) -> str:
    if entry.latency_ms is not None:
        bound = "" if entry.latency_bound_ms is None else f" (at most {entry.latency_bound_ms:.3g})"
        return f"{entry.latency_ms:.3g} ms for nine in ten{bound}"
    return "-" if entry.throughput_per_s is None else f"{entry.throughput_per_s:,.0f} a second"


def _quality(entry: Entry) -> str:
    if entry.quality is None:
        return "-"
    is_text = entry.event in EVENTS and EVENTS[entry.event].is_text
    return f"{entry.quality:.2f} bits" if is_text else f"{entry.quality:.1%}"


def _event(entry: Entry) -> str:
    return EVENTS[entry.event].title if entry.event in EVENTS else entry.event


def _plain(text: str | None) -> str:
    """Return text in one line, without what steers a terminal."""
    return " ".join("".join(c if c.isprintable() else " " for c in text or "").split())


def _escaped(text: str) -> str:
    for mark in "\\|`*_<[":
        text = text.replace(mark, "\\" + mark)
    return text


def _unchanged(text: str) -> str:
    return text
