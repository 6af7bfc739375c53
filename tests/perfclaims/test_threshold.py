"""Every way in which an interval, new arguments and a single instance can lie around a threshold."""

import math

import pytest

from perfclaims.codes import Outcome, Reason
from perfclaims.statistics import Interval
from perfclaims.threshold import Quantity

CONFIRMED, REFUTED, OPEN = Outcome.CONFIRMED, Outcome.REFUTED, Outcome.INCONCLUSIVE
SLOWER, UNDECIDED, SINGLE, FINER = (
    Reason.SLOWER_ON_NEW_INPUTS,
    Reason.UNDECIDED,
    Reason.SINGLE_INSTANCE,
    Reason.FINER_THAN_NOISE,
)


def logs(low, high, estimate=None):
    """An interval of ratios on the log scale."""
    middle = math.sqrt(low * high) if estimate is None else estimate
    return Interval(math.log(middle), math.log(low), math.log(high), 0.95)


def quantity(main, fresh=None, *, single=False, noise=0.01):
    return Quantity.of_logs(logs(*main), None if fresh is None else logs(*fresh), noise, single=single)


def answer(main, fresh, threshold, **rest):
    found = quantity(main, fresh, **rest).reaches(math.log(threshold))
    return found.outcome, set(found.reasons), found.on_new_arguments


@pytest.mark.parametrize(
    ("main", "threshold", "outcome", "reasons"),
    [
        ((2.0, 2.2), 1.9, CONFIRMED, set()),
        ((2.0, 2.2), 2.3, REFUTED, set()),
        ((2.0, 2.2), 2.1, OPEN, {UNDECIDED}),
        ((1.00, 1.04), 1.02, OPEN, {UNDECIDED}),
        # The margin of 0.5 % is finer than the noise of 1 %.
        ((0.99, 1.01), 1.005, OPEN, {UNDECIDED, FINER}),
        ((0.99, 1.01), 0.995, OPEN, {UNDECIDED, FINER}),
        ((0.99, 1.01), 1.0, OPEN, {UNDECIDED, FINER}),
        # A decision is a decision, however fine the margin.
        ((1.001, 1.003), 1.0, CONFIRMED, set()),
    ],
)
def test_the_whole_interval_decides(main, threshold, outcome, reasons):
    assert answer(main, None, threshold) == (outcome, reasons, False)


def test_a_bound_itself_is_on_the_claimed_side():
    exact = Quantity.of_logs(Interval(0.5, 0.5, 0.6, 0.95), None, 0.01, single=False)
    assert exact.reaches(0.5).outcome is CONFIRMED
    assert exact.reaches(0.6).outcome is OPEN


@pytest.mark.parametrize(
    ("main", "fresh", "threshold", "outcome", "on_new"),
    [
        # Wholly below the threshold and below the estimate: refuted, whatever repeated arguments said.
        ((3.0, 3.2), (1.0, 1.2), 2.0, REFUTED, True),
        # It straddles the threshold.
        ((3.0, 3.2), (1.0, 2.1), 2.0, CONFIRMED, False),
        # Slower than before, and still fast enough.
        ((3.0, 3.2), (2.1, 2.3), 2.0, CONFIRMED, False),
        # Below the threshold, but it does not exclude the estimate: noise may do that.
        ((1.99, 2.6, 2.0), (1.5, 2.05), 2.1, OPEN, False),
        # Below both, by no more than cold caches make of honest code.
        ((2.0, 2.1, 2.05), (1.6, 1.66), 2.0, CONFIRMED, False),
        ((2.0, 2.1, 2.05), (1.6, 1.63), 2.0, REFUTED, True),
        # Below both: what was undecided is refuted.
        ((1.9, 2.2), (1.2, 1.4), 2.0, REFUTED, True),
        # Less than claimed without new arguments: they change nothing, and are not blamed.
        ((1.5, 1.6), (1.2, 1.4), 2.0, REFUTED, False),
        # Faster on new arguments is no confirmation.
        ((1.5, 1.6), (2.2, 2.4), 2.0, REFUTED, False),
        ((1.9, 2.2), (2.2, 2.4), 2.0, OPEN, False),
    ],
)
def test_new_arguments_refute_only_below_both_threshold_and_estimate(main, fresh, threshold, outcome, on_new):
    found, reasons, seen = answer(main, fresh, threshold)
    assert (found, seen) == (outcome, on_new)
    assert (SLOWER in reasons) is on_new


def test_a_last_round_that_excludes_the_estimate_by_what_is_cold_alone_is_told():
    def told(main, fresh, threshold):
        return quantity(main, fresh).reaches(math.log(threshold)).less_on_new_arguments

    assert told((2.0, 2.1, 2.05), (1.8, 1.9), 2.0)
    # It holds the estimate, or reaches the threshold all the same, or the claim is missed anyhow.
    assert not told((1.99, 2.6, 2.0), (1.5, 2.05), 2.1)
    assert not told((2.0, 2.1, 2.05), (1.8, 1.9), 1.7)
    assert not told((2.0, 2.1, 2.05), (1.8, 1.9), 2.2)


def test_time_is_judged_in_shares_of_a_call():
    """20 of 100 us are no tie and 4 are; new arguments may cost 25 us more just for being new."""

    def saved(low, high, fresh=None, *, single=False):
        again = None if fresh is None else Interval(fresh, fresh, fresh, 0.95)
        return Quantity.of_time(Interval((low + high) / 2, low, high, 0.95), again, 100.0, single=single)

    assert saved(-19, -18, single=True).reaches(-20).outcome is CONFIRMED
    assert saved(-3, -2, single=True).reaches(-4).reasons == (UNDECIDED, SINGLE)
    assert saved(2, 3, single=True).reaches(-4).outcome is CONFIRMED
    assert saved(-2, -1, fresh=-26).reaches(-4).outcome is CONFIRMED
    assert saved(-2, -1, fresh=-27).reaches(-4).outcome is REFUTED


def test_an_open_last_round_refutes_nothing():
    unknown = Interval(math.log(0.1), -math.inf, math.inf, 1.0)
    main = Quantity.of_logs(logs(3.0, 3.2), unknown, 0.01, single=False)
    assert main.reaches(math.log(2.0)).outcome is CONFIRMED


@pytest.mark.parametrize(
    ("main", "threshold", "outcome"),
    [
        # Within 5 % of a tie: only what clears the threshold by 5 % decides.
        ((1.001, 1.003), 1.0, OPEN),
        ((1.04, 1.049), 1.0, OPEN),
        ((1.051, 1.06), 1.0, CONFIRMED),
        ((0.96, 0.97), 1.0, OPEN),
        ((0.94, 0.95), 1.0, REFUTED),
        ((1.06, 1.09), 1.05, OPEN),
        ((1.11, 1.12), 1.05, CONFIRMED),
        ((0.97, 0.99), 1 / 1.05, OPEN),
        ((1.003, 1.02), 1 / 1.05, CONFIRMED),
        ((0.89, 0.90), 1 / 1.05, REFUTED),
        # Further from a tie one instance decides like ten.
        ((1.061, 1.07), 1.06, CONFIRMED),
        ((2.01, 2.02), 2.0, CONFIRMED),
        ((1.98, 1.99), 2.0, REFUTED),
    ],
)
def test_one_instance_decides_about_a_tie_only_where_memory_layout_could_not(main, threshold, outcome):
    found, reasons, _ = answer(main, None, threshold, single=True)
    assert found is outcome
    assert reasons == ({UNDECIDED, SINGLE} if outcome is OPEN else set())
    # Ten instances decide in every one of these cases.
    assert answer(main, None, threshold)[0] is not OPEN


@pytest.mark.parametrize("at_most", [0.05, 0.05 + 1e-12])
def test_a_threshold_stated_as_five_percent_is_within_five_percent(at_most):
    main = (1 / (1 + at_most) * 1.001, 0.99)
    found = quantity(main, single=True).reaches(-math.log1p(at_most))
    assert found.reasons == (UNDECIDED, SINGLE)


def test_one_instance_refutes_a_tie_on_new_arguments_only_by_more_than_its_layout():
    close = quantity((1.5, 1.6), (0.96, 0.98), single=True).reaches(0.0)
    assert (close.outcome, set(close.reasons)) == (OPEN, {SLOWER, UNDECIDED, SINGLE})
    assert close.on_new_arguments
    far = quantity((1.5, 1.6), (0.8, 0.9), single=True).reaches(0.0)
    assert (far.outcome, far.reasons) == (REFUTED, (SLOWER,))


@pytest.mark.parametrize(
    ("main", "fresh", "threshold", "worthwhile"),
    [
        ((2.0, 2.2), None, 3.0, True),
        ((1.05, 1.2), None, 3.0, False),
        ((1.02, 1.03), None, 3.0, False),
        ((2.0, 2.2), (1.9, 2.0), 3.0, True),
        ((2.0, 2.2), (1.05, 1.15), 3.0, True),
        # New arguments take the benefit away.
        ((2.0, 2.2), (0.9, 1.05), 3.0, False),
        ((3.1, 3.3), (1.0, 1.05), 3.0, False),
        ((3.1, 3.3), (1.05, 1.15), 3.0, False),
        # They refute the claim, and leave a benefit.
        ((3.1, 3.3), (2.0, 2.1), 3.0, True),
    ],
)
def test_a_benefit_is_worthwhile_where_all_of_its_interval_is_above_the_level(
    main, fresh, threshold, worthwhile
):
    found = quantity(main, fresh).reaches_or_pays(math.log(threshold), math.log(1.1))
    assert found.worthwhile is worthwhile
    assert found.outcome is REFUTED


def test_a_missed_claim_that_new_arguments_make_worthless_says_so():
    found = quantity((2.0, 2.2), (0.9, 1.05)).reaches_or_pays(math.log(3.0), math.log(1.1))
    assert found.on_new_arguments
    assert found.reasons == (SLOWER,)
    assert found.interval == logs(0.9, 1.05)


def test_a_small_confirmed_speedup_is_not_refuted_for_not_being_worthwhile_on_new_arguments():
    found = quantity((1.5, 1.6), (1.03, 1.06)).reaches_or_pays(math.log(1.02), math.log(1.1))
    assert (found.outcome, found.reasons, found.worthwhile) == (CONFIRMED, (), False)


def test_one_instance_near_a_low_worthwhile_level_is_not_worthwhile():
    found = quantity((1.04, 1.05), single=True).reaches_or_pays(math.log(3.0), math.log(1.03))
    assert not found.worthwhile
    assert quantity((1.04, 1.05)).reaches_or_pays(math.log(3.0), math.log(1.03)).worthwhile


@pytest.mark.parametrize("fresh", [None, (0.5, 0.6)])
@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize("threshold", [0.9, 1.0, 3.0])
def test_without_an_interval_nothing_is_confirmed(fresh, single, threshold):
    for estimate in (math.log(9.0), math.nan):
        unknown = Interval(estimate, -math.inf, math.inf, 1.0)
        again = None if fresh is None else logs(*fresh)
        unsure = Quantity.of_logs(unknown, again, math.inf, single=single)
        found = unsure.reaches_or_pays(math.log(threshold), math.log(1.1))
        assert found.outcome is not CONFIRMED
        assert not found.worthwhile
