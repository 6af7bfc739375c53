"""Pictures of results: every number with its interval."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tinytorch.benchmarking.pareto import Place, Point
from tinytorch.benchmarking.results import BenchmarkResult
from tinytorch.benchmarking.statistics import Interval
from tinytorch.perf.profiling.labels import place_labels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PLACES: dict[Place, tuple[str, str, str]] = {
    "front": ("C0", "o", "on the front"),
    "undecided": ("C1", "s", "perhaps on the front: intervals overlap"),
    "dominated": ("C7", "x", "dominated"),
}


def bar_chart(results: Mapping[str, Mapping[str, BenchmarkResult]]) -> Figure:
    """Draw one panel for each metric, with a bar for each model and its 95 % interval.

    Raises:
        ValueError: there are no results.
    """
    if not results:
        raise ValueError("`results` must hold at least one metric, got none")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.0 * len(results), 3.6), layout="constrained")
    panels: Sequence[Axes] = figure.subplots(1, len(results), squeeze=False)[0]
    for axes, (metric, by_model) in zip(panels, results.items(), strict=True):
        means = [result.mean for result in by_model.values()]
        errors = _errors([result.mean_interval for result in by_model.values()])
        axes.bar(list(by_model), means, yerr=errors, capsize=4, color="C0")
        unit = next(iter(by_model.values())).metadata.get("unit")
        axes.set_ylabel(f"{metric} ({unit})" if unit else metric)
        axes.set_title(metric)
        axes.tick_params(axis="x", labelrotation=20)
    figure.suptitle("Means with 95 % intervals", fontsize="medium")
    return figure


def front_chart(points: Sequence[Point], x_label: str, y_label: str) -> Figure:
    """Draw models by two metrics, with both intervals, and which of them are dominated for sure."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4.5), layout="constrained")
    axes: Axes = figure.subplots()
    for place, (colour, marker, label) in _PLACES.items():
        chosen = [point for point in points if point.place == place]
        if not chosen:
            continue
        axes.errorbar(
            [point.x.estimate for point in chosen],
            [point.y.estimate for point in chosen],
            xerr=_errors([point.x for point in chosen]),
            yerr=_errors([point.y for point in chosen]),
            fmt=marker,
            color=colour,
            capsize=3,
            label=label,
        )
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.legend()
    places = [(point.x.estimate, point.y.estimate) for point in points]
    place_labels(axes, [point.name for point in points], places, size=10)
    return figure


def save(figure: Figure, path: str | Path) -> Path:
    """Write a figure, in the format that the suffix names, and return where it is."""
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file)
    return file


def _errors(intervals: Sequence[Interval]) -> list[list[float]]:
    """Return the lengths of error bars downwards and upwards; what is not known has none."""
    down = [_length(interval.estimate - interval.low) for interval in intervals]
    up = [_length(interval.high - interval.estimate) for interval in intervals]
    return [down, up]


def _length(length: float) -> float:
    return max(0.0, length) if math.isfinite(length) else 0.0
