"""The truth is what each workload documents: shapes, types, moments, frequencies and exact counts."""

import inspect
import math
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import perfclaims.workloads
from perfclaims.workloads import WorkloadGenerator

CALLS = {
    "matrix_multiply_workload": (7,),
    "mlp_batch_workload": (3, 20, 10),
    "image_batch_workload": (2, 3, 5, 4),
    "token_sequence_workload": (4, 6, 1000),
    "attention_workload": (2, 3, 5, 4),
    "skewed_workload": ((3, 4),),
    "extreme_workload": ((3, 4),),
    "outlier_workload": ((10, 10), 0.1, 30.0),
}


def draw(generator, method):
    drawn = getattr(generator, method)(*CALLS[method])
    return drawn if isinstance(drawn, tuple) else (drawn,)


def same_bits(first, second):
    return all(a.tobytes() == b.tobytes() for a, b in zip(first, second, strict=True))


# Seeds


def test_every_workload_is_among_those_tested_here():
    methods = {
        name for name, _ in inspect.getmembers(WorkloadGenerator, inspect.isfunction) if name[0] != "_"
    }
    assert methods == set(CALLS)


@pytest.mark.parametrize("method", CALLS)
def test_same_seed_gives_the_same_bits_and_another_seed_does_not(method):
    first, same, other = (draw(WorkloadGenerator(seed), method) for seed in (5, 5, 6))
    assert same_bits(first, same)
    assert not any(same_bits([a], [b]) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("method", CALLS)
def test_each_call_gives_other_data_and_the_same_ones_in_the_same_order(method):
    one, two = WorkloadGenerator(1), WorkloadGenerator(1)
    calls = [draw(one, method) for _ in range(3)]
    assert all(same_bits(call, draw(two, method)) for call in calls)
    assert not any(same_bits(calls[i], calls[j]) for i, j in [(0, 1), (1, 2), (0, 2)])


@pytest.mark.parametrize("method", CALLS)
def test_calls_of_other_methods_change_nothing(method):
    alone, among = WorkloadGenerator(2), WorkloadGenerator(2)
    for other in CALLS:
        if other != method:
            draw(among, other)
    assert same_bits(draw(alone, method), draw(among, method))


def test_a_refused_call_does_not_count():
    plain, refused = WorkloadGenerator(3), WorkloadGenerator(3)
    with pytest.raises(ValueError, match="`size`"):
        refused.matrix_multiply_workload(0)
    with pytest.raises(ValueError, match="`fraction`"):
        refused.outlier_workload(10, 2.0, 1.0)
    for method in ("matrix_multiply_workload", "outlier_workload"):
        assert same_bits(draw(plain, method), draw(refused, method))


def test_methods_with_the_same_draws_have_streams_of_their_own():
    generator = WorkloadGenerator(4)
    image = generator.image_batch_workload(1, 1, 4, 4).ravel()
    q, k, v = (part.ravel() for part in generator.attention_workload(1, 1, 4, 4))
    a, _ = generator.matrix_multiply_workload(4)
    arrays = [image, q, k, v, a.ravel()]
    assert len({array.tobytes() for array in arrays}) == len(arrays)


def test_the_global_random_state_plays_no_part():
    state = np.random.get_state()[1].copy()  # noqa: NPY002 - the global state is the point
    for method in CALLS:
        draw(WorkloadGenerator(), method)
    assert np.array_equal(np.random.get_state()[1], state)  # noqa: NPY002


def test_another_process_with_other_hashes_draws_the_same_bits():
    code = (
        "from perfclaims.workloads import WorkloadGenerator as W; import zlib; "
        "print(zlib.crc32(W(7).skewed_workload(100).tobytes()))"
    )
    root = Path(perfclaims.workloads.__file__).parents[1]
    said = [
        subprocess.run(
            [sys.executable, "-c", code],
            check=True,
            capture_output=True,
            text=True,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(root)},
        ).stdout
        for seed in ("1", "2")
    ]
    assert said[0] == said[1] != ""


# What is drawn


@pytest.mark.parametrize("method", CALLS)
def test_arrays_are_writable_contiguous_and_their_own(method):
    arrays = draw(WorkloadGenerator(), method)
    for array in arrays:
        assert array.flags.c_contiguous
        assert array.flags.writeable
        assert array.dtype in (np.float32, np.int64)
    assert not any(np.shares_memory(a, b) for i, a in enumerate(arrays) for b in arrays[:i])


def test_matrix_products_have_unit_variance_at_every_size():
    for size in (1, 30, 300):
        a, b = WorkloadGenerator().matrix_multiply_workload(size)
        assert a.shape == b.shape == (size, size)
        assert a.dtype == b.dtype == np.float32
    # 90,000 entries: their variance has a standard error of half a percent, some more as rows share factors.
    assert (a @ b).var() == pytest.approx(1.0, abs=0.03)


def test_mlp_batches_are_mostly_background_with_balanced_labels():
    images, labels = WorkloadGenerator().mlp_batch_workload(batch_size=2000)
    assert (images.shape, images.dtype) == ((2000, 784), np.float32)
    assert (labels.shape, labels.dtype) == ((2000,), np.int64)
    assert images.min() == 0.0
    assert images.max() <= 1.0
    assert (images == 0).mean() == pytest.approx(0.8, abs=0.002)
    counts = np.bincount(labels, minlength=10)
    assert counts.size == 10
    assert counts.min() > 150  # 200 expected, with a standard deviation of 13


def test_mlp_batches_default_to_32_digits():
    images, labels = WorkloadGenerator().mlp_batch_workload()
    assert (images.shape, labels.shape) == ((32, 784), (32,))


def test_images_are_nchw_and_standard_normal():
    images = WorkloadGenerator().image_batch_workload(batch_size=8, channels=3, height=40, width=50)
    assert (images.shape, images.dtype) == ((8, 3, 40, 50), np.float32)
    assert images.mean() == pytest.approx(0.0, abs=0.02)
    assert images.std() == pytest.approx(1.0, abs=0.02)


def test_token_frequencies_follow_zipf():
    ids = WorkloadGenerator().token_sequence_workload(batch_size=100, length=2000, vocab_size=50)
    assert (ids.shape, ids.dtype) == ((100, 2000), np.int64)
    assert (ids.min(), ids.max()) == (0, 49)
    expected = 1 / np.arange(1, 51)
    expected /= expected.sum()
    seen = np.bincount(ids.ravel(), minlength=50) / ids.size
    assert np.abs(seen - expected).max() < 5 * math.sqrt(0.25 / ids.size)


def test_a_draw_that_rounds_up_to_the_end_stays_in_the_vocabulary(monkeypatch):
    class Last:
        def random(self, shape):
            return np.full(shape, np.nextafter(1.0, 0.0))

    generator = WorkloadGenerator()
    monkeypatch.setattr(generator, "_stream", lambda workload: Last())
    for vocab_size in range(1, 300):
        assert generator.token_sequence_workload(1, 1, vocab_size).item() == vocab_size - 1


def test_attention_scores_have_unit_variance():
    parts = WorkloadGenerator().attention_workload(batch_size=2, heads=3, length=100, head_dim=16)
    assert all((part.shape, part.dtype) == ((2, 3, 100, 16), np.float32) for part in parts)
    q, k, _ = parts
    assert (q @ k.swapaxes(-1, -2) / 4).var() == pytest.approx(1.0, abs=0.1)


def test_skewed_values_are_log_normal_on_both_sides():
    values = WorkloadGenerator().skewed_workload((300, 300))
    assert (values.shape, values.dtype) == ((300, 300), np.float32)
    logarithms = np.log(np.abs(values))
    assert logarithms.mean() == pytest.approx(0.0, abs=0.03)
    assert logarithms.std() == pytest.approx(1.5, abs=0.03)
    assert (values < 0).mean() == pytest.approx(0.5, abs=0.01)
    assert np.abs(values).max() > 100 * np.median(np.abs(values))


def parts_of(values):
    magnitudes = np.abs(values.astype(np.float64))
    limits = np.finfo(np.float32)
    return {
        "zero": magnitudes == 0,
        "denormal": (magnitudes > 0) & (magnitudes < limits.tiny),
        "tiny": (magnitudes >= limits.tiny) & (magnitudes < 8e-31),
        "ordinary": (magnitudes > 9e-4) & (magnitudes < 2048),
        "huge": (magnitudes > 1.2e30) & (magnitudes <= limits.max),
    }


def test_ten_extreme_values_hold_every_part_with_both_signs():
    for seed in range(20):
        values = WorkloadGenerator(seed).extreme_workload(10)
        for part in parts_of(values).values():
            assert sorted(np.signbit(values[part])) == [False, True]


def test_extreme_values_are_finite_and_in_equal_parts():
    values = WorkloadGenerator().extreme_workload((100, 10, 10))
    assert (values.shape, values.dtype) == ((100, 10, 10), np.float32)
    assert np.isfinite(values).all()
    assert [part.sum() for part in parts_of(values).values()] == [2000] * 5
    assert np.abs(values).max() > 1e38
    huge = parts_of(values.ravel())["huge"]
    # In random order: 200 are expected at every tenth place, with a standard deviation of 12.
    assert all(130 < huge[start::10].sum() < 270 for start in range(10))
    assert 900 < huge[:5000].sum() < 1100


@pytest.mark.parametrize(("fraction", "count"), [(0, 0), (0.0001, 1), (0.25, 2500), (1, 10_000)])
def test_outliers_are_as_many_and_as_large_as_asked_for(fraction, count):
    values = WorkloadGenerator().outlier_workload((100, 100), fraction, 30)
    assert (values.shape, values.dtype) == ((100, 100), np.float32)
    outliers = np.abs(values) == 30
    assert outliers.sum() == count
    if count > 1:
        assert (values[outliers] < 0).mean() == pytest.approx(0.5, abs=0.05)
    if count < 10_000:
        assert np.abs(values[~outliers]).max() < 7
        assert values[~outliers].std() == pytest.approx(1.0, abs=0.05)


def test_outliers_are_spread_over_the_whole_array():
    rows = (np.abs(WorkloadGenerator().outlier_workload((10, 1000), 0.1, 30)) == 30).sum(axis=1)
    assert rows.sum() == 1000
    assert rows.min() > 50


def test_sizes_and_shapes_may_come_from_numpy():
    generator = WorkloadGenerator(np.int64(3))
    assert generator.matrix_multiply_workload(np.int32(4))[0].shape == (4, 4)
    assert generator.extreme_workload(5).shape == (5,)
    assert generator.extreme_workload(np.zeros((2, 3)).shape).shape == (2, 3)
    assert generator.outlier_workload([2, 3], np.float32(0.5), np.float64(9)).shape == (2, 3)


# Arguments


@pytest.mark.parametrize("wrong", [0, -1, 1.0, True, None, "3", (3,)])
def test_sizes_that_are_not_positive_integers_are_named(wrong):
    generator = WorkloadGenerator()
    for method, arguments in CALLS.items():
        function = getattr(generator, method)
        for name in set(inspect.signature(function).parameters) - {"shape", "fraction", "scale"}:
            sizes = dict(zip(inspect.signature(function).parameters, arguments, strict=True))
            with pytest.raises(ValueError, match=rf"^`{name}` must be a positive integer, got "):
                function(**(sizes | {name: wrong}))


@pytest.mark.parametrize("wrong", [0, -2, (), (3, 0), (3, 2.0), (True,), None, "33", [[3]]])
@pytest.mark.parametrize("method", ["skewed_workload", "extreme_workload", "outlier_workload"])
def test_shapes_that_are_none_are_named(method, wrong):
    with pytest.raises(ValueError, match=r"^`shape` must be a positive integer or a tuple"):
        getattr(WorkloadGenerator(), method)(wrong, *CALLS[method][1:])


@pytest.mark.parametrize("wrong", [-0.1, 1.1, math.nan, "0.1", None])
def test_fractions_outside_0_to_1_are_named(wrong):
    with pytest.raises(ValueError, match=r"^`fraction` must be a number from 0 to 1, got "):
        WorkloadGenerator().outlier_workload(10, wrong, 30)


@pytest.mark.parametrize("wrong", [0, -3.0, math.nan, math.inf, 1e39, 1e-50, "30", None])
def test_scales_that_float32_does_not_hold_are_named(wrong):
    with pytest.raises(ValueError, match=r"^`scale` must be a positive number within float32, got "):
        WorkloadGenerator().outlier_workload(10, 0.1, wrong)


@pytest.mark.parametrize("wrong", [-1, 1.5, None, True, "0"])
def test_seeds_that_repeat_nothing_are_refused(wrong):
    with pytest.raises(ValueError, match=r"^`seed` must be an integer of 0 or more, got "):
        WorkloadGenerator(seed=wrong)


def test_arguments_are_checked_before_memory_is_taken():
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="`width`"):
            WorkloadGenerator().image_batch_workload(64, 64, 64, 0)
        with pytest.raises(ValueError, match="`scale`"):
            WorkloadGenerator().outlier_workload(10_000_000, 0.1, 0)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
