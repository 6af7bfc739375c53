"""What a claim's function is handed: it turns code into evidence, and remembers what could not be had."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from perfclaims.claims import Claim
from perfclaims.comparison import ComparisonResult, Request, measure, summarise
from perfclaims.criteria import OutputsMatch, Overhead, Speedup, is_number
from perfclaims.evidence import Missing, Number, Outcomes, Outputs, Piece, Scaling, Sizes, Timing
from perfclaims.implementation import Implementation, Inputs, as_implementation
from perfclaims.outputs import Tolerance
from perfclaims.paired_accuracy import paired_outcomes
from perfclaims.presets import Preset
from perfclaims.project import without_home
from perfclaims.scaling import measure_scaling
from perfclaims.statistics import binomial_interval
from perfclaims.tally import OutputTally
from perfclaims.workloads import WorkloadGenerator


class NotApplicable(BaseException):
    """Ends a claim's function: the claim cannot apply here. No `except Exception` swallows it."""


class Listener(Protocol):
    """Hears of evidence as it comes in; never called while something is timed."""

    def on_piece(self, piece: Piece) -> None:
        """A finished piece of evidence."""
        ...

    def on_progress(self, timing: Timing) -> None:
        """An unfinished comparison after one more pass."""
        ...

    def on_announcement(self, text: str) -> None:
        """Something that takes long is about to start."""
        ...


class Silent:
    """Listens to nothing."""

    def on_piece(self, piece: Piece) -> None:
        """Do nothing."""

    def on_progress(self, timing: Timing) -> None:
        """Do nothing."""

    def on_announcement(self, text: str) -> None:
        """Do nothing."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How a claim is measured: the preset, the confidence of its intervals, and the seed of everything."""

    preset: Preset
    confidence: float = 0.95
    seed: int = 0


class Experiment:
    """Collects the evidence for one claim.

    Attributes:
        preset: "fast", "normal", "rigorous", or a number of seconds.
        workloads: a WorkloadGenerator with the run's seed.
        rng: a generator of this claim's own.
    """

    def __init__(
        self,
        claim: Claim,
        settings: Settings,
        listener: Listener | None = None,
        time_left: Callable[[], float] = lambda: float("inf"),
    ) -> None:
        self._claim = claim
        self._settings = settings
        self._listener: Listener = listener or Silent()
        self._time_left = time_left
        self._pieces: list[Piece] = []
        self.preset = settings.preset.name
        self.workloads = WorkloadGenerator(settings.seed)
        self.rng = np.random.default_rng([settings.seed, zlib.crc32(claim.id.encode())])

    @property
    def pieces(self) -> tuple[Piece, ...]:
        """The evidence so far, in the order in which it was measured."""
        return tuple(self._pieces)

    def time(
        self,
        baseline: Implementation | Callable[..., Any],
        optimized: Implementation | Callable[..., Any],
        inputs: Inputs | None = None,
        label: str | None = None,
    ) -> ComparisonResult:
        """Time two implementations in pairs, for Speedup and Overhead; their outputs are for OutputsMatch.

        Args:
            baseline, optimized: Implementations, or plain callables (a single instance, graded so).
            inputs: `inputs(rng)` returns the arguments of a call as a tuple; without it there are none.
            label: names this piece of evidence.
        """
        with self._wanted(Timing, label):
            sides = (
                as_implementation("baseline", baseline, "baseline"),
                as_implementation("optimized", optimized, "optimized"),
            )
            if inputs is not None and not callable(inputs):
                raise ValueError(f"`inputs` must be callable as inputs(rng), or None, got {inputs!r}")
            request = Request(
                label=label,
                budget_s=self._settings.preset.budget_s,
                confidence=self._settings.confidence,
                seed=self._seed(label),
                threads=self._claim.threads,
                thresholds=deciding_speedups(self._claim, label),
                tolerances=self._tolerances(label),
                time_left=self._time_left,
                on_progress=self._listener.on_progress,
            )
            timing = measure(*sides, inputs, request)
            self._keep(timing)
        return summarise(timing)

    def outputs(self, expected: object, actual: object, label: str | None = None) -> None:
        """Compare two outputs without timing, for OutputsMatch."""
        with self._wanted(Outputs, label):
            tallies = [OutputTally(t) for t in self._tolerances(label) or (Tolerance(),)]
            for tally in tallies:
                tally.add(expected, actual, after=False)
            self._keep(Outputs(label, tuple(tally.check() for tally in tallies)))

    def sizes(self, baseline: int, optimized: int, label: str | None = None) -> None:
        """Bytes of both sides, exact, for SizeRatio."""
        with self._wanted(Sizes, label):
            for name, value in (("baseline", baseline), ("optimized", optimized)):
                if not is_number(value) or value != int(value) or value <= 0:
                    raise ValueError(f"`{name}` of sizes must be a positive number of bytes, got {value!r}")
            self._keep(Sizes(label, int(baseline), int(optimized)))

    def outcomes(self, baseline: npt.ArrayLike, optimized: npt.ArrayLike, label: str | None = None) -> None:
        """Right and wrong answers of both sides on the same examples, shape (n,), for AccuracyDrop."""
        with self._wanted(Outcomes, label):
            self._keep(Outcomes(label, *paired_outcomes(baseline, optimized)))

    def scaling(self, build_for_size: Callable[..., Any], sizes: Any, label: str | None = None) -> None:
        """Time what `build_for_size(size)` returns, at every size, for ScalingExponent."""
        with self._wanted(Scaling, label):
            found = measure_scaling(
                build_for_size,
                sizes,
                label=label,
                budget_s=self._settings.preset.budget_s,
                confidence=self._settings.confidence,
                seed=self._seed(label),
                threads=self._claim.threads,
                time_left=self._time_left,
            )
            self._keep(found)

    def value(
        self,
        name: str,
        number: float,
        unit: str | None = None,
        low: float | None = None,
        high: float | None = None,
        label: str | None = None,
    ) -> None:
        """A named number, exact unless an interval is given, for Value."""
        with self._wanted(Number, label, name):
            _check_text("name", name)
            for argument, value in (("number", number), ("low", low), ("high", high)):
                if (
                    not is_number(value)
                    and not (value is None and argument != "number")
                    and not isinstance(value, bool | np.bool_)
                ):
                    raise ValueError(f"`{argument}` of value {name!r} must be a finite number, got {value!r}")
            ends = (-np.inf if low is None else low), (np.inf if high is None else high)
            if not ends[0] <= number <= ends[1]:
                interval = f"[{low}, {high}]"
                raise ValueError(
                    f"`number` of value {name!r} must lie within its interval, got {number} in {interval}"
                )
            exact = [None if v is None else float(v) for v in (low, high)]
            self._keep(Number(label, name, float(number), unit, exact[0], exact[1]))

    def rate(self, name: str, successes: int, trials: int, label: str | None = None) -> None:
        """A named share of trials with its exact binomial interval, for Value."""
        with self._wanted(Number, label, name):
            _check_text("name", name)
            confidence = self._settings.confidence
            found = binomial_interval(successes, trials, confidence)
            number = Number(
                label,
                name,
                found.estimate,
                low=found.low,
                high=found.high,
                successes=int(successes),
                trials=int(trials),
                confidence=confidence,
            )
            self._keep(number)

    def announce(self, text: str) -> None:
        """Tell the person who waits that something long is about to start, and how long it takes."""
        _check_text("text", text)
        self._listener.on_announcement(text)

    def not_applicable(self, reason: str) -> None:
        """End the claim here: it cannot apply on this machine. Possible until something is measured."""
        _check_text("reason", reason)
        if self._pieces:
            raise ValueError(
                "not_applicable must come before anything is measured, or results could be hidden"
            )
        raise NotApplicable(reason)

    @contextmanager
    def _wanted(self, kind: type[Piece], label: str | None, name: str | None = None) -> Iterator[None]:
        """What was asked for and failed stays on record, also when the claim's function goes on."""
        title = " ".join([kind.kind, *(repr(part) for part in (name, label) if part is not None)])
        if any(self._same(piece, kind, label, name) for piece in self._pieces):
            raise ValueError(f"{title} was measured already; give each piece a `label` of its own")
        try:
            if label is not None:
                _check_text("label", label)
            yield
        except Exception as error:
            self._keep(Missing(label if isinstance(label, str) else None, title, describe_error(error)))
            raise

    @staticmethod
    def _same(piece: Piece, kind: type[Piece], label: str | None, name: str | None) -> bool:
        return isinstance(piece, kind) and piece.label == label and getattr(piece, "name", None) == name

    def _keep(self, piece: Piece) -> None:
        self._pieces.append(piece)
        self._listener.on_piece(piece)

    def _tolerances(self, label: str | None) -> tuple[Tolerance, ...]:
        criteria = [
            c for c in self._claim.criteria if isinstance(c, OutputsMatch) and c.label in (None, label)
        ]
        return tuple(dict.fromkeys(c.tolerance for c in criteria))

    def _seed(self, label: str | None) -> int:
        return zlib.crc32(f"{self._settings.seed} {self._claim.id} {label}".encode())


def deciding_speedups(claim: Claim, label: str | None) -> tuple[float, ...]:
    """Speedups at which the verdict can change; none where an early look could not see all of it."""
    found: set[float] = set()
    for criterion in claim.criteria:
        if criterion.label not in (None, label):
            continue
        if isinstance(criterion, Speedup):
            if criterion.over is not None:
                return ()
            found |= {float(criterion.at_least), float(criterion.worthwhile)}
        elif isinstance(criterion, Overhead):
            if criterion.at_most is None:
                return ()
            found.add(1 / (1 + criterion.at_most))
    return tuple(sorted(found))


def _check_text(argument: str, value: object) -> None:
    if not isinstance(value, str) or not value:
        raise ValueError(f"`{argument}` must be a non-empty string, got {value!r}")


def describe_error(error: BaseException) -> str:
    """`ValueError: text (raised by the optimised 'x')`, on one line and without the home folder."""
    notes = getattr(error, "__notes__", [])
    text = " ".join(str(error).split())
    said = f"{type(error).__name__}{': ' if text else ''}{text}" + (f" ({'; '.join(notes)})" if notes else "")
    return without_home(said)
