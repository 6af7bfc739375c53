"""Convolution and pooling: kernels against SciPy, brute force and each other; layers against differences."""

import itertools
import os

import numpy as np
import pytest
from gradients import check_layer, check_rule
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.signal import correlate2d

import tinytorch as tt
from tinytorch.core import spatial
from tinytorch.kernels import convolution, numba_available, pooling
from tinytorch.kernels.convolution import Window

repeatable = settings(derandomize=True, database=None, deadline=None, max_examples=60)
COMPILED = numba_available() and os.environ.get("TINYTORCH_KERNELS") != "reference"
needs_numba = pytest.mark.skipif(not COMPILED, reason="there are no compiled kernels")

WINDOWS = [
    Window((3, 3), (1, 1), (1, 1)),
    Window((1, 1), (1, 1), (0, 0)),
    Window((2, 3), (2, 1), (0, 2)),
    Window((3, 2), (3, 4), (2, 0)),
    Window((4, 4), (2, 3), (3, 1)),
]


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def whole(*shape, seed=0):
    """Small whole numbers, whose sums of products float32 holds exactly."""
    return np.random.default_rng(seed).integers(-9, 10, shape).astype(np.float32)


@st.composite
def cases(draw):
    """Images, and a window that fits them with their padding."""
    n, c, o = (draw(st.integers(1, 3)) for _ in range(3))
    height, width = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    padding = draw(st.integers(0, 3)), draw(st.integers(0, 3))
    kernel = (
        draw(st.integers(1, min(5, height + 2 * padding[0]))),
        draw(st.integers(1, min(5, width + 2 * padding[1]))),
    )
    stride = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    return (n, c, height, width), o, Window(kernel, stride, padding)


def by_scipy(x, weight, bias, window):
    """The convolution of each image and kernel by SciPy, every stride-th position of it."""
    (ph, pw), (sh, sw) = window.padding, window.stride
    padded = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)))
    return np.stack(
        [
            [
                sum(correlate2d(image[c], kernel[c], "valid") for c in range(len(image)))[::sh, ::sw] + offset
                for kernel, offset in zip(weight, bias, strict=True)
            ]
            for image in padded
        ]
    )


@given(case=cases())
@repeatable
def test_the_forward_pass_is_that_of_scipy(case):
    shape, o, window = case
    x, weight, bias = normal(*shape), normal(o, shape[1], *window.kernel, seed=1), normal(o, seed=2)
    out, _ = convolution.forward(x, weight, bias, window)
    np.testing.assert_allclose(out, by_scipy(x, weight, bias, window), rtol=1e-10, atol=1e-10)


@given(case=cases())
@repeatable
def test_columns_and_folded_are_adjoint(case):
    shape, _, window = case
    x = normal(*shape)
    patches = convolution.columns(x, window)
    other = normal(*patches.shape, seed=1)
    folded = convolution.folded(other, shape, window)
    assert np.vdot(patches, other) == pytest.approx(np.vdot(x, folded), rel=1e-9, abs=1e-9)


@needs_numba
@given(case=cases())
@example(case=((1, 1, 2, 60), 1, Window((2, 50), (1, 1), (0, 0))))
@example(case=((2, 3, 6, 7), 33, Window((1, 1), (1, 1), (1, 2))))
@example(case=((2, 3, 14, 14), 9, Window((3, 3), (1, 1), (1, 1))))
@example(case=((2, 2, 5, 28), 17, Window((3, 3), (1, 1), (1, 1))))
@example(case=((3, 1, 16, 16), 3, Window((3, 3), (1, 1), (1, 1))))
@repeatable
def test_the_implicit_product_is_exact_in_whole_numbers(case):
    from tinytorch.kernels import implicit

    shape, o, window = case
    window = window._replace(stride=(1, 1))
    x, weight, bias = whole(*shape), whole(o, shape[1], *window.kernel, seed=1), whole(o, seed=2)
    patches = convolution.columns_reference(x, window)
    out = implicit.correlate(x, weight, bias, window.padding)
    np.testing.assert_array_equal(out, np.einsum("ncuvij,ocuv->noij", patches, weight) + bias[:, None, None])
    g = whole(*out.shape, seed=3)
    np.testing.assert_array_equal(
        implicit.of_weight(x, g, weight.shape, window.padding), np.einsum("ncuvij,noij->ocuv", patches, g)
    )


@needs_numba
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"x": np.zeros((1, 2, 5, 5))}, "`x` must be contiguous float32, got float64"),
        ({"x": np.zeros((1, 2, 5, 10), np.float32)[..., ::2]}, "`x` must be contiguous float32"),
        (
            {"x": np.zeros((1, 3, 5, 5), np.float32)},
            r"kernels of shape \(4, 2, 3, 3\), got shape \(1, 3, 5, 5\)",
        ),
        ({"padding": (-1, 0)}, "`x` must be images"),
        ({"x": np.zeros((1, 2, 2, 5), np.float32)}, r"do not fit into padded images of \(2, 5\)"),
        ({"g": np.zeros((1, 4, 3, 4), np.float32)}, r"`g` must be .* of shape \(1, 4, 3, 3\)"),
        ({"g": np.zeros((1, 4, 3, 3))}, "`g` must be contiguous float32"),
    ],
)
def test_arrays_that_do_not_fit_never_reach_compiled_code(change, said):
    from tinytorch.kernels import implicit

    arguments = {
        "x": np.zeros((1, 2, 5, 5), np.float32),
        "g": np.zeros((1, 4, 3, 3), np.float32),
        "shape": (4, 2, 3, 3),
        "padding": (0, 0),
    }
    with pytest.raises(ValueError, match=said):
        implicit.of_weight(**(arguments | change))


@needs_numba
@pytest.mark.parametrize(
    "window",
    [
        Window((3, 3), (1, 1), (1, 1)),
        Window((2, 5), (1, 1), (0, 3)),
        Window((2, 3), (1, 1), (2, 0)),
        Window((3, 3), (2, 1), (1, 1)),
    ],
)
@pytest.mark.parametrize("bad", [0, np.nan, np.inf])
def test_implicit_and_explicit_products_are_one_convolution(window, bad, monkeypatch):
    x, weight, bias = whole(6, 5, 18, 12), whole(7, 5, *window.kernel, seed=1), whole(7, seed=2)
    x[1, 2, 3, 11], g_of = bad, whole(6, 7, *window.positions(18, 12), seed=3)

    def everything():
        out, patches = convolution.forward(x, weight, bias, window)
        assert patches is None or patches.size, "columns are kept only where they were made"
        made.append(patches is not None)
        return (
            out,
            convolution.of_input(g_of, weight, x.shape, window),
            convolution.of_weight(g_of, x, window, patches),
        )

    made = []
    with np.errstate(invalid="ignore"):  # BLAS warns where infinities cancel
        fused = everything()
    monkeypatch.setattr(convolution, "_tiled", lambda *_: False)
    with np.errstate(invalid="ignore"):
        explicit = everything()
    for a, b in zip(fused, explicit, strict=True):
        np.testing.assert_array_equal(a, b)
    assert made == [window.stride != (1, 1), True]


@needs_numba
@given(case=cases())
@repeatable
def test_compiled_columns_are_those_of_numpy(case):
    shape, _, window = case
    x = normal(*shape).astype(np.float32)
    expected = convolution.columns_reference(x, window)
    found = np.full_like(expected, np.nan)
    convolution._columns_kernel()(x, found, *window.stride, *window.padding)
    np.testing.assert_array_equal(found, expected)
    back = np.zeros_like(x)
    convolution._folded_kernel()(expected, back, *window.stride, *window.padding)
    np.testing.assert_allclose(
        back, convolution.folded_reference(expected, shape, window), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("bias", [True, False])
def test_the_rule_of_convolution(window, bias):
    arrays = normal(2, 3, 7, 6), normal(4, 3, *window.kernel, seed=1), *([normal(4, seed=2)] if bias else [])
    check_rule(spatial.convolve, *arrays, window=window)


def test_large_float32_images_agree_with_float64():
    x, weight = normal(4, 8, 28, 28), normal(16, 8, 3, 3, seed=1)
    window = WINDOWS[0]
    g = normal(4, 16, 28, 28, seed=2)
    wide, narrow = [
        (
            (parts := convolution.forward(a, w, None, window))[0],
            convolution.of_input(b, w, a.shape, window),
            convolution.of_weight(b, a, window, parts[1]),
        )
        for a, w, b in ((x, weight, g), tuple(v.astype(np.float32) for v in (x, weight, g)))
    ]
    for a, b in zip(wide, narrow, strict=True):
        assert b.dtype == np.float32
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-3)


def test_strided_images_and_images_of_one_channel_are_read_where_they_lie():
    base = normal(4, 28, 28, 6).astype(np.float32)
    nchw = base.transpose(0, 3, 1, 2)[:, ::2]
    one = base.transpose(0, 3, 1, 2)[:, 1:2]
    for x in (nchw, one, nchw[::2, :, ::-1]):
        weight = normal(5, x.shape[1], 3, 3).astype(np.float32)
        found, _ = convolution.forward(x, weight, None, WINDOWS[0])
        expected, _ = convolution.forward(np.ascontiguousarray(x), weight, None, WINDOWS[0])
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_and_infinity_reach_every_pixel_that_sees_them(bad):
    x = np.ones((1, 2, 40, 40), np.float32)
    x[0, 1, 5, 6] = bad
    out = tt.Conv2d(2, 3, 3, padding=1)(x).data
    touched = ~np.isfinite(out[0, 0])
    assert touched.sum() == 9
    assert touched[4:7, 5:8].all()


@pytest.mark.parametrize(
    "window",
    [
        Window((3, 3), (1, 1), (1, 1)),
        Window((2, 3), (2, 1), (0, 1)),
        Window((4, 2), (3, 4), (2, 1)),
        Window((1, 1), (1, 1), (0, 0)),
    ],
)
def test_the_rules_of_pooling(window):
    x = np.random.default_rng(0).permutation(2 * 3 * 7 * 6).reshape(2, 3, 7, 6) / 10
    check_rule(spatial.max_pool, x, window=window)
    check_rule(spatial.average_pool, x, window=window)


@given(case=cases())
@repeatable
def test_pooling_is_what_loops_over_patches_find(case):
    shape, _, window = case
    if any(2 * p > k for p, k in zip(window.padding, window.kernel, strict=True)):
        window = window._replace(padding=(0, 0), kernel=tuple(np.minimum(window.kernel, shape[2:]).tolist()))
    x = normal(*shape).astype(np.float32)
    (kh, kw), (sh, sw), (ph, pw) = window
    largest = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)), constant_values=-np.inf)
    zeros = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)))
    found, where = pooling.largest(x, window)
    average = pooling.average(x, window)
    down, across = window.positions(*shape[2:])
    for i, j in itertools.product(range(down), range(across)):
        patch = (slice(None), slice(None), slice(i * sh, i * sh + kh), slice(j * sw, j * sw + kw))
        np.testing.assert_array_equal(found[:, :, i, j], largest[patch].max(axis=(2, 3)))
        np.testing.assert_allclose(
            average[:, :, i, j], zeros[patch].sum(axis=(2, 3)) / (kh * kw), rtol=1e-5, atol=1e-6
        )
    g = normal(*found.shape, seed=1).astype(np.float32)
    expected = np.zeros((*shape[:2], shape[2] + 2 * ph, shape[3] + 2 * pw), np.float32)
    for n, c, i, j in np.ndindex(found.shape):
        u, v = divmod(where[n, c, i, j], kw)
        assert largest[n, c, i * sh + u, j * sw + v] == found[n, c, i, j]
        expected[n, c, i * sh + u, j * sw + v] += g[n, c, i, j]
    expected = expected[:, :, ph : ph + shape[2], pw : pw + shape[3]]
    back = pooling.largest_backward(g, where, shape, window)
    np.testing.assert_allclose(back, expected, rtol=1e-5, atol=1e-6)
    if COMPILED:
        compiled, winners = np.empty_like(found), np.empty_like(where)
        pooling._largest_kernel()(x, compiled, winners, kh, kw, sh, sw, ph, pw)
        np.testing.assert_array_equal(compiled, found)
        np.testing.assert_array_equal(winners, where)
        back = np.zeros_like(x)
        pooling._backward_kernel()(g, where, back, kw, sh, sw, ph, pw)
        np.testing.assert_allclose(back, expected, rtol=1e-5, atol=1e-6)


def test_patches_of_nothing_but_minus_infinity_give_their_gradient_to_a_pixel_of_the_image():
    for size in (4, 40):
        x = tt.Tensor(np.full((1, 1, size, size), -np.inf), requires_grad=True)
        tt.MaxPool2d(3, stride=2, padding=1)(x).backward(np.ones((1, 1, size // 2, size // 2)))
        assert x.grad.sum() == size * size / 4


def test_the_first_of_equal_pixels_alone_gets_the_gradient():
    x = tt.Tensor(np.ones((1, 1, 4, 4)), requires_grad=True)
    tt.MaxPool2d(2)(x).backward(np.array([[[[1, 2], [3, 4]]]]))
    assert x.grad[0, 0].tolist() == [[1, 0, 2, 0], [0, 0, 0, 0], [3, 0, 4, 0], [0, 0, 0, 0]]


def test_a_pixel_that_wins_in_two_patches_gets_both_gradients():
    x = np.zeros((1, 1, 3, 3))
    x[0, 0, 1, 1] = 5
    image = tt.Tensor(x, requires_grad=True)
    tt.MaxPool2d(2, stride=1)(image).backward(np.array([[[[1, 2], [3, 4]]]]))
    assert image.grad[0, 0, 1, 1] == image.grad.sum() == 10


@pytest.mark.parametrize("size", [4, 40])
def test_a_nan_is_the_largest_of_its_patch(size):
    x = np.ones((1, 1, size, size), np.float32)
    x[0, 0, 1, 0] = np.nan
    out = tt.MaxPool2d(2)(x).data
    assert np.isnan(out).sum() == 1
    assert np.isnan(out[0, 0, 0, 0])


def test_average_pooling_keeps_the_sum_where_patches_tile_the_image():
    x = normal(2, 3, 6, 6)
    assert tt.AvgPool2d(3)(x).data.sum() * 9 == pytest.approx(x.sum(), rel=1e-4)


class TestBatchNorm:
    def test_training_normalises_by_the_batch_and_keeps_running_averages(self):
        layer, x = tt.BatchNorm2d(3), (2 + 3 * normal(8, 3, 5, 5)).astype(np.float32)
        layer.gamma.data[...], layer.beta.data[...] = [1, 2, 3], [4, 5, 6]
        out = layer(x).data
        np.testing.assert_allclose(out.mean(axis=(0, 2, 3)), [4, 5, 6], atol=1e-4)
        np.testing.assert_allclose(out.std(axis=(0, 2, 3)), [1, 2, 3], rtol=1e-4)
        np.testing.assert_allclose(layer.running_mean, 0.1 * x.mean(axis=(0, 2, 3)), rtol=1e-4)
        np.testing.assert_allclose(layer.running_var, 0.9 + 0.1 * x.var(axis=(0, 2, 3)), rtol=1e-4)

    def test_evaluation_uses_the_averages_and_leaves_them(self):
        layer, x = tt.BatchNorm2d(2).eval(), normal(4, 2, 3, 3)
        layer.running_mean[...], layer.running_var[...] = [1, 2], [4, 9]
        expected = (x - np.array([1, 2])[:, None, None]) / np.sqrt(np.array([4, 9]) + 1e-5)[:, None, None]
        np.testing.assert_allclose(layer(x).data, expected, rtol=1e-4, atol=1e-5)
        assert layer.running_mean.tolist() == [1, 2]
        assert layer.running_var.tolist() == [4, 9]
        assert layer(x[:1]).shape == (1, 2, 3, 3)

    def test_the_rule_knows_that_mean_and_variance_depend_on_the_batch(self):
        def rule(x, gamma, beta):
            moments = {"mean": x.mean(axis=(0, 2, 3)), "variance": x.var(axis=(0, 2, 3))}
            return spatial.batch_norm(x, gamma, beta, **moments, eps=1e-5)

        check_rule(rule, normal(4, 3, 2, 2), normal(3, seed=1), normal(3, seed=2))

    def test_gradients_in_evaluation(self):
        layer = tt.BatchNorm2d(3).eval()
        layer.running_var[...] = [1, 2, 3]
        check_layer(layer, normal(2, 3, 2, 2), parameters=layer.parameters(), rtol=1e-4)

    def test_state_holds_the_averages(self):
        assert list(tt.BatchNorm2d(2).state_dict()) == ["gamma", "beta", "running_mean", "running_var"]


def test_convolution_pooling_and_flatten_feed_a_linear_layer_and_pass_gradients_on():
    rng = np.random.default_rng(0)
    model = tt.Sequential(
        tt.Conv2d(1, 4, 3, padding=1, rng=rng), tt.ReLU(), tt.MaxPool2d(2), tt.Conv2d(4, 6, 3, rng=rng),
        tt.AvgPool2d(2), tt.Flatten(), tt.Linear(6, 5, rng=rng),
    )  # fmt: skip
    x = tt.Tensor(normal(3, 1, 8, 8), requires_grad=True)
    out = model(x)
    assert out.shape == (3, 5)
    tt.CrossEntropyLoss()(out, [0, 1, 2]).backward()
    for tensor in (x, *model.parameters()):
        assert tensor.grad.shape == tensor.shape
        assert np.abs(tensor.grad).max() > 0


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (
            lambda: tt.Conv2d(3, 8, 3)(np.ones((2, 1, 8, 8))),
            r"Conv2d\(3, 8, 3\) expects .* \(N, 3, H, W\).*got \(2, 1, 8, 8\)",
        ),
        (lambda: tt.Conv2d(3, 8, 3)(np.ones((3, 8, 8))), r"shape \(N, 3, H, W\).*got \(3, 8, 8\)"),
        (
            lambda: tt.Conv2d(1, 8, 5, padding=1)(np.ones((2, 1, 2, 8))),
            r"at least \(5, 5\) .* padding of \(1, 1\).*got shape \(2, 1, 2, 8\)",
        ),
        (lambda: tt.Conv2d(1, 8, 3)(np.ones((0, 1, 8, 8))), r"at least one, got \(0, 1, 8, 8\)"),
        (
            lambda: tt.MaxPool2d(3)(np.ones((1, 1, 2, 2))),
            r"MaxPool2d\(3\) expects images of at least \(3, 3\)",
        ),
        (lambda: tt.AvgPool2d(2)(np.ones((2, 2))), r"AvgPool2d\(2\) expects images of shape \(N, C, H, W\)"),
        (
            lambda: tt.BatchNorm2d(3)(np.ones((1, 2, 4, 4))),
            r"BatchNorm2d\(3\) expects images of shape \(N, 3, H, W\)",
        ),
        (lambda: tt.Conv2d(0, 8, 3), "`in_channels` must be a positive whole number, got 0"),
        (lambda: tt.Conv2d(1, 8, 0), "`kernel_size` must be a whole number of at least 1, or two, got 0"),
        (
            lambda: tt.Conv2d(1, 8, 3, stride=0),
            "`stride` must be a whole number of at least 1, or two, got 0",
        ),
        (
            lambda: tt.Conv2d(1, 8, 3, padding=-1),
            "`padding` must be a whole number of at least 0, or two, got -1",
        ),
        (lambda: tt.Conv2d(1, 8, (3, 3, 3)), r"`kernel_size` .* got \(3, 3, 3\)"),
        (
            lambda: tt.MaxPool2d(2, padding=2),
            r"`padding` must be at most half of `kernel_size` \(2, 2\), got \(2, 2\)",
        ),
        (lambda: tt.BatchNorm2d(2, eps=0), "`eps` must be a positive number, got 0"),
    ],
)
def test_bad_arguments_name_the_layer_and_both_shapes(call, said):
    with pytest.raises(ValueError, match=said):
        call()


def test_reprs_show_what_differs_from_the_usual():
    layers = [
        tt.Conv2d(1, 8, 3),
        tt.Conv2d(1, 8, (3, 5), stride=2, padding=1),
        tt.MaxPool2d(2),
        tt.AvgPool2d(3, stride=1),
    ]
    assert [repr(layer) for layer in layers] == [
        "Conv2d(1, 8, 3)",
        "Conv2d(1, 8, (3, 5), stride=2, padding=1)",
        "MaxPool2d(2)",
        "AvgPool2d(3, stride=1)",
    ]


@pytest.mark.parametrize("window", [Window((3, 3), (1, 1), (1, 1)), Window((1, 1), (1, 1), (0, 0))], ids=str)
def test_a_kernel_given_no_images_returns_none(window):
    weight = np.ones((4, 3, *window.kernel), np.float32)
    out, patches = convolution.forward(np.zeros((0, 3, 8, 6), np.float32), weight, None, window)
    assert out.shape == (0, 4, 8, 6)
    assert patches.shape == (0, 3 * weight[0, 0].size, 48)
