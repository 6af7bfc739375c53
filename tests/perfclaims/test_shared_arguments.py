"""Arguments that share memory, among themselves or with the new ones: none is spoilt, all end up right."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from perfclaims.arguments import checksum, overwrite


@given(st.data())
def test_old_and_new_that_share_memory_in_any_way_end_up_right_and_unspoilt(data):
    numbers = np.arange(12.0)
    view = st.builds(
        lambda start, step: numbers[start : start + 3 * step : step], st.integers(0, 3), st.integers(1, 3)
    )
    inner = [1, 2]
    parts = st.tuples(*[view | st.just(numbers[:3].copy()) | st.just(inner) | st.just([3, 4])] * 3)
    old, new = data.draw(parts), data.draw(parts)
    wanted, numbers_before = checksum(new), checksum(numbers)
    found = overwrite(old, new)
    assert checksum(found.value) == wanted
    if any(isinstance(item, np.ndarray) and item.base is numbers for item in new):
        assert checksum(numbers) == numbers_before


def test_a_shared_argument_is_filled_once_for_all_its_places():
    old, new = np.zeros(2), np.ones(2)
    items = [1.0]
    found = overwrite((old, old, items, items), (new, new, [2.0], [2.0]))
    assert found.value[0] is found.value[1] is old
    assert found.value[2] is found.value[3] is items
    assert (found.replaced, items) == ((), [2.0])


def test_a_shared_argument_is_not_filled_with_two_contents():
    old, items = np.zeros(2), [1.0]
    found = overwrite((old, old[:1], items, items), (np.full(2, 3.0), np.full(1, 4.0), [5.0], [6.0]))
    assert found.replaced == ("[1]", "[3]")
    assert [list(part) for part in found.value] == [[3.0, 3.0], [4.0], [5.0], [6.0]]


def test_arrays_and_lists_that_come_back_in_other_places_are_not_written_to():
    a, b, inner = np.zeros(2), np.ones(2), [1]
    found = overwrite((a, b, [inner, [2]]), (b, a, [[2], inner]))
    assert [list(part) for part in found.value[:2]] == [[1.0, 1.0], [0.0, 0.0]]
    assert found.value[2] == [[2], [1]]
    assert (a.tolist(), b.tolist(), inner) == ([0.0, 0.0], [1.0, 1.0], [1])


def test_views_of_one_data_set_are_replaced_because_writing_would_spoil_it():
    images = np.arange(20.0).reshape(10, 2)
    before = images.copy()
    found = overwrite((images[:3], [images[0:1]]), (images[5:8], [images[9:]]))
    assert np.array_equal(images, before)
    assert np.array_equal(found.value[0], before[5:8])
    assert found.replaced == ("[0]", "[1][0]")


def test_a_view_of_a_buffer_that_was_filled_anew_is_in_place_already():
    buffer = np.zeros(6)
    old = (buffer.reshape(2, 3),)
    buffer[:] = 7.0
    found = overwrite(old, (buffer.reshape(2, 3),))
    assert found.value is old
    assert found.replaced == ()


def test_memory_shared_behind_two_owners_is_not_written_to():
    class Lent:
        def __init__(self, array):
            self.array = array
            self.__array_interface__ = array.__array_interface__

    buffer = np.arange(5.0)
    old, new = np.asarray(Lent(buffer[:3])), np.asarray(Lent(buffer[1:4]))
    found = overwrite((old,), (new,))
    assert found.value[0].tolist() == [1.0, 2.0, 3.0]
    assert buffer.tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]


def test_an_array_that_overlaps_itself_is_replaced():
    old = np.lib.stride_tricks.as_strided(np.zeros(4), (3, 2), (8, 8))
    new = np.arange(6.0).reshape(3, 2)
    found = overwrite((old,), (new,))
    assert np.array_equal(found.value[0], np.arange(6.0).reshape(3, 2))
    assert found.replaced == ("[0]",)
