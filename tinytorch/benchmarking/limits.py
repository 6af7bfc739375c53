"""An end to calls that do not end by themselves."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class TooSlow(BaseException):
    """A limit was reached; no Exception, because code that hangs may be a loop that catches these."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TooSlow in the block when it takes longer.

    Python code is interrupted, compiled code only once it returns. Nothing is interrupted outside of the main
    thread, on systems without timers, and where an earlier limit of somebody else's is running.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return
    others_s, interval_s = signal.getitimer(signal.ITIMER_REAL)
    if 0 < others_s <= seconds:
        yield
        return
    start = time.monotonic()
    before = signal.signal(signal.SIGALRM, _raise)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if others_s:
            left_s = others_s - (time.monotonic() - start)
            signal.setitimer(signal.ITIMER_REAL, max(left_s, 1e-3), interval_s)


def _raise(_number: int, _frame: FrameType | None) -> None:
    raise TooSlow
