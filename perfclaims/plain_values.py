"""Built-in values taken from their raw storage: what a subclass overrides has no say in what it holds."""

from __future__ import annotations

from collections.abc import Callable
from types import NoneType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfclaims.structure import MAX_DEPTH, too_deep

NOT_PLAIN = object()


def plain(value: object) -> object:
    """Return a value as an exact built-in immutable one, or `NOT_PLAIN`.

    Strings, bytes, numbers, None, ranges, and tuples and sets of these. Only what comes from here is compared
    by `==` or used as a key, because a class of the audited code could equal everything.
    """
    kind = type(value)  # isinstance would believe a forged `__class__`
    for base, take in _TAKE:
        if issubclass(kind, base):
            return take(value)
    return NOT_PLAIN


def integers(value: object) -> NDArray[Any] | None:
    """Return Python integers as an int64 array, else uint64, or None when neither holds all of them."""
    for dtype in (np.int64, np.uint64):
        try:
            return np.array(value, dtype=dtype)
        except OverflowError:
            continue
    return None


def rectangle(values: list[object]) -> tuple[NDArray[Any], bool] | None:
    """Return a rectangular list of numbers of one kind as an array, and whether they are Python integers.

    None for a ragged list, for other elements, and for kinds that do not mix: booleans with numbers, signed
    with unsigned, NumPy's integers with Python's. Python integers among floats become floats.

    Raises:
        ValueError: the list is nested too deep or contains itself.
    """
    if type(values) is not list:  # NumPy would call the `__array__` of a subclass
        values = list(list.__iter__(values))
    kinds = _kinds(values, 0)
    try:
        if kinds == {"int"}:
            found = integers(values)
            return None if found is None else (found, True)
        if kinds in ({"f", "int"}, {"c", "int"}, {"c", "f"}, {"c", "f", "int"}):
            return np.array(values, dtype=np.complex128 if "c" in kinds else np.float64), False
        if len(kinds) == 1 and "" not in kinds:
            return np.array(values), False
    except (ValueError, OverflowError):  # ragged, or an integer beyond float64
        return None
    return None


def _kinds(values: list[object], depth: int) -> set[str]:
    """Kinds of the numbers in a nested list, with "" for anything else."""
    if depth > MAX_DEPTH:
        raise too_deep("output")
    types = set(map(type, values))
    kinds = {_KIND_OF.get(kind, "") for kind in types if kind is not list}
    if "" not in kinds and list in types:
        kinds = kinds.union(*(_kinds(item, depth + 1) for item in values if type(item) is list))
    return kinds


def _all_plain(make: Callable[[Any], object], iterate: Callable[[Any], Any]) -> Callable[[Any], object]:
    def take(values: object) -> object:
        items = [plain(item) for item in iterate(values)]
        return NOT_PLAIN if any(item is NOT_PLAIN for item in items) else make(items)

    return take


def _scalar(value: np.generic) -> object:
    # A record could hold objects.
    return NOT_PLAIN if issubclass(type(value), np.void) else np.generic.__array__(value).item()


# Subclasses of numbers are left out: NumPy would call their `__int__`.
_KIND_OF: dict[type, str] = {
    **{np.dtype(code).type: np.dtype(code).kind for code in "?" + np.typecodes["AllInteger"]},
    **{np.dtype(code).type: np.dtype(code).kind for code in np.typecodes["AllFloat"]},
    bool: "b",
    int: "int",
    float: "f",
    complex: "c",
}

_TAKE: tuple[tuple[type, Callable[[Any], object]], ...] = (
    (NoneType, lambda value: value),
    (str, str.__str__),
    (bytes, lambda value: bytes.__getitem__(value, slice(None))),
    (bytearray, lambda value: bytes(bytearray.__getitem__(value, slice(None)))),
    (bool, lambda value: value),
    (np.generic, _scalar),
    (int, int.__int__),
    (float, float.__float__),
    (complex, complex.__complex__),
    (range, lambda value: value),
    (tuple, _all_plain(tuple, tuple.__iter__)),
    (frozenset, _all_plain(frozenset, frozenset.__iter__)),
    (set, _all_plain(frozenset, set.__iter__)),
)
