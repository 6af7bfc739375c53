"""The report of a suite of benchmarks, in Markdown."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence

import numpy as np

from tinytorch.benchmarking.efficiency import Counterexample, counterexamples
from tinytorch.benchmarking.energy import UNAVAILABLE
from tinytorch.benchmarking.findings import Results
from tinytorch.benchmarking.metrics import Comparison
from tinytorch.benchmarking.pareto import Point
from tinytorch.benchmarking.statistics import Interval

_HOW_COMPARED = (
    "Speedups and changes of accuracy with 95 % intervals, each by itself; accuracy in points of a hundred, "
    "on the same examples. A difference is shown where the interval leaves out 1, or 0 points."
)
#: why a metric may be missing
_MISSING = {
    "accuracy": "the data has no labels",
    "energy": "no counter of this machine may be read, and energy is not estimated",
}


def markdown(
    results: Mapping[str, Results | str], comparison: Comparison | None, front: Sequence[Point] | None
) -> str:
    """Return the report.

    Args:
        results: by metric and model.
        comparison: of each model with the first one.
        front: the models by latency and a second metric.
    """
    parts = ["# Benchmark", _conditions(results)]
    if comparison is not None:
        parts += [
            "## Compared with the first model",
            str(comparison),
            _HOW_COMPARED,
            *(f"Warning: {warning}." for warning in comparison.warnings),
        ]
    for metric, found in results.items():
        parts.append(f"## {metric.capitalize()}")
        parts.append(_missing(metric) if isinstance(found, str) else _table(found))
    if front is not None:
        parts += ["## Pareto front", _front(front)]
    if comparison is not None and any(row.efficiency_score is not None for row in comparison):
        parts += ["## TinyTorch's efficiency score", _scores(comparison)]
    return "\n\n".join(parts) + "\n"


def _conditions(results: Mapping[str, Results | str]) -> str:
    about = next(
        (next(iter(found.values())).metadata for found in results.values() if not isinstance(found, str)), {}
    )
    inputs = ", ".join(f"{name} {tuple(shape)}" for name, shape in about.get("inputs", {}).items())
    return (
        f"Inputs: {inputs}. {about.get('measurement_runs')} runs after {about.get('warmup_runs')} to warm "
        "up, in which the models took turns in random order, on one thread, in evaluation mode and with the "
        f"garbage collector paused. {platform.system()} {platform.machine()}, {os.cpu_count()} CPUs, Python "
        f"{platform.python_version()}, NumPy {np.__version__}."
    )


def _missing(metric: str) -> str:
    return f"{UNAVAILABLE.capitalize()}: {_MISSING.get(metric, 'not measured')}."


def _table(results: Results) -> str:
    unit = next(iter(results.values())).metadata.get("unit", "")
    rows = [
        [name, _number(r.mean), _interval(r.mean_interval), _number(r.median), _number(r.std), r.count]
        for name, r in results.items()
    ]
    peaks = [result.metadata.get("peak_bytes") for result in results.values()]
    headers = ["model", f"mean ({unit})", "95 % interval", "median", "standard deviation", "values"]
    if any(peak is not None for peak in peaks):
        headers.append("peak of a pass (bytes)")
        rows = [[*row, peak] for row, peak in zip(rows, peaks, strict=True)]
    return _pipe(rows, headers)


def _front(front: Sequence[Point]) -> str:
    said = {
        "front": "on the front",
        "undecided": "undecided: another one seems better, but intervals overlap",
        "dominated": "dominated",
    }
    rows = [
        [
            point.name,
            said[point.place] + (f" by {', '.join(point.beaten_by)}" if point.beaten_by else ""),
        ]
        for point in front
    ]
    return _pipe(rows, ["model", "place"])


def _scores(comparison: Comparison) -> str:
    rows = [
        [row.name, "not measured" if row.efficiency_score is None else f"{row.efficiency_score:.3g}"]
        for row in comparison
    ]
    wrong = "\n".join(f"- {_wrong(example)}" for example in counterexamples())
    return (
        _pipe(rows, ["model", "speedup x compression / (1 + abs(accuracy change))"])
        + "\n\nNothing is ranked by it. What is wrong with it:\n\n"
        + wrong
    )


def _wrong(example: Counterexample) -> str:
    def said(model: tuple[float, float, float]) -> str:
        speedup, compression, change = model
        return f"{speedup:g}x faster, {compression:g}x smaller, {100 * change:+g} points"

    return (
        f"{said(example.worse)} scores {example.worse_score:.2f}, more than the {example.better_score:.2f} "
        f"of {said(example.better)}: {example.why}."
    )


def _interval(interval: Interval) -> str:
    if interval.low == interval.high and interval.confidence == 1:
        return "exact"
    return f"{_number(interval.low)} to {_number(interval.high)}" if interval.known else "too few values"


def _number(value: float) -> str:
    return f"{value:.0f}" if value == round(value) else f"{value:.4g}"


def _pipe(rows: Sequence[Sequence[object]], headers: Sequence[str]) -> str:
    from tabulate import tabulate

    return str(tabulate(rows, headers, tablefmt="pipe", disable_numparse=True))
