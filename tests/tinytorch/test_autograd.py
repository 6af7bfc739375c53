"""The engine: diamonds, shared leaves, freed graphs, no_grad, changes in place; gradients known by hand."""

import gc
import threading
import weakref

import numpy as np
import pytest

from tinytorch.core import autograd, derivatives
from tinytorch.core.autograd import no_grad
from tinytorch.core.tensor import Parameter, Tensor, apply, concatenate, wrap


def leaf(*values):
    return Tensor(list(values) if len(values) > 1 else values[0], requires_grad=True)


def test_a_diamond_adds_up_both_of_its_sides():
    x = leaf(2.0)
    y = x * x
    z = y * 3 + y * x  # 3 x^2 + x^3
    z.backward()
    assert x.grad == 6 * 2 + 3 * 4


def test_a_result_used_again_after_a_longer_detour_waits_for_all_of_its_gradient():
    x = leaf(3.0)
    a = x * 2
    b = a * a
    c = b + a
    d = c * b  # (4 x^2 + 2 x) 4 x^2
    d.backward()
    assert x.grad == 64 * 27 + 24 * 9


def test_many_uses_of_one_leaf_are_counted_each():
    x = leaf(1.0, 2.0)
    total = x.sum()
    for _ in range(20):
        total = total + (x * x).sum()
    total.backward()
    assert x.grad.tolist() == [41, 81]


def test_gradients_accumulate_over_calls_until_they_are_zeroed():
    x = leaf(1.0, -2.0)
    for expected in ([2, -4], [4, -8]):
        (x * x).sum().backward()
        assert x.grad.tolist() == expected
    x.zero_grad()
    assert x.grad is None
    (x * x).sum().backward()
    assert x.grad.tolist() == [2, -4]


def test_a_long_chain_needs_no_recursion():
    x = leaf(1.0)
    y = x
    for _ in range(20_000):
        y = y + 1
    y.backward()
    assert x.grad == 1
    del y
    gc.collect()


def test_two_leaves_never_share_the_memory_of_their_gradients():
    a, b = leaf(1.0, 2.0), leaf(3.0, 4.0)
    (a + b).backward(np.ones(2))
    a.grad[0] = 7
    assert b.grad.tolist() == [1, 1]


def test_the_gradient_that_was_handed_in_stays_as_it_is_and_belongs_to_the_caller():
    x = leaf(1.0, 2.0)
    given = np.array([3, 4], np.float32)
    (x + 0).backward(given)
    x.grad += 1
    assert given.tolist() == [3, 4]


@pytest.mark.parametrize("shapes", [((3,), (2, 3)), ((2, 1), (1, 3)), ((), (2, 2)), ((1, 1), (4, 1, 3))])
def test_broadcasting_is_undone_in_the_gradient(shapes):
    a, b = (Tensor(np.full(shape, 2.0), requires_grad=True) for shape in shapes)
    product = a * b
    product.sum().backward()
    for tensor in (a, b):
        assert tensor.grad.shape == tensor.shape
        np.testing.assert_array_equal(tensor.grad, np.full(tensor.shape, 2 * product.size / tensor.size))


def test_a_graph_can_be_used_once_and_says_so_the_second_time():
    x = leaf(2.0)
    y = x * x
    y.backward()
    with pytest.raises(
        RuntimeError, match=r"already used by backward\(\) and freed \(at `multiply`\).*retain_graph=True"
    ):
        y.backward()
    assert x.grad == 4


def test_a_shared_part_that_was_freed_is_noticed_before_anything_is_accumulated():
    x, w = leaf(2.0), leaf(5.0)
    shared = x * x
    (shared * 3).backward()
    second = shared * w
    with pytest.raises(RuntimeError, match="already used"):
        second.backward()
    assert (x.grad, w.grad) == (12, None)


def test_a_retained_graph_can_be_used_again():
    x = leaf(2.0)
    y = x * x
    y.backward(retain_graph=True)
    y.backward()
    assert x.grad == 8


def test_using_a_graph_lets_go_of_its_memory():
    x = leaf(1.0, 2.0)
    hidden = x * x
    kept = weakref.ref(hidden)
    total = (hidden * hidden).sum()
    total.backward()
    del hidden
    assert kept() is None


def test_nothing_is_recorded_inside_no_grad_nor_for_tensors_without_gradient():
    x = leaf(2.0)
    with no_grad():
        inside = x * x
        with no_grad():
            pass
        assert not (x + 1).requires_grad
    assert not inside.requires_grad
    assert (x * x).requires_grad
    assert not (Tensor(1.0) * 2).requires_grad
    with pytest.raises(RuntimeError, match="requires_grad=True"):
        inside.backward()


def test_no_grad_decorates_and_ends_with_an_exception():
    @no_grad()
    def square(x):
        return x * x

    x = leaf(2.0)
    assert not square(x).requires_grad
    with pytest.raises(ZeroDivisionError), no_grad():
        _ = 1 / 0
    assert (x * x).requires_grad


def test_one_no_grad_block_can_be_entered_again_inside_itself():
    x, block = leaf(2.0), no_grad()
    with block:
        with block:
            assert not (x * x).requires_grad
        assert not (x * x).requires_grad
    assert (x * x).requires_grad


def test_a_decorated_function_runs_in_two_threads_at_once():
    x, found, both_inside = leaf(2.0), [], threading.Barrier(2, timeout=10)

    @no_grad()
    def square():
        """Square it."""
        both_inside.wait()
        result = x * x
        both_inside.wait()
        return result

    def run():
        found.append((square().requires_grad, (x * x).requires_grad))

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [(False, True)] * 2
    assert (square.__name__, square.__doc__) == ("square", "Square it.")


def test_no_grad_holds_for_its_own_thread_only():
    x, found = leaf(2.0), []
    with no_grad():
        thread = threading.Thread(target=lambda: found.append((x * x).requires_grad))
        thread.start()
        thread.join()
    assert found == [True]


CHANGES = {
    "an element": lambda t: t.data.__setitem__(0, 5),
    "an element by numpy()": lambda t: t.numpy().__setitem__(-1, 5),
    "all of it": lambda t: t.data.__setitem__(..., 5),
    "in arithmetic": lambda t: t.data.__imul__(2),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("which", ["leaf", "intermediate", "without gradient"])
def test_a_change_in_place_between_forward_and_backward_is_an_error_that_accumulates_nothing(change, which):
    x, c = leaf(1.0, 2.0, 3.0), Tensor([1.0, 2.0, 3.0])
    hidden = x * c
    result = (hidden * hidden).sum()
    change({"leaf": x, "intermediate": hidden, "without gradient": c}[which])
    with pytest.raises(RuntimeError, match=r"shape \(3,\) was changed in place after `multiply` used it"):
        result.backward()
    assert x.grad is None


def test_a_change_through_a_view_is_noticed_too():
    x = leaf(1.0, 2.0, 3.0, 4.0)
    view = x.reshape(2, 2)
    result = (x * x).sum()
    view.data[0, 0] = 9
    with pytest.raises(RuntimeError, match="changed in place"):
        (result + view.sum()).backward()


def test_reading_data_is_no_change_and_changes_after_backward_are_free():
    x = leaf(1.0, 2.0)
    for expected in ([2, 4], [12, 14]):
        result = (x * x).sum()
        assert x.data.tolist() == [value / 2 for value in expected]
        result.backward()
        assert x.grad.tolist() == expected
        x.zero_grad()
        x.data[...] += 5


def test_a_new_forward_sees_what_was_written_into_data_and_differentiates_that():
    x = leaf(1.0)
    (x * x).backward()
    unused = x * x
    x.data[...] = 4
    again = x * x
    x.zero_grad()
    again.backward()
    assert (again.item(), x.grad.item()) == (16, 8)
    with pytest.raises(RuntimeError, match="changed in place"):
        unused.backward()


def test_assigning_new_data_leaves_the_recorded_operations_their_own():
    x = leaf(3.0)
    y = x * x
    x.data = 10
    y.backward()
    assert x.grad == 6
    assert x.data == 10


@pytest.mark.parametrize(
    "gradient", [[1, 2], np.array([1, 2]), memoryview(np.array([1.0, 2.0])), Tensor([1.0, 2.0])]
)
def test_any_buffer_of_the_right_shape_is_a_gradient(gradient):
    x = leaf(1.0, 1.0)
    (x * 3).backward(gradient)
    assert x.grad.tolist() == [3, 6]
    assert x.grad.dtype == np.float32


@pytest.mark.parametrize("held", [[1, 2], (1, 2), np.array([1, 2]), memoryview(np.array([1, 2], np.float32))])
def test_gradients_add_to_any_buffer_that_was_assigned(held):
    x = leaf(1.0, 1.0)
    x.grad = held
    (x * 3).sum().backward()
    assert x.grad.tolist() == [4, 5]
    assert np.asarray(held).tolist() == [1, 2]


@pytest.mark.parametrize(
    ("gradient", "said"),
    [
        (None, r"shape \(2,\) needs `gradient`"),
        ([1, 2, 3], r"`gradient` must have the shape \(2,\).*got \(3,\)"),
    ],
)
def test_a_gradient_of_another_shape_is_refused(gradient, said):
    x = leaf(1.0, 2.0)
    with pytest.raises(ValueError, match=said):
        (x * x).backward(gradient)
    assert x.grad is None


def test_a_single_number_of_any_rank_starts_with_one():
    x = leaf(2.0)
    (x * x).reshape(1, 1).backward()
    assert x.grad == 4


def test_a_leaf_that_is_its_own_result_gets_the_gradient():
    x = leaf(2.0)
    x.backward()
    assert x.grad == 1


def test_only_what_is_wanted_is_computed():
    calls = []

    def rule(a, b):
        return a * b, (lambda g: calls.append("a") or g * b, lambda g: calls.append("b") or g * a)

    x = leaf(2.0)
    apply(rule, Tensor(3.0), x).backward()
    assert (calls, x.grad) == (["b"], 3)


def test_a_rule_may_return_all_gradients_at_once_and_leave_some_out():
    def rule(a, b):
        return a + b, lambda g: (None, g * 2)

    x, y = leaf(2.0), leaf(3.0)
    apply(rule, x, y).backward()
    assert (x.grad, y.grad) == (None, 2)


def test_detach_shares_data_and_forgets_history():
    x = leaf(2.0)
    y = (x * x).detach()
    assert not y.requires_grad
    assert y.item() == 4


def test_parameters_inside_a_frozen_part_get_no_gradient():
    w, v = Parameter([2.0]), Parameter([3.0])
    w.requires_grad = False
    (w * v).sum().backward()
    assert (w.grad, v.grad.tolist()) == (None, [2])


def test_gradients_have_the_type_of_their_tensor():
    x = leaf(1.0, 2.0)
    apply(lambda a: (a * 1.0, (lambda g: g.astype(float),)), x).sum().backward()
    assert x.grad.dtype == np.float32


def test_the_sum_of_gradients_inside_the_graph_does_not_write_into_arrays_of_others():
    x = leaf(1.0, 2.0)
    y = x * 1
    first, second = y.reshape(2), y.reshape(2)
    concatenate([first, second, y + y]).backward(given := np.arange(6, dtype=np.float32))
    assert given.tolist() == [0, 1, 2, 3, 4, 5]
    assert x.grad.tolist() == [0 + 2 + 4 * 2, 1 + 3 + 5 * 2]


def test_nodes_say_what_they_are():
    node = (leaf(1.0) * 2)._node
    assert (node.name, node.shape) == ("multiply", ())
    assert autograd.summed_to(np.ones((2, 3)), (1, 3)).tolist() == [[2, 2, 2]]
    assert derivatives.add(wrap([1])._array, 2)[0].tolist() == [3]
