"""How nested values are looked into: by their raw storage, so that a class cannot hide or put off content."""

from __future__ import annotations

import dataclasses
import inspect
import types
from collections.abc import Callable, Iterable
from typing import Any

MAX_DEPTH = 100

_UNSET = object()
_PARTS: tuple[tuple[type, Callable[[Any], Iterable[object]]], ...] = (
    (list, list.__iter__),
    (tuple, tuple.__iter__),
    (dict, dict.values),
)


def too_deep(name: str) -> ValueError:
    """Return the error for a value that contains itself or is nested deeper than `MAX_DEPTH`."""
    return ValueError(
        f"`{name}` must be nested at most {MAX_DEPTH} levels deep, got a deeper one or one that contains "
        "itself: use a flatter structure"
    )


def parts(value: object) -> Iterable[object] | None:
    """Return what a list, tuple or dictionary holds, None for other values."""
    kind = type(value)  # isinstance would believe a forged `__class__`
    for base, held in _PARTS:
        if issubclass(kind, base):
            return held(value)
    return None


def numpy_method(value: object) -> Callable[[], object] | None:
    """Return the `.numpy` method of a Tensor-like object, None without one."""
    method = getattr(value, "numpy", None)
    return method if callable(method) else None


def stored_fields(value: object) -> dict[str, object] | None:
    """Return the fields of a dataclass instance as they are stored, None for other values.

    Properties and `__getattr__` are not run; a slot that is not set is missing from the result.
    """
    kind = type(value)
    if not dataclasses.is_dataclass(kind):
        return None
    found: dict[str, object] = {}
    for field in dataclasses.fields(kind):
        content = inspect.getattr_static(value, field.name, _UNSET)
        if type(content) is types.MemberDescriptorType:  # a slot: the class holds the way to the content
            try:
                content = content.__get__(value, kind)
            except AttributeError:
                content = _UNSET
        if content is not _UNSET:
            found[field.name] = content
    return found
