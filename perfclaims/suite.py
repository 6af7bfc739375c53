"""Declares claims and, inside the caller's process, runs them."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from perfclaims.claims import Claim, Requirement, Status
from perfclaims.criteria import Criterion
from perfclaims.evidence import Threads
from perfclaims.experiment import Listener, Settings
from perfclaims.gathering import Body, DeclaredClaim, run_claim
from perfclaims.plain_tests import PlainResult, plain_result
from perfclaims.presets import as_preset
from perfclaims.project import project_root
from perfclaims.results import ModuleResult
from perfclaims.selection import matching_claims

F = TypeVar("F", bound=Body)


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
            if not callable(body):
                raise ValueError(
                    f"claim {claim.id!r} must decorate a function of the experiment, got {body!r}"
                )
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
            seed: of arguments, order and memory layout.
            listener: hears of evidence as it comes in.

        Raises:
            ValueError: an unknown budget or id, or a seed that is none, before anything is measured.
        """
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
            raise ValueError(f"`seed` must be an integer of zero or more, got {seed!r}")
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
        if not isinstance(tests, Mapping):
            raise ValueError(f"`tests` of {name!r} must map names to functions, got {tests!r}")
        for test, func in tests.items():
            if not callable(func):
                raise ValueError(f"test {test!r} of {name!r} must be callable, got {func!r}")
        return {test: plain_result(func) for test, func in tests.items()}

    def main(self) -> None:
        """Run this suite's file from a terminal: call it under `if __name__ == "__main__":`.

        Raises:
            RuntimeError: it is called while the file is imported, or where there is no file.
        """
        from perfclaims.cli import main

        caller = sys._getframe(1)
        if caller.f_code.co_name == "<module>" and caller.f_globals.get("__name__") != "__main__":
            raise RuntimeError(
                f"suite.main() was called while {Path(caller.f_code.co_filename).name!r} is imported; put it "
                'under `if __name__ == "__main__":`'
            )
        file = getattr(sys.modules["__main__"], "__file__", None)
        if file is None:
            raise RuntimeError(
                "suite.main() needs a suite file to run; in an interactive session call suite.run()"
            )
        sys.exit(
            main(
                program=f"python {shlex.quote(file)}",
                paths=[Path(file)],
                output_dir=project_root(Path(file)) / "validation_results",
            )
        )
