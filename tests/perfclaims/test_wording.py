"""Numbers as people say them."""

import math

import pytest

from perfclaims.criteria import (
    AccuracyDrop,
    OutputsMatch,
    Overhead,
    ScalingExponent,
    SizeRatio,
    Speedup,
    Value,
)
from perfclaims.outputs import Tolerance
from perfclaims.wording import about, answer, bounds, duration, interval, number, percent, ratio, thresholds


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (-0.0, "0"),
        (2.0, "2"),
        (2.304, "2.3"),
        (23.456, "23.5"),
        (234.5678, "235"),
        (2345.6, "2346"),
        (1234567.0, "1234567"),
        (12345678.0, "12345678"),
        (59834368, "59834368"),
        (12345678.5, "1.23e+07"),
        (-3e15, "-3e+15"),
        (100.0, "100"),
        (0.012345, "0.0123"),
        (0.000012345, "1.23e-05"),
        (-2.345, "-2.35"),
        (9.9999, "10"),
        (math.inf, "inf"),
        (-math.inf, "-inf"),
        (math.nan, "?"),
        (None, "?"),
    ],
)
def test_three_digits_and_no_exponent_for_everyday_sizes(value, text):
    assert number(value) == text


def test_ratios_near_one_get_another_digit():
    shown = [ratio(value) for value in (1.0204, 0.9796, 1.9996, 2.3456, 0.4567)]
    assert shown == ["1.02", "0.9796", "2", "2.35", "0.457"]


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ((2.31, 2.28, 2.35, "x"), "2.31x [2.28, 2.35]"),
        ((0.5, 0.498, 0.50214, "x"), "0.5x [0.498, 0.502]"),
        ((1.02, 1.0151, 1.0249, "x"), "1.02x [1.015, 1.025]"),
        ((4.0, None, None, "x"), "4x"),
        ((2.0, 0.0, None, "x"), "2x [0, inf]"),
        ((0.0314, 0.0302, 0.0329, "fraction"), "3.14 % [3.02, 3.29]"),
        ((-1e-9, -0.001, 0.001, "fraction"), "0 % [-0.1, 0.1]"),
        ((12.5, None, None, "%"), "12.5 %"),
        ((0.94, 0.9, 0.98, "us"), "0.94 us [0.9, 0.98]"),
        ((2.0, None, 3.0, None), "2 [-inf, 3]"),
        ((None, None, None, "x"), "?"),
        ((math.nan, 0.0, None, "x"), "? [0, inf]"),
    ],
)
def test_an_interval_stands_behind_its_estimate(parts, text):
    assert interval(*parts) == text


@pytest.mark.parametrize(
    ("criterion", "text"),
    [
        (Speedup(2.2), "at least 2.2x"),
        (Speedup(1.015), "at least 1.015x"),
        (Speedup(2, over="geometric_mean"), "at least 2x in geometric mean"),
        (SizeRatio(3.8), "at least 3.8x smaller"),
        (AccuracyDrop(0.005), "at most 0.5 points lost"),
        (AccuracyDrop(0.01), "at most 1 point lost"),
        (Overhead(0.05), "at most 5 % more"),
        (Overhead(at_most_us=2.0), "at most 2 us more"),
        (ScalingExponent(at_most=0.3), "exponent at most 0.3"),
        (ScalingExponent(1, 2), "exponent between 1 and 2"),
        (Value("psnr", at_least=30), "psnr at least 30"),
        (Value("zeros", equals=95000), "zeros exactly 95000"),
        (Value("flops", equals=10584064), "flops exactly 10584064"),
        (Value("first", equals=True), "first: yes"),
        (Value("first", equals=False), "first: no"),
        (Value("first", equals=1), "first exactly 1"),
        (OutputsMatch(), f"outputs match ({Tolerance().describe()})"),
    ],
)
def test_what_a_criterion_demands_in_a_few_words(criterion, text):
    assert thresholds(criterion) == text


def test_a_value_is_bounded_in_the_unit_it_was_measured_in():
    demanded = [Value("call", at_most=2), Value("call", at_least=1, at_most=2), Value("call", equals=3)]
    assert [thresholds(criterion, "us") for criterion in demanded] == [
        "call at most 2 us",
        "call between 1 and 2 us",
        "call exactly 3 us",
    ]
    assert thresholds(Value("call", equals=True), "us") == "call: yes"
    assert [answer(value) for value in (0.0, 1.0, 0.5, None)] == ["no", "yes", "0.5", "?"]


def test_a_criterion_of_nobodys_is_an_error():
    with pytest.raises(TypeError, match="unknown criterion"):
        thresholds(object())


def test_bounds_durations_counts_and_percent():
    assert [bounds(1, None), bounds(None, 2), bounds(1, 2)] == ["at least 1", "at most 2", "between 1 and 2"]
    durations = [duration(seconds) for seconds in (0.04, 0.999, 3.21, 45, 240)]
    assert durations == ["40 ms", "999 ms", "3.2 s", "45 s", "4 min"]
    assert [about(n) for n in (3, 299.99999, 5580.2, 123456)] == ["3", "300", "5600", "120000"]
    assert [percent(v) for v in (0.05, 1.0, -0.001, math.inf)] == ["5", "100", "-0.1", "inf"]
