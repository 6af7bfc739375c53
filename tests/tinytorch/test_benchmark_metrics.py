"""Relative metrics, the efficiency score that ranks wrongly, and fronts with uncertainty."""

import itertools
import math
import tracemalloc

import numpy as np
import pytest

import tinytorch as tt
from tinytorch.benchmarking.benchmark import (
    Benchmark,
    BenchmarkResult,
    Comparison,
    RelativeMetrics,
    counterexamples,
    efficiency_score,
)
from tinytorch.benchmarking.findings import accuracy_results, compared
from tinytorch.benchmarking.metrics import points, ratio
from tinytorch.benchmarking.pareto import pareto_front
from tinytorch.benchmarking.statistics import Interval

EYE = np.eye(4, dtype=np.float32)


class Table:
    """Answers the i-th example with the i-th of its classes, and holds so many bytes."""

    def __init__(self, classes, size):
        self.classes, self.held = classes, np.zeros(size, np.int8)

    def __call__(self, x):
        return EYE[self.classes]


def tables():
    labels = [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]
    wrong = [*labels[:7], 0, 1, 2]
    models = {"first": Table(wrong, 1200), "second": Table(labels, 300)}
    return Benchmark(models, (np.zeros((10, 2), np.float32), labels), measurement_runs=1)


def test_accuracy_is_the_share_of_labels_with_the_largest_score():
    results = tables().run_accuracy_benchmark()
    assert results["first"].mean == 0.7
    assert results["second"].mean == 1.0
    assert results["first"].metadata["correct"] == 7
    # Ten of ten: the exact one-sided bound at 2.5 % is the tenth root of it.
    assert results["second"].ci_lower == pytest.approx(0.025**0.1)
    assert results["second"].ci_upper == 1.0


def test_each_position_has_a_label():
    tokens = np.array([[0, 1, 2], [3, 0, 1]])
    bench = Benchmark({"echo": lambda ids: EYE[ids]}, {"text": (tokens, [[0, 1, 2], [3, 0, 2]])})
    result = bench.run_accuracy_benchmark()["echo"]
    assert (result.metadata["correct"], result.metadata["total"]) == (5, 6)


INPUTS, LABELS = np.eye(4, dtype=np.float32), [0, 1, 2, 0]


@pytest.mark.parametrize(
    ("data", "names"),
    [
        ((INPUTS, LABELS), ("dataset",)),
        ((tt.Tensor(INPUTS), np.array(LABELS)), ("dataset",)),
        (tt.TensorDataset(INPUTS, LABELS), ("dataset",)),
        ([(INPUTS.tolist(), LABELS)], ("dataset_0",)),
        ({"a": (INPUTS, tt.Tensor(LABELS)), "b": tt.TensorDataset(INPUTS, LABELS)}, ("a", "b")),
    ],
)
@pytest.mark.parametrize("layer", [True, False])
def test_data_come_in_many_forms(data, names, layer):
    class Plain:
        def forward(self, x):
            return np.asarray(x, np.float32)

    model = tt.Sequential(tt.ReLU()) if layer else Plain()
    bench = Benchmark([model], data, measurement_runs=1)
    assert bench.dataset_names == names
    assert bench.run_accuracy_benchmark()["model_0"].mean == 0.75
    assert bench.compare_models()["model_0"].accuracy_change == Interval.exact(0.0)


@pytest.mark.parametrize("data", [INPUTS, tt.Tensor(INPUTS), tt.TensorDataset(INPUTS), [INPUTS, INPUTS]])
def test_data_without_labels_can_be_timed(data):
    bench = Benchmark([tt.ReLU()], data, measurement_runs=1)
    assert not bench.labelled
    assert bench.run_latency_benchmark()["model_0"].count == 1


def test_memory_is_counted_exactly():
    result = tables().run_memory_benchmark()["first"]
    assert (result.mean, result.ci_lower, result.ci_upper) == (1200, 1200, 1200)
    assert result.metadata["unit"] == "bytes"


@pytest.mark.parametrize("traced", [False, True])
def test_the_peak_of_a_pass_is_what_it_allocates(traced):
    def wasteful(x):
        return np.zeros((10, 100_000), np.float32)[:, :4] + x[:, :1]

    bench = Benchmark({"m": wasteful}, np.zeros((10, 2), np.float32))
    if traced:
        tracemalloc.start()
    try:
        held = np.zeros(10**7, np.uint8)
        peak = bench.run_memory_benchmark()["m"].metadata["peak_bytes"]
        assert tracemalloc.is_tracing() == traced
    finally:
        tracemalloc.stop()
    assert peak == pytest.approx(4_000_000, rel=0.01)
    assert held.nbytes > peak


def test_models_are_compared_with_the_first_one():
    comparison = tables().compare_models()
    first, second = comparison
    assert (first.speedup, first.accuracy_change) == (Interval.exact(1.0), Interval.exact(0.0))
    assert second.compression == Interval.exact(4.0)
    assert second.accuracy_change.estimate == pytest.approx(0.3)
    assert second.accuracy_change.low < 0.3 < second.accuracy_change.high
    assert first.finding == "the baseline"
    assert "smaller" in second.finding


@pytest.mark.parametrize("metric", ["latency", "memory", "accuracy"])
def test_only_what_is_asked_for_is_measured(metric):
    row = tables().compare_models(metric)["second"]
    measured = {"latency": row.speedup, "memory": row.compression, "accuracy": row.accuracy_change}
    assert [name for name, interval in measured.items() if interval is not None] == [metric]
    assert row.efficiency_score is None


def test_several_data_sets_count_together():
    outcomes = {"m": [np.array([True, False]), np.array([True] * 8)]}
    result = accuracy_results(outcomes, ["a", "b"], {})["m"]
    assert result.mean == 0.9
    assert result.metadata["by_dataset"] == {"a": 0.5, "b": 1.0}


def test_a_model_without_arrays_has_no_compression():
    memory = {name: BenchmarkResult("memory", [size], {}) for name, size in (("a", 100), ("b", 0))}
    assert compared(["a", "b"], None, memory, None)["b"].compression is None


def test_differences_are_shown_only_where_intervals_leave_out_equality():
    def finding(speedup, change):
        return RelativeMetrics("b", "a", Interval(*speedup), None, Interval(*change)).finding

    assert finding((1.1, 1.05, 1.2), (0.01, 0.002, 0.02)) == "faster, more accurate"
    assert finding((0.9, 0.8, 0.95), (-0.01, -0.02, -0.001)) == "slower, less accurate"
    assert finding((1.1, 0.99, 1.2), (0.01, -0.01, 0.03)) == (
        "no difference in speed shown, no change of accuracy shown"
    )
    assert "no difference" in finding((3.0, 0.0, math.inf), (0.0, -0.1, 0.1))


def test_a_comparison_is_a_table():
    comparison = tables().compare_models()
    frame = comparison.to_pandas()
    assert list(frame.index) == ["first", "second"]
    assert frame.loc["second", "compression"] == 4.0
    assert frame.loc["second", "accuracy_change_low"] < 0.3
    assert "| second" in str(comparison)
    with pytest.raises(KeyError, match="no model 'third' among first, second"):
        comparison["third"]


def test_nothing_is_ranked_by_the_efficiency_score():
    better = RelativeMetrics("b", "a", *(Interval.exact(v) for v in (2.0, 2.0, 0.03)))
    worse = RelativeMetrics("c", "a", *(Interval.exact(v) for v in (2.0, 2.0, 0.0)))
    assert better.efficiency_score < worse.efficiency_score
    assert [row.name for row in Comparison((better, worse))] == ["b", "c"]


def test_the_efficiency_score_is_the_quoted_formula():
    assert efficiency_score(2.0, 3.0, -0.5) == 4.0
    assert efficiency_score(2.0, 3.0, 0.5) == 4.0


def test_every_counterexample_ranks_the_worse_model_higher():
    examples = counterexamples()
    assert len(examples) == 3
    for example in examples:
        assert example.worse_score > example.better_score
        assert example.worse[2] < example.better[2]
        assert example.worse_score == efficiency_score(*example.worse)
    # In two of them the better model is nowhere worse: no taste can prefer the other.
    assert sum(all(w <= b for w, b in zip(e.worse, e.better, strict=True)) for e in examples) == 2


def test_numbers_are_said_with_their_intervals():
    assert ratio(Interval(2.2, 2.15, 2.26)) == "2.200x [2.150, 2.260]"
    assert ratio(Interval.exact(4.0)) == "4x"
    assert ratio(Interval(2.0, 0.0, math.inf)) == "2x, too few runs for an interval"
    assert points(Interval(-0.012, -0.02, 0.001)) == "-1.20 [-2.00, +0.10]"
    assert ratio(None) == points(None) == "not measured"


def spread(value, half):
    return Interval(value, value - half, value + half)


def places(x, y, **options):
    return {point.name: point for point in pareto_front(x, y, **options)}


def test_without_uncertainty_the_front_is_that_of_brute_force():
    rng = np.random.default_rng(0)
    values = {str(i): rng.integers(0, 8, 2) for i in range(30)}
    found = places(
        {name: Interval.exact(v[0]) for name, v in values.items()},
        {name: Interval.exact(v[1]) for name, v in values.items()},
    )
    for name, (x, y) in values.items():
        beaten = {n for n, (a, b) in values.items() if a <= x and b >= y and (a < x or b > y)}
        assert set(found[name].beaten_by) == beaten
        assert found[name].place == ("dominated" if beaten else "front")


def test_a_model_whose_intervals_overlap_the_front_is_not_called_dominated():
    x = {"a": spread(1.0, 0.1), "b": spread(2.0, 0.1), "c": spread(1.15, 0.1)}
    y = {"a": spread(0.9, 0.01), "b": spread(0.8, 0.01), "c": spread(0.8, 0.01)}
    found = places(x, y)
    assert [found[name].place for name in "abc"] == ["front", "dominated", "undecided"]
    assert found["b"].beaten_by == ("a",)


def test_what_is_not_known_is_never_dominated():
    unknown = Interval(9.0, -math.inf, math.inf)
    found = places(
        {"a": Interval.exact(1.0), "b": unknown}, {"a": Interval.exact(1.0), "b": Interval.exact(0.0)}
    )
    assert found["b"].place == "undecided"


@pytest.mark.parametrize(("more_x", "more_y"), list(itertools.product([False, True], repeat=2)))
def test_the_direction_of_each_metric_can_be_chosen(more_x, more_y):
    corners = {(sx, sy): (float(sx), float(sy)) for sx in (0, 1) for sy in (0, 1)}
    found = pareto_front(
        {str(k): Interval.exact(v[0]) for k, v in corners.items()},
        {str(k): Interval.exact(v[1]) for k, v in corners.items()},
        more_x_is_better=more_x,
        more_y_is_better=more_y,
    )
    assert [point.name for point in found if point.place == "front"] == [str((int(more_x), int(more_y)))]


@pytest.mark.parametrize(("x", "y"), [({}, {}), ({"a": Interval.exact(1)}, {"b": Interval.exact(1)})])
def test_a_front_needs_both_metrics_of_each_model(x, y):
    with pytest.raises(ValueError, match="must be of the same models"):
        pareto_front(x, y)
