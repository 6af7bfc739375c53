"""New content for arguments in the storage of the old, so that an answer remembered by address is wrong."""

from __future__ import annotations

import types
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfclaims.contents import checksum, nbytes
from perfclaims.storage import MemoryInUse, array_of, overlap, owner
from perfclaims.structure import parts

__all__ = ["Overwritten", "checksum", "nbytes", "overwrite"]

PLAIN = (int, float, complex, str, bytes, np.generic, types.NoneType)
# Long lists of these are filled at once.
_NUMBERS = frozenset({int, float, bool, complex})
# What `Overwritten.replaced` calls the value as a whole.
WHOLE = "[...]"


@dataclass(frozen=True, slots=True)
class Overwritten:
    """The value to use from now on, what of it could not be overwritten, and whether any of it is new.

    `replaced` holds paths such as "[0]['mask']"; "[...]" is the value as a whole. `changed` is False when the
    new content equals the old. That is also so when both are the same object or the same memory, filled
    anew: what was there before is gone then, and only a `checksum` taken before can tell.
    """

    value: Any
    replaced: tuple[str, ...]
    changed: bool


def overwrite(old: object, new: object) -> Overwritten:
    """Put the content of `new` into the storage of `old`, as far as it goes, and return what to use.

    Filled and kept are writable arrays of the same type, shape and dtype; objects with such an array behind
    `.data` that agree in the plain values they hold besides; lists of equal length and dictionaries with
    equal keys, element by element. Tuples are kept unless an element has to be replaced. Everything else is
    replaced by what is in `new`, and named in `replaced` unless it is a number, string or None that did not
    change or stands within a list or dictionary that is kept.

    Nothing is written to memory that `new` uses as well, nor twice to memory that two arguments share: views
    of one data set, say, are replaced, because to overwrite one would spoil the data set.

    Raises:
        ValueError: a value is nested too deep or contains itself.
    """
    changed = checksum(old) != checksum(new)
    writer = _Writer(new)
    value = writer.put(old, new, "", within=False)
    return Overwritten(value, tuple(writer.replaced), changed)


class _Writer:
    """Writes to storage that neither the new value uses nor this writer has filled."""

    def __init__(self, new: object) -> None:
        self.replaced: list[str] = []
        self._memory = MemoryInUse()
        self._spared: dict[int, object] = {}  # containers and owners of arrays, by id; held to keep the ids
        for storage in _storages(new):
            if isinstance(storage, np.ndarray):
                self._memory.add(storage)
                self._spare(owner(storage))
            else:
                self._spare(storage)

    def put(self, old: object, new: object, path: str, *, within: bool) -> object:
        """Return what stands at `path` from now on; `within` says that a kept list or dictionary holds it."""
        if new is old:
            return old
        if isinstance(old, PLAIN) and isinstance(new, PLAIN):
            if within:
                return new
            if checksum(old) == checksum(new):
                return old
        elif type(old) is type(new):
            if isinstance(old, tuple) and isinstance(new, tuple) and len(old) == len(new):
                return self._tuple(old, new, path, within=within)
            if self._fill(old, new, path):
                return old
        self.replaced.append(path or WHOLE)
        return new

    def _spare(self, storage: object) -> None:
        self._spared[id(storage)] = storage

    def _tuple(
        self, old: tuple[object, ...], new: tuple[object, ...], path: str, *, within: bool
    ) -> tuple[object, ...]:
        pairs = list(zip(old, new, strict=True))
        items = [self.put(a, b, f"{path}[{i}]", within=within) for i, (a, b) in enumerate(pairs)]
        kept = all(a is b for a, b in zip(old, items, strict=True))
        return old if kept else tuple.__new__(type(old), items)

    def _fill(self, old: object, new: object, path: str) -> bool:
        """Fill `old` with the content of `new`, both of one type; False if it has to be replaced."""
        if isinstance(old, list) and isinstance(new, list):
            return len(old) == len(new) and self._fill_items(old, new, path, range(len(old)))
        if isinstance(old, dict) and isinstance(new, dict):
            return old.keys() == new.keys() and self._fill_items(old, new, path, list(old))
        target, source = array_of(old), array_of(new)
        if target is None or source is None or not _agree_otherwise(old, new):
            return False
        return self._fill_array(target, source) and _shows(old, target)

    def _fill_items(self, old: Any, new: Any, path: str, keys: Iterable[Any]) -> bool:
        if id(old) in self._spared:
            return checksum(old) == checksum(new)
        self._spare(old)
        if isinstance(old, list) and _NUMBERS.issuperset(map(type, [*old, *new])):
            old[:] = new
            return True
        for key in keys:
            old[key] = self.put(old[key], new[key], f"{path}[{key!r}]", within=True)
        return True

    def _fill_array(self, target: NDArray[Any], source: NDArray[Any]) -> bool:
        if target.shape != source.shape or target.dtype != source.dtype:
            return False
        if id(owner(target)) in self._spared or self._memory.touches(target):
            return checksum(target) == checksum(source)
        if not target.flags.writeable:
            return False
        np.copyto(target, source)
        self._memory.add(target)
        # A strided view can overlap itself, and then it does not hold what was written.
        return target.flags.forc or checksum(target) == checksum(source)


def _shows(value: object, written: NDArray[Any]) -> bool:
    """Whether what was written is the content of `value`, whose `.data` may have been a copy."""
    now = array_of(value)
    return now is not None and (now.size == 0 or overlap(now, written))


def _agree_otherwise(old: object, new: object) -> bool:
    """Whether two objects agree in what they hold besides the array, such as a scale or a mask."""
    return type(old) is np.ndarray or _plain_state(old) == _plain_state(new)


def _plain_state(value: object) -> dict[str, int]:
    data = array_of(value)
    state = dict(getattr(value, "__dict__", {}))
    for kind in type(value).__mro__:
        slots = [name for name, member in vars(kind).items() if type(member) is types.MemberDescriptorType]
        state |= {name: getattr(value, name) for name in slots if hasattr(value, name)}
    return {name: checksum(item) for name, item in state.items() if _comparable(item, data)}


def _comparable(item: object, data: NDArray[Any] | None) -> bool:
    if isinstance(item, np.ndarray):
        return data is None or not (item is data or overlap(item, data))
    return isinstance(item, (*PLAIN, list, tuple, dict))


def _storages(value: object) -> Iterator[object]:
    """Arrays, lists and dictionaries inside a value."""
    if isinstance(value, PLAIN):
        return
    array, inside = array_of(value), parts(value)
    if array is not None:
        yield array
    elif inside is not None:
        if not isinstance(value, tuple):
            yield value
        for item in inside:
            yield from _storages(item)
