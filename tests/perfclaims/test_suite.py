"""Declaring claims and running them in this process; claims are of values, so that nothing is timed."""

import contextlib
import signal
import sys
import time

import numpy as np
import pytest

from perfclaims.codes import Reason, Verdict
from perfclaims.criteria import Speedup, Value
from perfclaims.experiment import NotApplicable
from perfclaims.loading import load_suite
from perfclaims.suite import PerformanceTestSuite

AT_LEAST_1 = [Value("x", at_least=1)]


@pytest.fixture
def suite():
    return PerformanceTestSuite("module_1_study", title="A study")


def run_one(suite, body, *, budget=0.05, **options):
    """The result of a claim with this body."""
    suite.claim("study.x", "x is at least 1", **{"criteria": AT_LEAST_1, **options})(body)
    (result,) = suite.run(budget).claims
    return result


# Declaring


@pytest.mark.parametrize("name", ["", "two words", "tab\t", None, 3])
def test_a_suite_needs_a_name_without_spaces(name):
    with pytest.raises(ValueError, match=r"`name` of a suite must be a non-empty string without spaces, got"):
        PerformanceTestSuite(name)


def test_claims_are_kept_in_the_order_of_their_declaration_and_functions_stay_what_they_are(suite):
    def body(experiment):
        """Nothing."""

    for name in ("b", "a", "c"):
        assert suite.claim(name, "s", criteria=AT_LEAST_1)(body) is body
    assert [claim.id for claim in suite.claims] == ["b", "a", "c"]
    assert PerformanceTestSuite("plain").title == "plain"


def test_an_id_is_declared_once(suite):
    suite.claim("a", "s", criteria=AT_LEAST_1)(lambda experiment: None)
    with pytest.raises(
        ValueError, match="claim 'a' is declared twice in suite 'module_1_study'; ids must be"
    ):
        suite.claim("a", "other", criteria=AT_LEAST_1)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"criteria": []}, "claim 'a' has no criteria: say what would make it true"),
        ({"criteria": ["fast"]}, "`criteria` of claim 'a' must be criteria such as Speedup, got 'fast'"),
        ({"statement": " "}, "`statement` of claim 'a' is empty"),
        ({"status": "ours"}, "`status` of claim 'a' must be 'asserted' or 'audited', got 'ours'"),
        ({"time_limit_s": 0}, "`time_limit_s` of claim 'a' must be a positive number or None, got 0"),
    ],
)
def test_a_declaration_that_makes_no_sense_is_refused_by_name(suite, arguments, said):
    with pytest.raises(ValueError, match=said):
        suite.claim("a", **{"statement": "s", "criteria": AT_LEAST_1, **arguments})


@pytest.mark.parametrize("threshold", [0, -2, "2", None, True, np.nan, np.inf])
def test_a_threshold_that_is_no_positive_number_is_refused(threshold):
    with pytest.raises(ValueError, match="`at_least` of Speedup must be a positive number, got"):
        Speedup(at_least=threshold)


def test_a_claim_decorates_something_that_can_be_called(suite):
    with pytest.raises(ValueError, match="claim 'a' must decorate a function of the experiment, got 3"):
        suite.claim("a", "s", criteria=AT_LEAST_1)(3)


# Running


def test_results_say_what_was_claimed_and_what_became_of_it(suite):
    suite.claim("a.pass", "first", source="a paper", criteria=AT_LEAST_1)(lambda e: e.value("x", 2))
    suite.claim("a.fail", "second", criteria=AT_LEAST_1, status="audited")(lambda e: e.value("x", 0.5))
    found = suite.run(0.05)
    assert (found.module, found.title, found.verdict) == ("module_1_study", "A study", "PASS")
    assert [(c.id, c.verdict, c.source, c.status) for c in found.claims] == [
        ("a.pass", "PASS", "a paper", "asserted"),
        ("a.fail", "FAIL", "", "audited"),
    ]
    assert found.claims[1].reasons == (Reason.NO_BENEFIT,)
    assert "0.5" in found.claims[1].summary


def test_only_those_chosen_by_id_or_pattern_are_run(suite):
    ran = []
    for name in ("a.1", "a.2", "b.1"):
        suite.claim(name, "s", criteria=AT_LEAST_1)(lambda e, name=name: (ran.append(name), e.value("x", 2)))
    assert [c.id for c in suite.run(0.05, only="a.*").claims] == ran == ["a.1", "a.2"]
    assert [c.id for c in suite.run(0.05, only=["b.1", "a.1"]).claims] == ["a.1", "b.1"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"budget": "quick"}, "`budget` must be one of"),
        ({"budget": -1}, "`budget` must be one of"),
        ({"only": "study.y"}, "unknown claim 'study.y'; the nearest are 'study.x'"),
        ({"seed": -1}, "`seed` must be an integer of zero or more, got -1"),
        ({"seed": True}, "`seed` must be an integer of zero or more, got True"),
        ({"seed": 1.5}, "`seed` must be an integer of zero or more, got 1.5"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_measured(suite, arguments, said):
    ran = []
    suite.claim("study.x", "s", criteria=AT_LEAST_1)(ran.append)
    with pytest.raises(ValueError, match=said):
        suite.run(**arguments)
    assert ran == []


def test_the_seed_reaches_the_claim_and_each_claim_has_numbers_of_its_own(suite):
    drawn = []
    for name in ("a", "b"):
        suite.claim(name, "s", criteria=AT_LEAST_1)(lambda e: drawn.append(e.rng.integers(2**60)))
    for seed in (0, 0, 1):
        suite.run(0.05, seed=seed)
    assert drawn[:2] == drawn[2:4]
    assert len(set(drawn)) == 4


def test_slow_claims_are_left_out_of_fast_runs_with_the_time_they_need(suite):
    def body(experiment):
        experiment.value("x", 2)

    left_out = run_one(suite, body, budget="fast", slow=True, expected_s=77)
    assert (left_out.verdict, left_out.ran) == (Verdict.NOT_RUN, False)
    assert left_out.summary == ("left out of fast runs: it needs about 77 s; run it with the normal budget.")
    assert suite.run("fast").verdict is None
    assert suite.run(0.05).claims[0].verdict == "PASS"


# What ends a claim


def test_a_claim_that_raises_is_an_error_that_says_where_in_its_own_file(suite):
    def helper():
        raise LookupError("no  such\nmodel")

    def body(experiment):
        experiment.value("x", 2)
        helper()

    result = run_one(suite, body)
    line = helper.__code__.co_firstlineno + 1
    assert (result.verdict, result.reasons) == (Verdict.ERROR, (Reason.RAISED,))
    assert result.summary == f"LookupError: no such model (at tests/perfclaims/test_suite.py:{line})."
    assert len(result.evidence.pieces) == 1


def test_an_error_in_the_harness_is_placed_at_the_line_that_called_it(suite):
    result = run_one(suite, lambda e: e.value("x", "two"))
    here = test_an_error_in_the_harness_is_placed_at_the_line_that_called_it.__code__.co_firstlineno
    assert result.summary.endswith(f"got 'two' (at tests/perfclaims/test_suite.py:{here + 1}).")


def test_leaving_the_program_is_an_error_of_the_claim_alone(suite):
    assert run_one(suite, lambda e: sys.exit(3)).summary.startswith("SystemExit: 3 (at ")


def test_ctrl_c_is_no_claims_error(suite):
    def body(experiment):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_one(suite, body)


def test_a_claim_that_does_not_end_is_stopped_at_its_limit_though_it_swallows_exceptions(suite):
    def body(experiment):
        experiment.value("x", 2)
        while True:
            with contextlib.suppress(Exception):
                time.sleep(60)

    before = signal.getsignal(signal.SIGALRM)
    result = run_one(suite, body, time_limit_s=0.05)
    line = body.__code__.co_firstlineno + 4
    assert (result.verdict, result.reasons) == (Verdict.ERROR, (Reason.TIMED_OUT,))
    assert f"limit of 0.05 s, at tests/perfclaims/test_suite.py:{line}; raise" in result.summary
    assert len(result.evidence.pieces) == 1
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_a_claim_that_ends_in_time_leaves_no_alarm_behind(suite):
    assert run_one(suite, lambda e: e.value("x", 2), time_limit_s=60).verdict == "PASS"
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_nothing_measured_is_an_error(suite):
    assert run_one(suite, lambda e: None).reasons == (Reason.EVIDENCE_MISSING,)


# What a claim requires


def test_a_missing_cpu_feature_makes_a_claim_not_applicable(suite):
    result = run_one(suite, lambda e: e.value("x", 2), requires=("no_such_flag",))
    assert (result.verdict, result.reasons) == (Verdict.NOT_APPLICABLE, (Reason.CPU_FEATURE_MISSING,))
    assert "no_such_flag" in result.summary


def test_a_condition_gives_its_reason_and_the_claim_is_not_called(suite):
    ran = []
    result = run_one(suite, ran.append, requires=[lambda: None, lambda: "needs two machines"])
    assert (result.verdict, result.summary, ran) == (Verdict.NOT_APPLICABLE, "needs two machines.", [])


def test_conditions_that_are_met_let_a_claim_run(suite):
    assert run_one(suite, lambda e: e.value("x", 2), requires=[lambda: None]).verdict == "PASS"


@pytest.mark.parametrize("answer", [True, False, 0, ["reason"]])
def test_a_condition_that_gives_no_words_is_an_error_and_hides_no_claim(suite, answer):
    def has_numba():
        return answer

    result = run_one(suite, lambda e: e.value("x", 2), requires=[has_numba])
    assert result.verdict is Verdict.ERROR
    assert "requirement 'has_numba' must return None or the reason in words, got" in result.summary


def test_a_condition_that_raises_or_hangs_is_an_error(suite):
    assert run_one(suite, lambda e: None, requires=[lambda: 1 / 0]).summary.startswith("ZeroDivisionError")
    other = PerformanceTestSuite("other")
    slow = run_one(other, lambda e: None, requires=[lambda: time.sleep(60)], time_limit_s=0.05)
    assert slow.reasons == (Reason.TIMED_OUT,)


def test_a_claim_can_find_out_by_itself_that_it_does_not_apply(suite):
    def body(experiment):
        try:
            experiment.not_applicable("no data set here")
        except Exception:  # noqa: BLE001
            experiment.value("x", 2)

    assert run_one(suite, body).verdict is Verdict.NOT_APPLICABLE


# From a terminal


def test_a_claim_that_measured_something_cannot_be_withdrawn_by_raising(suite):
    def body(experiment):
        experiment.value("x", 0.5)
        raise NotApplicable("0.5 does not count here")

    result = run_one(suite, body)
    assert (result.verdict, result.reasons) == (Verdict.ERROR, (Reason.RAISED,))
    assert "which it would hide: 0.5 does not count here" in result.summary


def test_a_suite_file_that_runs_when_it_is_imported_is_told_what_to_write(tmp_path):
    path = tmp_path / "test_it.py"
    made = "from perfclaims import PerformanceTestSuite\nsuite = PerformanceTestSuite('it')\nsuite.main()\n"
    path.write_text(made)
    with pytest.raises(RuntimeError) as caught:
        load_suite(path)
    assert str(caught.value) == (
        "suite.main() was called while 'test_it.py' is imported; put it under `if __name__ == \"__main__\":`"
    )


def test_a_suite_without_a_file_says_how_to_run_it_instead(suite, monkeypatch):
    monkeypatch.delattr(sys.modules["__main__"], "__file__", raising=False)
    with pytest.raises(RuntimeError, match=r"in an interactive session call suite\.run\(\)"):
        suite.main()
