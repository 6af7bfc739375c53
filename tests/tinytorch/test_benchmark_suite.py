"""The suite runs everything, reports it, draws it with error bars, and invents nothing."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tinytorch as tt
from tinytorch.benchmarking import energy
from tinytorch.benchmarking.benchmark import Benchmark, BenchmarkResult, BenchmarkSuite, RefusedModel
from tinytorch.benchmarking.energy import EnergyCounter

RNG = np.random.default_rng(0)
X, LABELS = RNG.standard_normal((12, 4)).astype(np.float32), RNG.integers(0, 3, 12)


def models():
    rng = np.random.default_rng(1)
    wide = tt.Sequential(tt.Linear(4, 64, rng=rng), tt.ReLU(), tt.Linear(64, 3, rng=rng))
    return {"wide": wide, "small": tt.Linear(4, 3, rng=rng)}


@pytest.fixture(autouse=True)
def no_counters(monkeypatch, tmp_path):
    monkeypatch.setattr(energy, "_POWERCAP", tmp_path / "nothing")


def suite(data=(X, LABELS), **options):
    return BenchmarkSuite(models(), data, measurement_runs=2, warmup_runs=1, **options)


def test_a_full_benchmark_has_every_metric_of_every_model():
    full = suite()
    results = full.run_full_benchmark()
    assert list(results) == ["latency", "accuracy", "memory", "energy"]
    assert results is full.results
    for metric in ("latency", "accuracy", "memory"):
        assert list(results[metric]) == ["wide", "small"]
        json.dumps({name: result.to_dict() for name, result in results[metric].items()}, allow_nan=False)
    assert results["energy"] == "unavailable"
    assert full.comparison["small"].compression.estimate == (4 * 64 + 64 + 64 * 3 + 3) / (4 * 3 + 3)


def test_the_report_says_what_was_measured_and_what_was_not():
    full = suite()
    full.run_full_benchmark()
    report = full.generate_report()
    for heading in ("# Benchmark", "## Latency", "## Accuracy", "## Memory", "## Energy", "## Pareto front"):
        assert f"\n{heading}\n" in f"\n{report}"
    assert "Unavailable: no counter of this machine may be read, and energy is not estimated." in report
    assert "Nothing is ranked by it. What is wrong with it:" in report
    assert "-88 points" in report
    assert "nan" not in report
    assert "inf" not in report.replace("infinite", "")


def test_without_labels_accuracy_is_unavailable_and_not_scored():
    full = suite(X)
    assert full.run_full_benchmark()["accuracy"] == "unavailable"
    report = full.generate_report()
    assert "Unavailable: the data has no labels." in report
    assert "efficiency score" not in report
    with pytest.raises(
        ValueError, match="`y_metric` must be one of latency, memory, got 'accuracy', which is una"
    ):
        full.plot_pareto_frontier()
    assert full.plot_pareto_frontier(y_metric="memory")


def test_nothing_is_reported_before_anything_was_measured():
    for show in ("generate_report", "plot_results", "plot_pareto_frontier"):
        with pytest.raises(ValueError, match=r"no results yet: call run_full_benchmark\(\) first"):
            getattr(suite(), show)()


def test_a_metric_that_does_not_exist_cannot_be_drawn():
    full = suite()
    full.run_full_benchmark()
    with pytest.raises(ValueError, match=r"`x_metric` must be one of .*got 'speed', which is not one of the"):
        full.plot_pareto_frontier("speed")
    with pytest.raises(ValueError, match="`y_metric` must be two metrics, got 'memory' for both"):
        full.plot_pareto_frontier("memory", "memory")


def test_a_folder_that_cannot_be_one_is_refused_before_anything_is_measured(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", str(tmp_path / "file"), tmp_path / "file" / "deep" / "er"):
        with pytest.raises(ValueError, match=r"`output_dir` must be a folder, or new, .*file' is a file"):
            suite(output_dir=path)
    with pytest.raises(ValueError, match="`output_dir` must be the path of a folder, got 3"):
        suite(output_dir=3)
    monkeypatch.chdir(tmp_path)
    for path in ("", ".", "new/deep", tmp_path / "new"):
        assert suite(output_dir=path).output_dir == Path(path)


@pytest.mark.parametrize("metric", ["latency", "memory"])
def test_less_time_and_fewer_bytes_and_more_accuracy_are_better(metric):
    full = suite()
    full.results = {
        metric: {name: BenchmarkResult(metric, [v] * 6) for name, v in (("bad", 2.0), ("good", 1.0))},
        "accuracy": {name: BenchmarkResult("accuracy", [v] * 6) for name, v in (("bad", 0.1), ("good", 0.9))},
    }
    bad, good = full.pareto_front(metric, "accuracy")
    assert (bad.place, bad.beaten_by, good.place) == ("dominated", ("good",), "front")


def test_error_bars_are_the_intervals():
    full = suite()
    results = full.run_full_benchmark()
    figure = full.plot_results()
    assert [axes.get_title() for axes in figure.axes] == ["latency", "accuracy", "memory"]
    bars = figure.axes[1].containers[0].lines[2][0].get_segments()
    for segment, result in zip(bars, results["accuracy"].values(), strict=True):
        assert segment[:, 1].tolist() == pytest.approx([result.ci_lower, result.ci_upper])
    assert figure.axes[0].get_ylabel() == "latency (ms)"


def test_the_front_is_drawn_with_both_intervals_and_every_name():
    full = suite()
    full.run_full_benchmark()
    axes = full.plot_pareto_frontier().axes[0]
    assert {text.get_text() for text in axes.texts} == {"wide", "small"}
    assert all(container.has_xerr and container.has_yerr for container in axes.containers)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("latency (ms)", "accuracy (fraction)")


def test_files_are_written_where_they_are_wanted_and_nowhere_else(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plain = suite()
    plain.run_full_benchmark()
    plain.generate_report()
    plain.plot_results()
    assert list(tmp_path.iterdir()) == []
    there = suite(output_dir=tmp_path / "out")
    there.run_full_benchmark()
    report = there.generate_report()
    there.plot_results()
    there.plot_pareto_frontier()
    there.plot_results(tmp_path / "other" / "chart.svg")
    assert (tmp_path / "out" / "report.md").read_text() == report
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "pareto.png",
        "report.md",
        "results.png",
    ]
    assert (tmp_path / "other" / "chart.svg").read_text().startswith("<?xml")


def test_what_was_finished_before_a_failure_is_kept():
    calls = []

    class Late:
        def __call__(self, x):
            calls.append(1)
            if len(calls) > 4:
                raise RuntimeError("late")
            return X[:, :3]

    full = BenchmarkSuite({"late": Late()}, (X, LABELS))
    with pytest.raises(RefusedModel, match="'late' raised RuntimeError"):
        full.run_full_benchmark()
    assert full.results["memory"]["late"].mean == 0
    assert "accuracy" in full.results
    assert "latency" not in full.results
    assert "## Memory" in full.generate_report()


def counter_at(root, start_uj, range_uj=1000, packages=1):
    for number in range(packages):
        package = root / f"intel-rapl:{number}"
        package.mkdir(parents=True)
        (package / "energy_uj").write_text(f"{start_uj}\n")
        (package / "max_energy_range_uj").write_text(f"{range_uj}\n")
        part = root / f"intel-rapl:{number}:0"  # counted in the package already
        part.mkdir()
        (part / "energy_uj").write_text("5\n")
    return EnergyCounter.find(root)


def spending(root, microjoules, range_uj, packages):
    """A model that uses so much energy in each package."""

    def call(x):
        for number in range(packages):
            path = root / f"intel-rapl:{number}" / "energy_uj"
            path.write_text(str((int(path.read_text()) + microjoules) % (range_uj + 1)))
        return x

    return call


@pytest.mark.parametrize("packages", [1, 2])
def test_energy_is_what_the_counters_say_also_where_they_begin_anew(tmp_path, packages, monkeypatch):
    root = tmp_path / "powercap"
    counter = counter_at(root, 10**6 - 200, range_uj=10**6, packages=packages)
    model = spending(root, 70, 10**6, packages)
    monkeypatch.setattr(energy, "_BLOCK_S", 0.0)
    result = Benchmark({"m": model}, X, measurement_runs=3).run_energy_benchmark(counter)["m"]
    assert result.values == pytest.approx((packages * 70e-6,) * 3)
    assert int((root / "intel-rapl:0" / "energy_uj").read_text()) < 1000  # it began anew while it was read
    monkeypatch.setattr(energy, "_BLOCK_S", 0.01)
    result = Benchmark({"m": model}, X, measurement_runs=3).run_energy_benchmark(counter)["m"]
    assert result.mean == pytest.approx(packages * 70e-6)
    assert result.metadata["unit"] == "J"


def test_energy_is_unavailable_with_a_reason_where_nothing_can_be_read(tmp_path):
    assert "no energy counters" in EnergyCounter.find(tmp_path / "none")
    counter_at(tmp_path, 5)
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("many")
    assert "cannot be read" in EnergyCounter.find(tmp_path)
    (tmp_path / "intel-rapl:0" / "energy_uj").unlink()
    assert "cannot be read" in EnergyCounter.find(tmp_path)


def test_counters_for_the_administrator_alone_are_unavailable(tmp_path, monkeypatch):
    counter_at(tmp_path, 5)

    def forbidden(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", forbidden)
    assert EnergyCounter.find(tmp_path) == "the energy counters may be read by the administrator alone"


def test_importing_is_quick_and_does_not_draw():
    heavy = ("scipy", "pandas", "matplotlib", "tabulate", "threadpoolctl", "numba")
    code = f"import sys, tinytorch.benchmarking.benchmark; print([m for m in {heavy} if m in sys.modules])"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"
