"""Text on a screen: its width, wrapped paragraphs, and columns that stay readable when it is narrow."""

from __future__ import annotations

import os
import shutil
import textwrap
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import TextIO

# Longer lines of running text are hard to read; tables are not.
_WIDEST_TEXT = 110
_GAP = "  "


def width() -> int:
    """Columns of the screen; 100 where there is none."""
    return shutil.get_terminal_size((100, 24)).columns


def wrapped(text: str, indent: str = "") -> str:
    """A paragraph whose second and later lines hang by four columns."""
    return textwrap.fill(
        " ".join(text.split()),
        min(_WIDEST_TEXT, width()),
        initial_indent=indent,
        subsequent_indent=indent + "    ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def grid(header: Sequence[str], rows: Iterable[Sequence[str]], widths: Sequence[int]) -> str:
    """Rows of cells in columns of given widths, under a header; the last column is not padded."""
    rule = ["-" * width for width in widths]
    return "\n".join(
        _GAP.join([*(cell.ljust(n) for cell, n in zip(row[:-1], widths, strict=False)), row[-1]]).rstrip()
        for row in (header, rule, *rows)
    )


def widths_of(rows: Iterable[Sequence[str]]) -> list[int]:
    """The widest cell of every column."""
    return [max(map(len, column)) for column in zip(*rows, strict=True)]


def room_beside(widths: Sequence[int]) -> int:
    """Columns left for one more column beside others."""
    return width() - sum(widths) - len(_GAP) * len(widths)


def write_line(stream: TextIO, text: str) -> None:
    """Write a line at once; a reader that has gone away (`| head`) ends nothing, nor does a missing letter.

    Raises:
        OSError: the stream cannot be written to, e.g. a full disk.
    """
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
        stream.flush()
    except BrokenPipeError:
        silence(stream)


def silence(stream: TextIO) -> None:
    """Send the rest of a stream nowhere: the interpreter must not stumble over it at its end either."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    with suppress(OSError):  # it has no file
        os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
