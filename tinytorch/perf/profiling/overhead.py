"""What recording costs, measured where it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Context
from dataclasses import dataclass
from time import perf_counter_ns
from typing import Any

import numpy as np

from tinytorch.core.activations import GELU, ReLU
from tinytorch.core.autograd import no_grad
from tinytorch.core.layers import Layer, LayerNorm, Linear, Sequential
from tinytorch.core.tensor import OBSERVER, Tensor
from tinytorch.core.transformers import TransformerBlock
from tinytorch.perf.profiling.recording import Log, Recorder

_ROUNDS = 9
_WIDTH = 8


def overhead_us(log: Log) -> float:
    """Return the microseconds that recording took in all; measuring that takes some 30 ms.

    Calls of layers, operations, those of them that are kept for backward(), and derivatives that are computed
    there, each as often as they are in the log. What one costs is measured in a small model of several kinds
    of layers: 0.6 us for the same operation over and over is 1.0 us where it comes in turns with others.
    """
    layers, forward = _added(_empty_layers), _added(_forward)
    of_layer = layers.us / layers.spans
    of_operation = max(forward.us - forward.spans * of_layer, 0) / forward.operations
    computed = sum(bool(fields[1]) for fields in log.events)
    total_us = len(log.spans) * of_layer + (len(log.events) - computed) * of_operation
    if log.kept:
        keeping = _added(_forward_keeping)
        total_us += log.kept * max(keeping.us - forward.us, 0) / keeping.kept
    if computed:
        backward = _added(_backward)
        total_us += computed * backward.us / backward.derivatives
    return total_us


@dataclass(frozen=True, slots=True)
class _Added:
    """What recording added to a run, and what it recorded there."""

    us: float
    spans: int
    operations: int
    kept: int
    derivatives: int


class _Empty(Layer):
    """Does nothing."""

    def forward(self, x: Tensor) -> Tensor:
        return x


def _empty_layers() -> Callable[[], object]:
    model, x = Sequential([_Empty() for _ in range(30)]), Tensor([1.0])
    return lambda: model(x)


def _forward() -> Callable[[], object]:
    run = _forward_keeping()

    def forward() -> None:
        with no_grad():
            run()

    return forward


def _forward_keeping() -> Callable[[], object]:
    model, x = _model()
    return lambda: model(x)


def _backward() -> Callable[[], object]:
    model, x = _model()
    return model(x).sum().backward


def _model() -> tuple[Layer, Tensor]:
    rng = np.random.default_rng(0)
    some: list[Any] = []
    for _ in range(3):
        some += [Linear(_WIDTH, _WIDTH, rng=rng), ReLU(), LayerNorm(_WIDTH), GELU()]
    model = Sequential([*some, TransformerBlock(_WIDTH, 2, rng=rng)]).eval()
    return model, Tensor(np.ones((1, 4, _WIDTH)))


def _added(prepare: Callable[[], Callable[[], object]]) -> _Added:
    """Return what recording adds: the least of several rounds with it, minus the least of those without."""
    plain = recorded = float("inf")
    for _ in range(_ROUNDS):
        plain = min(plain, Context().run(_duration_ns, prepare, None))
        log = Log()
        recorded = min(recorded, Context().run(_duration_ns, prepare, log))
    derivatives = sum(bool(fields[1]) for fields in log.events)
    operations = len(log.events) - derivatives
    return _Added(max(recorded - plain, 0) / 1e3, len(log.spans), operations, log.kept, derivatives)


def _duration_ns(prepare: Callable[[], Callable[[], object]], log: Log | None) -> int:
    if log is not None:
        OBSERVER.set(Recorder(log))
    run = prepare()
    start = perf_counter_ns()
    run()
    return perf_counter_ns() - start
