"""The normal forms of two outputs, walked side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perfclaims.output_nodes import (
    EQUAL_BY_VALUE,
    ArrayNode,
    MappingNode,
    Node,
    PlainNode,
    SequenceNode,
    UnreadableNode,
    describe,
    leaves,
    rows,
)
from perfclaims.tolerance import Tolerance, difference

LONGEST_TEXT = 60
# Kinds of NumPy that are one kind at any size; of the others (dates, raw bytes) the whole type must agree.
SIZED_KINDS = "biufcUST"


@dataclass(frozen=True, slots=True)
class Finding:
    """What the comparison of two leaves gave, or that of two parts which do not pair.

    `structure` is a sentence about parts that do not pair. Otherwise `detail` says what is wrong with the
    values, `where` is the path to the worst of them, and `largest` and `relative_l2` are those of
    `perfclaims.tolerance.ArrayDifference`.
    """

    elements: int
    differing: int = 0
    where: str = ""
    structure: str = ""
    detail: str = ""
    largest: float | None = None
    relative_l2: float | None = None


def findings(expected: Node, actual: Node, tolerance: Tolerance, path: str = "") -> Iterator[Finding]:
    """Yield a finding for every pair of leaves and for every pair of parts that do not match in structure."""
    match expected, actual:
        case UnreadableNode(reason), _:
            yield _unpaired(expected, path, f"the expected output cannot be compared{at(path)}: {reason}")
        case _, UnreadableNode(reason):
            yield _unpaired(expected, path, f"the actual output cannot be compared{at(path)}: {reason}")
        case ArrayNode(), ArrayNode():
            yield _arrays(expected, actual, tolerance, path)
        case MappingNode(), MappingNode():
            yield from _mappings(expected, actual, tolerance, path)
        case PlainNode(), PlainNode():
            yield _values(expected, actual, path)
        case SequenceNode() | ArrayNode(), SequenceNode() | ArrayNode():
            yield from _sequences(expected, actual, tolerance, path)
        case _:
            yield _kinds_differ(expected, actual, path)


def at(path: str) -> str:
    """Return " at PATH", or nothing for the output as a whole."""
    return f" at {path}" if path else ""


def _unpaired(expected: Node, path: str, sentence: str) -> Finding:
    elements = max(1, leaves(expected))
    return Finding(elements, elements, path, structure=sentence)


def _kinds_differ(expected: Node, actual: Node, path: str) -> Finding:
    words = f"expected {describe(expected)}, got {describe(actual)}"
    return _unpaired(expected, path, f"kinds of output differ{at(path)}: {words}")


def _mappings(
    expected: MappingNode, actual: MappingNode, tolerance: Tolerance, path: str
) -> Iterator[Finding]:
    missing = [key for key in expected.entries if key not in actual.entries]
    extra = [key for key in actual.entries if key not in expected.entries]
    if missing or extra:
        lists = (("missing", missing), ("unexpected", extra))
        words = ", ".join(f"{word} {_text(sorted(keys, key=repr))}" for word, keys in lists if keys)
        yield _unpaired(expected, path, f"keys differ{at(path)}: {words}")
        return
    for key, item in expected.entries.items():
        yield from findings(item, actual.entries[key], tolerance, f"{path}[{_text(key)}]")


def _sequences(expected: Node, actual: Node, tolerance: Tolerance, path: str) -> Iterator[Finding]:
    """Two sequences, or a sequence and an array along its first axis."""
    left, right = _items(expected), _items(actual)
    if left is None or right is None or _object_shape(expected) != _object_shape(actual):
        yield _kinds_differ(expected, actual, path)
    elif len(left) != len(right):
        yield _unpaired(expected, path, f"lengths differ{at(path)}: expected {len(left)}, got {len(right)}")
    elif not left and not _empty_in_one_way(expected, actual):
        yield _kinds_differ(expected, actual, path)
    else:
        for i, (one, other) in enumerate(zip(left, right, strict=True)):
            yield from findings(one, other, tolerance, f"{path}[{i}]")


def _items(node: Node) -> Sequence[Node] | None:
    if isinstance(node, SequenceNode):
        return node.items
    return list(rows(node)) if isinstance(node, ArrayNode) and node.values.ndim else None


def _empty_in_one_way(*nodes: Node) -> bool:
    # An empty list has the shape (0,), which an array of shape (0, 3) has not.
    return all(node.values.shape == (0,) for node in nodes if isinstance(node, ArrayNode))


def _object_shape(node: Node) -> tuple[int, ...] | None:
    return node.shape if isinstance(node, SequenceNode) else None


def _values(expected: PlainNode, actual: PlainNode, path: str) -> Finding:
    left, right = expected.value, actual.value
    # By value only what is of one built-in type: any other could answer for both.
    by_value = type(left) is type(right) and type(left) in EQUAL_BY_VALUE
    if left == right if by_value else left is right:
        return Finding(leaves(expected))
    return Finding(1, 1, path, detail=f"{at(path)}: {_expected_and_got(_text(left), _text(right))}")


def _arrays(expected: ArrayNode, actual: ArrayNode, tolerance: Tolerance, path: str) -> Finding:
    left, right = expected.values, actual.values
    if left.shape != right.shape:
        return _unpaired(expected, path, f"shapes differ{at(path)}: expected {left.shape}, got {right.shape}")
    if not _one_kind(expected, actual):
        words = _expected_and_got(str(left.dtype), str(right.dtype))
        return _unpaired(expected, path, f"dtype kinds differ{at(path)}: {words}")
    masks_differ = int(np.sum(_mask(expected) != _mask(actual)))
    if masks_differ:
        return _unpaired(expected, path, f"masks differ{at(path)} in {masks_differ} of {left.size} elements")
    found = difference(left, right, tolerance)
    where, detail = "", ""
    if found.index is not None:
        where = path + (str(list(found.index)) if found.index else "")
        words = _expected_and_got(*_two_texts(left[found.index], right[found.index]))
        detail = f"{', ' if found.cause else ''}{found.cause}{at(where)}: {words}"
    return Finding(
        left.size, found.differing, where, detail=detail, largest=found.largest, relative_l2=found.relative_l2
    )


def _mask(node: ArrayNode) -> NDArray[np.bool_]:
    return np.zeros(node.values.shape, dtype=bool) if node.mask is None else node.mask


def _one_kind(expected: ArrayNode, actual: ArrayNode) -> bool:
    left, right = expected.values.dtype, actual.values.dtype
    if (expected.adapts or actual.adapts) and left.kind in "iu" and right.kind in "iu":
        return True
    if left.kind in SIZED_KINDS:
        return left.kind == right.kind
    return bool(left.newbyteorder("=") == right.newbyteorder("="))


def _expected_and_got(expected: str, got: str) -> str:
    return f"expected {expected}, got {got}"


def _two_texts(expected: object, got: object) -> tuple[str, str]:
    """Six digits of each, or all digits where six do not tell them apart."""
    if isinstance(expected, np.inexact) and isinstance(got, np.inexact):
        short = f"{expected:.6g}", f"{got:.6g}"
        if short[0] != short[1]:
            return short
    left, right = (x.item() if isinstance(x, np.generic) else x for x in (expected, got))
    return _text(left), _text(right)


def _text(value: object) -> str:
    text = repr(value)
    return text if len(text) <= LONGEST_TEXT else f"{text[: LONGEST_TEXT - 3]}..."
