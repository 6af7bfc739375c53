"""Keeps the file of a run up to date while the run goes on."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from perfclaims.archive import SCHEMA, ArchiveError, RunFile
from perfclaims.environment import code_revision, describe_environment
from perfclaims.records import module_record
from perfclaims.results import ModuleResult, run_verdict


class Recorder:
    """The file of one run, readable at any moment and marked as interrupted until it is finished.

    Args:
        folder: of run files.
        configuration: how the run was asked for.
        suite: a suite file; the revision of the repository that holds it is recorded.

    Raises:
        ArchiveError: the folder cannot be written to; no file is left behind.
    """

    def __init__(self, folder: Path, configuration: dict[str, Any], suite: Path) -> None:
        self._start = time.perf_counter()
        known = {
            "started_at": _now(),
            "configuration": configuration,
            "environment": describe_environment(),
            "code": _code(suite),
        }
        # What takes a while is known before there is a file: it is never found empty.
        self._file = RunFile(folder)
        self._known = {"schema": SCHEMA, "run_id": self._file.run_id, **known}
        try:
            self.save([])
        except ArchiveError:
            self._file.discard()
            raise

    @property
    def path(self) -> Path:
        """Where the file is."""
        return self._file.path

    def save(self, modules: Sequence[tuple[ModuleResult, bool]]) -> None:
        """Write what is known so far.

        Args:
            modules: each with whether all its claims are done.

        Raises:
            ArchiveError: it could not be written; the file holds what was written before.
        """
        self._write(modules, finished_at=None, verdict=None)

    def finish(self, modules: Sequence[ModuleResult]) -> None:
        """Write the finished run.

        Raises:
            ArchiveError: it could not be written; the file holds what was written before.
        """
        self._write([(m, True) for m in modules], finished_at=_now(), verdict=run_verdict(modules))

    def _write(
        self, modules: Sequence[tuple[ModuleResult, bool]], *, finished_at: str | None, verdict: str | None
    ) -> None:
        self._file.write(
            {
                **self._known,
                "finished_at": finished_at,
                "duration_s": time.perf_counter() - self._start,
                "interrupted": finished_at is None,
                "verdict": verdict,
                "modules": [module_record(module, finished=done) for module, done in modules],
            }
        )


def _code(suite: Path) -> dict[str, Any] | None:
    revision = code_revision(suite.parent)
    return None if revision is None else {"commit": revision.commit, "dirty": revision.dirty}


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
