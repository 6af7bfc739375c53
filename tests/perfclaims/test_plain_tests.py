"""Plain test functions: what they return or raise, and the verdict that it means."""

import numpy as np
import pytest
from evidence_factory import differing, timing

from perfclaims.codes import Reason, Verdict
from perfclaims.comparison import summarise
from perfclaims.suite import PerformanceTestSuite


def verdict_of(test):
    """The result of one test."""
    return PerformanceTestSuite("s").run_module_tests("module", {"test": test})["test"]


@pytest.mark.parametrize("value", [True, None, np.True_])
def test_true_and_none_pass(value):
    result = verdict_of(lambda: value)
    assert (result.verdict, result.reasons) == (Verdict.PASS, ())


@pytest.mark.parametrize("value", [False, np.False_])
def test_false_fails(value):
    assert verdict_of(lambda: value).verdict == "FAIL"


@pytest.mark.parametrize("value", [1, 0, "PASS", [], {"passed": True}])
def test_anything_else_is_an_error_and_not_a_pass(value):
    result = verdict_of(lambda: value)
    assert (result.verdict, result.reasons) == (Verdict.ERROR, (Reason.EVIDENCE_MISSING,))
    assert type(value).__name__ in result.summary


def test_an_assertion_fails_and_other_exceptions_are_errors_with_their_place():
    def wrong():
        raise AssertionError("too slow")

    def broken():
        return 1 / 0

    failed, error = verdict_of(wrong), verdict_of(broken)
    line = wrong.__code__.co_firstlineno + 1
    assert failed.verdict == "FAIL"
    assert failed.summary == f"AssertionError: too slow (at tests/perfclaims/test_plain_tests.py:{line})"
    assert (error.verdict, error.reasons) == (Verdict.ERROR, (Reason.RAISED,))
    assert error.summary.startswith("ZeroDivisionError")


def test_leaving_the_program_ends_one_test_only():
    def leaves():
        raise SystemExit(0)

    results = PerformanceTestSuite("s").run_module_tests("module", {"a": leaves, "b": lambda: True})
    assert [r.verdict for r in results.values()] == ["ERROR", "PASS"]


@pytest.mark.parametrize(("speedup", "verdict"), [(2.0, "PASS"), (1.0, "FAIL"), (0.5, "FAIL")])
def test_a_comparison_passes_when_its_whole_interval_is_above_one(speedup, verdict):
    comparison = summarise(timing(speedup))
    result = verdict_of(lambda: comparison)
    assert result.verdict == verdict
    assert result.value is comparison
    assert "against loops" in result.summary


def test_a_comparison_that_is_faster_because_it_is_wrong_fails():
    result = verdict_of(lambda: summarise(timing(5.0, checks=[differing()])))
    assert (result.verdict, result.reasons) == (Verdict.FAIL, (Reason.OUTPUTS_DIFFER,))
    changed = verdict_of(lambda: summarise(timing(5.0, arguments_changed="it changed its arguments")))
    assert (changed.verdict, changed.reasons) == (Verdict.FAIL, (Reason.ARGUMENTS_CHANGED,))


@pytest.mark.parametrize(
    ("name", "tests", "said"),
    [
        ("", {}, "`name` must be a non-empty string, got ''"),
        (None, {}, "`name` must be a non-empty string, got None"),
        ("m", [print], "`tests` of 'm' must map names to functions, got"),
        ("m", {"a": lambda: True, "b": 3}, "test 'b' of 'm' must be callable, got 3"),
    ],
)
def test_wrong_arguments_are_refused_before_any_test_runs(name, tests, said):
    with pytest.raises(ValueError, match=said):
        PerformanceTestSuite("s").run_module_tests(name, tests)
