"""What the suites of claims share: where curves cross, what models hold, and convolution in plain NumPy."""

import importlib
import importlib.util
from pathlib import Path

import numpy as np
import pytest

import tinytorch as tt

SUITES = Path(__file__).parent / "performance"
PLACES = (1, 2, 4, 8)


@pytest.fixture
def helper(monkeypatch):
    """Import a module that lies beside the suites."""
    monkeypatch.syspath_prepend(str(SUITES))
    return importlib.import_module


@pytest.fixture
def crossing(helper):
    return lambda speedups: helper("crossings").last_crossing(PLACES, speedups, beyond=99)


def test_a_curve_crosses_between_places_as_its_logarithm_does(crossing):
    assert crossing([0.5, 0.5, 2, 4]) == pytest.approx(3)
    assert crossing([0.25, 0.5, 0.5, 4]) == pytest.approx(4 + 4 / 3)


def test_a_curve_that_falls_below_again_crosses_where_it_stays_above(crossing):
    assert crossing([2, 0.5, 3, 0.5]) == 99
    assert crossing([2, 0.5, 0.5, 2]) == pytest.approx(6)


def test_a_curve_that_is_never_below_crosses_at_the_first_place(crossing):
    assert crossing([1, 1, 2, 3]) == 1


def test_a_curve_that_never_pays_crosses_beyond_all_places(crossing):
    assert crossing([0.2, 0.4, 0.6, 0.99]) == 99


def test_a_slower_curve_never_crosses_earlier(crossing):
    rng = np.random.default_rng(0)
    for _ in range(200):
        speedups = np.exp(rng.normal(0, 0.5, 4))
        slower, faster = speedups * rng.uniform(0.5, 1, 4), speedups * rng.uniform(1, 2, 4)
        assert crossing(faster) <= crossing(speedups) <= crossing(slower)


def test_intervals_without_ends_cross_at_the_ends(crossing):
    assert crossing([0.0] * 4) == 99
    assert crossing([np.inf] * 4) == 1
    assert 1 < crossing([0.5, np.inf, np.inf, np.inf]) < 2


@pytest.mark.parametrize(
    ("module", "never", "at_once", "again"),
    [("test_module_18_pruning", 1.0, 0.05, 1.0), ("test_module_19_caching", 32.0, 1.0, 32.0)],
)
def test_breakeven_of_the_suites_is_beyond_their_grid_where_it_never_pays(
    helper, module, never, at_once, again
):
    suite = helper(module)
    count = len(getattr(suite, "GRID", getattr(suite, "COUNTS", ())))
    assert suite.crossing([0.9] * count) == pytest.approx(never)
    assert suite.crossing([1.1] * count) == pytest.approx(at_once)
    assert suite.crossing([2.0] * (count - 1) + [0.5]) == pytest.approx(again)


def test_all_arrays_that_a_model_reaches_count_once(helper):
    held = helper("held")
    layer = tt.Linear(100, 10)
    own = 4 * (100 * 10 + 10)
    assert held.held_bytes(layer) == own
    layer.again = layer.weight
    assert held.held_bytes(layer) == own
    layer.view = np.zeros((50, 100), np.float32)[:1]
    assert held.held_bytes(layer) == own + 4 * 5000


def test_memory_that_making_a_model_leaves_elsewhere_is_counted_beside_it(helper):
    held, elsewhere = helper("held"), []

    def make():
        elsewhere.append(np.zeros(100_000, np.float32))
        return tt.Linear(100, 10)

    model, n_bytes, beside = held.made_and_held(make)
    assert (type(model), n_bytes) == (tt.Linear, 4 * 1010)
    assert 400_000 <= beside < 400_000 + held.OBJECTS_BYTES
    assert held.made_and_held(lambda: tt.Linear(100, 10))[2] < held.OBJECTS_BYTES


def test_what_comes_back_from_the_file_computes_the_same(helper):
    model = tt.Sequential(tt.Linear(8, 4), tt.ReLU(), tt.Linear(4, 2))
    n_bytes, loaded = helper("held").saved_and_loaded(model)
    x = np.random.default_rng(0).standard_normal((3, 8), dtype=np.float32)
    assert n_bytes > 4 * (8 * 4 + 4 + 4 * 2 + 2)
    np.testing.assert_array_equal(loaded(x).data, model(x).data)


@pytest.mark.parametrize("way", ["im2col_nchw", "im2col_nhwc"])
def test_both_layouts_of_im2col_are_the_convolution(helper, way):
    rng = np.random.default_rng(0)
    weight, bias = rng.standard_normal((5, 3, 3, 3), np.float32), rng.standard_normal(5, np.float32)
    x = rng.standard_normal((2, 3, 6, 7), np.float32)
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    patches = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3)).astype(float)
    expected = np.einsum("nchwuv,ocuv->nohw", patches, weight) + bias[:, None, None]
    found = getattr(helper("convolutions"), way)(weight, bias)(x)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_the_baseline_of_a_convolution_is_the_layout_that_took_less_time(helper, monkeypatch):
    convolutions = helper("convolutions")

    class Clock:
        def __init__(self, budget_s):
            pass

        def measure_function(self, run, args):
            assert run(*args).shape == (1, 4, 5, 5)
            return Clocked(1.0 if "nchw" in run.__qualname__ else 0.5)

    class Clocked:
        def __init__(self, median_time_ms):
            self.median_time_ms = median_time_ms

    monkeypatch.setattr(convolutions, "ScientificTimer", Clock)
    assert convolutions.faster_im2col.__wrapped__(1, 2, 5, 4) is convolutions.im2col_nhwc


@pytest.mark.parametrize(
    ("flags", "thresholds"),
    [
        ({"avx2", "avx512_vnni"}, (2.2, 2.2, 3.5)),
        ({"avx2", "avx_vnni"}, (1.2, 2.2, 2.2)),
        ({"avx2"}, (1.2, 1.2, 1.2)),
    ],
)
def test_int8_thresholds_and_title_are_those_of_the_processor(helper, monkeypatch, flags, thresholds):
    monkeypatch.setattr("perfclaims.environment.cpu_flags", lambda: frozenset(flags))
    helper("held")  # beside the suites is where it looks
    spec = importlib.util.spec_from_file_location("suite", SUITES / "test_module_17_quantization.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    claim = module.suite.declared["quantization.inference-speedup"].claim
    found = {c.label: c.at_least for c in claim.criteria if c.kind == "Speedup"}
    assert len(found) == 7
    for label, expected in zip(("MLP, batch 1", "block, batch 1", "block, batch 8"), thresholds, strict=True):
        assert found[label] == expected
    numbers = [float(word) for word in claim.statement.split() if word.replace(".", "").isdigit()]
    assert [n for n in numbers if n in (1.2, 2.2, 3.5)] == list(thresholds)


def test_the_textbook_generates_the_tokens_that_the_cache_does(helper):
    caching = helper("test_module_19_caching")
    prompt = np.array([[3]])
    slow = caching.textbook_generating(caching.TINY, 32, 12).build(np.random.default_rng(0))
    quick = caching.generating("KV cache", caching.TINY, 32, 12, cached=True).build(np.random.default_rng(0))
    assert slow(prompt).shape == (1, 13)
    np.testing.assert_array_equal(slow(prompt), quick(prompt))


def test_rigorous_runs_generate_end_to_end_and_others_sample(helper):
    caching = helper("test_module_19_caching")

    class Noting:
        def __init__(self, preset):
            self.preset, self.sides = preset, []

        def time(self, baseline, optimized, inputs, label):
            self.sides.append((label, inputs(np.random.default_rng(0))[0].shape))

    shapes = {}
    for preset in ("fast", "normal", "rigorous"):
        experiment = Noting(preset)
        caching.generation_200(experiment)
        assert experiment.sides[0] == ("200 tokens, fused recompute", (1, 1))
        label, shapes[preset] = experiment.sides[1]
        assert label == "textbook recompute"
    assert shapes == {"fast": (1, 4), "normal": (2, 16), "rigorous": (1, 1)}


def test_int8_layers_that_are_timed_are_those_of_quantize_model(helper):
    quantization = helper("test_module_17_quantization")
    dense = quantization.model((64, 32, 48), np.random.default_rng(0))
    timed, whole = quantization.in_int8(dense), quantization.quantize_model(dense)
    x = np.random.default_rng(1).standard_normal((5, 64), dtype=np.float32)
    assert [type(layer) for layer in timed] == [type(layer) for layer in whole]
    np.testing.assert_array_equal(quantization.inference(timed)(x), quantization.inference(whole)(x))
