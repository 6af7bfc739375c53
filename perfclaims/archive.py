"""The run file: created exclusively, written atomically, judged again from itself."""

from __future__ import annotations

import contextlib
import json
import math
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from perfclaims.codec import DecodeError
from perfclaims.document import SCHEMA, ArchiveError, read_run
from perfclaims.records import read_claim, read_evidence, result_record
from perfclaims.results import ClaimResult, ModuleResult, run_verdict

__all__ = ["SCHEMA", "ArchiveError", "Rejudged", "RunFile", "read_run", "rejudge"]

# A second run within the same second gets `_2`; nobody starts this many.
_MOST_IN_A_SECOND = 1000


class RunFile:
    """One file of a run, on disk from its first moment on.

    Raises:
        ArchiveError: the folder cannot be made or written to.
    """

    def __init__(self, folder: Path, now: datetime | None = None) -> None:
        stamp = (now or datetime.now(UTC)).strftime("%Y%m%dT%H%M%SZ")
        self.path = self._create(folder, stamp)
        self.run_id = self.path.stem.removeprefix("validation_")

    @staticmethod
    def _create(folder: Path, stamp: str) -> Path:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for number in range(1, _MOST_IN_A_SECOND):
                path = folder / f"validation_{stamp}{'' if number == 1 else f'_{number}'}.json"
                try:
                    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
                except FileExistsError:
                    continue
                return path
        except OSError as error:
            raise ArchiveError(
                f"cannot write run files to '{folder}': {error.strerror or error}; choose another folder "
                "with --output-dir"
            ) from None
        raise ArchiveError(f"'{folder}' holds {_MOST_IN_A_SECOND - 1} runs of this second; wait a moment")

    def write(self, document: dict[str, Any]) -> None:
        """Replace the content in one step: a reader sees the old document or the new one, never half of it.

        Raises:
            ArchiveError: no space, say, or something that strict JSON cannot hold; what was written before is
                still there.
        """
        temporary = self.path.with_name(f".{self.path.stem}.{os.getpid()}.tmp")
        try:
            text = json.dumps(document, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
            with temporary.open("wb") as file:
                # File names that are no UTF-8 reach messages as lone surrogates: those become JSON escapes.
                file.write(text.encode("utf-8", "backslashreplace"))
                file.write(b"\n")
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.path)
        except (OSError, TypeError, ValueError) as error:
            problem = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise ArchiveError(
                f"cannot write '{self.path}': {problem}; it holds what was written before"
            ) from None
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)

    def discard(self) -> None:
        """Remove the file, when nothing was measured after all."""
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Rejudged:
    """A run judged again: modules as their evidence says now, and where the file says otherwise."""

    modules: tuple[ModuleResult, ...]
    differences: tuple[str, ...]
    interrupted: bool


def rejudge(path: Path) -> Rejudged:
    """Judge every claim of a run file again, from the evidence in it and nothing else.

    Raises:
        ArchiveError: the file cannot be read or is damaged.
    """
    document = read_run(path)
    modules, differences = [], []
    try:
        for module in document["modules"]:
            results = []
            for record in module["claims"]:
                result = ClaimResult.of(read_claim(record), read_evidence(record), record["duration_s"])
                results.append(result)
                differences += _differences(record, result_record(result))
            modules.append(
                ModuleResult(
                    module["module"], module["title"], tuple(results), module["duration_s"], module["error"]
                )
            )
    except DecodeError as error:
        raise ArchiveError(f"'{path}' is damaged: {error}") from None
    except (ArithmeticError, ValueError) as error:
        raise ArchiveError(f"'{path}' cannot be judged again: {error}") from None
    differences += _verdict_differences(document, modules)
    return Rejudged(tuple(modules), tuple(differences), document["interrupted"])


def _verdict_differences(document: dict[str, Any], modules: list[ModuleResult]) -> list[str]:
    said = [
        (f"module {module.module}", record["verdict"], module.verdict)
        for record, module in zip(document["modules"], modules, strict=True)
        # In an interrupted run some modules were not finished.
        if record["verdict"] is not None or not document["interrupted"]
    ]
    if not document["interrupted"]:
        said.append(("the run", document["verdict"], run_verdict(modules)))
    return [
        f"{name}: the file says {old or 'no verdict'}, its evidence says {new or 'no verdict'}"
        for name, old, new in said
        if old != new
    ]


def _differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Where a claim's record does not say what its evidence says."""
    found = [
        f"{old['id']}: the file says {_said(key, old[key])}, its evidence says {_said(key, new[key])}"
        for key in ("verdict", "reasons")
        if old[key] != new[key]
    ]
    for before, after in zip(old["criteria"], new["criteria"], strict=True):
        found += [
            f"{old['id']}, {before['kind']}: the file says {_said(key, before[key])}, "
            f"its evidence says {_said(key, after[key])}"
            for key in ("outcome", "estimate", "low", "high")
            if not _same(before[key], after[key])
        ]
        if [f["outcome"] for f in before["findings"]] != [f["outcome"] for f in after["findings"]]:
            found.append(
                f"{old['id']}, {before['kind']}: the file lists other findings than its evidence gives"
            )
    return found


def _said(key: str, value: Any) -> str:
    if key == "verdict":
        return str(value)
    if key == "reasons":
        return f"for the reasons {', '.join(value)}" if value else "for no reason"
    return f"{key} {'none' if value is None else value}"


def _same(old: Any, new: Any) -> bool:
    if isinstance(old, float | int) and isinstance(new, float | int):
        return math.isclose(old, new, rel_tol=1e-12, abs_tol=1e-12)
    return bool(old == new)
