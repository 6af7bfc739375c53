"""What a time limit leaves: never more than there is, and a third kept back."""

from dataclasses import replace

import pytest

from perfclaims.plan import make_plan
from perfclaims.time_allowance import TimeAllowance

S = 1e9


def plan(pair_s=0.03, *, rebuilt=True):
    return make_plan((1, 1), pair_s * S, budget_s=1.0, rebuilt=rebuilt, confidence=0.95)


def test_a_third_of_the_time_is_kept_for_what_cannot_be_foreseen():
    assert TimeAllowance(lambda: 30.0).left_ns() == 20 * S
    assert TimeAllowance(lambda: float("inf")).left_ns() == float("inf")


@pytest.mark.parametrize("pair_s", [0.001, 0.05, 0.19])
@pytest.mark.parametrize("warm", [True, False])
def test_instances_that_are_affordable_fit_with_their_checks_and_the_last_round(pair_s, warm):
    allowance = TimeAllowance(lambda: 6.0, warm=warm)
    instances = int(allowance.instances(pair_s * S))
    # A check, a warm-up and a pair; in the last round a warm-up, a pair, and the baseline asked again.
    each = (1 + warm + 1) + (warm + 1 + 0.5)
    assert instances * each * pair_s <= 6.0 / 1.5
    assert (instances + 4) * (each + 2) * pair_s > 6.0 / 1.5, "and hardly more would"


def test_of_slow_calls_the_check_is_the_pair():
    allowance = TimeAllowance(lambda: 15.0, slow=True, check_counts=True)
    assert allowance.instances(1 * S) == pytest.approx(8.5)
    assert TimeAllowance(lambda: 0.1, slow=True, check_counts=True).instances(1 * S) == 1.0


def test_another_instance_must_be_built_and_timed_in_time():
    allowance = TimeAllowance(lambda: 3.0, set_up_ns=int(1 * S))
    assert allowance.another_instance(plan(0.1), 9)
    assert not allowance.another_instance(plan(0.1), 10)
    assert not replace(allowance, set_up_ns=int(2 * S)).another_instance(plan(0.1), 1)
    assert replace(allowance, check_counts=True).another_instance(plan(1.0), 5)


def test_passes_get_what_the_last_round_and_drawing_do_not_need():
    allowance = TimeAllowance(lambda: 15.0, renewing_ns=int(1 * S))
    assert allowance.for_passes_ns(plan()) == pytest.approx((10 - 2 - 10 * 2 * 0.03) * S)
    warm = replace(allowance, warm=True)
    assert warm.for_passes_ns(plan()) == pytest.approx((10 - 2 - 10 * 3 * 0.03) * S)
    assert allowance.for_passes_ns(plan(rebuilt=False)) == pytest.approx((10 - 2 - 8 * 2 * 0.03) * S)
    slow = replace(allowance, slow=True)
    assert slow.for_passes_ns(plan(1.0)) == pytest.approx((10 - 2 - 1.5) * S)
