"""Which times of a log count: those that players report, held to the referee's clock.

What the referee waits for an answer beyond what the player reports is the way there and back. It takes the
reference player as long, so what a submission's takes more is time that it does not report, and is added.

What this cannot see is of the order of the way, 50 us for one small query:

- Processes differ, by where they lie in memory: one in five has a way of 67 us here, the others of 52. Who
  leaves out as much in at most half of the sittings moves the estimate, but not the lower end of its
  interval, and ranks go by intervals.
- A twentieth of the way is within chance.
- Half of the way is spent in the player's process. Own code that reads requests and writes answers in a
  quicker way than `player` does can leave unreported what that saves. No time counts for less than a tenth
  of the way, so that is a factor of a few where the true time is no longer than the way.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinytorch.benchmarking.tinymlperf.processes import Refused
from tinytorch.benchmarking.tinymlperf.scenarios import PERCENTILE

# What the referee's clock can tell of a player's: the way of an answer takes 30 to 60 us here and varies.
_CLOCK_SHARE, _CLOCK_NS = 0.25, 20_000
# The longest way that one query is granted, a percentile: preempted processes make a few much longer.
_LONGEST_WAY = 99
# As multiples of the reference player's way: what chance does to the middle of all sittings, 4 % here, and
# how slow a single process may be, 67 us to 52 us.
_SAME_WAY, _SLOW_PROCESS = 1.05, 1.3
_LEAST_SHARE = 0.1

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Times:
    """Nanoseconds of a phase's queries for both players, shape (rounds, queries)."""

    submission: Floats
    reference: Floats


def counted_times(phases: Sequence[Mapping[str, Any]]) -> list[Times]:
    """Return the times that count, of one scenario in all sittings.

    For a submission's query that is the largest of: what its player reported, and what its ways take longer
    than the reference player's in most sittings, or in this one than any process has; and what the referee
    waited for this query, less the longest way. So neither a small part of every query can be left out, nor a
    large part of some. The reference player's times are those it reported.

    Raises:
        Refused: the times are missing, or do not belong together.
    """
    recorded = [_recorded(phase) for phase in phases]
    own_ways = np.array([_typical(ways) for _, _, ways, _ in recorded])
    other_ways = np.array([_typical(ways) for *_, ways in recorded])
    # Of an even number of sittings the middle ones speak for the submission: it may have met the slow ones.
    own_way = float(np.quantile(own_ways, 0.5, method="lower"))
    other_way = max(float(np.quantile(other_ways, 0.5, method="higher")), 0.0)
    more = np.maximum(own_ways - _SLOW_PROCESS * other_way, max(own_way - _SAME_WAY * other_way, 0.0))
    least = _LEAST_SHARE * other_way
    longest = _SLOW_PROCESS * np.percentile(
        np.concatenate([ways.ravel() for *_, ways in recorded]), _LONGEST_WAY
    )
    return [
        Times(
            np.maximum(np.maximum(own + extra, own + ways - longest), least),
            np.maximum(other, least),
        )
        for (own, other, ways, _), extra in zip(recorded, more, strict=True)
    ]


def _typical(way: Floats) -> float:
    """Return the median over rounds of their medians.

    Of two middle rounds it is the longer: leaving out time in every second round is not half honest.
    """
    return float(np.quantile(np.median(way, axis=1), 0.5, method="higher"))


def check_clock(phases: Sequence[Mapping[str, Any]]) -> None:
    """Refuse a submission whose player reports durations that cannot be.

    Smaller lies are no use, because they are added again: see `counted_times`. A busy machine delays one
    process or the other, so the sitting at the lower quartile counts. Both the ordinary ways are looked at
    and the long ones, as when only some queries are reported wrongly.

    Raises:
        Refused: the player's durations are too short by more than a quarter and 20 us; the times are missing,
            or do not belong together.
    """
    hidden, reported = [], []
    for phase in phases:
        own, _other, own_way, other_way = _recorded(phase)
        hidden.append([np.quantile(own_way, q) - np.quantile(other_way, q) for q in (0.5, PERCENTILE)])
        reported.append(float(np.median(own)))
    more = float(np.quantile(hidden, 0.25, axis=0).max())
    said = float(np.median(reported))
    if more > _CLOCK_SHARE * said + _CLOCK_NS:
        raise Refused(
            f"its clock is wrong: it reports {said / 1e3:.0f} us for a query, and the referee waits "
            f"{more / 1e3:.0f} us more than that explains"
        )


def _recorded(phase: Mapping[str, Any]) -> tuple[Floats, Floats, Floats, Floats]:
    """Return what both players reported, and for both the ways there and back."""
    names = ("submission_ns", "reference_ns", "submission_wall_ns", "reference_wall_ns")
    try:
        own, other, own_wall, other_wall = (np.array(phase[name], np.float64) for name in names)
    except (ValueError, OverflowError):  # rounds of different lengths; numbers without end
        raise Refused("the log's times are no rounds of equally many queries: measure it again") from None
    shapes = {times.shape for times in (own, other, own_wall, other_wall)}
    if len(shapes) > 1 or own.ndim != 2 or own.size == 0:
        raise Refused("the log lacks times of some queries: measure it again")
    if not all(math.isfinite(times.sum()) for times in (own, other, own_wall, other_wall)):
        raise Refused("the log has times that are no numbers: measure it again")
    return own, other, own_wall - own, other_wall - other
