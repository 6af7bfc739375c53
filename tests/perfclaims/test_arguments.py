"""After an overwrite the content is the new and the addresses are the old, wherever that is possible."""

import copy
from collections import OrderedDict, namedtuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from perfclaims.arguments import checksum, overwrite

Pair = namedtuple("Pair", "first second")

DTYPES = ["?", "i8", "f2", "f4", "c8", "M8[s]", "U3", "O"]
plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
arrays = st.sampled_from(DTYPES).flatmap(
    lambda dtype: hnp.arrays(
        dtype,
        hnp.array_shapes(min_dims=0, max_dims=2, max_side=3, min_side=0),
        elements=plain if dtype == "O" else None,
    )
)
values = st.recursive(
    plain | arrays,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.sampled_from("abc"), inner, max_size=3).map(lambda d: dict(sorted(d.items())))
        | st.builds(Pair, inner, inner)
    ),
    max_leaves=8,
)


@st.composite
def redrawn(draw, value):
    """Draw a value of the structure, shapes and dtypes of another, with content of its own."""
    if isinstance(value, np.ndarray):
        elements = plain if value.dtype == object else None
        return draw(hnp.arrays(value.dtype, value.shape, elements=elements))
    if isinstance(value, list):
        return [draw(redrawn(item)) for item in value]
    if isinstance(value, tuple):
        return tuple.__new__(type(value), [draw(redrawn(item)) for item in value])
    if isinstance(value, dict):
        return {key: draw(redrawn(item)) for key, item in value.items()}
    return draw(plain)


def storages(value):
    """Arrays, lists and dictionaries in a value, in order."""
    if isinstance(value, np.ndarray):
        return [value]
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    own = [value] if isinstance(value, list | dict) else []
    return own + [storage for item in inside for storage in storages(item)]


class Tensor:
    def __init__(self, data, scale=1.0):
        self.data = data
        self.scale = scale
        self.hook = object()


class SlottedTensor:
    __slots__ = ("data", "scale")

    def __init__(self, data, scale=1.0):
        self.data = data
        self.scale = scale


class WrappedTensor:
    """`.data` is a new view each time."""

    def __init__(self, data):
        self._data = data

    @property
    def data(self):
        return self._data.view()


class CopyingTensor:
    """`.data` is a new copy each time."""

    def __init__(self, data):
        self._storage = WrappedTensor(data)

    @property
    def data(self):
        return self._storage.data.copy()


@given(values, values)
def test_the_value_always_has_the_new_content_and_the_new_value_keeps_it(old, new):
    wanted, differs = checksum(new), checksum(old) != checksum(new)
    found = overwrite(old, new)
    assert checksum(found.value) == wanted
    assert checksum(new) == wanted
    assert found.changed is differs


@given(st.data())
def test_what_has_the_same_structure_stays_at_its_address(data):
    old = data.draw(values)
    new = data.draw(redrawn(old))
    wanted, places = checksum(new), storages(old)
    found = overwrite(old, new)
    assert checksum(found.value) == wanted
    assert [id(storage) for storage in storages(found.value)] == [id(storage) for storage in places]


def test_an_array_is_filled_at_its_address():
    old, new = np.zeros((2, 3)), np.arange(6.0).reshape(2, 3)
    found = overwrite((old, 1.5), (new, 1.5))
    assert found.value[0] is old
    assert np.array_equal(old, new)
    assert (found.replaced, found.changed) == ((), True)


def test_a_tuple_is_the_same_object_unless_an_element_was_replaced():
    old = (np.zeros(2), Pair(np.zeros(2), [1]), 1.5)
    assert overwrite(old, (np.ones(2), Pair(np.ones(2), [2]), 1.5)).value is old
    found = overwrite(old, (np.ones(2), Pair(np.ones(3), [3]), 1.5))
    assert type(found.value[1]) is Pair
    assert found.value[1].second is old[1].second
    assert found.value[0] is old[0]
    assert found.replaced == ("[1][0]",)


@pytest.mark.parametrize(
    ("old", "new", "replaced"),
    [
        ((1, 2.0), (1, 2.0), ()),
        ((1, 2.0), (1, 3.0), ("[1]",)),
        ((1,), (1.0,), ("[0]",)),
        ((None, "a"), (None, "b"), ("[1]",)),
        ((np.float32(1),), (np.float32(2),), ("[0]",)),
        ((np.zeros(2),), (np.ones(3),), ("[0]",)),
        ((np.zeros(2),), (np.ones(2, np.float32),), ("[0]",)),
        (({"mask": np.zeros(2), "x": 1},), ({"mask": np.ones(3), "x": 2},), ("[0]['mask']",)),
        (([np.zeros(2), 1],), ([np.ones(2), 2],), ()),
        (([(1, 2), None],), ([(3, 4), "x"],), ()),
        (([1, 2],), ([1, 2, 3],), ("[0]",)),
        (({"a": 1},), ({"b": 1},), ("[0]",)),
        (([1],), ((1,),), ("[0]",)),
        (([np.zeros(2)],), ([5],), ("[0][0]",)),
        (([{1}],), ([{2}],), ("[0][0]",)),
        ((OrderedDict(a=1),), ({"a": 1},), ("[0]",)),
        ((1, 2), (1, 2, 3), ("[...]",)),
        (3, 4, ("[...]",)),
        (
            ({"a": [np.zeros(1), {"b": np.zeros(2)}]},),
            ({"a": [np.ones(2), {"b": np.ones(3)}]},),
            ("[0]['a'][0]", "[0]['a'][1]['b']"),
        ),
    ],
)
def test_what_could_not_be_overwritten_is_named_by_its_path(old, new, replaced):
    expected = copy.deepcopy(new)
    found = overwrite(old, new)
    assert found.replaced == replaced
    assert str(found.value) == str(expected)


def test_equal_numbers_and_strings_are_not_reported_and_keep_the_tuple():
    old, new = ([1.5], 1.5, "ab", 2**70), ([2.5], float("1.5"), "".join("ab"), int(str(2**70)))
    found = overwrite(old, new)
    assert found.value is old
    assert (found.replaced, found.changed) == ((), True)


def test_a_read_only_array_is_replaced_and_left_alone():
    old = np.zeros(2)
    old.flags.writeable = False
    new = np.ones(2)
    found = overwrite((old,), (new,))
    assert found.value[0] is new
    assert found.replaced == ("[0]",)
    assert not old.any()


@pytest.mark.parametrize("make", [Tensor, SlottedTensor, WrappedTensor])
def test_the_array_behind_data_is_filled_at_its_address(make):
    storage = np.zeros(3)
    old = make(storage)
    found = overwrite(([old],), ([make(np.arange(3.0))],))
    assert found.value[0][0] is old
    assert np.array_equal(storage, np.arange(3.0))
    assert found.replaced == ()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (Tensor(np.zeros(3), scale=1.0), Tensor(np.ones(3), scale=2.0)),
        (SlottedTensor(np.zeros(3), scale=np.ones(1)), SlottedTensor(np.ones(3), scale=np.zeros(1))),
        (Tensor(np.zeros(3)), Tensor(np.ones(4))),
        (Tensor(np.zeros(3)), SlottedTensor(np.ones(3))),
        (CopyingTensor(np.zeros(3)), CopyingTensor(np.ones(3))),
        (np.ma.array([1.0, 2.0], mask=[True, False]), np.ma.array([3.0, 4.0], mask=[False, True])),
    ],
)
def test_an_object_that_the_array_does_not_make_up_is_replaced(old, new):
    found = overwrite((old,), (new,))
    assert found.value[0] is new
    assert found.replaced == ("[0]",)


def test_a_sparse_matrix_is_not_half_overwritten():
    from scipy import sparse

    old = sparse.csr_matrix(np.array([[1.0, 0.0], [0.0, 2.0]]))
    new = sparse.csr_matrix(np.array([[0.0, 3.0], [4.0, 0.0]]))
    found = overwrite((old,), (new,))
    assert np.array_equal(found.value[0].toarray(), [[0.0, 3.0], [4.0, 0.0]])


def test_the_same_arguments_again_are_noticed():
    array = np.ones(3)
    for new in ((array, [1]), (array.copy(), [1])):
        found = overwrite((array, [1]), new)
        assert (found.changed, found.replaced) == (False, ())
        assert found.value[0] is array
    assert overwrite((array, [1]), (array, [2])).changed


def test_the_same_unknown_object_again_is_not_reported():
    model = object()
    found = overwrite((model, [model]), (model, [model]))
    assert (found.replaced, found.changed) == ((), False)


def test_arguments_that_contain_themselves_are_refused_in_a_sentence():
    cycle = [1]
    cycle.append(cycle)
    with pytest.raises(ValueError, match="`value` must be nested at most 100 levels deep"):
        overwrite((cycle,), (cycle,))
