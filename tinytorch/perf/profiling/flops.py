"""Counting the FLOPs of a model: it runs once, and every operation is looked up in the table of formulas."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from contextvars import Context
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinytorch.core.layers import Layer, Sequential
from tinytorch.perf.profiling.formulas import (
    ELSEWHERE,
    LAYERS,
    NOTHING,
    OPERATIONS,
    LayerFormula,
    OperationFormula,
    Work,
)
from tinytorch.perf.profiling.portions import portions, unknown_names
from tinytorch.perf.profiling.recording import DETAILED, Event, Log, Span
from tinytorch.perf.profiling.states import check_model, checked_shape, taking, zeros
from tinytorch.perf.profiling.witness import Witness


@dataclass(frozen=True, slots=True)
class FLOPCount:
    """What a model takes for one sample.

    Attributes:
        flops: floating-point operations; a multiply-add counts 2 (see `formulas`).
        macs: multiply-adds of products and convolutions.
        uncounted: class names of what does work that no formula covers, sorted; operations of the framework
            inside of it are counted all the same.
        by_layer: FLOPs of each layer's own operations by its dotted name, those of layers inside it left to
            these; the model itself is called by its class. They add up to `flops`.
    """

    flops: int
    macs: int
    uncounted: tuple[str, ...]
    by_layer: dict[str, int]


class FLOPCounter:
    """Counts FLOPs by a table of formulas, to which more can be added."""

    def __init__(self) -> None:
        self._operations = dict(OPERATIONS)
        self._layers = dict(LAYERS)

    def register(self, what: Any, formula: Callable[..., Any]) -> None:
        """Add the formula of a layer, or of an operation.

        Args:
            what: a subclass of Layer, or the rule of an operation (see `tinytorch.core.derivatives`).
            formula: for a layer `formula(layer, input_shape, output_shape)`, which stands for everything
                inside it; for an operation `formula(input_shapes, output_shape, options)`. Shapes have the
                batch axis. It returns FLOPs, or `Work(flops, macs)`.

        Raises:
            ValueError: `what` is neither, has a formula already, or `formula` cannot be called.
        """
        if not callable(formula):
            raise ValueError(f"`formula` must be a function, got {formula!r}")
        of_layer = isinstance(what, type) and issubclass(what, Layer)
        if not of_layer and (not callable(what) or isinstance(what, type | Layer)):
            raise ValueError(f"`what` must be a subclass of Layer or the rule of an operation, got {what!r}")
        if what in self._layers or self._formula_of(what) is not None:
            raise ValueError(f"{what.__name__} has a formula already: register another class or rule")
        if of_layer:
            DETAILED.add(what.forward)
            self._layers[what] = lambda call: _as_work(
                formula(call.layer, call.given or (), call.made or ()), what.__name__
            )
        else:
            self._operations[what] = lambda *args: _as_work(formula(*args), what.__name__)

    def count(self, model: Any, input_shape: Sequence[int]) -> FLOPCount:
        """Count what a model takes for one sample, in evaluation mode; the model stays as it is.

        It is run once, on zeros.

        Args:
            model: a Layer, or anything else to call.
            input_shape: of the input, the batch axis first, whose length does not matter.

        Raises:
            ValueError: `model` cannot be called, `input_shape` is no tuple of positive whole numbers,
                or not one that the model takes.
        """
        check_model(model)
        x = zeros((1, *checked_shape(input_shape)[1:]))
        log = Log()
        witness = Witness(self, log, model, x)
        # Outside of any no_grad() block: where gradients are recorded, models do not answer from a cache.
        with taking(input_shape):
            Context().run(witness.watch, model, x)
        return self._summed(model, log, witness.unseen)

    def work_of(self, event: Event) -> Work | None:
        """Return what an operation takes, None where there is no formula."""
        formula = self._formula_of(event.rule)
        if formula is None:
            return None
        work = formula(event.shapes, event.out, event.options)
        return _of_derivative(work, event) if event.backward else work

    def work_of_call(self, span: Span) -> Work | None:
        """Return what a layer takes with everything inside it, None where its operations say that."""
        formula = self.formula_of(type(span.layer))
        if formula is None:
            return None
        return NOTHING if span.noted is None else formula(span)  # what raised has no result to count by

    def formula_of(self, kind: Any) -> LayerFormula | None:
        """Return the formula of a class of layers, or that of a class whose `forward` it has."""
        for base in kind.__mro__:
            formula = self._layers.get(base)
            if formula is not None and kind.forward is base.forward:
                return formula
        return None

    def vouches_for(self, layer: Any) -> bool:
        """Return whether all work of a layer is known: it has a formula, or is of `tinytorch.core`."""
        return _is_of("tinytorch.core.", layer) or self.has_formula(layer)

    def has_formula(self, layer: Any) -> bool:
        """Return whether a formula stands for everything inside a layer."""
        return self.formula_of(type(layer)) is not None

    def is_unknown(self, layer: Any) -> bool:
        """Return whether nothing but the operations in a layer tells of its work.

        Such are layers of others without a formula that have no layers inside. They are listed where no
        operation runs in a call.
        """
        inside = isinstance(layer, Layer) and next(layer.children(), None) is not None
        return not inside and self.is_of_others(layer)

    def is_of_others(self, layer: Any) -> bool:
        """Return whether the code of a layer is of others and has no formula, so that it may do anything.

        `count` lists such layers where they get at the numbers of tensors, also those with layers inside.
        """
        return not _is_of("tinytorch.", layer) and not self.vouches_for(layer)

    def _formula_of(self, rule: Any) -> OperationFormula | None:
        return self._operations.get(rule) or ELSEWHERE.get(
            f"{getattr(rule, '__module__', None)}.{getattr(rule, '__name__', None)}"
        )

    def _summed(self, model: Any, log: Log, unseen: set[str]) -> FLOPCount:
        names = {id(layer): name for name, layer in model.named_layers()} if isinstance(model, Layer) else {}
        total, by_layer = NOTHING, defaultdict[str, int](int)
        for portion in portions(self, log):
            layer = model if portion.span is None else portion.span.layer
            by_layer[names.get(id(layer)) or name_of(layer)] += portion.work.flops
            total += portion.work
        uncounted = unseen | unknown_names(self, log) | _plain_callables(model)
        return FLOPCount(total.flops, total.macs, tuple(sorted(uncounted)), dict(by_layer))


def count_flops(model: Any, input_shape: Sequence[int]) -> FLOPCount:
    """Count what a model takes for one sample; see `FLOPCounter.count`."""
    return FLOPCounter().count(model, input_shape)


def name_of(model: Any) -> str:
    """Return the name of a function, or of the class of anything else."""
    return getattr(model, "__name__", type(model).__name__)


def _plain_callables(model: Any) -> set[str]:
    """Return the names of what stands in a Sequential without being a layer."""
    if not isinstance(model, Layer):
        return {name_of(model)}
    inside = [item for _, layer in model.named_layers() if isinstance(layer, Sequential) for item in layer]
    return {name_of(item) for item in inside if not isinstance(item, Layer)}


def _is_of(package: str, layer: Any) -> bool:
    """Return whether the `forward` of a layer was written in a package."""
    return getattr(getattr(type(layer), "forward", None), "__module__", "").startswith(package)


def _of_derivative(work: Work, event: Event) -> Work | None:
    """Return the work of the derivative of a product: as much for either side, additions for a bias."""
    if work.macs == 0 or event.of_input is None:
        return None if work.flops else NOTHING
    if event.of_input < 2:
        return work
    return Work(int(np.prod(event.out)))


def _as_work(found: Any, name: str) -> Work:
    if isinstance(found, Work):
        return found
    if isinstance(found, bool) or not isinstance(found, int | np.integer) or found < 0:
        raise ValueError(
            f"the formula of {name} must return a whole number of FLOPs or Work(flops, macs), got {found!r}"
        )
    return Work(int(found))
