"""The words a verdict is made of: verdicts, outcomes of one criterion, and reason codes."""

from __future__ import annotations

from enum import StrEnum


class Verdict(StrEnum):
    """What is known of a claim; a `str`, so `verdict == "PASS"` holds."""

    PASS = "PASS"  # noqa: S105 - a verdict
    PARTIAL = "PARTIAL"
    FAIL = "FAIL"
    ERROR = "ERROR"
    NOT_APPLICABLE = "NOT_APPLICABLE"
    NOT_RUN = "NOT_RUN"


class Outcome(StrEnum):
    """Where the whole interval of a criterion lies: claimed side, other side, or across the threshold."""

    CONFIRMED = "confirmed"
    REFUTED = "refuted"
    INCONCLUSIVE = "inconclusive"


class Reason(StrEnum):
    """Why a verdict is not a plain PASS; machine-readable, stable from version to version."""

    OUTPUTS_DIFFER = "outputs-differ"
    OUTPUTS_NOT_CHECKED = "outputs-not-checked"
    OUTPUTS_DIFFER_ON_NEW_INPUTS = "outputs-differ-on-new-inputs"
    SLOWER_ON_NEW_INPUTS = "slower-on-new-inputs"
    ARGUMENTS_CHANGED = "arguments-changed"
    RETURNED_NOTHING = "returned-nothing"
    BELOW_THRESHOLD = "below-threshold"
    NO_BENEFIT = "no-benefit"
    ACCURACY_DROPPED = "accuracy-dropped"
    UNDECIDED = "undecided"
    SINGLE_INSTANCE = "single-instance"
    FINER_THAN_NOISE = "finer-than-noise"
    RAISED = "raised"
    TIMED_OUT = "timed-out"
    EVIDENCE_MISSING = "evidence-missing"
    CPU_FEATURE_MISSING = "cpu-feature-missing"
