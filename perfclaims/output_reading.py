"""Outputs whose work may be put off until `.numpy()` is called, and outputs that share memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from types import NoneType
from typing import Any

import numpy as np

from perfclaims.output_tree import is_array, not_an_array
from perfclaims.storage import MemoryInUse, data_array
from perfclaims.structure import MAX_DEPTH, numpy_method, parts, stored_fields, too_deep

# Nothing is read inside these: they hold their content, and `.numpy` of a subclass is not asked.
_UNCHANGING = (np.generic, str, bytes, int, float, complex, frozenset, range, Enum, type, NoneType)
_HELD = (np.ndarray, bytearray, set, *_UNCHANGING)
# Answers of most implementations, told by one look-up.
_HELD_EXACTLY = frozenset({np.ndarray, np.float32, np.float64, np.int64, float, int, bool, str, type(None)})


def needs_reading(output: object) -> bool:
    """Tell whether an object with `.numpy()` is somewhere inside, so that its work may be yet to do.

    Raises:
        ValueError: the output is nested too deep or contains itself.
    """
    return _needs_reading(output, 0)


def read(output: object) -> object:
    """Return an output with every object that has `.numpy()` replaced by what that returns.

    Containers that were looked into are rebuilt as plain lists, tuples and dictionaries. It runs while the
    clock does, so an output without such objects should not be passed.

    Raises:
        ValueError: the output is nested too deep or contains itself.
    """
    return _read(output, 0)


def share_storage(outputs: Sequence[object]) -> bool:
    """Tell whether two of the outputs use the same memory, as those of one reused buffer do.

    Arrays count, also inside containers and behind `.data` or `.numpy()`, and lists, dictionaries and other
    objects that can change and are the same object. Two uses of memory within one output do not count.

    Raises:
        ValueError: an output is nested too deep or contains itself.
    """
    objects: set[int] = set()
    memory = MemoryInUse()
    for output in outputs:
        storages = list(_storages(output, 0))
        arrays = [storage for storage in storages if isinstance(storage, np.ndarray)]
        others = {id(storage) for storage in storages if not isinstance(storage, np.ndarray)}
        if others & objects or any(memory.touches(array) for array in arrays):
            return True
        objects |= others
        for array in arrays:
            memory.add(array)
    return False


def _needs_reading(value: object, depth: int) -> bool:
    if depth > MAX_DEPTH:
        raise too_deep("output")
    if type(value) in _HELD_EXACTLY:
        return False
    inside = parts(value)
    if inside is None:
        if issubclass(type(value), _HELD):
            return False
        if numpy_method(value) is not None:
            return True
        inside = (stored_fields(value) or {}).values()
    return any(_needs_reading(item, depth + 1) for item in inside)


def _read(value: object, depth: int) -> object:
    kind = type(value)
    if kind in _HELD_EXACTLY:
        return value
    if depth > MAX_DEPTH:
        raise too_deep("output")
    rebuild = _REBUILD.get(kind)
    if rebuild is None:
        rebuild = next((make for base, make in _REBUILD.items() if issubclass(kind, base)), None)
    if rebuild is not None:
        return rebuild(value, depth + 1)
    return value if issubclass(kind, _HELD) else _read_object(value, depth)


def _read_object(value: object, depth: int) -> object:
    method = numpy_method(value)
    if method is None:
        fields = stored_fields(value)
        return value if fields is None else _read(fields, depth + 1)
    answer = method()
    # An answer that would have to be read again has put its work off once more.
    return answer if is_array(answer) else not_an_array(type(value).__name__, answer)


_REBUILD: dict[type, Callable[[Any, int], object]] = {
    list: lambda value, depth: [_read(item, depth) for item in list.__iter__(value)],
    tuple: lambda value, depth: tuple([_read(item, depth) for item in tuple.__iter__(value)]),
    dict: lambda value, depth: {key: _read(item, depth) for key, item in dict.items(value)},
}


def _storages(value: object, depth: int) -> Iterator[object]:
    """Arrays, and objects that can change, in one output."""
    if depth > MAX_DEPTH:
        raise too_deep("output")
    if issubclass(type(value), np.ndarray):
        yield np.asarray(value)
        return
    inside = parts(value)
    if inside is None and issubclass(type(value), _UNCHANGING):
        return
    if not issubclass(type(value), tuple):
        yield value
    if inside is None:
        method = numpy_method(value)
        answer = None if method is None else method()
        inside = [data_array(value), answer, *(stored_fields(value) or {}).values()]
    for item in inside:
        yield from _storages(item, depth + 1)
