"""An end to calls that do not end by themselves."""

from __future__ import annotations

import dis
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

# From the limit on, the call is interrupted this often, because code may catch what interrupts it.
_AGAIN_S = 0.1
# The system counts nanoseconds in 64 bits; nobody waits for thirty years.
_NEVER_S = 1e9
_TAKING = dis.opmap.get("PUSH_EXC_INFO")


class TooSlow(BaseException):
    """A limit was reached; no Exception, because code that hangs may be a loop that catches these."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TooSlow in the block when it takes longer.

    Python code is interrupted, compiled code only once it returns. Code that catches everything is
    interrupted again in the line after that, and ten times a second from then on; what catches this too, as
    two such loops inside each other do, goes on. Nothing is interrupted outside of the main thread, on
    systems without timers, and where an earlier limit of somebody else's is running.
    """
    seconds = min(seconds, _NEVER_S)
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return
    others_s, interval_s = signal.getitimer(signal.ITIMER_REAL)
    if 0 < others_s <= seconds:
        yield
        return
    start, tracer = time.monotonic(), sys.gettrace()
    outside = sys._getframe(2)  # that of the `with` statement, past contextlib
    before = signal.signal(signal.SIGALRM, _Interrupting(outside, may_trace=tracer is None))
    signal.setitimer(signal.ITIMER_REAL, seconds, _AGAIN_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if sys.gettrace() is not tracer:
            sys.settrace(tracer)
        if others_s:
            left_s = others_s - (time.monotonic() - start)
            signal.setitimer(signal.ITIMER_REAL, max(left_s, 1e-3), interval_s)


class _Interrupting:
    """What the timer calls: raises TooSlow in the code that is running."""

    def __init__(self, outside: FrameType, *, may_trace: bool) -> None:
        self._outside = outside
        self._may_trace = may_trace  # a debugger that follows the lines keeps doing so
        self._raised = False

    def __call__(self, _number: int, frame: FrameType | None) -> None:
        # The first TooSlow may be on its way out: what puts things back must not be interrupted.
        if self._raised and _is_own(frame):
            return
        self._raised = True
        if self._may_trace:
            self._raise_in_next_line(frame)
        raise TooSlow

    def _raise_in_next_line(self, frame: FrameType | None) -> None:
        """Raise TooSlow also in the next line inside of the block, such as that where it is caught."""
        while frame is not None and frame is not self._outside:
            frame.f_trace = _tracer
            frame = frame.f_back
        sys.settrace(lambda *_: None)  # functions that are called from now on are not followed


def _tracer(frame: FrameType, event: str, _argument: Any) -> Any:
    # Where Python is just taking an exception in hand it would keep that for good if another came.
    if event == "line" and frame.f_code.co_code[frame.f_lasti] != _TAKING:
        raise TooSlow  # with which Python stops following
    return _tracer


def _is_own(frame: FrameType | None) -> bool:
    name = "" if frame is None else str(frame.f_globals.get("__name__"))
    return name == "contextlib" or name.startswith("tinytorch.benchmarking.")
