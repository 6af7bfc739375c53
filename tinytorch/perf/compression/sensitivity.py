"""How much to prune: sparsity that grows step by step, and what each weight can bear."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from tinytorch.core.checks import positive_int
from tinytorch.core.layers import Layer
from tinytorch.perf.compression.pruning import checked_sparsity, magnitudes_of, smallest, weights_of


@dataclass(frozen=True)
class GradualSchedule:
    """How sparsity grows over the steps of gradual pruning: fast at first, slowly towards the end.

    `s(t) = final + (initial - final) * (1 - t / steps) ** 3` for t = 1 to steps (Zhu and Gupta 2017).

    Args:
        final: the sparsity after the last step.
        steps: how many times to prune.
        initial: the sparsity before the first step.

    Raises:
        ValueError: a sparsity lies outside 0 to 1, `initial` is above `final`, or `steps` is not positive.
    """

    final: float
    steps: int
    initial: float = 0.0

    def __post_init__(self) -> None:
        checked_sparsity(self.final, "final")
        checked_sparsity(self.initial, "initial")
        positive_int(self.steps, "steps")
        if self.initial > self.final:
            raise ValueError(f"`initial` must not be above `final` (={self.final}), got {self.initial}")

    @property
    def sparsities(self) -> tuple[float, ...]:
        """The sparsity of each step."""
        left = [(1 - step / self.steps) ** 3 for step in range(1, self.steps + 1)]
        return tuple(self.final + (self.initial - self.final) * share for share in left)


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """What pruning one layer alone does to a model.

    Attributes:
        weight: the name of the pruned parameter.
        sparsity: the share that was made zero.
        score: what `evaluate` said then.
    """

    weight: str
    sparsity: float
    score: float


def sensitivity_scan(
    model: Layer,
    evaluate: Callable[[Layer], float],
    sparsities: Sequence[float] = (0.5, 0.8, 0.9, 0.95),
) -> list[Sensitivity]:
    """Return how a model scores with one weight pruned at a time; every weight is restored after.

    Args:
        model: what to prune.
        evaluate: returns the score of the model, such as its accuracy on held-out data.
        sparsities: what to try for each weight, 0 to 1.

    Raises:
        ValueError: `model` has no weights, one is NaN, `evaluate` cannot be called, or a sparsity lies
            outside 0 to 1.
    """
    if not callable(evaluate):
        raise ValueError(f"`evaluate` must be a function of the model, got {type(evaluate).__name__}")
    if not isinstance(sparsities, Iterable):
        raise ValueError(f"`sparsities` must be a list of shares from 0 to 1, got {sparsities!r}")
    wanted = [checked_sparsity(s, "sparsities") for s in sparsities]
    found = []
    for name, weight in weights_of(model):
        before, magnitudes = weight.data.copy(), magnitudes_of(name, weight)
        try:
            for sparsity in wanted:
                pruned = smallest(magnitudes, round(magnitudes.size * sparsity)).reshape(weight.shape)
                weight.data[...] = np.where(pruned, 0, before)
                found.append(Sensitivity(name, sparsity, float(evaluate(model))))
        finally:
            weight.data[...] = before
    return found
