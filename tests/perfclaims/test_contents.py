"""Checksums must notice every change and nothing else; sizes are known by construction."""

import sys
from collections import namedtuple

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from perfclaims.contents import checksum, nbytes

Pair = namedtuple("Pair", "first second")
DTYPES = ["?", "i1", "u8", "f2", "f4", ">f8", "c16", "M8[s]", "S3", "U3"]

plain = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.complex_numbers() | st.text() | st.binary()
)
nested = st.recursive(
    plain,
    lambda inner: (
        st.lists(inner, max_size=4) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner, max_size=3)
    ),
    max_leaves=8,
)


class TensorLike:
    def __init__(self, data):
        self.data = data


def told_apart(first, second):
    return checksum(first) != checksum(second)


@pytest.mark.parametrize("dtype", DTYPES)
@given(data=st.data())
def test_any_single_changed_element_of_an_array_is_noticed(dtype, data):
    shape = data.draw(hnp.array_shapes(max_dims=3, max_side=5))
    array = data.draw(hnp.arrays(dtype, shape))
    index = data.draw(st.tuples(*(st.integers(0, side - 1) for side in shape)))
    values = {"a": [array, 1.0]}
    before, bits = checksum(values), array.tobytes()
    array[index] = data.draw(hnp.from_dtype(np.dtype(dtype)))
    assert (checksum(values) == before) == (array.tobytes() == bits)


@given(st.lists(st.floats(allow_nan=False) | st.integers(), min_size=1, max_size=8), st.data())
def test_any_single_changed_number_of_a_list_is_noticed(numbers, data):
    index = data.draw(st.integers(0, len(numbers) - 1))
    changed = list(numbers)
    changed[index] = data.draw(st.floats(allow_nan=False) | st.integers())
    assume(repr(changed[index]) != repr(numbers[index]))
    assert told_apart(numbers, changed)


@given(nested, nested)
def test_values_with_different_content_are_told_apart(first, second):
    assert told_apart(first, second) == (repr(first) != repr(second))


@given(nested)
def test_the_same_content_gives_the_same_checksum(value):
    def again(value):
        if isinstance(value, list | tuple):
            return type(value)(again(item) for item in value)
        return {k: again(v) for k, v in value.items()} if isinstance(value, dict) else value

    assert checksum(again(value)) == checksum(value)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (1, 1.0),
        (1, True),
        (0.0, -0.0),
        ([1, 2], [1.0, 2.0]),
        ([1, 2], [1, 2.0]),
        ([1, 2.5], [1.0, 2.5]),
        ([1, 2], [True, 2]),
        ([1, 2], (1, 2)),
        ([2**63, 1], [2**64, 1]),
        ((1, 2), Pair(1, 2)),
        ([[1], [2]], [[1, 2]]),
        ([[1], 2], [1, [2]]),
        (["ab"], ["a", "b"]),
        (["ab", ""], ["a", "b"]),
        ("ab", b"ab"),
        ({"a": 1}, {"b": 1}),
        ({"a": 1}, ["a", 1]),
        (np.zeros(2), np.zeros((1, 2))),
        (np.zeros(2), np.zeros(2, np.float32)),
        (np.zeros(2, "f4"), np.zeros(2, "i4")),
        (np.zeros((0, 2)), np.zeros((0, 3))),
        (np.array([1, "a"], dtype=object), np.array([1, "b"], dtype=object)),
        (np.array([(1, 2)], "i4,i4"), np.array([(1, 3)], "i4,i4")),
        (np.ones(2), [1.0, 1.0]),
        (np.ones(2), TensorLike(np.ones(2))),
        (TensorLike(np.ones(2)), TensorLike(np.zeros(2))),
        ([TensorLike(np.ones(2))], [TensorLike(np.zeros(2))]),
        (object(), object()),
        (None, "None"),
        ("\ud800", "\ud801"),
    ],
    ids=repr,
)
def test_look_alikes_are_told_apart(first, second):
    assert told_apart(first, second)


def test_a_class_of_the_same_name_is_told_apart():
    ndarray = type("ndarray", (np.ndarray,), {})
    array = np.ones(3)
    assert told_apart(array, array.view(ndarray))


def test_the_layout_of_an_array_in_memory_does_not_count():
    array = np.arange(24.0).reshape(2, 3, 4)
    spread = np.zeros((4, 6, 8))[::2, ::2, ::2]
    spread[...] = array
    for same in (np.asfortranarray(array), spread, array.copy()):
        assert checksum(same) == checksum(array)


def test_the_padding_of_a_structured_array_does_not_count():
    dtype = np.dtype({"names": ["a", "b"], "formats": ["i1", "f8"], "offsets": [0, 8]})
    first, second = (np.frombuffer(bytearray([pad] * 48), dtype=dtype) for pad in (0, 255))
    first["a"], first["b"], second["a"], second["b"] = 1, 2.0, 1, 2.0
    assert checksum(first) == checksum(second)
    second["b"][1] = 3.0
    assert told_apart(first, second)


def test_the_bits_of_nan_are_stable_and_count():
    payload = np.array([0x7FF8000000000001, 0x7FF8000000000000], np.uint64).view(np.float64)
    assert checksum(payload) == checksum(payload.copy())
    assert told_apart(payload, payload[::-1])


def test_an_unknown_object_counts_by_identity_only():
    thing = {1, 2}
    assert checksum([thing]) == checksum([thing])
    assert told_apart([thing], [{1, 2}])


def test_sums_and_swaps_that_fool_a_weak_checksum_are_noticed():
    # The four bytes after a change that bring CRC-32 back to its old value.
    import zlib

    original = b"\0" * 8
    forged = b"\x01\0\0\0" + _crc_patch(b"\x01\0\0\0", zlib.crc32(original))
    assert zlib.crc32(forged) == zlib.crc32(original)
    assert told_apart(np.frombuffer(original, np.uint8), np.frombuffer(forged, np.uint8))


def _crc_patch(prefix, wanted):
    import zlib

    # CRC is affine in the appended bits: solve for them over GF(2).
    base = zlib.crc32(prefix + b"\0\0\0\0")
    rows = [(zlib.crc32(prefix + (1 << i).to_bytes(4, "little")) ^ base, 1 << i) for i in range(32)]
    target, answer = wanted ^ base, 0
    for bit in reversed(range(32)):
        pivot = next((row for row in rows if row[0] >> bit == 1), None)
        if pivot is None:
            continue
        rows = [(c ^ pivot[0], s ^ pivot[1]) if c >> bit == 1 else (c, s) for c, s in rows if (c, s) != pivot]
        if target >> bit & 1:
            target, answer = target ^ pivot[0], answer ^ pivot[1]
    return answer.to_bytes(4, "little")


ARRAY = np.zeros((10, 10), np.float32)


@pytest.mark.parametrize(
    ("value", "size"),
    [
        (ARRAY, 400),
        (ARRAY[:, :5], 200),
        (np.float64(1), 8),
        ((ARRAY, [ARRAY.copy(), {"a": np.zeros(3)}]), 400 + 400 + 24),
        ((ARRAY, ARRAY, [ARRAY]), 400),
        (TensorLike(ARRAY), 400),
        (np.array([ARRAY, None], dtype=object), 16 + 400 + sys.getsizeof(None)),
        (1.5, sys.getsizeof(1.5)),
        (["abc", 2**100], sys.getsizeof("abc") + sys.getsizeof(2**100)),
        ((), 0),
    ],
    ids=repr,
)
def test_sizes_add_up_from_the_data_that_is_held(value, size):
    assert nbytes(value) == size


@pytest.mark.parametrize("function", [checksum, nbytes])
def test_a_value_that_contains_itself_is_refused_in_a_sentence(function):
    cycle = [1.0]
    cycle.append({"self": (cycle,)})
    with pytest.raises(ValueError, match="`value` must be nested at most 100 levels deep"):
        function(cycle)
