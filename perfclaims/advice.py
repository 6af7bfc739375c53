"""What would decide a comparison that is too noisy to tell."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from perfclaims import wording
from perfclaims.activity import busy_warning
from perfclaims.evidence import Timing
from perfclaims.ratio import SYSTEMATIC, SYSTEMATIC_SINGLE, Ratio
from perfclaims.statistics import samples_needed

# An interval falls as one over the square root of the time: a hundred times the budget is no advice.
_MOST_TIMES_NARROWER = 10


@dataclass(frozen=True, slots=True)
class Advice:
    """What to do, in words, and the seconds a comparison to ask for where those would do."""

    text: str = ""
    budget_s: float | None = None


def what_would_decide(
    timing: Timing, ratio: Ratio, *, half_width: float, distance: float, unit: float
) -> Advice:
    """Say what to do about an interval that reaches across its threshold.

    Args:
        half_width: of that interval.
        distance: from the estimate to the threshold.
        unit: that of both: 1 for log ratios, or the time of a call.
    """
    if not math.isfinite(half_width):
        return Advice(_pairs_needed(timing))
    noise = f"the noise is {wording.percent(half_width / unit)} % (grade {ratio.noise_grade})"
    activity = timing.activity
    busy = None if activity is None else busy_warning(activity, threads=timing.threads)
    if busy is not None:
        return Advice(f"{noise}; {busy}")
    if timing.plan.rebuilt and ratio.half_width > ratio.instance_half_width:
        spread = max(ratio.instance_speedups) / min(ratio.instance_speedups) - 1
        layout = f"because instances differ by {wording.percent(spread)} % with their memory layout"
        return Advice(
            f"{noise}, {layout}; more time will not help, a threshold further from the measured value would"
        )
    floor = unit * (SYSTEMATIC if timing.plan.rebuilt else SYSTEMATIC_SINGLE)
    narrower = (half_width - floor) / (distance - floor) if distance > floor else math.inf
    if narrower > _MOST_TIMES_NARROWER:
        return Advice(f"{noise}; no budget would do, a threshold further from the measured value would")
    seconds = float(f"{max(timing.plan.budget_s, timing.pairing_s) * max(2.0, narrower**2):.2g}")
    would = f"a budget of about {wording.duration(seconds)} would do if the ratio stays there"
    return Advice(f"{noise}; {would}", seconds)


def noisiest(timings: Sequence[Timing], ratios: Sequence[Ratio]) -> tuple[Timing, Ratio]:
    """The comparison that contributes most to the noise of a mean."""
    return max(zip(timings, ratios, strict=True), key=lambda pair: pair[1].half_width)


def _pairs_needed(timing: Timing) -> str:
    plan, pairs = timing.plan, len(timing.samples)
    needed = samples_needed(1.0 - plan.final_alpha)
    seconds = wording.duration(needed * plan.pair_ns / 1e9)
    give = "pair gives" if pairs == 1 else "pairs give"
    return f"{pairs} {give} no interval, {needed} are needed, about {seconds}; raise the time limit"
