"""Adding up what was recorded: by operation, or by class of layer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tinytorch.perf.profiling.flops import FLOPCounter
from tinytorch.perf.profiling.formulas import NOTHING
from tinytorch.perf.profiling.portions import Portion, operation_name, portions
from tinytorch.perf.profiling.recording import Log, Span

#: in `by_module`, the name of what ran while no layer was called
OUTSIDE = "(outside of layers)"


@dataclass(frozen=True, slots=True)
class Row:
    """What one operation, or the layers of one class, took in all of its calls.

    Attributes:
        name: of the operation, or of the class.
        kind: "operation" or "layer".
        calls: how often it ran.
        self_ms: time that it took itself.
        total_ms: with the layers and operations inside.
        bytes: of the arrays that it read and wrote itself.
        flops: floating-point operations, its own; a multiply-add counts 2 (see `formulas`).
        macs: multiply-adds of its own products and convolutions.
    """

    name: str
    kind: str
    calls: int
    self_ms: float
    total_ms: float
    bytes: int
    flops: int
    macs: int


class _Sums:
    """A row while it is added up."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.calls = self.self_ns = self.total_ns = self.n_bytes = 0
        self.work = NOTHING

    def add(self, portion: Portion) -> None:
        """Add what this row did itself."""
        self.self_ns += portion.duration_ns
        self.n_bytes += portion.n_bytes
        self.work += portion.work

    def row(self, name: str) -> Row:
        """Return the row."""
        times_ms = (self.self_ns / 1e6, self.total_ns / 1e6)
        return Row(name, self.kind, self.calls, *times_ms, self.n_bytes, self.work.flops, self.work.macs)


def by_operation(counter: FLOPCounter, log: Log) -> list[Row]:
    """Return a row for each operation, and one for each class of layers with the time of its own."""
    return _collected(counter, log, operations=True)


def by_module(counter: FLOPCounter, log: Log) -> list[Row]:
    """Return a row for each class of layers, to which the operations it calls belong."""
    return _collected(counter, log, operations=False)


def _collected(counter: FLOPCounter, log: Log, operations: bool) -> list[Row]:
    """Add up every duration once as own time, and once as the time of each class around it."""
    own = {id(span) for span in log.spans}
    sums: dict[str, _Sums] = {}
    for portion in portions(counter, log):
        # Each class once: a layer inside one of its own class does not take its time twice.
        names = {type(span.layer).__name__: "layer" for span in _outwards(portion.span, own)}
        if portion.event is None or not operations:
            owner, kind = next(iter(names), OUTSIDE), "layer"
        else:
            owner, kind = operation_name(portion.event), "operation"
        for name in {owner: kind, **names}:
            sums.setdefault(name, _Sums(names.get(name, kind))).total_ns += portion.duration_ns
        sums[owner].calls += portion.event is None or operations
        sums[owner].add(portion)
    rows = [found.row(name) for name, found in sums.items()]
    return sorted(rows, key=lambda row: row.self_ms, reverse=True)


def _outwards(span: Span | None, own: set[int]) -> Iterator[Span]:
    """Yield a call and those around it, as far as they were recorded."""
    while span is not None and id(span) in own:
        yield span
        span = span.parent
