"""What a comparison has measured so far, filled pass by pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from perfclaims.evidence import PairedSamples, PairingPlan
from perfclaims.tally import OutputTally

# Instance, whether the optimised side was first, and both durations in ns.
Row = tuple[int, bool, int, int]


@dataclass
class PairingRun:
    """One comparison in the making.

    Attributes:
        first_call_ns: the very first call of each side.
        rows, last_rows: pairs in the order in which they ran; those of the last round apart.
        last_calls: calls per sample in the last round.
        pairing_ns: what the passes took, warm-up calls included.
    """

    plan: PairingPlan
    tallies: Sequence[OutputTally]
    first_call_ns: tuple[int, int]
    rows: list[Row] = field(default_factory=list)
    last_rows: list[Row] = field(default_factory=list)
    last_calls: tuple[int, int] = (1, 1)
    looks_taken: int = 0
    decided_early: bool = False
    stop_reason: str = "interrupted"
    arguments_changed: str | None = None
    warnings: list[str] = field(default_factory=list)
    pairing_ns: int = 0
    last_round_ns: int = 0

    @property
    def samples(self) -> PairedSamples:
        """The timed pairs so far, in execution order."""
        return as_samples(self.rows)

    def warn(self, *messages: str) -> None:
        """Keep each message once."""
        self.warnings.extend(message for message in messages if message not in self.warnings)

    def note_changed(self, message: str | None) -> None:
        """Keep the first report of changed arguments."""
        self.arguments_changed = self.arguments_changed or message


def as_samples(rows: Sequence[Row]) -> PairedSamples:
    """Columns of (instance, optimized_first, baseline_ns, optimized_ns) rows."""
    table = np.array(rows, dtype=np.int64).reshape(len(rows), 4)
    return PairedSamples(table[:, 0], table[:, 1].astype(bool), table[:, 2], table[:, 3])
