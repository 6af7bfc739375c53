"""Choosing claims and modules by name or pattern, with the nearest names where one is unknown."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

_MOST_NEAR = 3
_MOST_LISTED = 8
# Of a module: the 17 in module_17_quantization.
_NUMBER = re.compile(r"(?:^|_)(\d+)(?:_|$)")


def matching_claims(patterns: Sequence[str], ids: Sequence[str]) -> set[str]:
    """Ids that match one of the patterns (`*` and `?` as in a shell).

    Raises:
        ValueError: a pattern that matches nothing, with the nearest ids.
    """
    found: set[str] = set()
    for pattern in patterns:
        hits = [i for i in ids if _fits(i, pattern)]
        if not hits:
            raise ValueError(unknown("claim", pattern, ids))
        found.update(hits)
    return found


def left_out_by_module(patterns: Sequence[str], ids: Sequence[str], modules: Mapping[str, str]) -> str | None:
    """Say in which module the first claim is that is not among the ids; None where it is in none.

    Args:
        modules: the module of every claim that there is.
    """
    for pattern in patterns:
        if not any(_fits(i, pattern) for i in ids):
            homes = {home: None for i, home in modules.items() if _fits(i, pattern)}
            where = f"{', '.join(homes)}, which --module leaves out"
            return f"unknown claim {pattern!r} in the modules chosen; it is in {where}" if homes else None
    return None


def _fits(claim_id: str, pattern: str) -> bool:
    return claim_id == pattern or fnmatchcase(claim_id, pattern)


def matching_modules(wanted: Sequence[str], names: Sequence[str]) -> set[str]:
    """Modules named by number (`17`), by full name, or by the word after the number (`quantization`).

    Raises:
        ValueError: one that is unknown, with the nearest names.
    """
    found: set[str] = set()
    for word in wanted:
        hits = [name for name in names if word in _names_of(name)]
        if not hits:
            raise ValueError(
                f"{unknown('module', word, names)}{_by_number_or_name(_near(word, names) or names)}"
            )
        found.update(hits)
    return found


def _by_number_or_name(names: Sequence[str]) -> str:
    """How short a module's name may be, by example."""
    for name in names:
        if (number := _NUMBER.search(name)) and (word := name[number.end() :]):
            return f"; a number or a name will do: {number[1]} or {word} for {name}"
    return ""


def is_pattern(given: str) -> bool:
    """Whether a name stands for any that fit it."""
    return any(c in given for c in "*?[")


def unknown(kind: str, given: str, known: Iterable[str]) -> str:
    """Say what is unknown, and the nearest names: `unknown claim 'x'; the nearest are 'y'`."""
    known = list(known)
    family = [name for name in known if name.startswith(f"{given.rstrip('.')}.")]
    if given and family and not is_pattern(given):
        whole = f"{given.rstrip('.')}.*"
        return f"unknown {kind} {given!r}; {whole!r} means all of that family, {len(family)} in number"
    near = _near(given, known)
    if near:
        return f"unknown {kind} {given!r}; the nearest are {', '.join(map(repr, near))}"
    more = f" and {len(known) - _MOST_LISTED} more: --list shows all" if len(known) > _MOST_LISTED else ""
    return f"unknown {kind} {given!r}; known are: {', '.join(known[:_MOST_LISTED]) or 'none'}{more}"


def _near(given: str, known: Sequence[str]) -> list[str]:
    """Known names like the one given, or with a part like it, nearest first."""
    owners = {alias: name for name in known for alias in (*_words_of(name), name)}
    found = difflib.get_close_matches(given, owners, n=_MOST_NEAR, cutoff=0.5)
    word = given.strip("*?.").split(".")[-1]
    found = found or [name for name in known if word and word in name]
    return list(dict.fromkeys(owners[alias] for alias in found))[:_MOST_NEAR]


def _words_of(module: str) -> set[str]:
    """The words after the number of a module, by which it may be called; none of a claim's id."""
    return {name for name in _names_of(module) if not name.isdigit() and not name.startswith("test_")}


def _names_of(module: str) -> set[str]:
    names = {module, f"test_{module}", f"test_{module}.py"}
    number = _NUMBER.search(module)
    if number:
        names |= {number[1], str(int(number[1])), module[number.end() :]} - {""}
    return names
