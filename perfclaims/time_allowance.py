"""What a claim's time limit leaves for a comparison: how many instances and pairs can still be afforded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from perfclaims.evidence import PairingPlan
from perfclaims.last_round import PAIRS_OF_SINGLE

# Of the time that is left, a third is kept for what cannot be foreseen.
MARGIN = 1.5
# The last round of slow calls is one pair, and perhaps a call of the baseline.
_LAST_OF_SLOW = 1.5


@dataclass
class TimeAllowance:
    """Durations in ns, learnt while the comparison goes on.

    Attributes:
        time_left: seconds until the caller must be done.
        slow: the last round is one pair.
        check_counts: the output check of an instance is its first pair.
        warm: samples are preceded by untimed ones.
        set_up_ns: what the last instance took to build, to lay out and to check.
        renewing_ns: what it takes to draw all arguments anew.
    """

    time_left: Callable[[], float]
    slow: bool = False
    check_counts: bool = False
    warm: bool = False
    set_up_ns: int = 0
    renewing_ns: int = 0

    def left_ns(self) -> float:
        """What is left and can be relied on."""
        return self.time_left() * 1e9 / MARGIN

    def instances(self, pair_ns: float) -> float:
        """How many instances there is time for, with one pair each."""
        pairs = self.left_ns() / pair_ns
        if self.check_counts:
            return max(1.0, pairs - _LAST_OF_SLOW)
        # Of each there are a check, a warm-up, a pair, and that of the last round.
        return max(1.0, pairs / (3.0 + self._last_pairs()))

    def another_instance(self, plan: PairingPlan, built: int) -> bool:
        """Whether there is time to build one more, and to time it and those that are built."""
        pairs = 1 if self.check_counts else built + 1
        return self.left_ns() >= self.set_up_ns + pairs * plan.pair_ns

    def for_passes_ns(self, plan: PairingPlan) -> float:
        """What the last round does not need, nor drawing before it and before the next pass."""
        pairs = self._last_pairs() * (plan.instances if plan.rebuilt else PAIRS_OF_SINGLE)
        last_ns = plan.pair_ns * (_LAST_OF_SLOW if self.slow else pairs)
        return self.left_ns() - 2 * self.renewing_ns - last_ns

    def _last_pairs(self) -> float:
        """What a pair of the last round takes, in pairs: a warm-up, itself, and the baseline asked again."""
        return 3.0 if self.warm else 2.0
