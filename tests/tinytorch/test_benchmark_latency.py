"""Planted ratios on a clock that the models move themselves, and the order in which they take turns."""

import math

import numpy as np
import pytest

import tinytorch as tt
from tinytorch.benchmarking import latency
from tinytorch.benchmarking.benchmark import Benchmark
from tinytorch.benchmarking.samples import LatencySamples

X = np.ones((3, 2), np.float32)


class Clock:
    """Moves only when a model is called; it knows who was."""

    def __init__(self):
        self.now_ns = 0
        self.called = []
        self.seen = []
        self.rng = np.random.default_rng(0)

    def __call__(self):
        return self.now_ns

    def __deepcopy__(self, memo):
        return self  # there is one time for all copies


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(latency, "_clock", clock)
    return clock


class Taking:
    """A model that moves the clock, by up to 30 % more while the machine is slow."""

    def __init__(self, clock, name, microseconds, noise=0.0):
        self.clock, self.called, self.duration, self.noise = clock, name, microseconds, noise

    def __call__(self, x):
        clock = self.clock
        slow = 1 + 0.3 * math.sin(clock.now_ns / 1e9)
        clock.now_ns += int(1000 * self.duration * slow * (1 + self.noise * clock.rng.exponential()))
        clock.called.append(self.called)
        clock.seen.append((self.called, x.ctypes.data, x.tobytes()))
        return x


@pytest.mark.parametrize("ratio", [0.5, 0.98, 1.0, 1.02, 2.0, 30.0])
def test_the_true_ratio_lies_in_the_interval_though_the_machine_slows_down(clock, ratio):
    models = {"slow": Taking(clock, "slow", 900 * ratio, 0.1), "fast": Taking(clock, "fast", 900, 0.1)}
    speedup = Benchmark(models, X).compare_models("latency")["fast"].speedup
    assert speedup.low <= ratio <= speedup.high
    # Where a run is a single slow call, its noise is all in the interval.
    assert speedup.high / speedup.low < (1.05 if ratio <= 2 else 1.4)


def test_values_are_milliseconds_of_a_pass_one_for_each_run(clock):
    def call(x):
        clock.now_ns += 2_000_000
        return x

    result = Benchmark({"m": call}, X, measurement_runs=7).run_latency_benchmark()["m"]
    assert result.values == (2.0,) * 7
    assert result.metadata["unit"] == "ms"
    assert result.metadata["copies_per_value"] == 0  # a function cannot lie elsewhere


def test_quick_calls_are_repeated_until_a_sample_is_long_enough(clock):
    def call(x):
        clock.now_ns += 500
        return x

    result = Benchmark({"m": call}, X, measurement_runs=2).run_latency_benchmark()["m"]
    assert result.metadata["calls_per_sample"] == 40
    assert result.values == (0.0005, 0.0005)


def test_a_pass_goes_over_all_data_sets(clock):
    def call(x):
        clock.now_ns += 1_000_000 * len(x)
        return x

    result = Benchmark([call], {"a": X, "b": X[:1]}, measurement_runs=2).run_latency_benchmark()["model_0"]
    assert result.mean == 4.0
    assert result.metadata["inputs"] == {"a": [3, 2], "b": [1, 2]}


def test_models_take_turns_in_random_order(clock):
    models = {name: Taking(clock, name, 3000) for name in "abc"}
    samples = Benchmark(models, X, warmup_runs=0, measurement_runs=20).latency_samples()
    runs, copies, rounds, _ = samples.samples_ns.shape
    measured = np.array(clock.called[-(runs * copies * (rounds + 1) * 3) :]).reshape(-1, rounds + 1, 3)
    turns = [tuple(turn) for turn in measured[:, 1:].reshape(-1, 3).tolist()]  # the first is not timed
    assert all(set(turn) == set("abc") for turn in turns)
    assert len(set(turns)) == 6


def test_all_models_get_the_same_copy_of_the_inputs_and_each_run_another(clock):
    models = {name: Taking(clock, name, 3000) for name in "ab"}
    Benchmark(models, X, measurement_runs=10).run_latency_benchmark()
    addresses = {name: [where for who, where, _ in clock.seen[-100:] if who == name] for name in "ab"}
    assert set(addresses["a"]) == set(addresses["b"])
    assert len(set(addresses["a"])) > 1
    assert {content for _, _, content in clock.seen} == {X.tobytes()}


def test_warm_up_calls_are_made_and_not_measured(clock):
    calls = []

    def cold(x):
        calls.append(1)
        clock.now_ns += 1_000_000 if len(calls) > 12 else 50_000_000
        return x

    result = Benchmark([cold], X, warmup_runs=15, measurement_runs=3).run_latency_benchmark()["model_0"]
    assert result.max_val == 1.0


def test_the_same_seed_gives_the_same_order(clock):
    def turns(seed):
        clock.called.clear()
        clock.now_ns = 0
        models = {name: Taking(clock, name, 3000) for name in "abc"}
        Benchmark(models, X, measurement_runs=2, rng=np.random.default_rng(seed)).run_latency_benchmark()
        return clock.called.copy()

    assert turns(1) == turns(1)
    assert turns(1) != turns(2)


def test_layers_are_measured_on_many_copies_and_functions_on_one():
    layer = tt.Linear(2, 2)
    bench = Benchmark({"layer": layer, "function": lambda x: layer(x).data}, X, measurement_runs=6)
    samples = bench.latency_samples()
    assert samples.single == ("function",)
    assert samples.samples_ns.shape[1] > 1
    comparison = bench.compare_models("latency")
    assert len(comparison.warnings) == 1
    assert "'function' could not be copied" in comparison.warnings[0]


class Forgetful:
    """Its copies answer something else."""

    def __init__(self):
        self.weight = np.ones((2, 2), np.float32)

    def __call__(self, x):
        return x @ self.weight

    def __deepcopy__(self, memo):
        copy = Forgetful()
        copy.weight[...] = 7
        return copy


class Uncopyable(Forgetful):
    def __deepcopy__(self, memo):
        raise RuntimeError("there is only one")


@pytest.mark.parametrize("kind", [Forgetful, Uncopyable])
def test_copies_that_are_not_the_model_are_not_measured(kind):
    assert Benchmark({"m": kind()}, X, measurement_runs=1).latency_samples().single == ("m",)


def samples_of(a, b, single=()):
    stacked = np.stack([a, b], axis=-1)[:, None, :, :]
    return LatencySamples(("a", "b"), stacked, (1, 1), single)


def test_a_few_slow_calls_do_not_move_the_speedup():
    a, b = np.full((10, 8), 2000.0), np.full((10, 8), 1000.0)
    b[::3, ::4] = 90_000.0
    assert samples_of(a, b).speedup(1).estimate == pytest.approx(2.0)


def test_the_first_model_against_itself_is_exact():
    speedup = samples_of(np.ones((10, 8)), np.ones((10, 8))).speedup(0)
    assert (speedup.low, speedup.high) == (1, 1)


def test_too_few_runs_have_no_interval_and_say_how_many_are_needed():
    few = samples_of(np.ones((5, 8)), np.ones((5, 8)))
    assert (few.speedup(1).low, few.speedup(1).high) == (0.0, math.inf)
    assert "`measurement_runs` to 6 or more" in few.warnings[0]
    assert samples_of(np.ones((6, 8)), np.ones((6, 8))).speedup(1).known


def test_what_was_measured_on_one_object_has_room_for_its_place_in_memory():
    a, b = np.full((10, 8), 1030.0), np.full((10, 8), 1000.0)
    assert samples_of(a, b).speedup(1).low > 1.02
    assert samples_of(a, b, single=("b",)).speedup(1).low < 1
