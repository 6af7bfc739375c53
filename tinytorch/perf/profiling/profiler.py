"""The profiler: which operations and which layers take the time."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Self

from tinytorch.core.checks import positive_int
from tinytorch.perf.profiling import inspection, passes, rows
from tinytorch.perf.profiling.flops import FLOPCount, FLOPCounter
from tinytorch.perf.profiling.listening import Listener, innermost
from tinytorch.perf.profiling.machine import Machine
from tinytorch.perf.profiling.overhead import overhead_us
from tinytorch.perf.profiling.portions import unknown_names
from tinytorch.perf.profiling.recording import Log, Recorder
from tinytorch.perf.profiling.roofline import Roofline, roofline
from tinytorch.perf.profiling.rows import Row
from tinytorch.perf.profiling.table import table
from tinytorch.perf.profiling.timer import RUNNING, TRACING
from tinytorch.perf.profiling.trace import write_chrome_trace

if TYPE_CHECKING:
    import pandas as pd


class Profiler:
    """Records every operation and every layer that runs in a `with` block.

    Recorded is this thread, or this asynchronous task with those that it starts in the block. Others may
    enter the same Profiler at the same time, for what they run. A block adds to what was recorded before.
    Profilers nest, and each sees all that runs in its block. About half a kilobyte is kept for each record.

    Args:
        counter: has the formulas of FLOPs; those of `formulas` unless given.

    Raises:
        RuntimeError: on entering, inside `with MemoryProfiler()`, which makes everything slower.
    """

    def __init__(self, counter: FLOPCounter | None = None) -> None:
        self._counter = counter
        self._log = Log()
        self._blocks: dict[Listener, int | None] = {}  # those that run, with the start of the outermost ones
        self._elapsed_ns = 0
        self._lock = Lock()

    def __enter__(self) -> Self:
        if TRACING:
            raise RuntimeError(
                "a Profiler cannot run inside `with MemoryProfiler()`: tracing memory makes everything "
                "slower; measure time and memory in two runs"
            )
        RUNNING.append(None)
        outermost = innermost(self._log) is None
        block = Recorder.begin(self._log)
        self._blocks[block] = perf_counter_ns() if outermost else None
        return self

    def __exit__(self, *_: object) -> None:
        now = perf_counter_ns()
        block = innermost(self._log) or next(reversed(self._blocks), None)  # that of another context
        if block is None:
            raise RuntimeError("this Profiler is not running: enter it before, best by `with`")
        block.end()
        with self._lock:
            start = self._blocks.pop(block)
            self._elapsed_ns += 0 if start is None else now - start
        RUNNING.pop()

    @property
    def counter(self) -> FLOPCounter:
        """What knows the formulas of FLOPs."""
        if self._counter is None:  # made where it is wanted, rather than in the block that is measured
            self._counter = FLOPCounter()
        return self._counter

    # --- what was recorded

    @property
    def elapsed_ms(self) -> float:
        """Milliseconds that the blocks took in all, those of several threads or tasks added up."""
        now = perf_counter_ns()
        with self._lock:
            starts = [start for start in self._blocks.values() if start is not None]
            return (self._elapsed_ns + sum(now - start for start in starts)) / 1e6

    @property
    def records(self) -> int:
        """How many operations and calls of layers were recorded."""
        return len(self._log.events) + len(self._log.spans)

    @property
    def overhead_ms(self) -> float:
        """Milliseconds that recording took: the records of each kind times what one costs here and now."""
        return overhead_us(self._log) / 1e3

    @property
    def unrecorded_ms(self) -> float:
        """Milliseconds of the blocks that no operation, no layer and no recording took: work beside them."""
        return self._unrecorded_ms(self.overhead_ms if self.records else 0.0, self.elapsed_ms)

    def _unrecorded_ms(self, cost_ms: float, elapsed_ms: float) -> float:
        return max(elapsed_ms - sum(row.self_ms for row in self.by_operation()) - cost_ms, 0.0)

    @property
    def uncounted(self) -> tuple[str, ...]:
        """Names of layers and operations that do work without a formula, so that `flops` lacks it.

        What NumPy does in a layer beside operations is not noticed here; `count_flops` looks closer.
        """
        return tuple(sorted(unknown_names(self.counter, self._log)))

    def by_operation(self) -> list[Row]:
        """Return a row for each operation, and for the own time of each class of layers, slowest first.

        The own time of a layer is what no operation and no other layer takes: work that is no operation,
        and Python.
        """
        return rows.by_operation(self.counter, self._log)

    def by_module(self) -> list[Row]:
        """Return a row for each class of layers, slowest first; operations belong to who calls them."""
        return rows.by_module(self.counter, self._log)

    def to_pandas(self) -> pd.DataFrame:
        """Return `by_operation()` as a DataFrame with a column for each attribute of a row."""
        from dataclasses import asdict, fields

        import pandas as pd

        return pd.DataFrame(
            [asdict(row) for row in self.by_operation()], columns=[field.name for field in fields(Row)]
        )

    def print_top_operations(self, n: int = 10) -> None:
        """Print the `n` operations, or layers by their own time, that took longest, and what remains.

        Shares are of what was recorded. Below are the time of the blocks in which neither an operation nor
        a layer ran, with its share of the whole, and what recording cost.

        Raises:
            ValueError: `n` is not a positive whole number.
        """
        count = positive_int(n, "n")
        sys.stdout.write(self.report(count))

    def report(self, n: int = 10) -> str:
        """Return what `print_top_operations` prints."""
        found = self.by_operation()
        elapsed_ms = self.elapsed_ms
        if not found:
            return "no operations were recorded\n" + _remainder(elapsed_ms, elapsed_ms)
        return table(found, n) + self._remarks(elapsed_ms)

    def to_chrome_trace(self, path: str | Path) -> None:
        """Write all records in the format that Perfetto (ui.perfetto.dev) and chrome://tracing open.

        Raises:
            ValueError: the folder of `path` does not exist, or it is a folder itself.
        """
        write_chrome_trace(self.counter, self._log, path)

    def roofline(self, machine: Machine | None = None) -> Roofline:
        """Place the operations under the roof of the machine, which is measured now unless given.

        Take `.report()` for a table, `.memory_bound` for names, and `.plot(path)` for a picture.
        """
        return roofline(self.by_operation(), machine)

    def _remarks(self, elapsed_ms: float) -> str:
        cost_ms = self.overhead_ms
        per_record_us = 1e3 * cost_ms / self.records
        share = f" or {cost_ms / elapsed_ms:.1%} of {elapsed_ms:.3f} ms" if elapsed_ms else ""
        text = "\n" + _remainder(self._unrecorded_ms(cost_ms, elapsed_ms), elapsed_ms)
        text += (
            f"recording itself: {self.records} records of {per_record_us:.2f} us, {cost_ms:.3f} ms{share}\n"
        )
        if self.uncounted:
            text += f"no FLOPs are known of: {', '.join(self.uncounted)}\n"
        return text

    # --- questions about a model, each with runs of its own

    @staticmethod
    def count_parameters(model: Any) -> int:
        """Return how many numbers training adjusts."""
        return inspection.count_parameters(model)

    def count_flops(self, model: Any, input_shape: Sequence[int]) -> FLOPCount:
        """Return what the model takes for one sample; see `FLOPCounter.count`."""
        return self.counter.count(model, input_shape)

    @staticmethod
    def measure_memory(model: Any, input_shape: Sequence[int]) -> dict[str, float]:
        """Return where the memory of a forward pass goes; see `inspection.measure_memory`."""
        return inspection.measure_memory(model, input_shape)

    @staticmethod
    def measure_latency(model: Any, input_tensor: Any, warmup: int = 10, iterations: int = 100) -> float:
        """Return the median milliseconds of a forward pass; see `inspection.measure_latency`."""
        return inspection.measure_latency(model, input_tensor, warmup, iterations)

    def profile_layer(self, layer: Any, input_shape: Sequence[int]) -> dict[str, Any]:
        """Return what one layer takes; see `passes.profile_layer`."""
        return passes.profile_layer(self.counter, layer, input_shape)

    def profile_forward_pass(self, model: Any, input_tensor: Any) -> dict[str, Any]:
        """Return what a forward pass takes; see `passes.profile_forward_pass`."""
        return passes.profile_forward_pass(self.counter, model, input_tensor)

    def profile_backward_pass(
        self, model: Any, input_tensor: Any, loss_fn: Callable[[Any], Any] | None = None
    ) -> dict[str, Any]:
        """Return what a step of training takes; see `passes.profile_backward_pass`."""
        return passes.profile_backward_pass(self.counter, model, input_tensor, loss_fn)


def _remainder(unrecorded_ms: float, elapsed_ms: float) -> str:
    """Return a line about the time that is in no row, empty where no block was entered."""
    if not elapsed_ms:
        return ""
    return (
        f"not recorded: {unrecorded_ms:.3f} ms, {unrecorded_ms / elapsed_ms:.1%} of {elapsed_ms:.3f} ms: "
        "work outside of tinytorch's operations and layers\n"
    )
