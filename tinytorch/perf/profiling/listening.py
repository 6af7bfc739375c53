"""Who listens in which thread or task: blocks that begin and end, inside of each other or side by side."""

from __future__ import annotations

import copy
from threading import get_ident
from typing import TYPE_CHECKING, Any, Self

from tinytorch.core.tensor import OBSERVER

if TYPE_CHECKING:
    from contextvars import Token

    from tinytorch.perf.profiling.recording import Log, Span


class Listener:
    """What hears of operations and layers while a block runs, for that block and for those around it.

    Every block has a listener of its own, in the context of its thread or task. Tasks that are started in the
    block inherit it, and so may threads: a listener leaves out what other threads than its own do.

    Attributes:
        logs: where to write: the log of each block around that still runs, and that of its own.
        thread: the identity of its thread; 0 when no block is left for which to listen.
        current: the call of a layer that is running.
        before: who listened before this one.
        own: the log of the block.
        closed: whether the block has ended.
    """

    def __init__(self, *logs: Log) -> None:
        self.logs = list(logs)
        self.thread = get_ident()
        self.current: Span | None = None
        self.before: Listener | None = None
        self.own: Log | None = None
        self.closed = False
        self._around: Listener | None = None
        self._inside: list[Listener] = []
        self._token: Token[Any] | None = None

    @classmethod
    def begin(cls, log: Log) -> Listener:
        """Begin a block that writes into `log`, and return its listener."""
        before = OBSERVER.get()
        around = before if before is not None and before.thread == get_ident() else None
        listener = cls() if around is None else around._copy()
        listener.before, listener.own = before, log
        if around is not None:
            around._inside.append(listener)
        listener._renew()
        listener._token = OBSERVER.set(listener)
        return listener

    def end(self) -> None:
        """End the block: nothing is written into its log for it any more, by whoever inherited it either."""
        self.closed = True
        self._renew()
        self._detach()
        if OBSERVER.get() is self:
            assert self._token is not None
            try:
                OBSERVER.reset(self._token)
            except ValueError:  # it began in another context
                OBSERVER.set(self.before)
        while (now := OBSERVER.get()) is not None and now.closed:  # blocks may end in any order
            OBSERVER.set(now.before)

    def _copy(self) -> Self:
        """Return a listener of the same kind, for a block inside this one."""
        listener = copy.copy(self)
        listener.closed, listener._around, listener._inside = False, self, []
        return listener

    def _renew(self) -> None:
        """Find out again where to write, after a block here or around has begun or ended."""
        logs = [] if self._around is None else list(self._around.logs)
        if self.own is not None and not self.closed and all(log is not self.own for log in logs):
            logs.append(self.own)
        self.logs = logs
        if not logs:
            self.thread = 0
        for listener in self._inside:
            listener._renew()

    def _detach(self) -> None:
        """Leave the block around, once no block inside needs to hear of its end."""
        around = self._around
        if around is not None and self.closed and not self._inside and self in around._inside:
            around._inside.remove(self)
            around._detach()


def innermost(log: Log) -> Listener | None:
    """Return the listener of the innermost block here that is running and writes into `log`."""
    listener: Listener | None = OBSERVER.get()
    while listener is not None and (listener.own is not log or listener.closed or _is_elsewhere(listener)):
        listener = listener.before
    return listener


def _is_elsewhere(listener: Listener) -> bool:
    return listener.thread != get_ident()
