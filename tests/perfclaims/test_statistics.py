"""Truth is planted: all sign patterns enumerated, exact integer tails, closed forms, power laws."""

import math
from fractions import Fraction
from itertools import product

import numpy as np
import pytest

from perfclaims.statistics import (
    Interval,
    binomial_interval,
    hodges_lehmann_interval,
    log_log_slope,
    median_interval,
    samples_needed,
)

INTERVALS = [median_interval, hodges_lehmann_interval]
# So far apart that an interval built from means and standard deviations would be lost.
MAGNITUDES = np.array([0.3, 1.0, 4.1, 17.0, 66.0, 258.0, 1026.0, 4099.0, 16385.0, 65538.0])


def share_of_sign_patterns_missed(interval_of, n, confidence):
    """How often the interval misses 0 when every sign is a fair coin: by trying all signs."""
    patterns = list(product([-1.0, 1.0], repeat=n))
    missed = [interval_of(MAGNITUDES[:n] * signs, confidence).excludes(0.0) for signs in patterns]
    return sum(missed) / len(patterns)


@pytest.mark.parametrize("interval_of", INTERVALS)
@pytest.mark.parametrize(("n", "confidence"), [(5, 0.8), (7, 0.9), (8, 0.95), (9, 0.95), (10, 0.998)])
def test_the_confidence_it_reports_is_exactly_the_share_of_sign_patterns_it_covers(
    interval_of, n, confidence
):
    achieved = interval_of(MAGNITUDES[:n], confidence).confidence
    assert achieved >= confidence
    assert 1 - achieved == pytest.approx(share_of_sign_patterns_missed(interval_of, n, confidence), abs=1e-12)


@pytest.mark.parametrize("interval_of", INTERVALS)
def test_asking_for_the_confidence_achieved_gives_the_same_interval_and_a_little_more_a_wider_one(
    interval_of,
):
    samples = np.random.default_rng(0).normal(size=23)
    interval = interval_of(samples, 0.9)
    assert interval_of(samples, interval.confidence) == interval
    wider = interval_of(samples, interval.confidence + 1e-6)
    assert wider.low < interval.low < interval.estimate < interval.high < wider.high


@pytest.mark.parametrize("interval_of", INTERVALS)
@pytest.mark.parametrize("confidence", [0.998, 1 - 2 / 1024])
def test_ten_samples_reach_from_the_smallest_to_the_largest_at_998_in_a_thousand(interval_of, confidence):
    samples = np.random.default_rng(1).normal(size=10)
    interval = interval_of(samples, confidence)
    assert (interval.low, interval.high) == (samples.min(), samples.max())
    assert interval.confidence == 1 - 2 / 1024


@pytest.mark.parametrize("interval_of", INTERVALS)
def test_five_samples_are_too_few_for_95_percent_and_it_says_how_many_are_needed(interval_of):
    interval = interval_of([1.0, 2.0, 3.0, 4.0, 50.0])
    assert interval.estimate == 3.0
    assert (interval.low, interval.high, interval.confidence) == (-math.inf, math.inf, 1.0)
    assert interval.warning == "5 samples: 6 or more are needed for an interval at 95 % confidence"


@pytest.mark.parametrize("interval_of", INTERVALS)
@pytest.mark.parametrize("confidence", [0.5, 0.75, 0.9, 0.95, 0.998])
def test_an_interval_exists_from_the_number_of_samples_that_is_said_to_be_needed(interval_of, confidence):
    needed = samples_needed(confidence)
    assert not interval_of(range(needed - 1 or 1), confidence).exists
    enough = interval_of(range(needed), confidence)
    assert enough.exists
    assert enough.warning is None


def test_six_samples_are_needed_at_95_percent_and_ten_at_998_in_a_thousand():
    assert [samples_needed(c) for c in (0.5, 0.95, 0.96875, 0.968751, 0.998)] == [2, 6, 6, 7, 10]


@pytest.mark.parametrize("interval_of", INTERVALS)
def test_order_does_not_matter_and_shift_scale_and_sign_carry_over(interval_of):
    samples = np.random.default_rng(2).standard_cauchy(31)
    interval = interval_of(samples)
    assert interval_of(samples[::-1]) == interval
    mirrored = interval_of(-4.0 * samples)
    assert (mirrored.low, mirrored.estimate, mirrored.high) == (
        -4.0 * interval.high,
        -4.0 * interval.estimate,
        -4.0 * interval.low,
    )
    assert interval_of(samples + 10.0).high == pytest.approx(interval.high + 10.0)


@pytest.mark.parametrize("interval_of", INTERVALS)
def test_equal_samples_give_a_point_and_one_wild_sample_among_twenty_moves_nothing_far(interval_of):
    assert interval_of([7.0] * 8) == Interval(7.0, 7.0, 7.0, interval_of(range(8)).confidence)
    wild = interval_of([*np.linspace(1.0, 2.0, 19), 1e300])
    assert 1.0 < wild.low < wild.estimate < wild.high <= 2.0


def test_the_median_interval_of_ten_thousand_samples_is_the_narrowest_that_exact_counting_allows():
    n, confidence = 10_000, 0.95
    interval = median_interval(np.random.default_rng(3).permutation(n), confidence)
    outside = int(interval.low)  # the samples are the ranks 0 to n - 1
    assert interval.high == n - 1 - outside
    ways = tail = 1
    for k in range(outside):
        ways = ways * (n - k) // (k + 1)
        tail += ways
    next_tail = tail + ways * (n - outside) // (outside + 1)
    missed, missed_next = Fraction(2 * tail, 2**n), Fraction(2 * next_tail, 2**n)
    assert missed <= 1 - Fraction(confidence) < missed_next
    assert interval.confidence == pytest.approx(1 - float(missed), abs=1e-12)


def test_the_hodges_lehmann_interval_lies_between_averages_of_pairs():
    # The averages in order: 0 .5 1 2 2.5 4 4.5 5 6.5 8 8.5 9 10 12.5 16 20 20.5 22 24.5 28 40.
    interval = hodges_lehmann_interval([0, 1, 4, 9, 16, 40], confidence=0.9)
    # P(W <= 2) = 3/64 allows the third average from either end; P(W <= 3) = 5/64 would miss too often.
    assert (interval.low, interval.estimate, interval.high) == (1.0, 8.5, 24.5)
    assert interval.confidence == 1 - 6 / 64


def signed_rank_tails(n):
    """P(W <= w) for w = 0, 1, 2, ... by adding one fair rank after the other."""
    probability = np.array([1.0])
    for rank in range(1, n + 1):
        without, included = np.pad(probability, (0, rank)), np.pad(probability, (rank, 0))
        probability = (without + included) / 2
    return np.cumsum(probability)


@pytest.mark.parametrize("n", [40, 60, 61, 120, 200, 300])
def test_the_signed_rank_interval_covers_and_wastes_little_also_where_ranks_are_approximated(n):
    samples = np.random.default_rng(n).normal(size=n)
    averages = np.sort([(a + b) / 2 for i, a in enumerate(samples) for b in samples[i:]])
    tails = signed_rank_tails(n)
    for confidence in (0.02, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.998, 1 - 1e-9):
        interval = hodges_lehmann_interval(samples, confidence)
        depth = int(np.argmin(abs(averages - interval.low))) + 1
        assert interval.high == pytest.approx(averages[-depth], abs=1e-12)
        missed = 2 * tails[depth - 1]
        assert confidence <= interval.confidence <= 1 - missed + 1e-12
        assert missed >= 0.75 * (1 - confidence) or confidence > 0.998


def test_the_outermost_interval_is_given_where_the_normal_quantile_lies_beyond_all_ranks():
    samples = np.random.default_rng(5).normal(size=61)
    interval = hodges_lehmann_interval(samples, 1 - 1e-15)
    assert (interval.low, interval.high) == (samples.min(), samples.max())


def test_clopper_pearson_ends_are_where_the_tails_hold_half_of_the_error():
    successes, trials = 3, 17
    interval = binomial_interval(successes, trials, confidence=0.9)

    def probability(k, p):
        return math.comb(trials, k) * p**k * (1 - p) ** (trials - k)

    at_least = sum(probability(k, interval.low) for k in range(successes, trials + 1))
    at_most = sum(probability(k, interval.high) for k in range(successes + 1))
    assert (at_least, at_most) == (pytest.approx(0.05), pytest.approx(0.05))
    assert interval.estimate == successes / trials
    assert interval.confidence == 0.9


def test_no_success_bounds_the_rate_in_closed_form_and_failures_mirror_successes():
    none, every = binomial_interval(0, 50), binomial_interval(50, 50)
    assert (none.low, none.high) == (0.0, pytest.approx(1 - 0.025 ** (1 / 50)))
    assert (every.low, every.high) == (pytest.approx(1 - none.high), 1.0)


def test_numpy_counts_are_whole_numbers():
    assert binomial_interval(np.int64(2), np.int32(9)) == binomial_interval(2, 9)


@pytest.mark.parametrize("exponent", [-1.0, 0.0, 1.0, 2.8])
def test_the_slope_of_a_power_law_is_its_exponent_whatever_the_units(exponent):
    sizes = np.array([16, 64, 100, 4096])
    assert log_log_slope(sizes, 3e-9 * sizes**exponent) == pytest.approx(exponent, abs=1e-12)
    assert log_log_slope(sizes / 1024, 5.0 * sizes**exponent) == pytest.approx(exponent, abs=1e-12)


def test_the_slope_of_scattered_times_is_that_of_least_squares():
    rng = np.random.default_rng(4)
    sizes, times = rng.uniform(1, 1e6, 12), rng.uniform(1, 1e3, 12)
    assert log_log_slope(sizes, times) == pytest.approx(np.polyfit(np.log(sizes), np.log(times), 1)[0])


def test_an_interval_excludes_what_lies_beyond_its_ends_and_not_the_ends():
    interval = Interval(1.0, 0.5, 2.5, 0.95)
    assert [interval.excludes(v) for v in (0.4999, 0.5, 2.5, 2.5001)] == [True, False, False, True]
    assert interval.exists
    assert interval.half_width == 1.0


@pytest.mark.parametrize(("low", "high"), [(-math.inf, math.inf), (-math.inf, 1.0), (1.0, math.inf)])
def test_an_open_end_makes_the_half_width_infinite(low, high):
    interval = Interval(1.0, low, high, 1.0)
    assert interval.half_width == math.inf
    assert not interval.exists


@pytest.mark.parametrize("interval_of", INTERVALS)
@pytest.mark.parametrize(
    ("samples", "said"),
    [
        ([], r"`samples` must have shape \(n,\) with n >= 1, got shape \(0,\)"),
        ([[1.0, 2.0]], r"got shape \(1, 2\)"),
        ([1.0, math.nan, math.inf], "`samples` must be finite, got 2 NaN or infinite among 3"),
    ],
)
def test_bad_samples_are_named(interval_of, samples, said):
    with pytest.raises(ValueError, match=said):
        interval_of(samples)


def test_too_many_samples_for_signed_ranks_are_referred_to_the_median():
    with pytest.raises(ValueError, match=r"at most 2000 values .* got 2001; use median_interval"):
        hodges_lehmann_interval(np.arange(2001.0))


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95, -0.1, math.nan])
def test_a_confidence_outside_0_to_1_is_refused_everywhere(confidence):
    calls = (
        lambda: median_interval([1.0], confidence),
        lambda: hodges_lehmann_interval([1.0], confidence),
        lambda: binomial_interval(1, 2, confidence),
        lambda: samples_needed(confidence),
    )
    for call in calls:
        with pytest.raises(ValueError, match=f"`confidence` must lie between 0 and 1.* got {confidence}"):
            call()


@pytest.mark.parametrize(
    ("successes", "trials", "said"),
    [
        (0, 0, "`trials` must be at least 1, got 0"),
        (5, 4, r"`successes` must lie between 0 and `trials` \(=4\), got 5"),
        (-1, 4, "got -1"),
        (0.5, 4, "`successes` must be a whole number, got 0.5"),
        (1, "4", "`trials` must be a whole number, got '4'"),
    ],
)
def test_counts_that_do_not_fit_are_named(successes, trials, said):
    with pytest.raises(ValueError, match=said):
        binomial_interval(successes, trials)


@pytest.mark.parametrize(
    ("sizes", "times", "said"),
    [
        ([1, 2, 3], [1.0, 2.0], "`sizes` and `times` must have the same length, got 3 and 2"),
        ([0, 2], [1.0, 2.0], "`sizes` must be positive, got 0"),
        ([1, 2], [1.0, -2.0], "`times` must be positive, got -2"),
        ([8, 8, 8], [1.0, 2.0, 3.0], "`sizes` must hold at least two distinct sizes, got only 8"),
        ([1, 2], [1.0, math.nan], "`times` must be finite, got 1"),
        ([], [], r"`sizes` must have shape \(n,\)"),
    ],
)
def test_sizes_and_times_without_a_slope_are_named(sizes, times, said):
    with pytest.raises(ValueError, match=said):
        log_log_slope(sizes, times)
