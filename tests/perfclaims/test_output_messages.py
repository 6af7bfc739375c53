"""Planted differences and the sentences that tell of them, for people and for the archive."""

import json
import math

import numpy as np
import pytest

from perfclaims.outputs import Tolerance, compare

DEFAULT = Tolerance()
LOOSE = Tolerance(relative_l2=0.1)


class TensorLike:
    def __init__(self, answer):
        self.answer = answer

    def numpy(self):
        return self.answer


def message(expected, actual, tolerance=DEFAULT):
    found = compare(expected, actual, tolerance)
    assert not found.matched
    return found.message


def test_the_message_counts_and_shows_the_largest_difference():
    expected = np.arange(100.0).reshape(10, 10)
    actual = expected.copy()
    actual[0, 1], actual[2, 3], actual[5, 5] = 1.25, 23.5, 55.125
    found = compare(expected, actual, DEFAULT)
    assert found.message == "3 of 100 elements differ, the largest by 0.5 at [2, 3]: expected 23, got 23.5"
    assert (found.elements, found.differing, found.largest_difference, found.where) == (100, 3, 0.5, "[2, 3]")


@pytest.mark.parametrize(
    ("expected", "actual", "said"),
    [
        (
            {"x": np.ones((2, 3))},
            {"x": np.ones((3, 2))},
            "shapes differ at ['x']: expected (2, 3), got (3, 2)",
        ),
        (np.float32(1), np.int64(1), "dtype kinds differ: expected float32, got int64"),
        ({"a": 1, "b": 2}, {"b": 2, "c": 3}, "keys differ: missing ['a'], unexpected ['c']"),
        ((1.0, (2.0,)), (1.0, ()), "lengths differ at [1]: expected 1, got 0"),
        (
            [1.0, [2.0, math.nan]],
            [1.0, [2.0, 3.0]],
            "1 of 3 elements differs, NaN in one place only at [1][1]: expected nan, got 3",
        ),
        (
            (np.ones(2), "cat"),
            (np.ones(2), "dog"),
            "1 of 3 elements differs at [1]: expected 'cat', got 'dog'",
        ),
        (
            {"a": 1.0},
            [1.0],
            "kinds of output differ: expected a dictionary of 1, got an array of float64 of shape (1,)",
        ),
        ((None, 1.0), (2.0, 1.0), "kinds of output differ at [0]: expected None, got a number of float64"),
        (np.float32(1), 1.0001, "1 of 1 elements differs, the largest by 0.0001: expected 1, got 1.0001"),
        (1e9, 1e9 + 2e4, "1 of 1 elements differs, the largest by 20000: expected 1e+09, got 1.00002e+09"),
        (np.ma.array([1.0, 2.0], mask=[0, 1]), np.array([1.0, 2.0]), "masks differ in 1 of 2 elements"),
        (
            (1.0, iter([1])),
            (1.0, 2),
            "the expected output cannot be compared at [1]: a list_iterator: return arrays",
        ),
        (
            [np.ones(1)],
            [TensorLike([1.0])],
            "the actual output cannot be compared at [0]: .numpy() of a TensorLike must return an ndarray",
        ),
    ],
)
def test_the_message_says_what_differs_and_where(expected, actual, said):
    assert message(expected, actual).startswith(said)


def test_numbers_that_look_alike_in_six_digits_are_shown_in_full():
    said = message(np.array([1.0]), np.array([1.0 + 1e-9]), Tolerance(rtol=0, atol=0))
    assert said.endswith("at [0]: expected 1.0, got 1.000000001")


def test_under_relative_l2_the_message_gives_the_error_and_the_limit():
    said = message(np.array([3.0, 4.0]), np.array([3.0, 5.0]), LOOSE)
    assert said == (
        "relative L2 error 0.2 where 0.1 is allowed: "
        "1 of 2 elements differs, the largest by 1 at [1]: expected 4, got 5"
    )


def test_long_values_are_cut_in_messages():
    assert len(message("a" * 10_000, "b" * 10_000)) < 200


def test_a_match_says_how_much_was_compared_and_how_far_it_is_off():
    found = compare([np.ones(60), np.full(40, 2.0)], [np.ones(60), np.full(40, 2.0 + 2**-20)], DEFAULT)
    assert found.message == "all 100 elements match (rtol 1e-05, atol 1e-06)"
    assert found.largest_difference == 2**-20
    assert found.relative_l2 == pytest.approx(2**-21)


def test_what_does_not_pair_in_structure_is_named_before_what_differs_in_value():
    said = message((1.0, np.ones(2), 3.0), (math.nan, np.ones(3), 4.0))
    assert said == "shapes differ at [1]: expected (2,), got (3,)"


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, 1e308, -1e308, 2**63 - 1, None, "\ud800", b"\xff"], ids=repr
)
@pytest.mark.parametrize("tolerance", [DEFAULT, LOOSE])
def test_comparisons_are_strict_json(value, tolerance):
    for expected, actual in ((value, 0.0), ((value, 1.0), (value, 2.0)), ([-1e308], [value])):
        found = compare(expected, actual, tolerance)
        fields = {name: getattr(found, name) for name in found.__dataclass_fields__}
        json.dumps(fields, allow_nan=False)
        assert type(found.matched) is bool
        assert found.message
