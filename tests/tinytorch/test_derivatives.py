"""Every rule of the table against central differences in float64, over shapes, axes and options."""

import numpy as np
import pytest
from gradients import check_layer, check_rule
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays, basic_indices, mutually_broadcastable_shapes

from tinytorch.core import derivatives as d
from tinytorch.core.tensor import Tensor, apply, concatenate

repeatable = settings(derandomize=True, database=None, deadline=None, max_examples=50)


def uniform(shape, low=-2.0, high=2.0, seed=0):
    return np.random.default_rng(seed).uniform(low, high, shape)


def distinct(shape, seed=0):
    """Numbers that are 0.1 apart, none of them within 0.05 of 0: no step of a difference crosses a kink."""
    size = int(np.prod(shape))
    return (np.random.default_rng(seed).permutation(size).reshape(shape) - size / 2 + 0.55) / 10


@pytest.mark.parametrize("rule", [d.add, d.subtract, d.multiply, d.divide])
@given(shapes=mutually_broadcastable_shapes(num_shapes=2, max_dims=4, max_side=3, min_side=1))
@repeatable
def test_arithmetic_with_broadcasting(rule, shapes):
    left, right = shapes.input_shapes
    check_layer(lambda a, b: apply(rule, a, b), uniform(left), uniform(right, 0.5, 2, seed=1))


@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 3), (2, 1, 4)])
@pytest.mark.parametrize("rule", [d.negative, d.exp, d.log, d.sqrt, d.absolute])
def test_functions_of_each_element(rule, shape):
    low = 0.5 if rule in (d.log, d.sqrt) else -2.0
    x = distinct(shape) if rule is d.absolute else uniform(shape, low)
    check_rule(rule, x)


@pytest.mark.parametrize("exponent", [-2.5, -1.0, 0.0, 0.5, 1.0, 2.0, 3.0, 4.0, 2.7])
def test_powers(exponent):
    check_rule(lambda x: _first_only(d.power(x, exponent)), uniform((2, 3), 0.5))


@pytest.mark.parametrize("exponent", [1.0, 2.0, 3.0, 4.0])
def test_whole_powers_of_negative_numbers(exponent):
    x = -uniform((5,), 0.5)
    np.testing.assert_allclose(d.power(x, exponent)[0], x**exponent)
    check_rule(lambda x: _first_only(d.power(x, exponent)), x)


def _first_only(result):
    out, vjps = result
    return out, vjps[:1]


@pytest.mark.parametrize(("low", "high"), [(-0.3, 0.3), (None, 0.2), (0.1, None)])
def test_clip_passes_gradient_between_its_bounds_only(low, high):
    x = distinct((4, 5))
    check_rule(lambda x: _first_only(d.clip(x, low, high)), x)
    grad = d.clip(x, low, high)[1][0](np.ones_like(x))
    inside = (x >= (-np.inf if low is None else low)) & (x <= (np.inf if high is None else high))
    assert 0 < inside.sum() < x.size
    np.testing.assert_array_equal(grad, inside)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ((2, 3), (3, 4)),
        ((5, 2, 3), (5, 3, 4)),
        ((5, 2, 3), (3, 4)),
        ((2, 3), (5, 3, 4)),
        ((6, 1, 2, 3), (1, 5, 3, 4)),
        ((3,), (3,)),
        ((3,), (3, 4)),
        ((2, 3), (3,)),
        ((5, 2, 3), (3,)),
        ((3,), (5, 3, 4)),
        ((1, 1), (1, 1)),
    ],
)
def test_matrix_products_of_every_kind(left, right):
    check_layer(lambda a, b: a @ b, uniform(left), uniform(right, seed=1))


AXES = [None, 0, 1, -1, (0, 2), (0, 1, 2), (-1, 0)]


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("name", ["sum", "mean", "max", "min"])
def test_reductions_over_axes(name, axis, keepdims):
    x = distinct((3, 2, 4))
    reduced = getattr(Tensor(x), name)(axis=axis, keepdims=keepdims)
    expected = getattr(x, name)(axis=axis, keepdims=keepdims)
    assert reduced.shape == expected.shape
    np.testing.assert_allclose(reduced.data, expected, rtol=1e-6, atol=1e-6)
    check_layer(lambda t: getattr(t, name)(axis=axis, keepdims=keepdims), x)


@pytest.mark.parametrize("name", ["max", "min"])
def test_ties_share_the_gradient(name):
    x = Tensor(
        [[1.0, 1.0, 0.0], [5.0, 5.0, 5.0]] if name == "max" else [[0.0, 0.0, 1.0], [5.0, 5.0, 5.0]], True
    )
    getattr(x, name)(axis=1).backward([6.0, 6.0])
    assert x.grad.tolist() == [[3, 3, 0], [2, 2, 2]]


@pytest.mark.parametrize("shape", [(6,), (3, 2), (1, 2, 3), (-1, 2)])
def test_reshape(shape):
    check_layer(lambda t: t.reshape(shape), uniform((2, 3)))


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1), (1, 2, 0), (-1, 0, 1)])
def test_permute(axes):
    check_layer(lambda t: t.permute(axes), uniform((2, 3, 4)))
    assert Tensor(np.zeros((2, 3, 4))).permute(*axes).shape == tuple((2, 3, 4)[a] for a in axes)


@pytest.mark.parametrize("dims", [(), (0, 1), (0, 2), (-1, 0)])
def test_transpose(dims):
    check_layer(lambda t: t.transpose(*dims), uniform((2, 3, 4)))


@given(data=st.data())
@repeatable
def test_basic_indexing(data):
    x = uniform((3, 4, 2))
    key = data.draw(basic_indices(x.shape, allow_newaxis=True))
    np.testing.assert_allclose(Tensor(x)[key].data, x[key], rtol=1e-6)
    check_layer(lambda t: t[key], x)


@given(picks=arrays(np.intp, st.tuples(st.integers(1, 3), st.integers(1, 4)), elements=st.integers(-3, 2)))
@repeatable
def test_indexing_by_arrays_adds_up_what_is_taken_twice(picks):
    x = uniform((3, 4))
    check_layer(lambda t: t[picks], x)
    check_layer(lambda t: t[picks, 1], x)
    check_layer(lambda t: t[Tensor(picks)], x)


def test_indexing_by_masks():
    x = distinct((3, 4))
    check_layer(lambda t: t[x > 0], x)
    tensor = Tensor(x)
    np.testing.assert_array_equal(tensor[tensor > 0].data, x[x > 0].astype(np.float32))
    np.testing.assert_array_equal(tensor[[2, 0]].data, x[[2, 0]].astype(np.float32))


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_concatenate(axis):
    shapes = [[2, 3, 4] for _ in range(3)]
    for length, shape in zip((1, 2, 3), shapes, strict=True):
        shape[axis] = length
    parts = [uniform(shape, seed=i) for i, shape in enumerate(shapes)]
    joined = concatenate([Tensor(part) for part in parts], axis=axis)
    np.testing.assert_array_equal(joined.data, np.concatenate(parts, axis).astype(np.float32))
    check_layer(lambda *t: concatenate(t, axis=axis), *parts)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: concatenate([]), "at least one tensor, got none"),
        (
            lambda: concatenate([np.ones((2, 3)), np.ones((2, 4))]),
            r"agree in all axes but 0, got shapes \(2, 3\), \(2, 4\)",
        ),
        (lambda: concatenate([np.ones(2)], axis=1), r"`axis` must name one of 1 axes, got 1"),
        (
            lambda: Tensor(np.ones((2, 3))).permute(0, 0),
            r"`axes` must name each of the 2 axes once, got \(0, 0\)",
        ),
        (lambda: Tensor(np.ones((2, 3))).permute(0, 2), r"`axes` must name one of 2 axes, got 2"),
        (lambda: Tensor(np.ones((2, 3))).transpose(0, 5), r"`dim1` must name one of 2 axes, got 5"),
        (
            lambda: Tensor(np.ones((2, 3))).reshape(4, 2),
            r"cannot reshape 6 elements of shape \(2, 3\) into \(4, 2\)",
        ),
        (lambda: Tensor(1.0) ** Tensor(2.0), "`exponent` must be a number, got Tensor"),
        (lambda: Tensor(1.0).clip(), "needs `low`, `high` or both"),
        (lambda: Tensor(1.0).clip(2, 1), "`low` must not be above `high`, got 2 and 1"),
        (lambda: bool(Tensor([1.0, 2.0]) > 0), "neither true nor false"),
        (lambda: Tensor([1.0, 2.0]).item(), r"one element, got shape \(2,\)"),
        (lambda: Tensor([1.0, 2.0])[Tensor([0.5])], "`index` must hold whole numbers, got 0.5"),
    ],
)
def test_bad_arguments_are_named(call, said):
    with pytest.raises(ValueError, match=said):
        call()


def test_comparisons_are_tensors_of_booleans_that_count():
    x = Tensor([1.0, 2.0, 3.0])
    assert (x > 2).numpy().tolist() == [False, False, True]
    assert (x >= 2).numpy().tolist() == [False, True, True]
    assert (x < 2).numpy().tolist() == [True, False, False]
    assert (x <= Tensor([1.0, 1.0, 5.0])).numpy().tolist() == [True, False, True]
    assert (x == 2).numpy().tolist() == [False, True, False]
    assert (x != [1, 2, 4]).numpy().tolist() == [False, False, True]
    assert (x > 1).sum().item() == 2
    assert (x > 1).mean().item() == pytest.approx(2 / 3)
    assert ((x > 1) * x).data.tolist() == [0, 2, 3]
    assert ((x > 1) * x).dtype == np.float32
    assert bool(Tensor(2.0) > 1)
    assert len({x, x}) == 1
