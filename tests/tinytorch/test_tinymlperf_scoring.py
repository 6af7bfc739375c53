"""Scores from logs: nothing is measured here, so every figure has a closed form."""

import math
from itertools import product

import numpy as np
import pytest
from tinymlperf_stand_ins import log_of, phase

from tinytorch.benchmarking.tinymlperf.events import EVENTS
from tinytorch.benchmarking.tinymlperf.processes import Refused
from tinytorch.benchmarking.tinymlperf.scenarios import (
    GENERATE,
    OFFLINE,
    SINGLE_STREAM,
    Settings,
    fewest_values,
    upper_percentile,
)
from tinytorch.benchmarking.tinymlperf.scoring import check_outputs, quality_of, scores_of

MLP = EVENTS["mlp_sprint"]


class TestPercentiles:
    @pytest.mark.parametrize(
        ("share", "count", "place"), [(0.9, 10, 9), (0.9, 100, 90), (0.55, 100, 55), (0.5, 5, 3), (0.9, 1, 1)]
    )
    def test_the_estimate_is_the_smallest_that_enough_values_do_not_exceed(self, share, count, place):
        values = np.random.default_rng(0).permutation(np.arange(1, count + 1))
        assert upper_percentile(values, share).estimate == place

    def test_few_values_have_no_bound_and_more_have_a_closer_one(self):
        assert fewest_values() == 29
        assert upper_percentile(range(28)).bound is None
        assert upper_percentile(range(29)).bound == 28
        places = [upper_percentile(range(1, n + 1)).bound / n for n in (29, 100, 1000, 10_000)]
        assert places == sorted(places, reverse=True)
        assert places[-1] < 0.906

    @pytest.mark.parametrize("count", [30, 47, 100])
    def test_the_bound_is_the_first_that_is_sure_by_brute_force(self, count):
        bound = int(upper_percentile(range(1, count + 1)).bound)

        def below(k):
            return sum(math.comb(count, i) * 0.9**i * 0.1 ** (count - i) for i in range(k))

        assert below(bound) >= 0.95 > below(bound - 1)

    def test_the_bound_holds_as_often_as_it_says(self):
        rng, truth = np.random.default_rng(0), -math.log(0.1)
        held = sum(upper_percentile(rng.exponential(size=60)).bound >= truth for _ in range(2000))
        assert held / 2000 > 0.94

    @pytest.mark.parametrize("values", [[], [1.0, float("nan")], [float("inf")]])
    def test_values_must_be_there_and_finite(self, values):
        with pytest.raises(ValueError, match="`values` must"):
            upper_percentile(values)

    @pytest.mark.parametrize("share", [0, 1, -0.5, 2])
    def test_a_share_lies_between_none_and_all(self, share):
        with pytest.raises(ValueError, match="`share` must lie between 0 and 1"):
            upper_percentile([1.0], share)


class TestSettings:
    @pytest.mark.parametrize(
        ("name", "value"),
        [
            *product(("min_duration_s", "call_limit_s"), (0, -1, float("nan"), "1")),
            *product(("sittings", "min_rounds", "memory_limit_mb"), (0, -1, 1.5, True)),
        ],
    )
    def test_everything_is_positive(self, name, value):
        with pytest.raises(ValueError, match=f"`{name}` must be a positive"):
            Settings(**{name: value})


class TestRatios:
    def test_the_ratio_is_the_references_time_by_the_submissions(self):
        for score in scores_of(MLP, log_of([2.0] * 6)):
            assert (score.ratio.low, score.ratio.estimate, score.ratio.high) == pytest.approx((2, 2, 2))

    def test_the_interval_spans_what_sittings_differ_by(self):
        score = scores_of(MLP, log_of([1.9, 2.0, 2.1, 2.0, 1.95, 2.05]))[0]
        assert score.ratio.low == pytest.approx(1.9)
        assert score.ratio.high == pytest.approx(2.1)
        assert score.ratio.estimate == pytest.approx(2.0, rel=0.01)

    def test_single_stream_looks_at_the_slow_queries_and_offline_at_all(self):
        slow = [[10_000] * 8 + [100_000] * 2] * 3
        log = log_of([1.0] * 6)
        for sitting in log["sittings"]:
            sitting["single-stream"] = phase([[10_000] * 10] * 3, slow)
            sitting["offline"] = phase([[10_000] * 10] * 3, slow)
        ratios = {score.scenario: score.ratio.estimate for score in scores_of(MLP, log)}
        assert ratios == pytest.approx({"single-stream": 10, "offline": 2.8})

    def test_one_disturbed_round_changes_no_ratio(self):
        log = log_of([1.5] * 6)
        log["sittings"][0]["offline"]["submission_ns"] = [[100_000] * 10, [100_000] * 10, [10**9] * 10]
        assert scores_of(MLP, log)[1].ratio.estimate == pytest.approx(1.5)

    def test_latency_comes_with_its_bound_and_throughput_counts_examples(self):
        single, offline = scores_of(MLP, log_of([1.0] * 6))
        assert single.latency_ms.estimate == pytest.approx(0.1)
        assert single.latency_ms.bound == pytest.approx(0.1)
        assert single.throughput_per_s is None
        assert offline.latency_ms is None
        assert offline.throughput_per_s == pytest.approx(OFFLINE.batch / 1e-4)
        assert single.duration_s == 6

    def test_few_sittings_have_no_interval_and_so_no_rank(self):
        with pytest.raises(Refused, match="5 sittings have no interval at 95 %: measure at least 6"):
            scores_of(MLP, log_of([2.0] * 5))

    def test_a_missing_scenario_is_named(self):
        log = log_of([2.0] * 6)
        del log["sittings"][3]["offline"]
        with pytest.raises(Refused, match="a sitting lacks the scenario offline"):
            scores_of(MLP, log)


class TestOutputsOfTimedQueries:
    def check(self, given, expected, scenario=SINGLE_STREAM, event=MLP):
        check_outputs(event, scenario, [phase([[1]], [[1]], losses=(given, expected))])

    def test_what_chance_does_is_allowed(self):
        self.check([1, 0, 0, 0] * 25, [0, 1, 0, 0] * 25)
        self.check([1] + [0] * 99, [0] * 100)

    def test_wrong_answers_are_not(self):
        with pytest.raises(Refused, match=r"while it is timed \(single-stream\) are worse"):
            self.check([1, 0] * 50, [0] * 100)

    def test_more_examples_leave_less_to_chance(self):
        share = [1] * 6 + [0] * 94
        self.check(share, [0] * 100)
        with pytest.raises(Refused, match="are worse"):
            self.check(share * 20, [0] * 2000)

    def test_texts_may_differ_in_a_tenth_of_the_tokens(self):
        text = EVENTS["transformer_decathlon"]
        self.check([0.1] * 50, [0.0] * 50, GENERATE, text)
        with pytest.raises(Refused, match="are worse"):
            self.check([0.3] * 50, [0.0] * 50, GENERATE, text)

    def test_missing_and_infinite_losses_are_refused(self):
        with pytest.raises(Refused, match="lacks outputs"):
            self.check([0.0], [0.0, 0.0])
        with pytest.raises(Refused, match="lacks outputs"):
            self.check([], [])
        with np.errstate(invalid="ignore"), pytest.raises(Refused, match="are worse"):
            self.check([math.nan], [0.0])


class TestQuality:
    def test_the_floor_comes_from_the_reference_on_the_same_inputs(self):
        wrong = log_of([1.0] * 6, accuracy=([1] * 3 + [0] * 97, [1] + [0] * 99))
        quality = quality_of(MLP, wrong)
        assert (quality.submission, quality.reference) == pytest.approx((0.97, 0.99))
        assert quality.floor == pytest.approx(0.9801)
        assert not quality.met

    def test_bits_are_kept_as_bits(self):
        quality = quality_of(
            EVENTS["transformer_decathlon"], log_of([1.0] * 6, accuracy=([2.01] * 4, [2.0] * 4))
        )
        assert quality.submission == pytest.approx(2.01)
        assert quality.met

    def test_no_accuracy_run_is_no_quality(self):
        with pytest.raises(Refused, match="no accuracy run"):
            quality_of(MLP, log_of([1.0] * 6, accuracy=([], [])))
