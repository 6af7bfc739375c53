"""Recording what runs: every operation and every layer goes through here while somebody listens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from threading import get_ident
from time import perf_counter_ns
from typing import Any, NamedTuple

import numpy as np

from tinytorch.core.autograd import Array, Vjps
from tinytorch.core.derivatives import Rule
from tinytorch.core.tensor import OBSERVER
from tinytorch.perf.profiling.formulas import LAYERS, Shape
from tinytorch.perf.profiling.listening import Listener

_ARRAY = np.ndarray
#: the `forward` of layers that have a formula, for which shapes are noted; every look at one takes time
DETAILED: set[Any] = {kind.forward for kind in LAYERS}


class Span:
    """One call of a layer.

    Attributes:
        layer: the layer.
        parent: the call inside of which this one happened.
        thread: in which it ran.
        start_ns, end_ns: when it began and ended; it ends with 0 while it runs.
        inside_ns: how much of that operations and other layers took, with what recording them took.
        noted: of layers in DETAILED the shapes of the first input and of the result, None where these are no
            tensors, and whether the layer was in training mode; None of others.
    """

    # No __init__: what is usual costs nothing as an attribute of the class.
    layer: Any
    parent: Span | None
    thread: int
    start_ns: int
    end_ns = 0
    inside_ns = 0
    noted: tuple[Shape | None, Shape | None, bool] | None = None

    @property
    def given(self) -> Shape | None:
        """The shape of the first input, where it was noted."""
        return self.noted and self.noted[0]

    @property
    def made(self) -> Shape | None:
        """The shape of the result, where it was noted."""
        return self.noted and self.noted[1]

    @property
    def training(self) -> bool:
        """Whether the layer was in training mode, where it was noted."""
        return bool(self.noted and self.noted[2])

    @property
    def own_ns(self) -> int:
        """How much time neither operations nor other layers took."""
        return max((self.end_ns or perf_counter_ns()) - self.start_ns - self.inside_ns, 0)


class Event(NamedTuple):
    """One operation, or its derivative with respect to one input or all of them.

    Attributes:
        rule: the function that computed it.
        backward: whether it was the derivative; then `shapes` and `out` are those of the operation.
        start_ns, end_ns: when it began and ended.
        span: the layer that called it.
        shapes: of the inputs, None for what is no array.
        out: the shape of the result.
        options: passed on to the rule.
        n_bytes: of the arrays that were read and written; none where the result is a view of the input.
        thread: in which it ran.
        of_input: which input a derivative is of; None where it is of all of them at once.
    """

    rule: Rule
    backward: bool
    start_ns: int
    end_ns: int
    span: Span | None
    shapes: Sequence[Shape | None]
    out: Shape
    options: dict[str, Any]
    n_bytes: int
    thread: int
    of_input: int | None = None


class Log:
    """What one block has heard.

    Attributes:
        events: the fields of Events as plain tuples, quicker to make.
        spans: calls of layers, those outside before those inside.
        kept: how many operations left derivatives for backward().
    """

    __slots__ = ("events", "kept", "spans")

    def __init__(self) -> None:
        self.kept = 0
        self.events: list[tuple[Any, ...]] = []
        self.spans: list[Span] = []

    def all_events(self) -> Iterator[Event]:
        """Yield the operations in the order in which they ended."""
        return (Event(*fields) for fields in self.events)


class Recorder(Listener):
    """Runs operations and layers, and writes down in all of its logs what they took.

    Attributes:
        latest: the operation that ran last.
    """

    latest: tuple[Any, ...] = ()

    def operation(self, rule: Rule, arrays: Sequence[Any], options: dict[str, Any]) -> tuple[Array, Vjps]:
        """Run an operation."""
        if get_ident() != self.thread:
            return rule(*arrays, **options)
        start = perf_counter_ns()
        out, vjps = rule(*arrays, **options)
        end = perf_counter_ns()
        shapes: list[Shape | None] = []
        n_bytes = out.nbytes
        for array in arrays:
            if type(array) is _ARRAY:
                shapes.append(array.shape)
                n_bytes += array.nbytes
            else:
                shapes.append(None)
        base = out.base
        if base is not None and (base is arrays[0] or base is getattr(arrays[0], "base", None)):
            n_bytes = 0  # a view
        span = self.current
        event = (rule, False, start, end, span, shapes, out.shape, options, n_bytes, self.thread, None)
        for log in self.logs:
            log.events.append(event)
        self.latest = event
        if span is not None:
            span.inside_ns += perf_counter_ns() - start
        return out, vjps

    def layer(self, layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a layer."""
        if get_ident() != self.thread:
            return layer.forward(*args, **kwargs)
        span = Span()
        span.layer = layer
        span.thread = self.thread
        parent = span.parent = self.current
        for log in self.logs:
            log.spans.append(span)
        self.current = span
        span.start_ns = perf_counter_ns()
        try:
            result = layer.forward(*args, **kwargs)
            if type(layer).forward in DETAILED:
                span.noted = (_shape_of(*args[:1]), _shape_of(result), layer.training)
            return result
        finally:
            span.end_ns = end_ns = perf_counter_ns()
            self.current = parent
            if parent is not None:
                parent.inside_ns += end_ns - span.start_ns

    def differentiating(self) -> Callable[[Any, int | None, Array], Any] | None:
        """Return what the engine computes derivatives of the operation that just ran with."""
        if get_ident() != self.thread:
            return None
        for log in self.logs:
            log.kept += 1
        return partial(_differentiate, self.latest)


def _differentiate(
    event: tuple[Any, ...], vjp: Callable[[Array], Any], index: int | None, gradient: Array
) -> Any:
    """Compute a derivative, which whoever listens when the engine asks for it records."""
    listening = OBSERVER.get()
    if listening is None or listening.thread != get_ident():
        return vjp(gradient)
    start = perf_counter_ns()
    found = vjp(gradient)
    end = perf_counter_ns()
    results = found if isinstance(found, tuple) else (found,)
    n_bytes = sum(item.nbytes for item in (gradient, *results) if item is not None)
    rule, _, _, _, span, shapes, out, options, *_ = event
    record = (rule, True, start, end, span, shapes, out, options, n_bytes, listening.thread, index)
    for log in listening.logs:
        log.events.append(record)
    return found


def _shape_of(value: Any = None) -> Shape | None:
    return getattr(value, "shape", None)
