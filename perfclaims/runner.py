"""Runs suites in workers, one claim at a time, and keeps the run file up to date."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from perfclaims.archive import SCHEMA, ArchiveError, RunFile
from perfclaims.claims import Claim
from perfclaims.environment import code_revision, describe_environment
from perfclaims.evidence import Evidence, Piece
from perfclaims.experiment import Settings
from perfclaims.process import Worker, WorkerFailed
from perfclaims.records import module_record
from perfclaims.results import ClaimResult, ModuleResult, run_verdict
from perfclaims.selection import matching_claims, matching_modules

# Of a claim that does not say how long it takes with the normal budget; and presets against that.
_USUAL_S = 5.0
_PACE = {"fast": 0.5, "normal": 1.0, "rigorous": 4.0}


class View(Protocol):
    """Shows a run while it goes on."""

    def loading(self, files: Sequence[Path]) -> None:
        """Suites are being loaded."""
        ...

    def started(self, claim: Claim, left_s: float) -> None:
        """A claim begins; about `left_s` seconds of the run are left."""
        ...

    def tick(self, news: Piece | str | None) -> None:
        """A piece of evidence, an announcement, or just time passing."""
        ...

    def finished(self, result: ClaimResult, printed: str) -> None:
        """A claim is judged; `printed` is what the suite itself wrote."""
        ...

    def warn(self, text: str) -> None:
        """Something went wrong that does not end the run."""
        ...

    def close(self) -> None:
        """Nothing more comes; leave the terminal as it was."""
        ...


@dataclass
class Planned:
    """One loaded suite and the claims of it that were chosen."""

    file: Path
    worker: Worker | None
    name: str
    title: str
    chosen: list[str] = field(default_factory=list)
    error: str | None = None
    results: list[ClaimResult] = field(default_factory=list)
    duration_s: float = 0.0
    done: bool = False

    def result(self) -> ModuleResult:
        """The module as far as it got."""
        return ModuleResult(self.name, self.title, tuple(self.results), self.duration_s, self.error)


class Run:
    """A run over several suites.

    Args:
        files: suite files.
        settings: budget, confidence and seed.
        modules, claims: which of them; None: all.
        view: shows progress.

    Raises:
        ValueError: an unknown module or claim, or an id that two suites declare.
    """

    def __init__(
        self,
        files: Sequence[Path],
        settings: Settings,
        view: View,
        *,
        modules: Sequence[str] | None = None,
        claims: Sequence[str] | None = None,
    ) -> None:
        self.settings = settings
        self._view = view
        self._selection = {"modules": list(modules or []), "claims": list(claims or [])}
        view.loading(files)
        self.planned = _loaded(files, settings)
        try:
            self._select(modules, claims)
        except BaseException:
            self.close()
            raise

    def _select(self, modules: Sequence[str] | None, claims: Sequence[str] | None) -> None:
        if modules is not None:
            wanted = matching_modules(modules, [p.name for p in self.planned])
            for left in [p for p in self.planned if p.name not in wanted]:
                self._forget(left)
        owners: dict[str, str] = {}
        for planned in self.planned:
            for claim_id in planned.worker.claims if planned.worker else ():
                if claim_id in owners:
                    raise ValueError(
                        f"claim {claim_id!r} is declared in {owners[claim_id]!r} and in {planned.name!r}; ids must be unique"
                    )
                owners[claim_id] = planned.name
        chosen = set(owners) if claims is None else matching_claims(claims, list(owners))
        for planned in list(self.planned):
            ids = planned.worker.claims if planned.worker else {}
            planned.chosen = [claim_id for claim_id in ids if claim_id in chosen]
            if claims is not None and not planned.chosen:
                self._forget(planned)

    def _forget(self, planned: Planned) -> None:
        if planned.worker is not None:
            planned.worker.kill()
        self.planned.remove(planned)

    def close(self) -> None:
        """End all workers."""
        for planned in self.planned:
            if planned.worker is not None:
                planned.worker.kill()

    def execute(self, run_file: RunFile) -> list[ModuleResult]:
        """Measure all chosen claims and write the run file after every one of them.

        On KeyboardInterrupt what is finished is kept and the exception goes on.

        Raises:
            ArchiveError: the file could not be written in the end; the results are in `modules()` all the same.
        """
        keeper = _Keeper(run_file, self)
        try:
            for planned in self.planned:
                start = time.perf_counter()
                for claim_id in planned.chosen:
                    self._measure(planned, claim_id)
                    planned.duration_s = time.perf_counter() - start
                    keeper.save(self._view)
                planned.done = True
                if planned.worker is not None:
                    planned.worker.kill()
        finally:
            self.close()
        keeper.finish()
        return self.modules()

    def configuration(self) -> dict[str, Any]:
        """How the run was asked for, for its file."""
        preset = self.settings.preset
        return {
            "budget": preset.name,
            "budget_s": preset.budget_s,
            "time_limit_s": preset.time_limit_s,
            "confidence": self.settings.confidence,
            "seed": self.settings.seed,
            **self._selection,
        }

    def code(self) -> dict[str, Any] | None:
        """Revision of the repository that holds the suites; None outside git."""
        revision = code_revision(self.planned[0].file.parent) if self.planned else None
        return None if revision is None else {"commit": revision.commit, "dirty": revision.dirty}

    def modules(self) -> list[ModuleResult]:
        """The modules as far as they got."""
        return [planned.result() for planned in self.planned]

    def _measure(self, planned: Planned, claim_id: str) -> None:
        assert planned.worker is not None
        claim = planned.worker.claims[claim_id]
        start = time.perf_counter()
        left_out = planned.worker.left_out[claim_id]
        if left_out is not None:
            evidence, printed = Evidence(not_run=left_out), ""
        else:
            self._view.started(claim, self.left_s())
            evidence, alive = planned.worker.measure(claim_id, self._view.tick)
            printed = planned.worker.printed()
            if not alive and claim_id != planned.chosen[-1]:
                self._restart(planned)
        result = ClaimResult.of(claim, evidence, time.perf_counter() - start)
        planned.results.append(result)
        self._view.finished(result, printed)

    def _restart(self, planned: Planned) -> None:
        assert planned.worker is not None
        try:
            planned.worker = planned.worker.restarted()
        except WorkerFailed as error:
            # It loaded before. What is left of this suite cannot be measured, the other suites can.
            planned.error = str(error)
            planned.chosen = planned.chosen[: len(planned.results) + 1]

    def left_s(self) -> float:
        """Seconds that the claims without a result usually take."""
        return sum(
            self.expected_s(planned, claim_id)
            for planned in self.planned
            if planned.worker is not None
            for claim_id in planned.chosen[len(planned.results) :]
            if planned.worker.left_out[claim_id] is None
        )

    def expected_s(self, planned: Planned, claim_id: str) -> float:
        """Seconds that a claim usually takes with this budget."""
        assert planned.worker is not None
        pace = _PACE.get(self.settings.preset.name, self.settings.preset.budget_s)
        return pace * (planned.worker.claims[claim_id].expected_s or _USUAL_S)


class _Keeper:
    """Keeps the run file up to date; a write that fails is tried again after the next claim."""

    def __init__(self, run_file: RunFile, run: Run) -> None:
        self._file = run_file
        self._run = run
        self._start = time.perf_counter()
        self._fixed = {
            "schema": SCHEMA,
            "run_id": run_file.run_id,
            "started_at": _now(),
            "configuration": run.configuration(),
            "environment": describe_environment(),
            "code": run.code(),
        }
        self._warned = False
        self._file.write(self._document(finished=False))

    def save(self, view: View) -> None:
        try:
            self._file.write(self._document(finished=False))
        except ArchiveError as error:
            if not self._warned:
                view.warn(str(error))
            self._warned = True

    def finish(self) -> None:
        self._file.write(self._document(finished=True))

    def _document(self, *, finished: bool) -> dict[str, Any]:
        modules = self._run.modules()
        verdict = run_verdict(modules) if finished else None
        return {
            **self._fixed,
            "finished_at": _now() if finished else None,
            "duration_s": time.perf_counter() - self._start,
            "interrupted": not finished,
            "verdict": verdict,
            "modules": [
                module_record(result, finished=planned.done)
                for result, planned in zip(modules, self._run.planned, strict=True)
            ],
        }


def _loaded(files: Sequence[Path], settings: Settings) -> list[Planned]:
    """Start all workers at once, then wait for each; a suite that cannot be loaded is an ERROR of its own."""
    workers = [(file, Worker(file, settings)) for file in files]
    planned = []
    try:
        for file, worker in workers:
            try:
                worker.load()
            except WorkerFailed as error:
                planned.append(Planned(file, None, worker.name, worker.title, error=str(error)))
            else:
                planned.append(Planned(file, worker, worker.name, worker.title))
    except BaseException:
        for _, worker in workers:
            worker.kill()
        raise
    return planned


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
