"""TinyMLPerf: three events in which models are measured beside a reference model that does the same."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tinytorch.benchmarking.tinymlperf.entries import Entry, entries_of
from tinytorch.benchmarking.tinymlperf.events import EVENTS, LoadedBenchmark, load_event
from tinytorch.benchmarking.tinymlperf.leaderboard import Leaderboard
from tinytorch.benchmarking.tinymlperf.machine import machine_kind
from tinytorch.benchmarking.tinymlperf.referee import Announce, Ruling, judge
from tinytorch.benchmarking.tinymlperf.scenarios import Settings
from tinytorch.benchmarking.tinymlperf.submissions import Submission, pack, read_submission, with_log
from tinytorch.core.checks import whole
from tinytorch.core.layers import Layer

__all__ = ["LoadedBenchmark", "Ruling", "Settings", "Submission", "TinyMLPerf"]


@dataclass(frozen=True, slots=True)
class TinyMLPerf:
    """The events, and the referee for them.

    Args:
        random_seed: says in which order test inputs come, and where texts are cut: the same seed gives the
            same bits in every process. What a submission gets is fresh in every run, whatever the seed.

    Raises:
        ValueError: the seed is not a whole number of zero or more.
    """

    random_seed: int = 42

    def __post_init__(self) -> None:
        whole(self.random_seed, "random_seed")

    def get_available_events(self) -> list[str]:
        """Return the names of the events."""
        return list(EVENTS)

    def load_benchmark(self, event: str) -> LoadedBenchmark:
        """Return an event's model, inputs and labels.

        The reference model is trained first where this machine has not done so: seconds, and 80 for the
        Transformer Decathlon.

        Raises:
            ValueError: there is no such event.
        """
        if not isinstance(event, str) or event not in EVENTS:
            raise ValueError(f"`event` must be one of {', '.join(EVENTS)}, got {event!r}")
        return load_event(EVENTS[event], self.random_seed)

    def run_standard_benchmark(
        self,
        model: Layer,
        event: str,
        *,
        division: str = "open",
        kv_cache: bool = False,
        settings: Settings | None = None,
    ) -> Ruling:
        """Measure a model as a submission would be, and keep nothing.

        Raises:
            ValueError: `model` is no Layer, or there is no such event or division.
        """
        if not isinstance(model, Layer):
            raise ValueError(
                f"`model` must be a Layer, got {type(model).__name__}: own code is submitted in a folder"
            )
        benchmark = self.load_benchmark(event)
        with tempfile.TemporaryDirectory(prefix="tinymlperf-") as scratch:
            submission = pack(
                model,
                Path(scratch) / "model",
                name=type(model).__name__,
                event=event,
                division=division,
                kv_cache=kv_cache,
            )
            return judge(submission, benchmark, settings or Settings())

    def submit(
        self,
        folder: str | Path,
        leaderboard: str | Path,
        settings: Settings | None = None,
        announce: Announce | None = None,
    ) -> Ruling:
        """Measure a submission, put it on a leaderboard, and write the log into its folder.

        What its own log says is not used: a rank comes from this referee's measurement alone. A submission
        that was refused is listed with the reason. The log is in the ruling and on the leaderboard too, so
        where the folder cannot be written to, only `announce` is told.

        Args:
            folder: what `pack` made.
            leaderboard: a file; it is opened before anything is measured.
            settings: for how long, and within which limits.
            announce: is told of progress, and why a log could not be written.

        Raises:
            ValueError: the folder holds no submission that could be judged, or the leaderboard is damaged, of
                another version, or has the submission already.
        """
        board, submission = Leaderboard(leaderboard), read_submission(folder)
        board.check_new(submission.submission_id, submission.name, machine_kind())
        benchmark = self.load_benchmark(submission.event)
        ruling = judge(submission, benchmark, settings or Settings(), announce=announce)
        _add(board, entries_of(ruling))
        if ruling.log is not None:
            try:
                with_log(submission, ruling.log)
            except (ValueError, OSError, KeyboardInterrupt) as error:
                # The ruling is on the leaderboard by now, whatever becomes of this copy of the log.
                if announce is not None:
                    announce(f"the log is on the leaderboard alone: {str(error) or 'interrupted'}")
        return ruling


def _add(board: Leaderboard, entries: Sequence[Entry]) -> None:
    """Add entries; an interruption that comes when they are there changes nothing any more."""
    try:
        board.add(entries)
    except KeyboardInterrupt:
        if not board.has(entries[0].entry_id):
            raise
