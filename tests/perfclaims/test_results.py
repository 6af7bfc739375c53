"""How verdicts of claims add up to those of modules and runs, and to exit codes."""

from itertools import product

import pytest
from evidence_factory import claim, module, number, result, timing

from perfclaims.codes import Verdict
from perfclaims.criteria import OutputsMatch, Speedup, Value
from perfclaims.evidence import Trouble
from perfclaims.results import combined, exit_code, run_verdict

EVIDENCE = {
    Verdict.PASS: {"pieces": [number("x", 3.0), number("y", 3.0)]},
    Verdict.PARTIAL: {"pieces": [number("x", 3.0), number("y", 1.0)]},
    Verdict.FAIL: {"pieces": [number("x", 1.0), number("y", 1.0)]},
    Verdict.ERROR: {"pieces": [], "trouble": Trouble("raised", "it broke")},
    Verdict.NOT_APPLICABLE: {"pieces": [], "not_applicable": "no such CPU"},
    Verdict.NOT_RUN: {"pieces": [], "not_run": "it needs 60 s"},
}


def of(verdict, status="asserted"):
    """A claim's result with this verdict."""
    evidence = dict(EVIDENCE[verdict])
    declared = claim(Value("x", at_least=2), Value("y", at_least=2), id=f"a.{verdict}", status=status)
    made = result(declared, *evidence.pop("pieces"), **evidence)
    assert made.verdict is verdict
    return made


PASS, PARTIAL, FAIL, ERROR = (of(v) for v in (Verdict.PASS, Verdict.PARTIAL, Verdict.FAIL, Verdict.ERROR))
SKIPPED, LEFT_OUT = of(Verdict.NOT_APPLICABLE), of(Verdict.NOT_RUN)
FALSE_CLAIM, BROKEN_AUDIT = of(Verdict.FAIL, "audited"), of(Verdict.ERROR, "audited")
TRUE_CLAIM = of(Verdict.PASS, "audited")


@pytest.mark.parametrize(
    ("results", "verdict", "code"),
    [
        ([PASS, PASS], "PASS", 0),
        ([PASS, SKIPPED, LEFT_OUT, FALSE_CLAIM], "PASS", 0),
        ([PASS, PARTIAL], "PARTIAL", 3),
        ([PARTIAL], "PARTIAL", 3),
        ([PASS, FAIL], "PARTIAL", 1),
        ([PARTIAL, FAIL], "PARTIAL", 1),
        ([FAIL], "FAIL", 1),
        ([FAIL, FAIL, SKIPPED], "FAIL", 1),
        ([PASS, ERROR], "ERROR", 2),
        ([FAIL, ERROR], "ERROR", 2),
        ([PASS, BROKEN_AUDIT], "ERROR", 2),
        # Nothing was measured that the project asserts.
        ([], None, 2),
        ([SKIPPED, LEFT_OUT], None, 2),
        ([TRUE_CLAIM, FALSE_CLAIM], None, 2),
        ([BROKEN_AUDIT], "ERROR", 2),
    ],
)
def test_asserted_claims_that_ran_count_and_errors_count_wherever_they_are(results, verdict, code):
    assert combined(results) == verdict
    assert module(*results).verdict == verdict
    assert run_verdict([module(*results)]) == verdict
    assert exit_code([module(*results)]) == code
    # The same claims in modules of their own give the same run.
    apart = [module(r, name=f"m{i}") for i, r in enumerate(results)]
    assert (run_verdict(apart), exit_code(apart)) == (verdict, code)


def test_a_suite_that_could_not_be_loaded_is_an_error_of_the_run():
    broken = module(name="broken", error="no such file")
    assert broken.verdict is Verdict.ERROR
    assert run_verdict([module(PASS), broken]) is Verdict.ERROR
    assert exit_code([module(PASS), broken]) == 2


def test_only_asserted_claims_fail_a_run_and_the_order_of_claims_does_not_matter():
    kinds = (PASS, PARTIAL, FAIL, ERROR, FALSE_CLAIM, SKIPPED)
    for first, second in product(kinds, kinds):
        assert exit_code([module(first, second)]) == exit_code([module(second, first)])
    assert exit_code([module(PASS, FALSE_CLAIM)]) == 0
    assert exit_code([module(PARTIAL, FALSE_CLAIM)]) == 3


def test_a_result_shows_its_claim_and_whether_it_ran():
    made = result(claim(OutputsMatch(), Speedup(2), id="a.b"), timing(3.0))
    assert (made.id, made.statement, made.source, made.status) == (
        "a.b",
        "It is as good as they say",
        "a paper",
        "asserted",
    )
    assert made.verdict == "PASS"
    assert made.duration_s == 0.25
    assert [r.ran for r in (PASS, PARTIAL, FAIL, ERROR, SKIPPED, LEFT_OUT)] == [True] * 4 + [False] * 2
