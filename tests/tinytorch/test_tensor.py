"""Tensors against float64 and exact integer arithmetic, over shapes that broadcast."""

import operator
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import mutually_broadcastable_shapes

import tinytorch
from tinytorch.core.tensor import Parameter, Tensor

OPERATIONS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}
repeatable = settings(derandomize=True, database=None, deadline=None, max_examples=60)


def numbers(shape, seed=0):
    """Float32 numbers between 0.5 and 2, so that no quotient or sum loses its precision."""
    return np.random.default_rng(seed).uniform(0.5, 2, shape).astype(np.float32)


def whole(shape, seed):
    """Small whole numbers, whose products float32 holds exactly."""
    return np.random.default_rng(seed).integers(-9, 10, shape)


@pytest.mark.parametrize(
    ("data", "shape"),
    [
        (3, ()),
        (2.5, ()),
        ([True, False], (2,)),
        ([[1, 2, 3], [4, 5, 6]], (2, 3)),
        ([], (0,)),
        (np.arange(6).reshape(2, 3), (2, 3)),
        (np.ones((2, 1, 2), np.float16), (2, 1, 2)),
        (np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)), (2, 3)),
        (np.arange(6, dtype=">f4")[::-2], (3,)),
        (Tensor([1.0, 2.0]), (2,)),
        ([Tensor([1.0, 2.0]), Tensor([3.0, 4.0])], (2, 2)),
        ([Tensor(1.0), 2], (2,)),
    ],
)
def test_data_of_any_kind_becomes_writable_float32_of_the_same_shape_and_values(data, shape):
    tensor = Tensor(data)
    assert type(tensor.data) is np.ndarray
    assert tensor.data.dtype == np.float32
    assert tensor.data.flags.carray
    assert tensor.shape == shape
    assert tensor.size == np.prod(shape)
    assert tensor.dtype == np.float32
    np.testing.assert_array_equal(tensor.data, np.array(data, dtype=float))


def test_a_tensor_owns_its_data_whatever_it_was_made_of():
    source = np.ones(3, np.float32)
    first = Tensor(source)
    second = Tensor(first)
    source[0], first.data[1] = 7, 8
    assert first.data.tolist() == [1, 8, 1]
    assert second.data.tolist() == [1, 1, 1]


@pytest.mark.parametrize("view", ["read only", "broadcast"])
def test_data_that_cannot_be_written_to_is_copied_into_data_that_can(view):
    source = np.broadcast_to(np.float32(2), (2, 3)) if view == "broadcast" else np.full((2, 3), 2, np.float32)
    source.flags.writeable = False
    tensor = Tensor(source)
    tensor.data[0, 0] = 5
    assert tensor.data.tolist() == [[5, 2, 2], [2, 2, 2]]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ([[1, 2], [3]], "`data` must be rectangular"),
        ([1, None], "`data` must hold real numbers, got object data"),
        ("1.5", "`data` must hold real numbers, got <U3 data"),
        ([1j], "`data` must hold real numbers, got complex128 data"),
        (np.array([1, 2], dtype=object), "got object data"),
        (np.array(["2024-01-01"], dtype="datetime64[D]"), "got datetime64"),
    ],
)
def test_data_that_is_ragged_or_no_real_number_is_refused(data, said):
    with pytest.raises(ValueError, match=said):
        Tensor(data)


def test_only_a_parameter_requires_a_gradient_unless_told_and_no_tensor_starts_with_one():
    assert Tensor([1.0]).requires_grad is False
    assert Tensor([1.0], requires_grad=True).requires_grad is True
    parameter = Parameter([[1, 2]])
    assert isinstance(parameter, Tensor)
    assert parameter.requires_grad is True
    assert parameter.grad is None
    parameter.grad = np.ones((1, 2), np.float32)
    assert parameter.grad.sum() == 2


@pytest.mark.parametrize("symbol", OPERATIONS)
@given(shapes=mutually_broadcastable_shapes(num_shapes=2, max_dims=4, max_side=4, min_side=0))
@repeatable
def test_arithmetic_broadcasts_as_numpy_does_and_agrees_with_float64(symbol, shapes):
    operation = OPERATIONS[symbol]
    left, right = (numbers(shape, seed) for seed, shape in enumerate(shapes.input_shapes))
    expected = operation(left.astype(float), right.astype(float))
    for a, b in ((Tensor(left), Tensor(right)), (Tensor(left), right), (left, Tensor(right))):
        result = operation(a, b)
        assert type(result) is Tensor
        assert result.shape == shapes.result_shape
        assert result.dtype == np.float32
        np.testing.assert_allclose(result.data, expected, rtol=1e-6, atol=3e-7)


@pytest.mark.parametrize("symbol", OPERATIONS)
@pytest.mark.parametrize("other", [3, 0.25, True, np.float64(3), np.float32(3), np.int64(3), [1, 2, 4]])
def test_numbers_and_lists_stand_on_either_side_and_the_result_stays_float32(symbol, other):
    operation, values = OPERATIONS[symbol], numbers(3)
    for result, expected in (
        (operation(Tensor(values), other), operation(values.astype(float), np.asarray(other))),
        (operation(other, Tensor(values)), operation(np.asarray(other), values.astype(float))),
    ):
        assert type(result) is Tensor
        assert result.dtype == np.float32
        np.testing.assert_allclose(result.data, expected, rtol=1e-6, atol=3e-7)


def test_negation_changes_every_sign():
    assert (-Tensor([1.0, -2.0])).data.tolist() == [-1, 2]


def test_arithmetic_leaves_its_operands_alone():
    a, b = Tensor([1.0, 2.0]), Tensor([3.0, 5.0])
    c = a
    c += b
    assert (a.data.tolist(), b.data.tolist(), c.data.tolist()) == ([1, 2], [3, 5], [4, 7])


def test_an_operand_that_is_no_number_is_refused():
    with pytest.raises(ValueError, match="`operand` must hold real numbers"):
        Tensor([1.0]) + "a"


@given(
    shapes=mutually_broadcastable_shapes(signature=np.matmul.signature, max_dims=2, min_side=0, max_side=5),
    seed=st.integers(0, 1000),
)
@repeatable
def test_products_of_matrices_vectors_and_batches_are_exact_for_whole_numbers(shapes, seed):
    left, right = (whole(shape, seed + i) for i, shape in enumerate(shapes.input_shapes))
    for result in (
        Tensor(left) @ Tensor(right),
        Tensor(left).matmul(right),
        left @ Tensor(right),
        Tensor(left) @ right,
    ):
        assert type(result) is Tensor
        assert type(result.data) is np.ndarray
        assert result.dtype == np.float32
        np.testing.assert_array_equal(result.data, np.matmul(left, right))


@pytest.mark.parametrize(
    ("left", "right", "said"),
    [
        ((2, 3), (4, 5), r"cannot multiply \(2, 3\) by \(4, 5\): the inner sizes 3 and 4 differ"),
        ((3,), (4,), "the inner sizes 3 and 4 differ"),
        ((2, 3), (2,), "the inner sizes 3 and 2 differ"),
        ((7, 2, 3), (4, 5), "the inner sizes 3 and 4 differ"),
        ((2, 3, 4), (5, 4, 6), r"the batch shapes \(2,\) and \(5,\) do not broadcast"),
        ((), (2, 3), r"cannot multiply \(\) by \(2, 3\): a number has no matrix product, use \*"),
        ((2, 3), (), "a number has no matrix product"),
    ],
)
def test_shapes_without_a_product_are_both_named_with_the_reason(left, right, said):
    with pytest.raises(ValueError, match=said):
        Tensor(np.ones(left)) @ Tensor(np.ones(right))


def test_a_product_sees_what_was_written_into_the_data():
    weight = Parameter([[1.0], [1.0]])
    x = Tensor([[2.0, 3.0]])
    assert (x @ weight).data.tolist() == [[5]]
    weight.data[...] = [[10], [1]]
    assert (x @ weight).data.tolist() == [[23]]


@pytest.mark.parametrize(
    ("shape", "expected"), [((), ()), ((3,), (3,)), ((2, 3), (3, 2)), ((4, 2, 3), (4, 3, 2))]
)
def test_transposing_swaps_the_last_two_axes(shape, expected):
    values = numbers(shape)
    tensor = Tensor(values)
    for result in (tensor.T, tensor.transpose()):
        assert result.shape == expected
        np.testing.assert_array_equal(result.data, np.swapaxes(values, -1, -2) if len(shape) > 1 else values)


def test_transposing_swaps_any_two_axes_that_are_named_and_shares_the_memory():
    tensor = Tensor(numbers((2, 3, 4)))
    swapped = tensor.transpose(0, -1)
    np.testing.assert_array_equal(swapped.data, tensor.data.transpose(2, 1, 0))
    swapped.data[0, 0, 0] = 9
    assert tensor.data[0, 0, 0] == 9


@pytest.mark.parametrize(
    ("dims", "said"),
    [
        ((0,), "`dim0` and `dim1` must be given together, got 0 and None"),
        ((0, 5), "`dim1` must name one of 2 axes, got 5"),
    ],
)
def test_transposing_axes_that_are_not_there_is_refused(dims, said):
    with pytest.raises(ValueError, match=said):
        Tensor(numbers((2, 3))).transpose(*dims)


@pytest.mark.parametrize("shape", [(3, 2), (-1,), (1, 2, -1)])
def test_reshaping_keeps_the_order_of_the_elements(shape):
    tensor = Tensor(np.arange(6).reshape(2, 3))
    for result in (tensor.reshape(shape), tensor.reshape(*shape)):
        np.testing.assert_array_equal(result.data, np.arange(6).reshape(shape))


def test_reshaping_to_another_number_of_elements_is_refused():
    with pytest.raises(ValueError, match="6 elements of shape"):
        Tensor(np.arange(6)).reshape(4)


@pytest.mark.parametrize(
    "key", [1, -1, slice(0, 2), (0, 2), (slice(None), None, 1), ..., [1, 0], np.array([True, False])]
)
def test_indexing_follows_numpy_and_gives_a_tensor(key):
    values = numbers((2, 3))
    result = Tensor(values)[key]
    assert type(result) is Tensor
    assert type(result.numpy()) is np.ndarray
    np.testing.assert_array_equal(result.data, values[key])


def test_length_and_iteration_run_over_the_first_axis():
    tensor = Tensor([[1, 2], [3, 4], [5, 6]])
    assert len(tensor) == 3
    assert [row.data.tolist() for row in tensor] == [[1, 2], [3, 4], [5, 6]]


@pytest.mark.parametrize("use", [len, list])
def test_a_single_number_has_neither_length_nor_elements_to_iterate_over(use):
    with pytest.raises(TypeError, match="len"):
        use(Tensor(1.0))


@pytest.mark.parametrize("data", [2.5, [2.5], [[2.5]]])
def test_a_tensor_of_one_element_is_a_number(data):
    assert float(Tensor(data)) == 2.5


def test_a_tensor_of_more_elements_is_no_number():
    with pytest.raises(ValueError, match="one element"):
        float(Tensor([1.0, 2.0]))


@pytest.mark.parametrize("name", ["sum", "mean", "max"])
@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("axis", [None, 0, -1, (0, 2), (0, 1, 2)])
def test_reductions_agree_with_float64(name, axis, keepdims):
    values = np.random.default_rng(0).standard_normal((3, 4, 5)).astype(np.float32)
    result = getattr(Tensor(values), name)(axis=axis, keepdims=keepdims)
    expected = getattr(values.astype(float), name)(axis=axis, keepdims=keepdims)
    assert type(result) is Tensor
    assert type(result.numpy()) is np.ndarray
    assert result.dtype == np.float32
    assert result.shape == np.shape(expected)
    np.testing.assert_allclose(result.data, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("tensor", "text"),
    [
        (Tensor(1.5), "Tensor(1.5)"),
        (Tensor([[1, 2], [3, 4]]), "Tensor([[1., 2.],\n        [3., 4.]])"),
        (Tensor([1.0], requires_grad=True), "Tensor([1.], requires_grad=True)"),
        (Parameter([1.0]), "Parameter([1.], requires_grad=True)"),
    ],
)
def test_the_text_of_a_tensor_shows_its_numbers_and_whether_it_requires_a_gradient(tensor, text):
    assert repr(tensor) == text


def test_numpy_reads_a_tensor_without_a_copy():
    tensor = Tensor([1.0, 2.0])
    assert np.shares_memory(np.asarray(tensor), tensor.data)
    assert tensor.numpy() is tensor.data
    assert np.array(tensor, dtype=float).dtype == float


def test_the_package_is_light_to_import_and_finds_its_names_on_demand():
    program = (
        "import sys, tinytorch\n"
        "assert 'numpy' not in sys.modules\n"
        "assert tinytorch.Tensor([1, 2]).sum().data == 3\n"
        "import tinytorch.perf.acceleration\n"
        "print(*{'numba', 'scipy'}.intersection(sys.modules))\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == ""


def test_the_package_has_a_version_and_lists_its_names_and_no_others():
    assert tinytorch.Tensor is Tensor
    assert tinytorch.__version__[0].isdigit()
    assert {"Tensor", "__version__"} <= set(dir(tinytorch))
    with pytest.raises(AttributeError, match="module 'tinytorch' has no attribute 'Tenser'"):
        tinytorch.Tenser  # noqa: B018
