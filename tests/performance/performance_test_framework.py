"""One import for the suites beside this file."""

from perfclaims import (
    AccuracyDrop,
    Claim,
    Experiment,
    Implementation,
    OutputsMatch,
    Overhead,
    PerformanceComparator,
    PerformanceTestSuite,
    ScalingExponent,
    ScientificTimer,
    SizeRatio,
    Speedup,
    Value,
    Verdict,
    WorkloadGenerator,
)

__all__ = [
    "AccuracyDrop",
    "Claim",
    "Experiment",
    "Implementation",
    "OutputsMatch",
    "Overhead",
    "PerformanceComparator",
    "PerformanceTestSuite",
    "ScalingExponent",
    "ScientificTimer",
    "SizeRatio",
    "Speedup",
    "Value",
    "Verdict",
    "WorkloadGenerator",
]
