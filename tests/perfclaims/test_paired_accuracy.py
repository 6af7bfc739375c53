"""The guarantee is checked by enumerating every outcome; sharpness against closed forms."""

import math
from itertools import pairwise

import numpy as np
import pytest

from perfclaims.paired_accuracy import _favourable_outcomes, accuracy_drop_interval, paired_outcomes


def outcomes(lost, gained, n):
    """Paired outcomes of n examples, a third of the concordant ones wrong on both sides."""
    baseline = np.arange(n) % 3 > 0
    optimized = baseline.copy()
    baseline[: lost + gained] = np.arange(lost + gained) < lost
    optimized[: lost + gained] = ~baseline[: lost + gained]
    return baseline, optimized


def drop(lost, gained, n, confidence=0.95):
    return accuracy_drop_interval(*outcomes(lost, gained, n), confidence)


@pytest.mark.parametrize(("n", "confidence"), [(12, 0.95), (18, 0.9), (21, 0.95)])
def test_either_bound_covers_at_the_least_favourable_drops_and_rates(n, confidence):
    counts = [(lost, gained) for lost in range(n + 1) for gained in range(n + 1 - lost)]
    ways = np.array([math.comb(n, a) * math.comb(n - a, b) for a, b in counts])
    lost, gained = np.array(counts).T
    intervals = [drop(a, b, n, confidence) for a, b in counts]
    lows, highs = np.array([i.low for i in intervals]), np.array([i.high for i in intervals])

    def coverage(covered, true_drop):
        """Least probability of the covered outcomes over the rates that a true drop allows."""
        gain = np.linspace(max(0.0, -true_drop), (1 - true_drop) / 2, 40)[:, None]
        loss, agree = gain + true_drop, 1 - true_drop - 2 * gain
        weight = ways * loss**lost * gain**gained * np.clip(agree, 0, 1) ** (n - lost - gained)
        assert weight.sum(axis=1) == pytest.approx(np.ones(40))
        return weight[:, covered].sum(axis=1).min()

    # A bound is most often wrong for a true drop just beyond one of its possible values.
    beyond_high = [coverage(highs >= d, d) for d in np.unique(highs[highs < 1 - 1e-6]) + 1e-9]
    beyond_low = [coverage(lows <= d, d) for d in np.unique(lows[lows > 1e-6 - 1]) - 1e-9]
    assert min(*beyond_high, *beyond_low) >= confidence
    # It is not more cautious than that: almost all possible values use up the allowance.
    assert np.median(beyond_high) < confidence + 0.002


@pytest.mark.parametrize("n", [1, 20, 55, 60, 300, 10_000])
def test_without_a_discordant_example_the_bound_is_the_rule_of_three(n):
    interval = drop(0, 0, n)
    exact = 1 - 0.05 ** (1 / n)
    assert exact <= interval.high <= exact * 1.001
    assert interval.low == -interval.high
    assert interval.estimate == 0.0


def test_identical_answers_need_sixty_examples_to_show_a_drop_of_at_most_five_points():
    assert drop(0, 0, 55).high > 0.05 >= drop(0, 0, 60).high
    assert drop(0, 0, 300).high <= 0.01


@pytest.mark.parametrize(
    ("lost", "n", "clopper_pearson"), [(1, 20, 0.21611), (2, 20, 0.28262), (1, 1797, 0.0026370)]
)
def test_losses_alone_are_bounded_like_a_binomial_rate(lost, n, clopper_pearson):
    assert drop(lost, 0, n).high == pytest.approx(clopper_pearson, rel=2e-3)


@pytest.mark.parametrize(
    ("lost", "gained", "n"), [(20, 15, 1797), (15, 20, 1797), (60, 40, 1797), (40, 30, 10_000)]
)
def test_with_many_discordant_examples_the_bound_approaches_the_normal_one(lost, gained, n):
    interval = drop(lost, gained, n)
    discordant = lost + gained
    deviation = math.sqrt(discordant - (lost - gained) ** 2 / n)
    assert interval.estimate == (lost - gained) / n
    assert interval.high * n == pytest.approx(lost - gained + 1.645 * deviation, abs=1)
    assert interval.low * n == pytest.approx(lost - gained - 1.645 * deviation, abs=1)
    assert interval.confidence == 0.95


@pytest.mark.parametrize(
    ("lost", "gained", "n"), [(0, 0, 7), (1, 4, 30), (7, 0, 7), (12, 3, 400), (50, 50, 100)]
)
def test_swapping_the_sides_negates_and_swaps_the_ends(lost, gained, n):
    interval, swapped = drop(lost, gained, n), drop(gained, lost, n)
    assert (swapped.estimate, swapped.low, swapped.high) == (
        -interval.estimate,
        -interval.high,
        -interval.low,
    )


def test_all_lost_is_possible_and_all_gained_bounds_the_gain():
    assert drop(9, 0, 9).high == 1.0
    # At the bound a gain has the ninth root of the error as its probability, and a loss all the rest.
    assert drop(0, 9, 9).high == pytest.approx(1 - 2 * 0.05 ** (1 / 9), abs=1e-4)
    assert drop(0, 9, 9).low == -1.0


def test_losses_raise_the_bound_gains_lower_it_and_more_examples_narrow_it():
    highs = [drop(lost, 3, 200).high for lost in range(8)]
    assert highs == sorted(highs)
    assert len(set(highs)) == len(highs)
    highs = [drop(3, gained, 200).high for gained in range(8)]
    assert highs == sorted(highs, reverse=True)
    assert len(set(highs)) == len(highs)
    assert drop(6, 4, 2000).high < drop(6, 4, 200).high / 8


@pytest.mark.parametrize("counts", [(0, 0, 40), (5, 2, 40), (2, 5, 40)])
def test_more_confidence_widens_and_even_the_extremes_keep_the_estimate_inside(counts):
    levels = (0.001, 0.3, 0.5, 0.8, 0.95, 0.999, 1 - 1e-9, 1 - 1e-13)
    intervals = [drop(*counts, confidence) for confidence in levels]
    highs = [interval.high for interval in intervals]
    assert highs == sorted(highs)
    assert highs[-1] > highs[2] + 0.1
    assert all(-1 <= i.low <= i.estimate <= i.high <= 1 for i in intervals)


def test_only_the_numbers_of_losses_and_gains_matter():
    baseline, optimized = outcomes(7, 4, 150)
    order = np.random.default_rng(0).permutation(150)
    expected = drop(7, 4, 150)
    assert accuracy_drop_interval(baseline[order], optimized[order]) == expected
    assert accuracy_drop_interval(baseline.astype(int).tolist(), optimized.astype(np.float32)) == expected


@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.9999])
def test_outcomes_are_ordered_so_that_a_loss_less_is_never_less_favourable(confidence):
    """What the guarantee stands on: one order for all, in which fewer losses or more gains come first."""
    n = 11
    regions = []
    for lost in range(n + 1):
        for gained in range(n + 1 - lost):
            region = _favourable_outcomes(lost, gained, n, confidence, (0.0, 1.0))
            assert region.totals.tolist() == list(range(n + 1))
            assert np.diff(region.most_lost).max() <= 1
            assert region.most_lost[lost + gained] >= lost
            regions.append(region.most_lost)
    regions.sort(key=lambda most_lost: most_lost.sum())
    for smaller, larger in pairwise(regions):
        assert (smaller <= larger).all()


@pytest.mark.parametrize(
    ("baseline", "optimized", "said"),
    [
        ([True] * 3, [True] * 2, "must be paired, got 3 and 2 outcomes"),
        ([], [], r"`baseline_correct` must have shape \(n,\) with n >= 1, got shape \(0,\)"),
        ([True], [[True]], r"`optimized_correct` must have shape \(n,\) with n >= 1, got shape \(1, 1\)"),
        ([0, 2], [0, 1], "`baseline_correct` must hold booleans, or 0 and 1, got 2"),
        ([0, 1], [0.5, 1.0], "`optimized_correct` must hold booleans, or 0 and 1, got 0.5"),
        ([0, 1], [math.nan, 1.0], "`optimized_correct` .* got nan"),
        (["yes"], [True], "`baseline_correct` must hold booleans, got values of type <U3"),
        ([True, None], [True, True], "`baseline_correct` must hold booleans, got values of type object"),
    ],
)
def test_bad_outcomes_are_named(baseline, optimized, said):
    for call in (accuracy_drop_interval, paired_outcomes):
        with pytest.raises(ValueError, match=said):
            call(baseline, optimized)


def test_zeros_and_ones_become_copies_as_booleans():
    given = np.array([True, False])
    baseline, optimized = paired_outcomes(given, [0, 1])
    given[:] = False
    assert baseline.tolist() == [True, False]
    assert optimized.tolist() == [False, True]
    assert baseline.dtype == optimized.dtype == np.bool_


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95, math.nan])
def test_a_confidence_outside_0_to_1_is_refused(confidence):
    with pytest.raises(ValueError, match="`confidence` must lie between 0 and 1"):
        accuracy_drop_interval([True], [True], confidence)
