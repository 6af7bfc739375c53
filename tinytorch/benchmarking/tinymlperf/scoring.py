"""What follows from the log of a run: quality, ratios with intervals, latencies; nothing is measured here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinytorch.benchmarking.statistics import Interval, location_interval
from tinytorch.benchmarking.tinymlperf.clocks import Times, check_clock, counted_times
from tinytorch.benchmarking.tinymlperf.events import Event
from tinytorch.benchmarking.tinymlperf.processes import Refused
from tinytorch.benchmarking.tinymlperf.scenarios import (
    FEWEST_SITTINGS,
    Percentile,
    Scenario,
    upper_percentile,
)

# Greedy texts of a quantized model differ from the reference's in some percent of the tokens.
_TEXT_DISAGREEMENT = 0.1
_SURE = 3.0  # standard errors


@dataclass(frozen=True, slots=True)
class Score:
    """How fast a submission is in one scenario.

    Attributes:
        scenario: its name.
        ratio: the reference model's time divided by the submission's, with its 95 % interval over sittings;
            both as `clocks.counted_times` has them, as all figures here.
        latency_ms: the 90th percentile of all queries with its bound, for single-stream.
        throughput_per_s: examples or, for texts to be continued, texts per second, for offline.
        duration_s: how long was measured.
    """

    scenario: str
    ratio: Interval
    latency_ms: Percentile | None
    throughput_per_s: float | None
    duration_s: float


@dataclass(frozen=True, slots=True)
class Quality:
    """Quality on the same fresh inputs: of the submission, of the reference model, and what is asked."""

    submission: float
    reference: float
    floor: float
    met: bool


def quality_of(event: Event, log: Mapping[str, Any]) -> Quality:
    """Return the quality of an accuracy run.

    Raises:
        Refused: the log has none.
    """
    given, expected = (_mean(log["accuracy"][side]) for side in ("submission", "reference"))
    if not event.is_text:
        given, expected = 1 - given, 1 - expected
    floor = event.floor(expected)
    return Quality(given, expected, floor, event.meets(given, floor))


def figure(quality: float, event: Event) -> str:
    """Return a quality as text: "96.7%" for an accuracy, "2.31 bits per character" for texts."""
    return f"{quality:.2f} {event.unit}" if event.is_text else f"{quality:.1%}"


def scores_of(event: Event, log: Mapping[str, Any]) -> tuple[Score, ...]:
    """Return the scores of all scenarios.

    Raises:
        Refused: a scenario is missing in a sitting; there are too few sittings for an interval; the outputs
            of the timed queries are worse than those of the accuracy run may be; a clock was wrong; times are
            missing.
    """
    sittings = log["sittings"]
    if len(sittings) < FEWEST_SITTINGS:
        raise Refused(
            f"{len(sittings)} sittings have no interval at 95 %: measure at least {FEWEST_SITTINGS}"
        )
    found = []
    for scenario in event.scenarios:
        phases = [sitting.get(scenario.name) for sitting in sittings]
        if any(phase is None for phase in phases):
            raise Refused(f"a sitting lacks the scenario {scenario.name}: measure it again")
        check_outputs(event, scenario, phases)
        check_clock(phases)
        found.append(_score(scenario, phases))
    return tuple(found)


def check_outputs(event: Event, scenario: Scenario, phases: Sequence[Mapping[str, Any]]) -> None:
    """Hold the outputs of timed queries to what the accuracy run allows, up to what chance may do.

    Raises:
        Refused: they are worse, as when outputs are skipped or remembered while the clock runs.
    """
    given, expected = (
        np.concatenate([np.asarray(phase["losses"][side], float) for phase in phases])
        for side in ("submission", "reference")
    )
    if given.size != expected.size or given.size == 0:
        raise Refused("the log lacks outputs of timed queries: measure it again")
    if scenario.task == "generate":
        allowed = _TEXT_DISAGREEMENT
    elif event.is_text:
        allowed = float(expected.mean()) * (1 / event.share - 1)
    else:
        allowed = (1 - float(expected.mean())) * (1 - event.share)
    excess = given - expected
    chance = _SURE * max(float(excess.std()), 0.1) / math.sqrt(excess.size)
    if not float(excess.mean()) <= allowed + chance:
        raise Refused(
            f"its outputs while it is timed ({scenario.name}) are worse than the accuracy floor allows: "
            f"{excess.mean():.3f} more loss for each example than the reference model, where {allowed:.3f} "
            "are allowed"
        )


def _score(scenario: Scenario, phases: Sequence[Mapping[str, Any]]) -> Score:
    streams = scenario.name == "single-stream"
    counted = counted_times(phases)
    ratios = [_log_ratio(times, streams) for times in counted]
    latency, throughput = None, None
    if streams:
        latency = upper_percentile(np.concatenate([times.submission.ravel() for times in counted]) / 1e6)
    else:
        rounds = np.concatenate([times.submission.mean(axis=1) for times in counted])
        throughput = scenario.batch * 1e9 / max(float(np.median(rounds)), 1.0)
    duration = float(sum(phase["duration_s"] for phase in phases))
    return Score(scenario.name, location_interval(ratios).exponential(), latency, throughput, duration)


def _log_ratio(times: Times, streams: bool) -> float:
    """Return the logarithm of a sitting's ratio: the median over its rounds.

    A round stands for its 90th percentile where queries come one by one, otherwise for its mean.
    """
    reference, submission = (
        np.array(
            [upper_percentile(values).estimate if streams else float(values.mean()) for values in rounds]
        )
        for rounds in (times.reference, times.submission)
    )
    return float(np.median(np.log(np.maximum(reference, 1.0) / np.maximum(submission, 1.0))))


def _mean(losses: Sequence[float]) -> float:
    if not losses:
        raise Refused("the log has no accuracy run: measure it again")
    return float(np.mean(losses))
