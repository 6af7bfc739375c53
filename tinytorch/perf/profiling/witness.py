"""Watching a model run once, in order to notice work that no operation of the framework does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np

from tinytorch.core.autograd import Array, Vjps
from tinytorch.core.derivatives import Rule
from tinytorch.core.layers import Layer
from tinytorch.core.tensor import OBSERVER, Tensor
from tinytorch.perf.profiling.reaching import noticed
from tinytorch.perf.profiling.recording import Log, Recorder
from tinytorch.perf.profiling.states import parameters_of, preserved


class Judge(Protocol):
    """Who knows of which layers all work is known; see `FLOPCounter`."""

    def vouches_for(self, layer: Any) -> bool:
        """Return whether all work of a layer is known."""
        ...

    def is_of_others(self, layer: Any) -> bool:
        """Return whether the code of a layer is of others and has no formula."""
        ...


class Witness(Recorder):
    """A recorder that notices where numbers come from which no operation made.

    Every array is kept until the count is done, so that none takes the place of another.

    Attributes:
        unseen: class names of the layers that used or returned such numbers, unless all of their work is
            known; and of those of others that got at the numbers of tensors, whatever they did with them.
    """

    def __init__(self, judge: Judge, log: Log, model: Any, x: Tensor) -> None:
        super().__init__(log)
        self._judge = judge
        self._notices = True
        self.unseen: set[str] = set()
        self._seen: dict[int, Any] = {}
        self._know(x.numpy())
        for array in _arrays_of(model):
            self._know(array)

    def watch(self, model: Any, x: Tensor) -> None:
        """Run the model, in a context of its own: this recorder stays the observer there."""
        OBSERVER.set(self)
        with preserved(model), _constant(model), np.errstate(all="ignore"):
            if isinstance(model, Layer):
                model.eval()
            with noticed(self._doubt_caller) as self._notices:
                result = model(x)
            self.check_result(model, result)

    def operation(self, rule: Rule, arrays: Sequence[Any], options: dict[str, Any]) -> tuple[Array, Vjps]:
        """Run an operation, and look at its inputs."""
        if not all(self._knows(array) for array in arrays):
            self._suspect_caller()
        out, vjps = super().operation(rule, arrays, options)
        self._know(out)
        return out, vjps

    def layer(self, layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a layer, and look at its first input and its result."""
        if args and not self._knows(_array_of(args[0])):
            self._suspect_caller()
        result = super().layer(layer, args, kwargs)
        self.check_result(layer, result)
        if not self._notices:
            self._doubt(layer)
        return result

    def check_result(self, layer: Any, result: Any) -> None:
        """Suspect a layer whose result is of no operation."""
        array = _array_of(result)
        if not self._made(array):
            self._suspect(layer)
        self._know(array)

    def _suspect_caller(self) -> None:
        if self.current is not None:
            self._suspect(self.current.layer)

    def _suspect(self, layer: Any) -> None:
        if not self._judge.vouches_for(layer):
            self.unseen.add(type(layer).__name__)

    def _doubt_caller(self) -> None:
        listening = OBSERVER.get()  # a copy of this one, where the model is profiled inside
        if listening is not None and listening.current is not None:
            self._doubt(listening.current.layer)

    def _doubt(self, layer: Any) -> None:
        if self._judge.is_of_others(layer):
            self.unseen.add(type(layer).__name__)

    def _know(self, array: Any) -> None:
        while isinstance(array, np.ndarray):
            self._seen[id(array)] = array
            array = array.base

    def _knows(self, array: Any) -> bool:
        """Return whether an input was made by an operation; a single number may be a constant."""
        return (isinstance(array, np.ndarray) and array.size == 1) or self._made(array)

    def _made(self, array: Any) -> bool:
        """Return whether an array was made by an operation, or is none worth asking about."""
        if not isinstance(array, np.ndarray) or array.dtype.kind != "f":
            return True
        while isinstance(array, np.ndarray):
            if id(array) in self._seen:
                return True
            array = array.base
        return False


@contextmanager
def _constant(model: Any) -> Iterator[None]:
    """Let the parameters of a model require no gradient in this block, so that no graph is kept."""
    wanted = [(parameter, parameter.requires_grad) for parameter in parameters_of(model)]
    for parameter, _ in wanted:
        parameter.requires_grad = False
    try:
        yield
    finally:
        for parameter, requires_grad in wanted:
            parameter.requires_grad = requires_grad


def _arrays_of(model: Any) -> Iterator[Any]:
    layers = [layer for _, layer in model.named_layers()] if isinstance(model, Layer) else [model]
    for layer in layers:
        for value in getattr(layer, "__dict__", {}).values():
            yield _array_of(value)


def _array_of(value: Any) -> Any:
    return value.numpy() if isinstance(value, Tensor) else value
