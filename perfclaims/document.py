"""The document in a run file: strict JSON of one schema, checked when it is read."""

from __future__ import annotations

import functools
import json
import math
import sys
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jsonschema.protocols import Validator

SCHEMA = "perfclaims/run/1"
# Of a file and of the samples that unfold from it: several times what a rigorous run of 100 claims makes.
_MOST_BYTES = 1 << 28
_MOST_SAMPLES = 1 << 27
# Of a schema's complaint, which can quote the whole document.
_MOST_SHOWN = 200


class ArchiveError(Exception):
    """A run file that cannot be written or read; one sentence that names the file and what to do."""


def read_run(path: Path) -> dict[str, Any]:
    """The document in a run file, checked against the schema.

    Raises:
        ArchiveError: it cannot be read, is damaged, or is of another kind or version.
    """
    document = _json(path)
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        found = repr(document.get("schema")) if isinstance(document, dict) else "none"
        raise ArchiveError(f"'{path}' is not of the format {SCHEMA!r}: its schema is {found[:80]}")
    problem = schema_problem(document)
    if problem is not None:
        raise ArchiveError(f"'{path}' is damaged: {problem}")
    samples = _samples_in(document["modules"])
    if samples > _MOST_SAMPLES:
        raise ArchiveError(f"'{path}' is damaged: {samples} samples are more than any run makes")
    return document


def schema() -> dict[str, Any]:
    """The JSON Schema of run files."""
    text = resources.files("perfclaims").joinpath("schema/run-1.json").read_text(encoding="utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def schema_problem(document: dict[str, Any]) -> str | None:
    """What the schema finds wrong with a document, with its place; None when nothing."""
    from jsonschema.exceptions import best_match

    error = best_match(_validator().iter_errors(document))
    if error is None:
        return None
    place = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in error.absolute_path).lstrip(".")
    said = error.message
    if len(said) > _MOST_SHOWN:
        # The offending value comes first, what is wrong with it last.
        said = f"{said[: _MOST_SHOWN // 2]}...{said[-_MOST_SHOWN // 2 :]}"
    return f"{place or 'the document'}: {said}"


@functools.cache
def _validator() -> Validator:
    from jsonschema import Draft202012Validator

    return Draft202012Validator(schema())


def _json(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise ArchiveError(f"cannot read '{path}': {error.strerror or error}") from None
    except ValueError as error:  # a name that no file can have
        raise ArchiveError(f"cannot read {str(path)!r}: {error}") from None
    if not content.strip():
        raise ArchiveError(f"'{path}' is no run file: it is empty")
    if len(content) > _MOST_BYTES:
        raise ArchiveError(f"'{path}' is no run file: it is larger than {_MOST_BYTES >> 20} MB")
    try:
        return json.loads(
            content.decode("utf-8"),
            parse_constant=_no_constant,
            parse_float=_finite,
            parse_int=_bounded,
            object_pairs_hook=_without_repeats,
        )
    except UnicodeDecodeError as error:
        raise ArchiveError(f"'{path}' is no run file, or damaged: byte {error.start} is not UTF-8") from None
    except RecursionError:
        raise ArchiveError(f"'{path}' is no run file, or damaged: it is nested too deep") from None
    except ValueError as error:
        raise ArchiveError(f"'{path}' is no run file, or damaged: {error}") from None


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:40]} is beyond every float")
    return number


def _bounded(text: str) -> int:
    number = int(text)
    if abs(number) > sys.float_info.max:
        raise ValueError(f"{text[:40]} is beyond every float")
    return number


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"an object has {twice[:80]!r} twice")
    return content


def _samples_in(part: Any) -> int:
    """Samples in all packed columns of a part of the document, by what they say."""
    if isinstance(part, list):
        return sum(map(_samples_in, part))
    if isinstance(part, dict):
        packed = "data" in part and "length" in part
        return int(part["length"]) if packed else sum(map(_samples_in, part.values()))
    return 0
