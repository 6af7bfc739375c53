"""What each kind of evidence says to its criterion, in numbers and in words."""

import math
import re
from dataclasses import replace

import numpy as np
import pytest
from evidence_factory import (
    around,
    differing,
    matching,
    number,
    outcomes,
    outputs,
    pairs,
    rate,
    scaling,
    sizes,
    timing,
)

from perfclaims.activity import Activity
from perfclaims.codes import Outcome, Reason
from perfclaims.criteria import (
    AccuracyDrop,
    Criterion,
    OutputsMatch,
    Overhead,
    ScalingExponent,
    SizeRatio,
    Speedup,
    Value,
)
from perfclaims.evaluation import evaluate
from perfclaims.evidence import Missing, OutputCheck, PairedSamples
from perfclaims.outputs import Tolerance
from perfclaims.paired_accuracy import accuracy_drop_interval

CONFIRMED, REFUTED, OPEN = Outcome.CONFIRMED, Outcome.REFUTED, Outcome.INCONCLUSIVE
CHANGED = "the optimised implementation changed its arguments"


def finding(criterion, *pieces):
    """The only finding of one criterion."""
    (found,) = evaluate(criterion, pieces).findings
    return found


class TestSpeedup:
    @pytest.mark.parametrize(
        ("measured", "claimed", "outcome"), [(2.5, 2.2, CONFIRMED), (1.9, 2.2, REFUTED), (2.2, 2.2, OPEN)]
    )
    def test_the_interval_is_compared_with_the_claim(self, measured, claimed, outcome):
        found = finding(Speedup(claimed), timing(measured))
        assert found.outcome is outcome
        assert found.low < found.estimate < found.high
        assert found.estimate == pytest.approx(measured, rel=1e-4)
        assert found.unit == "x"
        assert found.worthwhile

    def test_all_pieces_must_hold_and_the_worst_one_decides(self):
        result = evaluate(
            Speedup(2.0),
            [timing(3.0, label="a"), timing(1.5, label="b"), timing(1.2, label="c"), timing(2.0, label="d")],
        )
        assert [f.label for f in result.findings] == ["a", "b", "c", "d"]
        assert [f.outcome for f in result.findings] == [CONFIRMED, REFUTED, REFUTED, OPEN]
        assert result.decisive.label == "c"
        assert result.outcome is REFUTED
        assert result.worthwhile

    def test_an_undecided_piece_leaves_the_criterion_undecided_and_none_is_worthwhile_alone(self):
        result = evaluate(Speedup(2.0), [timing(3.0), timing(2.0), timing(2.5)])
        assert result.outcome is OPEN
        assert not evaluate(Speedup(2.0), [timing(3.0), timing(1.05)]).worthwhile

    def test_a_label_speaks_of_its_piece_alone(self):
        pieces = [timing(3.0, label="a"), timing(1.5, label="b")]
        assert evaluate(Speedup(2.0, label="a"), pieces).outcome is CONFIRMED
        assert evaluate(Speedup(2.0, label="b"), pieces).outcome is REFUTED
        assert evaluate(Speedup(2.0, label="c"), pieces).missing

    def test_memorised_answers_are_refuted_by_the_last_round(self):
        found = finding(Speedup(2.0), timing(50.0, fresh=0.8))
        assert found.outcome is REFUTED
        assert found.reasons == (Reason.SLOWER_ON_NEW_INPUTS,)
        assert found.estimate == pytest.approx(0.8, rel=1e-3)
        assert found.sentence == (
            "0.8x [0.7978, 0.8022] on arguments not seen before (50x [49.3, 50.7] on repeated ones) "
            "against at least 2x: slower than the baseline"
        )
        assert not found.worthwhile

    @pytest.mark.parametrize("fresh", [2.4, 5.0, [0.1]])
    def test_a_last_round_that_agrees_or_cannot_tell_refutes_nothing(self, fresh):
        assert finding(Speedup(2.0), timing(2.5, fresh=fresh)).outcome is CONFIRMED

    def test_changed_arguments_refute(self):
        found = finding(Speedup(2.0), timing(3.0, arguments_changed=CHANGED))
        assert (found.outcome, found.reasons, found.estimate) == (REFUTED, (Reason.ARGUMENTS_CHANGED,), None)
        assert CHANGED in found.sentence
        assert not found.worthwhile

    def test_one_instance_is_starred_and_decides_no_regression_margin(self):
        speedups = around(1.01, 0.003, 40)
        single = finding(Speedup(1.0), timing(speedups, single=True))
        assert single.outcome is OPEN
        assert single.reasons == (Reason.UNDECIDED, Reason.SINGLE_INSTANCE)
        assert "one instance, of one memory layout, decides nothing within 5 % of a tie" in single.sentence
        assert single.sentence.endswith(
            "pass Implementation(name, build), so that it is built anew in other layouts"
        )
        assert finding(Speedup(1.0), timing(1.01)).outcome is CONFIRMED
        assert finding(Speedup(1.0), timing(around(1.2, 0.003, 40), single=True)).outcome is CONFIRMED
        assert finding(Speedup(2.0), timing(around(2.2, 0.003, 40), single=True)).outcome is CONFIRMED

    def test_margins_finer_than_the_noise_are_named(self):
        found = finding(Speedup(1.005), timing(around(1.005, 0.04)))
        assert found.reasons == (Reason.UNDECIDED, Reason.FINER_THAN_NOISE)
        assert finding(Speedup(2.0), timing(around(2.0, 0.04))).reasons == (Reason.UNDECIDED,)

    def test_an_early_stopped_comparison_is_decided_by_the_range_of_all_instances(self):
        stopped = timing(around(2.0, 0.2), thresholds=(1.1, 1.5), looks=5, looks_taken=1, decided_early=True)
        for threshold, outcome in ((1.5, CONFIRMED), (1.1, CONFIRMED), (1.7, OPEN), (2.5, REFUTED)):
            found = finding(Speedup(threshold), stopped)
            assert found.outcome is outcome
            assert found.low == pytest.approx(2.0 * math.exp(-0.2), rel=0.01)
        # The final interval of the same samples would have decided this one: it was not earned.
        final = replace(stopped, decided_early=False)
        assert finding(Speedup(1.7), final).outcome is CONFIRMED

    def test_nothing_is_decided_without_an_interval(self):
        for measured in (timing(around(9.0, 0.01, 5)), timing(around(9.0, 0.01, 5), single=True)):
            found = finding(Speedup(2.0), measured)
            assert found.outcome is OPEN
            assert (found.low, found.high) == (0.0, None)
            assert found.measured == "9x [0, inf]"
            assert not found.worthwhile
        empty = finding(Speedup(2.0), timing(9.0, samples=pairs([])))
        assert (empty.outcome, empty.estimate) == (OPEN, None)


class TestWords:
    @pytest.mark.parametrize(
        ("measured", "claimed", "said"),
        [
            (timing(2.5), 2.2, r"^2.5x \[2.49, 2.51\] against at least 2.2x$"),
            (timing(0.8), 1.0, "against at least 1x: slower than the baseline$"),
            (timing(1.5), 2.2, "against at least 2.2x: faster, but by less$"),
            (timing(around(1.0, 0.03)), 1.2, "against at least 1.2x: not shown to be faster$"),
            (timing(around(1.0, 0.2)), 1.05, "1.05x: too noisy to tell, not shown to be slower; the noise"),
            (timing(around(2.2, 0.2)), 2.2, "2.2x: faster, but too noisy to tell by how much; the noise"),
            (timing(around(0.5, 0.2)), 0.5, "0.5x: slower, but too noisy to tell by how much; the noise"),
        ],
    )
    def test_slower_reads_differently_from_too_noisy_to_tell(self, measured, claimed, said):
        assert re.search(said, finding(Speedup(claimed), measured).sentence)

    def test_too_few_pairs_ask_for_time(self):
        found = finding(Speedup(2.0), timing(around(9.0, 0.01, 5), pair_ns=2e9))
        said = "15 pairs give no interval, 6 are needed, about 12 s; raise the time limit"
        assert found.sentence.endswith(said)

    def test_noise_within_instances_asks_for_a_budget(self):
        rng = np.random.default_rng(2)
        speedups = 1.02 * np.exp(rng.normal(0, 0.05, 400))
        columns = pairs(speedups, per_instance=1)
        instance = np.arange(400) % 10
        samples = PairedSamples(instance, columns.optimized_first, columns.baseline_ns, columns.optimized_ns)
        noisy = timing(1.02, samples=samples, pairing_s=1.0)
        sentence = finding(Speedup(1.01), noisy).sentence
        assert "the noise is" in sentence
        assert sentence.endswith("would do if the ratio stays there")
        assert "a budget of about" in sentence
        estimate = finding(Speedup(1.01), noisy).estimate
        assert finding(Speedup(estimate), noisy).sentence.endswith(
            "no budget would do, a threshold further from the measured value would"
        )

    def test_instances_that_differ_ask_for_another_threshold(self):
        rng = np.random.default_rng(3)
        speedups = np.tile(around(1.5, 0.2), 40) * np.exp(rng.normal(0, 0.001, 400))
        columns = pairs(speedups, per_instance=1)
        samples = PairedSamples(
            np.arange(400) % 10, columns.optimized_first, columns.baseline_ns, columns.optimized_ns
        )
        sentence = finding(Speedup(1.5), timing(1.5, samples=samples)).sentence
        said = "because instances differ by 49.2 % with their memory layout; more time will not help"
        assert said in sentence

    def test_a_busy_machine_is_named(self):
        busy = Activity(2.0, cpu_share=0.6, other_cpu=1.4, cores=2)
        sentence = finding(Speedup(2.0), timing(around(2.0, 0.04), activity=busy)).sentence
        assert "other programs kept 1.4 of 2 cores busy" in sentence
        assert sentence.endswith("rerun on an idle machine")

    def test_means_that_tell_another_story_are_told(self):
        slow = timing(2.0, per_instance=5)
        slow.samples.optimized_ns[:10] *= 40
        assert finding(Speedup(1.5), slow).sentence == (
            "2x [1.99, 2.01] (0.227x by mean times, which see rare slow calls) against at least 1.5x"
        )
        assert "by mean times" not in finding(Speedup(1.5), timing(2.0)).sentence


class TestGeometricMean:
    CRITERION = Speedup(2.0, over="geometric_mean")

    def test_it_may_hold_where_one_piece_does_not(self):
        found = finding(self.CRITERION, timing(1.2, label="a"), timing(5.0, label="b"))
        assert found.outcome is CONFIRMED
        assert found.estimate == pytest.approx(math.sqrt(6.0), rel=1e-4)
        assert found.label is None
        assert found.sentence.endswith("in geometric mean of 2 against at least 2x")

    def test_memorised_answers_are_refuted(self):
        found = finding(self.CRITERION, timing(9.0, fresh=1.0), timing(9.0, fresh=1.0), timing(2.0))
        assert (found.outcome, found.reasons) == (REFUTED, (Reason.SLOWER_ON_NEW_INPUTS,))
        assert found.estimate == pytest.approx(2.0 ** (1 / 3), rel=1e-3)

    def test_one_instance_decides_no_regression_margin_of_a_mean(self):
        near = [timing(around(1.02, 0.002, 40), single=True), timing(1.02)]
        found = finding(Speedup(1.0, over="geometric_mean"), *near)
        assert found.reasons == (Reason.UNDECIDED, Reason.SINGLE_INSTANCE)
        assert finding(Speedup(1.0, over="geometric_mean"), timing(1.02), timing(1.02)).outcome is CONFIRMED

    def test_changed_arguments_of_one_refute_all(self):
        found = finding(self.CRITERION, timing(9.0), timing(9.0, arguments_changed=CHANGED))
        assert found.reasons == (Reason.ARGUMENTS_CHANGED,)

    def test_an_undecided_mean_says_what_would_decide(self):
        sentence = finding(self.CRITERION, timing(around(2.0, 0.1)), timing(2.0)).sentence
        assert "too noisy to tell by how much; the noise is" in sentence
        few = finding(self.CRITERION, timing(around(9.0, 0.1, 5)), timing(9.0))
        assert few.outcome is OPEN
        assert "15 pairs give no interval" in few.sentence

    def test_without_a_comparison_the_evidence_is_missing(self):
        assert evaluate(self.CRITERION, [sizes(4, 1)]).missing


class TestOverhead:
    @pytest.mark.parametrize(
        ("added", "outcome"), [(0.03, CONFIRMED), (0.05, OPEN), (0.08, REFUTED), (-0.5, CONFIRMED)]
    )
    def test_added_time_as_a_fraction(self, added, outcome):
        found = finding(Overhead(0.05), timing(1 / (1 + added)))
        assert found.outcome is outcome
        assert found.estimate == pytest.approx(added, abs=1e-4)
        assert found.low < added < found.high
        assert found.unit == "fraction"

    @pytest.mark.parametrize(
        ("added_us", "limit_us", "outcome"),
        [(30, 50, CONFIRMED), (50, 50, OPEN), (80, 50, REFUTED), (-9, 50, CONFIRMED)],
    )
    def test_added_microseconds_per_call(self, added_us, limit_us, outcome):
        found = finding(Overhead(at_most_us=limit_us), timing(1000 / (1000 + added_us)))
        assert found.outcome is outcome
        assert found.estimate == pytest.approx(added_us, abs=0.1)
        assert found.low < added_us < found.high
        assert found.unit == "us"

    def test_it_is_read_in_percent_and_in_microseconds(self):
        found = finding(Overhead(0.1), timing([1 / 1.03] * 10))
        assert found.measured == "3 % [2.89, 3.11]"
        assert found.sentence == "3 % [2.89, 3.11] against at most 10 % more"
        found = finding(Overhead(at_most_us=20.0), timing([1 / 1.03] * 10))
        assert found.measured == "30 us [29, 31]"
        assert found.sentence == "30 us [29, 31] against at most 20 us more: more than that"

    def test_the_largest_of_several_decides(self):
        pieces = [timing(1 / 1.01, label="a"), timing(1 / 1.03, label="b"), timing(1 / 1.02, label="c")]
        assert evaluate(Overhead(0.05), pieces).decisive.label == "b"

    @pytest.mark.parametrize("criterion", [Overhead(0.05), Overhead(at_most_us=40.0)])
    def test_one_instance_decides_no_regression_margin(self, criterion):
        single = finding(criterion, timing(around(1 / 1.02, 0.002, 40), single=True))
        assert single.reasons == (Reason.UNDECIDED, Reason.SINGLE_INSTANCE)
        assert finding(criterion, timing(1 / 1.02)).outcome is CONFIRMED
        assert finding(criterion, timing(around(0.8, 0.002, 40), single=True)).outcome is REFUTED
        assert finding(criterion, timing(around(1.2, 0.002, 40), single=True)).outcome is CONFIRMED

    def test_one_instance_decides_about_microseconds_that_are_no_tie(self):
        """20 us more than a call of 100 us is far from a tie."""
        single = timing(around(100 / 110, 0.002, 40), single=True, baseline_ns=100_000)
        assert finding(Overhead(at_most_us=20.0), single).outcome is CONFIRMED

    @pytest.mark.parametrize("criterion", [Overhead(0.05), Overhead(at_most_us=50.0)])
    def test_an_overhead_that_only_new_arguments_show_refutes(self, criterion):
        found = finding(criterion, timing(1 / 1.01, fresh=1 / 1.5))
        assert (found.outcome, found.reasons) == (REFUTED, (Reason.SLOWER_ON_NEW_INPUTS,))
        assert "on arguments not seen before" in found.sentence
        assert finding(criterion, timing(1 / 1.01, fresh=1 / 1.02)).outcome is CONFIRMED

    def test_an_overhead_that_cold_caches_explain_is_told_and_does_not_refute(self):
        found = finding(Overhead(0.05), timing(1 / 1.03, fresh=1 / 1.1))
        assert (found.outcome, found.reasons) == (CONFIRMED, ())
        plain = finding(Overhead(0.05), timing(1 / 1.03, fresh=1 / 1.04))
        assert "not seen before" not in plain.sentence
        assert found.sentence == (
            "3 % [2.77, 3.23] (10 % [9.74, 10.3] on arguments not seen before) against at most 5 % more"
        )

    @pytest.mark.parametrize(
        ("criterion", "measured"),
        [(Overhead(0.05), "0 % [-100, inf]"), (Overhead(at_most_us=50.0), "0 us (no interval)")],
    )
    def test_nothing_is_decided_without_an_interval(self, criterion, measured):
        found = finding(criterion, timing(around(1.0, 0.001, 5)))
        assert (found.outcome, found.high, found.measured) == (OPEN, None, measured)
        assert "15 pairs give no interval" in found.sentence

    def test_too_noisy_says_so(self):
        found = finding(Overhead(0.05), timing(around(1 / 1.05, 0.1)))
        assert found.reasons == (Reason.UNDECIDED, Reason.FINER_THAN_NOISE)
        assert ": too noisy to tell; the noise is" in found.sentence


class TestOutputs:
    def test_all_evidence_with_outputs_is_looked_at(self):
        result = evaluate(OutputsMatch(), [timing(2.0, label="a"), sizes(2, 1), outputs(label="b")])
        assert [f.label for f in result.findings] == ["a", "b"]
        assert result.outcome is CONFIRMED
        assert result.decisive.sentence == "all 64 elements match"

    @pytest.mark.parametrize(
        ("piece", "reason", "said"),
        [
            (timing(2.0, checks=[differing()]), Reason.OUTPUTS_DIFFER, "the outputs do not agree: 3 of 64"),
            (outputs(differing()), Reason.OUTPUTS_DIFFER, "the outputs do not agree: 3 of 64"),
            (
                timing(2.0, fresh=2.0, checks=[differing(on_new=True)]),
                Reason.OUTPUTS_DIFFER_ON_NEW_INPUTS,
                "the outputs do not agree on arguments not seen before: 3 of 64",
            ),
            # Without arguments the last round sees no new ones.
            (timing(2.0, checks=[differing(on_new=True)]), Reason.OUTPUTS_DIFFER, "do not agree: 3 of 64"),
            (timing(2.0, checks=[differing(nothing=True)]), Reason.RETURNED_NOTHING, "nothing was returned"),
            (timing(2.0, arguments_changed=CHANGED), Reason.ARGUMENTS_CHANGED, CHANGED),
        ],
    )
    def test_what_is_wrong_has_a_reason(self, piece, reason, said):
        found = finding(OutputsMatch(), piece)
        assert (found.outcome, found.reasons) == (REFUTED, (reason,))
        assert said in found.sentence

    def test_one_bad_piece_among_good_ones_refutes(self):
        pieces = [timing(2.0, label="a"), timing(2.0, label="b", checks=[differing()])]
        result = evaluate(OutputsMatch(), pieces)
        assert result.outcome is REFUTED
        assert result.decisive.label == "b"

    def test_each_tolerance_has_its_own_check(self):
        loose = OutputsMatch(relative_l2=0.3)
        piece = timing(2.0, checks=[differing(), matching(loose.tolerance, relative_l2=0.1)])
        assert finding(OutputsMatch(), piece).outcome is REFUTED
        found = finding(loose, piece)
        assert (found.outcome, found.estimate) == (CONFIRMED, 0.1)

    @pytest.mark.parametrize(
        "checks", [[], [matching(Tolerance(rtol=0.5))], [OutputCheck(Tolerance(), None, None)]]
    )
    def test_one_piece_that_was_not_compared_is_missing_evidence_whatever_the_others_say(self, checks):
        result = evaluate(OutputsMatch(), [timing(2.0), timing(2.0, checks=checks)])
        assert result.missing
        assert result.outcome is OPEN
        tolerance = OutputsMatch().tolerance.describe()
        assert result.decisive.sentence == f"the outputs were not compared under {tolerance}"


class TestSizes:
    @pytest.mark.parametrize(
        ("baseline", "optimized", "outcome", "worthwhile"),
        [
            (400, 100, CONFIRMED, True),
            (399, 100, REFUTED, True),
            (110, 100, REFUTED, False),
            (111, 100, REFUTED, True),
        ],
    )
    def test_bytes_are_exact(self, baseline, optimized, outcome, worthwhile):
        found = finding(SizeRatio(4.0), sizes(baseline, optimized))
        assert (found.outcome, found.worthwhile) == (outcome, worthwhile)
        assert found.estimate == baseline / optimized
        assert (found.low, found.high) == (None, None)

    def test_words(self):
        assert finding(SizeRatio(4.0), sizes(400, 100)).sentence == "4x smaller: 400 bytes against 100"
        assert finding(SizeRatio(4.0), sizes(390, 100)).sentence == (
            "3.9x smaller: 390 bytes against 100, and at least 4x smaller is claimed"
        )
        assert finding(SizeRatio(4.0), sizes(390, 100)).measured == "3.9x"


class TestAccuracy:
    def test_the_exact_bound_decides(self):
        piece = outcomes(3, 1, 1797)
        interval = accuracy_drop_interval(piece.baseline, piece.optimized)
        found = finding(AccuracyDrop(0.01), piece)
        assert (found.outcome, found.estimate, found.low, found.high) == (
            CONFIRMED,
            2 / 1797,
            interval.low,
            interval.high,
        )
        assert finding(AccuracyDrop(interval.high), piece).outcome is CONFIRMED
        assert finding(AccuracyDrop(interval.high * 0.999), piece).outcome is OPEN

    def test_a_lost_accuracy_is_told_from_too_few_examples(self):
        lost = finding(AccuracyDrop(0.01), outcomes(100, 0, 1000))
        assert (lost.outcome, lost.reasons) == (REFUTED, (Reason.ACCURACY_DROPPED,))
        assert lost.sentence.startswith("10 points of accuracy lost, at most 11.")
        assert lost.sentence.endswith(", against at most 1 point lost")
        few = finding(AccuracyDrop(0.01), outcomes(0, 0, 20))
        assert (few.outcome, few.reasons) == (OPEN, (Reason.UNDECIDED,))
        assert few.estimate == 0.0
        assert "which does not show at most 1 point lost: about " in few.sentence
        assert few.sentence.endswith(" examples would, if the loss stays as it is")

    @pytest.mark.parametrize(
        ("lost", "gained", "n", "at_most"), [(0, 0, 20, 0.01), (20, 15, 1797, 0.006), (3, 2, 300, 0.01)]
    )
    def test_the_examples_it_asks_for_are_enough_and_not_many_too_many(self, lost, gained, n, at_most):
        def judged(scale):
            more = outcomes(round(lost * scale), round(gained * scale), round(n * scale))
            return finding(AccuracyDrop(at_most), more)

        assert judged(1).outcome is OPEN
        scale = float(judged(1).sentence.split("about ")[1].split(" examples")[0]) / n
        assert judged(scale * 1.02).outcome is CONFIRMED
        assert judged(scale * 0.6).outcome is OPEN

    def test_a_loss_that_stays_as_it_is_decides_against_the_claim(self):
        found = finding(AccuracyDrop(0.01), outcomes(3, 0, 200))
        assert found.outcome is OPEN
        said = "more examples would decide, against the claim if the loss stays as it is"
        assert found.sentence.endswith(said)


class TestScaling:
    @pytest.mark.parametrize(
        ("bounds", "outcome"),
        [
            ({"at_most": 2.2}, CONFIRMED),
            ({"at_least": 1.8}, CONFIRMED),
            ({"at_least": 1.8, "at_most": 2.2}, CONFIRMED),
            ({"at_most": 1.5}, REFUTED),
            ({"at_least": 2.5}, REFUTED),
            ({"at_least": 1.0, "at_most": 1.5}, REFUTED),
            ({"at_most": 2.0}, OPEN),
            ({"at_least": 2.0}, OPEN),
        ],
    )
    def test_the_exponent_lies_within_bounds(self, bounds, outcome):
        found = finding(ScalingExponent(**bounds), scaling(2.0))
        assert found.outcome is outcome
        assert found.estimate == pytest.approx(2.0, abs=1e-3)
        assert found.reasons == ((Reason.UNDECIDED,) if outcome is OPEN else ())

    def test_words(self):
        assert finding(ScalingExponent(at_most=2.2), scaling([2.0] * 10)).sentence == (
            "time grows as size to the power 2 [2, 2] against exponent at most 2.2"
        )
        assert finding(ScalingExponent(at_most=2.0), scaling(2.0)).sentence.endswith(
            "too noisy to tell: sizes further apart or a larger budget would decide"
        )

    def test_five_instances_are_no_interval_and_do_not_read_as_exact(self):
        found = finding(ScalingExponent(at_most=3), scaling([2.0] * 5))
        assert (found.outcome, found.low, found.high) == (OPEN, None, None)
        assert found.measured == "2 (no interval)"
        assert "too noisy to tell: 5 instances give no interval, 6 are needed; raise" in found.sentence


class TestValue:
    @pytest.mark.parametrize(
        ("criterion", "piece", "outcome"),
        [
            (Value("x", at_least=3), number("x", 3.0), CONFIRMED),
            (Value("x", at_least=3), number("x", 2.999), REFUTED),
            (Value("x", at_most=3), number("x", 3.0), CONFIRMED),
            (Value("x", at_least=1, at_most=3), number("x", 4.0), REFUTED),
            (Value("x", at_least=3), number("x", 4.0, low=3.5, high=4.5), CONFIRMED),
            (Value("x", at_least=3), number("x", 3.1, low=2.5, high=4.5), OPEN),
            (Value("x", at_most=3), number("x", 4.0, low=3.5, high=4.5), REFUTED),
            # One end alone leaves the other open.
            (Value("x", at_most=6), number("x", 5.0, low=4.0), OPEN),
            (Value("x", at_least=3), number("x", 5.0, low=4.0), CONFIRMED),
            (Value("x", at_least=3), number("x", 5.0, high=6.0), OPEN),
            (Value("x", at_least=7), number("x", 5.0, high=6.0), REFUTED),
            (Value("x", equals=3), number("x", 3.0), CONFIRMED),
            (Value("x", equals=3), number("x", 3.0000001), REFUTED),
            (Value("x", equals=True), number("x", 1.0), CONFIRMED),
            (Value("x", equals=3), number("x", 3.0, low=2.0, high=4.0), OPEN),
            (Value("x", equals=3), number("x", 5.0, low=4.0, high=6.0), REFUTED),
            (Value("x", equals=3), number("x", 3.0, low=3.0, high=3.0), CONFIRMED),
        ],
    )
    def test_numbers_with_and_without_an_interval(self, criterion, piece, outcome):
        found = finding(criterion, piece)
        assert found.outcome is outcome
        assert found.reasons == ((Reason.UNDECIDED,) if outcome is OPEN else ())

    def test_only_its_own_name_and_label_count(self):
        pieces = [number("x", 1.0), number("y", 9.0), number("x", 5.0, label="b"), sizes(9, 1)]
        assert len(evaluate(Value("x", at_least=3), pieces).findings) == 2
        assert evaluate(Value("x", at_least=3, label="b"), pieces).outcome is CONFIRMED
        assert evaluate(Value("z", at_least=3), pieces).missing

    def test_a_rate_follows_from_its_counts(self):
        piece = rate("right", 60, 60)
        found = finding(Value("right", at_least=0.9), piece)
        assert found.outcome is CONFIRMED
        assert found.low == pytest.approx(0.025 ** (1 / 60))
        lenient = replace(piece, confidence=0.5)
        assert finding(Value("right", at_least=0.9), lenient).low > found.low
        few = finding(Value("right", at_least=0.9), rate("right", 5, 5))
        assert few.outcome is OPEN
        assert few.sentence.endswith("which does not decide: more than 5 trials would")

    def test_words_keep_the_unit_of_the_author(self):
        found = finding(Value("share", at_most=3), number("share", 12.5, unit="%"))
        assert found.sentence == "share is 12.5 % against at most 3 %"
        assert found.measured == "12.5 %"
        wide = finding(Value("x", at_least=3), number("x", 4.0, low=3.5, high=4.5))
        assert wide.sentence == "x is 4 [3.5, 4.5]"


def test_evidence_of_other_kinds_is_not_looked_at():
    pieces = [Missing(None, "timing", "it raised")]
    criteria = [
        OutputsMatch(),
        Speedup(2),
        SizeRatio(2),
        AccuracyDrop(),
        ScalingExponent(at_most=2),
        Overhead(0.1),
        Value("x", equals=1),
    ]
    for criterion in criteria:
        result = evaluate(criterion, pieces)
        assert result.missing
        assert (result.outcome, result.worthwhile, result.decisive.estimate) == (OPEN, False, None)


def test_a_criterion_of_nobodys_is_an_error():
    with pytest.raises(TypeError, match="unknown criterion"):
        evaluate(Criterion(), [timing(2.0)])
