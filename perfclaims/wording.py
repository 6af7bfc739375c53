"""Numbers as people say them: few digits, units attached, the same everywhere."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

from perfclaims.criteria import (
    AccuracyDrop,
    Criterion,
    OutputsMatch,
    Overhead,
    ScalingExponent,
    SizeRatio,
    Speedup,
    Value,
)

# Beyond this not every whole number is a float.
_MOST_WHOLE = 1e15


def number(value: float | None, digits: int = 3) -> str:
    """Shortest form with `digits` significant digits, or a whole number in full; seldom an exponent."""
    if value is None or math.isnan(value):
        return "?"
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    if value == int(value) and abs(value) < _MOST_WHOLE:
        return str(int(value))
    if 1e-4 <= abs(value) < 1e7:
        whole = len(str(int(abs(value)))) if abs(value) >= 1 else 0
        text = f"{value:.{max(0, digits - whole)}f}" if whole else f"{value:.{digits}g}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    return f"{value:.{digits}g}"


def ratio(value: float) -> str:
    """A speedup or size ratio, with a third decimal where it is close to 1."""
    return number(value, 4 if _near_one(value) else 3)


def _near_one(value: float) -> bool:
    return 0.5 < value < 2


def interval(estimate: float | None, low: float | None, high: float | None, unit: str | None) -> str:
    """`2.31x [2.28, 2.35]`, or the number alone where it is exact; a "fraction" is shown in percent."""
    show: Callable[[float], str]
    if unit == "x":
        # The ends have the digits of the estimate.
        near_one = estimate is not None and _near_one(estimate)
        show, suffix = partial(number, digits=4 if near_one else 3), "x"
    elif unit == "fraction":
        show, suffix = percent, " %"
    else:
        show, suffix = number, f" {unit}" if unit else ""
    head = "?" if estimate is None or math.isnan(estimate) else show(estimate) + suffix
    if low is None and high is None:
        return head
    ends = [("-inf", "inf")[i] if end is None else show(end) for i, end in enumerate((low, high))]
    return f"{head} [{ends[0]}, {ends[1]}]"


def percent(value: float) -> str:
    """A fraction as percent, without the sign; nothing here is known to a millionth."""
    return number(round(100 * value, 4), 3) if math.isfinite(value) else number(value)


def about(count: float) -> str:
    """A large whole number with two digits that count."""
    return str(round(float(f"{count:.2g}")))


def answer(value: float | None) -> str:
    """A yes or a no that is kept as 1 or 0."""
    return "yes" if value == 1 else "no" if value == 0 else number(value)


def thresholds(criterion: Criterion, unit: str | None = None) -> str:
    """What a criterion demands, in a few words: `at least 2.2x`.

    Args:
        unit: of what a Value names, where it is known: the criterion itself does not say.
    """
    match criterion:
        case Speedup():
            mean = " in geometric mean" if criterion.over else ""
            return f"at least {ratio(criterion.at_least)}x{mean}"
        case SizeRatio():
            return f"at least {ratio(criterion.at_least)}x smaller"
        case AccuracyDrop():
            lost = percent(criterion.at_most)
            return f"at most {lost} {'point' if lost == '1' else 'points'} lost"
        case Overhead(at_most=None):
            return f"at most {number(criterion.at_most_us)} us more"
        case Overhead():
            assert criterion.at_most is not None
            return f"at most {percent(criterion.at_most)} % more"
        case ScalingExponent():
            return f"exponent {bounds(criterion.at_least, criterion.at_most)}"
        case Value():
            colon = ":" if isinstance(criterion.equals, bool) else ""
            return f"{criterion.name}{colon} {value_bounds(criterion, unit)}"
        case OutputsMatch():
            return f"outputs match ({criterion.tolerance.describe()})"
    raise TypeError(f"unknown criterion {criterion!r}")


def value_bounds(criterion: Value, unit: str | None = None) -> str:
    """What a Value must be: `at most 1 us`, or `yes` for what is true or false."""
    if isinstance(criterion.equals, bool):
        return answer(criterion.equals)
    demanded = (
        bounds(criterion.at_least, criterion.at_most)
        if criterion.equals is None
        else f"exactly {number(criterion.equals, 6)}"
    )
    return f"{demanded} {unit}" if unit else demanded


def bounds(low: float | None, high: float | None) -> str:
    """`at least 1`, `at most 2`, or `between 1 and 2`."""
    if low is None:
        return f"at most {number(high)}"
    if high is None:
        return f"at least {number(low)}"
    return f"between {number(low)} and {number(high)}"


def duration(seconds: float) -> str:
    """`40 ms`, `3.2 s` or `4 min`."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 100:
        return f"{number(seconds, 2)} s"
    return f"{seconds / 60:.0f} min"
