"""Entries of a leaderboard: what a ruling puts there."""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tinytorch.benchmarking.tinymlperf.referee import Ruling
    from tinytorch.benchmarking.tinymlperf.scoring import Score

_FIGURES = ("ratio", "low", "high", "latency_ms", "latency_bound_ms", "throughput_per_s")


@dataclass(frozen=True, slots=True)
class Entry:
    """One submission in one scenario, or one that was refused.

    Attributes:
        entry_id: no two entries share it.
        submission_id, name, event, division: of the submission.
        machine: the kind of machine on which the referee measured it.
        scenario: empty where it was refused.
        refused: why it has no rank, or None.
        ratio, low, high: the reference model's time divided by its own, and its interval; None if refused.
        quality: in the event's unit; None where it did not come to an accuracy run.
        latency_ms, latency_bound_ms: the 90th percentile and its bound.
        throughput_per_s: examples a second.
        badges: techniques that were verified.
        own_code: whether it brought code.
        weights_sha256, revision: what was measured; the git commit, with "+" where files differed from it.
        submitted_at: in UTC.
        log: the raw samples and the badges, compressed JSON.
    """

    entry_id: str
    submission_id: str
    name: str
    event: str
    division: str
    machine: str
    scenario: str
    refused: str | None
    ratio: float | None
    low: float | None
    high: float | None
    quality: float | None
    latency_ms: float | None
    latency_bound_ms: float | None
    throughput_per_s: float | None
    badges: tuple[str, ...]
    own_code: bool
    weights_sha256: str
    revision: str | None
    submitted_at: str
    log: bytes

    def read_log(self) -> Mapping[str, Any]:
        """Return the raw samples and the badges; empty where nothing was measured to the end."""
        log: Mapping[str, Any] = json.loads(zlib.decompress(self.log)) if self.log else {}
        return log


def entries_of(ruling: Ruling, now: datetime | None = None) -> tuple[Entry, ...]:
    """Return what a ruling puts on the leaderboard: an entry for each scenario, or one that was refused."""
    submission = ruling.submission
    stamp = (now or datetime.now(UTC)).isoformat(timespec="seconds")
    packed = b""
    if ruling.log is not None:
        packed = zlib.compress(json.dumps({**ruling.log, "badges": ruling.badges}).encode())
    revision = submission.document["revision"]
    shared: dict[str, Any] = {
        "submission_id": submission.submission_id,
        "name": submission.name,
        "event": submission.event,
        "division": submission.division,
        "machine": ruling.machine,
        "quality": ruling.quality.submission if ruling.quality else None,
        "badges": ruling.badges,
        "own_code": submission.code is not None,
        "weights_sha256": submission.document["weights"]["sha256"],
        "revision": revision and revision["commit"] + ("+" if revision["dirty"] else ""),
        "submitted_at": stamp,
        "log": packed,
    }
    key = f"{submission.submission_id}/{ruling.machine}"
    if ruling.refused is not None:
        shared |= dict.fromkeys(_FIGURES)
        unique = f"{key}/refused/{time.time_ns()}"
        return (Entry(entry_id=unique, scenario="", refused=ruling.refused, **shared),)
    return tuple(
        Entry(
            entry_id=f"{key}/{score.scenario}",
            scenario=score.scenario,
            refused=None,
            **figures_of(score),
            **shared,
        )
        for score in ruling.scores
    )


def figures_of(score: Score) -> dict[str, Any]:
    """Return the figures of a scenario by the names that an entry has for them."""
    latency = score.latency_ms
    figures = (
        score.ratio.estimate,
        score.ratio.low,
        score.ratio.high,
        latency.estimate if latency else None,
        latency.bound if latency else None,
        score.throughput_per_s,
    )
    return dict(zip(_FIGURES, figures, strict=True))
