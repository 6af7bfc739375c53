"""Questions about one model: parameters, memory, latency, and passes, each with a known answer."""

import gc
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest

import tinytorch as tt
from tinytorch.core.layers import Layer
from tinytorch.core.tensor import OBSERVER, Parameter, Tensor
from tinytorch.perf.memoization import enable_kv_cache
from tinytorch.perf.profiling import Profiler, timer

p = Profiler()


def test_parameters_are_counted_once_also_when_shared():
    shared = tt.Linear(4, 5)
    assert p.count_parameters(tt.Sequential(shared, tt.ReLU(), tt.Linear(5, 2))) == 25 + 12
    assert p.count_parameters(tt.Sequential(shared, shared)) == 25
    assert p.count_parameters(tt.ReLU()) == 0


def test_memory_of_a_linear_layer_is_that_of_its_arrays():
    found = p.measure_memory(tt.Linear(100, 5000), (500, 100))
    assert found["parameter_memory_mb"] == 505_000 * 4 / 1e6
    assert found["input_memory_mb"] == 500 * 100 * 4 / 1e6
    # NumPy needs a buffer of 8192 numbers besides, for adding the bias.
    assert found["activation_memory_mb"] == pytest.approx(500 * 5000 * 4 / 1e6, abs=0.04)
    assert found["buffer_memory_mb"] == 0
    parts = [found[f"{name}_memory_mb"] for name in ("parameter", "buffer", "input", "activation")]
    assert found["peak_memory_mb"] == pytest.approx(sum(parts))
    assert found["memory_efficiency"] == pytest.approx(parts[0] / sum(parts))


def test_memory_of_running_statistics_is_that_of_buffers():
    assert p.measure_memory(tt.BatchNorm2d(16), (1, 16, 2, 2))["buffer_memory_mb"] == 2 * 16 * 4 / 1e6


def test_activations_are_what_is_held_at_one_time():
    deep = tt.Sequential(*[tt.Tanh() for _ in range(10)])
    found = p.measure_memory(deep, (1, 250_000))
    assert found["activation_memory_mb"] == pytest.approx(2.0, abs=0.01)  # one in, one out, freed after


def test_what_is_made_once_is_no_activation():
    class Caching(Layer):
        kept = None

        def forward(self, x):
            if self.kept is None:
                self.kept = np.ones(5_000_000, np.uint8)
            return x

    found = p.measure_memory(Caching(), (1, 4))
    assert found["activation_memory_mb"] == pytest.approx(0, abs=0.01)
    assert found["buffer_memory_mb"] == 5


def test_arrays_in_containers_and_objects_are_buffers_and_views_take_nothing_more():
    class Holding(Layer):
        def __init__(self):
            self.table = {"a": np.ones(10**6, np.uint8), "b": [(np.ones(10**6, np.uint8),)]}
            self.own = SimpleNamespace(array=np.ones(10**6, np.uint8))
            self.scale = Parameter(np.ones(250_000))
            self.first, self.again = self.scale.data[:1], self.table["a"]

        def forward(self, x):
            return x

    found = p.measure_memory(Holding(), (1, 4))
    assert found["parameter_memory_mb"] == 1
    assert found["buffer_memory_mb"] == 3
    assert found["peak_memory_mb"] == pytest.approx(4, abs=0.01)


def test_an_enabled_cache_is_a_buffer():
    model = tt.GPT(11, 8, 2, 2, 16, rng=np.random.default_rng(0)).eval()
    before = p.measure_memory(model, (1, 4))["buffer_memory_mb"]
    cache = enable_kv_cache(model)
    found = p.measure_memory(model, (1, 4))["buffer_memory_mb"]
    assert found == pytest.approx(before + cache.get_memory_usage()["bytes"] / 1e6, rel=1e-12)


def test_memory_that_two_parameters_share_is_no_negative_buffer():
    class Shared(Layer):
        def __init__(self):
            self.a, self.b = Parameter(np.ones(8)), Parameter(np.ones(8))
            self.b.data = self.a.data

        def forward(self, x):
            return x

    assert p.measure_memory(Shared(), (1, 4))["buffer_memory_mb"] == 0


class Ticking(Layer):
    """Takes 1, 4, 9, ... milliseconds of a clock."""

    def __init__(self, clock):
        self.clock = clock
        self.calls = 0
        self.seen = set()

    def forward(self, x):
        from tinytorch.core.autograd import recording

        self.calls += 1
        self.clock.now += self.calls**2 * 10**6
        self.seen.add((self.training, recording(), tracemalloc.is_tracing(), gc.isenabled()))
        return x


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 0

        def __call__(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(timer, "perf_counter_ns", clock)
    return clock


@pytest.mark.parametrize(("warmup", "iterations", "median"), [(0, 5, 9), (10, 100, 3660.5), (3, 4, 30.5)])
def test_latency_is_the_median_after_warming_up(clock, warmup, iterations, median):
    layer = Ticking(clock).train()
    assert p.measure_latency(layer, Tensor([1.0]), warmup, iterations) == median
    assert layer.calls == warmup + iterations
    assert layer.seen == {(False, False, False, False)}  # evaluation, no gradients, no tracing, no collection
    assert layer.training
    assert gc.isenabled()


@pytest.mark.parametrize("iterations", [0, -3, 2.5, None])
def test_latency_needs_at_least_one_iteration(iterations):
    with pytest.raises(ValueError, match="`iterations` must be a positive whole number, got"):
        p.measure_latency(tt.ReLU(), Tensor([1.0]), iterations=iterations)


def test_warming_up_may_be_left_out_but_not_negative():
    with pytest.raises(ValueError, match="`warmup` must be a whole number of zero or more, got -1"):
        p.measure_latency(tt.ReLU(), Tensor([1.0]), warmup=-1)


@pytest.mark.parametrize("ask", [p.measure_latency, p.profile_forward_pass, p.profile_backward_pass])
def test_an_empty_input_is_refused(ask):
    with pytest.raises(ValueError, match="`input_tensor` must hold at least one number"):
        ask(tt.Linear(3, 2), Tensor(np.zeros((0, 3))))


@pytest.mark.parametrize("ask", [p.measure_latency, p.profile_forward_pass, p.profile_backward_pass])
def test_a_model_that_cannot_be_called_is_refused(ask):
    with pytest.raises(ValueError, match="`model` must be a Layer, or something else to call, got str"):
        ask("model", Tensor([[1.0]]))


class Failing(Layer):
    def forward(self, x):
        raise ZeroDivisionError


@pytest.mark.parametrize("ask", [p.measure_latency, p.profile_forward_pass, p.profile_backward_pass])
def test_a_model_that_raises_is_left_as_it_was(ask):
    model = tt.Sequential(tt.Linear(3, 3), Failing()).train()
    model[0].weight.grad = gradient = np.ones((3, 3))
    with pytest.raises(ZeroDivisionError):
        ask(model, Tensor(np.ones((2, 3))))
    assert model[0].training
    assert model[0].weight.grad is gradient
    assert model[0].weight.requires_grad
    assert gc.isenabled()
    assert not tracemalloc.is_tracing()
    assert OBSERVER.get() is None
    assert not timer.RUNNING
    assert not timer.TRACING


def test_a_forward_pass_counts_the_whole_batch():
    model = tt.Sequential(tt.Linear(64, 32), tt.ReLU())
    found = p.profile_forward_pass(model, Tensor(np.ones((8, 64))))
    assert (found["parameters"], found["macs"]) == (65 * 32, 8 * 64 * 32)
    assert found["flops"] == 8 * (2 * 64 * 32 + 32)
    assert found["uncounted"] == ()
    assert found["gflops_per_second"] == pytest.approx(found["flops"] / found["latency_ms"] / 1e6)
    assert found["parameter_memory_mb"] == 65 * 32 * 4 / 1e6
    assert found["bottleneck"] in {"linear", "relu", "Linear", "ReLU", "Sequential"}
    assert 0 < found["bottleneck_share"] <= 1


def test_tokens_can_be_profiled_as_they_are():
    model = tt.GPT(9, 8, 1, 2, 6)
    found = p.profile_forward_pass(model, [[1, 2, 3], [4, 5, 6]])
    assert found["flops"] == 2 * p.count_flops(model, (1, 3)).flops


def test_a_layer_is_profiled_by_its_input_shape():
    found = p.profile_layer(tt.Conv2d(1, 4, 3), (2, 1, 8, 8))
    forward = p.profile_forward_pass(tt.Conv2d(1, 4, 3), np.zeros((2, 1, 8, 8)))
    assert set(found) == {"layer_name", *forward}
    assert found["layer_name"] == "Conv2d"
    assert found["parameters"] == 40
    assert found["macs"] == 2 * 4 * 36 * 9


def test_a_step_of_training_is_profiled_and_leaves_no_trace():
    model = tt.Sequential(tt.Linear(6, 8), tt.Dropout(0.5), tt.Linear(8, 3)).train()
    state, drawn = model.state_dict(), model[1].rng.bit_generator.state
    labels = np.array([0, 1, 2, 0])

    def loss(out):
        assert all(parameter.grad is None for parameter in model.parameters())
        return tt.CrossEntropyLoss()(out, labels)

    found = p.profile_backward_pass(model, Tensor(np.ones((4, 6))), loss)
    macs = 4 * (6 * 8 + 8 * 3)
    # The input needs no gradient, so the first layer makes one product less.
    assert found["backward_flops"] == 2 * (2 * macs - 4 * 48) + 4 * (8 + 3)
    assert found["forward_flops"] == 2 * macs + 4 * 8 + 5 * 12
    assert found["gradient_memory_mb"] == (56 + 27) * 4 / 1e6
    assert found["optimizer_memory_mb"]["adam"] == 2 * found["gradient_memory_mb"]
    assert found["total_latency_ms"] == found["forward_latency_ms"] + found["backward_latency_ms"]
    assert found["uncounted"] == ("cross_entropy backward", "multiply backward")
    assert model.training
    assert model[1].rng.bit_generator.state == drawn
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, state[name])
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_backward_pass_needs_parameters():
    with pytest.raises(ValueError, match="`model` must have parameters that require a gradient"):
        p.profile_backward_pass(tt.ReLU(), Tensor(np.ones((2, 3))))
