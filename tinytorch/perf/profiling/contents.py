"""What a model holds: its layers, its arrays and how many bytes these take."""

from __future__ import annotations

import functools
import types
import weakref
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from tinytorch.core import inference
from tinytorch.core.layers import Layer
from tinytorch.core.tensor import Tensor

_LEAVES = (
    str,
    bytes,
    int,
    float,
    complex,
    type(None),
    type,
    types.ModuleType,
    np.generic,
    np.dtype,
    np.random.Generator,
    weakref.ProxyType,
    weakref.CallableProxyType,
)


def stored_bytes(model: Any) -> int:
    """Return the bytes of all arrays that a model holds, each memory once.

    Packed copies, scales, indices and caches count as weights do; gradients do not. A view counts as all
    of the memory that it keeps alive. Arrays are looked for in attributes, containers and closures, not in
    globals.
    """
    owners = {id(owner): owner.nbytes for owner in map(owner_of, arrays_of(model))}
    return sum(owners.values())


def layers_of(model: Any) -> list[Layer]:
    """Return the layers of which a model consists, also where the model is no Layer itself."""
    return [item for item in _reachable(model) if isinstance(item, Layer)]


def arrays_of(model: Any) -> Iterator[np.ndarray[Any, Any]]:
    """Yield every array that a model holds, each object once."""
    return (item for item in _reachable(model) if isinstance(item, np.ndarray))


def owner_of(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the array whose memory this one shows, itself where it has its own."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def _reachable(model: Any) -> Iterator[Any]:
    """Yield a model and everything that it holds, each object once."""
    seen: dict[int, Any] = {}  # holds what it has seen: numbers of objects that are gone are given again
    waiting = [model]
    while waiting:
        item = waiting.pop()
        if id(item) in seen or isinstance(item, _LEAVES):
            continue
        seen[id(item)] = item
        yield item
        waiting.extend(_parts(item))


def _parts(item: Any) -> list[Any]:
    if isinstance(item, np.ndarray):
        return list(item.flat) if item.dtype == object else []
    if isinstance(item, Tensor):
        return [item.data]
    if isinstance(item, functools.partial):
        return [item.func, *item.args, *item.keywords.values()]
    if isinstance(item, types.MethodType):
        return [item.__self__, item.__func__]
    if isinstance(item, types.FunctionType):
        return _held_by_function(item)
    parts = list(_attributes(item))
    if isinstance(item, Layer):
        parts.append(inference.cached(item))  # kept beside the model, or None
    if isinstance(item, Mapping):
        parts += item.values()
    elif isinstance(item, list | tuple | set | frozenset):
        parts += item
    return parts


def _held_by_function(function: types.FunctionType) -> list[Any]:
    held = list(function.__defaults__ or ())
    for cell in function.__closure__ or ():
        try:
            held.append(cell.cell_contents)
        except ValueError:  # not assigned yet
            continue
    return held


def _attributes(item: Any) -> Iterator[Any]:
    yield from getattr(item, "__dict__", {}).values()
    for kind in type(item).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            value = getattr(item, name, None) if not name.startswith("__") else None
            if value is not None:
                yield value
