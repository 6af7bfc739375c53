"""Durations of models that took turns, and what they say of their speeds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tinytorch.benchmarking.statistics import Floats, Interval, location_interval

#: Rounds of which the shortest counts. With other programs running, one of four calls of a millisecond took a
#: third longer; the intervals are half as wide as with every round by itself.
GROUP = 4
# Units that signed ranks at 95 % need.
_FEWEST = 6
# What a ratio is wrong by in all runs alike. Two single perceptrons of equal weights differed by up to 4 %.
_SYSTEMATIC, _SYSTEMATIC_SINGLE = 0.001, 0.05


@dataclass(frozen=True, slots=True, eq=False)
class LatencySamples:
    """Durations of a pass over all inputs.

    Attributes:
        names: of the models.
        samples_ns: shape (runs, copies, rounds, models). In a round every model has its turn, so numbers of
            one round were measured within moments of each other.
        calls: for each model, how many calls a sample is the mean of.
        single: the models that could not be copied, so that one object of them was measured throughout.
    """

    names: tuple[str, ...]
    samples_ns: Floats
    calls: tuple[int, ...]
    single: tuple[str, ...] = ()

    def values_ms(self, model: int) -> list[float]:
        """Return one number for each run, the median of its samples."""
        return [float(value) / 1e6 for value in np.median(self.samples_ns[..., model], axis=(1, 2))]

    def speedup(self, model: int, baseline: int = 0, confidence: float = 0.95) -> Interval:
        """Return the time of the baseline over that of another model.

        The shortest of four rounds in a row counts, for each model. The logarithm of their ratio has a median
        for each copy, and these give the interval by signed ranks, with room for what is wrong in all of them
        alike. Fewer than six copies in all runs have no interval at 95 %: it is 0 to infinity.
        """
        if model == baseline:
            return Interval.exact(1.0)
        starts = np.arange(0, self.samples_ns.shape[2], GROUP)
        shortest = np.minimum.reduceat(self.samples_ns[..., [baseline, model]], starts, axis=2)
        logs = np.median(np.log(shortest[..., 0] / shortest[..., 1]), axis=2).reshape(-1)
        interval = location_interval(logs, confidence)
        single = self.names[model] in self.single or self.names[baseline] in self.single
        room = _SYSTEMATIC_SINGLE if single else _SYSTEMATIC
        return interval.widened(room * (1 + 3 * abs(interval.estimate))).exponential()

    @property
    def warnings(self) -> tuple[str, ...]:
        """What weakens the comparison, each with what to do about it."""
        found = [
            f"{name!r} could not be copied to other places in memory, so its speed is that of this one "
            f"object, and speedups are given {100 * _SYSTEMATIC_SINGLE:g} % of room: make it a Layer, or "
            "something else that deepcopy can copy"
            for name in self.single
        ]
        if self.samples_ns.shape[0] * self.samples_ns.shape[1] < _FEWEST:
            found.append(
                f"{self.samples_ns.shape[0]} runs are too few for the interval of a speedup: raise "
                f"`measurement_runs` to {_FEWEST} or more"
            )
        return tuple(found)
