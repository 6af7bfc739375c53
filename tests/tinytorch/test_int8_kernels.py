"""INT8 kernels: every variant that runs here against int64, and against what floats would give."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinytorch as tt
from tinytorch.kernels import int8, int8_images, numba_available
from tinytorch.kernels.convolution import Window
from tinytorch.kernels.int8 import Range

needs_numba = pytest.mark.skipif(not numba_available(), reason="needs numba")
sizes = st.integers(1, 90)


def pairs(low, high):
    return st.tuples(st.integers(low, high), st.integers(low, high))


def variants():
    """Indices of the variants that this processor can run."""
    if not numba_available():
        return []
    from tinytorch.kernels.dots import VARIANTS, runs_here

    return [pytest.param(way, id=v.name) for way, v in enumerate(VARIANTS) if runs_here(v)]


def packed_of(rng, inputs, outputs):
    weights = rng.integers(-127, 128, (inputs, outputs)).astype(np.int8)
    scales, bias = rng.random(outputs, np.float32), rng.standard_normal(outputs, np.float32)
    return weights, int8.pack(weights, scales, bias)


@given(inputs=sizes, outputs=sizes)
@settings(max_examples=30, deadline=None)
def test_unpacking_gives_back_what_was_packed(inputs, outputs):
    weights, packed = packed_of(np.random.default_rng(inputs), inputs, outputs)
    np.testing.assert_array_equal(int8.unpack(packed.panels, inputs, outputs), weights)


@given(o=st.integers(1, 20), c=st.integers(1, 20), kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)))
@settings(max_examples=30, deadline=None)
def test_unpacking_gives_back_kernels(o, c, kernel):
    q = np.random.default_rng(o).integers(-127, 128, (o, c, *kernel)).astype(np.int8)
    packed = int8_images.pack(q, np.ones(o, np.float32), None)
    np.testing.assert_array_equal(int8_images.unpack(packed.blocks, q.shape), q)
    np.testing.assert_array_equal(packed.sums, q.astype(int).sum(axis=(1, 2, 3)))


@pytest.mark.parametrize("way", variants())
@given(rows=st.integers(0, 14), inputs=sizes, outputs=sizes, extreme=st.booleans())
@settings(max_examples=60, deadline=None)
def test_integer_products_equal_int64(way, rows, inputs, outputs, extreme):
    rng = np.random.default_rng(rows + 100 * inputs)
    weights, packed = packed_of(rng, inputs, outputs)
    x = rng.integers(0, 256, (rows, inputs)).astype(np.uint8)
    if extreme:
        x[:], weights[:] = 255, -127
        packed = int8.pack(weights, packed.scales[:outputs], None)
    out = np.empty((rows, outputs), np.int32)
    int8._run_given(int8.linear_kernel(way), x, packed, outputs, out)
    np.testing.assert_array_equal(out, x.astype(np.int64) @ weights.astype(np.int64))


@needs_numba
def test_the_largest_sums_that_packing_allows_are_exact():
    inputs = (2**31 - 1) // (255 * 127)
    weights = np.full((inputs, 3), 127, np.int8)
    packed = int8.pack(weights, np.ones(3, np.float32), None)
    found = int8.products(np.full((1, inputs), 255, np.uint8), packed, 3)
    assert (found == 255 * 127 * inputs).all()
    with pytest.raises(ValueError, match=r"too long for sums in int32.*leave this layer in FP32"):
        int8.pack(np.full((inputs + 1, 3), 127, np.int8), np.ones(3, np.float32), None)


@pytest.mark.parametrize("way", variants())
@given(rows=st.integers(0, 9), inputs=sizes, outputs=sizes, fixed=st.sampled_from([None, Range(0.05, 17)]))
@settings(max_examples=60, deadline=None)
def test_layers_equal_the_reference(way, rows, inputs, outputs, fixed):
    rng = np.random.default_rng(inputs)
    _, packed = packed_of(rng, inputs, outputs)
    x = (rng.standard_normal((rows, inputs)) * rng.choice([1e-30, 1, 1e30])).astype(np.float32)
    out = np.empty((rows, outputs), np.float32)
    int8._run(int8.linear_kernel(way), x, packed, outputs, fixed, out)
    expected = int8.linear_reference(x, packed, outputs, fixed)
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5 * max(1, np.abs(expected).max(initial=0)))


@pytest.mark.parametrize("way", variants())
@given(
    n=st.integers(1, 3), c=st.integers(1, 9), o=st.integers(1, 19), size=pairs(1, 20), kernel=pairs(1, 3),
    stride=pairs(1, 3), padding=pairs(0, 2), fixed=st.sampled_from([None, Range(0.05, 17)]),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_convolutions_equal_the_reference(way, n, c, o, size, kernel, stride, padding, fixed):
    window = Window(kernel, stride, padding)
    if min(window.positions(*size)) < 1:
        return
    rng = np.random.default_rng(c)
    x = rng.standard_normal((n, c, *size)).astype(np.float32)
    q = rng.integers(-127, 128, (o, c, *kernel)).astype(np.int8)
    packed = int8_images.pack(q, rng.random(o, np.float32), rng.standard_normal(o, np.float32))
    found = int8_images._run(int8_images.image_kernel(way), x, packed, window, fixed)
    expected = int8_images.forward_reference(x, packed, c, window, fixed)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3)


def test_the_reference_of_convolution_is_that_of_floats_for_exact_numbers():
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (2, 3, 7, 6)).astype(np.float32)
    x[:, 0, 0, 0], x[:, 1, 0, 0] = 0, 255  # every image has a scale of 1
    conv = tt.Conv2d(3, 4, 3, stride=2, padding=1)
    q = rng.integers(-127, 128, (4, 3, 3, 3)).astype(np.int8)
    conv.weight.data[...] = q
    conv.bias.data[...] = rng.integers(-9, 9, 4)
    packed = int8_images.pack(q, np.ones(4, np.float32), conv.bias.data)
    found = int8_images.forward_reference(x, packed, 3, conv.window, None)
    np.testing.assert_array_equal(found, conv(x).data)


def test_a_row_that_is_not_finite_is_never_a_plausible_number():
    rng = np.random.default_rng(0)
    _, packed = packed_of(rng, 40, 21)
    x = rng.standard_normal((9, 40)).astype(np.float32)
    x[1, 3], x[4, 39], x[7, 0] = np.nan, np.inf, -np.inf
    for fixed in (None, Range(0.02, 100)):
        for out in (int8.linear(x, packed, 21, fixed), int8.linear_reference(x, packed, 21, fixed)):
            np.testing.assert_array_equal(np.isfinite(out).all(axis=1), ~np.isin(range(9), (1, 4, 7)))
            assert not np.isfinite(out[[1, 4, 7]]).any()


@needs_numba
def test_weights_alone_as_int8_equal_floats():
    rng = np.random.default_rng(0)
    weights, packed = packed_of(rng, 37, 50)
    x = rng.standard_normal((3, 37)).astype(np.float32)
    expected = x @ (weights * packed.scales[:50]) + packed.bias[:50]
    np.testing.assert_allclose(int8._weight_only(x, packed, 50), expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("choice", ["reference", "weight-only", "avx2", "vnni256"])
def test_another_kernel_can_be_asked_for(choice, monkeypatch):
    if not numba_available():
        pytest.skip("needs numba")
    from tinytorch.kernels.dots import VARIANTS, runs_here

    if any(v.name == choice and not runs_here(v) for v in VARIANTS):
        pytest.skip("this processor lacks the instructions")
    rng = np.random.default_rng(0)
    _, packed = packed_of(rng, 40, 21)
    x = rng.standard_normal((9, 40)).astype(np.float32)
    usual = int8.linear(x, packed, 21, None)
    monkeypatch.setenv("TINYTORCH_INT8", choice)
    caches = int8.chosen_way, int8.integer_kernel
    for cache in caches:
        cache.cache_clear()
    try:
        assert int8.describe().startswith(choice)
        np.testing.assert_allclose(int8.linear(x, packed, 21, None), usual, rtol=1e-5, atol=1e-5)
        assert np.abs(int8.linear(x[:2], packed, 21, None) - usual[:2]).max() < 0.1 * np.abs(usual).max()
    finally:
        for cache in caches:
            cache.cache_clear()


@needs_numba
def test_an_unknown_kernel_is_refused(monkeypatch):
    monkeypatch.setenv("TINYTORCH_INT8", "mmx")
    int8.chosen_way.cache_clear()
    with pytest.raises(ValueError, match=r"TINYTORCH_INT8 must be auto, vnni512.* got 'mmx'"):
        int8.chosen_way()
    int8.chosen_way.cache_clear()


def test_a_kernel_that_disagrees_is_not_used():
    with pytest.warns(RuntimeWarning, match="differs from its NumPy reference"):
        assert int8.agreed(lambda *_: None, int8._linear_agrees, "int8_linear", 0) is None


@pytest.mark.parametrize(
    ("x", "outputs"),
    [
        (np.zeros((2, 39), np.float32), 21),
        (np.zeros((2, 44), np.float32), 21),
        (np.zeros((2, 40)), 21),
        (np.zeros((40, 2), np.float32).T, 21),
        (np.zeros(40, np.float32), 21),
        (np.zeros((2, 40), np.float32), 33),
        (np.zeros((2, 40), np.float32), 16),
    ],
)
def test_arrays_that_compiled_code_would_misread_are_refused(x, outputs):
    _, packed = packed_of(np.random.default_rng(0), 40, 21)
    if x.shape == (2, 39):  # the same number of groups of four: padding makes it safe
        assert int8.linear(x, packed, outputs, None).shape == (2, 21)
        return
    with pytest.raises(ValueError, match="must"):
        int8.linear(x, packed, outputs, None)
