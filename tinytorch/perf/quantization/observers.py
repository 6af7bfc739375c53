"""Observers: they see activations, and say which range of them int8 should cover."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tinytorch.core.checks import fraction
from tinytorch.perf.quantization.quantizer import affine, finite, quantized, symmetric

Values = NDArray[np.float32]
# Values that are kept to find percentiles in: a thousand of them lie beyond the 99.9th.
_KEPT = 1 << 20
# Values and ranges that are tried for the smallest error; beyond them it changes by less than a hundredth.
_TRIED, _RANGES = 1 << 15, 80
_SEED = 20_261_121  # unlikely to be that of the activations, whose numbers must have nothing to do with these


class Observer(Protocol):
    """Anything that sees activations and returns a range for them."""

    def observe(self, x: Any) -> None:
        """Take in activations, of any shape."""

    def qparams(self) -> tuple[float, int]:
        """Return scale and zero point: q = round(x / scale) + zero_point, within -128 and 127."""


class _Ranged:
    """What observers share: a range becomes a scale and a zero point.

    Args:
        symmetric: whether zero is byte 0.
    """

    def __init__(self, symmetric: bool = False) -> None:
        self.symmetric = symmetric
        self.seen = 0
        self.low = self.high = 0.0

    def observe(self, x: Any) -> None:
        """Take in activations, of any shape.

        Raises:
            ValueError: there are none, or some are NaN or infinite.
        """
        array = finite(x, "x")
        self._take(array)
        self.seen += array.size

    def qparams(self) -> tuple[float, int]:
        """Return scale and zero point: q = round(x / scale) + zero_point, within -128 and 127.

        Raises:
            ValueError: nothing was observed.
        """
        if not self.seen:
            raise ValueError(f"{type(self).__name__} has seen nothing: call observe() first")
        scale, zero_point = self._params(*self._range())
        return float(scale), int(zero_point)

    def _params(self, low: float, high: float) -> tuple[Any, Any]:
        return (symmetric if self.symmetric else affine)(low, high)

    def _take(self, x: Values) -> None:
        raise NotImplementedError

    def _range(self) -> tuple[float, float]:
        return self.low, self.high


class MinMaxObserver(_Ranged):
    """The range of everything seen: nothing is clipped, and one outlier makes all steps large."""

    def _take(self, x: Values) -> None:
        low, high = float(x.min()), float(x.max())
        self.low, self.high = (min(self.low, low), max(self.high, high)) if self.seen else (low, high)


class MovingAverageObserver(_Ranged):
    """The range of a batch, averaged: every batch moves both ends by a share towards its own.

    Args:
        symmetric: whether zero is byte 0.
        momentum: share of the old value that stays.
    """

    def __init__(self, symmetric: bool = False, momentum: float = 0.9) -> None:
        super().__init__(symmetric)
        self.momentum = fraction(momentum, "momentum")

    def _take(self, x: Values) -> None:
        low, high = float(x.min()), float(x.max())
        if self.seen:
            low = self.momentum * self.low + (1 - self.momentum) * low
            high = self.momentum * self.high + (1 - self.momentum) * high
        self.low, self.high = low, high


class _Sampling(_Ranged):
    """Keeps what it sees; from a million values on a random sample of it, in which all have equal chances."""

    def __init__(self, symmetric: bool = False) -> None:
        super().__init__(symmetric)
        self.kept: list[tuple[Values, Values]] = []  # values, and a random number for each
        self.rng = np.random.default_rng(_SEED)

    def _take(self, x: Values) -> None:
        values = x.reshape(-1).copy()
        self.kept.append((values, self.rng.random(values.size, np.float32)))
        if sum(len(values) for values, _ in self.kept) > 2 * _KEPT:
            self._thin()

    def _thin(self) -> Values:
        """Keep the values with the smallest numbers, and return them."""
        values, numbers = (np.concatenate(parts) for parts in zip(*self.kept, strict=True))
        if values.size > _KEPT:
            chosen = np.argpartition(numbers, _KEPT)[:_KEPT]
            values, numbers = values[chosen], numbers[chosen]
        self.kept = [(values, numbers)]
        return values


class PercentileObserver(_Sampling):
    """The range without its tails, so that rare outliers are clipped and everything else gets finer steps.

    Args:
        symmetric: whether zero is byte 0.
        percentile: share of the values, in percent, that is not cut off at the upper end, and at the lower
            end alike.
    """

    def __init__(self, symmetric: bool = False, percentile: float = 99.9) -> None:
        super().__init__(symmetric)
        if not 50 < percentile <= 100:
            raise ValueError(f"`percentile` must be above 50 and at most 100, got {percentile!r}")
        self.percentile = percentile

    def _range(self) -> tuple[float, float]:
        values = self._thin()
        # Values such as a ReLU's zeros repeat: an end is a value that was seen, not one between two.
        low = np.percentile(values, 100 - self.percentile, method="lower")
        return float(low), float(np.percentile(values, self.percentile, method="higher"))


class MSEObserver(_Sampling):
    """The range, of shares of the full one, with the smallest mean squared error of what was seen."""

    def _range(self) -> tuple[float, float]:
        values = self._thin()[:_TRIED].astype(np.float64)
        low, high = float(values.min()), float(values.max())
        shares = np.linspace(1, 1 / _RANGES, _RANGES)
        errors = [self._error(values, low * share, high * share) for share in shares]
        best = shares[int(np.argmin(errors))]
        return low * best, high * best

    def _error(self, values: NDArray[np.float64], low: float, high: float) -> float:
        scale, zero_point = self._params(low, high)
        q = quantized(values, scale, zero_point)
        return float(np.mean(((q.astype(np.float64) - zero_point) * scale - values) ** 2))
