"""Whether a timed quantity reaches a threshold: what its interval, new arguments and one instance allow."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from perfclaims.codes import Outcome, Reason
from perfclaims.findings import place
from perfclaims.statistics import Interval

# Below this distance from a tie one instance cannot decide: memory layout alone moves array code by more.
TIE = 0.05
# New arguments find cold caches, and branch predictors that know the old ones. In 54 comparisons of 18 honest
# functions (1 us to 7 ms, a busy neighbour) the last round's upper end was up to 22 % below the estimate; an
# answer that is remembered makes a factor of it.
COLD = 0.25
# So that a threshold stated as 5 % counts as within 5 %, whatever the rounding.
_ROUNDING = 1e-9
_SINGLE = (Reason.UNDECIDED, Reason.SINGLE_INSTANCE)
_SLOWER = (Reason.SLOWER_ON_NEW_INPUTS,)


@dataclass(frozen=True, slots=True)
class Answer:
    """Where a quantity lies, why that is in doubt, and the interval that says so.

    Attributes:
        on_new_arguments: the interval is that of the last round.
        less_on_new_arguments: the last round says otherwise, by no more than cold caches explain.
        worthwhile: it is a benefit worth having, whatever was claimed.
    """

    outcome: Outcome
    reasons: tuple[Reason, ...]
    interval: Interval
    on_new_arguments: bool = False
    less_on_new_arguments: bool = False
    worthwhile: bool = False


@dataclass(frozen=True, slots=True)
class Quantity:
    """Something of which more is better and 0 is a tie: the log of a speedup, or time saved.

    Attributes:
        main, fresh: its interval, and that on new arguments where there are any.
        noise: a threshold closer to a tie than this cannot be told from it.
        tie: how far the memory layout of one instance can move a tie.
        cold: how much less new arguments can give just because they are new.
        single: only one instance was measured.
    """

    main: Interval
    fresh: Interval | None
    noise: float
    tie: float
    cold: float
    single: bool

    @classmethod
    def of_logs(cls, main: Interval, fresh: Interval | None, noise: float, *, single: bool) -> Quantity:
        """The log of a speedup."""
        return cls(main, fresh, noise, math.log1p(TIE), math.log1p(COLD), single)

    @classmethod
    def of_time(cls, main: Interval, fresh: Interval | None, call: float, *, single: bool) -> Quantity:
        """Time saved in a call that takes `call`, in one unit."""
        return cls(main, fresh, main.half_width, TIE * call, COLD * call, single)

    def reaches(self, threshold: float) -> Answer:
        """Whether the quantity is at least this.

        The last round refutes when it lies wholly below the threshold and excludes the estimate by more than
        cold caches explain.
        """
        outcome, fresh = place(self.main, at_least=threshold), self.fresh
        if fresh is None or outcome is Outcome.REFUTED or not fresh.high < min(threshold, self.main.estimate):
            return self._on_all(outcome, threshold)
        if not fresh.high < self.main.estimate - self.cold:
            return replace(self._on_all(outcome, threshold), less_on_new_arguments=True)
        if self._too_close(fresh, threshold):
            return Answer(Outcome.INCONCLUSIVE, _SLOWER + _SINGLE, fresh, on_new_arguments=True)
        return Answer(Outcome.REFUTED, _SLOWER, fresh, on_new_arguments=True)

    def reaches_or_pays(self, threshold: float, worthwhile: float) -> Answer:
        """The same, and whether the quantity is worthwhile whatever was claimed."""
        answer, benefit = self.reaches(threshold), self.reaches(worthwhile)
        if answer.on_new_arguments:
            benefit = replace(self, main=answer.interval, fresh=None).reaches(worthwhile)
        elif benefit.on_new_arguments and answer.outcome is Outcome.REFUTED:
            # Less than claimed anyhow, and on new arguments not even worth having.
            return replace(answer, reasons=_SLOWER, interval=benefit.interval, on_new_arguments=True)
        return replace(answer, worthwhile=benefit.outcome is Outcome.CONFIRMED)

    def _on_all(self, outcome: Outcome, threshold: float) -> Answer:
        if self._too_close(self.main, threshold):
            return Answer(Outcome.INCONCLUSIVE, _SINGLE, self.main)
        if outcome is not Outcome.INCONCLUSIVE:
            return Answer(outcome, (), self.main)
        finer = math.isfinite(self.noise) and abs(threshold) < self.noise
        doubts = (Reason.UNDECIDED, Reason.FINER_THAN_NOISE) if finer else (Reason.UNDECIDED,)
        return Answer(outcome, doubts, self.main)

    def _too_close(self, interval: Interval, threshold: float) -> bool:
        """Whether one instance is asked about a tie, and does not clear the threshold by what that takes."""
        near = abs(threshold) <= self.tie * (1 + _ROUNDING)
        clear = interval.low > threshold + self.tie or interval.high < threshold - self.tie
        return self.single and near and not clear
