"""Latency, accuracy, memory and energy of models, measured under the same conditions."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinytorch.benchmarking import latency
from tinytorch.benchmarking.answers import Answers, answers, right_answers
from tinytorch.benchmarking.conditions import evaluating
from tinytorch.benchmarking.contenders import contenders
from tinytorch.benchmarking.data import check_labelled, data_sets
from tinytorch.benchmarking.energy import UNAVAILABLE, EnergyCounter, joules_of
from tinytorch.benchmarking.findings import Outcomes, Results, accuracy_results, compared, latency_results
from tinytorch.benchmarking.metrics import Comparison
from tinytorch.benchmarking.peaks import peak_bytes
from tinytorch.benchmarking.results import BenchmarkResult
from tinytorch.benchmarking.samples import LatencySamples
from tinytorch.benchmarking.statistics import Interval
from tinytorch.core.checks import positive, positive_int, whole
from tinytorch.perf.profiling.contents import stored_bytes


class Benchmark:
    """Measures several models under the same conditions.

    All methods raise RefusedModel, a ValueError, where a model raises, answers NaN, or answers with something
    that cannot be compared with the answers of the first model; the message says which model and why. Those
    that measure time or energy raise RuntimeError while memory is being traced.

    Args:
        models: a list of models, or a dictionary from names to models. A model is a Layer, or anything that
            can be called with inputs or has a method forward(), and answers with a Tensor or an array. In a
            list its name is its attribute `name`, or "model_0" and so on.
        datasets: one data set, a list or a dictionary of them: inputs, (inputs, labels) or a TensorDataset.
            Models are called with all inputs of a data set at once.
        warmup_runs: calls of each model that are not measured; one is made in any case.
        measurement_runs: how many values there are of each model. A run takes about 30 ms for each model, or
            one call where that is longer; with six or more every ratio has an interval.
        rng: of the order in which models take turns, and of where their copies lie in memory.
        time_limit_s: seconds after which a call is given up and the model refused. It stops Python code in
            the main thread. It cannot stop compiled code, other threads, and code that catches everything in
            loops inside each other: run what may hang on purpose in a process of its own.

    Raises:
        ValueError: an argument cannot be used; the message names it.
    """

    def __init__(
        self,
        models: Any,
        datasets: Any,
        warmup_runs: int = 5,
        measurement_runs: int = 10,
        *,
        rng: np.random.Generator | None = None,
        time_limit_s: float = 60.0,
    ) -> None:
        self._contenders = contenders(models)
        self._data = data_sets(datasets)
        self.warmup_runs = whole(warmup_runs, "warmup_runs")
        self.measurement_runs = positive_int(measurement_runs, "measurement_runs")
        self.time_limit_s = positive(time_limit_s, "time_limit_s")
        if not isinstance(rng, np.random.Generator | None):
            raise ValueError(f"`rng` must be a Generator, such as np.random.default_rng(0), got {rng!r}")
        self._rng = np.random.default_rng(0) if rng is None else rng

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the models, in their order."""
        return tuple(contender.name for contender in self._contenders)

    @property
    def dataset_names(self) -> tuple[str, ...]:
        """The names of the data sets, in their order."""
        return tuple(data.name for data in self._data)

    @property
    def labelled(self) -> bool:
        """Whether all data sets have labels, so that there is an accuracy."""
        return all(data.labels is not None for data in self._data)

    def run_latency_benchmark(self) -> Results:
        """Measure milliseconds of one pass over all data sets, a value for each run.

        A value is the median of the passes of a run. The intervals are of the mean; which of two models is
        faster, and by how much, `compare_models` tells much more finely.
        """
        return latency_results(self.latency_samples(), self.about)

    def run_accuracy_benchmark(self) -> Results:
        """Measure the share of labels at which the largest score stands, over all data sets together.

        The interval is the exact one of a share. The calls are the same as those that are timed.

        Raises:
            ValueError: a data set has no labels: accuracy is then not known.
        """
        return accuracy_results(self.outcomes(), self.dataset_names, self.about)

    def run_memory_benchmark(self) -> Results:
        """Count the bytes of all arrays that each model holds, exactly.

        "peak_bytes" of the metadata is what one pass over the data allocates at most beyond that.
        """
        results = {}
        with evaluating(self._contenders):
            answers(self._contenders, self._data, self.time_limit_s)
            for contender in self._contenders:
                size = stored_bytes(contender.model)
                peak = peak_bytes(contender, self._data, self.time_limit_s)
                about = {**self.about, "unit": "bytes", "peak_bytes": peak}
                results[contender.name] = BenchmarkResult("memory", [size], about, Interval.exact(size))
        return results

    def run_energy_benchmark(self, counter: EnergyCounter | None = None) -> Results | str:
        """Read joules of one pass over all data sets from the counters of the processor.

        The counters are of whole processors, so idle power and other programs are counted too.

        Args:
            counter: to read; that of this machine unless given.

        Returns:
            The word "unavailable" where no counter can be read; energy is never estimated.
        """
        found = counter or EnergyCounter.find()
        if isinstance(found, str):
            return UNAVAILABLE
        with evaluating(self._contenders):
            answers(self._contenders, self._data, self.time_limit_s)
            joules = joules_of(
                found, self._contenders, self._data, self.measurement_runs, self._rng, self.time_limit_s
            )
        about = {**self.about, "unit": "J", "source": "RAPL counters of whole processors"}
        return {name: BenchmarkResult("energy", values, about) for name, values in joules.items()}

    def compare_models(self, metric: str | None = None) -> Comparison:
        """Measure all models anew and compare each with the first one.

        Each interval holds at 95 % by itself. Speedups come from rounds in which both models had their turn
        within moments, on copies of them at many places in memory: two equal objects differ by percents,
        always in the same way. What cannot be copied is measured where it is, with a warning.

        Args:
            metric: "latency", "accuracy" or "memory" to measure only that; otherwise all of them, but no
                accuracy where there are no labels.

        Raises:
            ValueError: there is no such metric, or accuracy is asked for and there are no labels.
        """
        if metric not in {None, "latency", "accuracy", "memory"}:
            raise ValueError(f'`metric` must be "latency", "accuracy", "memory" or None, got {metric!r}')
        memory = self.run_memory_benchmark() if metric in {None, "memory"} else None
        wants_accuracy = metric == "accuracy" or (metric is None and self.labelled)
        outcomes = self.outcomes() if wants_accuracy else None
        samples = self.latency_samples() if metric in {None, "latency"} else None
        return compared(self.names, samples, memory, outcomes)

    def latency_samples(self) -> LatencySamples:
        """Measure every single duration, in the order in which models took turns."""
        with evaluating(self._contenders):
            answers(self._contenders, self._data, self.time_limit_s)
            return latency.measure(
                self._contenders,
                self._data,
                self.warmup_runs,
                self.measurement_runs,
                self._rng,
                self.time_limit_s,
            )

    def outcomes(self) -> Outcomes:
        """Return which labels each model answers right, data set by data set.

        Raises:
            ValueError: a data set has no labels.
        """
        check_labelled(self._data)
        with evaluating(self._contenders):
            given: list[Answers] = answers(self._contenders, self._data, self.time_limit_s)
        return {one.name: right_answers(one, self._data) for one in given}

    @property
    def about(self) -> dict[str, Any]:
        """What is the same in all measurements."""
        return {
            "inputs": {data.name: list(data.inputs.shape) for data in self._data},
            "threads": 1,
            "warmup_runs": self.warmup_runs,
            "measurement_runs": self.measurement_runs,
        }
