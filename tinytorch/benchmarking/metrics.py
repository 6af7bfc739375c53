"""Metrics relative to a first model, each with its interval."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tinytorch.benchmarking.efficiency import efficiency_score
from tinytorch.benchmarking.results import finite_or_none
from tinytorch.benchmarking.statistics import Interval

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class RelativeMetrics:
    """One model against the first one; what was not measured is None.

    Attributes:
        speedup: time of the first model over that of this one.
        compression: stored bytes of the first model over those of this one, exact.
        accuracy_change: share of right answers less that of the first model, on the same examples.
    """

    name: str
    baseline: str
    speedup: Interval | None = None
    compression: Interval | None = None
    accuracy_change: Interval | None = None

    @property
    def efficiency_score(self) -> float | None:
        """What TinyTorch's score says, None where a part of it was not measured; see `efficiency_score`."""
        if self.speedup is None or self.compression is None or self.accuracy_change is None:
            return None
        return efficiency_score(
            self.speedup.estimate, self.compression.estimate, self.accuracy_change.estimate
        )

    @property
    def finding(self) -> str:
        """What the intervals show, in words."""
        said = [
            _word(self.speedup, 1.0, "faster", "slower", "no difference in speed shown"),
            _word(self.compression, 1.0, "smaller", "larger", "as large"),
            _word(self.accuracy_change, 0.0, "more accurate", "less accurate", "no change of accuracy shown"),
        ]
        return ", ".join(word for word in said if word) if self.name != self.baseline else "the baseline"


@dataclass(frozen=True, slots=True)
class Comparison:
    """All models against the first one, in the order in which they were given.

    Attributes:
        warnings: what weakens it, each with what to do about it.
    """

    rows: tuple[RelativeMetrics, ...]
    warnings: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[RelativeMetrics]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, name: str) -> RelativeMetrics:
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(f"there is no model {name!r} among {', '.join(row.name for row in self.rows)}")

    def to_pandas(self) -> pd.DataFrame:
        """Return a row for each model, with the ends of each interval in columns of their own."""
        import pandas as pd

        records = []
        for row in self.rows:
            record: dict[str, object] = {"model": row.name}
            for metric in ("speedup", "compression", "accuracy_change"):
                interval: Interval | None = getattr(row, metric)
                record[metric] = None if interval is None else interval.estimate
                record[f"{metric}_low"] = None if interval is None else finite_or_none(interval.low)
                record[f"{metric}_high"] = None if interval is None else finite_or_none(interval.high)
            records.append({**record, "efficiency_score": row.efficiency_score, "finding": row.finding})
        return pd.DataFrame(records).set_index("model")

    def __str__(self) -> str:
        from tabulate import tabulate

        headers = ["model", f"speedup over {self.rows[0].name}", "compression", "accuracy change", "finding"]
        lines = [
            [row.name, ratio(row.speedup), ratio(row.compression), points(row.accuracy_change), row.finding]
            for row in self.rows
        ]
        return str(tabulate(lines, headers, tablefmt="pipe", disable_numparse=True))


def ratio(interval: Interval | None) -> str:
    """Say a ratio with its interval: "2.20x [2.15, 2.26]"."""
    if interval is None:
        return "not measured"
    if interval.low == interval.high:
        return f"{interval.estimate:.3g}x"
    if not interval.known:
        return f"{interval.estimate:.3g}x, too few runs for an interval"
    return f"{interval.estimate:.3f}x [{interval.low:.3f}, {interval.high:.3f}]"


def points(interval: Interval | None) -> str:
    """Say a change of accuracy with its interval, in points of a hundred."""
    if interval is None:
        return "not measured"
    if interval.low == interval.high:
        return f"{100 * interval.estimate:+.2f}"
    return f"{100 * interval.estimate:+.2f} [{100 * interval.low:+.2f}, {100 * interval.high:+.2f}]"


def _word(interval: Interval | None, level: float, above: str, below: str, within: str) -> str:
    if interval is None:
        return ""
    if interval.low > level:
        return above
    return below if interval.high < level else within
