"""Choosing claims and modules by name or pattern, with the nearest names where one is unknown."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

_MOST_NEAR = 3
_MOST_LISTED = 8


def matching_claims(patterns: Sequence[str], ids: Sequence[str]) -> set[str]:
    """Ids that match one of the patterns (`*` and `?` as in a shell).

    Raises:
        ValueError: a pattern that matches nothing, with the nearest ids.
    """
    found: set[str] = set()
    for pattern in patterns:
        hits = [i for i in ids if i == pattern or fnmatchcase(i, pattern)]
        if not hits:
            raise ValueError(unknown("claim", pattern, ids))
        found.update(hits)
    return found


def matching_modules(wanted: Sequence[str], names: Sequence[str]) -> set[str]:
    """Modules named by number (`17`), by full name, or by the word after the number (`quantization`).

    Raises:
        ValueError: one that is unknown, with the nearest names.
    """
    found: set[str] = set()
    for word in wanted:
        hits = [name for name in names if word in _names_of(name)]
        if not hits:
            raise ValueError(unknown("module", word, names))
        found.update(hits)
    return found


def is_pattern(given: str) -> bool:
    """Whether a name stands for any that fit it."""
    return any(c in given for c in "*?[")


def unknown(kind: str, given: str, known: Iterable[str]) -> str:
    """Say what is unknown, and the nearest names: `unknown claim 'x'; the nearest are 'y'`."""
    known = list(known)
    near = difflib.get_close_matches(given, known, n=_MOST_NEAR, cutoff=0.5)
    word = given.strip("*?.").split(".")[-1]
    near = near or [name for name in known if word and word in name][:_MOST_NEAR]
    if near:
        return f"unknown {kind} {given!r}; the nearest are {', '.join(map(repr, near))}"
    more = f" and {len(known) - _MOST_LISTED} more" if len(known) > _MOST_LISTED else ""
    return f"unknown {kind} {given!r}; known are: {', '.join(known[:_MOST_LISTED]) or 'none'}{more}"


def _names_of(module: str) -> set[str]:
    names = {module, f"test_{module}", f"test_{module}.py"}
    number = re.search(r"(?:^|_)(\d+)(?:_|$)", module)
    if number:
        names |= {number[1], str(int(number[1])), module[number.end() :]} - {""}
    return names
