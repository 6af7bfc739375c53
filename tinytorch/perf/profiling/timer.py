"""Measuring time with the clock that counts nanoseconds."""

from __future__ import annotations

from time import perf_counter_ns
from typing import Self

# What may not happen at the same time: memory is traced in the whole process, and that makes everything
# slower, 3.3 times in geometric mean over CPython's benchmarks.
RUNNING: list[None] = []  # one for each `with Timer()` block that is running
TRACING: list[object] = []  # the `with MemoryProfiler()` blocks that are running, the innermost last
_TRACED = [0]  # how many such blocks have begun


def note_tracing(block: object) -> None:
    """Note that a `with MemoryProfiler()` block begins, for timers that are running already."""
    _TRACED[0] += 1
    TRACING.append(block)


class Timer:
    """Measures the time that a `with` block takes, or that passes between `start()` and `stop()`.

    It can be used again; the time is that of the last use.

    Attributes:
        started_ns: when it was started, on a clock whose zero means nothing; None before.
        stopped_ns: when it was stopped; None before, and while it runs.
    """

    __slots__ = ("_traced", "started_ns", "stopped_ns")

    def __init__(self) -> None:
        self._traced = 0
        self.started_ns: int | None = None
        self.stopped_ns: int | None = None

    def start(self) -> Self:
        """Start from zero, and return the timer.

        Raises:
            RuntimeError: memory is being traced, which would be measured with everything else.
        """
        if TRACING:
            raise RuntimeError(
                "a Timer cannot run inside `with MemoryProfiler()`: tracing memory makes everything slower; "
                "measure time and memory in two runs"
            )
        self.stopped_ns = None
        self._traced = _TRACED[0]
        self.started_ns = perf_counter_ns()
        return self

    def stop(self) -> float:
        """Stop, and return the milliseconds since the start.

        Raises:
            RuntimeError: it was not started, was stopped before, or memory was traced since the start.
        """
        now = perf_counter_ns()
        if self.started_ns is None or self.stopped_ns is not None:
            raise RuntimeError("stop() needs a Timer that runs: call start() first, or use `with Timer()`")
        self._check_untraced()
        self.stopped_ns = now
        return self.elapsed_ms

    @property
    def elapsed_ns(self) -> int:
        """Nanoseconds from start to stop, or until now while it runs.

        Raises:
            RuntimeError: it was never started, or memory was traced while it ran.
        """
        now = perf_counter_ns()
        if self.started_ns is None:
            raise RuntimeError("this Timer was never started: call start(), or use `with Timer()`")
        if self.stopped_ns is not None:
            return self.stopped_ns - self.started_ns
        self._check_untraced()
        return now - self.started_ns

    @property
    def elapsed_ms(self) -> float:
        """Milliseconds from start to stop, or until now while it runs.

        Raises:
            RuntimeError: as for `elapsed_ns`.
        """
        return self.elapsed_ns / 1e6

    def __enter__(self) -> Self:
        if TRACING:
            self.start()  # which raises
        RUNNING.append(None)
        self.stopped_ns = None
        self._traced = _TRACED[0]
        self.started_ns = perf_counter_ns()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped_ns = perf_counter_ns()
        RUNNING.pop()

    def _check_untraced(self) -> None:
        if self._traced != _TRACED[0]:
            raise RuntimeError(
                "a `with MemoryProfiler()` block began while this Timer was running: tracing memory makes "
                "everything slower; start() again, and measure memory in another run"
            )

    def __repr__(self) -> str:
        if self.stopped_ns is None:
            return "Timer()" if self.started_ns is None else "Timer(running)"
        return f"Timer({self.elapsed_ms:.6g} ms)"
