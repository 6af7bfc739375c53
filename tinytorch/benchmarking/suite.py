"""All benchmarks of several models, with a report and pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tinytorch.benchmarking.energy import UNAVAILABLE
from tinytorch.benchmarking.findings import Results, accuracy_results, compared, latency_results
from tinytorch.benchmarking.measuring import Benchmark
from tinytorch.benchmarking.metrics import Comparison
from tinytorch.benchmarking.pareto import Point, pareto_front
from tinytorch.benchmarking.report import markdown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MORE_IS_BETTER = {"latency": False, "accuracy": True, "memory": False, "energy": False}


class BenchmarkSuite:
    """Runs every benchmark of several models, and shows what was found.

    Args:
        models, datasets, warmup_runs, measurement_runs, rng, time_limit_s: see `Benchmark`.
        output_dir: where the report and the pictures go too; they are not written anywhere unless given.

    Attributes:
        results: by metric and model; the word "unavailable" in place of what cannot be measured here.
            Metrics that were finished before something failed are kept.
        comparison: each model against the first one, None before the benchmarks ran.

    Raises:
        ValueError: see `Benchmark`; or `output_dir` is no folder, and cannot become one.
    """

    def __init__(
        self,
        models: Any,
        datasets: Any,
        output_dir: str | Path | None = None,
        *,
        warmup_runs: int = 5,
        measurement_runs: int = 10,
        rng: np.random.Generator | None = None,
        time_limit_s: float = 60.0,
    ) -> None:
        self.benchmark = Benchmark(
            models, datasets, warmup_runs, measurement_runs, rng=rng, time_limit_s=time_limit_s
        )
        self.output_dir = None if output_dir is None else _folder(output_dir)
        self.results: dict[str, Results | str] = {}
        self.comparison: Comparison | None = None

    def run_full_benchmark(self) -> dict[str, Results | str]:
        """Measure latency, accuracy, memory and energy of all models, and return the results by metric.

        Without labels accuracy is the word "unavailable", and so is energy where no counter can be read.

        Raises:
            RefusedModel: see `Benchmark`.
        """
        bench, outcomes = self.benchmark, None
        self.results, self.comparison = {}, None
        memory = bench.run_memory_benchmark()
        self.results["memory"] = memory
        self.results["accuracy"] = UNAVAILABLE
        if bench.labelled:
            outcomes = bench.outcomes()
            self.results["accuracy"] = accuracy_results(outcomes, bench.dataset_names, bench.about)
        samples = bench.latency_samples()
        self.results["latency"] = latency_results(samples, bench.about)
        self.results["energy"] = bench.run_energy_benchmark()
        self.comparison = compared(bench.names, samples, memory, outcomes)
        self.results = {metric: self.results[metric] for metric in _MORE_IS_BETTER}
        return self.results

    def generate_report(self) -> str:
        """Return the report in Markdown; with `output_dir` it is also written there, as report.md.

        Raises:
            ValueError: nothing was measured yet.
        """
        measured = self._measured()
        second = "accuracy" if "accuracy" in measured else "memory"
        front = self.pareto_front("latency", second) if "latency" in measured else None
        text = markdown(self.results, self.comparison, front)
        if self.output_dir is not None:
            self.output_dir.mkdir(parents=True, exist_ok=True)
            (self.output_dir / "report.md").write_text(text, encoding="utf-8")
        return text

    def plot_results(self, path: str | Path | None = None) -> Figure:
        """Draw every metric that was measured, with error bars that are 95 % intervals.

        Args:
            path: where to write the picture; otherwise results.png in `output_dir`, where there is one.

        Raises:
            ValueError: nothing was measured yet.
        """
        from tinytorch.benchmarking import plots

        figure = plots.bar_chart(self._measured())
        return self._written(figure, path, "results.png")

    def plot_pareto_frontier(
        self, x_metric: str = "latency", y_metric: str = "accuracy", path: str | Path | None = None
    ) -> Figure:
        """Draw models by two metrics, with intervals; one whose intervals overlap the front is undecided.

        Args:
            x_metric: "latency", "accuracy", "memory" or "energy".
            y_metric: another one of them.
            path: where to write the picture; otherwise pareto.png in `output_dir`, where there is one.

        Raises:
            ValueError: as for `pareto_front`.
        """
        from tinytorch.benchmarking import plots

        points = self.pareto_front(x_metric, y_metric)
        results = self._measured()
        labels = [f"{metric} ({_unit(results[metric])})" for metric in (x_metric, y_metric)]
        return self._written(plots.front_chart(points, *labels), path, "pareto.png")

    def pareto_front(self, x_metric: str = "latency", y_metric: str = "accuracy") -> tuple[Point, ...]:
        """Say of each model whether it is on the front of two metrics, dominated, or neither for sure.

        Raises:
            ValueError: nothing was measured yet, not one of these metrics, or the same one twice.
        """
        results = self._measured()
        if x_metric == y_metric:
            raise ValueError(f"`x_metric` and `y_metric` must be two metrics, got {x_metric!r} for both")
        for name, metric in (("x_metric", x_metric), ("y_metric", y_metric)):
            if metric not in results:
                why = self.results.get(metric, "not one of the metrics")
                raise ValueError(
                    f"`{name}` must be one of {', '.join(results)}, got {metric!r}, which is {why}"
                )
        intervals = [
            {name: result.mean_interval for name, result in results[metric].items()}
            for metric in (x_metric, y_metric)
        ]
        return pareto_front(
            *intervals,
            more_x_is_better=_MORE_IS_BETTER[x_metric],
            more_y_is_better=_MORE_IS_BETTER[y_metric],
        )

    def _measured(self) -> dict[str, Results]:
        """Return the results that are numbers."""
        measured = {metric: found for metric, found in self.results.items() if not isinstance(found, str)}
        if not measured:
            raise ValueError("there are no results yet: call run_full_benchmark() first")
        return measured

    def _written(self, figure: Figure, path: str | Path | None, name: str) -> Figure:
        from tinytorch.benchmarking import plots

        if path is not None or self.output_dir is not None:
            plots.save(figure, path if path is not None else Path(self.output_dir or "") / name)
        return figure


def _folder(path: Any) -> Path:
    """Return the path of a folder that exists, or can be made where something else exists."""
    if not isinstance(path, str | Path):
        raise ValueError(f"`output_dir` must be the path of a folder, got {path!r}")
    folder = Path(path)
    nearest = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    if not nearest.is_dir():
        raise ValueError(f"`output_dir` must be a folder, or new, got '{folder}': '{nearest}' is a file")
    return folder


def _unit(results: Results) -> str:
    return str(next(iter(results.values())).metadata["unit"])
