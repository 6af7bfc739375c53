"""Exact bounds on the accuracy that an optimisation costs, from outcomes on the same examples.

Only discordant examples tell: `lost` (the baseline was right, the optimised side wrong) and `gained`
(the reverse). The rate at which they occur is unknown, and a bound must hold whatever it is.

The upper bound is Buehler's. All possible outcomes are ordered by how low a drop they suggest, and
the bound is the largest drop under which an outcome as favourable as the observed one, or more so,
still has a probability above 1 - confidence for some rate. That guarantee holds for every fixed
order; Tango's approximate score limit is used as the order because it makes the bound sharp.

Sources: Buehler, JASA 52 (1957) 482; Tango, Statistics in Medicine 17 (1998) 891; Berger and Boos,
JASA 89 (1994) 1012, for limiting the unknown rate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from perfclaims.statistics import Interval, check_confidence, clopper_pearson_limits

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Booleans = npt.NDArray[np.bool_]

# Shares of the allowed error spent on the unknown rate lying outside its limits (1e-5 at 95 %), and
# on numbers of discordant examples too unlikely to be enumerated.
RATE_SHARE = 2e-4
TAIL_SHARE = 1e-11
# Rates tried at first, then twice more around the least favourable: within 1e-4 examples of the bound
# that 1500 rates give, for 84 random outcomes of 10 to 10,000 examples.
RATES = 64
REFINED_RATES = 11
REFINEMENTS = 2
# Bounds are rounded up by at most this.
DROP_TOLERANCE = 1e-8
# Outcomes with the same limit must be ranked as one, whatever the rounding.
SCORE_TIE = 1e-9


def accuracy_drop_interval(
    baseline_correct: npt.ArrayLike, optimized_correct: npt.ArrayLike, confidence: float = 0.95
) -> Interval:
    """Bound how much less often the optimised side is right than the baseline.

    The drop is a fraction of the examples, positive when accuracy was lost. Either end is a one-sided
    bound at `confidence` of its own, so as a two-sided interval they hold at 2 * confidence - 1.

    Args:
        baseline_correct: shape (n,), n >= 1, booleans or 0 and 1: was the baseline right on example i.
        optimized_correct: shape (n,), the same for the optimised side on the same examples.
        confidence: least coverage of either bound, between 0 and 1.

    Raises:
        ValueError: outcomes that are not boolean, are empty or differ in length, or a confidence
            outside (0, 1).
    """
    baseline, optimized = paired_outcomes(baseline_correct, optimized_correct)
    check_confidence(confidence)
    n = baseline.size
    lost = int(np.count_nonzero(baseline & ~optimized))
    gained = int(np.count_nonzero(~baseline & optimized))
    low = -_largest_drop(gained, lost, n, confidence)
    high = _largest_drop(lost, gained, n, confidence)
    return Interval((lost - gained) / n, low, high, confidence)


def paired_outcomes(
    baseline_correct: npt.ArrayLike, optimized_correct: npt.ArrayLike
) -> tuple[Booleans, Booleans]:
    """Check outcomes of both sides on the same examples and return them as booleans, shape (n,) each.

    Raises:
        ValueError: outcomes that are not boolean, are empty or differ in length.
    """
    baseline = _outcomes("baseline_correct", baseline_correct)
    optimized = _outcomes("optimized_correct", optimized_correct)
    if baseline.size != optimized.size:
        raise ValueError(
            "`baseline_correct` and `optimized_correct` must be paired, "
            f"got {baseline.size} and {optimized.size} outcomes"
        )
    return baseline, optimized


@dataclass(frozen=True, slots=True)
class _Favourable:
    """The outcomes at least as favourable as the observed one.

    For totals[i] discordant examples of n they are those with at most most_lost[i] losses, -1 for
    none. Row by row this keeps every outcome that turns a loss into a gain or into agreement, which
    makes the probability of the whole fall as the drop grows.
    """

    n: int
    totals: Integers
    most_lost: Integers
    log_arrangements: Floats

    def probability(self, drop: float, rates: Floats) -> Floats:
        """Their probability under a true drop, for each rate of discordant examples, shape (rates,)."""
        from scipy.special import betainc, xlog1py, xlogy

        rate = rates[:, None]
        of_total = np.exp(
            self.log_arrangements + xlogy(self.totals, rate) + xlog1py(self.n - self.totals, -rate)
        )
        gain_share = np.clip((1 - drop / np.maximum(rate, np.finfo(float).tiny)) / 2, 0, 1)
        given_total = np.where(self.most_lost >= self.totals, 1.0, np.zeros_like(of_total))
        # Some losses are too many, but not all are: a binomial tail.
        some = (self.most_lost >= 0) & (self.most_lost < self.totals)
        most, total = self.most_lost[some], self.totals[some]
        given_total[:, some] = betainc(total - most, most + 1, gain_share)
        probability: Floats = (of_total * given_total).sum(axis=1)
        return probability


@lru_cache(maxsize=256)
def _largest_drop(lost: int, gained: int, n: int, confidence: float) -> float:
    """Buehler's upper bound on the drop, never below the drop observed."""
    error = 1 - confidence
    rates = clopper_pearson_limits(lost + gained, n, error * RATE_SHARE / 2)
    favourable = _favourable_outcomes(lost, gained, n, confidence, rates)
    allowed = error * (1 - RATE_SHARE - 2 * TAIL_SHARE)
    low = (lost - gained) / n
    positions, spacing = np.linspace(0, 1, RATES), 1 / (RATES - 1)
    for _ in range(REFINEMENTS + 1):
        low, high, positions = _bisect(favourable, rates, allowed, low, positions)
        first, last = positions[0] - spacing, positions[-1] + spacing
        positions = np.clip(np.linspace(first, last, REFINED_RATES), 0, 1)
        spacing = (last - first) / (REFINED_RATES - 1)
    return high


def _bisect(
    favourable: _Favourable, rates: tuple[float, float], allowed: float, low: float, positions: Floats
) -> tuple[float, float, Floats]:
    """Enclose the largest drop for which some rate makes the favourable outcomes likely enough.

    Positions 0 to 1 span the rates from the lowest possible (the drop itself, or the lower limit) to
    the upper limit. At a fixed position the probability falls as the drop grows, so a position that
    is ruled out at a drop that another one still allows is ruled out for good.
    """
    lowest_rate, highest_rate = rates
    high = highest_rate
    while high - low > DROP_TOLERANCE:
        drop = (low + high) / 2
        possible = max(lowest_rate, abs(drop))
        likely = favourable.probability(drop, possible + positions * (highest_rate - possible)) > allowed
        if likely.any():
            low, positions = drop, positions[likely]
        else:
            high = drop
    return low, high, positions


def _favourable_outcomes(
    lost: int, gained: int, n: int, confidence: float, rates: tuple[float, float]
) -> _Favourable:
    from scipy.special import gammaln, ndtri

    fewest = math.floor(n * rates[0] - _reach(n, rates[0], confidence))
    most = math.ceil(n * rates[1] + _reach(n, rates[1], confidence))
    totals = np.arange(max(0, fewest), min(n, most) + 1)
    # Below 50 % the quantile would turn the order around: order by the drop observed.
    quantile = max(0.0, float(ndtri(confidence)))
    limit = _score_limit(lost, gained, n, quantile)

    low, high = np.full(totals.size, -1), totals.copy()
    while (low < high).any():
        losses = (low + high + 1) // 2
        inside = _score(losses, totals - losses, n, limit) <= SCORE_TIE - quantile
        low, high = np.where(inside, losses, low), np.where(inside, high, losses - 1)
    observed = totals == lost + gained
    low[observed] = np.maximum(low[observed], lost)
    log_arrangements = gammaln(n + 1) - gammaln(totals + 1) - gammaln(n - totals + 1)
    return _Favourable(n, totals, low, log_arrangements)


def _score_limit(lost: int, gained: int, n: int, quantile: float) -> float:
    """Tango's upper limit: the drop at which the score falls to minus the quantile."""
    low, high = (lost - gained) / n, 1.0
    while high - low > DROP_TOLERANCE / n:
        drop = (low + high) / 2
        inside = _score(np.array([lost]), np.array([gained]), n, drop)[0] <= -quantile
        low, high = (low, drop) if inside else (drop, high)
    return high


def _score(lost: Integers, gained: Integers, n: int, drop: float) -> Floats:
    """Tango's score statistic: the excess of losses over `n * drop` in standard deviations."""
    # The probability of a gain that is likeliest under this drop solves 2n q^2 + b q + c = 0.
    b = (2 * n - lost + gained) * drop - lost - gained
    c = -gained * drop * (1 - drop)
    gain = (np.sqrt(np.maximum(b * b - 8 * n * c, 0)) - b) / (4 * n)
    variance = n * (2 * gain + drop * (1 - drop))
    score: Floats = (lost - gained - n * drop) / np.sqrt(np.maximum(variance, np.finfo(float).tiny))
    return score


def _reach(n: int, rate: float, confidence: float) -> float:
    """How far a binomial strays from its mean but for the tail share of the error (Bernstein)."""
    exponent = -math.log((1 - confidence) * TAIL_SHARE)
    return exponent / 3 + math.sqrt(exponent**2 / 9 + 2 * exponent * n * rate * (1 - rate))


def _outcomes(name: str, outcomes: npt.ArrayLike) -> Booleans:
    values = np.asarray(outcomes)
    if values.ndim != 1 or values.size == 0:
        raise ValueError(f"`{name}` must have shape (n,) with n >= 1, got shape {values.shape}")
    if values.dtype.kind not in "biuf":
        raise ValueError(f"`{name}` must hold booleans, got values of type {values.dtype}")
    strange = values[(values != 0) & (values != 1)]
    if strange.size:
        raise ValueError(f"`{name}` must hold booleans, or 0 and 1, got {strange[0]}")
    return values.astype(np.bool_)
