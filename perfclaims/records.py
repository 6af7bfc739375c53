"""Claims and their results as entries of a run file, and claims and evidence read back from them."""

from __future__ import annotations

from typing import Any

from perfclaims.claims import Claim
from perfclaims.codec import DecodeError, decode, encode
from perfclaims.criteria import KINDS, Criterion
from perfclaims.evidence import Evidence
from perfclaims.findings import CriterionResult
from perfclaims.results import ClaimResult, ModuleResult


def claim_record(claim: Claim) -> dict[str, Any]:
    """A claim as it was declared."""
    return {
        "id": claim.id,
        "statement": claim.statement,
        "source": claim.source,
        "status": claim.status,
        "threads": claim.threads,
        "slow": claim.slow,
        "time_limit_s": claim.time_limit_s,
        "expected_s": claim.expected_s,
        "requires": [
            r if isinstance(r, str) else getattr(r, "__name__", "a condition") for r in claim.requires
        ],
        "criteria": [criterion_record(criterion) for criterion in claim.criteria],
    }


def criterion_record(criterion: Criterion) -> dict[str, Any]:
    """A criterion with all its thresholds."""
    return {
        "kind": criterion.kind,
        "label": criterion.label,
        "gate": criterion.gate,
        "thresholds": encode(criterion.thresholds),
    }


def read_claim(record: dict[str, Any]) -> Claim:
    """The claim in a record; of a condition that was a function, `requires` holds just the name.

    Raises:
        DecodeError: a criterion of unknown kind, or thresholds that make no sense.
    """
    try:
        criteria = [
            KINDS[c["kind"]](label=c["label"], gate=c["gate"], **c["thresholds"]) for c in record["criteria"]
        ]
        return Claim(
            record["id"],
            record["statement"],
            record["source"],
            criteria,
            record["status"],
            record["threads"],
            record["time_limit_s"],
            record["slow"],
            record["expected_s"],
            record["requires"],
        )
    except KeyError as error:
        raise DecodeError(f"{_claim(record)} cannot be read: {error} is missing or unknown") from None
    except (TypeError, ValueError) as error:
        raise DecodeError(f"{_claim(record)} cannot be read: {error}") from None


def _claim(record: Any) -> str:
    return f"claim {record['id']!r}" if isinstance(record, dict) and "id" in record else "a claim"


def result_record(result: ClaimResult) -> dict[str, Any]:
    """A claim with its verdict, its judged criteria and all its evidence."""
    judged = {id(r.criterion): _judged(r) for r in result.criteria}
    record = claim_record(result.claim)
    criteria = [
        {**declared, **judged.get(id(criterion), _NOT_JUDGED)}
        for declared, criterion in zip(record.pop("criteria"), result.claim.criteria, strict=True)
    ]
    return {
        **record,
        "verdict": result.verdict.value,
        "reasons": [reason.value for reason in result.reasons],
        "summary": result.summary,
        "duration_s": result.duration_s,
        "criteria": criteria,
        "evidence": encode(result.evidence),
    }


_NOT_JUDGED: dict[str, Any] = {
    "estimate": None,
    "low": None,
    "high": None,
    "unit": None,
    "outcome": None,
    "findings": [],
}


def _judged(result: CriterionResult) -> dict[str, Any]:
    if not result.findings:
        return _NOT_JUDGED
    found = result.decisive
    return {
        "estimate": found.estimate,
        "low": found.low,
        "high": found.high,
        "unit": found.unit,
        "outcome": found.outcome.value,
        "findings": [encode(f) for f in result.findings],
    }


def read_evidence(record: dict[str, Any]) -> Evidence:
    """The evidence in a claim's record.

    Raises:
        DecodeError: it is damaged, naming the place.
    """
    evidence: Evidence = decode(Evidence, record["evidence"], f"{_claim(record)}: evidence")
    return evidence


def module_record(module: ModuleResult, *, finished: bool) -> dict[str, Any]:
    """A module with its claims; its verdict is known once it is finished."""
    return {
        "module": module.module,
        "title": module.title,
        "verdict": module.verdict if finished else None,
        "duration_s": module.duration_s,
        "error": module.error,
        "claims": [result_record(result) for result in module.claims],
    }
