"""A submission: a folder with a model, perhaps code, and submission.json, which says what they are."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinytorch.benchmarking.tinymlperf.events import EVENTS
from tinytorch.benchmarking.tinymlperf.files import (
    MOST_BYTES,
    SubmissionError,
    all_or_nothing,
    content_of,
    hash_of,
    source_of,
)
from tinytorch.benchmarking.tinymlperf.machine import describe_system, revision_of
from tinytorch.core.layers import Layer

SCHEMA = "tinytorch/submission/1"
MANIFEST = "submission.json"
WEIGHTS = "model.safetensors"
CODE = "model.py"
DIVISIONS = ("closed", "open")


@dataclass(frozen=True, slots=True)
class Submission:
    """What submission.json says, its files found and as they were hashed.

    Attributes:
        folder: where it lies.
        document: all of submission.json.
        weights: the model's file.
        code: the file of its own code, or None.
    """

    folder: Path
    document: Mapping[str, Any]
    weights: Path
    code: Path | None

    @property
    def name(self) -> str:
        """Who or what it is."""
        return str(self.document["name"])

    @property
    def event(self) -> str:
        """The event's name."""
        return str(self.document["event"])

    @property
    def division(self) -> str:
        """Either "closed" or "open"."""
        return str(self.document["division"])

    @property
    def kv_cache(self) -> bool:
        """Whether the model is to have a KV cache."""
        return bool(self.document["kv_cache"])

    @property
    def submission_id(self) -> str:
        """A hash of what is submitted: the same files for the same event are the same submission."""
        parts = {k: self.document[k] for k in ("name", "event", "division", "weights", "code", "kv_cache")}
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def pack(
    model: Layer | str | Path,
    folder: str | Path,
    *,
    name: str,
    event: str,
    division: str = "closed",
    code: str | Path | None = None,
    kv_cache: bool = False,
) -> Submission:
    """Make a submission's folder of a model, without a log yet.

    Args:
        model: a model, or a file that `save_model` wrote.
        folder: is made; it must not exist, or be empty.
        name: who or what it is.
        event: its event.
        division: "closed": the given weights, quantized at most; "open": anything.
        code: a file that defines `load(folder)`, for the open division.
        kv_cache: have `enable_kv_cache` called on the model.

    Raises:
        SubmissionError: an argument is none of those, or a file cannot be read or written; nothing is then
            left in the folder.
    """
    if not isinstance(folder, str | os.PathLike):
        raise SubmissionError(f"`folder` must be a path, got {type(folder).__name__}")
    target = Path(folder)
    own_code = None if code is None else source_of(code, "code", "a file of code")
    what = "a Layer, or a file of a model"
    source = model if isinstance(model, Layer) else source_of(model, "model", what)
    document = {
        "schema": SCHEMA,
        "name": name,
        "event": event,
        "division": division,
        "weights": {"file": WEIGHTS, "sha256": "0" * 64},  # filled in when the files are there
        "code": {"file": CODE, "sha256": "0" * 64} if own_code is not None else None,
        "kv_cache": kv_cache,
        "system": describe_system(),
        "revision": revision_of(Path.cwd()),
        "log": None,
    }
    _validated(document, target / MANIFEST)
    if kv_cache and not EVENTS[event].is_text:
        texts = ", ".join(name for name, known in EVENTS.items() if known.is_text)
        raise SubmissionError(
            f"`kv_cache` (--kv-cache) is for models that continue texts ({texts}), got it for {event}: leave "
            "it out"
        )
    try:
        if target.exists() and any(target.iterdir()):
            raise SubmissionError(f"`folder` must be new or empty, got '{target}', which holds files")
        with all_or_nothing(target, (WEIGHTS, CODE, MANIFEST)):
            return _filled(target, source, own_code, document)
    except OSError as error:
        raise SubmissionError(f"cannot pack '{target}': {error.strerror or error}") from None


def _filled(target: Path, source: Layer | Path, code: Path | None, document: dict[str, Any]) -> Submission:
    from tinytorch.core.models import save_model

    if isinstance(source, Layer):
        save_model(source, target / WEIGHTS)
    else:
        shutil.copyfile(source, target / WEIGHTS)
    document["weights"]["sha256"] = hash_of(target / WEIGHTS)
    if code is not None:
        shutil.copyfile(code, target / CODE)
        document["code"]["sha256"] = hash_of(target / CODE)
    _write(target / MANIFEST, document)
    return read_submission(target)


def read_submission(folder: str | Path) -> Submission:
    """Return a submission whose files are all there, inside its folder, and unchanged.

    Raises:
        SubmissionError: submission.json is missing, is no regular file, no JSON or does not fit the schema; a
            file lies outside of the folder, is missing or has another hash; the closed division with code.
    """
    base = Path(folder)
    path = base / MANIFEST
    try:
        document = json.loads(content_of(path), parse_constant=_no_constant)
    except SubmissionError:
        raise
    except OSError as error:
        raise SubmissionError(f"cannot read '{path}': {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise SubmissionError(f"'{path}' is no JSON: {error}") from None
    _validated(document, path)
    weights = _inside(base, document["weights"])
    code = None if document["code"] is None else _inside(base, document["code"])
    return Submission(base, document, weights, code)


def with_log(submission: Submission, log: Mapping[str, Any]) -> Submission:
    """Write the log of a run, and the machine it is from, into submission.json; nothing else changes."""
    document = {**submission.document, "system": describe_system(), "log": dict(log)}
    _validated(document, submission.folder / MANIFEST)
    _write(submission.folder / MANIFEST, document)
    return read_submission(submission.folder)


def _inside(folder: Path, named: Mapping[str, str]) -> Path:
    """Return a file of the submission, if it really lies in its folder and is what was hashed."""
    path, real = folder / named["file"], folder.resolve()
    try:
        target = path.resolve(strict=True)
    except (OSError, ValueError, RuntimeError):
        raise SubmissionError(
            f"'{folder / MANIFEST}' names {named['file']!r}, which does not exist"
        ) from None
    if not target.is_relative_to(real):
        raise SubmissionError(
            f"'{folder / MANIFEST}' names {named['file']!r}, which lies outside of the submission's folder"
        )
    if not target.is_file() or target.stat().st_size > MOST_BYTES:
        raise SubmissionError(f"{named['file']!r} of '{folder}' must be a file of at most 256 MB")
    if hash_of(target) != named["sha256"]:
        raise SubmissionError(
            f"{named['file']!r} of '{folder}' is not the file that was submitted: its SHA-256 differs from "
            f"that in {MANIFEST}; pack it again"
        )
    return target


@functools.cache
def _validator() -> Any:
    from jsonschema import Draft202012Validator

    schema = json.loads((Path(__file__).parent / "schema" / "submission-1.json").read_text("utf-8"))
    return Draft202012Validator(schema)


def _validated(document: Any, path: Path) -> None:
    from jsonschema.exceptions import best_match

    try:
        json.dumps(document, ensure_ascii=False, default=repr).encode()
    except UnicodeEncodeError:
        raise SubmissionError(
            f"'{path}' is no submission of {SCHEMA}: it has text that is none, with half of a surrogate pair"
        ) from None
    error = best_match(_validator().iter_errors(document))
    if error is not None:
        where = ".".join(map(str, error.absolute_path)) or "the whole"
        raise SubmissionError(f"'{path}' is no submission of {SCHEMA}: {where}: {error.message[:300]}")
    if document["division"] == "closed" and document["code"] is not None:
        raise SubmissionError(f"'{path}' brings code, which the closed division excludes: submit it as open")


def _write(path: Path, document: Mapping[str, Any]) -> None:
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("x", encoding="utf-8") as file:
            json.dump(document, file, allow_nan=False, separators=(",", ":"))
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise SubmissionError(f"cannot write '{path}': {error.strerror or error}") from None
    finally:
        temporary.unlink(missing_ok=True)


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is no JSON number")
