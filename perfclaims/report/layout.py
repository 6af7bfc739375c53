"""Text on a screen: its width, wrapped paragraphs, and columns that stay readable when it is narrow."""

from __future__ import annotations

import os
import re
import shutil
import textwrap
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import TextIO

# Longer lines of running text are hard to read.
_WIDEST_TEXT = 110
# Columns further apart than this are hard to follow across.
_WIDEST_TABLE = 92
_NARROWEST_TABLE = 58
_GAP = "  "
_INTERVAL = re.compile(r"\[[^\[\] ]+, [^\[\] ]+\]( [ABCD]\*?(?= |$))?")
# textwrap breaks lines at ASCII blanks only.
_UNBROKEN = "\u00a0"


def width() -> int:
    """Columns of the screen; 100 where there is none."""
    return shutil.get_terminal_size((100, 24)).columns


def table_width() -> int:
    """Columns of a table: those of the screen within bounds, whatever the table holds."""
    return min(_WIDEST_TABLE, max(_NARROWEST_TABLE, width()))


def wrapped(text: str, indent: str = "") -> str:
    """A paragraph whose second and later lines hang by four columns."""
    return "\n".join(folded(text, min(_WIDEST_TEXT, width()), indent, indent + "    "))


def folded(text: str, columns: int, indent: str = "", hanging: str = "") -> list[str]:
    """Lines of at most so many columns; an interval such as `[1.9, 2.1] B` stays on one of them."""
    text = _INTERVAL.sub(lambda found: found[0].replace(" ", _UNBROKEN), " ".join(text.split()))
    lines = textwrap.wrap(
        text,
        columns,
        initial_indent=indent,
        subsequent_indent=hanging,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [line.replace(_UNBROKEN, " ") for line in lines] or [""]


def grid(header: Sequence[Sequence[str]], rows: Iterable[Sequence[str]], widths: Sequence[int]) -> str:
    """Rows of cells in columns of given widths, under one or more rows of headings.

    The last cell of a row is not padded, so that a row of one cell goes across all columns.
    """
    rule = ["-" * width for width in widths]
    return "\n".join(
        _GAP.join([*(cell.ljust(n) for cell, n in zip(row[:-1], widths, strict=False)), row[-1]]).rstrip()
        for row in (*header, rule, *rows)
    )


def columns_beside(*widths: int) -> list[int]:
    """Widths of a table's columns: the first takes what these others leave."""
    return [table_width() - sum(widths) - len(_GAP) * len(widths), *widths]


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
