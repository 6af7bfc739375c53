"""Records as a file that Perfetto opens: the Trace Event Format of Chrome, with complete events."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tinytorch.perf.profiling.portions import Formulas, operation_name, portions
from tinytorch.perf.profiling.recording import Event, Log, Span

_PID = 1


def write_chrome_trace(formulas: Formulas, log: Log, path: str | Path) -> None:
    """Write all records to one JSON file; times are in microseconds from the first record on.

    Raises:
        ValueError: the folder of `path` does not exist, or it is a folder itself.
    """
    target = Path(path)
    if not target.parent.is_dir():
        raise ValueError(f"`path` must lie in a folder that exists, got {str(target)!r}")
    if target.is_dir():
        raise ValueError(f"`path` must be that of a file, got the folder {str(path)!r}")
    events = sorted(_events(formulas, log), key=lambda event: (event["tid"], event["ts"], -event["dur"]))
    threads = sorted({event["tid"] for event in events})
    names = [_metadata("process_name", 0, "tinytorch")]
    names += [_metadata("thread_name", tid, f"thread {tid}") for tid in threads]
    document = {"traceEvents": [*names, *events], "displayTimeUnit": "ms"}
    temporary = target.with_name(f"{target.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(json.dumps(document, allow_nan=False), encoding="utf-8")
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _events(formulas: Formulas, log: Log) -> Iterator[dict[str, Any]]:
    records: list[Span | Event] = [*log.spans, *log.all_events()]
    zero_ns = min((record.start_ns for record in records), default=0)
    # Layers that are still running end with the last of what is inside.
    last_ns = max((max(record.start_ns, record.end_ns) for record in records), default=0)
    tids: dict[int, int] = {}  # threads are counted from 1 in the order in which they are met
    for portion in portions(formulas, log):
        span, event = portion.span, portion.event
        about: dict[str, Any] = {"flops": portion.work.flops}
        record: Span | Event
        if event is None:
            assert span is not None
            name, category, record = type(span.layer).__name__, "layer", span
        else:
            about |= {"inputs": event.shapes, "output": event.out, "bytes": portion.n_bytes}
            name, category, record = operation_name(event), "operation", event
        yield {
            "name": name,
            "cat": category,
            "ph": "X",
            "ts": (record.start_ns - zero_ns) / 1e3,
            "dur": ((record.end_ns or last_ns) - record.start_ns) / 1e3,
            "pid": _PID,
            "tid": tids.setdefault(record.thread, len(tids) + 1),
            "args": about,
        }


def _metadata(name: str, tid: int, value: str) -> dict[str, Any]:
    return {"name": name, "ph": "M", "pid": _PID, "tid": tid, "args": {"name": value}}
