"""From durations at several sizes to the exponent of growth with its interval: pure functions."""

from __future__ import annotations

import math

import numpy as np

from perfclaims.evidence import Scaling
from perfclaims.statistics import Interval, hodges_lehmann_interval, log_log_slope

# A timed call is wrong by 0.1 % or so; over a factor of 2 in size that is 0.0015 in the exponent.
SYSTEMATIC = 0.001


def exponent_interval(scaling: Scaling) -> Interval:
    """Hodges-Lehmann estimate and interval over the slopes of log time on log size, one for each instance."""
    slopes = []
    for instance in range(scaling.instances):
        times = [_typical(scaling, instance, index) for index in range(len(scaling.sizes))]
        if all(math.isfinite(t) for t in times):
            slopes.append(log_log_slope(scaling.sizes, times))
    if not slopes:
        return Interval(math.nan, -math.inf, math.inf, 1.0, "no instance was timed at every size")
    found = hodges_lehmann_interval(slopes, scaling.confidence)
    error = SYSTEMATIC / math.log(max(scaling.sizes) / min(scaling.sizes))
    return Interval(found.estimate, found.low - error, found.high + error, found.confidence, found.warning)


def _typical(scaling: Scaling, instance: int, index: int) -> float:
    chosen = scaling.duration_ns[(scaling.instance == instance) & (scaling.size_index == index)]
    if not len(chosen):
        return math.nan
    # A clock that did not move must not make a logarithm infinite.
    return max(float(np.median(chosen)) / scaling.calls[index], 1e-3)
