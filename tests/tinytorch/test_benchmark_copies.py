"""Bytes are counted once and all of them; copies lie elsewhere, share what was shared and answer the same."""

import copy
import functools
import threading

import numpy as np
import pytest

import tinytorch as tt
from tinytorch.benchmarking.copies import is_whole, relocated, relocated_array
from tinytorch.core import inference
from tinytorch.perf.memoization import enable_kv_cache
from tinytorch.perf.profiling.contents import layers_of, stored_bytes


def mlp():
    rng = np.random.default_rng(0)
    return tt.Sequential(tt.Linear(6, 5, rng=rng), tt.ReLU(), tt.Linear(5, 3, rng=rng))


WEIGHTS = 4 * (6 * 5 + 5 + 5 * 3 + 3)


class Holder:
    def __init__(self, **parts):
        self.__dict__.update(parts)


class Slotted:
    __slots__ = ("array", "empty")

    def __init__(self, array):
        self.array = array


def test_weights_are_counted_and_gradients_are_not():
    model = mlp()
    model(tt.Tensor(np.ones((2, 6)))).sum().backward()
    assert model.parameters()[0].grad is not None
    assert stored_bytes(model) == WEIGHTS


def test_every_kind_of_container_is_searched():
    array = np.zeros(10, np.float32)
    deep = Holder(a=[{"k": (array,)}], b=Slotted(np.zeros(3, np.int8)), c={1: mlp()}, d="text", e=7)
    assert stored_bytes(deep) == 40 + 3 + WEIGHTS
    boxed = np.empty(1, object)
    boxed[0] = array
    assert stored_bytes(Holder(a=boxed)) == 40 + boxed.nbytes


def test_closures_methods_and_partial_calls_hold_arrays():
    array = np.zeros(10, np.float32)

    def later(x, w=array):
        return x + w

    assert stored_bytes(lambda x: x + array) == 40
    assert stored_bytes(later) == 40
    assert stored_bytes(functools.partial(lambda w, x: x, array)) == 40
    assert stored_bytes(mlp().forward) == WEIGHTS


def test_shared_memory_is_counted_once_and_a_view_as_what_it_keeps_alive():
    array = np.zeros(100, np.float32)
    assert stored_bytes([array, array, array[:10], array.reshape(10, 10).T]) == 400
    assert stored_bytes(Holder(view=array[:1])) == 400


def test_a_loop_of_references_ends():
    holder = Holder(array=np.zeros(2, np.int8))
    holder.me = [holder]
    assert stored_bytes(holder) == 2


def test_layers_inside_of_plain_objects_are_found():
    model = mlp()
    assert set(map(id, layers_of(Holder(net=model)))) == {id(layer) for _, layer in model.named_layers()}


def test_a_copy_answers_the_same_from_memory_of_its_own():
    model = mlp().eval()
    duplicate = relocated(model, np.random.default_rng(1))
    x = tt.Tensor(np.random.default_rng(2).standard_normal((4, 6)))
    assert is_whole(duplicate, model)
    assert np.allclose(duplicate(x).data, model(x).data, rtol=1e-6)
    assert stored_bytes(model) == WEIGHTS
    duplicate.parameters()[0].data[...] = 0
    assert model.parameters()[0].data.any()


def test_places_are_drawn_anew():
    model, rng = mlp(), np.random.default_rng(1)
    places = {relocated(model, rng).parameters()[0].data.ctypes.data % 4096 for _ in range(40)}
    assert len(places) > 20
    assert all(place % 16 == 0 for place in places)


@pytest.mark.parametrize("order", ["C", "F"])
def test_layout_flags_and_shared_views_survive(order):
    array = np.array(np.arange(12).reshape(3, 4), np.float64, order=order)
    frozen = np.arange(5)
    frozen.flags.writeable = False
    holder = relocated(Holder(a=array, row=array[1:, ::2], frozen=frozen), np.random.default_rng(0))
    assert holder.a.strides == array.strides
    assert np.array_equal(holder.a, array)
    holder.a[1, 2] = 99
    assert holder.row[0, 1] == 99
    assert array[1, 2] == 6
    assert not holder.frozen.flags.writeable


def test_a_view_that_was_aligned_on_purpose_stays_aligned():
    room = np.zeros(4096, np.uint8)
    start = -room.ctypes.data % 64
    holder, rng = Holder(aligned=room[start : start + 256].view(np.float32)), np.random.default_rng(0)
    addresses = [relocated(holder, rng).aligned.ctypes.data for _ in range(20)]
    assert all(address % 64 == 0 for address in addresses)
    assert len({address % 4096 for address in addresses}) > 5


@pytest.mark.parametrize("shape", [(), (0, 3), (5,)])
def test_arrays_of_any_size_can_be_moved(shape):
    array = np.full(shape, np.nan, np.float32)
    moved = relocated_array(array, np.random.default_rng(0))
    assert moved.shape == shape
    assert moved.tobytes() == array.tobytes()
    assert not np.shares_memory(moved, array)


def test_functions_are_not_really_copied_and_locks_cannot_be():
    array = np.ones(3)

    def function(x):
        return x * array

    holder = Holder(function=function)
    assert not is_whole(relocated(function, np.random.default_rng(0)), function)
    assert not is_whole(relocated(holder, np.random.default_rng(0)), holder)
    with pytest.raises(TypeError, match="lock"):
        relocated(Holder(lock=threading.Lock()), np.random.default_rng(0))


@pytest.mark.parametrize("wrapped", [False, True])
def test_the_cache_of_a_language_model_is_counted_and_copied(wrapped):
    model = tt.GPT(11, 8, 2, 2, 16, rng=np.random.default_rng(0)).eval()
    held = stored_bytes(model)
    cache = enable_kv_cache(model)
    holder = Holder(net=model) if wrapped else model
    assert stored_bytes(holder) == held + 2 * 2 * 16 * 8 * 4
    duplicate = relocated(holder, np.random.default_rng(1))
    assert is_whole(duplicate, holder)
    twin = duplicate.net if wrapped else duplicate
    tokens = np.array([[1, 2, 3, 4]])
    with tt.no_grad():
        assert np.allclose(twin(tokens).data, model(tokens).data, atol=1e-5)
        model(tokens[:, :2])
    assert (inference.cached(twin).length, cache.length) == (4, 2)


def test_a_copy_without_the_cache_of_the_model_is_not_whole():
    model = tt.GPT(11, 8, 2, 2, 16, rng=np.random.default_rng(0)).eval()
    enable_kv_cache(model)
    assert not is_whole(copy.deepcopy(model), model)
