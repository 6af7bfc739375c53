"""The engine: it records operations as a graph and walks the graph backwards.

An operation that is recorded leaves a `Node`, which holds how a gradient with respect to its output
becomes gradients with respect to its inputs. `backward` visits the nodes in reverse order of their
creation, so that every node has received all of its gradient before it passes any on. What the
derivatives are stands in `derivatives`, and what a user sees of all this in `tensor`.
"""

from __future__ import annotations

import functools
import itertools
import zlib
from collections.abc import Callable, Sequence
from contextvars import ContextVar, Token
from typing import Any, ParamSpec, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]
Vjp = Callable[[Array], Array]
# One function for each input, None where there is no gradient, or one that returns all gradients at once.
Vjps = tuple[Vjp | None, ...] | Callable[[Array], tuple[Array | None, ...]]

P = ParamSpec("P")
R = TypeVar("R")

_RECORDING: ContextVar[bool] = ContextVar("recording", default=True)
_SERIAL = itertools.count()


class no_grad:  # noqa: N801 - used like a function, as contextlib.suppress is
    """Compute without recording: results require no gradient. Also a decorator; blocks nest.

    Holds for this thread, or this asynchronous task, alone.
    """

    __slots__ = ("_outer",)

    def __init__(self) -> None:
        # A class and not a generator function: entered for each call of a small model, it costs half as much.
        self._outer: list[Token[bool]] = []

    def __enter__(self) -> None:
        self._outer.append(_RECORDING.set(False))

    def __exit__(self, *_: object) -> None:
        _RECORDING.reset(self._outer.pop())

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Decorate a function: each call of it records nothing, in whatever thread it runs."""

        @functools.wraps(function)
        def without_recording(*args: P.args, **kwargs: P.kwargs) -> R:
            with no_grad():
                return function(*args, **kwargs)

        return without_recording


def recording() -> bool:
    """Return whether operations are recorded here."""
    return _RECORDING.get()


class Leaf(Protocol):
    """Where gradients end: a tensor that no recorded operation made."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the tensor, and of its gradient."""

    def accumulate(self, gradient: Array, owned: bool) -> None:
        """Add a gradient; when it is `owned`, nobody else holds its memory and it may be kept."""


class Watch:
    """Notices that an array changed in place after an operation was recorded on it.

    A checksum is taken only when somebody reaches for the array while a graph needs it (`touched`),
    which leaves training loops alone: they change parameters after the graph is gone.
    """

    __slots__ = ("array", "checksum", "graphs")

    def __init__(self, array: Array) -> None:
        self.array = array
        self.graphs = 0
        self.checksum: int | None = None

    def touched(self) -> None:
        """Remember what the array holds now, before it is handed out."""
        if self.graphs and self.checksum is None:
            self.checksum = _checksum(self.array)

    def changed(self) -> bool:
        """Return whether the array holds something else than when it was handed out."""
        return self.checksum is not None and _checksum(self.array) != self.checksum


class Node:
    """A recorded operation.

    Attributes:
        name: of the operation.
        shape: of its output.
        vjps: vector-Jacobian products, from the gradient of the output to those of the inputs; None
            once the graph has been used.
        parents: what each input came from: a Node, a Leaf, or None where no gradient is wanted.
        watches: on the arrays of the inputs.
        through: who observed the operation computes its derivatives with this, from a product, the index of
            the input that it is of (None for all at once) and the gradient; None where nobody did.
    """

    __slots__ = ("name", "parents", "serial", "shape", "through", "vjps", "watches")

    def __init__(
        self,
        name: str,
        shape: tuple[int, ...],
        vjps: Vjps,
        parents: Sequence[Node | Leaf | None],
        watches: Sequence[Watch],
    ) -> None:
        self.name = name
        self.shape = shape
        self.vjps: Vjps | None = vjps
        self.parents: Sequence[Node | Leaf | None] = parents
        self.watches: Sequence[Watch] = watches
        self.through: Callable[[Any, int | None, Array], Any] | None = None
        self.serial = next(_SERIAL)
        for watch in watches:
            watch.graphs += 1

    def free(self) -> None:
        """Let go of everything that the operation kept for its derivative."""
        self.vjps, self.parents, self.through = None, (), None
        for watch in self.watches:
            watch.graphs -= 1
        self.watches = ()


def backward(root: Node, gradient: Array, retain_graph: bool = False) -> None:
    """Send `gradient` from the output of `root` to every leaf that it depends on.

    Nothing is accumulated where an error is raised.

    Args:
        root: the operation that made the result.
        gradient: the derivative of something with respect to that result, in its shape.
        retain_graph: keep what the graph holds, so that it can be used again.

    Raises:
        RuntimeError: the graph, or a part of it, was used before, or a tensor changed in place since.
    """
    nodes = _newest_first(root)
    _check(nodes)
    pending: dict[Node, tuple[Array, bool]] = {root: (gradient, False)}
    for node in nodes:
        arrived = pending.pop(node, None)
        if arrived is not None:  # else every path from the root to here has no gradient
            _pass_on(node, arrived[0], pending)
        if not retain_graph:
            node.free()


def _pass_on(node: Node, gradient: Array, pending: dict[Node, tuple[Array, bool]]) -> None:
    """Give each input of a node its gradient: to a leaf at once, to another node for when its turn comes."""
    vjps, through = node.vjps, node.through
    assert vjps is not None, "checked before the graph is walked"
    each = isinstance(vjps, tuple)
    items: Any = vjps
    if not isinstance(vjps, tuple):
        items = vjps(gradient) if through is None else through(vjps, None, gradient)
    # Options that follow the inputs have no gradient and need no entry.
    for index, (parent, item) in enumerate(zip(node.parents, items, strict=False)):
        if parent is None or item is None:
            continue
        found: Array = item
        if each:
            found = item(gradient) if through is None else through(item, index, gradient)
        if found.shape != parent.shape:
            found = summed_to(found, parent.shape)
        owned = found is not gradient and type(found) is np.ndarray and found.base is None
        if type(parent) is not Node:
            parent.accumulate(found, owned)  # type: ignore[union-attr]
        elif parent in pending:
            pending[parent] = _added(pending[parent], found)
        else:
            pending[parent] = found, owned


def summed_to(gradient: Array, shape: tuple[int, ...]) -> Array:
    """Undo broadcasting: add up `gradient` along the axes that an array of `shape` was repeated along."""
    extra = gradient.ndim - len(shape)
    repeated = tuple(extra + axis for axis, length in enumerate(shape) if length == 1)
    total: Array = gradient.sum(axis=(*range(extra), *repeated), keepdims=True)
    return total.reshape(shape)


def _newest_first(root: Node) -> list[Node]:
    """Return the nodes that `root` depends on, and itself; inputs are older than what is made of them."""
    seen = {root}
    stack = [root]
    while stack:
        for parent in stack.pop().parents:
            if type(parent) is Node and parent not in seen:
                seen.add(parent)
                stack.append(parent)
    return sorted(seen, key=_serial, reverse=True)


def _serial(node: Node) -> int:
    return node.serial


def _check(nodes: list[Node]) -> None:
    for node in nodes:
        if node.vjps is None:
            raise RuntimeError(
                f"the graph of this result was already used by backward() and freed (at `{node.name}`): "
                "compute the result again, or pass retain_graph=True to the first backward()"
            )
        for watch in node.watches:
            if watch.checksum is not None and watch.changed():
                raise RuntimeError(
                    f"a tensor of shape {watch.array.shape} was changed in place after `{node.name}` used "
                    "it, so its gradient would be wrong: change it after backward(), or change a copy"
                )


def _added(held: tuple[Array, bool], found: Array) -> tuple[Array, bool]:
    total, total_owned = held
    if total_owned and total.dtype == found.dtype:
        return np.add(total, found, out=total), True
    total = np.asarray(total + found)  # a sum of single numbers is a scalar
    return total, True


def _checksum(array: Array) -> int:
    return zlib.crc32(np.ascontiguousarray(array).data)
