"""Sums of comparisons: a mismatch stays as it was first seen, matches add up."""

import numpy as np
import pytest

from perfclaims.outputs import Tolerance
from perfclaims.tally import OutputTally


def test_matches_add_up_with_the_largest_difference_of_all():
    tally = OutputTally(Tolerance(rtol=0.1, atol=0.1))
    for difference in (0.01, 0.05, 0.02):
        tally.add(np.ones(4), np.ones(4) + difference, after=False)
    check = tally.check()
    assert check.matched
    assert check.before.elements == 12
    assert check.before.largest_difference == pytest.approx(0.05)
    assert check.before.relative_l2 == pytest.approx(0.05)
    assert check.before.message == "all 12 elements match (rtol 0.1, atol 0.1)"
    assert check.after is None


def test_the_first_mismatch_stays_whatever_follows():
    tally = OutputTally(Tolerance())
    tally.add(np.ones(4), np.ones(4), after=True)
    tally.add(np.ones(4), np.full(4, 2.0), after=True)
    tally.add(np.ones(4), np.full(4, 9.0), after=True)
    tally.add(np.ones(4), np.ones(4), after=True)
    check = tally.check()
    assert not check.matched
    assert check.after.largest_difference == 1.0
    assert check.before is None


def test_before_and_after_are_kept_apart():
    tally = OutputTally(Tolerance())
    tally.add(1.0, 1.0, after=False)
    tally.add(1.0, 2.0, after=True)
    assert tally.check().before.matched
    assert not tally.check().after.matched


def test_strings_have_no_difference_in_numbers():
    tally = OutputTally(Tolerance())
    for _ in range(2):
        tally.add("same", "same", after=False)
    assert tally.check().before.elements == 2
    assert tally.check().before.largest_difference is None
