"""Budgets by name and by number, and what is neither."""

import math

import numpy as np
import pytest

from perfclaims.presets import PRESETS, as_preset


def test_the_presets_have_the_seconds_that_the_design_gives_them_and_only_fast_leaves_slow_claims_out():
    assert {name: preset.budget_s for name, preset in PRESETS.items()} == {
        "fast": 0.25,
        "normal": 1.0,
        "rigorous": 5.0,
    }
    assert [preset.name for preset in PRESETS.values() if not preset.runs_slow] == ["fast"]
    assert all(as_preset(name) is preset is as_preset(preset) for name, preset in PRESETS.items())


@pytest.mark.parametrize("seconds", [0.1, 2, np.float32(0.5)])
def test_a_number_is_seconds_per_comparison(seconds):
    preset = as_preset(seconds)
    assert preset.budget_s == pytest.approx(float(seconds))
    assert preset.runs_slow
    assert preset.name == f"{float(seconds):g} s"


def test_a_larger_budget_has_a_longer_time_limit_and_a_smaller_one_that_of_normal_runs():
    assert as_preset(10).time_limit_s == 10 * as_preset(1.0).time_limit_s
    assert as_preset(0.01).time_limit_s == as_preset(1.0).time_limit_s == PRESETS["normal"].time_limit_s


@pytest.mark.parametrize("given", ["slow", "", "1", 0, -1, math.nan, math.inf, True, None, [1.0]])
def test_what_is_no_budget_is_refused_with_what_is(given):
    with pytest.raises(
        ValueError, match=r"`budget` must be one of 'fast', 'normal', 'rigorous' or a positive"
    ):
        as_preset(given)
