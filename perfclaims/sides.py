"""The protocol between the procedure that pairs samples and the place where the calls run.

An instance is both implementations, built side by side and called on the same arguments.
"""

from __future__ import annotations

from typing import Protocol


class Side(Protocol):
    """One implementation inside one instance, wherever it runs."""

    def call(self) -> tuple[int, object]:
        """One call on the first arguments: its duration in ns and a snapshot of its output."""
        ...

    def sample(self, position: int) -> int:
        """Duration in ns of one sample on the arguments of this position."""
        ...

    def last_sample(self, position: int) -> tuple[int, object]:
        """The same in the layout of the last round, with a snapshot of the last call's output."""
        ...

    def last_output(self, position: int, which: int) -> object:
        """Call on the set of call `which` at a position of the last round, untimed, and take a snapshot."""
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

    def arguments_changed(self, *, first_only: bool = False) -> bool:
        """Whether an implementation wrote to the arguments, or to the first set, since they were drawn."""
        ...

    def redraw(self) -> list[str]:
        """Draw all arguments anew, in place where possible; what the reader should know of it."""
        ...

    def lay_out_last(self, baseline_calls: int, optimized_calls: int) -> tuple[int, int]:
        """Arrange the arguments for the last round, where no set is used twice: the calls per sample there.

        They are fewer than asked for where there are too few sets, and the same in all instances.
        """
        ...

    def prepare_last(self) -> list[str]:
        """Draw what `write_last` will write, and leave something else for a warm-up; returns notes."""
        ...

    def write_last(self) -> list[str]:
        """Write quickly what was held back, in place where possible; what the reader should know of it."""
        ...


class Source(Protocol):
    """Builds instances."""

    rebuilt: bool
    fresh_arguments: bool

    def build(self, index: int) -> Instance:
        """Build instance `index` in a memory layout of its own."""
        ...

    def has_room(self) -> bool:
        """Whether there is memory for one instance more."""
        ...
