"""Intervals against closed forms, brute force and planted truths; values that are none are refused."""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from tinytorch.benchmarking.benchmark import BenchmarkResult
from tinytorch.benchmarking.statistics import (
    Interval,
    location_interval,
    mean_interval,
    median_interval,
    paired_change,
    share_interval,
)


def test_a_result_describes_its_values():
    result = BenchmarkResult("latency", [1.0, 2.0, 3.0, 10.0], {"unit": "ms"})
    assert (result.mean, result.median, result.min_val, result.max_val, result.count) == (4, 2.5, 1, 10, 4)
    assert result.std == pytest.approx(math.sqrt((9 + 4 + 1 + 36) / 3))
    assert result.percentile(50) == 2.5
    assert result.percentile(100) == 10
    assert result.metadata == {"unit": "ms"}


@pytest.mark.parametrize("n", [2, 3, 10, 100])
def test_the_interval_of_the_mean_has_the_quantile_of_its_sample_size(n):
    values = np.random.default_rng(n).normal(5, 2, n)
    low, high = stats.t.interval(0.95, n - 1, values.mean(), stats.sem(values))
    result = BenchmarkResult("latency", values, {})
    assert (result.ci_lower, result.ci_upper) == pytest.approx((low, high))


def test_one_value_has_no_interval_and_no_spread():
    result = BenchmarkResult("latency", [3.0], {})
    assert (result.ci_lower, result.ci_upper, result.std) == (-math.inf, math.inf, 0.0)
    assert result.to_dict()["ci_lower"] is None


def test_an_interval_that_is_known_otherwise_replaces_that_of_the_mean():
    result = BenchmarkResult("memory", [12], {}, Interval.exact(12.0))
    assert (result.ci_lower, result.ci_upper) == (12, 12)


def test_a_result_is_strict_json():
    result = BenchmarkResult("latency", np.arange(1, 8, dtype=np.float32), {"unit": "ms", "inputs": [1, 2]})
    said = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert said["values"] == [1, 2, 3, 4, 5, 6, 7]
    assert said["percentiles"]["50"] == said["median"] == said["mean"] == 4
    assert said["ci_lower"] < 4 < said["ci_upper"]


def test_values_and_metadata_are_copies():
    values, metadata = [1.0, 2.0], {"unit": "ms"}
    result = BenchmarkResult("latency", values, metadata)
    values.append(99.0)
    metadata["unit"] = "s"
    assert result.mean == 1.5
    assert result.metadata == {"unit": "ms"}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([], "at least one number.*got none"),
        ([1.0, math.nan], "1 NaN or infinite among 2"),
        ([math.inf], "1 NaN or infinite among 1"),
        (["fast"], "must hold numbers"),
        ([[1.0, 2.0]], r"shape \(1, 2\)"),
        ([[1.0], [1.0, 2.0]], "different lengths"),
        ([True], "must hold numbers, got bool"),
    ],
)
def test_values_that_are_no_numbers_are_refused(values, said):
    with pytest.raises(ValueError, match=said):
        BenchmarkResult("latency", values, {})


@pytest.mark.parametrize(("name", "metadata"), [("", {}), (3, {}), ("latency", [1])])
def test_wrong_names_and_metadata_are_refused(name, metadata):
    with pytest.raises(ValueError, match=r"`metric_name`|`metadata`"):
        BenchmarkResult(name, [1.0], metadata)


@pytest.mark.parametrize("percent", [-1, 101, math.nan])
def test_percentiles_lie_in_a_hundred(percent):
    with pytest.raises(ValueError, match=r"`percent` must lie in 0 to 100"):
        BenchmarkResult("latency", [1.0], {}).percentile(percent)


def test_the_mean_of_normal_values_is_covered_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = sum(not mean_interval(rng.normal(3, 1, 5)).excludes(3) for _ in range(2000))
    assert abs(covered / 2000 - 0.95) < 4 * math.sqrt(0.95 * 0.05 / 2000)


@pytest.mark.parametrize("n", [5, 6, 9, 17, 40])
def test_the_interval_of_the_median_is_the_deepest_that_the_binomial_allows(n):
    values = np.random.default_rng(n).permutation(n).astype(float)
    interval = median_interval(values)
    allowed = [k for k in range(1, n // 2 + 1) if 2 * stats.binom.cdf(k - 1, n, 0.5) <= 0.05]
    expected = (max(allowed) - 1.0, n - float(max(allowed))) if allowed else (-math.inf, math.inf)
    assert (interval.low, interval.high) == expected


@pytest.mark.parametrize("n", [4, 6, 7, 10])
def test_the_interval_of_the_centre_is_the_deepest_that_all_sign_patterns_allow(n):
    values = np.random.default_rng(n).normal(size=n)
    averages = sorted((values[i] + values[j]) / 2 for i in range(n) for j in range(i, n))
    sums = [
        sum(r for r, s in zip(range(1, n + 1), signs, strict=True) if s)
        for signs in itertools.product([0, 1], repeat=n)
    ]
    allowed = [k for k in range(1, len(averages) // 2 + 1) if 2 * np.mean([s < k for s in sums]) <= 0.05]
    interval = location_interval(values)
    if allowed:
        assert interval.low == pytest.approx(averages[max(allowed) - 1])
        assert interval.high == pytest.approx(averages[-max(allowed)])
    else:
        assert not interval.known
    assert interval.estimate == pytest.approx(np.median(averages))


def test_very_many_values_have_the_interval_of_the_median():
    values = np.random.default_rng(0).normal(size=401)
    assert location_interval(values) == median_interval(values)


@pytest.mark.parametrize(("right", "trials"), [(0, 10), (3, 10), (10, 10), (440, 450)])
def test_a_share_has_the_exact_interval(right, trials):
    interval = share_interval(right, trials)
    exact = stats.binomtest(right, trials).proportion_ci(0.95, "exact")
    assert (interval.low, interval.high) == pytest.approx((exact.low, exact.high))


@pytest.mark.parametrize(("right", "trials"), [(1, 0), (3, 2), (-1, 2)])
def test_impossible_shares_are_refused(right, trials):
    with pytest.raises(ValueError, match="`successes` must lie in 0 to `trials`"):
        share_interval(right, trials)


@pytest.mark.parametrize(("gain", "loss"), [(0.0, 0.0), (0.02, 0.05), (0.3, 0.1)])
def test_a_true_change_of_accuracy_is_covered(gain, loss):
    rng = np.random.default_rng(1)
    missed = 0
    for _ in range(400):
        draw, either = rng.random(200), rng.random(200) < 0.9
        gained, lost = draw < gain, draw > 1 - loss
        before, after = either & ~gained | lost, either & ~lost | gained
        missed += paired_change(before, after).excludes(gain - loss)
    assert missed / 400 <= 0.05


def test_equal_answers_are_no_proof_of_equal_accuracy():
    right = np.ones(300, bool)
    interval = paired_change(right, right)
    assert interval.estimate == 0
    # With n examples and no difference, a share of 1 - (a / 4) ** (1 / n) is not excluded.
    assert interval.high == pytest.approx(1 - 0.0125 ** (1 / 300))
    assert interval.low == -interval.high


def test_gains_are_positive_and_losses_negative():
    before = np.array([True] * 50 + [False] * 50)
    assert paired_change(before, np.ones(100, bool)).low > 0.3
    assert paired_change(np.ones(100, bool), before).high < -0.3


def test_answers_to_other_examples_are_refused():
    with pytest.raises(ValueError, match=r"same examples.*\(3,\) and \(4,\)"):
        paired_change(np.ones(3, bool), np.ones(4, bool))


@pytest.mark.parametrize("confidence", [0, 1, 95, True, "0.95"])
def test_confidence_is_a_share(confidence):
    with pytest.raises(ValueError, match="`confidence` must lie between 0 and 1"):
        mean_interval([1.0, 2.0], confidence)


def test_the_exponential_of_an_unknown_interval_is_unknown():
    interval = Interval(0.0, -math.inf, math.inf).exponential()
    assert (interval.estimate, interval.low, interval.high) == (1.0, 0.0, math.inf)


def test_metadata_are_said_as_json_can_whatever_they_are():
    given = {
        "a": np.float32(1),
        "b": np.arange(3),
        "c": (1, {2}),
        "d": math.inf,
        "e": np.array([np.nan, 0.5]),
        5: Path("x/y"),
        "f": {"deep": np.bool_(True)},
        "g": None,
        "h": True,
        "i": np.array(7),
    }
    expected = {
        "a": 1.0,
        "b": [0, 1, 2],
        "c": [1, [2]],
        "d": None,
        "e": [None, 0.5],
        "5": "x/y",
        "f": {"deep": True},
        "g": None,
        "h": True,
        "i": 7,
    }
    found = BenchmarkResult("latency", [1.0], given).to_dict()
    assert json.loads(json.dumps(found, allow_nan=False))["metadata"] == expected


def test_results_can_be_members_of_sets():
    one, same, other = (BenchmarkResult("latency", [value], {"unit": "ms"}) for value in (1.0, 1.0, 2.0))
    assert {one, same, other} == {one, other}
    assert hash(one) == hash(same)
