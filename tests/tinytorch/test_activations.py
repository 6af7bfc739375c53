"""Activations against SciPy and closed forms; their gradients against differences."""

import numpy as np
import pytest
import scipy.special
from gradients import check_layer, check_rule
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes

import tinytorch as tt
from tinytorch.core import activations
from tinytorch.kernels import softmax as kernels

repeatable = settings(derandomize=True, database=None, deadline=None, max_examples=40)


def spread(*shape, seed=0, scale=3.0):
    """Numbers of which none lies within 0.01 of 0."""
    x = np.random.default_rng(seed).normal(0, scale, shape)
    return x + 0.01 * np.sign(x)


def gelu_with_erf(x):
    return x * scipy.special.ndtr(x)


ORACLES = {
    tt.ReLU: lambda x: np.maximum(x, 0),
    tt.Sigmoid: scipy.special.expit,
    tt.Tanh: np.tanh,
    tt.Softmax: lambda x: scipy.special.softmax(x, axis=-1),
    tt.LogSoftmax: lambda x: scipy.special.log_softmax(x, axis=-1),
}
RULES = [
    activations.relu,
    activations.gelu,
    activations.sigmoid,
    activations.tanh,
    activations.softmax,
    activations.log_softmax,
]


@pytest.mark.parametrize("layer", ORACLES)
@pytest.mark.parametrize("shape", [(7,), (1, 1), (3, 5), (2, 3, 4), (64, 129)])
def test_values_are_those_of_scipy(layer, shape):
    x = spread(*shape)
    out = layer()(x)
    assert out.dtype == np.float32
    np.testing.assert_allclose(out.data, ORACLES[layer](x), rtol=2e-6, atol=2e-7)


def test_gelu_is_within_half_a_thousandth_of_the_form_with_erf_and_equals_its_tanh_form():
    x = np.linspace(-8, 8, 4001)
    out = tt.GELU()(x).data
    assert 1e-4 < np.abs(out - gelu_with_erf(x)).max() < 5e-4
    expected = 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rule", RULES)
@given(shape=array_shapes(min_dims=1, max_dims=4, max_side=5), seed=st.integers(0, 9))
@repeatable
def test_gradients(rule, shape, seed):
    check_rule(rule, spread(*shape, seed=seed))


@pytest.mark.parametrize("layer", [tt.Softmax, tt.LogSoftmax])
@pytest.mark.parametrize("dim", [0, 1, 2, -1, -3])
def test_softmax_normalises_the_axis_it_is_told(layer, dim):
    x = spread(3, 4, 5)
    out = layer(dim)(x).data
    oracle = scipy.special.softmax if layer is tt.Softmax else scipy.special.log_softmax
    np.testing.assert_allclose(out, oracle(x, axis=dim), rtol=2e-6, atol=2e-7)
    np.testing.assert_array_equal(layer()(x, dim=dim).data, out)
    check_layer(layer(dim), x)


@pytest.mark.parametrize("layer", [tt.ReLU, tt.GELU, tt.Sigmoid, tt.Tanh, tt.Softmax, tt.LogSoftmax])
def test_huge_numbers_give_limits_and_neither_nan_nor_a_warning(layer):
    x = tt.Tensor([[-1000.0, 0.0, 1000.0], [-1e38, 0.0, 1e38]], requires_grad=True)
    # x squared overflows for the largest floats, which leaves the limit as it is.
    with np.errstate(over="ignore" if layer is tt.GELU else "raise", invalid="raise"):
        out = layer()(x)
    assert not np.isnan(out.data).any()
    limits = {
        tt.ReLU: [0, 1000],
        tt.GELU: [0, 1000],
        tt.Sigmoid: [0, 1],
        tt.Tanh: [-1, 1],
        tt.Softmax: [0, 1],
    }
    if layer in limits:
        assert out.data[0, [0, 2]].tolist() == limits[layer]
    else:
        assert out.data[0].tolist() == [-2000, -1000, 0]


@pytest.mark.parametrize("layer", [tt.ReLU, tt.GELU, tt.Sigmoid, tt.Tanh, tt.Softmax, tt.LogSoftmax])
def test_nan_stays_nan(layer):
    out = layer()([[1.0, np.nan], [1.0, 2.0]]).data
    assert np.isnan(out[0, 1])
    assert np.isfinite(out[1]).all()


def test_relu_passes_the_gradient_of_positive_numbers_alone():
    x = tt.Tensor([-2.0, 0.0, 3.0], requires_grad=True)
    tt.ReLU()(x).backward([5, 7, 11])
    assert x.grad.tolist() == [0, 0, 11]


@pytest.mark.parametrize("layer", [tt.Softmax, tt.LogSoftmax])
@pytest.mark.parametrize("dim", [2, -3])
def test_an_axis_that_is_not_there_is_refused(layer, dim):
    with pytest.raises(ValueError, match=rf"`dim` must name one of the 2 axes of shape \(2, 3\), got {dim}"):
        layer(dim)(np.ones((2, 3)))


class TestMaskedSoftmax:
    def test_it_is_the_softmax_of_what_is_kept(self):
        scores, rng = spread(2, 3, 4, 5), np.random.default_rng(1)
        mask = rng.random((3, 4, 5)) < 0.6
        mask[..., 0] = True
        out = kernels.masked_softmax(scores, mask, 0.3)
        expected = scipy.special.softmax(np.where(mask, 0.3 * scores, -np.inf), axis=-1)
        np.testing.assert_allclose(out, expected, rtol=1e-12)

    def test_a_row_that_keeps_nothing_is_zero_and_gets_no_gradient(self):
        scores = spread(2, 3)
        mask = np.array([[True, False, True], [False, False, False]])
        out = kernels.masked_softmax(scores, mask, 1.0)
        assert out[1].tolist() == [0, 0, 0]
        assert kernels.masked_softmax_backward(np.ones((2, 3)), out, 1.0)[1].tolist() == [0, 0, 0]

    @pytest.mark.parametrize("masked", [True, False])
    def test_its_gradient(self, masked):
        mask = np.tri(4, 5, 1, dtype=bool) if masked else None

        def rule(scores):
            out = kernels.masked_softmax(scores, mask, 0.3)
            return out, (lambda g: kernels.masked_softmax_backward(g, out, 0.3),)

        check_rule(rule, spread(2, 4, 5))
