"""Planted ratios come back; intervals are those that sorting and brute force give."""

import math
from itertools import combinations_with_replacement

import numpy as np
import pytest
from evidence_factory import around, pairs, timing

from perfclaims.activity import Activity
from perfclaims.evidence import PairedSamples
from perfclaims.ratio import (
    SYSTEMATIC,
    SYSTEMATIC_SINGLE,
    analyse,
    decided,
    exponential,
    grouped_minima,
    mean_log_speedup,
    noise_grade,
    per_call,
)
from perfclaims.statistics import Interval, hodges_lehmann_interval

UNEVEN = np.array([1.9, 1.95, 1.98, 2.0, 2.01, 2.02, 2.05, 2.1, 2.2, 2.5])


def widened(low, high, error=SYSTEMATIC):
    """Ends on the log scale, moved out by the systematic error."""
    return low - error * (1 + 3 * abs(low)), high + error * (1 + 3 * abs(high))


def walsh(values):
    return sorted((a + b) / 2 for a, b in combinations_with_replacement(values, 2))


def test_the_speedup_and_its_interval_are_those_of_the_averages_of_instance_medians():
    ratio = analyse(timing(UNEVEN))
    averages = walsh(np.log(UNEVEN))
    # Ten instances at 95 %: the ninth average from either end, P(W <= 8) = 25 / 1024.
    low, high = widened(averages[8], averages[-9])
    assert ratio.speedup.low == pytest.approx(math.exp(low), rel=1e-6)
    assert ratio.speedup.high == pytest.approx(math.exp(high), rel=1e-6)
    assert ratio.speedup.estimate == pytest.approx(math.exp(np.median(averages)), rel=1e-6)
    assert ratio.half_width == pytest.approx((high - low) / 2, abs=1e-6)
    assert ratio.instance_speedups == pytest.approx(tuple(UNEVEN), rel=1e-5)


@pytest.mark.parametrize("speedup", [0.01, 0.5, 1.0, 1.02, 3.0, 2987.0])
@pytest.mark.parametrize("calls", [(1, 1), (1, 7), (50, 50)])
def test_a_planted_ratio_comes_back_whatever_the_calls_per_sample(speedup, calls):
    found = analyse(timing(speedup, baseline_ns=10**8, baseline_calls=calls[0], optimized_calls=calls[1]))
    assert found.speedup.estimate == pytest.approx(speedup, rel=1e-4)
    assert found.speedup.low < speedup < found.speedup.high
    assert found.baseline_ms == pytest.approx(100.0)
    assert found.optimized_ms == pytest.approx(100.0 / speedup, rel=1e-3)
    assert found.added_us.estimate == pytest.approx(1e5 / speedup - 1e5, rel=1e-2, abs=10)


def test_each_side_gives_the_least_of_a_group_and_the_last_group_may_be_smaller():
    samples = PairedSamples(
        np.array([0, 1, 0, 1, 0]),
        np.zeros(5, dtype=bool),
        np.array([10, 70, 12, 60, 11]),
        np.array([5, 20, 4, 30, 6]),
    )
    (first, second) = grouped_minima(samples, 2, (1, 2))
    assert [side.tolist() for side in first] == [[10.0, 11.0], [2.0, 3.0]]
    assert [side.tolist() for side in second] == [[60.0], [10.0]]


def test_no_sample_is_dropped_by_an_unfilled_group():
    """One instance lacks a pair: it still counts, and so does its last pair."""
    whole = timing(UNEVEN, group_size=2)
    keep = np.arange(len(whole.samples)) != 0
    fields = ("instance", "optimized_first", "baseline_ns", "optimized_ns")
    less = PairedSamples(*(getattr(whole.samples, name)[keep] for name in fields))
    assert [len(b) for b, _ in grouped_minima(less, 2, (1, 1))] == [1] + [2] * 9
    assert [len(b) for b, _ in grouped_minima(whole.samples, 2, (1, 1))] == [2] * 10


def test_a_clock_that_did_not_move_gives_no_infinite_ratio():
    still = timing(1.0, samples=pairs([1.0] * 10, baseline_ns=0))
    ratio = analyse(still)
    assert ratio.speedup.estimate == 1.0
    assert ratio.mean_speedup == 1.0


def test_an_early_stop_reports_the_range_of_all_instances_and_the_grade_of_the_final_interval():
    fields = {"thresholds": (1.1, 1.5), "looks": 5, "look_alpha": 2.0**-9}
    early, final = (
        analyse(timing(UNEVEN, decided_early=stopped, looks_taken=1, **fields)) for stopped in (True, False)
    )
    low, high = widened(math.log(1.9), math.log(2.5))
    assert early.speedup.low == pytest.approx(math.exp(low), rel=1e-6)
    assert early.speedup.high == pytest.approx(math.exp(high), rel=1e-6)
    assert early.speedup.confidence == 1 - 2 / 1024
    # The final interval pays for all five looks: 95 % less a percent, and the eighth average at that.
    averages = walsh(np.log(UNEVEN))
    assert final.speedup.confidence >= 1 - (0.05 - 5 / 512)
    assert final.speedup.low == pytest.approx(math.exp(widened(averages[7], 0)[0]), rel=1e-6)
    assert early.speedup.low < final.speedup.low < final.speedup.high < early.speedup.high
    assert early.speedup.estimate == final.speedup.estimate
    assert (early.noise_grade, early.half_width) == (final.noise_grade, final.half_width)


def test_a_look_decides_only_where_every_instance_lies_beyond_every_threshold():
    def stops(speedups, *thresholds):
        measured = timing(speedups, thresholds=thresholds, looks=5)
        return decided(measured.samples, measured.plan)

    assert stops(UNEVEN, 1.5)
    assert stops(UNEVEN, 1.5, 3.0)
    assert not stops(UNEVEN, 1.5, 2.2)
    # The smallest is above the threshold, but by less than the systematic error.
    assert not stops(UNEVEN, 1.8999)
    # Nine agree by chance more often than a look may be wrong.
    assert not stops(UNEVEN[:9], 1.5)


def test_what_a_look_decides_is_what_the_reported_interval_says():
    rng = np.random.default_rng(0)
    stopped = 0
    for _ in range(200):
        speedups = 1.3 * np.exp(rng.normal(0, 0.08, 10))
        measured = timing(speedups, thresholds=(1.1, 1.2), looks=5, decided_early=True)
        if decided(measured.samples, measured.plan):
            stopped += 1
            interval = analyse(measured).speedup
            assert all(interval.excludes(threshold) for threshold in (1.1, 1.2))
    assert 20 < stopped < 180


def test_a_single_instance_has_the_sign_interval_of_its_groups_and_a_star():
    speedups = np.random.default_rng(1).permutation(around(1.3, 0.05, 41))
    ratio = analyse(timing(speedups, single=True))
    ordered = np.sort(np.log(speedups))
    # 41 pairs at 95 %: the 14th from either end.
    low, high = widened(ordered[13], ordered[-14], SYSTEMATIC_SINGLE)
    assert ratio.speedup.low == pytest.approx(math.exp(low), rel=1e-5)
    assert ratio.speedup.high == pytest.approx(math.exp(high), rel=1e-5)
    assert ratio.noise_grade == "C*"


def test_the_interval_is_never_narrower_than_the_error_of_a_timed_call():
    same = analyse(timing([2.0] * 10)).log_speedup
    error = SYSTEMATIC * (1 + 3 * math.log(2))
    assert (same.low, same.high) == (pytest.approx(math.log(2) - error), pytest.approx(math.log(2) + error))
    single = analyse(timing([2.0] * 10, single=True)).log_speedup
    assert single.half_width == pytest.approx(SYSTEMATIC_SINGLE * (1 + 3 * math.log(2)))


@pytest.mark.parametrize(
    ("half_width", "grade"),
    [
        (0.0, "A"),
        (0.0025, "A"),
        (0.0026, "B"),
        (0.01, "B"),
        (0.05, "C"),
        (0.051, "D"),
        (math.inf, "D"),
        (math.nan, "D"),
    ],
)
def test_the_grade_comes_from_the_half_width(half_width, grade):
    assert noise_grade(half_width, single=False) == grade
    assert noise_grade(half_width, single=True) == f"{grade}*"


@pytest.mark.parametrize("single", [False, True])
def test_five_are_no_interval(single):
    ratio = analyse(timing(UNEVEN[:5], single=single))
    assert ratio.speedup.estimate == pytest.approx(1.98, rel=0.01)
    assert (ratio.speedup.low, ratio.speedup.high) == (0.0, math.inf)
    assert (ratio.added_us.low, ratio.added_us.high) == (-math.inf, math.inf)
    assert ratio.noise_grade.startswith("D")
    assert analyse(timing(UNEVEN[:6], single=single)).speedup.exists


def test_without_a_pair_nothing_is_known():
    ratio = analyse(timing(2.0, samples=pairs([])))
    assert math.isnan(ratio.speedup.estimate)
    assert (ratio.speedup.low, ratio.speedup.high) == (0.0, math.inf)
    assert math.isnan(ratio.mean_speedup)
    assert math.isnan(ratio.baseline_ms)
    assert ratio.noise_grade == "D"


def test_the_ratio_of_means_sees_the_slow_path_that_medians_hide():
    measured = timing(2.0, per_instance=5)
    slow = measured.samples.optimized_ns.copy()
    slow[:10] *= 40
    hidden = analyse(timing(2.0, samples=PairedSamples(*_columns(measured.samples)[:3], slow)))
    assert hidden.speedup.estimate == pytest.approx(2.0, rel=1e-3)
    assert hidden.mean_speedup < 0.3
    assert hidden.baseline_mean_ms == pytest.approx(1.0)
    assert hidden.optimized_mean_ms == pytest.approx(0.5 * (4 / 5 + 40 / 5), rel=1e-2)


def _columns(samples):
    return [samples.instance, samples.optimized_first, samples.baseline_ns, samples.optimized_ns]


def test_how_finely_an_instance_knows_itself_is_the_middle_of_their_own_intervals():
    speedups = np.tile(around(2.0, 0.1), 9)
    table = pairs(speedups, per_instance=1)
    measured = timing(2.0, samples=PairedSamples(np.repeat(np.arange(9), 10), *_columns(table)[1:]))
    # Ten pairs at 95 %: from the second to the ninth.
    ordered = np.log(around(2.0, 0.1))
    assert analyse(measured).instance_half_width == pytest.approx((ordered[8] - ordered[1]) / 2, rel=1e-4)


def test_the_last_round_is_an_interval_of_its_own_at_the_full_level():
    ratio = analyse(timing(4.0, fresh=UNEVEN, thresholds=(1.1,), looks=5))
    averages = walsh(np.log(UNEVEN))
    assert ratio.on_new_arguments.low == pytest.approx(math.exp(widened(averages[8], 0)[0]), rel=1e-5)
    assert ratio.on_new_arguments.estimate == pytest.approx(np.exp(np.median(averages)), rel=1e-5)
    added = ratio.added_us_on_new_arguments
    assert added.low < 1000 / 2.02 - 1000 < added.high


def test_without_arguments_or_without_a_last_round_nothing_is_said_of_new_ones():
    unfinished, empty = (timing(2.0, fresh=2.0, last_round=last) for last in (None, pairs([])))
    for measured in (timing(2.0), unfinished, empty):
        ratio = analyse(measured)
        assert ratio.on_new_arguments is None
        assert ratio.added_us_on_new_arguments is None


def test_calls_of_the_last_round_may_be_fewer():
    few = pairs(around(2.0), per_instance=1, calls=(2, 4))
    calls = {"baseline_calls": 4, "optimized_calls": 8, "last_calls": (2, 4)}
    ratio = analyse(timing(2.0, fresh=2.0, last_round=few, **calls))
    assert ratio.on_new_arguments.estimate == pytest.approx(2.0, rel=1e-3)
    assert ratio.added_us_on_new_arguments.estimate == pytest.approx(-500.0, rel=1e-2)


def test_added_time_is_known_to_a_thousandth_of_the_slower_side():
    ratio = analyse(timing([0.5] * 10))
    assert ratio.added_us.estimate == pytest.approx(1000.0)
    assert ratio.added_us.half_width == pytest.approx(SYSTEMATIC * 2000.0)


def test_a_disturbed_comparison_of_few_pairs_is_judged_at_a_fifth_of_alpha():
    def measured(spread, per_instance):
        ratios = around(2.0, spread)
        return analyse(timing(ratios, samples=pairs(ratios, per_instance=per_instance))).log_speedup

    few, steady, calm = measured(0.2, 1), measured(0.2, 3), measured(0.05, 1)
    assert few.confidence >= 0.99 > max(steady.confidence, calm.confidence)
    averages = walsh(np.log(around(2.0, 0.2)))
    # Ten instances at 99 %: the fourth average from either end, P(W <= 3) = 5 / 1024.
    assert (few.low, few.high) == pytest.approx(widened(averages[3], averages[-4]), abs=1e-6)
    assert (steady.low, steady.high) == pytest.approx(widened(averages[8], averages[-9]), abs=1e-6)


def test_on_a_quiet_machine_few_pairs_are_judged_as_any_others():
    ratios = around(2.0, 0.2)
    samples = pairs(ratios, per_instance=1)
    quiet, busy = (
        analyse(timing(ratios, samples=samples, activity=Activity(1.0, share, 0.0))).log_speedup
        for share in (0.99, 0.5)
    )
    assert quiet.confidence < 0.99 <= busy.confidence
    assert busy.low < quiet.low


def test_bursts_that_hit_either_side_at_random_seldom_make_equal_code_faster_or_slower():
    rng = np.random.default_rng(0)
    bursts = 2.0 ** rng.choice([-1, 1], (1000, 10)) * np.exp(rng.normal(0, 0.02, (1000, 10)))
    found = [analyse(timing(r, samples=pairs(r, per_instance=1))).speedup for r in bursts]
    # At most one in a hundred, where 95 % would allow five: 20 is four standard errors above.
    assert 0 < sum(interval.excludes(1.0) for interval in found) <= 22


class TestGeometricMean:
    def test_it_is_the_mean_of_the_logs_over_instances_drawn_together(self):
        other = UNEVEN[::-1] * 2
        interval, fresh = mean_log_speedup([timing(UNEVEN), timing(other)])
        expected = hodges_lehmann_interval(np.log(UNEVEN * other) / 2)
        low, high = widened(expected.low, expected.high)
        assert interval.low == pytest.approx(low, abs=1e-6)
        assert interval.high == pytest.approx(high, abs=1e-6)
        assert fresh is None

    @pytest.mark.parametrize(
        "odd",
        [
            timing(UNEVEN, single=True),
            timing(UNEVEN[:8]),
            timing(UNEVEN, decided_early=True, looks=5, thresholds=(1.5,)),
        ],
        ids=["single", "fewer instances", "ended by a look"],
    )
    def test_where_instances_cannot_be_drawn_together_ends_are_averaged(self, odd):
        even = timing(3.0)
        interval, _ = mean_log_speedup([odd, even])
        parts = [analyse(t).log_speedup for t in (odd, even)]
        assert interval.low == pytest.approx(np.mean([p.low for p in parts]))
        assert interval.high == pytest.approx(np.mean([p.high for p in parts]))
        assert interval.confidence >= 0.95

    def test_single_instances_have_an_interval_of_their_mean(self):
        interval, _ = mean_log_speedup([timing(around(s, 0.01, 40), single=True) for s in (2.0, 4.0)])
        assert interval.estimate == pytest.approx(math.log(math.sqrt(8.0)), abs=1e-4)
        assert 0.002 < interval.half_width < 0.02

    def test_looks_that_were_allowed_are_paid_for(self):
        paid, _ = mean_log_speedup([timing(UNEVEN, looks=5, thresholds=(2.0,)), timing(UNEVEN)])
        free, _ = mean_log_speedup([timing(UNEVEN), timing(UNEVEN)])
        assert paid.low < free.low

    def test_without_an_interval_of_one_there_is_none_of_the_mean(self):
        interval, _ = mean_log_speedup([timing(2.0), timing(UNEVEN[:5])])
        assert (interval.low, interval.high) == (-math.inf, math.inf)
        assert mean_log_speedup([timing(2.0, samples=pairs([]))])[0].high == math.inf

    def test_on_new_arguments_those_that_tell_stand_beside_those_that_do_not(self):
        slow = timing(4.0, fresh=1.0)
        _, fresh = mean_log_speedup([slow, timing(4.0)])
        assert fresh.estimate == pytest.approx(math.log(2.0), abs=1e-3)
        # A single pair on new arguments is no interval: that comparison says what it said before.
        _, fresh = mean_log_speedup([slow, timing(4.0, fresh=[0.1])])
        assert fresh.estimate == pytest.approx(math.log(2.0), abs=1e-3)


def test_logs_beyond_every_float_become_zero_and_infinity():
    interval = exponential(Interval(0.0, -math.inf, 1e6, 0.95))
    assert (interval.estimate, interval.low, interval.high) == (1.0, 0.0, math.inf)


def test_samples_are_shown_per_call():
    baseline, optimized = per_call(pairs([2.0, 4.0], per_instance=1, calls=(3, 5)), (3, 5))
    assert baseline.tolist() == [1e6, 1e6]
    assert optimized.tolist() == [5e5, 2.5e5]
