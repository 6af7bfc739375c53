"""The run file: created exclusively, written atomically, checked when read, judged again from itself."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any

from perfclaims.codec import DecodeError
from perfclaims.records import read_claim, read_evidence, result_record
from perfclaims.results import ClaimResult, ModuleResult

SCHEMA = "perfclaims/run/1"
# A second run within the same second gets `_2`; nobody starts this many.
_MOST_IN_A_SECOND = 1000


class ArchiveError(Exception):
    """A run file that cannot be written or read; one sentence that names the file and what to do."""


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
                    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
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
            ArchiveError: no space, say; what was written before is still there.
        """
        temporary = self.path.with_name(f".{self.path.stem}.{os.getpid()}.tmp")
        try:
            text = json.dumps(document, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
            with temporary.open("w", encoding="utf-8") as file:
                file.write(text)
                file.write("\n")
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.path)
        except OSError as error:
            raise ArchiveError(
                f"cannot write '{self.path}': {error.strerror or error}; it holds what was written before"
            ) from None
        finally:
            temporary.unlink(missing_ok=True)

    def discard(self) -> None:
        """Remove the file, when nothing was measured after all."""
        self.path.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Rejudged:
    """A run judged again: modules as their evidence says now, and where the file says otherwise."""

    modules: tuple[ModuleResult, ...]
    differences: tuple[str, ...]
    interrupted: bool


def read_run(path: Path) -> dict[str, Any]:
    """The document in a run file, checked against the schema.

    Raises:
        ArchiveError: it cannot be read, is damaged, or is of another kind or version.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_constant)
    except OSError as error:
        raise ArchiveError(f"cannot read '{path}': {error.strerror or error}") from None
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        detail = "it is empty" if path.stat().st_size == 0 else str(error)
        raise ArchiveError(f"'{path}' is no run file, or damaged: {detail}") from None
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        found = document.get("schema") if isinstance(document, dict) else type(document).__name__
        raise ArchiveError(f"'{path}' is not of the format {SCHEMA!r}: its schema is {found!r}")
    problem = schema_problem(document)
    if problem is not None:
        raise ArchiveError(f"'{path}' is damaged: {problem}")
    return document


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


def schema() -> dict[str, Any]:
    """The JSON Schema of run files."""
    text = resources.files("perfclaims").joinpath("schema/run-1.json").read_text(encoding="utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def schema_problem(document: dict[str, Any]) -> str | None:
    """What the schema finds wrong with a document, with its place; None when nothing."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match

    error = best_match(Draft202012Validator(schema()).iter_errors(document))
    if error is None:
        return None
    place = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in error.absolute_path).lstrip(".")
    return f"{place or 'the document'}: {error.message[:200]}"


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
    if not document["interrupted"]:
        differences += _verdict_differences(document, modules)
    return Rejudged(tuple(modules), tuple(differences), document["interrupted"])


def _verdict_differences(document: dict[str, Any], modules: list[ModuleResult]) -> list[str]:
    from perfclaims.results import run_verdict

    pairs = [
        (f"module {m.module}", r["verdict"], m.verdict)
        for r, m in zip(document["modules"], modules, strict=True)
    ]
    pairs.append(("the run", document["verdict"], run_verdict(modules)))
    return [f"{name}: the file says {old}, its evidence says {new}" for name, old, new in pairs if old != new]


def _differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Where a claim's record does not say what its evidence says."""
    name = old["id"]
    found = [
        f"{name}: the file says {key} {old[key]}, its evidence says {new[key]}"
        for key in ("verdict", "reasons")
        if old[key] != new[key]
    ]
    for before, after in zip(old["criteria"], new["criteria"], strict=True):
        for key in ("outcome", "estimate", "low", "high"):
            if not _same(before[key], after[key]):
                found.append(
                    f"{name}: the file says {key} {before[key]} for {before['kind']}, its evidence says {after[key]}"
                )
    return found


def _same(old: Any, new: Any) -> bool:
    if isinstance(old, float | int) and isinstance(new, float | int):
        return math.isclose(old, new, rel_tol=1e-12, abs_tol=1e-12)
    return bool(old == new)
