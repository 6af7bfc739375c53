"""The verdict table of the design, with evidence whose truth is planted."""

import pytest
from evidence_factory import (
    STRICT,
    around,
    claim,
    differing,
    matching,
    number,
    outcomes,
    outputs,
    pairs,
    scaling,
    sizes,
    timing,
)

from perfclaims.codes import Outcome, Reason, Verdict
from perfclaims.criteria import (
    AccuracyDrop,
    OutputsMatch,
    Overhead,
    ScalingExponent,
    SizeRatio,
    Speedup,
    Value,
)
from perfclaims.evidence import Evidence, Missing, OutputCheck, Trouble
from perfclaims.outputs import Tolerance
from perfclaims.verdicts import judge

SAME = OutputsMatch()
NOISY = around(3.0, 0.2)
BYTES = sizes(9, 1)
BELOW = "below-threshold"
ONE = timing(around(1.01, 0.002, 40), single=True)
CHANGED = "the baseline implementation changed its arguments"


def judged(criteria, *pieces, **rest):
    """Verdict and reasons."""
    found = judge(claim(*criteria), Evidence(pieces, **rest))
    return found.verdict.value, [reason.value for reason in found.reasons]


def test_the_words_of_the_contract_are_stable():
    assert list(Verdict) == ["PASS", "PARTIAL", "FAIL", "ERROR", "NOT_APPLICABLE", "NOT_RUN"]
    assert list(Outcome) == ["confirmed", "refuted", "inconclusive"]
    assert list(Reason) == [
        "outputs-differ",
        "outputs-not-checked",
        "outputs-differ-on-new-inputs",
        "slower-on-new-inputs",
        "arguments-changed",
        "returned-nothing",
        "below-threshold",
        "no-benefit",
        "accuracy-dropped",
        "undecided",
        "single-instance",
        "finer-than-noise",
        "raised",
        "timed-out",
        "evidence-missing",
        "cpu-feature-missing",
    ]


@pytest.mark.parametrize(
    ("criteria", "pieces", "verdict", "reasons"),
    [
        # Everything confirmed.
        ([SAME, Speedup(2)], [timing(3.0)], "PASS", []),
        ([SizeRatio(3.8), AccuracyDrop(0.01)], [sizes(390, 100), outcomes(0, 0, 500)], "PASS", []),
        ([Value("x", at_least=1)], [number("x", 2.0)], "PASS", []),
        # Not all that is claimed, but worth having: 3x claimed, 2x measured.
        ([SAME, Speedup(3)], [timing(2.0)], "PARTIAL", ["below-threshold"]),
        ([SAME, Speedup(3)], [timing(NOISY)], "PARTIAL", ["undecided"]),
        ([SizeRatio(4)], [sizes(390, 100)], "PARTIAL", ["below-threshold"]),
        # One benefit confirmed, another missed or open.
        ([SizeRatio(2), SAME, Speedup(3)], [sizes(4, 1), timing(1.0)], "PARTIAL", ["below-threshold"]),
        ([Overhead(0.1), Value("x", 3)], [timing(1.0), number("x", 2)], "PARTIAL", ["below-threshold"]),
        # A gate that is open beside a confirmed benefit.
        ([SizeRatio(2), AccuracyDrop(0.01)], [sizes(4, 1), outcomes(0, 0, 20)], "PARTIAL", ["undecided"]),
        # No benefit: 3x claimed, 1.02x measured.
        ([SAME, Speedup(3)], [timing(1.02)], "FAIL", ["no-benefit"]),
        ([SAME, Speedup(3)], [timing(0.5)], "FAIL", ["no-benefit"]),
        ([SizeRatio(4)], [sizes(110, 100)], "FAIL", ["no-benefit"]),
        ([Value("x", at_least=3)], [number("x", 2)], "FAIL", ["no-benefit"]),
        # Worthwhile has no meaning for other kinds.
        ([Overhead(0.05)], [timing(0.5)], "FAIL", ["no-benefit"]),
        # Too noisy to tell is no refutation, and no benefit either.
        ([SAME, Speedup(3)], [timing(around(1.5, 1.5))], "FAIL", ["undecided"]),
        ([SAME, Speedup(1.02)], [timing(around(1.0, 0.1))], "FAIL", ["undecided", "finer-than-noise"]),
        ([SAME, Speedup(1.0)], [ONE], "FAIL", ["undecided", "single-instance"]),
        # The level of what is worthwhile is the author's.
        ([SAME, Speedup(3, worthwhile=2.5)], [timing(2.0)], "FAIL", ["no-benefit"]),
        ([SAME, Speedup(3, worthwhile=1.01)], [timing(1.05)], "PARTIAL", ["below-threshold"]),
        # Gates.
        ([SAME, Speedup(2)], [timing(9.0, checks=[differing()])], "FAIL", ["outputs-differ"]),
        ([SAME, Speedup(2)], [timing(9.0, checks=[differing(nothing=True)])], "FAIL", ["returned-nothing"]),
        (
            [SAME, Speedup(2)],
            [timing(9.0, fresh=9.0, checks=[differing(on_new=True)])],
            "FAIL",
            ["outputs-differ-on-new-inputs"],
        ),
        ([SAME, Speedup(2)], [timing(9.0, arguments_changed=CHANGED)], "FAIL", ["arguments-changed"]),
        ([SizeRatio(2), AccuracyDrop(0.01)], [BYTES, outcomes(99, 0, 900)], "FAIL", ["accuracy-dropped"]),
        ([SizeRatio(2), Value("x", equals=3)], [BYTES, number("x", 4)], "FAIL", ["below-threshold"]),
        ([SizeRatio(2), SAME, Speedup(2, gate=True)], [BYTES, timing(1.5)], "FAIL", ["below-threshold"]),
        # A claim of gates only.
        ([SAME], [outputs()], "PASS", []),
        ([Value("x", equals=3)], [number("x", 3)], "PASS", []),
        ([AccuracyDrop(0.01)], [outcomes(0, 0, 20)], "FAIL", ["undecided"]),
        ([SAME, Speedup(3, gate=True)], [timing(NOISY)], "FAIL", ["undecided"]),
        ([SAME, Speedup(3, gate=True)], [timing(2.0)], "FAIL", ["below-threshold"]),
        # New arguments.
        ([SAME, Speedup(2)], [timing(9.0, fresh=0.9)], "FAIL", ["slower-on-new-inputs", "no-benefit"]),
        ([SAME, Speedup(2)], [timing(9.0, fresh=1.5)], "PARTIAL", ["slower-on-new-inputs", BELOW]),
        ([SAME, Speedup(2)], [timing(2.2, fresh=1.9)], "PASS", []),
        ([SAME, Speedup(3)], [timing(2.0, fresh=0.9)], "FAIL", ["slower-on-new-inputs", "no-benefit"]),
        ([SAME, Speedup(3)], [timing(2.0, fresh=1.9)], "PARTIAL", ["below-threshold"]),
        # Without a comparison of outputs a speedup is PARTIAL at best.
        ([Speedup(2)], [timing(3.0)], "PARTIAL", ["outputs-not-checked"]),
        ([Speedup(2)], [timing(3.0, checks=[])], "PARTIAL", ["outputs-not-checked"]),
        ([Speedup(2, gate=True)], [timing(3.0)], "PARTIAL", ["outputs-not-checked"]),
        ([Speedup(3)], [timing(2.0)], "PARTIAL", ["outputs-not-checked", "below-threshold"]),
        ([Speedup(3)], [timing(0.5)], "FAIL", ["outputs-not-checked", "no-benefit"]),
        ([Speedup(2), SizeRatio(2)], [timing(3.0), sizes(4, 1)], "PARTIAL", ["outputs-not-checked"]),
        ([Speedup(2, over="geometric_mean")], [timing(3.0)], "PARTIAL", ["outputs-not-checked"]),
        # An overhead needs none.
        ([Overhead(0.05)], [timing(1.0, checks=[])], "PASS", []),
    ],
)
def test_the_table_of_verdicts(criteria, pieces, verdict, reasons):
    assert judged(criteria, *pieces) == (verdict, reasons)


def test_outputs_checked_elsewhere_do_not_count_for_a_speedup():
    other = [OutputsMatch(label="a"), Speedup(2, label="b")]
    pieces = [timing(3.0, label="a"), timing(3.0, label="b", checks=[])]
    assert judged(other, *pieces) == ("PARTIAL", ["outputs-not-checked"])
    apart = [OutputsMatch(label="apart"), Speedup(2)]
    assert judged(apart, outputs(label="apart"), timing(3.0)) == ("PARTIAL", ["outputs-not-checked"])
    same = [OutputsMatch(label="b"), Speedup(2, label="b")]
    assert judged(same, timing(3.0, label="a", checks=[]), timing(3.0, label="b")) == ("PASS", [])


def test_a_check_under_another_tolerance_or_of_nothing_is_no_check():
    for check in (matching(Tolerance(rtol=0.5)), OutputCheck(STRICT, None, None)):
        assert judged([SAME, Speedup(2)], timing(3.0, checks=[check])) == ("ERROR", ["evidence-missing"])


def test_a_piece_whose_outputs_were_not_compared_is_missing_evidence_beside_one_that_was():
    pieces = [timing(3.0, label="a"), timing(3.0, label="b", checks=[])]
    found = judge(claim(SAME, Speedup(2)), pieces)
    assert (found.verdict, found.reasons) == ("ERROR", (Reason.EVIDENCE_MISSING,))
    assert found.summary == f"b: the outputs were not compared under {STRICT.describe()}."


def test_all_labels_must_hold():
    pieces = [timing(3.0, label="small"), timing(1.5, label="large")]
    assert judged([SAME, Speedup(2)], *pieces) == ("PARTIAL", ["below-threshold"])
    assert judged([SAME, Speedup(2, label="small")], *pieces) == ("PASS", [])
    # Worthwhile means all of it, too.
    pieces = [timing(1.5, label="small"), timing(1.02, label="large")]
    assert judged([SAME, Speedup(2)], *pieces) == ("FAIL", ["no-benefit"])


def test_a_refuted_and_an_open_piece_give_both_reasons():
    pieces = [timing(1.0, label="a"), timing(around(2.0, 0.1), label="b")]
    assert judged([SAME, Speedup(2)], *pieces) == ("FAIL", ["no-benefit", "undecided"])
    assert judged([SAME, Speedup(2, gate=True)], *pieces) == ("FAIL", ["below-threshold", "undecided"])


class TestErrors:
    def test_nothing_measured(self):
        found = judge(claim(SAME, Speedup(2)), [])
        assert (found.verdict, found.reasons) == ("ERROR", (Reason.EVIDENCE_MISSING,))
        assert found.summary == (
            "OutputsMatch needs evidence of kind 'outputs', and there is none; call "
            "experiment.time(baseline, optimized) or experiment.outputs(expected, actual)."
        )

    @pytest.mark.parametrize(
        ("criterion", "needed", "calls"),
        [
            (
                Speedup(2, label="b"),
                "'timing' with label 'b', and there is none; there is evidence with label 'a'",
                "time(baseline, optimized, label='b')",
            ),
            (SizeRatio(2), "'sizes', and there is none", "sizes(baseline=..., optimized=...)"),
            (AccuracyDrop(), "'outcomes', and there is none", "outcomes(baseline=..., optimized=...)"),
            (ScalingExponent(1), "'scaling', and there is none", "scaling(build_for_size, sizes)"),
            (
                Value("y", at_least=1),
                "'value' named 'y', and there is none",
                "value('y', number) or experiment.rate('y', successes, trials)",
            ),
        ],
    )
    def test_evidence_of_which_a_criterion_got_none_is_named_with_the_calls_that_give_it(
        self, criterion, needed, calls
    ):
        found = judge(claim(criterion), [timing(2.0, label="a"), number("x", 3.0)])
        assert (found.verdict, found.reasons) == ("ERROR", (Reason.EVIDENCE_MISSING,))
        assert found.summary == f"{criterion.kind} needs evidence of kind {needed}; call experiment.{calls}."

    def test_what_failed_is_an_error_also_when_the_function_went_on(self):
        """The claim swallowed the exception of one size and measured another, which alone would pass."""
        pieces = [timing(9.0, label="small"), Missing("large", "timing 'large'", "MemoryError: 9 GB")]
        found = judge(claim(SAME, Speedup(2)), pieces)
        assert (found.verdict, found.reasons) == ("ERROR", (Reason.EVIDENCE_MISSING,))
        assert found.summary == "timing 'large' could not be measured: MemoryError: 9 GB."

    @pytest.mark.parametrize("reason", [Reason.RAISED, Reason.TIMED_OUT])
    def test_trouble_beats_whatever_was_measured(self, reason):
        trouble = Trouble(reason, "it broke")
        assert judged([SAME, Speedup(2)], timing(9.0), trouble=trouble) == ("ERROR", [reason.value])
        assert judged([SAME, Speedup(2)], timing(0.1), trouble=trouble) == ("ERROR", [reason.value])
        found = judge(claim(SAME, Speedup(2)), Evidence((timing(9.0),), trouble))
        assert found.criteria[1].outcome is Outcome.CONFIRMED
        assert found.summary == "it broke."

    def test_an_unfinished_comparison_is_no_evidence(self):
        found = judge(claim(SAME, Speedup(2)), [timing(9.0, label="n=4", last_round=None)])
        assert (found.verdict, found.reasons) == ("ERROR", (Reason.EVIDENCE_MISSING,))
        assert found.summary == "timing 'n=4' was not finished; raise the time limit."

    @pytest.mark.parametrize(
        ("criterion", "piece"),
        [
            (Speedup(2), timing(9.0, samples=pairs([]))),
            (Speedup(2, over="geometric_mean"), timing(9.0, samples=pairs([]))),
            (Overhead(0.1), timing(9.0, samples=pairs([]))),
            (ScalingExponent(at_most=2), scaling([], calls=())),
        ],
    )
    def test_nothing_timed_is_an_error_and_not_a_failure(self, criterion, piece):
        assert judged([criterion], piece) == ("ERROR", ["evidence-missing"])

    def test_a_comparison_that_ended_because_arguments_changed_is_a_failure_and_no_error(self):
        ended = timing(9.0, last_round=None, arguments_changed=CHANGED)
        assert judged([SAME, Speedup(2)], ended) == ("FAIL", ["arguments-changed"])


def test_what_cannot_apply_or_was_left_out_is_never_a_pass():
    found = judge(claim(SAME), Evidence(not_applicable="this CPU lacks avx2", cpu_feature_missing=True))
    assert (found.verdict, found.reasons) == ("NOT_APPLICABLE", (Reason.CPU_FEATURE_MISSING,))
    assert (found.summary, found.criteria) == ("this CPU lacks avx2.", ())
    found = judge(claim(SAME), Evidence(not_applicable="no numba here"))
    assert (found.verdict, found.reasons) == ("NOT_APPLICABLE", ())
    found = judge(claim(SAME), Evidence(not_run="left out of fast runs: it needs about 60 s"))
    assert (found.verdict, found.reasons) == ("NOT_RUN", ())
    assert found.summary == "left out of fast runs: it needs about 60 s."


def test_pieces_may_come_as_a_plain_sequence():
    assert judge(claim(SAME, Speedup(2)), (timing(3.0),)).verdict == Verdict.PASS


class TestSummary:
    def test_a_pass_says_what_was_measured_rather_than_that_outputs_match(self):
        found = judge(claim(SAME, Speedup(2)), [timing(3.0, label="n=4")])
        assert found.summary == "n=4: 3x [2.98, 3.02] against at least 2x."

    def test_a_failure_says_what_decided(self):
        found = judge(claim(SAME, SizeRatio(2), Speedup(2)), [timing(0.5), sizes(8, 2)])
        assert found.summary == "0.5x [0.498, 0.502] against at least 2x: slower than the baseline."

    def test_a_broken_gate_comes_first(self):
        found = judge(claim(Speedup(2), SAME), [timing(0.5, label="n=4", checks=[differing()])])
        assert found.summary == "n=4: the outputs do not agree: 3 of 64 elements differ."

    def test_a_missing_check_is_asked_for(self):
        found = judge(claim(Speedup(2)), [timing(3.0)])
        said = "but outputs were not compared; add OutputsMatch to the criteria."
        assert found.summary == f"3x [2.98, 3.02] against at least 2x, {said}"

    def test_an_open_question_says_what_would_decide_it(self):
        found = judge(claim(SAME, Speedup(1.02)), [timing(around(1.0, 0.1))])
        assert "too noisy to tell, not shown to be slower; the noise is" in found.summary
        assert "slower than the baseline" not in found.summary


def test_reasons_come_in_the_order_of_the_contract_and_once():
    pieces = [timing(2.5, label=name, fresh=1.2) for name in "abc"]
    found = judge(claim(Speedup(1.4)), pieces)
    assert found.reasons == (Reason.OUTPUTS_NOT_CHECKED, Reason.SLOWER_ON_NEW_INPUTS, Reason.BELOW_THRESHOLD)
