"""Files of submissions: written by others, so read with care, and written all or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

MOST_BYTES = 1 << 28


class SubmissionError(ValueError):
    """A submission that cannot be judged; the message says what is wrong with which file."""


def hash_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_of(path: Path) -> bytes:
    """Return what a file holds, which must end: a pipe may not, nor what a link to a device leads to.

    Raises:
        SubmissionError: it is no regular file, or larger than 256 MB.
        OSError: it cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))  # a pipe waits for a writer else
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise SubmissionError(f"'{path}' must be a regular file, got a folder, a pipe or a device")
        with open(descriptor, "rb", closefd=False) as file:
            content = file.read(MOST_BYTES + 1)
    finally:
        os.close(descriptor)
    if len(content) > MOST_BYTES:
        raise SubmissionError(f"'{path}' is larger than 256 MB, which no log is")
    return content


def source_of(path: Any, argument: str, what: str) -> Path:
    """Return the path of a file to pack, given as `argument`.

    Raises:
        SubmissionError: it is no path, or no regular file of at most 256 MB as `what` says.
    """
    if not isinstance(path, str | os.PathLike):
        raise SubmissionError(f"`{argument}` must be {what}, got {type(path).__name__}")
    source = Path(path)
    try:
        size = source.stat().st_size
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise SubmissionError(f"cannot pack '{source}': {why}; `{argument}` must be {what}") from None
    if not source.is_file() or size > MOST_BYTES:
        raise SubmissionError(f"`{argument}` must be {what} of at most 256 MB, got '{source}'")
    return source


@contextlib.contextmanager
def all_or_nothing(folder: Path, names: Iterable[str]) -> Iterator[None]:
    """Make a folder for files of these names; where the block raises, they and what was made are removed."""
    made = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        for name in names:
            (folder / name).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # others put something there meanwhile
            for parent in made:
                parent.rmdir()
        raise
