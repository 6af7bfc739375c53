"""Choosing claims and modules by name or pattern, with the nearest names where one is unknown."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase


def matching_claims(patterns: Sequence[str], ids: Sequence[str]) -> set[str]:
    """Ids that match one of the patterns (`*` and `?` as in a shell).

    Raises:
        ValueError: a pattern that matches nothing, with the nearest ids.
    """
    found: set[str] = set()
    for pattern in patterns:
        hits = [i for i in ids if fnmatchcase(i, pattern)]
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


def unknown(kind: str, given: str, known: Iterable[str]) -> str:
    """`unknown claim 'x': did you mean 'y'?`"""
    known = list(known)
    near = difflib.get_close_matches(given, known, n=3, cutoff=0.5)
    near = near or [name for name in known if given.strip("*").split(".")[-1] in name][:3]
    if near:
        return f"unknown {kind} {given!r}; the nearest are {', '.join(map(repr, near))}"
    listed = ", ".join(known) if known else "none"
    return f"unknown {kind} {given!r}; known are: {listed}"


def _names_of(module: str) -> set[str]:
    number = re.search(r"(?:^|_)(\d+)(?:_|$)", module)
    names = {module, f"test_{module}", f"test_{module}.py"}
    if number:
        names |= {number[1], str(int(number[1])), module[number.end() :]}
    return names
