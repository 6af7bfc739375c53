"""Who is first: tables of a leaderboard, with ties, and the entries that have no rank."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tinytorch.benchmarking.tinymlperf.entries import Entry, figures_of
from tinytorch.benchmarking.tinymlperf.events import EVENTS
from tinytorch.benchmarking.tinymlperf.logs import check_log
from tinytorch.benchmarking.tinymlperf.processes import Refused
from tinytorch.benchmarking.tinymlperf.scoring import quality_of, scores_of

# What the columns of an entry are called in a sentence, besides its badges.
_NAMES = {
    "ratio": "ratio",
    "low": "ratio's lower end",
    "high": "ratio's upper end",
    "quality": "quality",
    "latency_ms": "latency in ms",
    "latency_bound_ms": "latency's bound in ms",
    "throughput_per_s": "throughput",
}


@dataclass(frozen=True, slots=True)
class Standing:
    """An entry and its rank: one more than the number of entries that are surely faster."""

    rank: int
    tied: bool
    entry: Entry


@dataclass(frozen=True, slots=True)
class Table:
    """The standings of one scenario of an event, in one division and on one kind of machine."""

    event: str
    division: str
    machine: str
    scenario: str
    standings: tuple[Standing, ...]

    @property
    def title(self) -> str:
        """What the table is of."""
        name = EVENTS[self.event].title if self.event in EVENTS else self.event
        return f"{name}, {self.division} division, {self.scenario}, {self.machine}"


def tables(entries: Iterable[Entry]) -> list[Table]:
    """Return a table for each event, division, kind of machine and scenario; no times are compared across."""
    groups: dict[tuple[str, str, str, str], list[Entry]] = {}
    for entry in entries:
        if entry.refused is None:
            key = (entry.event, entry.division, entry.machine, entry.scenario)
            groups.setdefault(key, []).append(entry)
    order = {name: index for index, name in enumerate(EVENTS)}
    keys = sorted(
        groups, key=lambda key: (order.get(key[0], len(order)), key[1], key[2], key[3] != "single-stream")
    )
    return [Table(*key, ranked(groups[key])) for key in keys]


def ranked(entries: Sequence[Entry]) -> tuple[Standing, ...]:
    """Rank entries by their ratios: one is surely faster than another if its interval lies wholly above.

    Where intervals overlap nothing is known, so nobody is put behind another for it.
    """
    ordered = sorted(entries, key=lambda entry: (-(entry.ratio or 0.0), entry.entry_id))
    ranks = [1 + sum(_low(other) > _high(entry) for other in ordered) for entry in ordered]
    return tuple(
        Standing(rank, ranks.count(rank) > 1, entry) for rank, entry in zip(ranks, ordered, strict=True)
    )


def unverified(entries: Iterable[Entry]) -> list[str]:
    """Return a sentence for each ranked entry whose figures do not follow from its own log.

    Derived again are all figures and the quality, which must meet its floor on the data of this machine.
    Badges were found in the submission's file; the log has them as they were found.
    """
    found = []
    for entry in entries:
        if entry.refused is not None:
            continue
        try:
            wrong = _differences(entry)
        except Exception as error:  # noqa: BLE001 - whatever a log holds, it is not what the referee wrote
            wrong = f"its log cannot be judged: {_short(error)}"
        if wrong:
            found.append(f"{entry.name} ({entry.scenario}): {wrong}")
    return found


def _differences(entry: Entry) -> str:
    """Return what an entry says otherwise than its log does, empty where that is nothing.

    Raises:
        Refused: nothing can be derived from the log.
    """
    event, log = EVENTS[entry.event], entry.read_log()
    check_log(event, log)
    quality = quality_of(event, log)
    if not quality.met:
        return f"the quality in its log is {quality.submission:.3g} where the floor is {quality.floor:.3g}"
    score = {score.scenario: score for score in scores_of(event, log)}[entry.scenario]
    figures = {**figures_of(score), "quality": quality.submission}
    wrong = [
        f"its {_NAMES[column]} is {_pair(getattr(entry, column), derived)} in its log"
        for column, derived in figures.items()
        if not _same(getattr(entry, column), derived)
    ]
    if list(entry.badges) != log.get("badges"):
        wrong.append("its badges are not those in its log")
    return "; ".join(wrong)


def _same(stored: float | None, derived: float | None) -> bool:
    if stored is None or derived is None:
        return stored is derived
    return math.isclose(stored, derived, rel_tol=1e-9)


def _pair(stored: float | None, derived: float | None) -> str:
    """Return both figures, with as many digits as it takes to tell them apart."""
    for digits in range(3, 18):
        one, other = ("none" if x is None else f"{x:.{digits}g}" for x in (stored, derived))
        if one != other:
            break
    return f"{one} on the leaderboard and {other}"


def _short(error: Exception) -> str:
    return str(error) if isinstance(error, Refused) else type(error).__name__


def _low(entry: Entry) -> float:
    return entry.low if entry.low is not None else -math.inf


def _high(entry: Entry) -> float:
    return entry.high if entry.high is not None else math.inf
