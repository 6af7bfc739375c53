"""How far two arrays are apart, and whether a tolerance accepts that."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Tolerance:
    """What still counts as the same output: `rtol` and `atol` per element, or `relative_l2` per array.

    Per element the rule is NumPy's, |actual - expected| <= atol + rtol * |expected|. Integers are compared
    exactly under it, because class labels and counts have no tolerance. With `relative_l2`, `rtol` and
    `atol` are not used: norm(actual - expected) / norm(expected) must not exceed it, for integers too, and an
    expected norm of 0 asks for equality. Booleans, strings and dates are compared exactly in any case.

    Raises:
        ValueError: one of them is negative, infinite or NaN.
    """

    rtol: float = 1e-5
    atol: float = 1e-6
    relative_l2: float | None = None

    def __post_init__(self) -> None:
        for name in ("rtol", "atol", "relative_l2"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise ValueError(f"`{name}` must be at least 0 and finite, got {value}")

    def accepts(self, expected: Array, actual: Array) -> bool:
        """Tell whether two arrays of one shape and kind are the same within this tolerance."""
        return difference(expected, actual, self).accepted

    def describe(self) -> str:
        """Return the tolerance in words, as it stands in messages."""
        if self.relative_l2 is not None:
            return f"relative L2 error at most {self.relative_l2:g}"
        return f"rtol {self.rtol:g}, atol {self.atol:g}"


@dataclass(frozen=True, slots=True)
class ArrayDifference:
    """The difference of two arrays under a tolerance.

    `differing` counts the elements that break the rule; under `relative_l2`, where no single element does,
    those that are not equal when the array is refused. `index` is the worst of them and `cause` says what is
    wrong there. `largest` is their largest |actual - expected|, or that of all elements of an accepted array;
    None when it is not a finite number. `relative_l2` is None without numbers and infinite where the norm of
    expected is 0 or a difference leaves the range of float64.
    """

    accepted: bool
    differing: int = 0
    index: tuple[int, ...] | None = None
    cause: str = ""
    largest: float | None = None
    relative_l2: float | None = None


def difference(expected: Array, actual: Array, tolerance: Tolerance) -> ArrayDifference:
    """Compare two arrays of equal shape and kind.

    NaN equals NaN only and an infinity only itself; elements equal in this way stay out of the norm.

    Raises:
        ValueError: the shapes differ.
    """
    if expected.shape != actual.shape:
        raise ValueError(f"`actual` must have the shape {expected.shape} of `expected`, got {actual.shape}")
    same = _same(expected, actual)
    numbers = expected.dtype.kind in "iufc"
    if same.all():
        zero = 0.0 if numbers and same.size else None
        return ArrayDifference(True, largest=zero, relative_l2=zero)
    if numbers:
        return _numbers_apart(expected, actual, ~same, tolerance)
    return ArrayDifference(False, int((~same).sum()), _first(~same))


def _same(expected: Array, actual: Array) -> Mask:
    kind = expected.dtype.kind
    if kind == "c":
        return _same(expected.real, actual.real) & _same(expected.imag, actual.imag)
    same = np.asarray(expected == actual)
    if kind == "f":
        same |= np.isnan(expected) & np.isnan(actual)
    elif kind in "mM":
        same |= np.isnat(expected) & np.isnat(actual)
    return same


def _numbers_apart(expected: Array, actual: Array, unequal: Mask, tolerance: Tolerance) -> ArrayDifference:
    integers = expected.dtype.kind in "iu"
    # 64-bit integers need the 64 bits that the mantissa of a long double has on most systems.
    wide = np.dtype(np.longdouble) if integers else np.result_type(expected, actual, np.float64)
    reference, answer = expected.astype(wide), actual.astype(wide)
    finite = np.isfinite(reference) & np.isfinite(answer)
    with np.errstate(all="ignore"):
        gap, magnitude = np.abs(answer - reference), np.abs(reference)
        allowed = tolerance.atol + tolerance.rtol * magnitude
    if not finite.all():  # only then, because the selection is slow
        relative_l2 = _norm_ratio(gap[finite], magnitude[finite])
    else:
        relative_l2 = _norm_ratio(gap, magnitude)
    if tolerance.relative_l2 is not None:
        # At 0 nothing unequal passes, even where the difference vanished in rounding.
        within = finite.all(where=unequal) and 0 < tolerance.relative_l2 >= relative_l2
        bad = np.zeros_like(unequal) if within else unequal
    elif integers:
        bad = unequal
    else:
        # A difference beyond float64 must not pass because the allowance overflowed as well.
        bad = unequal & ~(finite & (gap <= allowed) & np.isfinite(gap))
    if not bad.any():
        largest = _finite(gap.max(where=finite, initial=0))
        return ArrayDifference(True, largest=largest, relative_l2=relative_l2)
    index, cause, largest = _worst(expected, actual, gap, bad, finite)
    return ArrayDifference(False, int(bad.sum()), index, cause, largest, relative_l2)


def _norm_ratio(gap: Array, magnitude: Array) -> float:
    """Norm of `gap` over norm of `magnitude`, scaled so that no square overflows or vanishes."""
    top, bottom = gap.max(initial=0), magnitude.max(initial=0)
    if top == 0:
        return 0.0
    if bottom == 0 or not np.isfinite(top):
        return math.inf
    with np.errstate(all="ignore"):
        return float(top / bottom * np.sqrt(_squares(gap / top) / _squares(magnitude / bottom)))


def _squares(values: Array) -> Any:
    return np.vdot(values, values)


def _worst(
    expected: Array, actual: Array, gap: Array, bad: Mask, finite: Mask
) -> tuple[tuple[int, ...], str, float | None]:
    stray = bad & ~finite
    if stray.any():
        index = _first(stray)
        if np.isnan(expected[index]) or np.isnan(actual[index]):
            return index, "NaN in one place only", None
        return index, "infinities differ", None
    index = tuple(int(i) for i in np.unravel_index(np.argmax(np.where(bad, gap, -1)), gap.shape))
    if expected.dtype.kind in "iu":
        largest: float | None = float(abs(int(actual[index]) - int(expected[index])))
    else:
        largest = _finite(gap[index])
    size = "more than float64 can hold" if largest is None else f"{largest:.6g}"
    return index, f"the largest by {size}", largest


def _first(mask: Mask) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(int(np.argmax(mask)), mask.shape))


def _finite(value: Any) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None
