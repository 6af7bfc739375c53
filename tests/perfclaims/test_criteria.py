"""Criteria refuse what makes no sense by name, and hold plain numbers that JSON can keep."""

import json
import math
from fractions import Fraction

import numpy as np
import pytest

from perfclaims.codec import encode
from perfclaims.criteria import (
    KINDS,
    AccuracyDrop,
    OutputsMatch,
    Overhead,
    ScalingExponent,
    SizeRatio,
    Speedup,
    Value,
    is_number,
)
from perfclaims.outputs import Tolerance


@pytest.mark.parametrize("value", [0, -3, 2.5, np.float32(0.5), np.int64(7), Fraction(1, 3), 10**300])
def test_finite_real_numbers_are_numbers(value):
    assert is_number(value)


@pytest.mark.parametrize(
    "value",
    [
        True,
        False,
        np.True_,
        math.nan,
        math.inf,
        -math.inf,
        np.float64("nan"),
        10**400,
        "3",
        None,
        1j,
        np.complex128(1),
        np.array(3.0),
        [3],
        b"3",
    ],
    ids=repr,
)
def test_booleans_infinities_and_everything_else_are_not(value):
    assert not is_number(value)


def test_the_seven_kinds_are_known_by_name():
    assert set(KINDS) == {
        "OutputsMatch",
        "Speedup",
        "SizeRatio",
        "AccuracyDrop",
        "ScalingExponent",
        "Overhead",
        "Value",
    }
    assert all(KINDS[name].__name__ == name for name in KINDS)


def test_outputs_accuracy_equalities_and_whatever_is_declared_so_are_gates():
    declared = [Speedup(2, gate=True), Value("x", 1, gate=True)]
    gates = [OutputsMatch(), AccuracyDrop(), Value("x", equals=3), *declared]
    benefits = [Speedup(2), SizeRatio(2), Overhead(0.1), ScalingExponent(at_most=1), Value("x", at_least=1)]
    assert all(c.is_gate for c in gates)
    assert not any(c.is_gate for c in benefits)
    assert not Speedup(2, gate=False).is_gate


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: OutputsMatch(gate=False), "OutputsMatch is always a gate, got gate=False; leave `gate` out"),
        (lambda: AccuracyDrop(gate=False), "AccuracyDrop is always a gate"),
        (lambda: Value("x", equals=1, gate=False), r"Value\('x', equals=...\) is always a gate"),
        # 1 equals True and is not True: it must not pass for a gate that is then ignored.
        (lambda: Speedup(2, gate=1), "`gate` of Speedup must be True, False or None, got 1"),
        (lambda: Speedup(2, gate=np.True_), "`gate` of Speedup must be True, False or None"),
        (lambda: Speedup(2, label=""), "`label` of Speedup must be a non-empty string or None, got ''"),
        (lambda: SizeRatio(2, label=3), "`label` of SizeRatio must be a non-empty string or None, got 3"),
        (lambda: OutputsMatch(rtol=-1), "`rtol` of OutputsMatch must be a number of zero or more, got -1"),
        (lambda: OutputsMatch(atol=math.nan), "`atol` of OutputsMatch must be a number of zero or more"),
        (lambda: OutputsMatch(relative_l2=0), "`relative_l2` of OutputsMatch must be a positive number"),
        (lambda: Speedup(0), "`at_least` of Speedup must be a positive number, got 0"),
        (lambda: Speedup(True), "`at_least` of Speedup must be a positive number, got True"),
        (lambda: Speedup("2"), "`at_least` of Speedup must be a positive number, got '2'"),
        (lambda: Speedup(math.inf), "`at_least` of Speedup must be a positive number, got inf"),
        (lambda: Speedup(2, worthwhile=None), "`worthwhile` of Speedup must be a positive number, got None"),
        (lambda: Speedup(2, over="mean"), "`over` of Speedup must be None or 'geometric_mean', got 'mean'"),
        (lambda: SizeRatio(-2), "`at_least` of SizeRatio must be a positive number, got -2"),
        (lambda: AccuracyDrop(0), "`at_most` of AccuracyDrop must be a positive number, got 0"),
        (lambda: AccuracyDrop(1), r"must be a fraction below 1 \(0.5 points are 0.005\), got 1"),
        (ScalingExponent, "ScalingExponent needs a threshold: give `at_least` or `at_most`"),
        (lambda: ScalingExponent(2, 1), "of ScalingExponent must not exceed `at_most`, got 2.0 and 1.0"),
        (Overhead, "Overhead needs a threshold: give `at_most` or `at_most_us`"),
        (lambda: Overhead(0.1, 2.0), "Overhead takes `at_most` or `at_most_us`, got both"),
        (lambda: Overhead(at_most_us=-1), "`at_most_us` of Overhead must be a positive number, got -1"),
        (lambda: Value("", at_least=1), "`name` of Value must be a non-empty string, got ''"),
        (lambda: Value("x"), "Value needs a threshold: give `at_least` or `at_most` or `equals`"),
        (lambda: Value("x", math.nan), r"`at_least` of Value\('x'\) must be a finite number, got nan"),
        (lambda: Value("x", at_most=True), r"`at_most` of Value\('x'\) must be a finite number, got True"),
        (lambda: Value("x", equals=np.inf), r"`equals` of Value\('x'\) must be a finite number, got inf"),
        (lambda: Value("x", at_least=3, at_most=2), "must not exceed `at_most`, got 3 and 2"),
        (lambda: Value("x", at_most=3, equals=2), r"Value\('x'\) takes `equals` or bounds, got both"),
    ],
)
def test_thresholds_that_make_no_sense_are_refused_by_name(make, said):
    with pytest.raises(ValueError, match=said):
        make()


@pytest.mark.parametrize(
    ("criterion", "thresholds"),
    [
        (Speedup(np.float32(2.5), worthwhile=np.int64(2)), {"at_least": 2.5, "worthwhile": 2, "over": None}),
        (SizeRatio(Fraction(7, 2)), {"at_least": 3.5, "worthwhile": 1.1}),
        (Value("a", equals=np.True_), {"name": "a", "at_least": None, "at_most": None, "equals": True}),
        (Value("n", at_least=np.int16(-3)), {"name": "n", "at_least": -3, "at_most": None, "equals": None}),
        (OutputsMatch(np.float64(0), np.float16(0.5)), {"rtol": 0.0, "atol": 0.5, "relative_l2": None}),
        (ScalingExponent(at_most=np.longdouble(1.5)), {"at_least": None, "at_most": 1.5}),
        (Overhead(at_most_us=np.float32(2)), {"at_most": None, "at_most_us": 2.0}),
        (AccuracyDrop(np.float64(0.01)), {"at_most": 0.01}),
    ],
)
def test_thresholds_given_as_numpy_scalars_come_back_from_json_as_the_same_criterion(criterion, thresholds):
    written = json.loads(json.dumps(encode(criterion.thresholds), allow_nan=False))
    assert written == thresholds
    assert type(criterion)(**written) == criterion
    # 2.0 == True == 1.0 for Python: the types matter too.
    assert {type(v) for v in written.values()} <= {int, float, bool, str, type(None)}


def test_a_tolerance_survives_the_archive_as_the_same_key():
    """Checks are found again by their tolerance: a float32 that changed on the way would lose them."""
    criterion = OutputsMatch(rtol=np.float32(1e-3), atol=0)
    again = OutputsMatch(**json.loads(json.dumps(encode(criterion.thresholds))))
    assert again.tolerance == criterion.tolerance == Tolerance(float(np.float32(1e-3)), 0.0)
    assert hash(again.tolerance) == hash(criterion.tolerance)


def test_criteria_are_frozen_and_equal_by_value():
    assert Speedup(2) == Speedup(2.0)
    assert Speedup(2) != Speedup(2, label="small")
    with pytest.raises(AttributeError):
        Speedup(2).at_least = 3
