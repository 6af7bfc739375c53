"""Logs of runs, as somebody hands them in: whether they can be scored at all."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tinytorch.benchmarking.tinymlperf.events import Event
from tinytorch.benchmarking.tinymlperf.processes import Refused

_SIDES = ("submission", "reference")


def check_log(event: Event, log: Mapping[str, Any]) -> None:
    """Hold a log that fits the schema to what quality and scores are derived from, besides its times.

    Times are held to each other where they are counted, see `clocks`.

    Raises:
        Refused: it is of other data; losses are missing, or not there in pairs; a number is infinite.
    """
    if log["data"] != event.data_hash:
        raise Refused(
            "its log is of other data than this machine's, which for texts come with the version of Python: "
            "measure it again here"
        )
    _check_losses(log["accuracy"], "the accuracy run")
    for number, sitting in enumerate(log["sittings"], 1):
        for name, phase in sitting.items():
            where = f"sitting {number}, {name}"
            _check_losses(phase["losses"], where)
            if not math.isfinite(phase["duration_s"]):
                raise Refused(f"the log has an infinite duration ({where}): measure it again")


def _check_losses(losses: Mapping[str, Sequence[float]], where: str) -> None:
    counts = [len(losses[side]) for side in _SIDES]
    if counts[0] != counts[1]:
        raise Refused(
            f"the log has losses of {counts[0]} outputs of the submission and {counts[1]} of the reference "
            f"model ({where}), which answer the same queries: measure it again"
        )
    if not counts[0]:
        raise Refused(f"the log lacks outputs ({where}): measure it again")
    if not all(math.isfinite(loss) for side in _SIDES for loss in losses[side]):
        raise Refused(f"the log has an infinite loss ({where}): measure it again")
