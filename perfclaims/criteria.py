"""The criteria a claim can be judged by, each with thresholds fixed before anything is measured.

Every criterion takes `label` (the piece of evidence it speaks of; None: all evidence of its kind) and
`gate` (True: the claim fails when it is refuted; None: what is usual for its kind).
"""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass
from typing import Any, ClassVar, TypeGuard

import numpy as np

from perfclaims.outputs import Tolerance


def is_number(value: object) -> TypeGuard[float]:
    """Whether `value` is a finite real number of Python or NumPy; booleans are not numbers here."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, numbers.Real):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond every float
        return False


def positive(name: str, value: object, owner: str) -> float:
    """Return `value` when it is a positive finite number, else raise a ValueError that names it."""
    if not is_number(value) or value <= 0:
        raise ValueError(f"`{name}` of {owner} must be a positive number, got {value!r}")
    return float(value)


def plain(value: Any) -> Any:
    """A NumPy scalar or a fraction as a number that JSON knows; other values as they are."""
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, numbers.Integral):
        return int(value)
    return float(value) if isinstance(value, numbers.Real) else value


@dataclass(frozen=True, kw_only=True)
class Criterion:
    """What all criteria share."""

    label: str | None = None
    gate: bool | None = None

    always_gate: ClassVar[bool] = False
    evidence_kind: ClassVar[str]
    threshold_names: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        if self.label is not None and (not isinstance(self.label, str) or not self.label):
            raise ValueError(f"`label` of {self.kind} must be a non-empty string or None, got {self.label!r}")
        if self.gate is not None and not isinstance(self.gate, bool):
            raise ValueError(f"`gate` of {self.kind} must be True, False or None, got {self.gate!r}")
        if self.always_gate and self.gate is False:
            raise ValueError(f"{self.kind} is always a gate, got gate=False; leave `gate` out")
        self.check()
        for name in self.threshold_names:
            object.__setattr__(self, name, plain(getattr(self, name)))

    @property
    def kind(self) -> str:
        """Name of the criterion's class, as the run file has it."""
        return type(self).__name__

    @property
    def is_gate(self) -> bool:
        """Whether a refutation fails the whole claim."""
        return self.always_gate or self.gate is True

    @property
    def thresholds(self) -> dict[str, Any]:
        """Everything the criterion was declared with, for reports and for judging again."""
        return {name: getattr(self, name) for name in self.threshold_names}

    def check(self) -> None:
        """Raise a ValueError for thresholds that make no sense."""

    def _at_least_one_bound(self, *names: str) -> None:
        if all(getattr(self, name) is None for name in names):
            raise ValueError(
                f"{self.kind} needs a threshold: give {' or '.join(f'`{name}`' for name in names)}"
            )


@dataclass(frozen=True)
class OutputsMatch(Criterion):
    """Outputs agree by shape, dtype kind and value.

    Args:
        rtol, atol: elementwise, |actual - expected| <= atol + rtol * |expected|.
        relative_l2: instead, norm of the difference over norm of the expected, for each array.
    """

    rtol: float = 1e-5
    atol: float = 1e-6
    relative_l2: float | None = None

    always_gate: ClassVar[bool] = True
    evidence_kind: ClassVar[str] = "outputs"
    threshold_names: ClassVar[tuple[str, ...]] = ("rtol", "atol", "relative_l2")

    def check(self) -> None:
        """Tolerances are numbers of zero or more; `relative_l2` is positive."""
        for name in ("rtol", "atol"):
            value = getattr(self, name)
            if not is_number(value) or value < 0:
                raise ValueError(f"`{name}` of OutputsMatch must be a number of zero or more, got {value!r}")
        if self.relative_l2 is not None:
            positive("relative_l2", self.relative_l2, self.kind)

    @property
    def tolerance(self) -> Tolerance:
        """The tolerance in the form that the comparison of outputs takes."""
        return Tolerance(self.rtol, self.atol, self.relative_l2)


@dataclass(frozen=True)
class Speedup(Criterion):
    """Baseline time over optimised time is at least `at_least`.

    Args:
        at_least: claimed ratio; 3 means a third of the time.
        worthwhile: a whole interval above this is a benefit even when the claim is missed.
        over: None: each piece of evidence must hold; "geometric_mean": the mean of all of them.
    """

    at_least: float
    worthwhile: float = 1.10
    over: str | None = None

    evidence_kind: ClassVar[str] = "timing"
    threshold_names: ClassVar[tuple[str, ...]] = ("at_least", "worthwhile", "over")

    def check(self) -> None:
        """Thresholds are positive numbers, and `over` is one of two words."""
        positive("at_least", self.at_least, self.kind)
        positive("worthwhile", self.worthwhile, self.kind)
        if self.over not in (None, "geometric_mean"):
            raise ValueError(f"`over` of Speedup must be None or 'geometric_mean', got {self.over!r}")


@dataclass(frozen=True)
class SizeRatio(Criterion):
    """Baseline bytes over optimised bytes is at least `at_least`; exact, without an interval."""

    at_least: float
    worthwhile: float = 1.10

    evidence_kind: ClassVar[str] = "sizes"
    threshold_names: ClassVar[tuple[str, ...]] = ("at_least", "worthwhile")

    def check(self) -> None:
        """Thresholds are positive numbers."""
        positive("at_least", self.at_least, self.kind)
        positive("worthwhile", self.worthwhile, self.kind)


@dataclass(frozen=True)
class AccuracyDrop(Criterion):
    """The accuracy falls by at most `at_most`, a fraction; judged by the exact paired bound at 95 %."""

    at_most: float = 0.005

    always_gate: ClassVar[bool] = True
    evidence_kind: ClassVar[str] = "outcomes"
    threshold_names: ClassVar[tuple[str, ...]] = ("at_most",)

    def check(self) -> None:
        """The bound is a fraction: positive and below 1."""
        if positive("at_most", self.at_most, self.kind) >= 1:
            raise ValueError(
                "`at_most` of AccuracyDrop must be a fraction below 1 (0.5 points are 0.005), "
                f"got {self.at_most!r}"
            )


@dataclass(frozen=True)
class ScalingExponent(Criterion):
    """Time grows as size to an exponent within the bounds (2 means quadratic)."""

    at_least: float | None = None
    at_most: float | None = None

    evidence_kind: ClassVar[str] = "scaling"
    threshold_names: ClassVar[tuple[str, ...]] = ("at_least", "at_most")

    def check(self) -> None:
        """One bound or two, positive, in order."""
        self._at_least_one_bound("at_least", "at_most")
        bounds = [
            positive(n, getattr(self, n), self.kind)
            for n in self.threshold_names
            if getattr(self, n) is not None
        ]
        if len(bounds) == 2 and bounds[0] > bounds[1]:
            raise ValueError(
                f"`at_least` of ScalingExponent must not exceed `at_most`, got {bounds[0]} and {bounds[1]}"
            )


@dataclass(frozen=True)
class Overhead(Criterion):
    """The optimised side costs at most this much more than the baseline.

    Args:
        at_most: added time as a fraction of the baseline's (0.05 is 5 %).
        at_most_us: instead, added microseconds per call.
    """

    at_most: float | None = None
    at_most_us: float | None = None

    evidence_kind: ClassVar[str] = "timing"
    threshold_names: ClassVar[tuple[str, ...]] = ("at_most", "at_most_us")

    def check(self) -> None:
        """Exactly one of the two bounds, positive."""
        self._at_least_one_bound("at_most", "at_most_us")
        if self.at_most is not None and self.at_most_us is not None:
            raise ValueError("Overhead takes `at_most` or `at_most_us`, got both; declare two criteria")
        for name in self.threshold_names:
            if getattr(self, name) is not None:
                positive(name, getattr(self, name), self.kind)


@dataclass(frozen=True)
class Value(Criterion):
    """A named number lies within bounds, or equals one exactly (then it is a gate)."""

    name: str
    at_least: float | None = None
    at_most: float | None = None
    equals: float | None = None

    evidence_kind: ClassVar[str] = "value"
    threshold_names: ClassVar[tuple[str, ...]] = ("name", "at_least", "at_most", "equals")

    @property
    def is_gate(self) -> bool:
        """An equality is a gate; bounds are where `gate=True` says so."""
        return self.gate is True or self.equals is not None

    def check(self) -> None:
        """A name and at least one finite bound; `equals` stands alone."""
        if not isinstance(self.name, str) or not self.name:
            raise ValueError(f"`name` of Value must be a non-empty string, got {self.name!r}")
        self._at_least_one_bound("at_least", "at_most", "equals")
        for bound in ("at_least", "at_most", "equals"):
            value = getattr(self, bound)
            flag = bound == "equals" and isinstance(value, bool | np.bool_)
            if value is not None and not flag and not is_number(value):
                raise ValueError(f"`{bound}` of Value({self.name!r}) must be a finite number, got {value!r}")
        if self.equals is not None and (self.at_least is not None or self.at_most is not None):
            raise ValueError(f"Value({self.name!r}) takes `equals` or bounds, got both; declare two criteria")
        if self.equals is not None and self.gate is False:
            raise ValueError(
                f"Value({self.name!r}, equals=...) is always a gate, got gate=False; leave `gate` out"
            )
        if self.at_least is not None and self.at_most is not None and self.at_least > self.at_most:
            raise ValueError(
                f"`at_least` of Value({self.name!r}) must not exceed `at_most`, "
                f"got {self.at_least} and {self.at_most}"
            )


KINDS: dict[str, type[Criterion]] = {
    cls.__name__: cls
    for cls in (OutputsMatch, Speedup, SizeRatio, AccuracyDrop, ScalingExponent, Overhead, Value)
}
