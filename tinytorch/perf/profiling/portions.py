"""What was recorded, cut into portions of which each has its time, its bytes and its FLOPs, none twice."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from tinytorch.core import derivatives, embeddings, inference
from tinytorch.core.layers import Layer
from tinytorch.perf.profiling.formulas import NOTHING, Work
from tinytorch.perf.profiling.recording import Event, Log, Span

_GATHERING = (embeddings.embed, derivatives.getitem)


class Formulas(Protocol):
    """Who knows what things take; see `FLOPCounter`."""

    def work_of(self, event: Event) -> Work | None:
        """Return what an operation takes, None where there is no formula."""
        ...

    def work_of_call(self, span: Span) -> Work | None:
        """Return what a layer takes with everything inside it, None where its operations say that."""
        ...

    def is_unknown(self, layer: Any) -> bool:
        """Return whether nothing but the operations in a layer tells of its work."""
        ...

    def has_formula(self, layer: Any) -> bool:
        """Return whether a formula stands for everything inside a layer."""
        ...


@dataclass(frozen=True, slots=True)
class Portion:
    """An operation, or what a call of a layer takes beside the operations and layers inside.

    Attributes:
        span: the call of a layer, or the one that called the operation; None outside of layers.
        event: the operation; None for a layer.
        work: its FLOPs.
        duration_ns: its own time.
    """

    span: Span | None
    event: Event | None
    work: Work
    duration_ns: int

    @property
    def n_bytes(self) -> int:
        """The bytes that were read and written; of a table only the rows that were taken."""
        if self.event is None:
            return 0
        if self.event.rule in _GATHERING and not self.event.backward:
            return min(self.event.n_bytes, 2 * 4 * math.prod(self.event.out))
        if self.event.rule is inference.fused_step:
            ids, options = self.event.shapes[0], self.event.options
            held: int = options["steps"].n_bytes(ids, options["start"], options["cache"])
            return self.event.n_bytes + held
        return self.event.n_bytes + (0 if self.event.backward else _held_bytes(self.event.options))


def portions(formulas: Formulas, log: Log) -> Iterator[Portion]:
    """Yield the calls of layers, then the operations.

    Where a layer has a formula, its calls have all of the work, and operations and layers inside have none.
    """
    covered: dict[int, bool] = {}
    for span in log.spans:  # those outside come before those inside
        inside = span.parent is not None and covered.get(id(span.parent), False)
        work = None if inside else formulas.work_of_call(span)
        covered[id(span)] = inside or work is not None
        yield Portion(span, None, work or NOTHING, span.own_ns)
    for event in log.all_events():
        inside = event.span is not None and covered.get(id(event.span), False)
        work = None if inside else formulas.work_of(event)
        yield Portion(event.span, event, work or NOTHING, event.end_ns - event.start_ns)


def unknown_names(formulas: Formulas, log: Log) -> set[str]:
    """Return the names of what does work without a formula: of layers, or of operations outside of these.

    A layer in whose call operations ran is taken to have done nothing else: see `Witness` for a closer look.
    """
    events = list(log.all_events())
    busy = {id(record.span) for record in events} | {id(span.parent) for span in log.spans}
    layers = {(id(span.layer), id(span) in busy): span.layer for span in log.spans}
    found = {
        type(layer).__name__
        for (_, is_busy), layer in layers.items()
        if not is_busy and (formulas.is_unknown(layer) or _is_bypassed(formulas, layer))
    }
    for event in events:
        if formulas.work_of(event) is None:
            owned = event.span is not None and not event.backward
            found.add(type(event.span.layer).__name__ if owned and event.span else operation_name(event))
    return found


def _is_bypassed(formulas: Formulas, layer: Any) -> bool:
    """Return whether a layer of layers, in whose call nothing ran, found another way, such as a cache."""
    inside = isinstance(layer, Layer) and next(layer.children(), None) is not None
    return inside and not formulas.has_formula(layer)


def _held_bytes(options: Mapping[str, Any]) -> int:
    """Return the bytes of the arrays in options, such as packed weights."""
    items: list[Any] = []
    for value in options.values():
        items += (
            vars(value).values()
            if isinstance(value, Layer)
            else value
            if isinstance(value, tuple)
            else [value]
        )
    return sum(item.nbytes for item in items if isinstance(item, np.ndarray))


def operation_name(event: Event) -> str:
    """Return the name of an operation; of its derivative, with a word behind it."""
    name = event.rule.__name__.rstrip("_")
    return f"{name} backward" if event.backward else name
