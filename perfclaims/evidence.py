"""What was measured for a claim: frozen values, complete enough to judge from without measuring again.

Values that do not fit together are refused with a ValueError: evidence may come from a file.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from perfclaims.activity import Activity
from perfclaims.codes import Reason
from perfclaims.outputs import OutputComparison, Tolerance
from perfclaims.statistics import MOST_SIGNED_RANKS, check_confidence

Threads = int | Literal["all"]


@dataclass(frozen=True, slots=True, eq=False)
class PairedSamples:
    """Timed pairs in the order in which they ran; all arrays have shape (pairs,).

    Attributes:
        instance: which of the rebuilt instances the pair ran on.
        optimized_first: the coin of the pair.
        baseline_ns, optimized_ns: duration of one sample of each side, in nanoseconds.
    """

    instance: NDArray[np.int64]
    optimized_first: NDArray[np.bool_]
    baseline_ns: NDArray[np.int64]
    optimized_ns: NDArray[np.int64]

    def __post_init__(self) -> None:
        _equally_long(self, "instance", "optimized_first", "baseline_ns", "optimized_ns")

    def __len__(self) -> int:
        return len(self.instance)


@dataclass(frozen=True, slots=True)
class OutputCheck:
    """Outputs of the timed callables under one tolerance, before the clock started and after it stopped.

    `before` and `after` are the first mismatch found there, or the sum of the matches; `after` is on new
    arguments where the callables take any.
    """

    tolerance: Tolerance
    before: OutputComparison | None
    after: OutputComparison | None = None

    @property
    def comparisons(self) -> tuple[OutputComparison, ...]:
        """The comparisons made, in the order in which they were made."""
        return tuple(c for c in (self.before, self.after) if c is not None)

    @property
    def matched(self) -> bool:
        """Whether something was compared and all of it matched."""
        return bool(self.comparisons) and all(c.matched for c in self.comparisons)

    @property
    def message(self) -> str:
        """What differs first, or how much matched, in one sentence."""
        if not self.comparisons:
            return "outputs were not compared"
        found = next((c for c in self.comparisons if not c.matched), self.comparisons[-1])
        return found.message


@dataclass(frozen=True, slots=True)
class PairingPlan:
    """How the pairs of one comparison were laid out; fixed after calibration, before the first pair.

    Attributes:
        baseline_calls, optimized_calls: calls per sample of each side.
        group_size: pairs of which each side's minimum is taken.
        instances: how many times both sides were built.
        rebuilt: False for a caller's own object, measured as a single instance.
        confidence: of the interval that is asked for.
        thresholds: speedups that can change the verdict; early looks ask on which side of them we are.
        looks: early looks allowed, each at `look_alpha`; the final interval pays for all of them.
        budget_s: seconds of timing asked for.
        pair_ns: expected duration of one pair.
    """

    baseline_calls: int
    optimized_calls: int
    group_size: int
    instances: int
    rebuilt: bool
    confidence: float
    thresholds: tuple[float, ...]
    looks: int
    look_alpha: float
    budget_s: float
    pair_ns: float

    def __post_init__(self) -> None:
        for name in ("baseline_calls", "optimized_calls", "group_size", "instances"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` of a plan must be at least 1, got {getattr(self, name)}")
        if self.instances > MOST_SIGNED_RANKS:
            raise ValueError(
                f"`instances` of a plan must be at most {MOST_SIGNED_RANKS}, got {self.instances}"
            )
        check_confidence(self.confidence)
        looked = self.looks == 0 or (self.looks > 0 and 0 < 1 - self.look_alpha < 1)
        if not looked or not 0 < 1 - self.final_alpha < 1:
            raise ValueError(
                f"{self.looks} looks at {self.look_alpha:g} must leave something of {1 - self.confidence:g}"
            )
        if not all(0 < threshold < math.inf for threshold in self.thresholds):
            raise ValueError(f"`thresholds` of a plan must be positive and finite, got {self.thresholds}")

    @property
    def final_alpha(self) -> float:
        """What the early looks leave for the final interval."""
        return (1.0 - self.confidence) - self.looks * self.look_alpha


@dataclass(frozen=True, slots=True)
class Timing:
    """One comparison: raw pairs, how they came about, and what was noticed on the way."""

    kind: ClassVar[str] = "timing"

    label: str | None
    baseline: str
    optimized: str
    plan: PairingPlan
    samples: PairedSamples
    last_round: PairedSamples | None
    last_calls: tuple[int, int]
    fresh_arguments: bool
    decided_early: bool
    looks_taken: int
    stop_reason: str
    outputs: tuple[OutputCheck, ...]
    arguments_changed: str | None
    first_call_ns: tuple[int, int]
    setup_s: float
    pairing_s: float
    last_round_s: float
    elapsed_s: float
    threads: Threads
    cpu: int | None
    seed: int
    activity: Activity | None = None
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if min(self.last_calls) < 1:
            raise ValueError(f"`last_calls` must be at least 1, got {self.last_calls}")
        if self.decided_early and self.plan.looks == 0:
            raise ValueError("`decided_early` needs a plan with looks, got one without")
        for samples in (self.samples, self.last_round):
            if samples is not None:
                _within("instance", samples.instance, self.plan.instances)

    @property
    def checks(self) -> tuple[OutputCheck, ...]:
        """Outputs compared, one check for each tolerance."""
        return self.outputs

    @property
    def finished(self) -> bool:
        """Whether it came to its last round, or to a reason not to go on."""
        measured = len(self.samples) > 0 and self.last_round is not None
        return measured or self.arguments_changed is not None


@dataclass(frozen=True, slots=True)
class Outputs:
    """Outputs compared without timing."""

    kind: ClassVar[str] = "outputs"

    label: str | None
    checks: tuple[OutputCheck, ...]


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes of the baseline's and of the optimised artefact, exact."""

    kind: ClassVar[str] = "sizes"

    label: str | None
    baseline: int
    optimized: int

    def __post_init__(self) -> None:
        if min(self.baseline, self.optimized) < 1:
            raise ValueError(
                f"`baseline` and `optimized` must be positive, got {self.baseline} and {self.optimized}"
            )


@dataclass(frozen=True, slots=True, eq=False)
class Outcomes:
    """Paired right/wrong answers on the same examples, each of shape (n,)."""

    kind: ClassVar[str] = "outcomes"

    label: str | None
    baseline: NDArray[np.bool_]
    optimized: NDArray[np.bool_]

    def __post_init__(self) -> None:
        _equally_long(self, "baseline", "optimized")
        if len(self.baseline) == 0:
            raise ValueError("`baseline` and `optimized` must hold at least one outcome, got none")


@dataclass(frozen=True, slots=True, eq=False)
class Scaling:
    """Durations of one callable at several sizes, in the order in which they ran.

    Attributes:
        sizes: the problem sizes, in the caller's unit.
        calls: calls per sample at each size.
        instance, size_index, duration_ns: shape (samples,).
    """

    kind: ClassVar[str] = "scaling"

    label: str | None
    sizes: tuple[float, ...]
    calls: tuple[int, ...]
    instances: int
    confidence: float
    instance: NDArray[np.int64]
    size_index: NDArray[np.int64]
    duration_ns: NDArray[np.int64]
    threads: Threads
    cpu: int | None
    elapsed_s: float
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _equally_long(self, "instance", "size_index", "duration_ns")
        _within("instance", self.instance, self.instances)
        _within("size_index", self.size_index, len(self.sizes))
        check_confidence(self.confidence)
        if len(set(self.sizes)) < 2 or not all(0 < size < math.inf for size in self.sizes):
            raise ValueError(f"`sizes` must be two or more different positive numbers, got {self.sizes}")
        # Nothing was calibrated where time did not suffice for the first instance.
        if self.instances and (len(self.calls) != len(self.sizes) or min(self.calls) < 1):
            raise ValueError(f"`calls` must be a positive number for every size, got {self.calls}")
        if self.instances > MOST_SIGNED_RANKS:
            raise ValueError(f"`instances` must be at most {MOST_SIGNED_RANKS}, got {self.instances}")

    @property
    def finished(self) -> bool:
        """Whether anything was measured."""
        return self.instances > 0


@dataclass(frozen=True, slots=True)
class Number:
    """A named number, exact unless it has an interval.

    Attributes:
        low, high: one of them alone leaves the other end open.
        successes, trials: of a rate, whose interval follows from them at `confidence`.
    """

    kind: ClassVar[str] = "value"

    label: str | None
    name: str
    number: float
    unit: str | None = None
    low: float | None = None
    high: float | None = None
    successes: int | None = None
    trials: int | None = None
    confidence: float = 0.95

    def __post_init__(self) -> None:
        low = -math.inf if self.low is None else self.low
        high = math.inf if self.high is None else self.high
        if not math.isfinite(self.number) or not low <= self.number <= high:
            raise ValueError(
                f"`number` of {self.name!r} must be finite and within its interval, got {self.number} "
                f"in [{self.low}, {self.high}]"
            )
        if (self.successes is None) != (self.trials is None):
            raise ValueError(f"`successes` and `trials` of {self.name!r} go together, got one of them")
        if self.successes is not None and self.trials is not None:
            check_confidence(self.confidence)
            if not 0 <= self.successes <= self.trials or self.trials < 1:
                raise ValueError(
                    f"`successes` of {self.name!r} must lie between 0 and `trials` (={self.trials}), "
                    f"got {self.successes}"
                )


@dataclass(frozen=True, slots=True)
class Missing:
    """A piece of evidence that was asked for and could not be had, also when the claim went on."""

    kind: ClassVar[str] = "missing"

    label: str | None
    wanted: str
    message: str


Piece = Timing | Outputs | Sizes | Outcomes | Scaling | Number | Missing


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why measuring ended before the claim's function did: `raised` or `timed-out`, and one sentence."""

    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that is known for a claim.

    Attributes:
        pieces: in the order in which they were measured.
        trouble: what ended the measurement early.
        not_applicable: why the claim cannot apply on this machine.
        cpu_feature_missing: the reason above is a missing CPU feature.
        not_run: why the claim was left out, with the time it would need.
        notes: sentences for the reader that decide nothing.
    """

    pieces: tuple[Piece, ...] = ()
    trouble: Trouble | None = None
    not_applicable: str | None = None
    cpu_feature_missing: bool = False
    not_run: str | None = None
    notes: tuple[str, ...] = field(default=())


def _equally_long(owner: object, *names: str) -> None:
    shapes = [getattr(owner, name).shape for name in names]
    if any(len(shape) != 1 for shape in shapes) or len(set(shapes)) > 1:
        listed = ", ".join(f"`{name}`" for name in names)
        raise ValueError(f"{listed} must have one shape (n,), got {', '.join(map(str, shapes))}")


def _within(name: str, values: NDArray[np.int64], count: int) -> None:
    if len(values) and (values.min() < 0 or values.max() >= count):
        raise ValueError(f"`{name}` must lie between 0 and {count - 1}, got {values.min()} to {values.max()}")
