"""The arguments of an instance: several sets, used in turn, laid out for samples, and drawn anew."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from perfclaims.arguments import checksum, nbytes, overwrite
from perfclaims.implementation import Inputs
from perfclaims.storage import array_of

_clock = time.perf_counter_ns

Arguments = tuple[Any, ...]
# The arguments of each sample: one list of sets for every position.
Windows = list[list[Arguments]]

# Sets of arguments per instance: several, so that no call can count on the one before, but so little memory
# and time that ten instances have their own, and all are drawn, written and checksummed within a second.
USUAL_SETS = 4
FEWEST_SETS = 2
SETS_BYTES = 4 << 20
DRAWING_S = 0.5
# A reader is told of sets used several times within one sample only from this many times on: the last round,
# where each is used once, notices what that could hide.
_FAR_FEWER = 4
# Larger or slower sets are shared by all instances. The GNU C library maps arrays of this size at one offset
# within a page, so that sets of their own would not show another memory layout.
SHARED_BYTES = 32 << 20
SHARED_DRAW_S = 0.15

_PATHS_SHOWN = 3
_NO_INPUTS = (
    "the same call is repeated, so that answers worked out ahead or remembered cannot be told from computed "
    "ones; pass `inputs`"
)


class Drawing:
    """Calls `inputs`, and settles for all instances of a comparison how many sets there are, and whose."""

    def __init__(self, inputs: Inputs | None) -> None:
        self.inputs = inputs
        self._draw_s = math.inf
        self._write_s = 0.0
        self._set_bytes = 1
        # Whether `inputs` fills the same memory each time; None until it was called twice.
        self._refills: bool | None = None
        self._counts: dict[int, int] = {}
        self._shared: ArgumentSets | None = None

    def sets_for(self, rng: np.random.Generator) -> ArgumentSets:
        """Sets of an instance: of its own, or those of all instances where they are huge or slow to draw."""
        if self._shared is not None:
            return self._shared
        sets = ArgumentSets(self, rng)
        if self.inputs is not None and (self._set_bytes > SHARED_BYTES or self._draw_s > SHARED_DRAW_S):
            self._shared = sets
        return sets

    def notes(self) -> list[str]:
        """What the reader should know of how the arguments are held."""
        if self.inputs is None:
            return [_NO_INPUTS]
        if self._shared is None:
            return []
        size = (
            f"one set of arguments has {self._set_bytes / 1e6:.3g} MB and takes {self._draw_s:.2g} s to draw"
        )
        return [f"{size}: all instances share them, in one memory layout"]

    def first(self, rng: np.random.Generator) -> list[Arguments]:
        """The first two sets of an instance.

        An `inputs` that fills the same memory each time would give all sets one content, and its writing be
        taken for an implementation's: then every set is a copy.
        """
        one = self.draw(rng)
        if self._refills is not None:
            return [one, self.draw(rng)]
        before = checksum(one)
        two = self.draw(rng)
        self._set_bytes = max(nbytes(one), nbytes(two))
        self._refills = checksum(one) != before
        if self._refills:
            one, two = self.draw(rng), self.draw(rng)
        new, start = self.draw(rng), _clock()
        one = overwrite(one, new).value
        self._write_s = (_clock() - start) / 1e9
        return [one, two]

    def draw(self, rng: np.random.Generator) -> Arguments:
        """One more set."""
        assert self.inputs is not None
        start = _clock()
        try:
            drawn = self.inputs(rng)
        except Exception as error:
            error.add_note("raised by `inputs`")
            raise
        # The first call may import or load; what counts is how long it takes from then on.
        self._draw_s = min(self._draw_s, (_clock() - start) / 1e9)
        if not isinstance(drawn, tuple):
            raise ValueError(
                f"`inputs` must return a tuple of arguments, got {type(drawn).__name__}; for one argument "
                "return (x,)"
            )
        return copy.deepcopy(drawn) if self._refills else drawn

    def count(self, wanted: int, instances: int) -> int:
        """How many of the sets that are wanted there is memory and time for; the same for every instance."""
        if wanted not in self._counts:
            by_memory = SETS_BYTES // max(1, self._set_bytes)
            by_time = int(DRAWING_S / instances / (self._draw_s + self._write_s))
            self._counts[wanted] = max(FEWEST_SETS, min(wanted, by_memory, by_time))
        return self._counts[wanted]


class ArgumentSets:
    """The sets of one instance and their layout, which both sides follow in step.

    Attributes:
        windows: of the baseline and of the optimised side: at each position the sets of one sample. The first
            call of both sides is on the same set.
        last_windows: the same in the last round, with the two halves of the sets at positions 0 and 1.
        last_calls: calls of each side in a sample of the last round.
        uses: raised by who calls an implementation; only what was used is looked at and drawn anew.
    """

    def __init__(self, drawing: Drawing, rng: np.random.Generator) -> None:
        self._drawing = drawing
        self._rng = rng
        self._sets: list[Arguments] = drawing.first(rng) if self.given else [()]
        self._checksums = [checksum(drawn) for drawn in self._sets]
        self._held: list[Held | None] = []
        self._later: list[Arguments] = []
        self._in_place = True
        self._calls = (1, 1)
        self.windows: tuple[Windows, Windows] = ([], [])
        self.last_windows: tuple[Windows, Windows] = ([], [])
        self.last_calls = (1, 1)
        self.uses = 0
        self._looked_at_use = self._drawn_at_use = 0
        self._lay_out()

    @property
    def given(self) -> bool:
        """Whether the callables take arguments at all."""
        return self._drawing.inputs is not None

    def batch(self, calls: tuple[int, int], instances: int) -> list[str]:
        """Lay the sets out for samples of so many calls, with as many sets as they need where that goes."""
        longest = max(calls)
        notes = self._drawing.notes()
        if self.given:
            count = self._drawing.count(max(USUAL_SETS, 2 * longest), instances)
            more = self._drawn(count - len(self._sets))
            self._sets[count:] = more
            self._checksums[count:] = map(checksum, more)
            if _FAR_FEWER * count < longest:
                notes.append(
                    f"{longest} calls of a sample share {count} sets of arguments: more would take too much "
                    "memory or too long to draw"
                )
        self._calls = calls
        self._lay_out()
        return notes

    def changed(self, *, first_only: bool = False) -> bool:
        """Whether the content of any set, or of the first, differs from what was drawn."""
        if not self.given or self._looked_at_use == self.uses:
            return False
        sets = self._sets[:1] if first_only else self._sets
        found = any(checksum(drawn) != noted for drawn, noted in zip(sets, self._checksums, strict=False))
        if not found and not first_only:
            self._looked_at_use = self.uses
        return found

    def redraw(self) -> list[str]:
        """Overwrite every set with new content; notes on what could not be overwritten."""
        if not self.given or self._drawn_at_use == self.uses:
            return []
        self._drawn_at_use = self.uses
        return self._overwrite(self._drawn(len(self._sets)))

    def lay_out_last(self, calls: tuple[int, int]) -> tuple[int, int]:
        """Two halves of the sets for samples of so many calls, or fewer where the sets would not do."""
        half = len(self._sets) // 2 if self.given else max(calls)
        self.last_calls = (min(calls[0], half), min(calls[1], half))
        self._lay_out()
        return self.last_calls

    def prepare_last(self) -> list[str]:
        """Draw and hold back what `write_last` will write, and leave old content for a warm-up.

        What is held back was checked and written once, so that writing it again takes about 1 us a set in
        place of 50: after so long the next call would be slower by 3 to 9 us than it was in the passes.
        """
        if not self.given:
            return []
        timed = 2 * max(self.last_calls)
        old = self._held_content(timed)
        notes = self._overwrite(self._drawn(timed))
        new = self._held_content(timed)
        if self._in_place and None not in old and None not in new:
            self._put_back(old)
            self._held = new
        else:
            # They were seen now, and writing others takes its time.
            self._later = self._drawn(timed)
        return notes

    def write_last(self) -> list[str]:
        """Overwrite the sets of the last round with what was held back; notes as in `redraw`."""
        self._put_back(self._held)
        notes = self._overwrite(self._later) if self._later else []
        self._held, self._later = [], []
        return notes

    def _held_content(self, count: int) -> list[Held | None]:
        return [hold(*noted) for noted in zip(self._sets[:count], self._checksums, strict=False)]

    def _put_back(self, contents: Sequence[Held | None]) -> None:
        for index, held in enumerate(contents):
            assert held is not None
            held.write()
            self._checksums[index] = held.checksum

    def last_set(self, position: int, which: int) -> Arguments:
        """The set of one call at a position of the last round."""
        return self._sets[position * max(self.last_calls) + which]

    def _drawn(self, count: int) -> list[Arguments]:
        return [self._drawing.draw(self._rng) for _ in range(count)]

    def _overwrite(self, drawn: list[Arguments]) -> list[str]:
        """Put new content into the first sets."""
        notes: list[str] = []
        same, self._in_place = False, True
        for index, new in enumerate(drawn):
            result = overwrite(self._sets[index], new)
            self._sets[index] = result.value
            noted, self._checksums[index] = self._checksums[index], checksum(result.value)
            same = same or self._checksums[index] == noted
            if result.replaced:
                self._in_place = False
                notes.append(
                    f"arguments {_listed(result.replaced)} were replaced, not overwritten: an answer "
                    "remembered by their address would not be noticed; pass arrays or lists of a fixed size"
                )
        if same:
            notes.append(
                "inputs(rng) gave the same arguments again, so that remembered answers cannot be told from "
                "computed ones; draw them from `rng`"
            )
        self._lay_out()
        return list(dict.fromkeys(notes))

    def _lay_out(self) -> None:
        _fill(self.windows, self._sets, self._calls)
        _fill(self.last_windows, self._sets, self.last_calls)


def _listed(paths: Sequence[str]) -> str:
    more = len(paths) - _PATHS_SHOWN
    return ", ".join(paths[:_PATHS_SHOWN]) + (f" and {more} more" if more > 0 else "")


@dataclass(frozen=True, slots=True)
class Held:
    """The content of one set, to be put back into its place."""

    places: Sequence[tuple[Any, Any]]
    checksum: int

    def write(self) -> None:
        """Copy, without a check."""
        for place, content in self.places:
            place[...] = content


def hold(arguments: Arguments, noted: int) -> Held | None:
    """Copy the content of arrays, also behind `.data`; None where the arguments have other content."""
    arrays = [array_of(argument) for argument in arguments]
    places = [(array, array.copy()) for array in arrays if array is not None]
    return Held(places, noted) if len(places) == len(arguments) else None


def _fill(windows: tuple[Windows, Windows], sets: list[Arguments], calls: tuple[int, int]) -> None:
    """Put k sets at each position of a side with k calls, in place: the sides hold on to the lists."""
    stride = max(calls)
    positions = range(max(1, len(sets) // stride))
    for side, number in zip(windows, calls, strict=True):
        side[:] = [[sets[(p * stride + i) % len(sets)] for i in range(number)] for p in positions]
