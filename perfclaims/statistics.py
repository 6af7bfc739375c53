"""Confidence intervals for medians, shifts and rates, and the slope of a power law.

Pure functions of arrays. The intervals are exact in small samples: where too few samples are given
for the confidence asked, the ends are infinite and a warning says how many are needed.
"""

from __future__ import annotations

import math
import operator
from bisect import bisect_right
from dataclasses import dataclass
from functools import lru_cache
from itertools import count

import numpy as np
import numpy.typing as npt

# Counts of all 2**n sign patterns stay exact in 64-bit integers up to here.
EXACT_SIGNED_RANKS = 60
# The method forms n * n averages: 32 MB here.
MOST_SIGNED_RANKS = 2000
# Above the relative error of a computed probability, below any difference that matters.
ROUNDING = 1e-12


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate between two confidence limits, in the units of the samples.

    `confidence` is what the interval achieves, never less than what was asked for. Where no finite
    interval exists, the ends are infinite and `warning` says what is missing.
    """

    estimate: float
    low: float
    high: float
    confidence: float
    warning: str | None = None

    @property
    def exists(self) -> bool:
        """Whether both ends are finite."""
        return math.isfinite(self.low) and math.isfinite(self.high)

    @property
    def half_width(self) -> float:
        """Half the distance between the ends, infinite when an end is."""
        return (self.high - self.low) / 2

    def excludes(self, value: float) -> bool:
        """Whether `value` lies outside; the ends themselves are inside."""
        return value < self.low or value > self.high


def median_interval(samples: npt.ArrayLike, confidence: float = 0.95) -> Interval:
    """Give the interval of a median between two order statistics.

    Only independent signs around the median are assumed: no shape, no equal variances.

    Args:
        samples: shape (n,), n >= 1, any unit.
        confidence: wanted coverage, between 0 and 1.

    Raises:
        ValueError: no samples, values that are not finite, or a confidence outside (0, 1).

    Source: Conover, Practical Nonparametric Statistics, 3rd ed., section 3.2.
    """
    values = np.sort(_finite_vector("samples", samples))
    check_confidence(confidence)
    depth, achieved = _sign_depth(values.size, confidence)
    return _between_order_statistics(values, depth, achieved, confidence, values.size)


def hodges_lehmann_interval(samples: npt.ArrayLike, confidence: float = 0.95) -> Interval:
    """Give the Hodges-Lehmann estimate of a centre of symmetry with its Wilcoxon signed-rank interval.

    Estimate and ends are order statistics of the Walsh averages (x_i + x_j) / 2, i <= j. The interval
    is exact for up to 60 samples from distributions symmetric around one centre, and conservative
    with ties; beyond that its rank is a normal quantile moved outward by the error of that.

    Args:
        samples: shape (n,), 1 <= n <= 2000, any unit.
        confidence: wanted coverage, between 0 and 1.

    Raises:
        ValueError: no samples or too many, values that are not finite, or a confidence outside (0, 1).

    Source: Hollander, Wolfe and Chicken, Nonparametric Statistical Methods, 3rd ed., sections 3.2-3.3.
    """
    values = _finite_vector("samples", samples)
    check_confidence(confidence)
    if values.size > MOST_SIGNED_RANKS:
        raise ValueError(
            f"`samples` must hold at most {MOST_SIGNED_RANKS} values for a signed-rank interval, "
            f"got {values.size}; use median_interval"
        )
    # Halved before they are added, so that the largest floats do not overflow.
    averages = np.add.outer(values / 2, values / 2)[np.tri(values.size, dtype=bool)]
    averages.sort()
    depth, achieved = _signed_rank_depth(values.size, confidence)
    return _between_order_statistics(averages, depth, achieved, confidence, values.size)


def binomial_interval(successes: int, trials: int, confidence: float = 0.95) -> Interval:
    """Give the exact Clopper-Pearson interval of a success probability.

    Args:
        successes: number of successes, 0 to `trials`.
        trials: number of independent trials, at least 1.
        confidence: wanted coverage, between 0 and 1; half of the error may fall on either side.

    Raises:
        ValueError: numbers that are not whole or do not fit together, or a confidence outside (0, 1).

    Source: Clopper and Pearson, Biometrika 26 (1934) 404.
    """
    successes, trials = _whole("successes", successes), _whole("trials", trials)
    check_confidence(confidence)
    if trials < 1:
        raise ValueError(f"`trials` must be at least 1, got {trials}")
    if not 0 <= successes <= trials:
        raise ValueError(f"`successes` must lie between 0 and `trials` (={trials}), got {successes}")
    low, high = clopper_pearson_limits(successes, trials, (1 - confidence) / 2)
    return Interval(successes / trials, low, high, confidence)


def clopper_pearson_limits(successes: int, trials: int, tail: float) -> tuple[float, float]:
    """Give the success probabilities at which so many, or so few, successes have probability `tail`."""
    from scipy.special import betainccinv, betaincinv

    failures = trials - successes
    low = float(betaincinv(successes, failures + 1, tail)) if successes else 0.0
    high = float(betainccinv(successes + 1, failures, tail)) if failures else 1.0
    return low, high


def log_log_slope(sizes: npt.ArrayLike, times: npt.ArrayLike) -> float:
    """Give the exponent b of the power law time ~ size**b by least squares on the logarithms.

    Args:
        sizes: shape (n,), positive, at least two of them distinct.
        times: shape (n,), positive, any unit.

    Raises:
        ValueError: sizes or times that are not positive and finite, lengths that differ, or fewer
            than two distinct sizes.
    """
    size_values, time_values = _finite_vector("sizes", sizes), _finite_vector("times", times)
    if size_values.size != time_values.size:
        raise ValueError(
            f"`sizes` and `times` must have the same length, got {size_values.size} and {time_values.size}"
        )
    for name, values in (("sizes", size_values), ("times", time_values)):
        if values.min() <= 0:
            raise ValueError(f"`{name}` must be positive, got {values.min():g}")
    if size_values.min() == size_values.max():
        raise ValueError(f"`sizes` must hold at least two distinct sizes, got only {size_values[0]:g}")
    x = np.log(size_values)
    x -= x.mean()
    return float(x @ np.log(time_values) / (x @ x))


def samples_needed(confidence: float) -> int:
    """Give the fewest samples for which an exact sign or signed-rank interval exists.

    The widest such interval, from the smallest to the largest sample, misses only when all samples
    lie on one side of the truth: with probability 2**(1 - n).

    Raises:
        ValueError: a confidence outside (0, 1).
    """
    check_confidence(confidence)
    return next(n for n in count(2) if 2.0 ** (1 - n) <= _allowed_error(confidence))


def check_confidence(confidence: float) -> None:
    """Refuse a confidence that is no probability strictly between 0 and 1."""
    if not 0 < confidence < 1:
        raise ValueError(f"`confidence` must lie between 0 and 1, both excluded, got {confidence}")


def _between_order_statistics(
    ordered: npt.NDArray[np.float64], depth: int, achieved: float, confidence: float, n: int
) -> Interval:
    """Span the `depth`-th smallest to the `depth`-th largest; a depth of 0 is no interval."""
    estimate = float(np.median(ordered))
    if depth == 0:
        warning = (
            f"{n} {'sample' if n == 1 else 'samples'}: {samples_needed(confidence)} or more are needed "
            f"for an interval at {100 * confidence:.6g} % confidence"
        )
        return Interval(estimate, -math.inf, math.inf, 1.0, warning)
    return Interval(estimate, float(ordered[depth - 1]), float(ordered[-depth]), achieved)


@lru_cache(maxsize=1024)
def _sign_depth(n: int, confidence: float) -> tuple[int, float]:
    """How deep in the ordered samples a median interval may begin, and the confidence it achieves."""
    from scipy.special import bdtr

    def missed(depth: int) -> float:
        return 2 * float(bdtr(depth - 1, n, 0.5)) if depth else 0.0

    depth = bisect_right(range(1, (n + 1) // 2 + 1), _allowed_error(confidence), key=missed)
    return depth, max(confidence, 1 - missed(depth))


@lru_cache(maxsize=1024)
def _signed_rank_depth(n: int, confidence: float) -> tuple[int, float]:
    """How deep in the ordered Walsh averages the interval may begin, and the confidence it achieves.

    The interval of depth k misses when the signed-rank sum or its mirror image is below k.
    """
    if n > EXACT_SIGNED_RANKS:
        return _approximate_signed_rank_depth(n, confidence), confidence
    # ways[w] counts the sign patterns whose positive ranks sum to w.
    ways = np.zeros(n * (n + 1) // 2 + 1, dtype=np.int64)
    ways[0] = 1
    for rank in range(1, n + 1):
        ways[rank:] += ways[:-rank].copy()
    missed = np.concatenate(([0.0], np.cumsum(ways) / 2.0 ** (n - 1)))
    depth = int(np.searchsorted(missed, _allowed_error(confidence), side="right")) - 1
    return depth, max(confidence, 1 - float(missed[depth]))


def _approximate_signed_rank_depth(n: int, confidence: float) -> int:
    from scipy.special import ndtri

    mean, deviation = n * (n + 1) / 4, math.sqrt(n * (n + 1) * (2 * n + 1) / 24)
    # The normal quantile is up to 0.09 sqrt(n) ranks too far in (the next Edgeworth term, at one
    # standard deviation) and not at all from 1.7 on; a continuity correction would add half a rank.
    outward = math.sqrt(n) / 10
    # The outermost depth is always allowed: it misses with probability 2**(1 - n).
    return max(1, math.floor(mean - float(ndtri((1 + confidence) / 2)) * deviation - outward))


def _allowed_error(confidence: float) -> float:
    """One minus the confidence, with room for rounding where the two sides should be equal."""
    return (1 - confidence) * (1 + ROUNDING)


def _finite_vector(name: str, values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    vector = np.asarray(values, dtype=np.float64)
    if vector.ndim != 1 or vector.size == 0:
        raise ValueError(f"`{name}` must have shape (n,) with n >= 1, got shape {vector.shape}")
    unusable = int(np.count_nonzero(~np.isfinite(vector)))
    if unusable:
        raise ValueError(f"`{name}` must be finite, got {unusable} NaN or infinite among {vector.size}")
    return vector


def _whole(name: str, number: int) -> int:
    try:
        return operator.index(number)
    except TypeError:
        raise ValueError(f"`{name}` must be a whole number, got {number!r}") from None
