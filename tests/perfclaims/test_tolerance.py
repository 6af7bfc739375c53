"""Truth is planted: differences of known size at known places, at the edges of every number format."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from perfclaims.tolerance import Tolerance, difference

EXACT = Tolerance(rtol=0.0, atol=0.0)
HALF = Tolerance(relative_l2=0.5)
EXTREMES = np.iinfo(np.int64)


@pytest.mark.parametrize(
    ("expected", "actual", "accepted"),
    [
        (100.0, 100.1, True),
        (100.0, 100.2, False),
        (-100.0, -100.1, True),
        (0.0, 0.01, True),
        (0.0, 0.02, False),
    ],
)
def test_the_allowance_is_atol_plus_rtol_times_the_expected_magnitude(expected, actual, accepted):
    tolerance = Tolerance(rtol=1e-3, atol=0.015)  # 0.115 around 100, 0.015 around 0
    assert tolerance.accepts(np.array([expected]), np.array([actual])) is accepted


def test_the_relative_part_follows_the_expected_side():
    tolerance = Tolerance(rtol=0.1, atol=0.0)
    assert not tolerance.accepts(np.array([10.0]), np.array([11.05]))
    assert tolerance.accepts(np.array([11.05]), np.array([10.0]))


@given(hnp.arrays(np.float64, 5, elements=st.floats(-1e6, 1e6)), st.floats(0, 1e-2), st.floats(0, 1.0))
def test_agrees_with_the_rule_of_numpy_on_ordinary_numbers(expected, rtol, atol):
    actual = expected[::-1].copy()
    numpy_says = np.isclose(actual, expected, rtol=rtol, atol=atol)
    found = difference(expected, actual, Tolerance(rtol=rtol, atol=atol))
    assert found.differing == (~numpy_says).sum()
    assert found.accepted is bool(numpy_says.all())


@given(
    hnp.arrays(np.float64, 4, elements=st.floats(-1e3, 1e3)),
    hnp.arrays(np.float64, 4, elements=st.floats(1e-3, 1e3)),
    st.sampled_from([-300, -160, 0, 150, 300]),
)
def test_relative_l2_is_the_ratio_of_norms_at_any_scale(noise, expected, exponent):
    planted = np.linalg.norm(noise) / np.linalg.norm(expected)
    scale = 10.0**exponent
    found = difference(expected * scale, (expected + noise) * scale, Tolerance(relative_l2=0.1))
    # Rounding of expected + noise itself moves the ratio by about 1e-13.
    assert found.relative_l2 == pytest.approx(planted, rel=1e-6, abs=1e-12)
    if abs(planted - 0.1) > 1e-9:
        assert found.accepted is bool(planted < 0.1)


def test_relative_l2_ignores_rtol_and_atol():
    tolerance = Tolerance(rtol=0.9, atol=100.0, relative_l2=0.01)
    assert not tolerance.accepts(np.array([1.0, 1.0]), np.array([1.0, 1.1]))


@pytest.mark.parametrize("value", [1e-320, 1e-200, 1.0, 1e308])
def test_an_expected_norm_of_zero_asks_for_equality(value):
    found = difference(np.zeros(3), np.array([0.0, value, 0.0]), HALF)
    assert not found.accepted
    assert found.relative_l2 == math.inf
    assert difference(np.zeros(3), np.zeros(3), HALF).accepted


def test_a_relative_l2_of_zero_accepts_only_what_is_equal():
    limit = Tolerance(relative_l2=0.0)
    expected = np.array([1e308, 1e-320])
    assert limit.accepts(expected, expected)
    assert not limit.accepts(expected, np.array([1e308, 2e-320]))


def test_a_difference_beyond_float64_never_passes():
    huge = np.array([1.7e308])
    for tolerance in (
        Tolerance(),
        HALF,
        Tolerance(rtol=10.0),
        Tolerance(atol=1e308),
        Tolerance(relative_l2=10.0),
    ):
        found = difference(huge, -huge, tolerance)
        assert not found.accepted
        assert found.largest is None
        assert "more than float64 can hold" in found.cause


def test_float32_near_its_maximum_is_compared_in_float64():
    top = np.finfo(np.float32).max
    found = difference(np.array([top], np.float32), np.array([-top], np.float32), Tolerance())
    assert found.largest == 2 * float(top)
    assert difference(np.array([top]), np.array([top * np.float32(0.9999999)]), Tolerance()).accepted


@pytest.mark.parametrize("tolerance", [Tolerance(), Tolerance(rtol=0.5, atol=5.0)])
@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int64, np.uint64])
def test_integers_are_exact_under_rtol_and_atol(dtype, tolerance):
    labels = np.array([3, 1, 2], dtype=dtype)
    assert tolerance.accepts(labels, labels.copy())
    found = difference(labels, np.array([3, 2, 2], dtype=dtype), tolerance)
    assert (found.accepted, found.differing, found.index, found.largest) == (False, 1, (1,), 1.0)


def test_integers_have_a_norm_under_relative_l2():
    expected, actual = np.array([300, 400]), np.array([300, 405])  # 5 of a norm of 500
    assert difference(expected, actual, Tolerance(relative_l2=0.02)).relative_l2 == pytest.approx(0.01)
    assert Tolerance(relative_l2=0.02).accepts(expected, actual)
    assert not Tolerance(relative_l2=0.005).accepts(expected, actual)


@pytest.mark.parametrize("dtype", [np.int64, np.uint64])
def test_neighbours_at_the_end_of_the_64_bit_integers_differ_by_one(dtype):
    top = np.iinfo(dtype).max
    found = difference(np.array([0, top], dtype), np.array([0, top - 1], dtype), Tolerance(rtol=0.5))
    assert (found.accepted, found.index, found.largest) == (False, (1,), 1.0)
    assert not Tolerance(relative_l2=0.0).accepts(np.array([top], dtype), np.array([top - 1], dtype))


@pytest.mark.skipif(np.finfo(np.longdouble).nmant < 63, reason="long double is no wider than float64")
def test_the_worst_of_two_large_integers_is_found_where_float64_sees_no_difference():
    expected = np.array([EXTREMES.max] * 3)
    found = difference(expected, expected - np.array([1, 3, 2]), Tolerance())
    assert (found.index, found.largest) == ((1,), 3.0)


def test_the_ends_of_int64_do_not_wrap_around():
    found = difference(np.array([EXTREMES.max]), np.array([EXTREMES.min]), Tolerance(atol=10.0))
    assert found.largest == 2.0**64
    assert not HALF.accepts(np.array([EXTREMES.max]), np.array([EXTREMES.min]))


def test_signed_and_unsigned_bits_of_one_pattern_differ():
    assert not EXACT.accepts(np.array([-1], np.int64), np.array([2**64 - 1], np.uint64))


@pytest.mark.parametrize("tolerance", [Tolerance(rtol=0.5, atol=5.0), Tolerance(relative_l2=0.5)])
def test_booleans_and_strings_are_exact_under_every_tolerance(tolerance):
    flags = np.array([True] * 99 + [False])
    assert not tolerance.accepts(flags, np.ones(100, dtype=bool))
    assert difference(np.array(["a", "b"]), np.array(["a", "c"]), tolerance).index == (1,)
    assert tolerance.accepts(np.array(["a", "b"]), np.array(["a", "b"], dtype="<U9"))


@pytest.mark.parametrize("tolerance", [Tolerance(), HALF, Tolerance(atol=1e300)])
@pytest.mark.parametrize(
    ("expected", "actual", "cause"),
    [
        (math.nan, 1.0, "NaN in one place only"),
        (1.0, math.nan, "NaN in one place only"),
        (math.inf, math.nan, "NaN in one place only"),
        (math.inf, -math.inf, "infinities differ"),
        (math.inf, 1.7e308, "infinities differ"),
        (1.0, math.inf, "infinities differ"),
    ],
)
def test_nan_and_infinity_match_only_themselves(expected, actual, cause, tolerance):
    found = difference(np.array([1e9, expected]), np.array([1e9, actual]), tolerance)
    assert (found.accepted, found.differing, found.index, found.cause) == (False, 1, (1,), cause)
    assert found.largest is None


@pytest.mark.parametrize("tolerance", [EXACT, HALF])
def test_nan_and_infinity_on_both_sides_match_and_stay_out_of_the_norm(tolerance):
    values = np.array([math.nan, math.inf, -math.inf, 3.0, 4.0])
    assert tolerance.accepts(values, values.copy())
    found = difference(values, values + np.array([0, 0, 0, 0, 0.5]), Tolerance(relative_l2=0.2))
    assert found.accepted
    assert found.relative_l2 == pytest.approx(0.1)
    assert found.largest == 0.5


def test_complex_numbers_compare_by_modulus_and_their_nan_by_parts():
    one = np.array([3 + 4j])
    assert Tolerance(rtol=0.2, atol=0).accepts(one, one + 0.9j)
    assert not Tolerance(rtol=0.2, atol=0).accepts(one, one + 1.1j)
    half_nan = np.array([complex(math.nan, 1.0)])
    assert Tolerance().accepts(half_nan, half_nan.copy())
    assert not Tolerance().accepts(half_nan, np.array([complex(math.nan, 2.0)]))


def test_nat_equals_nat_only():
    times = np.array(["NaT", "2024-01-01"], dtype="datetime64[s]")
    assert Tolerance().accepts(times, times.copy())
    assert difference(times, times[::-1], Tolerance()).differing == 2


def test_the_worst_element_is_the_one_that_breaks_the_rule_not_the_farthest():
    expected = np.array([[1e6, 1.0], [2.0, 3.0]])
    actual = expected + np.array([[1.0, 0.0], [0.25, 0.5]])
    found = difference(expected, actual, Tolerance(rtol=1e-5, atol=0))  # 1.0 of 1e6 is within
    assert (found.differing, found.index, found.largest) == (2, (1, 1), 0.5)


def test_the_elements_of_a_refused_array_that_are_not_equal_count_under_relative_l2():
    expected = np.array([1.0, 2.0, 3.0, 4.0])
    found = difference(expected, np.array([1.0, 2.001, 9.0, 4.0]), HALF)
    assert (found.accepted, found.differing, found.index) == (False, 2, (2,))
    assert difference(expected, np.array([1.0, 2.001, 3.0, 4.0]), HALF).differing == 0


def test_half_precision_and_extended_precision_are_accepted():
    assert Tolerance(rtol=1e-3).accepts(np.array([1.0], np.float16), np.array([1.0001], np.longdouble))
    assert not EXACT.accepts(np.array([0.1], np.float32), np.array([0.1], np.float64))


def test_empty_arrays_are_equal_and_have_no_difference():
    found = difference(np.zeros((0, 3)), np.zeros((0, 3)), Tolerance())
    assert (found.accepted, found.largest, found.relative_l2) == (True, None, None)


def test_arrays_of_different_shape_are_not_broadcast():
    with pytest.raises(ValueError, match=r"`actual` must have the shape \(2,\) of `expected`, got \(1,\)"):
        difference(np.zeros(2), np.zeros(1), Tolerance())


@pytest.mark.parametrize("name", ["rtol", "atol", "relative_l2"])
@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf])
def test_a_tolerance_that_is_no_distance_is_refused(name, value):
    with pytest.raises(ValueError, match=f"`{name}` must be at least 0 and finite, got {value}"):
        Tolerance(**{name: value})


def test_a_tolerance_says_what_it_is():
    assert Tolerance().describe() == "rtol 1e-05, atol 1e-06"
    assert Tolerance(relative_l2=0.03).describe() == "relative L2 error at most 0.03"
