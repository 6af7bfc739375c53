"""What cannot be compared is refused, in one sentence that names it; what was changed is put back."""

import contextlib
import gc
import operator
import signal
import sys
import time
import tracemalloc

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

import tinytorch as tt
from tinytorch.benchmarking.benchmark import Benchmark, RefusedModel
from tinytorch.benchmarking.energy import EnergyCounter
from tinytorch.benchmarking.limits import TooSlow, time_limit
from tinytorch.core import inference
from tinytorch.core.autograd import recording
from tinytorch.perf.memoization import enable_kv_cache
from tinytorch.perf.profiling.contents import arrays_of
from tinytorch.perf.profiling.memory import MemoryProfiler

X = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)
LABELS = [0, 1, 2, 0, 1, 2]
RUNS = ("run_latency_benchmark", "run_accuracy_benchmark", "run_memory_benchmark", "compare_models")


def linear(outputs=3, seed=0):
    return tt.Linear(4, outputs, rng=np.random.default_rng(seed))


def bench(*models, data=(X, LABELS), **options):
    named = {f"m{index}": model for index, model in enumerate(models)}
    return Benchmark(named, data, warmup_runs=1, measurement_runs=1, **options)


def nan_in_one_row(x):
    out = x.data @ np.ones((4, 3), np.float32)
    out[2, 1] = np.nan
    return out


def raising(x):
    raise KeyError("no such head")


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize(
    ("model", "said"),
    [
        (linear(5), r"'m1' cannot be compared with 'm0'.*shape \(6, 5\), not \(6, 3\)"),
        (lambda x: np.ones((6, 3)), "'m1' cannot be compared with 'm0'.*float64, not float32"),
        (nan_in_one_row, "'m1' answers NaN for 1 of 6 examples"),
        (raising, "'m1' raised KeyError on 'dataset': 'no such head'"),
        (lambda x: None, "'m1' must answer with one Tensor or array.*got NoneType"),
        (lambda x: (x, x), "'m1' must answer with one Tensor or array.*got tuple"),
        (lambda x: np.array(["a"]), "'m1' must answer with one Tensor or array of numbers.*<U1"),
    ],
)
def test_a_model_that_cannot_be_compared_is_refused_with_the_reason(run, model, said):
    with pytest.raises(RefusedModel, match=said):
        getattr(bench(linear(), model), run)()


def test_the_cause_of_a_model_that_raises_is_kept():
    with pytest.raises(RefusedModel, match="raised KeyError") as caught:
        bench(raising).run_latency_benchmark()
    assert isinstance(caught.value.__cause__, KeyError)


def test_a_model_that_changes_its_inputs_is_refused():
    def greedy(x):
        x *= 2
        return x[:, :3]

    with pytest.raises(RefusedModel, match="'m0' changes its inputs"):
        bench(greedy).run_memory_benchmark()
    assert np.array_equal(X, np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32))


def tired_after(count, does):
    """A model that does something else from a call on."""
    calls = []

    def tired(x):
        calls.append(1)
        if len(calls) > count:
            does()
        return np.ones((6, 3))

    return tired


def gives_up():
    raise RuntimeError("tired")


def hangs():
    while True:
        with contextlib.suppress(Exception):
            time.sleep(1)


def run_energy(one, root):
    """Measure with counters that do not move."""
    for name in ("energy_uj", "max_energy_range_uj"):
        path = root / "intel-rapl:0" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("1000")
    return one.run_energy_benchmark(EnergyCounter.find(root))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_model_that_raises_only_later_is_refused_by_name(count, tmp_path):
    model = tired_after(3, gives_up)
    with pytest.raises(RefusedModel, match=r"'m0' raised RuntimeError while it was timed.*tired"):
        bench(model).run_latency_benchmark()
    model = tired_after(count, gives_up)
    with pytest.raises(
        RefusedModel, match=r"'m0' raised RuntimeError while its energy was measured.*tired"
    ) as caught:
        run_energy(bench(model), tmp_path)
    assert isinstance(caught.value.__cause__, RuntimeError)


def leaves():
    raise SystemExit("bye")


def test_a_model_that_leaves_the_program_is_refused_and_the_program_goes_on(tmp_path):
    said = "'m0' raised SystemExit"
    for count in range(4):
        for run in RUNS[:1] if count else RUNS:
            with pytest.raises(RefusedModel, match=said) as caught:
                getattr(bench(tired_after(count, leaves)), run)()
            assert isinstance(caught.value.__cause__, SystemExit)
    with pytest.raises(RefusedModel, match=said):
        run_energy(bench(tired_after(1, leaves)), tmp_path)


def test_a_model_whose_copy_leaves_the_program_is_measured_as_it_is():
    class Alone(tt.Linear):
        def __deepcopy__(self, memo):
            raise SystemExit

    samples = bench(Alone(4, 3)).latency_samples()
    assert samples.single == ("m0",)


def test_a_model_that_raises_while_its_memory_is_traced_is_refused_by_name():
    with pytest.raises(RefusedModel, match=r"'m1' raised RuntimeError while its memory was traced.*tired"):
        bench(lambda x: np.ones((6, 3)), tired_after(1, gives_up)).run_memory_benchmark()
    assert not tracemalloc.is_tracing()


@pytest.mark.timeout(20)
@pytest.mark.parametrize("count", [1, 2])
def test_memory_and_energy_have_a_time_limit(count, tmp_path):
    with pytest.raises(RefusedModel, match=r"'m0' did not end while its energy was measured"):
        run_energy(bench(tired_after(count, hangs), time_limit_s=0.05), tmp_path)
    with pytest.raises(RefusedModel, match=r"'m0' did not end while its memory was traced"):
        bench(tired_after(1, hangs), time_limit_s=0.05).run_memory_benchmark()
    assert not tracemalloc.is_tracing()


def test_counters_that_cannot_be_read_any_more_are_not_the_models_fault(tmp_path):
    (tmp_path / "rapl").mkdir()

    def remove():
        for path in (tmp_path / "rapl").glob("*/energy_uj"):
            path.unlink()

    with pytest.raises(FileNotFoundError):
        run_energy(bench(tired_after(1, remove)), tmp_path / "rapl")


def test_nothing_is_timed_while_memory_is_traced(tmp_path):
    one = bench(linear())
    with MemoryProfiler():
        for run in (one.run_latency_benchmark, one.compare_models, lambda: run_energy(one, tmp_path)):
            with pytest.raises(RuntimeError, match="models cannot be timed while memory is traced"):
                run()
        assert one.run_memory_benchmark()["m0"].mean > 0
    tracemalloc.start()
    try:
        with pytest.raises(RuntimeError, match="or stop `tracemalloc`"):
            one.latency_samples()
    finally:
        tracemalloc.stop()
    assert one.run_latency_benchmark()["m0"].mean > 0


@pytest.mark.timeout(20)
@pytest.mark.parametrize("after", [0, 1, 3, 12])
def test_a_model_that_hangs_is_given_up_and_refused(after):
    calls = []

    def hangs(x):
        calls.append(1)
        while len(calls) > after:
            with contextlib.suppress(Exception):
                time.sleep(1)
        return np.ones((6, 3))

    handler, timer = signal.getsignal(signal.SIGALRM), signal.getitimer(signal.ITIMER_REAL)[0]
    with pytest.raises(RefusedModel, match=r"(took longer than 0.05 s|did not end)"):
        bench(hangs, time_limit_s=0.05).run_latency_benchmark()
    assert signal.getsignal(signal.SIGALRM) is handler
    assert (signal.getitimer(signal.ITIMER_REAL)[0] > 0) == (timer > 0)


def catches_everything_for_ever():
    while True:
        try:
            time.sleep(0.01)
        except:  # noqa: E722 - on purpose
            continue


def suppresses_everything_for_ever():
    while True:
        with contextlib.suppress(BaseException):
            time.sleep(60)


def suppresses_errors_for_ever():
    while True:
        with contextlib.suppress(Exception):
            time.sleep(60)


def hangs_in_the_end_too():
    try:
        time.sleep(60)
    finally:
        time.sleep(60)


def catches_it_and_hangs_then():
    try:
        time.sleep(60)
    except BaseException:  # noqa: BLE001 - on purpose
        time.sleep(60)


def catches_it_twice_and_hangs_then():
    try:
        catches_it_and_hangs_then()
    except BaseException:  # noqa: BLE001 - on purpose
        with contextlib.suppress(BaseException):
            time.sleep(60)
        time.sleep(60)


@pytest.mark.timeout(20)
@pytest.mark.skipif(
    sys.gettrace() is not None, reason="a debugger, or whoever else follows the lines, keeps them"
)
@pytest.mark.parametrize(
    "hangs",
    [
        catches_everything_for_ever,
        suppresses_everything_for_ever,
        suppresses_errors_for_ever,
        hangs_in_the_end_too,
        catches_it_and_hangs_then,
        catches_it_twice_and_hangs_then,
    ],
)
def test_a_model_that_catches_everything_is_given_up_all_the_same(hangs):
    handler, timer = signal.getsignal(signal.SIGALRM), signal.getitimer(signal.ITIMER_REAL)[0]
    with pytest.raises(RefusedModel, match=r"'m0' took longer than 0.05 s"):
        bench(lambda x: hangs(), time_limit_s=0.05).run_latency_benchmark()
    assert sys.gettrace() is None
    assert signal.getsignal(signal.SIGALRM) is handler
    assert (signal.getitimer(signal.ITIMER_REAL)[0] > 0) == (timer > 0)


def test_a_debugger_goes_on_following_after_a_limit():
    def follow(frame, event, argument):
        return None

    before = sys.gettrace()
    sys.settrace(follow)
    try:
        with pytest.raises(RefusedModel, match=r"'m0' took longer than 0.05 s"):
            bench(lambda x: time.sleep(60), time_limit_s=0.05).run_latency_benchmark()
        assert sys.gettrace() is follow
    finally:
        sys.settrace(before)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("hangs", [suppresses_everything_for_ever, suppresses_errors_for_ever])
def test_no_exception_is_left_in_hand_by_a_limit(hangs):
    with pytest.raises(TooSlow), time_limit(0.05):
        hangs()
    assert sys.exc_info() == (None, None, None)


def test_a_limit_longer_than_the_system_can_count_is_none():
    outer = signal.setitimer(signal.ITIMER_REAL, 0)  # an earlier limit would be the one that counts
    try:
        assert bench(lambda x: np.ones((6, 3)), time_limit_s=1e300).run_memory_benchmark()["m0"].mean == 0
    finally:
        signal.setitimer(signal.ITIMER_REAL, *outer)


def test_an_earlier_limit_of_somebody_else_holds():
    class EarlierError(Exception):
        pass

    def ring(number, frame):
        raise EarlierError

    outer = signal.getitimer(signal.ITIMER_REAL)
    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        with pytest.raises(EarlierError), time_limit(30):
            time.sleep(1)
    finally:
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, *outer)


@pytest.mark.parametrize(
    ("models", "said"),
    [
        ([], "at least one model, got none"),
        ({}, "at least one model, got none"),
        ([3], "can be called or have a method forward.*got int for 'model_0'"),
        ([tt.ReLU], "got the class ReLU itself"),
        (tt.ReLU(), r"got ReLU: for a single model write \[model\]"),
        ({1: tt.ReLU()}, "names as keys, got 1"),
    ],
)
def test_wrong_models_are_refused(models, said):
    with pytest.raises(ValueError, match=said):
        Benchmark(models, X)


def test_two_models_of_one_name_are_refused():
    first, second = tt.ReLU(), tt.ReLU()
    first.name = second.name = "relu"
    with pytest.raises(ValueError, match="names of their own, got 'relu' 2 times"):
        Benchmark([first, second], X)


def test_models_of_a_list_are_called_by_their_own_name_or_number():
    named = linear()
    named.name = "mine"
    assert Benchmark([named, linear()], X).names == ("mine", "model_1")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ((X, [0.5, 1, 2, 0, 1, 2]), "must hold whole numbers, got 0.5"),
        ((X, ["a"] * 6), "must hold whole numbers"),
        ((X, [0, 1, 2, 0, 1, np.nan]), "must hold whole numbers, got nan"),
        ((X, [0, 1]), r"one for each of 6 inputs, got shape \(2,\)"),
        ((X, 3), "one for each of 6 inputs"),
        ((X, [-1, 0, 0, 0, 0, 0]), "class indices of zero or more, got -1"),
        ((X, LABELS, LABELS), "got a tuple of 3"),
        ([], "at least one data set"),
        ({}, "at least one data set"),
        (X[:0], "at least one example"),
        (np.float32(3), "at least one example"),
        ("digits", "inputs that are numbers"),
        (None, "inputs that are numbers"),
        (np.where(X > 1, np.nan, X), "finite inputs, got NaN or infinity in 'dataset'"),
        ([[[1.0], [1.0, 2.0]]], "rows of different lengths for 'dataset_0'"),
    ],
)
def test_wrong_data_is_refused_before_anything_runs(data, said):
    with pytest.raises(ValueError, match=said):
        Benchmark([linear()], data)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"measurement_runs": 0}, "`measurement_runs` must be a positive whole number, got 0"),
        ({"measurement_runs": 2.5}, "`measurement_runs` must be a positive whole number, got 2.5"),
        ({"warmup_runs": -1}, "`warmup_runs` must be a whole number of zero or more, got -1"),
        ({"time_limit_s": 0}, "`time_limit_s` must be a positive number, got 0"),
        ({"rng": 3}, r"`rng` must be a Generator, such as np.random.default_rng\(0\), got 3"),
    ],
)
def test_wrong_options_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        Benchmark([linear()], X, **options)


def test_a_metric_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match=r"`metric` must be .*got 'speed'"):
        bench(linear()).compare_models("speed")


def test_without_labels_there_is_no_accuracy():
    unlabelled = bench(linear(), data={"some": X})
    with pytest.raises(ValueError, match=r"'some' has none: give it as a tuple \(inputs, labels\)"):
        unlabelled.run_accuracy_benchmark()
    with pytest.raises(ValueError, match="'some' has none"):
        unlabelled.compare_models("accuracy")
    assert unlabelled.compare_models()["m0"].accuracy_change is None


@pytest.mark.parametrize(
    ("model", "labels", "said"),
    [
        (linear(1), LABELS, r"need scores of shape \(6, 'classes'\).*got \(6, 1\)"),
        (lambda x: x.data[:, 0], LABELS, r"got \(6,\)"),
        (linear(3), np.eye(3, dtype=int)[LABELS], r"class numbers of shape \(6,\), got one-hot rows"),
        (linear(3), np.full((6, 3), 2), r"need scores of shape \(6, 3, 'classes'\)"),
        (linear(3), [0, 1, 2, 3, 0, 1], "labels go up to 3, and it has 3 classes"),
    ],
)
def test_outputs_that_are_no_scores_of_the_labels_have_no_accuracy(model, labels, said):
    with pytest.raises(RefusedModel, match=said):
        bench(model, data=(tt.Tensor(X), labels)).run_accuracy_benchmark()


@pytest.fixture
def two_threads():
    with threadpool_limits(limits=2):
        yield


@pytest.mark.parametrize("raises", [False, True])
def test_everything_is_put_back_afterwards(raises, two_threads):
    last = tt.Linear(3, 3).eval()
    model = tt.Sequential(linear(), tt.Dropout(0.5), last)
    modes = [layer.training for _, layer in model.named_layers()]
    threads = [(pool["filepath"], pool["num_threads"]) for pool in threadpool_info()]
    seen = []

    def spy(x):
        seen.append((gc.isenabled(), recording(), [pool["num_threads"] for pool in threadpool_info()]))
        if raises and len(seen) > 4:
            raise RuntimeError("now")
        return model(x).data

    try:
        bench(spy, model).run_latency_benchmark()
    except RefusedModel:
        assert raises
    assert gc.isenabled()
    assert recording()
    assert [layer.training for _, layer in model.named_layers()] == modes
    assert len(set(modes)) == 2
    assert [(pool["filepath"], pool["num_threads"]) for pool in threadpool_info()] == threads
    assert not any(recorded for _, recorded, _ in seen)
    collecting, _, pools = seen[-1]
    assert not collecting
    assert set(pools) == {1}


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_a_cache_holds_what_it_held_before(dtype):
    model = tt.GPT(11, 8, 2, 2, 16, rng=np.random.default_rng(0)).eval()
    cache = enable_kv_cache(model, dtype=dtype)
    tokens = np.array([[1, 2, 3, 4, 5]])
    with tt.no_grad():
        model(tokens[:, :4])
        expected = model(tokens[:, 4:], start_pos=4).data
        model(tokens[:, :4])
        held, lists = [a.copy() for a in arrays_of(cache)], (cache.keys, cache.values, cache.scales)
        for run in ("run_latency_benchmark", "run_memory_benchmark", "run_accuracy_benchmark"):
            getattr(bench(model, data=(np.full((3, 2), 7), np.zeros((3, 2), int))), run)()
            assert cache is inference.cached(model)
            assert (cache.length, cache.batch_size) == (4, 1)
            assert all(map(operator.is_, lists, (cache.keys, cache.values, cache.scales)))
            assert all(map(np.array_equal, held, arrays_of(cache)))
        assert np.array_equal(model(tokens[:, 4:], start_pos=4).data, expected)


def test_a_cache_that_the_model_handles_itself_is_the_one_that_it_uses():
    model = tt.GPT(11, 8, 2, 2, 16, rng=np.random.default_rng(0)).eval()
    cache, lengths = enable_kv_cache(model), []

    class Stepping(tt.Layer):
        def __init__(self):
            self.net = model

        def forward(self, x):
            self.net(x)
            lengths.append(cache.length)
            return x * 0.0

    bench(Stepping(), data=np.full((3, 2), 7)).run_memory_benchmark()
    assert set(lengths) == {2}
    assert cache.length == 0


def test_buffers_and_generators_are_put_back():
    class Noisy(tt.Layer):
        buffers = ("seen",)

        def __init__(self):
            self.seen, self.rng = np.zeros(1), np.random.default_rng(0)
            self.net = linear()

        def forward(self, x):
            self.seen += 1
            return self.net(x) + 1e-3 * self.rng.standard_normal()

    model = Noisy()
    drawn = model.rng.bit_generator.state
    for run in RUNS:
        getattr(bench(model), run)()
        assert model.seen[0] == 0
        assert model.rng.bit_generator.state == drawn


def test_a_collector_that_was_off_stays_off():
    gc.disable()
    try:
        bench(linear()).run_latency_benchmark()
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_models_answer_as_in_evaluation():
    model = tt.Sequential(tt.Dropout(0.9), linear())
    first, second = (bench(model, data=(np.ones_like(X), LABELS)).outcomes()["m0"][0] for _ in range(2))
    assert np.array_equal(first, second)
    assert model.training


def test_models_of_different_input_shapes_are_told_that_all_get_the_same_inputs():
    with pytest.raises(RefusedModel, match=r"'m1' raised .*all models are given the same .* shape \(6, 4\)"):
        bench(linear(), tt.Linear(5, 3)).run_memory_benchmark()
