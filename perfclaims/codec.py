"""Evidence as strict JSON and back: frozen dataclasses field by field, sample arrays packed."""

from __future__ import annotations

import base64
import dataclasses
import functools
import types
import typing
import zlib
from enum import Enum
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")


class DecodeError(ValueError):
    """Data that is not what the format says; the message names the place."""


def encode(value: object) -> Any:
    """Plain JSON types for a dataclass, array, tuple, enum or number; tagged unions carry their `kind`."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        kind = getattr(type(value), "kind", None)
        fields = {f.name: encode(getattr(value, f.name)) for f in dataclasses.fields(value)}
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

    Raises:
        DecodeError: data of another shape, naming the place.
    """
    origin, arguments = typing.get_origin(wanted), typing.get_args(wanted)
    if origin is np.ndarray or wanted is np.ndarray:
        return unpack(data, where)
    if origin in (typing.Union, types.UnionType):
        return _decode_union(arguments, data, where)
    if origin is tuple:
        return _decode_tuple(arguments, data, where)
    if origin is typing.Literal:
        return data if data in arguments else _fail(where, f"one of {arguments}", data)
    if dataclasses.is_dataclass(wanted) and isinstance(wanted, type):
        return _decode_dataclass(wanted, data, where)
    if isinstance(wanted, type) and issubclass(wanted, Enum):
        try:
            return wanted(data)
        except ValueError:
            _fail(where, f"a {wanted.__name__}", data)
    if wanted is float and isinstance(data, int | float) and not isinstance(data, bool):
        return float(data)
    if isinstance(wanted, type) and type(data) is wanted:
        return data
    return _fail(where, getattr(wanted, "__name__", str(wanted)), data)


def _decode_dataclass(wanted: type[T], data: Any, where: str) -> T:
    if not isinstance(data, dict):
        _fail(where, f"an object for {wanted.__name__}", data)
    hints = _hints(wanted)  # type: ignore[arg-type]
    fields = [f.name for f in dataclasses.fields(wanted)]  # type: ignore[arg-type]
    missing = [name for name in fields if name not in data]
    if missing:
        _fail(where, f"the field {missing[0]!r} of {wanted.__name__}", sorted(data))
    try:
        return wanted(**{name: decode(hints[name], data[name], f"{where}.{name}") for name in fields})
    except DecodeError:
        raise
    except (TypeError, ValueError) as error:
        raise DecodeError(f"{where or 'the data'}: {error}") from None


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _decode_union(options: tuple[Any, ...], data: Any, where: str) -> Any:
    if data is None and type(None) in options:
        return None
    options = tuple(o for o in options if o is not type(None))
    tagged = {o.kind: o for o in options if isinstance(getattr(o, "kind", None), str)}
    if tagged:
        kind = data.get("kind") if isinstance(data, dict) else None
        return (
            decode(tagged[kind], data, where)
            if kind in tagged
            else _fail(where, f"a kind of {set(tagged)}", kind)
        )
    for option in options:
        try:
            return decode(option, data, where)
        except DecodeError:
            if option is options[-1]:
                raise
    return _fail(where, str(options), data)


def _decode_tuple(arguments: tuple[Any, ...], data: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(data, list):
        _fail(where, "a list", data)
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return tuple(decode(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(data))
    if len(data) != len(arguments):
        _fail(where, f"{len(arguments)} items", data)
    return tuple(
        decode(a, item, f"{where}[{i}]") for i, (a, item) in enumerate(zip(arguments, data, strict=True))
    )


def _fail(where: str, expected: str, got: object) -> Any:
    shown = repr(got)
    raise DecodeError(f"{where.lstrip('.') or 'the data'}: expected {expected}, got {shown[:80]}")


def pack(values: np.ndarray[Any, Any]) -> dict[str, Any]:
    """A one-dimensional array of booleans or integers of zero or more, as compressed text.

    The values are written as the smallest unsigned type that holds them, little-endian, all lowest bytes
    first, then all second bytes and so on (durations differ in their low bytes only, so that the rest
    compresses to nothing), then zlib, then base64.
    """
    if values.ndim != 1 or values.dtype.kind not in "biu" or (values.size and int(values.min()) < 0):
        raise ValueError(
            f"only flat arrays of integers of zero or more are packed, got {values.dtype} {values.shape}"
        )
    small = np.min_scalar_type(int(values.max()) if values.size else 0).newbyteorder("<")
    narrow = np.ascontiguousarray(values.astype(small))
    planes = narrow.view(np.uint8).reshape(len(values), narrow.itemsize).T
    text = base64.b64encode(zlib.compress(planes.tobytes(), 9)).decode("ascii")
    return {
        "type": "bool" if values.dtype.kind == "b" else "int",
        "width": narrow.itemsize,
        "length": len(values),
        "data": text,
    }


def unpack(data: Any, where: str = "") -> np.ndarray[Any, Any]:
    """The array that `pack` wrote: int64, or bool.

    Raises:
        DecodeError: the text is damaged or its length is not what it says.
    """
    try:
        width, length = int(data["width"]), int(data["length"])
        raw = zlib.decompress(base64.b64decode(data["data"], validate=True))
        if width not in (1, 2, 4, 8) or len(raw) != width * length:
            raise ValueError(f"{len(raw)} bytes for {length} values of {width} bytes")
        planes = np.frombuffer(raw, dtype=np.uint8).reshape(width, length)
        values = np.ascontiguousarray(planes.T).view(f"<u{width}").reshape(length)
    except (KeyError, TypeError, ValueError, zlib.error) as error:
        raise DecodeError(f"{where.lstrip('.') or 'the data'}: samples are damaged ({error})") from None
    return values.astype(np.bool_ if data["type"] == "bool" else np.int64)
