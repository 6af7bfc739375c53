"""Evidence that does not fit together is refused when it is made, so that judging never meets it."""

from dataclasses import replace

import numpy as np
import pytest
from evidence_factory import (
    STRICT,
    differing,
    matching,
    number,
    outcomes,
    pairs,
    plan,
    rate,
    scaling,
    sizes,
    timing,
)

from perfclaims.evidence import Outcomes, OutputCheck, PairedSamples


def columns(n, **changes):
    fields = {
        "instance": np.zeros(n, dtype=np.int64),
        "optimized_first": np.zeros(n, dtype=bool),
        "baseline_ns": np.ones(n, dtype=np.int64),
        "optimized_ns": np.ones(n, dtype=np.int64),
    }
    return PairedSamples(**{**fields, **changes})


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (
            lambda: columns(3, baseline_ns=np.ones(2)),
            r"must have one shape \(n,\), got \(3,\), \(3,\), \(2,\)",
        ),
        (lambda: columns(4, instance=np.zeros((2, 2))), r"must have one shape \(n,\)"),
        (lambda: plan(baseline_calls=0), "`baseline_calls` of a plan must be at least 1, got 0"),
        (lambda: plan(group_size=0), "`group_size` of a plan must be at least 1, got 0"),
        (lambda: plan(instances=0), "`instances` of a plan must be at least 1, got 0"),
        (lambda: plan(instances=2001), "`instances` of a plan must be at most 2000, got 2001"),
        (lambda: plan(confidence=1.0), "`confidence` must lie between 0 and 1"),
        (lambda: plan(looks=30), "30 looks at 0.00195312 must leave something of 0.05"),
        (lambda: plan(looks=1, look_alpha=1.0), "1 looks at 1 must leave something of 0.05"),
        (lambda: plan(looks=1, look_alpha=1e-20), "1 looks at 1e-20 must leave something"),
        (lambda: plan(looks=-1), "-1 looks"),
        (lambda: plan(thresholds=(1.1, 0.0)), r"of a plan must be positive and finite, got \(1.1, 0.0\)"),
        (lambda: timing(2.0, last_calls=(1, 0)), r"`last_calls` must be at least 1, got \(1, 0\)"),
        (lambda: timing(2.0, decided_early=True), "`decided_early` needs a plan with looks"),
        (lambda: timing([2.0] * 6, instances=5), "`instance` must lie between 0 and 4, got 0 to 5"),
        (lambda: timing([2.0] * 6, last_round=pairs([2.0] * 7)), "must lie between 0 and 5, got 0 to 6"),
        (lambda: sizes(0, 4), "`baseline` and `optimized` must be positive, got 0 and 4"),
        (lambda: sizes(4, -1), "`baseline` and `optimized` must be positive, got 4 and -1"),
        (lambda: outcomes(0, 0, 0), "must hold at least one outcome, got none"),
        (lambda: Outcomes(None, np.ones(3), np.ones(2)), r"must have one shape \(n,\), got \(3,\), \(2,\)"),
        (lambda: scaling(2.0, sizes=(64, 64)), "`sizes` must be two or more different positive numbers"),
        (lambda: replace(scaling(), sizes=(64.0,)), "`size_index` must lie between 0 and 0, got 0 to 3"),
        (lambda: replace(scaling(), calls=(1, 1, 1)), "`calls` must be a positive number for every size"),
        (lambda: replace(scaling(), calls=(1, 1, 0, 1)), "`calls` must be a positive number for every size"),
        (lambda: replace(scaling(), instances=9), "`instance` must lie between 0 and 8, got 0 to 9"),
        (lambda: replace(scaling(), instances=2001), "`instances` must be at most 2000, got 2001"),
        (lambda: number("x", np.nan), "`number` of 'x' must be finite and within its interval, got nan"),
        (lambda: number("x", 2.0, low=3.0), r"got 2.0 in \[3.0, None\]"),
        (lambda: number("x", 2.0, high=1.0), r"got 2.0 in \[None, 1.0\]"),
        (lambda: number("x", 1.0, successes=1), "`successes` and `trials` of 'x' go together"),
        (lambda: rate("x", 5, 4), "`number` of 'x' must be finite and within its interval, got 1.25"),
        (lambda: number("x", 0.5, successes=5, trials=4), r"must lie between 0 and `trials` \(=4\), got 5"),
    ],
)
def test_what_does_not_fit_together_is_refused(make, said):
    with pytest.raises(ValueError, match=said):
        make()


def test_what_the_looks_may_spend_the_final_interval_pays():
    assert plan(looks=5).final_alpha == pytest.approx(0.05 - 5 / 512)
    assert plan().final_alpha == pytest.approx(0.05)


def test_a_check_matches_only_where_something_was_compared_and_all_of_it_matched():
    assert matching().matched
    assert not differing().matched
    assert not differing(on_new=True).matched
    nothing = OutputCheck(STRICT, None, None)
    assert not nothing.matched
    assert nothing.message == "outputs were not compared"
    assert differing(on_new=True).message == "3 of 64 elements differ"


def test_a_comparison_is_finished_by_its_last_round_or_by_a_reason_not_to_go_on():
    assert timing(2.0).finished
    assert not timing(2.0, last_round=None).finished
    assert timing(2.0, last_round=None, arguments_changed="the baseline changed its arguments").finished
    assert not timing(2.0, samples=pairs([])).finished
    assert scaling().finished
    assert not scaling([], calls=()).finished
