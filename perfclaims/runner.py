"""Runs suites in workers, one claim at a time, and has the run recorded after every one of them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from perfclaims.archive import ArchiveError
from perfclaims.claims import Claim
from perfclaims.durations import Durations
from perfclaims.evidence import Evidence, Piece
from perfclaims.experiment import Settings
from perfclaims.process import Worker, WorkerError
from perfclaims.recorder import Recorder
from perfclaims.results import ClaimResult, ModuleResult
from perfclaims.selection import is_pattern, left_out_by_module, matching_claims, matching_modules


class View(Protocol):
    """Shows a run while it goes on."""

    def loading(self, suites: int) -> None:
        """Suites are being loaded."""
        ...

    def started(self, claim: Claim, takes_s: float, then_s: float) -> None:
        """A claim begins, which usually takes `takes_s` seconds; those after it take `then_s`."""
        ...

    def tick(self, news: Piece | str | None) -> None:
        """A piece of evidence, an announcement, or just time passing."""
        ...

    def finished(self, result: ClaimResult, printed: str, left_s: float) -> None:
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
    """One suite and the claims of it that were chosen; with an error instead where it could not be loaded."""

    file: Path
    worker: Worker
    error: str | None = None
    chosen: list[str] = field(default_factory=list)
    results: list[ClaimResult] = field(default_factory=list)
    duration_s: float = 0.0

    @property
    def name(self) -> str:
        """Name of the suite; of its file where it could not be loaded."""
        return self.worker.name

    @property
    def left(self) -> list[Claim]:
        """Chosen claims that have no result yet and are not left out by the preset."""
        ids = self.chosen[len(self.results) :]
        return [self.worker.claims[i] for i in ids if self.worker.left_out[i] is None]

    @property
    def done(self) -> bool:
        """Whether every chosen claim has its result."""
        return len(self.results) == len(self.chosen)

    def result(self) -> ModuleResult:
        """The module as far as it got."""
        return ModuleResult(self.name, self.worker.title, tuple(self.results), self.duration_s, self.error)


class Run:
    """A run over several suites; loads them.

    Args:
        files: suite files.
        settings: budget, confidence and seed.
        view: shows progress.
        durations: what claims usually take.
        modules, claims: which of them; None: all.

    Raises:
        ValueError: an unknown module or claim, or an id that two suites declare.
    """

    def __init__(
        self,
        files: Sequence[Path],
        settings: Settings,
        view: View,
        durations: Durations,
        *,
        modules: Sequence[str] | None = None,
        claims: Sequence[str] | None = None,
    ) -> None:
        self._settings = settings
        self._view = view
        self._durations = durations
        self._selection = {"modules": list(modules or []), "claims": list(claims or [])}
        view.loading(len(files))
        self.planned = [Planned(file, Worker(file, settings)) for file in files]
        try:
            self._load()
            self._choose(modules, claims)
        except BaseException:
            self.close()
            raise

    def _load(self) -> None:
        for planned in self.planned:
            try:
                planned.worker.load()
            except WorkerError as error:
                planned.error = str(error)

    def _choose(self, modules: Sequence[str] | None, claims: Sequence[str] | None) -> None:
        everywhere = {i: p.name for p in self.planned for i in p.worker.claims}
        if modules is not None:
            wanted = matching_modules(modules, [p.name for p in self.planned])
            self._keep([p for p in self.planned if p.name in wanted])
        owners = self._owners()
        chosen = set(owners)
        if claims is not None:
            try:
                chosen = matching_claims(claims, list(owners))
            except ValueError as error:
                unread = "; ".join(p.error for p in self.planned if p.error is not None)
                elsewhere = left_out_by_module(claims, list(owners), everywhere)
                raise ValueError("; ".join(filter(None, (elsewhere or str(error), unread)))) from None
        for planned in self.planned:
            planned.chosen = [i for i in planned.worker.claims if i in chosen]
        if claims is not None:
            # A suite that could not be loaded may hold claims that a pattern means; an id is found elsewhere.
            vague = any(is_pattern(claim) for claim in claims)
            self._keep([p for p in self.planned if p.chosen or (vague and p.error is not None)])

    def _owners(self) -> dict[str, str]:
        owners: dict[str, str] = {}
        for planned in self.planned:
            for claim_id in planned.worker.claims:
                if claim_id in owners:
                    raise ValueError(
                        f"claim {claim_id!r} is declared in {owners[claim_id]!r} and in {planned.name!r}; "
                        "ids must be unique"
                    )
                owners[claim_id] = planned.name
        return owners

    def _keep(self, kept: list[Planned]) -> None:
        for planned in self.planned:
            if planned not in kept:
                planned.worker.kill()
        self.planned = kept

    def close(self) -> None:
        """End all workers."""
        for planned in self.planned:
            planned.worker.kill()

    def recorder(self, folder: Path) -> Recorder:
        """A new run file in a folder.

        Raises:
            ArchiveError: the folder cannot be written to.
        """
        preset = self._settings.preset
        configuration: dict[str, Any] = {
            "budget": preset.name,
            "budget_s": preset.budget_s,
            "time_limit_s": preset.time_limit_s,
            "confidence": self._settings.confidence,
            "seed": self._settings.seed,
            **self._selection,
        }
        return Recorder(folder, configuration, self.planned[0].file)

    def execute(self, recorder: Recorder) -> None:
        """Measure all chosen claims and record the run after every one of them.

        On KeyboardInterrupt what is finished is kept and the exception goes on.

        Raises:
            ArchiveError: the run could not be recorded in the end; its results are in `modules()`.
        """
        warned = False
        try:
            for planned in self.planned:
                start = time.perf_counter()
                for claim_id in planned.chosen:
                    self._measure(planned, claim_id)
                    planned.duration_s = time.perf_counter() - start
                    try:
                        recorder.save([(p.result(), p.done) for p in self.planned])
                    except ArchiveError as error:
                        # It is tried again after the next claim; there may be space again.
                        if not warned:
                            self._view.warn(str(error))
                        warned = True
                planned.worker.kill()
        finally:
            self.close()
        recorder.finish(self.modules())

    def modules(self) -> list[ModuleResult]:
        """The modules as far as they got."""
        return [planned.result() for planned in self.planned]

    def expected_s(self, claim: Claim) -> float:
        """Seconds that a claim usually takes with this budget."""
        return self._durations.expected_s(claim)

    def _measure(self, planned: Planned, claim_id: str) -> None:
        worker, claim = planned.worker, planned.worker.claims[claim_id]
        start = time.perf_counter()
        left_out, printed = worker.left_out[claim_id], ""
        if left_out is not None:
            evidence = Evidence(not_run=left_out)
        else:
            takes_s = self.expected_s(claim)
            self._view.started(claim, takes_s, self._left_s() - takes_s)
            evidence = worker.measure(claim_id, self._view.tick)
            printed = worker.printed()
        result = ClaimResult.of(claim, evidence, time.perf_counter() - start)
        planned.results.append(result)
        self._view.finished(result, printed, self._left_s())

    def _left_s(self) -> float:
        return sum(self.expected_s(claim) for planned in self.planned for claim in planned.left)
