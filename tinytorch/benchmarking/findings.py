"""From measurements to results: pure functions, so that what is reported can be checked without a clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinytorch.benchmarking.metrics import Comparison, RelativeMetrics
from tinytorch.benchmarking.results import BenchmarkResult
from tinytorch.benchmarking.samples import LatencySamples
from tinytorch.benchmarking.statistics import Interval, paired_change, share_interval

Results = dict[str, BenchmarkResult]
#: for each data set and each of its labels, whether a model answers it right
Outcomes = Mapping[str, Sequence[NDArray[np.bool_]]]


def latency_results(samples: LatencySamples, about: Mapping[str, Any]) -> Results:
    """Return milliseconds of a pass for each model, one value for each run."""
    results = {}
    for index, name in enumerate(samples.names):
        how = {
            **about,
            "unit": "ms",
            "copies_per_value": 0 if name in samples.single else samples.samples_ns.shape[1],
            "samples_per_value": samples.samples_ns.shape[1] * samples.samples_ns.shape[2],
            "calls_per_sample": samples.calls[index],
        }
        results[name] = BenchmarkResult("latency", samples.values_ms(index), how)
    return results


def accuracy_results(outcomes: Outcomes, dataset_names: Sequence[str], about: Mapping[str, Any]) -> Results:
    """Return the share of right answers for each model, over all data sets together."""
    results = {}
    for name, by_dataset in outcomes.items():
        right = np.concatenate(by_dataset)
        correct = int(np.count_nonzero(right))
        how = {
            **about,
            "unit": "fraction",
            "correct": correct,
            "total": right.size,
            "by_dataset": {
                dataset: float(part.mean()) for dataset, part in zip(dataset_names, by_dataset, strict=True)
            },
        }
        interval = share_interval(correct, right.size)
        results[name] = BenchmarkResult("accuracy", [correct / right.size], how, interval)
    return results


def compared(
    names: Sequence[str], samples: LatencySamples | None, memory: Results | None, outcomes: Outcomes | None
) -> Comparison:
    """Compare each model with the first one in what was measured."""
    first = names[0]
    rows = [
        RelativeMetrics(
            name,
            first,
            None if samples is None else samples.speedup(index),
            None if memory is None else _compression(memory[first], memory[name]),
            None if outcomes is None else _change(outcomes[first], outcomes[name], same=name == first),
        )
        for index, name in enumerate(names)
    ]
    return Comparison(tuple(rows), () if samples is None else samples.warnings)


def _compression(first: BenchmarkResult, other: BenchmarkResult) -> Interval | None:
    """Return the ratio of bytes; None where one of the models holds no array that could be found."""
    return Interval.exact(first.mean / other.mean) if first.mean > 0 and other.mean > 0 else None


def _change(
    first: Sequence[NDArray[np.bool_]], other: Sequence[NDArray[np.bool_]], *, same: bool
) -> Interval:
    if same:
        return Interval.exact(0.0)
    return paired_change(np.concatenate(first), np.concatenate(other))
