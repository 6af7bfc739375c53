"""Intervals for what benchmarks measure: means, medians, shares and paired differences.

All are pure functions of arrays. Where an interval cannot be had from so few values its ends are infinite,
which is the safe side: nothing is then shown.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

# Beyond this, ranks add little to the signs alone, and their distribution and averages grow as squares.
_MOST_RANKS = 400


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and where the truth lies, in the units of what was measured.

    Attributes:
        low, high: infinite on a side that is not known; equal to `estimate` where it is exact.
        confidence: with which the truth lies between them.
    """

    estimate: float
    low: float
    high: float
    confidence: float = 0.95

    @classmethod
    def exact(cls, value: float) -> Interval:
        """Return the interval of something counted rather than measured."""
        return cls(value, value, value, 1.0)

    @property
    def known(self) -> bool:
        """Whether both ends are finite."""
        return math.isfinite(self.low) and math.isfinite(self.high)

    def excludes(self, value: float) -> bool:
        """Whether `value` lies outside."""
        return not self.low <= value <= self.high

    def exponential(self) -> Interval:
        """Return the interval of e to the power of this quantity."""
        return Interval(
            math.exp(self.estimate),
            math.exp(self.low),
            math.inf if self.high == math.inf else math.exp(self.high),
            self.confidence,
        )

    def widened(self, by: float) -> Interval:
        """Return the interval with both ends moved outwards."""
        return Interval(self.estimate, self.low - by, self.high + by, self.confidence)


def finite_values(values: Any, name: str) -> Floats:
    """Return `values` as a vector of floats.

    Raises:
        ValueError: there are none, one is NaN or infinite, or they are no numbers.
    """
    try:
        array = np.asarray(values)
    except ValueError:
        raise ValueError(f"`{name}` must be numbers in a row, got rows of different lengths") from None
    if array.ndim != 1 or array.size == 0:
        raise ValueError(
            f"`{name}` must hold at least one number in a row, got "
            + ("none" if array.size == 0 else f"shape {array.shape}")
        )
    if array.dtype.kind not in "iuf":
        raise ValueError(f"`{name}` must hold numbers, got {array.dtype} data")
    wrong = int(np.count_nonzero(~np.isfinite(array)))
    if wrong:
        raise ValueError(
            f"`{name}` must be finite numbers, got {wrong} NaN or infinite among {array.size}: leave out no "
            "run, find out why it has no value"
        )
    return array.astype(np.float64)


def checked_confidence(confidence: Any) -> float:
    """Return a confidence, or raise ValueError where it is not between 0 and 1."""
    if isinstance(confidence, bool) or not isinstance(confidence, int | float) or not 0 < confidence < 1:
        raise ValueError(f"`confidence` must lie between 0 and 1, both excluded, got {confidence!r}")
    return float(confidence)


def mean_interval(values: ArrayLike, confidence: float = 0.95) -> Interval:
    """Give the interval of the mean by Student's t with n - 1 degrees of freedom.

    Ten values have a quantile of 2.26 at 95 %, not the 1.96 of infinitely many. One value has no interval.

    Source: Student, Biometrika 6 (1908) 1.
    """
    array = finite_values(values, "values")
    mean = float(array.mean())
    if array.size == 1:
        return Interval(mean, -math.inf, math.inf, checked_confidence(confidence))
    from scipy.special import stdtrit

    quantile = float(stdtrit(array.size - 1, (1 + checked_confidence(confidence)) / 2))
    half = quantile * float(array.std(ddof=1)) / math.sqrt(array.size)
    return Interval(mean, mean - half, mean + half, confidence)


def median_interval(values: ArrayLike, confidence: float = 0.95) -> Interval:
    """Give the interval of the median between two order statistics, whatever the distribution.

    The interval from the k-th smallest to the k-th largest misses when fewer than k values lie on one side
    of the median: 2 P(Binomial(n, 1/2) < k).

    Source: Conover, Practical Nonparametric Statistics, 3rd ed., section 3.2.
    """
    ordered = np.sort(finite_values(values, "values"))
    n = ordered.size
    from scipy.special import bdtr

    missed = 2 * bdtr(np.arange(n // 2), n, 0.5)
    depth = int(np.searchsorted(missed, _allowed(confidence), side="right"))
    return _between(ordered, depth, confidence)


def location_interval(values: ArrayLike, confidence: float = 0.95) -> Interval:
    """Give the interval of the centre of a symmetric distribution from signed ranks.

    The ends are two of the averages of all pairs of values, the estimate is their median (Hodges-Lehmann).
    Fewer than six values have no interval at 95 %. More than four hundred get that of the median.

    Source: Hollander, Wolfe and Chicken, Nonparametric Statistical Methods, 3rd ed., section 3.3.
    """
    array = finite_values(values, "values")
    n = array.size
    if n > _MOST_RANKS:
        return median_interval(array, confidence)
    averages = np.sort(np.add.outer(array, array)[np.triu_indices(n)] / 2)
    share = np.ones(1)  # of the sign patterns whose positive ranks add up to 0, 1, 2, ...
    for rank in range(1, n + 1):
        share = (np.pad(share, (0, rank)) + np.pad(share, (rank, 0))) / 2
    missed = 2 * np.cumsum(share[: (share.size + 1) // 2])
    depth = int(np.searchsorted(missed, _allowed(confidence), side="right"))
    return _between(averages, depth, confidence)


def share_interval(successes: int, trials: int, confidence: float = 0.95) -> Interval:
    """Give the exact interval of a probability from so many successes.

    Raises:
        ValueError: no trials, or more successes than trials.

    Source: Clopper and Pearson, Biometrika 26 (1934) 404.
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise ValueError(f"`successes` must lie in 0 to `trials`, at least 1, got {successes} of {trials}")
    tail = (1 - checked_confidence(confidence)) / 2
    low, high = _share_limits(successes, trials, tail)
    return Interval(successes / trials, low, high, confidence)


def paired_change(before: NDArray[np.bool_], after: NDArray[np.bool_], confidence: float = 0.95) -> Interval:
    """Give the interval of the change of accuracy on examples that both models answered.

    The change is the share of examples gained less the share lost. Each share has an exact upper and lower
    bound at a quarter of the error, so both ends hold together at `confidence`, at any number of examples;
    the examples on which both agree cost nothing but their number.

    Args:
        before: shape (n,), which examples the baseline answers right.
        after: shape (n,), the same of the other model.
        confidence: of the interval.

    Raises:
        ValueError: the shapes differ, or there are no examples.
    """
    if before.shape != after.shape or before.ndim != 1 or before.size == 0:
        raise ValueError(
            "`before` and `after` must say of the same examples, at least one, whether each is right, got "
            f"shapes {before.shape} and {after.shape}"
        )
    n, tail = before.size, (1 - checked_confidence(confidence)) / 4
    gained = int(np.count_nonzero(after & ~before))
    lost = int(np.count_nonzero(before & ~after))
    least_gain, most_gain = _share_limits(gained, n, tail)
    least_loss, most_loss = _share_limits(lost, n, tail)
    return Interval((gained - lost) / n, least_gain - most_loss, most_gain - least_loss, confidence)


def _share_limits(successes: int, trials: int, tail: float) -> tuple[float, float]:
    from scipy.special import betaincinv

    failures = trials - successes
    low = float(betaincinv(successes, failures + 1, tail)) if successes else 0.0
    high = float(betaincinv(successes + 1, failures, 1 - tail)) if failures else 1.0
    return low, high


def _allowed(confidence: float) -> float:
    """Return the error that is allowed, with room for rounding where it is just reached."""
    return (1 - checked_confidence(confidence)) * (1 + 1e-12)


def _between(ordered: Floats, depth: int, confidence: float) -> Interval:
    estimate = float(np.median(ordered))
    if depth == 0:
        return Interval(estimate, -math.inf, math.inf, confidence)
    return Interval(estimate, float(ordered[depth - 1]), float(ordered[-depth]), confidence)
