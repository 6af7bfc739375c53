"""Views with known overlaps."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from perfclaims.storage import MemoryInUse, array_of, data_array, overlap, owner

slices = st.builds(slice, st.integers(0, 20), st.integers(0, 40), st.integers(1, 4))


@given(slices, slices)
def test_two_views_overlap_when_they_have_an_element_in_common(first, second):
    numbers = np.arange(40)
    common = set(numbers[first].tolist()) & set(numbers[second].tolist())
    assert overlap(numbers[first], numbers[second]) == bool(common)


blocks = st.builds(lambda start, length: slice(start, start + length), st.integers(0, 39), st.integers(1, 6))


@example(added=[slice(0, 6), slice(3, 10)], asked=slice(7, 8))
@given(st.lists(slices, max_size=6) | st.lists(blocks, max_size=10), slices | blocks)
def test_memory_in_use_is_touched_by_what_overlaps_any_of_its_arrays(added, asked):
    numbers = np.arange(40)
    memory = MemoryInUse()
    for part in added:
        memory.add(numbers[part])
    common = {int(x) for part in added for x in numbers[part]} & set(numbers[asked].tolist())
    assert memory.touches(numbers[asked]) == bool(common)


def test_a_pair_too_intricate_to_decide_counts_as_overlapping(monkeypatch):
    def give_up(*args, **kwargs):
        raise np.exceptions.TooHardError

    numbers = np.arange(40)
    monkeypatch.setattr(np, "shares_memory", give_up)
    assert overlap(numbers[::2], numbers[1::2])
    assert not overlap(numbers[:5], numbers[5:])


@pytest.mark.parametrize(
    "view",
    [
        lambda a: a,
        lambda a: a[2:5],
        lambda a: a.reshape(2, 5).T[1:],
        lambda a: np.lib.stride_tricks.as_strided(a, (3,), (8,)),
        lambda a: np.frombuffer(memoryview(a), dtype=np.uint8),
    ],
)
def test_the_owner_of_a_view_is_what_it_is_a_view_of(view):
    array = np.arange(10)
    assert owner(view(array)) is array


def test_the_data_of_an_array_or_a_scalar_is_no_array_of_its_own():
    class Tensor:
        data = np.ones(2)

    assert data_array(np.ones(2)) is None
    assert data_array(np.float64(1)) is None
    assert data_array(np.ma.array([1.0])) is None
    assert data_array(3) is None
    assert data_array(Tensor()) is Tensor.data
    assert array_of(Tensor()) is Tensor.data
    assert type(array_of(np.ma.array([1.0]))) is np.ndarray
