"""Models as they are compared: named, checked, and refused with the reason."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinytorch.benchmarking.copies import relocated
from tinytorch.core.layers import Layer
from tinytorch.core.tensor import Tensor


class RefusedModel(ValueError):  # noqa: N818 - it says what has happened to the model
    """A model that cannot be measured beside the others; the message says which one and why."""


@dataclass(frozen=True, slots=True, eq=False)
class Contender:
    """A model under the name by which it is reported."""

    name: str
    model: Any

    @property
    def call(self) -> Callable[[Any], Any]:
        """What answers inputs."""
        return self.model if callable(self.model) else self.model.forward  # type: ignore[no-any-return]

    def copied(self, rng: np.random.Generator) -> Contender:
        """Return the same model elsewhere in memory; what cannot be copied raises what it raises."""
        return Contender(self.name, relocated(self.model, rng))

    def prepared(self, inputs: Any) -> Any:
        """Return inputs as this model is given them.

        A Layer gets floats as a Tensor, so that it need not convert them while it is timed; anything else
        gets what the data set holds.
        """
        if isinstance(self.model, Layer) and isinstance(inputs, np.ndarray) and inputs.dtype.kind == "f":
            return Tensor(inputs)
        return inputs


def contenders(models: Any) -> list[Contender]:
    """Return the models with their names.

    Args:
        models: a dictionary from names to models, or a list; a model of a list is called by its attribute
            `name` where that is text, and by its number otherwise, "model_0".

    Raises:
        ValueError: there are no models, two have one name, or one cannot be called.
    """
    if isinstance(models, Mapping):
        named = list(models.items())
    elif isinstance(models, list | tuple):
        named = [(_own_name(model, f"model_{index}"), model) for index, model in enumerate(models)]
    else:
        raise ValueError(
            f"`models` must be a list of models or a dictionary from names to models, got "
            f"{type(models).__name__}: for a single model write [model]"
        )
    if not named:
        raise ValueError("`models` must hold at least one model, got none")
    for name, _ in named:
        if not isinstance(name, str) or not name:
            raise ValueError(f"`models` must have names as keys, got {name!r}")
    names = [name for name, _ in named]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"`models` must have names of their own, got {twice!r} {names.count(twice)} times")
    for name, model in named:
        _check_callable(name, model)
    return [Contender(name, model) for name, model in named]


def _own_name(model: Any, otherwise: str) -> str:
    name = getattr(model, "name", None)
    return name if isinstance(name, str) and name else otherwise


def _check_callable(name: str, model: Any) -> None:
    if isinstance(model, type):
        raise ValueError(f"`models` must hold models, got the class {model.__name__} itself for {name!r}")
    if not callable(model) and not callable(getattr(model, "forward", None)):
        raise ValueError(
            "`models` must hold models that can be called or have a method forward(), got "
            f"{type(model).__name__} for {name!r}"
        )
