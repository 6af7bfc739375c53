"""Instances of two implementations: built side by side, called on the same arguments, timed call by call.

`Source`, `Instance` and `Side` are the protocol between the procedure that pairs samples and the place where
the calls run; here that place is this process.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from itertools import repeat
from typing import Any, Final, Protocol

import numpy as np

from perfclaims.arguments import checksum, nbytes, overwrite
from perfclaims.implementation import Implementation, Inputs
from perfclaims.outputs import needs_reading, read, share_storage, snapshot

_clock = time.perf_counter_ns

# Sets of arguments per instance: several, so that no call can count on the one before, but little enough
# memory for ten instances side by side, and for drawing all of them anew within a second.
FEWEST_SETS = 4
SETS_BYTES = 16 << 20
DRAWING_S = 0.3


class Side(Protocol):
    """One implementation inside one instance, wherever it runs."""

    def call(self) -> tuple[int, object]:
        """One call on the first arguments: its duration in ns and a snapshot of its output."""
        ...

    def sample(self, position: int) -> int:
        """Duration in ns of one sample on the arguments of this position."""
        ...

    def last_sample(self, position: int) -> tuple[int, list[object]]:
        """The same with snapshots of every output; reading an output counts as part of the call."""
        ...

    def output(self, position: int, index: int) -> object:
        """A snapshot of the output for set `index` of a position's longest sample, not timed."""
        ...


class Instance(Protocol):
    """A baseline and an optimised side on shared arguments."""

    @property
    def baseline(self) -> Side:
        """The baseline."""
        ...

    @property
    def optimized(self) -> Side:
        """The optimised side."""
        ...

    def batch(self, baseline_calls: int, optimized_calls: int, instances: int) -> list[str]:
        """Fix the calls per sample and draw the arguments that they need; what the reader should know."""
        ...

    def last_calls(self) -> tuple[int, int]:
        """Calls of each side in a sample of the last round, each on arguments of its own."""
        ...

    def positions(self) -> int:
        """Samples that fit on the arguments with each set used once."""
        ...

    def arguments_changed(self) -> bool:
        """Whether an implementation wrote to the arguments since they were drawn."""
        ...

    def redraw(self) -> list[str]:
        """Draw all arguments anew, in place where possible; what the reader should know of it."""
        ...


class Source(Protocol):
    """Builds instances."""

    rebuilt: bool
    fresh_arguments: bool

    def build(self, index: int) -> Instance:
        """Build instance `index` in a memory layout of its own."""
        ...


class LocalSource:
    """Builds instances in this process, in random order on a jittered heap.

    The generators are separate: both builds of an instance get the same stream; arguments, order and jitter
    use others, so that nothing about the arguments can be known in `build`.
    """

    def __init__(
        self, baseline: Implementation, optimized: Implementation, inputs: Inputs | None, seed: int
    ) -> None:
        self.rebuilt = baseline.rebuildable and optimized.rebuildable
        self.fresh_arguments = inputs is not None
        self._sides = (baseline, optimized)
        self._inputs = inputs
        self._seed = seed
        self._layout = random.Random(f"layout {seed}")  # noqa: S311 - layout, not secrets

    def build(self, index: int) -> LocalInstance:
        """Build both sides in random order with blocks of random sizes kept alive between them."""
        pads = [bytearray(self._layout.randrange(16, 16_384)) for _ in range(self._layout.randrange(1, 40))]
        funcs: list[Callable[..., Any] | None] = [None, None]
        for which in self._layout.sample((0, 1), 2):
            funcs[which] = self._sides[which].instance(np.random.default_rng([self._seed, index, 0]))
            pads.append(bytearray(self._layout.randrange(16, 65_536)))
        sets = ArgumentSets(self._inputs, np.random.default_rng([self._seed, index, 1]))
        names = (self._sides[0].name, self._sides[1].name)
        assert funcs[0] is not None
        assert funcs[1] is not None
        return LocalInstance((funcs[0], funcs[1]), names, sets, pads)


class ArgumentSets:
    """The argument tuples of one instance, used in turn by both sides."""

    def __init__(self, inputs: Inputs | None, rng: np.random.Generator) -> None:
        self._inputs = inputs
        self._rng = rng
        self.tuples: list[tuple[Any, ...]] = [()]
        self._checksums: list[int] = []
        self.draw_s = 0.0
        if inputs is not None:
            self.tuples = [self._draw()]
            self._note_content()

    @property
    def given(self) -> bool:
        """Whether the callables take arguments at all."""
        return self._inputs is not None

    def grow(self, wanted: int, instances: int) -> None:
        """Draw more sets, as many of `wanted` as memory and time allow."""
        if not self.given:
            return
        by_memory = SETS_BYTES // max(1, nbytes(self.tuples[0]))
        by_time = int(DRAWING_S / instances / max(self.draw_s, 1e-9))
        count = max(1, min(wanted, by_memory, max(by_time, FEWEST_SETS)))
        self.tuples.extend(self._draw() for _ in range(count - len(self.tuples)))
        self._note_content()

    def changed(self) -> bool:
        """Whether any set's content differs from what was drawn."""
        return self.given and any(checksum(t) != c for t, c in zip(self.tuples, self._checksums, strict=True))

    def redraw(self) -> list[str]:
        """Overwrite every set with new content; notes on what could not be overwritten."""
        notes: list[str] = []
        if not self.given:
            return notes
        for index, old in enumerate(self.tuples):
            result = overwrite(old, self._draw())
            self.tuples[index] = result.value
            if result.replaced:
                notes.append(
                    f"arguments {', '.join(result.replaced)} were replaced, not overwritten: an answer remembered "
                    "by their address would not be noticed; pass them as arrays or lists of a fixed size"
                )
            if not result.changed:
                notes.append(
                    "inputs(rng) gave the same arguments again, so that remembered answers cannot be told from "
                    "computed ones; draw them from `rng`"
                )
        self._note_content()
        return list(dict.fromkeys(notes))

    def _draw(self) -> tuple[Any, ...]:
        assert self._inputs is not None
        start = _clock()
        drawn = self._inputs(self._rng)
        self.draw_s = max(self.draw_s, (_clock() - start) / 1e9)
        if not isinstance(drawn, tuple):
            raise ValueError(
                f"`inputs` must return a tuple of arguments, got {type(drawn).__name__}; for one argument return (x,)"
            )
        return drawn

    def _note_content(self) -> None:
        self._checksums = [checksum(t) for t in self.tuples]


class LocalInstance:
    """Both sides in this process."""

    def __init__(
        self,
        funcs: tuple[Callable[..., Any], Callable[..., Any]],
        names: tuple[str, str],
        sets: ArgumentSets,
        pads: Sequence[bytearray],
    ) -> None:
        self._sets = sets
        self._pads = pads
        self._stride = 1
        self._calls = (1, 1)
        self.baseline: Final = LocalSide(funcs[0], f"the baseline {names[0]!r}")
        self.optimized: Final = LocalSide(funcs[1], f"the optimised {names[1]!r}")
        self._lay_out()

    def batch(self, baseline_calls: int, optimized_calls: int, instances: int) -> list[str]:
        """Give a sample of k calls k sets of its own, the first of them shared by both sides."""
        self._calls = (baseline_calls, optimized_calls)
        self._stride = max(self._calls)
        self._sets.grow(max(FEWEST_SETS, self._stride), instances)
        self._lay_out()
        sets = len(self._sets.tuples)
        if not self._sets.given or sets >= self._stride:
            return []
        return [
            f"{self._stride} calls of a sample share {sets} sets of arguments: more would take too much "
            "memory or too long to draw"
        ]

    def last_calls(self) -> tuple[int, int]:
        """No set is used twice in the last round, so a sample may have to be shorter there."""
        if not self._sets.given:
            return self._calls
        sets = len(self._sets.tuples)
        return min(self._calls[0], sets), min(self._calls[1], sets)

    def positions(self) -> int:
        """Samples with each set used once; 1 when there are fewer sets than calls in a sample."""
        return max(1, len(self._sets.tuples) // self._stride)

    def arguments_changed(self) -> bool:
        """Whether an implementation wrote to its arguments."""
        return self._sets.changed()

    def redraw(self) -> list[str]:
        """Draw anew and lay the sets out again, for tuples that had to be replaced."""
        notes = self._sets.redraw()
        self._lay_out()
        return notes

    def _lay_out(self) -> None:
        tuples = self._sets.tuples
        for side, calls in ((self.baseline, self._calls[0]), (self.optimized, self._calls[1])):
            side.windows = [
                [tuples[(position * self._stride + i) % len(tuples)] for i in range(calls)]
                for position in range(self.positions())
            ]
            side.takes_arguments = self._sets.given
            side.sets, side.stride = tuples, self._stride


class LocalSide:
    """One callable in this process; `windows` holds the arguments of each position."""

    def __init__(self, func: Callable[..., Any], title: str) -> None:
        self._func = func
        self._title = title
        self._reads = False
        self.windows: list[list[tuple[Any, ...]]] = [[()]]
        self.sets: Sequence[tuple[Any, ...]] = [()]
        self.stride = 1
        self.takes_arguments = False

    def call(self) -> tuple[int, object]:
        """One call; the snapshot is taken before anything else runs."""
        args = self.windows[0][0]
        try:
            start = _clock()
            output = self._func(*args)
            duration = _clock() - start
        except Exception as error:
            self._name_in(error)
            raise
        self._reads = needs_reading(output)
        return duration, snapshot(output)

    def sample(self, position: int) -> int:
        """Time one sample."""
        window = self.windows[position % len(self.windows)]
        try:
            return (_time_with if self.takes_arguments else _time_without)(self._func, window)
        except Exception as error:
            self._name_in(error)
            raise

    def last_sample(self, position: int) -> tuple[int, list[object]]:
        """Time one sample and keep its outputs; a deferred answer is computed inside the timed part."""
        window = self.windows[position % len(self.windows)]
        func = self._func
        if not self.takes_arguments:
            # The same call again and again: its last output stands for all.
            return self._last_without(len(window))
        window = window[: len(self.sets)]
        try:
            start = _clock()
            if self._reads:
                outputs = [read(func(*args)) for args in window]
            else:
                outputs = [func(*args) for args in window]
            duration = _clock() - start
            if len(outputs) > 1 and share_storage(outputs):
                # One buffer for all outputs: only the last is still in it, the others are asked for again.
                last = snapshot(outputs[-1])
                return duration, [*(snapshot(func(*args)) for args in window[:-1]), last]
        except Exception as error:
            self._name_in(error)
            raise
        return duration, [snapshot(output) for output in outputs]

    def output(self, position: int, index: int) -> object:
        """Call on one set, untimed, and take a snapshot."""
        try:
            return snapshot(self._func(*self.sets[(position * self.stride + index) % len(self.sets)]))
        except Exception as error:
            self._name_in(error)
            raise

    def _last_without(self, calls: int) -> tuple[int, list[object]]:
        func = self._func
        try:
            start = _clock()
            for _ in repeat(None, calls - 1):
                func()
            output = read(func()) if self._reads else func()
            duration = _clock() - start
        except Exception as error:
            self._name_in(error)
            raise
        return duration, [snapshot(output)]

    def _name_in(self, error: Exception) -> None:
        error.add_note(f"raised by {self._title}")


def _time_with(func: Callable[..., Any], window: Sequence[tuple[Any, ...]]) -> int:
    if len(window) == 1:
        args = window[0]
        start = _clock()
        func(*args)
        return _clock() - start
    start = _clock()
    for args in window:
        func(*args)
    return _clock() - start


def _time_without(func: Callable[..., Any], window: Sequence[tuple[Any, ...]]) -> int:
    calls = len(window)
    if calls == 1:
        start = _clock()
        func()
        return _clock() - start
    start = _clock()
    for _ in repeat(None, calls):
        func()
    return _clock() - start
