"""Two implementations in, a speedup with its interval out: pairing and statistics put together."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from perfclaims import wording
from perfclaims.activity import activity_between, busy_warning, take_snapshot
from perfclaims.claims import check_threads
from perfclaims.conditions import Conditions, measuring
from perfclaims.criteria import OutputsMatch, is_number
from perfclaims.evidence import OutputCheck, Threads, Timing
from perfclaims.implementation import Implementation, Inputs, as_implementation
from perfclaims.instances import LocalSource
from perfclaims.outputs import Tolerance
from perfclaims.pairing import Pairing
from perfclaims.pairing_run import PairingRun, as_samples
from perfclaims.ratio import Ratio, analyse


@dataclass(frozen=True, slots=True)
class Request:
    """Everything that fixes how one comparison is measured.

    Attributes:
        thresholds: speedups that can change the verdict; none: no early looks.
        tolerances: under each of these the outputs are compared.
        time_left: seconds until the measurement must be done.
        on_progress: called after every pass with the evidence so far.
    """

    label: str | None = None
    budget_s: float = 1.0
    confidence: float = 0.95
    seed: int = 0
    threads: Threads = 1
    thresholds: tuple[float, ...] = ()
    tolerances: tuple[Tolerance, ...] = ()
    time_left: Callable[[], float] = lambda: float("inf")
    on_progress: Callable[[Timing], None] = lambda timing: None


def measure(
    baseline: Implementation, optimized: Implementation, inputs: Inputs | None, request: Request
) -> Timing:
    """Time two implementations in randomised pairs and check their outputs.

    Raises whatever an implementation raises, with a note that names it.
    """
    start, before = time.perf_counter(), take_snapshot()
    with measuring(request.threads) as conditions:
        source = LocalSource(baseline, optimized, inputs, request.seed)

        def evidence(run: PairingRun) -> Timing:
            names = (baseline.name, optimized.name)
            return _as_evidence(run, names, source, request, conditions, time.perf_counter() - start)

        pairing = Pairing(
            source,
            budget_s=request.budget_s,
            confidence=request.confidence,
            thresholds=request.thresholds,
            tolerances=request.tolerances,
            seed=request.seed,
            time_left=request.time_left,
            on_pass=lambda run: request.on_progress(evidence(run)),
            setting_up=conditions.setting_up,
        )
        run = pairing.run()
        run.warn(*conditions.warnings())
        activity = activity_between(before, take_snapshot())
        busy = busy_warning(activity, threads=request.threads)
        run.warn(*([busy] if busy else []))
        return replace(evidence(run), activity=activity)


def _as_evidence(
    run: PairingRun,
    names: tuple[str, str],
    source: LocalSource,
    request: Request,
    conditions: Conditions,
    elapsed_s: float,
) -> Timing:
    pairing_s, last_round_s = run.pairing_ns / 1e9, run.last_round_ns / 1e9
    return Timing(
        label=request.label,
        baseline=names[0],
        optimized=names[1],
        plan=run.plan,
        samples=run.samples,
        last_round=as_samples(run.last_rows) if run.last_rows else None,
        last_calls=run.last_calls,
        fresh_arguments=source.fresh_arguments,
        decided_early=run.decided_early,
        looks_taken=run.looks_taken,
        stop_reason=run.stop_reason,
        outputs=tuple(tally.check() for tally in run.tallies),
        arguments_changed=run.arguments_changed,
        first_call_ns=run.first_call_ns,
        setup_s=max(0.0, elapsed_s - pairing_s - last_round_s),
        pairing_s=pairing_s,
        last_round_s=last_round_s,
        elapsed_s=elapsed_s,
        threads=conditions.threads,
        cpu=conditions.cpu,
        seed=request.seed,
        warnings=tuple(run.warnings),
    )


@dataclass(frozen=True, slots=True)
class SideSummary:
    """Times of one side, in milliseconds per call."""

    name: str
    median_time_ms: float
    mean_time_ms: float
    calls_per_sample: int
    first_call_ms: float


@dataclass(frozen=True, slots=True)
class ComparisonResult:
    """A comparison, analysed; `timing` holds every raw sample.

    Attributes:
        speedup, speedup_low, speedup_high: baseline time over optimised time with its interval; without an
            interval low is 0 and high is infinite.
        mean_speedup: ratio of the mean times, which sees rare slow paths that a median hides.
        outputs: `.matched` and `.message`; None when outputs were not compared.
        noise_grade: A to D, with a star when only one instance was measured.
        stop_reason: why measuring ended.
        warnings: sentences, each with its remedy.
    """

    timing: Timing
    ratio: Ratio
    baseline: SideSummary
    optimized: SideSummary
    outputs: OutputCheck | None

    @property
    def speedup(self) -> float:
        """Baseline time over optimised time."""
        return self.ratio.speedup.estimate

    @property
    def speedup_low(self) -> float:
        """Lower end of the interval of the speedup."""
        return self.ratio.speedup.low

    @property
    def speedup_high(self) -> float:
        """Upper end of the interval of the speedup."""
        return self.ratio.speedup.high

    @property
    def is_significant(self) -> bool:
        """Whether the interval excludes 1."""
        return self.ratio.speedup.excludes(1.0)

    @property
    def mean_speedup(self) -> float:
        """Ratio of the mean times."""
        return self.ratio.mean_speedup

    @property
    def instances(self) -> int:
        """How many times both sides were built."""
        return self.timing.plan.instances

    @property
    def pairs(self) -> int:
        """Pairs that were timed."""
        return len(self.timing.samples)

    @property
    def elapsed_s(self) -> float:
        """Seconds for everything: set-up, checks, timing, last round."""
        return self.timing.elapsed_s

    @property
    def stop_reason(self) -> str:
        """Why measuring ended."""
        return self.timing.stop_reason

    @property
    def noise_grade(self) -> str:
        """A (half width at most 0.25 %), B (1 %), C (5 %) or D; a star marks a single instance."""
        return self.ratio.noise_grade

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the reader should know, with remedies."""
        return self.timing.warnings

    def __str__(self) -> str:
        shown = wording.interval(self.speedup, self.speedup_low, self.speedup_high, "x")
        parts = (
            f"{self.optimized.name} against {self.baseline.name}: {self._problem}{shown}",
            f"noise {self.noise_grade}",
            _counted(self.instances, "instance"),
            _counted(self.pairs, "pair"),
            "outputs match" if self.outputs is not None and self.outputs.matched else "",
        )
        return ", ".join(part for part in parts if part) + self._doubt

    @property
    def _problem(self) -> str:
        """What makes the speedup worth nothing."""
        if self.timing.arguments_changed:
            return f"ARGUMENTS CHANGED: {self.timing.arguments_changed}; "
        if self.outputs is not None and self.outputs.comparisons and not self.outputs.matched:
            return f"OUTPUTS DIFFER: {self.outputs.message}; "
        return ""

    @property
    def _doubt(self) -> str:
        compared = self.outputs is not None and self.outputs.comparisons
        return "" if compared else "; OUTPUTS NOT COMPARED"


def _counted(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def summarise(timing: Timing) -> ComparisonResult:
    """Analyse one comparison's evidence."""
    ratio = analyse(timing)
    return ComparisonResult(
        timing=timing,
        ratio=ratio,
        baseline=SideSummary(
            timing.baseline,
            ratio.baseline_ms,
            ratio.baseline_mean_ms,
            timing.plan.baseline_calls,
            timing.first_call_ns[0] / 1e6,
        ),
        optimized=SideSummary(
            timing.optimized,
            ratio.optimized_ms,
            ratio.optimized_mean_ms,
            timing.plan.optimized_calls,
            timing.first_call_ns[1] / 1e6,
        ),
        outputs=timing.outputs[0] if timing.outputs else None,
    )


class PerformanceComparator:
    """Compares two implementations on the calls that are timed.

    Args:
        budget_s: seconds of timing per comparison; exceeded where calls are so slow that it would allow
            fewer pairs than an interval needs.
        confidence: of the interval.
        seed: of order, arguments and memory layout.
        threads: of BLAS and compiled code: a number, or "all".

    Raises:
        ValueError: an argument that makes no sense, by name.
    """

    def __init__(
        self, budget_s: float = 1.0, confidence: float = 0.95, seed: int = 0, threads: Threads = 1
    ) -> None:
        if not is_number(budget_s) or budget_s <= 0:
            raise ValueError(f"`budget_s` must be a positive number of seconds, got {budget_s!r}")
        if not is_number(confidence) or not 0 < confidence < 1:
            raise ValueError(f"`confidence` must lie between 0 and 1, got {confidence!r}")
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
            raise ValueError(f"`seed` must be an integer of zero or more, got {seed!r}")
        check_threads(threads, "PerformanceComparator")
        self.budget_s = float(budget_s)
        self.confidence = float(confidence)
        self.seed = seed
        self.threads: Threads = threads

    def compare_implementations(
        self,
        baseline: Implementation | Callable[..., Any],
        optimized: Implementation | Callable[..., Any],
        baseline_name: str = "baseline",
        optimized_name: str = "optimized",
        inputs: Inputs | None = None,
        claim_speedup: float | None = None,
        outputs: OutputsMatch | None = OutputsMatch(),  # noqa: B008 - frozen
    ) -> ComparisonResult:
        """Measure how many times faster `optimized` is.

        Args:
            baseline, optimized: Implementations, built anew for every instance, or plain callables, of which
                there is one instance only.
            baseline_name, optimized_name: of plain callables.
            inputs: `inputs(rng)` returns a tuple of arguments for both; without it the callables take none.
            claim_speedup: stops early once the measurement has decided about this speedup.
            outputs: how closely outputs must agree; None: they are not compared.

        Raises:
            ValueError: an argument that makes no sense, before anything is measured; and whatever an
                implementation raises, with a note that names it.
        """
        sides = (
            as_implementation("baseline", baseline, baseline_name),
            as_implementation("optimized", optimized, optimized_name),
        )
        if inputs is not None and not callable(inputs):
            raise ValueError(f"`inputs` must be callable as inputs(rng), or None, got {inputs!r}")
        if claim_speedup is not None and (not is_number(claim_speedup) or claim_speedup <= 0):
            raise ValueError(f"`claim_speedup` must be a positive number or None, got {claim_speedup!r}")
        if outputs is not None and not isinstance(outputs, OutputsMatch):
            raise ValueError(f"`outputs` must be OutputsMatch or None, got {outputs!r}")
        request = Request(
            budget_s=self.budget_s,
            confidence=self.confidence,
            seed=self.seed,
            threads=self.threads,
            thresholds=() if claim_speedup is None else (float(claim_speedup),),
            tolerances=() if outputs is None else (outputs.tolerance,),
        )
        return summarise(measure(*sides, inputs, request))
