"""Whether a timed quantity reaches a threshold: what its interval, new arguments and one instance allow."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from perfclaims.codes import Outcome, Reason
from perfclaims.findings import place
from perfclaims.statistics import Interval

# Below this distance from a tie one instance cannot decide: memory layout alone moves array code by more.
TIE = 0.05
# So that a threshold stated as 5 % counts as within 5 %, whatever the rounding.
_ROUNDING = 1e-9
_SINGLE = (Reason.UNDECIDED, Reason.SINGLE_INSTANCE)
_SLOWER = (Reason.SLOWER_ON_NEW_INPUTS,)


@dataclass(frozen=True, slots=True)
class Answer:
    """Where a quantity lies, why that is in doubt, and the interval that says so.

    Attributes:
        on_new_arguments: the interval is that of the last round.
        worthwhile: it is a benefit worth having, whatever was claimed.
    """

    outcome: Outcome
    reasons: tuple[Reason, ...]
    interval: Interval
    on_new_arguments: bool = False
    worthwhile: bool = False


@dataclass(frozen=True, slots=True)
class Quantity:
    """Something of which more is better and 0 is a tie: the log of a speedup, or time saved.

    Attributes:
        main, fresh: its interval, and that on new arguments where there are any.
        noise: a threshold closer to a tie than this cannot be told from it.
        tie: how far the memory layout of one instance can move a tie.
        single: only one instance was measured.
    """

    main: Interval
    fresh: Interval | None
    noise: float
    tie: float
    single: bool

    def reaches(self, threshold: float) -> Answer:
        """Whether the quantity is at least this.

        The last round refutes when it lies wholly below both the threshold and the estimate: one of them
        alone could be noise, or code that was cold.
        """
        outcome = place(self.main, at_least=threshold)
        fresh = self.fresh
        if (
            fresh is not None
            and outcome is not Outcome.REFUTED
            and fresh.high < threshold
            and fresh.high < self.main.estimate
        ):
            if self._too_close(fresh, threshold):
                return Answer(Outcome.INCONCLUSIVE, _SLOWER + _SINGLE, fresh, on_new_arguments=True)
            return Answer(Outcome.REFUTED, _SLOWER, fresh, on_new_arguments=True)
        if self._too_close(self.main, threshold):
            return Answer(Outcome.INCONCLUSIVE, _SINGLE, self.main)
        if outcome is not Outcome.INCONCLUSIVE:
            return Answer(outcome, (), self.main)
        finer = math.isfinite(self.noise) and abs(threshold) < self.noise
        doubts = (Reason.UNDECIDED, Reason.FINER_THAN_NOISE) if finer else (Reason.UNDECIDED,)
        return Answer(outcome, doubts, self.main)

    def reaches_or_pays(self, threshold: float, worthwhile: float) -> Answer:
        """The same, and whether the quantity is worthwhile whatever was claimed."""
        answer, benefit = self.reaches(threshold), self.reaches(worthwhile)
        if answer.on_new_arguments:
            benefit = replace(self, main=answer.interval, fresh=None).reaches(worthwhile)
        elif benefit.on_new_arguments and answer.outcome is Outcome.REFUTED:
            # Less than claimed anyhow, and on new arguments not even worth having.
            return replace(answer, reasons=_SLOWER, interval=benefit.interval, on_new_arguments=True)
        return replace(answer, worthwhile=benefit.outcome is Outcome.CONFIRMED)

    def _too_close(self, interval: Interval, threshold: float) -> bool:
        """Whether one instance is asked about a tie, and does not clear the threshold by what that takes."""
        near = abs(threshold) <= self.tie * (1 + _ROUNDING)
        clear = interval.low > threshold + self.tie or interval.high < threshold - self.tie
        return self.single and near and not clear
