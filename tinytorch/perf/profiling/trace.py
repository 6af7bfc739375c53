"""Records as a file that Perfetto opens: the Trace Event Format of Chrome, with complete events."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tinytorch.perf.profiling.portions import Formulas, operation_name, portions
from tinytorch.perf.profiling.recording import Log


def write_chrome_trace(formulas: Formulas, log: Log, path: str | Path) -> None:
    """Write all records to one JSON file; times are in microseconds from the first record on.

    Raises:
        ValueError: the folder of `path` does not exist.
    """
    target = Path(path)
    if not target.parent.is_dir():
        raise ValueError(f"`path` must lie in a folder that exists, got {str(target)!r}")
    starts = [span.start_ns for span in log.spans] + [fields[2] for fields in log.events]
    events = list(_events(formulas, log, min(starts, default=0)))
    document = {"traceEvents": [_title("process_name"), *events], "displayTimeUnit": "ms"}
    temporary = target.with_name(f"{target.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(json.dumps(document, allow_nan=False), encoding="utf-8")
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _events(formulas: Formulas, log: Log, zero_ns: int) -> Iterator[dict[str, Any]]:
    for portion in portions(formulas, log):
        span, event = portion.span, portion.event
        about: dict[str, Any] = {"flops": portion.work.flops}
        if event is None:
            assert span is not None
            name, category, times = type(span.layer).__name__, "layer", (span.start_ns, span.end_ns)
        else:
            about |= {"inputs": event.shapes, "output": event.out, "bytes": portion.n_bytes}
            name, category, times = operation_name(event), "operation", (event.start_ns, event.end_ns)
        start_ns, end_ns = times
        yield {
            "name": name,
            "cat": category,
            "ph": "X",
            "ts": (start_ns - zero_ns) / 1e3,
            "dur": max(end_ns - start_ns, 0) / 1e3,
            "pid": 1,
            "tid": 1,
            "args": about,
        }


def _title(name: str) -> dict[str, Any]:
    return {"name": name, "ph": "M", "pid": 1, "tid": 1, "args": {"name": "tinytorch"}}
