"""Benchmarks of models side by side: latency, accuracy, memory and energy.

Models are measured interleaved, on the same inputs, with one thread and in evaluation mode, and one that
cannot be compared with the others is refused with the reason.
"""

from __future__ import annotations

from tinytorch.benchmarking.contenders import RefusedModel
from tinytorch.benchmarking.efficiency import counterexamples, efficiency_score
from tinytorch.benchmarking.measuring import Benchmark
from tinytorch.benchmarking.metrics import Comparison, RelativeMetrics
from tinytorch.benchmarking.results import BenchmarkResult
from tinytorch.benchmarking.suite import BenchmarkSuite

__all__ = [
    "Benchmark",
    "BenchmarkResult",
    "BenchmarkSuite",
    "Comparison",
    "RefusedModel",
    "RelativeMetrics",
    "counterexamples",
    "efficiency_score",
]
