"""Who is first: tables of a leaderboard, with ties, and the entries that have no rank."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tinytorch.benchmarking.entries import Entry
from tinytorch.benchmarking.events import EVENTS
from tinytorch.benchmarking.processes import Refused
from tinytorch.benchmarking.scoring import scores_of


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
    """Return a sentence for each ranked entry whose figures do not follow from its own log."""
    found = []
    for entry in entries:
        if entry.refused is not None:
            continue
        try:
            scores = {score.scenario: score for score in scores_of(EVENTS[entry.event], entry.read_log())}
            ratio = scores[entry.scenario].ratio
            same = all(
                math.isclose(stored or 0.0, derived, rel_tol=1e-9)
                for stored, derived in zip(
                    (entry.ratio, entry.low, entry.high), (ratio.estimate, ratio.low, ratio.high), strict=True
                )
            )
        except Exception as error:  # noqa: BLE001 - whatever a log holds, it is not what the referee wrote
            found.append(f"{entry.name} ({entry.scenario}): its log cannot be judged: {_short(error)}")
            continue
        if not same:
            found.append(
                f"{entry.name} ({entry.scenario}): its ratio is {entry.ratio:.3g} on the leaderboard and "
                f"{ratio.estimate:.3g} in its log"
            )
    return found


def _short(error: Exception) -> str:
    return str(error) if isinstance(error, Refused) else type(error).__name__


def _low(entry: Entry) -> float:
    return entry.low if entry.low is not None else -math.inf


def _high(entry: Entry) -> float:
    return entry.high if entry.high is not None else math.inf
