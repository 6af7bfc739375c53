"""Plain test functions and what their results say, for suites that declare no claims."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from perfclaims.codes import Reason, Verdict
from perfclaims.comparison import ComparisonResult
from perfclaims.gathering import explained, project_of


@dataclass(frozen=True, slots=True)
class PlainResult:
    """Result of a plain test function; `value` is what it returned."""

    verdict: Verdict
    reasons: tuple[Reason, ...]
    summary: str
    value: object = None


def plain_result(func: Callable[[], object]) -> PlainResult:
    """Call a test.

    True or None is a PASS, False a FAIL, a comparison a PASS when its `speedup_low` is above 1 and its
    outputs match, an AssertionError a FAIL, and any other exception an ERROR.
    """
    try:
        value = func()
    except AssertionError as error:
        return PlainResult(Verdict.FAIL, (Reason.NO_BENEFIT,), explained(error, project_of(func)))
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever it is, it is this test's ERROR
        return PlainResult(Verdict.ERROR, (Reason.RAISED,), explained(error, project_of(func)))
    if isinstance(value, ComparisonResult):
        return _comparison(value)
    if value is None or (isinstance(value, bool | np.bool_) and value):
        return PlainResult(Verdict.PASS, (), "it held", value)
    if isinstance(value, bool | np.bool_):
        return PlainResult(Verdict.FAIL, (Reason.NO_BENEFIT,), "it returned False", value)
    summary = f"expected True, False, None or a comparison, got {type(value).__name__}"
    return PlainResult(Verdict.ERROR, (Reason.EVIDENCE_MISSING,), summary, value)


def _comparison(value: ComparisonResult) -> PlainResult:
    if value.timing.arguments_changed:
        return PlainResult(Verdict.FAIL, (Reason.ARGUMENTS_CHANGED,), value.timing.arguments_changed, value)
    if value.outputs is not None and not value.outputs.matched:
        return PlainResult(Verdict.FAIL, (Reason.OUTPUTS_DIFFER,), value.outputs.message, value)
    if value.speedup_low > 1:
        return PlainResult(Verdict.PASS, (), str(value), value)
    reason = Reason.NO_BENEFIT if value.speedup_high < 1.1 else Reason.UNDECIDED
    return PlainResult(Verdict.FAIL, (reason,), str(value), value)
