"""Tells whether a performance claim is true: paired timing, checked outputs, verdicts from intervals."""

from perfclaims.claims import Claim
from perfclaims.codes import Outcome, Reason, Verdict
from perfclaims.comparison import ComparisonResult, PerformanceComparator
from perfclaims.criteria import (
    AccuracyDrop,
    OutputsMatch,
    Overhead,
    ScalingExponent,
    SizeRatio,
    Speedup,
    Value,
)
from perfclaims.evidence import Evidence
from perfclaims.experiment import Experiment
from perfclaims.implementation import Implementation
from perfclaims.results import ClaimResult, ModuleResult
from perfclaims.suite import PerformanceTestSuite
from perfclaims.timing import Measurement, ScientificTimer
from perfclaims.verdicts import Judgement, judge
from perfclaims.workloads import WorkloadGenerator

__all__ = [
    "AccuracyDrop",
    "Claim",
    "ClaimResult",
    "ComparisonResult",
    "Evidence",
    "Experiment",
    "Implementation",
    "Judgement",
    "Measurement",
    "ModuleResult",
    "Outcome",
    "OutputsMatch",
    "Overhead",
    "PerformanceComparator",
    "PerformanceTestSuite",
    "Reason",
    "ScalingExponent",
    "ScientificTimer",
    "SizeRatio",
    "Speedup",
    "Value",
    "Verdict",
    "WorkloadGenerator",
    "judge",
]
