"""Structures with planted differences: what matches, what does not, and what the sentence says."""

import enum
import math
from collections import OrderedDict, namedtuple
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from perfclaims.outputs import Tolerance, compare, snapshot

DEFAULT = Tolerance()
LOOSE = Tolerance(relative_l2=0.1)
Pair = namedtuple("Pair", "first second")


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


@dataclass
class Prediction:
    logits: np.ndarray
    label: int


@dataclass(slots=True)
class SlottedPrediction:
    logits: np.ndarray
    label: int


class Text(str):
    __slots__ = ()


class Raw(bytes):
    pass


class Length(float):
    pass


class Grade(enum.IntEnum):
    GOOD = 3


class TensorLike:
    def __init__(self, answer):
        self.answer = answer

    def numpy(self):
        return self.answer


def matched(expected, actual, tolerance=DEFAULT):
    return compare(expected, actual, tolerance).matched


@pytest.mark.parametrize(
    ("expected", "actual"),
    [
        (1.5, np.float32(1.5)),
        (np.float16(1.5), np.array(1.5, np.longdouble)),
        (3, np.uint8(3)),
        (np.int32(3), 3),
        (2**63, np.uint64(2**63)),
        (True, np.bool_(True)),
        (1 + 2j, np.complex64(1 + 2j)),
        ([[1.0, 2], [3.0, 4.0]], np.array([[1, 2], [3, 4]], np.float32)),
        ([1, 2, 3], np.array([1, 2, 3], np.uint16)),
        ([np.float32(1), 2.0], np.array([1.0, 2.0])),
        ([1.5, 2j], np.array([1.5, 2j])),
        ([np.array([1.0, 2.0]), np.array([3.0, 4.0])], np.array([[1.0, 2.0], [3.0, 4.0]])),
        ((1.0, 2.0), [1.0, 2.0]),
        ([(1.0, 2.0), (3.0, 4.0)], np.array([[1.0, 2.0], [3.0, 4.0]])),
        ([[1.0], [2.0, 3.0]], ([1.0], np.array([2.0, 3.0]))),
        (Pair(1.0, "a"), (1.0, "a")),
        ({"a": 1, "b": [2.0]}, OrderedDict([("b", np.array([2.0])), ("a", 1)])),
        (Prediction(np.ones(3), 2), Prediction([1.0, 1.0, 1.0], 2)),
        (SlottedPrediction(np.ones(3), 2), SlottedPrediction([1.0, 1.0, 1.0], 2)),
        (Prediction(np.ones(3), 2), {"logits": np.ones(3), "label": 2}),
        (TensorLike(np.ones(3)), np.ones(3)),
        ({"a": [TensorLike(np.ones(3))]}, {"a": [np.ones(3)]}),
        ((None, 1.0), (None, 1.0)),
        ((Text("abc"), Raw(b"abc"), Length(2.0), Grade.GOOD), ("abc", b"abc", 2.0, 3)),
        ({Text("a"): 1.0, np.int64(2): 2.0, (1, "b"): 3.0}, {"a": 1.0, 2: 2.0, (1, "b"): 3.0}),
        ([1, 2], (np.uint8(1), np.uint8(2))),
        ("abc", "abc"),
        (["a", "b"], np.array(["a", "b"])),
        (b"abc", bytearray(b"abc")),
        ({1, 2}, frozenset({2, 1})),
        (range(3), range(3)),
        (Colour.RED, Colour.RED),
        (2**70, 2**70),
        ([2**70, -1], (2**70, -1)),
        ([[], [1.0]], ((), [1.0])),
        (np.array([[1, "a"]], dtype=object), np.array([[1, "a"]], dtype=object)),
        (np.array([(1, 2.0)], "i4,f4"), np.array([(1, 2.0)], "i8,f8")),
        (np.asfortranarray(np.eye(3)), np.eye(6)[::2, ::2]),
        (np.ma.array([1.0, 2.0], mask=[False, True]), np.ma.array([1.0, 2.0], mask=[False, True])),
        (np.ma.array([1.0, 2.0]), np.array([1.0, 2.0])),
        (np.array([math.nan, math.inf]), [math.nan, math.inf]),
    ],
    ids=repr,
)
def test_outputs_of_equal_content_match_in_both_directions(expected, actual):
    for left, right in ((expected, actual), (actual, expected)):
        for tolerance in (DEFAULT, LOOSE):
            found = compare(left, right, tolerance)
            assert found.matched, found.message
            assert (found.differing, found.where, found.returned_nothing) == (0, None, False)
            assert compare(snapshot(left), snapshot(right), tolerance) == found


@pytest.mark.parametrize(
    ("expected", "actual"),
    [
        (1, 1.0),
        (True, 1),
        (1.0, 1 + 0j),
        (np.int64(1), np.uint64(1)),
        ([True], [1]),
        ([True, 2], [1, 2]),
        ([np.True_, np.int64(1)], [np.int64(1), np.int64(1)]),
        ([np.uint8(1), np.int64(1)], [np.int64(1), np.int64(1)]),
        ([1, 2], np.array([1.0, 2.0])),
        (1.0, [1.0]),
        (1.0, (1.0,)),
        (np.ones((2, 3)), np.ones((3, 2))),
        (np.ones((2, 1)), np.ones(2)),
        ([1.0, [2.0]], [1.0, 2.0]),
        ((1.0, 2.0), (1.0, 2.0, 3.0)),
        ({"a": 1}, {"b": 1}),
        ({"a": 1}, {"a": 1, "b": None}),
        ({"a": 1.0}, [1.0]),
        ((None, 1.0), (1.0, 1.0)),
        ("abc", "abd"),
        ("abc", b"abc"),
        ("1", 1),
        ({1, 2}, {1, 3}),
        (Colour.RED, Colour.BLUE),
        (Colour.RED, 1),
        (2**70, 2**70 + 1),
        (2**63, np.int64(-(2**63))),
        ([[]], [1.0]),
        ([[], [1.0]], [np.zeros((0, 3)), np.array([1.0])]),
        (np.array([1, 2], dtype=object), np.array([1, 2])),
        (np.array([1.0, None], dtype=object), np.array([[1.0], [None]], dtype=object)),
        (np.array([1.0, None], dtype=object), np.array([1.5, None], dtype=object)),
        (np.array([(1, 2.0)], "i4,f4"), np.array([(1, 3.0)], "i4,f4")),
        (np.ma.array([1.0, 2.0], mask=[False, True]), np.ma.array([1.0, 2.0], mask=[True, False])),
        (np.ma.array([1.0, 2.0], mask=[False, True]), np.array([1.0, 2.0])),
        (np.ma.array([1.0, 2.0], mask=[False, True]), np.ma.array([1.0, 3.0], mask=[False, True])),
        (np.array([1], "datetime64[D]"), np.array([1], "datetime64[s]")),
        (np.array(["2024-01-01"], "datetime64[D]"), np.array(["2024-01-01"], "datetime64[s]")),
        (np.void(b"ab"), np.void(b"ac")),
        (np.ones(3), np.array([1.0, 1.0, math.nan])),
    ],
    ids=repr,
)
def test_outputs_of_different_content_never_match_in_either_direction(expected, actual):
    for left, right in ((expected, actual), (actual, expected)):
        for tolerance in (DEFAULT, LOOSE, Tolerance(rtol=0.1, atol=0.1)):
            found = compare(left, right, tolerance)
            assert not found.matched
            assert found.message
            assert compare(snapshot(left), snapshot(right), tolerance) == found


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i1", "i8", "u8", "c8", "?", "M8[s]", "S3", "U3"])
@given(data=st.data())
def test_one_changed_element_is_found_at_its_place_in_any_structure(dtype, data):
    shape = data.draw(hnp.array_shapes(max_dims=3, max_side=4))
    values = (
        hnp.from_dtype(np.dtype(dtype)) if dtype != "c8" else st.complex_numbers(width=64, allow_nan=False)
    )
    array = data.draw(hnp.arrays(dtype, shape, elements=values))
    index = data.draw(st.tuples(*(st.integers(0, side - 1) for side in shape)))
    changed = array.copy()
    changed[index] = data.draw(values)
    found = compare({"x": (7, [array])}, {"x": (7, [changed])}, Tolerance(rtol=0, atol=0))
    both_nan = changed[index] != changed[index] and array[index] != array[index]
    if changed[index] == array[index] or both_nan:
        assert found.matched
    else:
        assert (found.elements, found.differing) == (array.size + 1, 1)
        assert found.where == f"['x'][1][0]{list(index)}"


def test_a_small_wrong_array_does_not_hide_behind_a_large_one():
    large, small = np.full(10_000, 100.0), np.array([1.0, 1.0])
    found = compare({"x": large, "y": small}, {"x": large, "y": -small}, LOOSE)
    assert not found.matched
    assert found.relative_l2 == pytest.approx(2.0)
    assert found.where.startswith("['y']")


@pytest.mark.parametrize(
    ("expected", "actual", "sides"),
    [
        (None, 1.0, "the expected output"),
        (1.0, None, "the actual output"),
        (None, None, "the expected and the actual output"),
    ],
)
def test_none_instead_of_an_output_never_matches(expected, actual, sides):
    for prepare in (snapshot, lambda output: output):
        found = compare(prepare(expected), prepare(actual), DEFAULT)
        assert (found.matched, found.returned_nothing) == (False, True)
        assert found.message == f"nothing was returned: {sides} is None"


@pytest.mark.parametrize(
    "empty", [[], (), {}, np.zeros((0, 3)), "", (None,), {"a": None, "b": []}, set()], ids=repr
)
def test_outputs_without_a_single_value_never_match(empty):
    found = compare(empty, empty, DEFAULT)
    assert (found.matched, found.returned_nothing, found.elements) == (False, False, 0)
    assert found.message == "nothing to compare: both outputs are empty"


def test_an_empty_part_beside_a_full_one_matches_by_its_shape():
    assert matched((np.zeros((0, 3)), 1.0), (np.zeros((0, 3)), 1.0))
    assert not matched((np.zeros((0, 3)), 1.0), (np.zeros((3, 0)), 1.0))
    assert not matched((np.zeros((0, 3)), 1.0), (np.zeros((0, 3), int), 1.0))


def test_python_integers_are_told_apart_where_float64_cannot():
    assert matched([2**63, -1], [2**63, -1])
    assert not matched([2**63, -1], [2**63 + 1, -1])
    assert not matched([2**53], np.array([2**53 + 1]))


def test_a_snapshot_does_not_follow_later_changes():
    array, numbers = np.arange(4.0), [1.0, 2.0]
    tensor, objects = TensorLike(np.ones(2)), np.array([array, None], dtype=object)
    masked, text = np.ma.array([1.0, 2.0], mask=[False, True]), bytearray(b"ab")
    output = {"a": array, "n": numbers, "t": [tensor], "o": objects, "m": masked, "v": array[::2], "b": text}
    taken = snapshot(output)
    array += 1
    numbers[0] = 9.0
    tensor.answer += 1
    masked.mask[0] = True
    text[0] = 0
    output["new"] = 1
    before = {
        "a": np.arange(4.0), "n": [1.0, 2.0], "t": [np.ones(2)], "v": np.array([0.0, 2.0]), "b": b"ab",
        "o": np.array([np.arange(4.0), None], dtype=object), "m": np.ma.array([1.0, 2.0], mask=[False, True]),
    }  # fmt: skip
    found = compare(before, taken, DEFAULT)
    assert found.matched, found.message
    assert compare(snapshot(taken), before, DEFAULT).matched
    assert not matched(taken, output)


def test_a_snapshot_can_refuse_objects_that_must_still_be_read():
    answer = snapshot([TensorLike(np.ones(2))], may_read=False)
    found = compare([np.ones(2)], answer, DEFAULT)
    assert not found.matched
    assert found.message.endswith("at [0]: a TensorLike whose answer was not read while the clock ran")


def cyclic_list():
    value = [1.0]
    value.append(value)
    return value


def cyclic_dict():
    value = {"a": 1.0}
    value["self"] = (value,)
    return value


def cyclic_dataclass():
    value = Prediction(np.ones(1), 1)
    value.label = value
    return value


@pytest.mark.parametrize("make", [cyclic_list, cyclic_dict, cyclic_dataclass])
def test_an_output_that_contains_itself_is_refused_in_a_sentence(make):
    for attempt in (lambda: snapshot(make()), lambda: compare(make(), 1.0, DEFAULT)):
        with pytest.raises(ValueError, match="`output` must be nested at most 100 levels deep"):
            attempt()


def test_deep_nesting_within_the_limit_is_compared():
    value = 1.0
    for _ in range(90):
        value = (value,)
    assert matched(value, value)
