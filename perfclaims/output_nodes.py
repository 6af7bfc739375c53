"""The normal form of an output: arrays and plain values in sequences and mappings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

# Values compared by `==`; all others that a `PlainNode` may hold are compared by identity.
EQUAL_BY_VALUE = (str, bytes, int, range, frozenset)


@dataclass(frozen=True, slots=True)
class ArrayNode:
    """An array or a number; `adapts` marks Python integers, which match any kind of integer."""

    values: NDArray[Any]
    adapts: bool = False
    mask: NDArray[np.bool_] | None = None


@dataclass(frozen=True, slots=True)
class SequenceNode:
    """A tuple or a list that is no rectangle of numbers; with a `shape`, an array of objects, flat."""

    items: tuple[Node, ...]
    shape: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class MappingNode:
    """A dictionary, or the fields of a dataclass or of a structured array."""

    entries: Mapping[object, Node]


@dataclass(frozen=True, slots=True)
class PlainNode:
    """None, a string, bytes, a range, a set, an integer beyond 64 bits, an enumeration member or a class."""

    value: object


@dataclass(frozen=True, slots=True)
class UnreadableNode:
    """Something whose content cannot be known, and why."""

    reason: str


Node: TypeAlias = ArrayNode | SequenceNode | MappingNode | PlainNode | UnreadableNode


def array_node(values: NDArray[Any], *, adapts: bool = False, mask: NDArray[np.bool_] | None = None) -> Node:
    """Return the node of a base ndarray without objects; a single string is a plain value."""
    if values.ndim == 0 and values.dtype.kind in "UST":
        return PlainNode(values.item())
    return ArrayNode(values, adapts, mask)


def rows(node: ArrayNode) -> Iterator[Node]:
    """Yield the parts of an array along its first axis."""
    for i in range(node.values.shape[0]):
        mask = None if node.mask is None else node.mask[i, ...]
        yield array_node(node.values[i, ...], adapts=node.adapts, mask=mask)


def leaves(node: Node) -> int:
    """Return how many numbers or other values are in a node; None and what is empty hold none."""
    match node:
        case ArrayNode(values):
            return values.size
        case SequenceNode(items):
            return sum(map(leaves, items))
        case MappingNode(entries):
            return sum(map(leaves, entries.values()))
        case PlainNode(value):
            empty = value is None or (type(value) in EQUAL_BY_VALUE and not value)
            return 0 if empty else 1
    return 1


def describe(node: Node) -> str:
    """Return in a few words what a node is, as it stands in messages."""
    match node:
        case ArrayNode(values):
            shape = f" of shape {values.shape}" if values.ndim else ""
            return f"{'an array' if values.ndim else 'a number'} of {values.dtype}{shape}"
        case SequenceNode(items, None):
            return f"a sequence of {len(items)}"
        case SequenceNode(_, dimensions):
            return f"an array of objects of shape {dimensions}"
        case MappingNode(entries):
            return f"a dictionary of {len(entries)}"
        case PlainNode(value):
            return "None" if value is None else f"a value of type {type(value).__name__}"
    return "something unreadable"
