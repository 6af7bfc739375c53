"""Sums of output comparisons: over instances, arguments and the two moments at which outputs are checked."""

from __future__ import annotations

from dataclasses import dataclass, replace

from perfclaims.evidence import OutputCheck
from perfclaims.outputs import OutputComparison, Tolerance, compare


@dataclass
class OutputTally:
    """Comparisons under one tolerance, before the clock starts and after it stopped.

    The first mismatch of each is kept as it was; matches are summed.
    """

    tolerance: Tolerance
    before: OutputComparison | None = None
    after: OutputComparison | None = None

    def add(self, expected: object, actual: object, *, after: bool) -> None:
        """Compare two outputs and count them in."""
        found = compare(expected, actual, self.tolerance)
        if after:
            self.after = self._sum(self.after, found)
        else:
            self.before = self._sum(self.before, found)

    def check(self) -> OutputCheck:
        """The sums so far."""
        return OutputCheck(self.tolerance, self.before, self.after)

    def _sum(self, sofar: OutputComparison | None, found: OutputComparison) -> OutputComparison:
        if sofar is None or (sofar.matched and not found.matched):
            return found
        if not sofar.matched:
            return sofar
        elements = sofar.elements + found.elements
        return replace(
            sofar,
            elements=elements,
            largest_difference=_larger(sofar.largest_difference, found.largest_difference),
            relative_l2=_larger(sofar.relative_l2, found.relative_l2),
            message=f"all {elements} elements match ({self.tolerance.describe()})",
        )


def _larger(a: float | None, b: float | None) -> float | None:
    if a is None or b is None:
        return a if b is None else b
    return max(a, b)
