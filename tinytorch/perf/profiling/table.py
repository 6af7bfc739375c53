"""Rows as a table for reading."""

from __future__ import annotations

from collections.abc import Sequence

from tinytorch.perf.profiling.rows import Row

_HEADERS = ("name", "kind", "calls", "self ms", "self %", "total ms", "MB", "MFLOP", "GFLOP/s")


def table(rows: Sequence[Row], n: int) -> str:
    """Return the first `n` rows as text, with the share that each has of the time of all."""
    from tabulate import tabulate

    whole_ms = sum(row.self_ms for row in rows) or 1.0
    lines = [
        (
            row.name,
            row.kind,
            row.calls,
            f"{row.self_ms:.3f}",
            f"{row.self_ms / whole_ms:.1%}",
            f"{row.total_ms:.3f}",
            f"{row.bytes / 1e6:.3f}",
            f"{row.flops / 1e6:.3f}",
            f"{row.flops / row.self_ms / 1e6:.2f}" if row.flops and row.self_ms else "",
        )
        for row in rows[:n]
    ]
    align = ("left", "left", *["right"] * (len(_HEADERS) - 2))
    left = len(rows) - n
    more = f"and {left} more\n" if left > 0 else ""
    return tabulate(lines, headers=_HEADERS, colalign=align, disable_numparse=True) + "\n" + more
