"""Planted power laws come back with an interval over instances."""

import math

import numpy as np
import pytest
from evidence_factory import scaling

from perfclaims.exponent import SYSTEMATIC, exponent_interval


@pytest.mark.parametrize("exponent", [0.0, 0.3, 1.0, 2.0, 3.0])
def test_a_planted_exponent_comes_back(exponent):
    interval = exponent_interval(scaling(exponent))
    assert interval.estimate == pytest.approx(exponent, abs=1e-3)
    assert interval.low < exponent < interval.high


def test_ten_instances_give_the_averages_of_their_slopes_and_the_error_of_a_timed_call():
    exponents = [1.9, 1.95, 1.98, 2.0, 2.01, 2.02, 2.05, 2.1, 2.2, 2.5]
    interval = exponent_interval(scaling(exponents))
    averages = sorted((a + b) / 2 for i, a in enumerate(exponents) for b in exponents[i:])
    error = SYSTEMATIC / math.log(512 / 64)
    assert interval.low == pytest.approx(averages[8] - error, abs=1e-4)
    assert interval.high == pytest.approx(averages[-9] + error, abs=1e-4)


def test_calls_per_sample_are_divided_out():
    batched = scaling(2.0, calls=(1000, 100, 10, 1))
    by_hand = exponent_interval(batched).estimate
    assert by_hand == pytest.approx(2.0 + math.log(10) * _slope_of_steps(), abs=1e-3)


def _slope_of_steps():
    """Slope of 0, 1, 2, 3 against the logs of the sizes."""
    x = np.log([64, 128, 256, 512])
    return np.polyfit(x, np.arange(4), 1)[0]


def test_medians_of_an_instance_ignore_a_wild_sample():
    wild = scaling(1.0)
    wild.duration_ns[0] *= 1000
    assert exponent_interval(wild).estimate == pytest.approx(1.0, abs=1e-2)


def test_five_instances_are_no_interval_and_instances_without_every_size_do_not_count():
    interval = exponent_interval(scaling([2.0] * 5))
    assert interval.estimate == pytest.approx(2.0, abs=1e-4)
    assert not interval.exists
    assert "6 or more are needed" in interval.warning
    partly = scaling([2.0] * 6)
    partly.size_index[partly.instance == 5] = 0
    assert not exponent_interval(partly).exists
    partly.size_index[:] = 0
    nothing = exponent_interval(partly)
    assert math.isnan(nothing.estimate)
    assert nothing.warning == "no instance was timed at every size"


def test_a_clock_that_did_not_move_is_no_error():
    still = scaling(1.0)
    still.duration_ns[:] = 0
    assert exponent_interval(still).estimate == pytest.approx(0.0, abs=1e-12)
