"""The arithmetic of a comparison's layout, against the rules it was made from."""

import math

import pytest

from perfclaims.plan import (
    INSTANCES,
    LOOKS,
    calls_in_last_round,
    calls_per_sample,
    fewest_groups,
    first_pass_groups,
    make_plan,
    most_groups,
    next_pass_groups,
)
from perfclaims.statistics import samples_needed

US, MS, S = 1e3, 1e6, 1e9


def plan(pair_ns, budget_s=0.25, **options):
    options = {"rebuilt": True, "confidence": 0.95, "thresholds": (2.0,), **options}
    return make_plan((1, 1), pair_ns, budget_s=budget_s, **options)


@pytest.mark.parametrize(
    ("baseline_ns", "optimized_ns", "calls"),
    [
        (20 * US, 20 * US, (1, 1)),
        (30 * US, 25 * US, (1, 1)),
        (1 * US, 1.2 * US, (17, 17)),  # 20 us of the slower one
        (100, 100, (200, 200)),
        (1 * MS, 500 * US, (1, 2)),  # equal durations up to a factor of 3
        (1 * MS, 340 * US, (1, 3)),
        (500 * US, 1 * MS, (2, 1)),
        (1 * MS, 50 * US, (1, 20)),  # still within 1 ms
        (100 * MS, 50 * US, (1, 20)),  # 1 ms of the faster one, not 100
        (100 * MS, 10 * MS, (1, 1)),
        (50 * US, 100 * MS, (20, 1)),
        (100 * MS, 1 * US, (1, 1000)),
        (100 * MS, 50 * MS, (1, 2)),
    ],
)
def test_samples_are_of_equal_length_until_the_speeds_differ_by_three(baseline_ns, optimized_ns, calls):
    assert calls_per_sample(baseline_ns, optimized_ns) == calls


@pytest.mark.parametrize("fast_ns", [10.0, 333.0, 7 * US, 90 * US, 2 * MS])
@pytest.mark.parametrize("ratio", [1.0, 1.49, 1.51, 2.9, 3.1, 40.0, 1e4])
def test_no_sample_is_too_short_for_the_clock_and_no_batch_longer_than_it_has_to_be(fast_ns, ratio):
    slow_ns = fast_ns * ratio
    slow_calls, fast_calls = calls_per_sample(slow_ns, fast_ns)
    assert calls_per_sample(fast_ns, slow_ns) == (fast_calls, slow_calls)
    slow_sample, fast_sample = slow_calls * slow_ns, fast_calls * fast_ns
    assert min(slow_sample, fast_sample) >= 0.6 * 20 * US
    assert slow_calls == 1 or slow_sample <= 1.5 * 20 * US
    longest = max(20 * US, slow_sample if ratio <= 3 else min(slow_sample, 1 * MS))
    assert fast_calls == 1 or fast_sample <= 1.4 * longest


def test_the_last_round_takes_the_batches_of_the_passes_but_single_long_calls():
    assert calls_in_last_round((1, 1000), (100 * MS, 1 * US)) == (1, 1000)
    assert calls_in_last_round((20, 40), (1 * US, 500)) == (20, 40)
    assert calls_in_last_round((1, 3), (1 * MS, 300 * US)) == (1, 3)
    assert calls_in_last_round((1, 2), (150 * MS, 75 * MS)) == (1, 1)


@pytest.mark.parametrize(
    ("pair_ns", "instances", "group_size"),
    [
        (0.4 * MS, 10, 2),
        (4.1 * MS, 10, 2),  # 60 pairs fit: three groups of two
        (4.3 * MS, 10, 1),
        (8.3 * MS, 10, 1),  # 30 pairs: 10 x 3
        (24 * MS, 10, 1),
        (26 * MS, 9, 1),
        (40 * MS, 6, 1),
        (2 * S, 6, 1),  # beyond the budget: as few as give an interval
    ],
)
def test_instances_and_groups_follow_from_what_fits(pair_ns, instances, group_size):
    found = plan(pair_ns)
    assert (found.instances, found.group_size) == (instances, group_size)


def test_slow_calls_get_six_pairs_beyond_the_budget_and_ten_times_three_where_they_fit():
    assert plan(0.2 * S).instances == 6
    assert plan(0.2 * S, budget_s=6.0).instances == 10
    three = plan(0.2 * S, budget_s=6.0)
    assert next_pass_groups(three, 1, LOOKS, 2.0) == 2


@pytest.mark.parametrize("affordable", [1.0, 3.7, 5.99])
def test_a_time_limit_for_fewer_than_six_pairs_leaves_fewer_instances_than_an_interval_needs(affordable):
    found = plan(0.2 * S, affordable_pairs=affordable)
    assert found.instances == int(affordable) < fewest_groups(found) == 6


@pytest.mark.parametrize("confidence", [0.8, 0.9, 0.95, 0.99, 0.999])
@pytest.mark.parametrize("pair_ns", [0.1 * MS, 5 * MS, 28 * MS, 31 * MS, 1 * S])
@pytest.mark.parametrize("rebuilt", [True, False])
def test_early_looks_spend_at_most_a_fifth_of_alpha_and_leave_a_final_interval(confidence, pair_ns, rebuilt):
    found = plan(pair_ns, confidence=confidence, rebuilt=rebuilt)
    assert 0 <= found.looks <= LOOKS
    assert found.looks * found.look_alpha <= 0.2 * (1 - confidence) + 1e-12
    assert found.final_alpha == pytest.approx(1 - confidence - found.looks * found.look_alpha)
    if rebuilt:
        assert found.look_alpha == 2.0 ** (1 - found.instances)  # all instances on one side by chance
        assert found.instances >= min(samples_needed(confidence), INSTANCES)
        assert found.instances >= fewest_groups(found)


def test_there_are_no_looks_without_a_threshold_and_none_where_only_one_pass_fits():
    assert plan(0.4 * MS).looks == LOOKS
    assert plan(0.4 * MS, thresholds=()).looks == 0
    assert plan(24 * MS).looks == 0
    assert plan(12 * MS).looks == LOOKS
    assert plan(0.4 * MS, confidence=0.99).looks == 1


def test_the_first_pass_takes_about_30_ms_and_a_single_instance_enough_for_an_interval():
    assert first_pass_groups(plan(0.04 * MS)) == 5
    assert first_pass_groups(plan(0.5 * MS)) == 3
    assert first_pass_groups(plan(3 * MS)) == 1
    assert first_pass_groups(plan(1 * S)) == 1
    single = plan(0.4 * MS, rebuilt=False)
    assert 2.0 ** (1 - first_pass_groups(single)) <= single.look_alpha
    assert first_pass_groups(plan(1 * S, rebuilt=False)) == 6


@pytest.mark.parametrize("looks", [0, 3, 5])
@pytest.mark.parametrize("total", [8.0, 30.0, 5000.0])
def test_passes_at_least_double_the_pairs_so_that_all_looks_are_used_before_the_budget_is(looks, total):
    found = plan(0.04 * MS, budget_s=100.0, thresholds=(2.0,) if looks else ())
    done, taken, grown = 5, 1, []
    while groups := next_pass_groups(found, done, taken + LOOKS - looks, total - done):
        grown.append((done + groups) / done)
        done += groups
        taken += 1
    assert done == int(total)
    assert all(growth >= 2 for growth in grown[:-1])
    assert len(grown) <= max(1, looks)


def test_nothing_is_measured_beyond_the_budget_or_the_most_that_is_kept():
    found = plan(0.04 * MS)
    assert next_pass_groups(found, 5, 5, 0.99) == 0
    assert next_pass_groups(found, 5, 5, -3.0) == 0
    most = most_groups(found)
    assert most * found.instances * found.group_size <= 10_000
    assert next_pass_groups(found, most, 5, 1e9) == 0
    assert next_pass_groups(found, most - 3, 5, math.inf) == 3
    assert most_groups(plan(0.04 * MS, budget_s=5.0)) == 5 * most_groups(plan(0.04 * MS, budget_s=1.0))
