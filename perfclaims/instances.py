"""Instances in this process: built on a jittered heap, timed call by call."""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import repeat
from typing import Any, Final

import numpy as np

from perfclaims.argument_sets import Arguments, ArgumentSets, Drawing
from perfclaims.implementation import Implementation, Inputs
from perfclaims.outputs import needs_reading, read, snapshot
from perfclaims.structure import numpy_method

_clock = time.perf_counter_ns

# Of the memory that is free, another instance may take half.
_SHARE_OF_MEMORY = 0.5


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
        self._titles = (f"the baseline {baseline.name!r}", f"the optimised {optimized.name!r}")
        self._drawing = Drawing(inputs)
        self._seed = seed
        self._layout = random.Random(f"layout {seed}")  # noqa: S311 - layout, not secrets
        self._built = 0
        self._resident = _resident_bytes()

    def build(self, index: int) -> LocalInstance:
        """Build both sides in random order with blocks of random sizes kept alive between them."""
        layout = self._layout
        pads = [bytearray(layout.randrange(16, 16_384)) for _ in range(layout.randrange(1, 40))]
        funcs: dict[int, Callable[..., Any]] = {}
        for which in layout.sample((0, 1), 2):
            with _naming(f"raised while building {self._titles[which]}"):
                funcs[which] = self._sides[which].instance(self._generator("build", index))
            # Some fill gaps; one is too large for most gaps, and shifts what goes to the end of the heap.
            sizes = (*(16 for _ in range(layout.randrange(1, 9))), 2_000_000)
            pads += [bytearray(size + layout.randrange(65_536)) for size in sizes]
        sets = self._drawing.sets_for(self._generator("arguments", index))
        self._built += 1
        return LocalInstance((funcs[0], funcs[1]), self._titles, sets, pads)

    def has_room(self) -> bool:
        """Whether one more instance, as large as those so far, leaves as much memory free as it takes."""
        import psutil

        each = (_resident_bytes() - self._resident) / max(1, self._built)
        return each < _SHARE_OF_MEMORY * float(psutil.virtual_memory().available)

    def _generator(self, purpose: str, index: int) -> np.random.Generator:
        # Hashed: a generator shows what it was seeded with, and the other seeds must not follow from it.
        entropy = hashlib.blake2b(f"{purpose} {self._seed} {index}".encode(), digest_size=16).digest()
        return np.random.default_rng(int.from_bytes(entropy, "little"))


class LocalInstance:
    """Both sides in this process."""

    def __init__(
        self,
        funcs: tuple[Callable[..., Any], Callable[..., Any]],
        titles: tuple[str, str],
        sets: ArgumentSets,
        pads: Sequence[bytearray],
    ) -> None:
        self._sets = sets
        self._pads = pads
        self.baseline: Final = LocalSide(funcs[0], titles[0], sets, 0)
        self.optimized: Final = LocalSide(funcs[1], titles[1], sets, 1)

    def batch(self, baseline_calls: int, optimized_calls: int, instances: int) -> list[str]:
        """Give a sample of k calls k sets of its own, the first of them shared by both sides."""
        return self._sets.batch((baseline_calls, optimized_calls), instances)

    def arguments_changed(self, *, first_only: bool = False) -> bool:
        """Whether an implementation wrote to its arguments."""
        return self._sets.changed(first_only=first_only)

    def redraw(self) -> list[str]:
        """Draw anew what was used since the last time."""
        return self._sets.redraw()

    def lay_out_last(self, baseline_calls: int, optimized_calls: int) -> tuple[int, int]:
        """Give each side half of the sets."""
        return self._sets.lay_out_last((baseline_calls, optimized_calls))

    def prepare_last(self) -> list[str]:
        """Draw new content, and hold some of it back."""
        return self._sets.prepare_last()

    def write_last(self) -> list[str]:
        """Overwrite the sets with it."""
        return self._sets.write_last()


class LocalSide:
    """One callable in this process.

    Where its answer is an object with `.numpy()`, calling that belongs to the call: work may be put off until
    then.
    """

    def __init__(self, func: Callable[..., Any], title: str, sets: ArgumentSets, which: int) -> None:
        self._func = func
        self._timed = func
        self._title = title
        self._sets = sets
        self._windows = sets.windows[which]
        self._last_windows = sets.last_windows[which]
        self._clocked = _time_with if sets.given else _time_without

    def call(self) -> tuple[int, object]:
        """One call; the snapshot is taken before anything else runs."""
        args = self._windows[0][0]
        self._sets.uses += 1
        with self._named():
            start = _clock()
            output = self._func(*args)
            duration = _clock() - start
            if needs_reading(output):
                direct = numpy_method(output) is not None
                self._timed = _then_numpy(self._func) if direct else _then_read(self._func)
                start = _clock()
                output = read(output)
                duration += _clock() - start
            return duration, snapshot(output, may_read=False)

    def sample(self, position: int) -> int:
        """Time one sample."""
        windows = self._windows
        self._sets.uses += 1
        try:
            return self._clocked(self._timed, windows[position % len(windows)])
        except Exception as error:
            self._name(error)
            raise

    def last_sample(self, position: int) -> tuple[int, object]:
        """Time one sample; only the last output is kept, since to hold all of them would cost time."""
        window = self._last_windows[position % len(self._last_windows)]
        func, others, args = self._timed, window[:-1], window[-1]
        self._sets.uses += 1
        with self._named():
            start = _clock()
            for before in others:
                func(*before)
            output = func(*args)
            duration = _clock() - start
            # What is not there by now was put off until after the clock.
            return duration, snapshot(output, may_read=False)

    def last_output(self, position: int, which: int) -> object:
        """Call on one set, untimed, and take a snapshot."""
        args = self._sets.last_set(position, which)
        self._sets.uses += 1
        with self._named():
            return snapshot(self._func(*args))

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._name(error)
            raise

    def _name(self, error: Exception) -> None:
        """Say on an exception whose it is, and with what it was called where that may be what is wrong."""
        error.add_note(f"raised by {self._title}")
        if isinstance(error, TypeError) and _raised_here(error):
            count = len(self._windows[0][0])
            error.add_note(
                f"it was called with what `inputs` returned: {count} argument{'' if count == 1 else 's'}"
                if self._sets.given
                else "it was called without arguments, since no `inputs` was given: pass "
                "inputs=lambda rng: (x, ...), which returns the arguments of a call as a tuple"
            )


@contextmanager
def _naming(note: str) -> Iterator[None]:
    """Say on an exception that goes through whose it is."""
    try:
        yield
    except Exception as error:
        error.add_note(note)
        raise


def _raised_here(error: BaseException) -> bool:
    """Whether a call failed before any Python code of the callee ran, as with a wrong number of arguments."""
    innermost = error.__traceback__
    while innermost is not None and innermost.tb_next is not None:
        innermost = innermost.tb_next
    return innermost is not None and innermost.tb_frame.f_code.co_filename == __file__


def _then_numpy(func: Callable[..., Any]) -> Callable[..., object]:
    def call(*args: Any) -> object:
        output = func(*args)
        try:
            return output.numpy()
        except AttributeError:
            return read(output)

    return call


def _then_read(func: Callable[..., Any]) -> Callable[..., object]:
    return lambda *args: read(func(*args))


def _time_with(func: Callable[..., Any], window: Sequence[Arguments]) -> int:
    if len(window) == 1:
        args = window[0]
        start = _clock()
        func(*args)
        return _clock() - start
    start = _clock()
    for args in window:
        func(*args)
    return _clock() - start


def _time_without(func: Callable[..., Any], window: Sequence[Arguments]) -> int:
    calls = len(window)
    if calls == 1:
        start = _clock()
        func()
        return _clock() - start
    start = _clock()
    for _ in repeat(None, calls):
        func()
    return _clock() - start


def _resident_bytes() -> int:
    import psutil

    return int(psutil.Process().memory_info().rss)
