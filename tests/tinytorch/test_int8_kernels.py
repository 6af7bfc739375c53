"""INT8 kernels: every variant that runs here against int64, and against what floats would give."""

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import tinytorch as tt
from tinytorch.kernels import int8, int8_images, numba_available
from tinytorch.kernels.convolution import Window
from tinytorch.kernels.int8 import Range
from tinytorch.perf.quantization import QuantizedConv2d, QuantizedLinear

COMPILED = numba_available() and os.environ.get("TINYTORCH_KERNELS") != "reference"
needs_numba = pytest.mark.skipif(not COMPILED, reason="there are no compiled kernels")
sizes = st.integers(1, 90)


def pairs(low, high):
    return st.tuples(st.integers(low, high), st.integers(low, high))


def variants():
    """Indices of the variants that this processor can run."""
    if not COMPILED:
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
    n=st.integers(1, 3), c=st.integers(1, 9), o=st.integers(1, 19), size=pairs(0, 20), kernel=pairs(1, 3),
    stride=pairs(1, 3), padding=pairs(0, 2), fixed=st.sampled_from([None, Range(0.05, 17)]),
)  # fmt: skip
@example(n=2, c=3, o=2, size=(4, 0), kernel=(1, 2), stride=(1, 1), padding=(0, 1), fixed=None)
@example(n=2, c=5, o=2, size=(4, 0), kernel=(3, 2), stride=(2, 2), padding=(1, 2), fixed=Range(0.05, 17))
@example(n=2, c=5, o=2, size=(0, 4), kernel=(3, 2), stride=(1, 1), padding=(2, 0), fixed=None)
@settings(max_examples=60, deadline=None)
def test_convolutions_equal_the_reference(way, n, c, o, size, kernel, stride, padding, fixed):
    window = Window(kernel, stride, padding)
    if min(window.positions(*size)) < 1:
        return
    rng = np.random.default_rng(c)
    count = n * c * size[0] * size[1]
    room = np.full(count + 16, 1e6, np.float32)  # what is read beside the images shows
    x = np.ndarray((n, c, *size), np.float32, room, offset=32)  # a slice of nothing would start elsewhere
    x[...] = rng.standard_normal(x.shape)
    q = rng.integers(-127, 128, (o, c, *kernel)).astype(np.int8)
    packed = int8_images.pack(q, rng.random(o, np.float32), rng.standard_normal(o, np.float32))
    found = int8_images._run(int8_images.image_kernel(way), x, packed, window, fixed)
    expected = int8_images.forward_reference(x, packed, c, window, fixed)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("size", [(4, 0), (0, 4), (0, 0)])
def test_images_without_pixels_are_all_padding(size):
    conv = tt.Conv2d(5, 3, 3, padding=3)
    layer = QuantizedConv2d(conv)
    np.testing.assert_array_equal(layer(np.zeros((2, 5, *size))).data, conv(np.zeros((2, 5, *size))).data)


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


@needs_numba
@given(rows=st.integers(0, 5), inputs=st.integers(0, 90), outputs=sizes, seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_weights_alone_as_int8_equal_floats_at_any_size(rows, inputs, outputs, seed):
    rng = np.random.default_rng(seed)
    weights, packed = packed_of(rng, inputs, outputs)
    room = np.full(rows * inputs + 16, np.nan, np.float32)  # what is read beside the rows shows
    x = room[8 : 8 + rows * inputs].reshape(rows, inputs)
    x[...] = rng.standard_normal(x.shape)
    expected = x.astype(float) @ (weights * packed.scales[:outputs]) + packed.bias[:outputs]
    np.testing.assert_allclose(int8._weight_only(x, packed, outputs), expected, rtol=1e-4, atol=1e-3)
    x[rows // 2 :] = np.inf
    assert rows * inputs == 0 or np.isnan(int8._weight_only(x, packed, outputs)[rows // 2 :]).all()


def read_only(array):
    kept = array.copy()
    kept.setflags(write=False)
    return kept


def misaligned(array):
    moved = np.zeros(array.nbytes + 1, np.uint8)[1:].view(array.dtype).reshape(array.shape)
    moved[...] = array
    return moved


@pytest.mark.parametrize("change", [read_only, misaligned, np.asfortranarray, lambda a: a.astype(">f4")])
@pytest.mark.parametrize("calibrated", [False, True])
@pytest.mark.parametrize("shape", [(5, 40), (40,), (2, 3, 40)])
def test_a_layer_takes_any_array(shape, calibrated, change):
    rng = np.random.default_rng(0)
    x = rng.standard_normal(shape).astype(np.float32)
    layer = QuantizedLinear(tt.Linear(40, 21, rng=rng), calibration_data=x if calibrated else None)
    np.testing.assert_array_equal(layer(change(x)).data, layer(x).data)
    x = rng.standard_normal((2, 5, 7, 6)).astype(np.float32)
    conv = QuantizedConv2d(tt.Conv2d(5, 3, 3, rng=rng), calibration_data=x if calibrated else None)
    np.testing.assert_array_equal(conv(change(x)).data, conv(x).data)


@pytest.mark.parametrize("change", [read_only, misaligned])
@pytest.mark.parametrize("kind", ["linear", "convolution", "weight-only"])
def test_kernels_read_packed_arrays_that_may_not_be_written(kind, change):
    if kind == "weight-only" and not numba_available():
        pytest.skip("there are no compiled kernels")
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, 40)).astype(np.float32)
    images = rng.standard_normal((3, 5, 7, 6)).astype(np.float32)
    _, packed = packed_of(rng, 40, 21)
    kernels = rng.integers(-127, 128, (3, 5, 3, 3)).astype(np.int8)
    blocks = int8_images.pack(kernels, rng.random(3, np.float32), None)
    window = Window((3, 3), (1, 1), (1, 1))

    def run(packed, blocks, change=lambda a: a):
        if kind == "convolution":
            return int8_images.forward(change(images), blocks, 5, window, None)
        if kind == "linear":
            return int8.linear(change(x), packed, 21, None)
        return int8._weight_only(change(x), packed, 21)

    changed = (type(given)(*map(change, given)) for given in (packed, blocks))
    np.testing.assert_array_equal(run(*changed, change), run(packed, blocks))


@pytest.mark.parametrize("choice", ["reference", "weight-only", "avx2", "vnni256"])
def test_another_kernel_can_be_asked_for(choice, monkeypatch):
    if not COMPILED:
        pytest.skip("there are no compiled kernels")
    from tinytorch.kernels.dots import VARIANTS, runs_here

    if any(v.name == choice and not runs_here(v) for v in VARIANTS):
        pytest.skip("this processor lacks the instructions")
    rng = np.random.default_rng(0)
    _, packed = packed_of(rng, 40, 21)
    x = rng.standard_normal((9, 40)).astype(np.float32)
    rounded = int8.linear_reference(x, packed, 21, None)
    exact = x @ (int8.unpack(packed.panels, 40, 21) * packed.scales[:21]) + packed.bias[:21]
    expected = exact if choice == "weight-only" else rounded
    monkeypatch.setenv("TINYTORCH_INT8", choice)
    caches = int8.chosen_way, int8.integer_kernel
    for cache in caches:
        cache.cache_clear()
    try:
        assert int8.describe().startswith(choice)
        for rows in (9, 2):
            found = int8.linear(x[:rows], packed, 21, None)
            np.testing.assert_allclose(found, expected[:rows], rtol=1e-4, atol=1e-4 * np.abs(exact).max())
    finally:
        for cache in caches:
            cache.cache_clear()


@needs_numba
@pytest.mark.parametrize(
    ("variable", "asked", "why"),
    [
        ("TINYTORCH_INT8", "reference", "because TINYTORCH_INT8=reference asks for it;"),
        ("TINYTORCH_INT8", "neon", "because TINYTORCH_INT8 asks for neon, whose instructions this processor"),
        ("TINYTORCH_KERNELS", "reference", "because TINYTORCH_KERNELS=reference asks for it;"),
    ],
)
def test_the_reference_says_why_it_runs(variable, asked, why):
    code = (
        "from tinytorch.kernels import dots, int8; dots.runs_here = lambda _: False; print(int8.describe())"
    )
    said = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env={**os.environ, "TINYTORCH_INT8": "auto", variable: asked},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert said.startswith(f"reference: NumPy, {why}")


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
    if not (COMPILED or x.flags.c_contiguous):  # NumPy does not mind
        return
    with pytest.raises(ValueError, match="must"):
        int8.linear(x, packed, outputs, None)


@pytest.mark.parametrize(
    "fixed",
    [Range(0.0, 0), Range(1e-40, 0), Range(-1.0, 0), Range(np.nan, 0), Range(1e39, 0), Range(1.0, 256)],
)
def test_ranges_that_no_byte_has_are_refused(fixed):
    """Their inverse is infinite or no number, and as an integer that is anything."""
    _, packed = packed_of(np.random.default_rng(0), 40, 21)
    with pytest.raises(ValueError, match=r"`fixed` must have a scale of .* and a zero of 0 to 255"):
        int8.linear(np.zeros((2, 40), np.float32), packed, 21, fixed)
    blocks = int8_images.pack(np.ones((3, 4, 1, 1), np.int8), np.ones(3, np.float32), None)
    images = np.zeros((1, 4, 5, 5), np.float32)
    with pytest.raises(ValueError, match="`fixed` must have a scale of"):
        int8_images.forward(images, blocks, 4, Window((1, 1), (1, 1), (0, 0)), fixed)


def test_weights_of_minus_128_are_refused_because_some_instructions_saturate():
    q = np.full((4, 3), -128, np.int8)
    with pytest.raises(ValueError, match="`weight` must be -127 to 127 as int8, got -128"):
        int8.pack(q, np.ones(3, np.float32), None)
    with pytest.raises(ValueError, match="`weight` must be -127 to 127 as int8, got -128"):
        int8_images.pack(q.reshape(4, 3, 1, 1), np.ones(4, np.float32), None)


@pytest.mark.parametrize("wrong", [2, 4])
def test_scales_and_biases_of_another_number_than_outputs_are_refused(wrong):
    one, other = np.ones(3, np.float32), np.ones(wrong, np.float32)
    for pack, q in (
        (int8.pack, np.ones((5, 3), np.int8)),
        (int8_images.pack, np.ones((3, 5, 1, 1), np.int8)),
    ):
        with pytest.raises(ValueError, match=rf"`scales` must have shape \(3,\), got \({wrong},\)"):
            pack(q, other, None)
        with pytest.raises(ValueError, match=rf"`bias` must have shape \(3,\), got \({wrong},\)"):
            pack(q, one, other)


@pytest.mark.parametrize(
    ("shape", "dtype", "outputs", "message"),
    [
        ((2, 44), np.uint8, 21, "`quantized` must be uint8 of up to 40 inputs"),
        ((2, 36), np.uint8, 21, "`quantized` must be uint8 of up to 40 inputs"),
        ((2, 40), np.float32, 21, "got float32"),
        ((40,), np.uint8, 21, "`quantized` must be uint8"),
        ((2, 40), np.uint8, 16, "`outputs` must be as many as were packed, at most 32, got 16"),
        ((2, 40), np.uint8, 33, "at most 32, got 33"),
    ],
)
def test_bytes_that_do_not_fit_the_weights_are_refused(shape, dtype, outputs, message):
    _, packed = packed_of(np.random.default_rng(0), 40, 21)
    with pytest.raises(ValueError, match=message):
        int8.products(np.zeros(shape, dtype), packed, outputs)


@pytest.mark.parametrize("rows", [1, 4, 5, 40])
@pytest.mark.parametrize("fixed", [None, int8.Range(0.03, 120)])
def test_without_products_of_bytes_outputs_do_not_depend_on_the_batch(rows, fixed, monkeypatch):
    if not numba_available():
        pytest.skip("needs numba")
    rng = np.random.default_rng(0)
    q = rng.integers(-127, 128, (37, 21)).astype(np.int8)
    packed = int8.pack(q, rng.random(21, np.float32) / 100, rng.standard_normal(21, np.float32))
    x = rng.standard_normal((rows, 37), np.float32)
    x[-1, 3] = np.inf
    monkeypatch.setattr(int8, "integer_kernel", lambda: ("weight-only", None))
    found = int8.linear(x, packed, 21, fixed)
    assert np.isnan(found[-1]).all()
    rounded = x if fixed is None else np.clip(np.rint(x / np.float32(0.03)), -120, 135) * np.float32(0.03)
    with np.errstate(invalid="ignore"):
        expected = rounded.astype(float) @ (q * packed.scales[:21].astype(float)) + packed.bias[:21]
    np.testing.assert_allclose(found[:-1], expected[:-1], rtol=1e-4, atol=1e-4)
    if fixed is not None:
        exact = int8.linear_reference(x, packed, 21, fixed)
        np.testing.assert_allclose(found[:-1], exact[:-1], rtol=1e-4, atol=1e-4)
