"""What is compared: a name, and how to build a callable with fresh data of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Callable_ = Callable[..., Any]
Inputs = Callable[[np.random.Generator], tuple[Any, ...]]


@dataclass(frozen=True)
class Implementation:
    """An implementation that the harness can build anew, as often as it needs instances.

    Args:
        name: shown in reports.
        build: called as `build(rng)`, returns the callable to be timed, with data of its own. Both sides of
            an instance get generators with the same seed, so that they can make the same weights.
        rebuildable: False where `build` returns the same callable each time; `of` sets it.

    Raises:
        ValueError: a name that is no name, or a `build` that cannot be called.
    """

    name: str
    build: Callable[[np.random.Generator], Callable_]
    rebuildable: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise ValueError(f"`name` of an Implementation must be a non-empty string, got {self.name!r}")
        if not callable(self.build):
            raise ValueError(
                f"`build` of Implementation {self.name!r} must be callable as build(rng), got {self.build!r}"
            )

    @classmethod
    def of(cls, name: str, func: Callable_) -> Implementation:
        """Wrap an existing callable: one instance only, and graded as such.

        Raises:
            ValueError: `func` is not callable.
        """
        if not callable(func):
            raise ValueError(f"`func` of Implementation.of({name!r}) must be callable, got {func!r}")
        return cls(name, lambda rng: func, rebuildable=False)

    def instance(self, rng: np.random.Generator) -> Callable_:
        """Build once.

        Raises:
            ValueError: `build` returned something that cannot be called.
        """
        func = self.build(rng)
        if not callable(func):
            raise ValueError(
                f"`build` of Implementation {self.name!r} must return the callable to be timed, got {func!r}"
            )
        return func


def as_implementation(argument: str, value: object, name: str) -> Implementation:
    """Accept an Implementation or a plain callable.

    Raises:
        ValueError: anything else, by the name of the argument.
    """
    if isinstance(value, Implementation):
        return value
    if callable(value):
        return Implementation.of(name, value)
    raise ValueError(f"`{argument}` must be an Implementation or a callable, got {value!r}")
