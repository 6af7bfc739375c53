"""How the normal form of an output is made.

Content is taken from the raw storage of built-in types, never through methods that a subclass can override:
a list whose `__iter__` computes the answer later, or a string that equals everything, is worth what it holds.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from types import EllipsisType, NoneType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfclaims.output_nodes import (
    ArrayNode,
    MappingNode,
    Node,
    PlainNode,
    SequenceNode,
    UnreadableNode,
    array_node,
)
from perfclaims.plain_values import NOT_PLAIN, integers, plain, rectangle
from perfclaims.structure import MAX_DEPTH, numpy_method, stored_fields, too_deep

ADVICE = "return arrays, numbers, strings, or tuples, lists and dictionaries of them"


def normal_form(output: object, *, copy: bool, may_read: bool) -> Node:
    """Return the normal form of an output, or of a normal form.

    Args:
        output: what an implementation returned.
        copy: whether arrays are copied, so that nothing can change them later.
        may_read: whether `.numpy()` of objects inside may be called; otherwise these are unreadable.

    Raises:
        ValueError: the output is nested too deep or contains itself.
    """
    return _Maker(copy, may_read).node(output, 0)


def is_array(answer: object) -> bool:
    """Tell whether what `.numpy()` returned holds its content: an ndarray or a NumPy scalar."""
    return issubclass(type(answer), np.ndarray | np.generic)


def not_an_array(owner: str, answer: object) -> UnreadableNode:
    """Return the node of an object whose `.numpy()` answers with something else than an ndarray."""
    return UnreadableNode(f".numpy() of a {owner} must return an ndarray, got a {type(answer).__name__}")


@dataclass(frozen=True, slots=True)
class _Maker:
    """One method for each kind of value; all take the value and its depth."""

    copy: bool
    may_read: bool

    def node(self, value: object, depth: int) -> Node:
        if depth > MAX_DEPTH:
            raise too_deep("output")
        kind = type(value)  # isinstance would believe a forged `__class__`
        for base, make in _MAKE:
            if issubclass(kind, base):
                return make(self, value, depth)
        return self.other(value, depth)

    def array(self, value: NDArray[Any], depth: int) -> Node:
        # The base class first: a subclass can override even `shape`.
        base: NDArray[Any] = np.array(value, subok=False, copy=True if self.copy else None)
        masked = sys.modules.get("numpy.ma")
        if masked is not None and issubclass(type(value), masked.MaskedArray):
            if base.dtype.kind in "OV":
                return UnreadableNode(f"a masked array of {base.dtype}: {ADVICE}")
            return array_node(base, mask=np.array(masked.getmaskarray(value), subok=False))
        if base.dtype.names is not None:
            fields = {name: base[name] for name in base.dtype.names}
            return MappingNode({name: self.array(field, depth + 1) for name, field in fields.items()})
        if base.dtype.kind == "O":
            # What an array of objects holds is not read while the clock runs, so it must not be read later.
            inside = _Maker(self.copy, may_read=False)
            return SequenceNode(tuple(inside.node(item, depth + 1) for item in base.flat), base.shape)
        return array_node(base)

    def scalar(self, value: np.generic, depth: int) -> Node:
        return self.array(np.generic.__array__(value), depth)

    def number(self, value: object, _depth: int) -> Node:
        exact = plain(value)
        if type(exact) is not int:
            return ArrayNode(np.array(exact))
        array = integers(exact)
        return PlainNode(exact) if array is None else ArrayNode(array, adapts=True)

    def list_(self, value: list[object], depth: int) -> Node:
        numbers = rectangle(value)
        if numbers is not None:
            return ArrayNode(numbers[0], adapts=numbers[1])
        return SequenceNode(tuple(self.node(item, depth + 1) for item in list.__iter__(value)))

    def tuple_(self, value: tuple[object, ...], depth: int) -> SequenceNode:
        return SequenceNode(tuple(self.node(item, depth + 1) for item in tuple.__iter__(value)))

    def mapping(self, value: Mapping[Any, object], depth: int) -> Node:
        entries: dict[object, Node] = {}
        held: Iterable[tuple[object, object]] = dict.items(value)  # type: ignore[arg-type]
        for raw_key, item in held:
            key = plain(raw_key)
            if key is NOT_PLAIN:
                return UnreadableNode(f"a key of type {type(raw_key).__name__}: use strings or numbers")
            entries[key] = self.node(item, depth + 1)
        return MappingNode(entries)

    def plain(self, value: object, _depth: int) -> Node:
        exact = plain(value)
        if exact is NOT_PLAIN:
            return UnreadableNode(f"a {type(value).__name__} of such elements: {ADVICE}")
        return PlainNode(exact)

    def constant(self, value: object, _depth: int) -> Node:
        return PlainNode(value)

    def other(self, value: object, depth: int) -> Node:
        name = type(value).__name__
        method = numpy_method(value)
        if method is not None and not self.may_read:
            return UnreadableNode(f"a {name} whose answer was not read while the clock ran")
        if method is not None:
            answer = method()
            return self.node(answer, depth) if is_array(answer) else not_an_array(name, answer)
        fields = stored_fields(value)
        if fields is not None:
            return self.mapping(fields, depth)
        return UnreadableNode(f"a {name}: {ADVICE}")

    # Nodes are read like everything else, because an implementation could return forged ones.

    def array_again(self, value: ArrayNode, depth: int) -> Node:
        if not issubclass(type(value.values), np.ndarray):
            return UnreadableNode(f"a forged array: {ADVICE}")
        node = self.array(value.values, depth)
        if isinstance(node, ArrayNode) and issubclass(type(value.mask), np.ndarray | NoneType):
            mask = None if value.mask is None else np.array(value.mask, dtype=bool, subok=False)
            return ArrayNode(node.values, value.adapts is True, mask)
        return node

    def sequence_again(self, value: SequenceNode, depth: int) -> Node:
        return SequenceNode(self.tuple_(value.items, depth).items, value.shape)

    def mapping_again(self, value: MappingNode, depth: int) -> Node:
        return self.mapping(value.entries, depth)

    def plain_again(self, value: PlainNode, depth: int) -> Node:
        return self.node(value.value, depth + 1)

    def unreadable_again(self, value: UnreadableNode, _depth: int) -> Node:
        return UnreadableNode(str(value.reason))


_MAKE: tuple[tuple[type, Callable[[_Maker, Any, int], Node]], ...] = (
    (np.ndarray, _Maker.array),
    (ArrayNode, _Maker.array_again),
    (SequenceNode, _Maker.sequence_again),
    (MappingNode, _Maker.mapping_again),
    (PlainNode, _Maker.plain_again),
    (UnreadableNode, _Maker.unreadable_again),
    (NoneType, _Maker.plain),
    (str, _Maker.plain),
    (bytes, _Maker.plain),
    (bytearray, _Maker.plain),
    (np.generic, _Maker.scalar),
    (int, _Maker.number),
    (float, _Maker.number),
    (complex, _Maker.number),
    (list, _Maker.list_),
    (tuple, _Maker.tuple_),
    (dict, _Maker.mapping),
    (set, _Maker.plain),
    (frozenset, _Maker.plain),
    (range, _Maker.plain),
    (Enum, _Maker.constant),
    (type, _Maker.constant),
    (EllipsisType, _Maker.constant),
)
