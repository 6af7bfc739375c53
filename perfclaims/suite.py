"""Declares claims and, inside the caller's process, runs them."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any, TypeVar

import numpy as np

from perfclaims.claims import Claim, Requirement, Status
from perfclaims.codes import Reason, Verdict
from perfclaims.comparison import ComparisonResult
from perfclaims.criteria import Criterion
from perfclaims.environment import missing_cpu_flags
from perfclaims.evidence import Evidence, Threads, Trouble
from perfclaims.experiment import Experiment, Listener, NotApplicable, Settings, describe_error
from perfclaims.presets import Preset, as_preset
from perfclaims.results import ClaimResult, ModuleResult
from perfclaims.selection import matching_claims

Body = Callable[[Experiment], Any]
F = TypeVar("F", bound=Body)


class TimeLimitReached(BaseException):
    """Ends a claim's function at its limit. No `except Exception` swallows it."""


@dataclass(frozen=True)
class DeclaredClaim:
    """A claim and the function that measures it."""

    claim: Claim
    body: Body

    def time_limit_s(self, preset: Preset) -> float:
        """Seconds after which the claim is an ERROR."""
        return self.claim.time_limit_s or preset.time_limit_s

    def left_out(self, preset: Preset) -> str | None:
        """Why the preset leaves this claim out; None where it does not."""
        if not self.claim.slow or preset.runs_slow:
            return None
        expected = self.claim.expected_s
        needs = f"about {expected:g} s" if expected else f"up to {self.time_limit_s(as_preset('normal')):g} s"
        return f"left out of {preset.name} runs: it needs {needs}; run it with the normal budget"


class PerformanceTestSuite:
    """The claims of one module.

    Args:
        name: such as "module_17_quantization".
        title: for people.

    Raises:
        ValueError: a name that is empty or has spaces.
    """

    def __init__(self, name: str, title: str = "") -> None:
        if not isinstance(name, str) or not name or any(c.isspace() for c in name):
            raise ValueError(f"`name` of a suite must be a non-empty string without spaces, got {name!r}")
        self.name = name
        self.title = title or name
        self.declared: dict[str, DeclaredClaim] = {}

    def claim(
        self,
        id: str,  # noqa: A002 - the contract's name
        statement: str,
        *,
        source: str = "",
        criteria: Sequence[Criterion],
        status: Status = "asserted",
        threads: Threads = 1,
        time_limit_s: float | None = None,
        slow: bool = False,
        expected_s: float | None = None,
        requires: Sequence[Requirement] = (),
    ) -> Callable[[F], F]:
        """Declare a claim; decorates the function `body(experiment)` that measures it.

        Arguments are those of Claim.

        Raises:
            ValueError: an argument that makes no sense, or an id that is taken.
        """
        claim = Claim(
            id, statement, source, criteria, status, threads, time_limit_s, slow, expected_s, requires
        )
        if claim.id in self.declared:
            raise ValueError(
                f"claim {claim.id!r} is declared twice in suite {self.name!r}; ids must be unique"
            )

        def declare(body: F) -> F:
            self.declared[claim.id] = DeclaredClaim(claim, body)
            return body

        return declare

    @property
    def claims(self) -> tuple[Claim, ...]:
        """The declared claims, in order."""
        return tuple(d.claim for d in self.declared.values())

    def run(
        self,
        budget: str | float = "normal",
        only: str | Sequence[str] | None = None,
        *,
        seed: int = 0,
        listener: Listener | None = None,
    ) -> ModuleResult:
        """Measure and judge the claims in this process.

        A time limit interrupts Python code here, and only in the main thread; compiled code that hangs is
        ended by `python -m perfclaims run` alone, which measures in a process that it can kill.

        Args:
            budget: "fast", "normal", "rigorous", or seconds per comparison.
            only: an id or pattern, or several; None: all claims.

        Raises:
            ValueError: an unknown budget or id, before anything is measured.
        """
        settings = Settings(as_preset(budget), seed=seed)
        patterns = [only] if isinstance(only, str) else only
        chosen = set(self.declared) if patterns is None else matching_claims(patterns, list(self.declared))
        start = time.perf_counter()
        results = tuple(
            run_claim(declared, settings, listener)
            for id_, declared in self.declared.items()
            if id_ in chosen
        )
        return ModuleResult(self.name, self.title, results, time.perf_counter() - start)

    def run_module_tests(
        self, name: str, tests: Mapping[str, Callable[[], object]]
    ) -> dict[str, PlainResult]:
        """Run plain test functions, for suites that have no declared claims.

        True or None is a PASS, False a FAIL, a comparison a PASS when its `speedup_low` is above 1 and its
        outputs match, an AssertionError a FAIL, and any other exception an ERROR.

        Raises:
            ValueError: `name` is no name, or a test cannot be called, before any is run.
        """
        if not isinstance(name, str) or not name:
            raise ValueError(f"`name` must be a non-empty string, got {name!r}")
        for test, func in tests.items():
            if not callable(func):
                raise ValueError(f"test {test!r} of {name!r} must be callable, got {func!r}")
        return {test: _plain_result(func) for test, func in tests.items()}

    def main(self) -> None:
        """Run this suite's file from a terminal: call it under `if __name__ == "__main__":`."""
        from perfclaims.cli import main

        file = getattr(sys.modules["__main__"], "__file__", None)
        if file is None:
            raise RuntimeError(
                "suite.main() needs a suite file to run; in an interactive session call suite.run()"
            )
        sys.exit(main(["run", file, *sys.argv[1:]]))


@dataclass(frozen=True, slots=True)
class PlainResult:
    """Result of a plain test function; `value` is what it returned."""

    verdict: Verdict
    reasons: tuple[Reason, ...]
    summary: str
    value: object = None


def run_claim(declared: DeclaredClaim, settings: Settings, listener: Listener | None = None) -> ClaimResult:
    """Measure and judge one claim in this process."""
    start = time.perf_counter()
    evidence = gather(declared, settings, listener)
    return ClaimResult.of(declared.claim, evidence, time.perf_counter() - start)


def gather(declared: DeclaredClaim, settings: Settings, listener: Listener | None = None) -> Evidence:
    """Call a claim's function and collect its evidence, whatever becomes of it."""
    left_out = declared.left_out(settings.preset)
    if left_out is not None:
        return Evidence(not_run=left_out)
    limit_s = declared.time_limit_s(settings.preset)
    deadline = time.monotonic() + limit_s
    experiment = Experiment(declared.claim, settings, listener, lambda: deadline - time.monotonic())
    try:
        unmet = _unmet_requirement(declared.claim)
        if unmet is not None:
            return unmet
        with _time_limit(limit_s):
            declared.body(experiment)
    except NotApplicable as reason:
        return Evidence(not_applicable=str(reason))
    except TimeLimitReached:
        return Evidence(tuple(experiment.pieces), timed_out(limit_s))
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever it is, it is this claim's ERROR
        return Evidence(tuple(experiment.pieces), Trouble(Reason.RAISED, describe_error(error)))
    return Evidence(tuple(experiment.pieces))


def timed_out(limit_s: float) -> Trouble:
    """The trouble of a claim that reached its limit."""
    return Trouble(
        Reason.TIMED_OUT,
        f"not finished after its limit of {limit_s:g} s; raise `time_limit_s` or find what hangs",
    )


def _unmet_requirement(claim: Claim) -> Evidence | None:
    flags = [r for r in claim.requires if isinstance(r, str)]
    missing = missing_cpu_flags(flags) if flags else ()
    if missing is None:
        reason = f"needs the CPU features {', '.join(flags)}, and those of this CPU cannot be read"
        return Evidence(not_applicable=reason, cpu_feature_missing=True)
    if missing:
        return Evidence(not_applicable=f"this CPU lacks {', '.join(missing)}", cpu_feature_missing=True)
    for requirement in claim.requires:
        reason_or_none = None if isinstance(requirement, str) else requirement()
        if reason_or_none is not None:
            return Evidence(not_applicable=str(reason_or_none))
    return None


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Raise TimeLimitReached in the main thread after `seconds`, where the system has alarms."""
    if not hasattr(signal, "SIGALRM") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(_signal: int, _frame: FrameType | None) -> None:
        raise TimeLimitReached

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _plain_result(func: Callable[[], object]) -> PlainResult:
    try:
        value = func()
    except AssertionError as error:
        return PlainResult(Verdict.FAIL, (Reason.NO_BENEFIT,), describe_error(error))
    except Exception as error:  # noqa: BLE001 - whatever it is, it is this test's ERROR
        return PlainResult(Verdict.ERROR, (Reason.RAISED,), describe_error(error))
    if isinstance(value, ComparisonResult):
        return _plain_comparison(value)
    if value is None or (isinstance(value, bool | np.bool_) and value):
        return PlainResult(Verdict.PASS, (), "it held", value)
    if isinstance(value, bool | np.bool_):
        return PlainResult(Verdict.FAIL, (Reason.NO_BENEFIT,), "it returned False", value)
    summary = f"expected True, False, None or a comparison, got {type(value).__name__}"
    return PlainResult(Verdict.ERROR, (Reason.EVIDENCE_MISSING,), summary, value)


def _plain_comparison(value: ComparisonResult) -> PlainResult:
    if value.timing.arguments_changed:
        return PlainResult(Verdict.FAIL, (Reason.ARGUMENTS_CHANGED,), value.timing.arguments_changed, value)
    if value.outputs is not None and not value.outputs.matched:
        return PlainResult(Verdict.FAIL, (Reason.OUTPUTS_DIFFER,), value.outputs.message, value)
    if value.speedup_low > 1:
        return PlainResult(Verdict.PASS, (), str(value), value)
    reason = Reason.NO_BENEFIT if value.speedup_high < 1.1 else Reason.UNDECIDED
    return PlainResult(Verdict.FAIL, (reason,), str(value), value)
