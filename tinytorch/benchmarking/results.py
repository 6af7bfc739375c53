"""What one benchmark of one model found."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tinytorch.benchmarking.statistics import Interval, finite_values, mean_interval, median_interval


@dataclass(frozen=True)
class BenchmarkResult:
    """Measured values of one metric, and what can be said of them.

    Args:
        metric_name: what was measured, "latency".
        values: at least one, in the order in which they were measured.
        metadata: how it was measured: unit, inputs, calls.
        interval: where the values alone do not say how sure the mean is: of a share of right answers, of
            something counted. Otherwise it is that of Student's t.

    Raises:
        ValueError: there are no values, or one is NaN, infinite or no number.
    """

    metric_name: str
    values: Sequence[float]
    metadata: Mapping[str, Any] = field(default_factory=dict, hash=False)  # dictionaries have none
    interval: Interval | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.metric_name, str) or not self.metric_name:
            raise ValueError(f"`metric_name` must be a name, got {self.metric_name!r}")
        if not isinstance(self.metadata, Mapping):
            raise ValueError(f"`metadata` must be a dictionary, got {type(self.metadata).__name__}")
        object.__setattr__(self, "values", tuple(finite_values(self.values, "values").tolist()))
        object.__setattr__(self, "metadata", dict(self.metadata))

    @property
    def count(self) -> int:
        """The number of values."""
        return len(self.values)

    @functools.cached_property
    def mean(self) -> float:
        """The average."""
        return float(np.mean(self.values))

    @functools.cached_property
    def std(self) -> float:
        """The standard deviation of a sample, over n - 1; 0 for a single value."""
        return float(np.std(self.values, ddof=1)) if self.count > 1 else 0.0

    @functools.cached_property
    def median(self) -> float:
        """The middle value."""
        return float(np.median(self.values))

    @property
    def min_val(self) -> float:
        """The smallest value."""
        return min(self.values)

    @property
    def max_val(self) -> float:
        """The largest value."""
        return max(self.values)

    @functools.cached_property
    def mean_interval(self) -> Interval:
        """The 95 % interval of the mean; infinite where there is a single value and nothing else is known."""
        return self.interval or mean_interval(self.values)

    @functools.cached_property
    def median_interval(self) -> Interval:
        """The interval of the median from order statistics; infinite for fewer than six values."""
        return median_interval(self.values)

    @property
    def ci_lower(self) -> float:
        """The lower end of the interval of the mean."""
        return self.mean_interval.low

    @property
    def ci_upper(self) -> float:
        """The upper end of the interval of the mean."""
        return self.mean_interval.high

    def percentile(self, percent: float) -> float:
        """Return the value below which so many percent of the values lie, 0 to 100.

        Raises:
            ValueError: `percent` is outside of 0 to 100.
        """
        if not 0 <= percent <= 100:
            raise ValueError(f"`percent` must lie in 0 to 100, got {percent!r}")
        return float(np.percentile(self.values, percent))

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON can say it.

        Ends of the interval that are not known are None, and so is what is NaN or infinite in the metadata.
        There arrays, tuples and sets become lists, keys text, and anything else that JSON does not know its
        `str`.
        """
        return {
            "metric_name": self.metric_name,
            "values": list(self.values),
            "count": self.count,
            "mean": self.mean,
            "std": self.std,
            "median": self.median,
            "min_val": self.min_val,
            "max_val": self.max_val,
            "percentiles": {str(p): self.percentile(p) for p in (5, 25, 50, 75, 90, 95, 99)},
            "ci_lower": finite_or_none(self.ci_lower),
            "ci_upper": finite_or_none(self.ci_upper),
            "confidence": self.mean_interval.confidence,
            "metadata": _as_json(self.metadata),
        }


def _as_json(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return finite_or_none(float(value))
    if isinstance(value, Mapping):
        return {str(key): _as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_as_json(item) for item in value]
    return str(value)


def finite_or_none(number: float) -> float | None:
    """Return a number as JSON has it, which knows no infinity."""
    return number if math.isfinite(number) else None
