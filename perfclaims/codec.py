"""Evidence as strict JSON and back: frozen dataclasses field by field, sample arrays packed."""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from enum import Enum
from typing import Any

import numpy as np

from perfclaims.packing import PackingError, pack, unpack

# Metadata of a field that stays out of files; it needs a default.
NOT_RECORDED = types.MappingProxyType({"recorded": False})
# Of a value in a message.
_MOST_SHOWN = 80


class DecodeError(ValueError):
    """Data that is not what the format says; the message names the place."""


def encode(value: object) -> Any:
    """Plain JSON types for a dataclass, array, tuple, enum or number; tagged unions carry their `kind`."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        kind = getattr(type(value), "kind", None)
        fields = {f.name: encode(getattr(value, f.name)) for f in _recorded(value)}
        return {"kind": kind, **fields} if isinstance(kind, str) else fields
    if isinstance(value, np.ndarray):
        return pack(value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, tuple | list):
        return [encode(v) for v in value]
    if isinstance(value, dict):
        return {str(k): encode(v) for k, v in value.items()}
    return value


def decode(wanted: Any, data: Any, where: str = "") -> Any:
    """Build a value of the annotated type `wanted` from what `encode` made.

    Args:
        where: the place of `data`, for messages.

    Raises:
        DecodeError: data of another shape, naming the place.
    """
    origin, arguments = typing.get_origin(wanted), typing.get_args(wanted)
    if origin is np.ndarray:
        return _decode_array(arguments, data, where)
    if origin in (typing.Union, types.UnionType):
        return _decode_union(arguments, data, where)
    if origin is tuple:
        return _decode_tuple(arguments, data, where)
    if origin is typing.Literal:
        return data if data in arguments else _fail(where, f"one of {arguments}", data)
    if dataclasses.is_dataclass(wanted) and isinstance(wanted, type):
        return _decode_dataclass(wanted, data, where)
    if isinstance(wanted, type) and issubclass(wanted, Enum):
        known = {member.value: member for member in wanted}
        return known[data] if isinstance(data, str) and data in known else _fail(where, wanted.__name__, data)
    if wanted is float and type(data) is int:
        return _as_float(data, where)
    if isinstance(wanted, type) and type(data) is wanted:
        return data
    return _fail(where, getattr(wanted, "__name__", str(wanted)), data)


def _decode_dataclass(wanted: type, data: Any, where: str) -> Any:
    if not isinstance(data, dict):
        _fail(where, f"an object for {wanted.__name__}", data)
    hints = _hints(wanted)
    names = [f.name for f in _recorded(wanted)]
    missing = [name for name in names if name not in data]
    if missing:
        _fail(where, f"the field {missing[0]!r} of {wanted.__name__}", sorted(data))
    fields = {name: decode(hints[name], data[name], f"{where}.{name}") for name in names}
    try:
        return wanted(**fields)
    except ValueError as error:
        raise DecodeError(f"{_place(where)}: {error}") from None


def _recorded(holder: Any) -> list[dataclasses.Field[Any]]:
    """The fields of a dataclass, or of an instance, that are in files."""
    return [f for f in dataclasses.fields(holder) if f.metadata.get("recorded", True)]


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _decode_array(arguments: tuple[Any, ...], data: Any, where: str) -> Any:
    (scalar,) = typing.get_args(arguments[1])
    try:
        values = unpack(data)
    except PackingError as error:
        raise DecodeError(f"{_place(where)}: {error}") from None
    if values.dtype != np.dtype(scalar):
        _fail(where, f"values of type {np.dtype(scalar)}", str(values.dtype))
    return values


def _decode_union(options: tuple[Any, ...], data: Any, where: str) -> Any:
    if data is None and type(None) in options:
        return None
    options = tuple(o for o in options if o is not type(None))
    tagged = {o.kind: o for o in options if isinstance(getattr(o, "kind", None), str)}
    if tagged:
        kind = data.get("kind") if isinstance(data, dict) else data
        if not isinstance(kind, str) or kind not in tagged:
            _fail(where, f"a kind among {', '.join(sorted(tagged))}", kind)
        return decode(tagged[kind], data, where)
    for option in options[:-1]:
        try:
            return decode(option, data, where)
        except DecodeError:
            continue
    return decode(options[-1], data, where)


def _decode_tuple(arguments: tuple[Any, ...], data: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(data, list):
        _fail(where, "a list", data)
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        arguments = (arguments[0],) * len(data)
    if len(data) != len(arguments):
        _fail(where, f"{len(arguments)} items", data)
    return tuple(
        decode(a, item, f"{where}[{i}]") for i, (a, item) in enumerate(zip(arguments, data, strict=True))
    )


def _as_float(data: int, where: str) -> float:
    try:
        return float(data)
    except OverflowError:
        return _fail(where, "a number", data)


def _fail(where: str, expected: str, got: object) -> typing.NoReturn:
    shown = repr(got)
    if len(shown) > _MOST_SHOWN:
        shown = f"{shown[:_MOST_SHOWN]}..."
    raise DecodeError(f"{_place(where)}: expected {expected}, got {shown}")


def _place(where: str) -> str:
    return where.lstrip(".") or "the data"
