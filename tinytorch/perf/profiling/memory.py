"""Measuring memory: what Python and NumPy allocate, to the byte."""

from __future__ import annotations

import gc
import tracemalloc
from dataclasses import dataclass
from typing import Self

from tinytorch.perf.profiling.timer import RUNNING, TRACING, note_tracing


class MemoryProfiler:
    """Measures the memory that a `with` block allocates, in bytes above what was held at its start.

    Counted is what NumPy and Python ask for: an array to the byte, and about a hundred more for the object
    around it. Buffers that compiled kernels and BLAS allocate for themselves are not. The whole process is
    traced, which makes it slower: nothing should be timed at the same time. Blocks nest.

    Attributes:
        peak_bytes: the most that was held at one time.
        retained_bytes: what was held at the end, after garbage was collected; below zero where more was
            given back than taken.

    Raises:
        RuntimeError: on entering, when a `with Timer()` or `with Profiler()` block is running, or when this
            one is entered twice.
    """

    def __init__(self) -> None:
        self.peak_bytes = 0
        self.retained_bytes = 0
        self._start = 0
        self._highest = 0  # the most that was held in the whole block, and since the last snapshot
        self._lately = 0
        self._ours = False

    def __enter__(self) -> Self:
        if RUNNING:
            raise RuntimeError(
                f"{type(self).__name__} cannot start while a Timer or a Profiler is running: tracing memory "
                "makes everything slower; measure time and memory in two runs"
            )
        if self in TRACING:
            raise RuntimeError(f"this {type(self).__name__} is running already: make another one for inside")
        gc.collect()
        self._ours = not tracemalloc.is_tracing()
        if self._ours:
            tracemalloc.start()
        self._note_peak()
        self._start, _ = tracemalloc.get_traced_memory()
        self._highest = self._lately = self._start
        self.peak_bytes = self.retained_bytes = 0
        note_tracing(self)
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._note_peak()
            gc.collect()
            self.retained_bytes = tracemalloc.get_traced_memory()[0] - self._start
            self.peak_bytes = max(self._highest - self._start, 0)
        finally:
            TRACING.remove(self)
            if self._ours:
                tracemalloc.stop()

    @staticmethod
    def _note_peak() -> None:
        """Tell every block that is running of the peak so far, and start a new one."""
        _, peak = tracemalloc.get_traced_memory()
        for running in TRACING:
            if isinstance(running, MemoryProfiler):
                running._highest = max(running._highest, peak)
                running._lately = max(running._lately, peak)
        tracemalloc.reset_peak()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The memory at one moment of a block.

    Attributes:
        label: what it was called.
        current_bytes: held above the start of the block.
        peak_bytes: the most that was held above the start, since the snapshot before.
    """

    label: str
    current_bytes: int
    peak_bytes: int


class MemoryTracker(MemoryProfiler):
    """A MemoryProfiler that also says where in the block memory went.

    Attributes:
        snapshots: what `snapshot` found, in the order in which it was called.
    """

    def __init__(self) -> None:
        super().__init__()
        self.snapshots: list[Snapshot] = []

    def __enter__(self) -> Self:
        super().__enter__()
        self.snapshots = []
        return self

    def snapshot(self, label: str) -> Snapshot:
        """Remember what is held now, and the peak since the last snapshot, under a name.

        Raises:
            ValueError: `label` is no text.
            RuntimeError: the block is not running.
        """
        if not isinstance(label, str) or not label:
            raise ValueError(f"`label` must be a text, not empty, got {label!r}")
        if self not in TRACING:
            raise RuntimeError(
                "snapshot() needs a tracker that is running: call it inside `with MemoryTracker()`"
            )
        self._note_peak()
        held, _ = tracemalloc.get_traced_memory()
        taken = Snapshot(label, held - self._start, max(self._lately - self._start, 0))
        self._lately = held
        self.snapshots.append(taken)
        return taken
