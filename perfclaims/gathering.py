"""Calls the function of a declared claim and collects its evidence, whatever becomes of it."""

from __future__ import annotations

import inspect
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from perfclaims.claims import Claim
from perfclaims.codes import Reason
from perfclaims.environment import missing_cpu_flags
from perfclaims.evidence import Evidence, Trouble
from perfclaims.experiment import Experiment, Listener, NotApplicable, Settings, describe_error
from perfclaims.presets import Preset, as_preset
from perfclaims.project import place_of, project_root
from perfclaims.results import ClaimResult

Body = Callable[[Experiment], Any]


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
    trouble = None
    try:
        with _time_limit(limit_s):
            unmet = _unmet_requirement(declared.claim)
            if unmet is not None:
                return unmet
            declared.body(experiment)
    except NotApplicable as reason:
        if not experiment.pieces:
            return Evidence(not_applicable=str(reason))
        hidden = f"NotApplicable was raised after something was measured, which it would hide: {reason}"
        trouble = Trouble(Reason.RAISED, hidden)
    except TimeLimitReached as error:
        trouble = timed_out(limit_s, place_of(error, project_of(declared.body)))
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever it is, it is this claim's ERROR
        trouble = Trouble(Reason.RAISED, explained(error, project_of(declared.body)))
    return Evidence(tuple(experiment.pieces), trouble)


def timed_out(limit_s: float, place: str | None = None) -> Trouble:
    """The trouble of a claim that reached its limit, and where it was then."""
    at = f", at {place}" if place else ""
    return Trouble(
        Reason.TIMED_OUT,
        f"not finished after its limit of {limit_s:g} s{at}; raise `time_limit_s` or find what hangs",
    )


def explained(error: BaseException, project: Path) -> str:
    """An error on one line, with the innermost place in the project: for the author of a suite."""
    place = place_of(error, project)
    return describe_error(error) + (f" (at {place})" if place else "")


def project_of(func: Callable[..., Any]) -> Path:
    """The project in whose code a function stands."""
    code = getattr(inspect.unwrap(func), "__code__", None)
    return Path.cwd() if code is None else project_root(Path(code.co_filename))


def _unmet_requirement(claim: Claim) -> Evidence | None:
    flags = [r for r in claim.requires if isinstance(r, str)]
    missing = missing_cpu_flags(flags) if flags else ()
    if missing is None:
        reason = f"needs the CPU features {', '.join(flags)}, and those of this CPU cannot be read"
        return Evidence(not_applicable=reason, cpu_feature_missing=True)
    if missing:
        return Evidence(not_applicable=f"this CPU lacks {', '.join(missing)}", cpu_feature_missing=True)
    for requirement in claim.requires:
        if isinstance(requirement, str):
            continue
        unmet = requirement()
        if isinstance(unmet, str):
            return Evidence(not_applicable=unmet)
        if unmet is not None:
            name = getattr(requirement, "__name__", "of the claim")
            raise ValueError(f"requirement {name!r} must return None or the reason in words, got {unmet!r}")
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
