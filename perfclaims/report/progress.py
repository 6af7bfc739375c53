"""Progress on stderr: a live line on a terminal, a line per claim elsewhere, nothing when quiet."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from perfclaims import wording
from perfclaims.claims import Claim
from perfclaims.evidence import Piece, Timing
from perfclaims.ratio import analyse
from perfclaims.results import ClaimResult
from perfclaims.runner import View

if TYPE_CHECKING:
    from rich.status import Status


def make_view(*, quiet: bool, stream: TextIO | None = None) -> View:
    """The view that fits the stream (stderr unless given)."""
    stream = stream or sys.stderr
    if quiet:
        return QuietView(stream)
    return LiveView(stream) if stream.isatty() else PlainView(stream)


class QuietView:
    """Shows warnings only."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def loading(self, files: Sequence[Path]) -> None:
        """Say nothing."""

    def started(self, claim: Claim, left_s: float) -> None:
        """Say nothing."""

    def tick(self, news: Piece | str | None) -> None:
        """Say nothing."""

    def finished(self, result: ClaimResult, printed: str) -> None:
        """Say nothing."""

    def warn(self, text: str) -> None:
        """Say it."""
        self._print(f"warning: {text}")

    def close(self) -> None:
        """There is nothing to put back."""

    def _print(self, text: str) -> None:
        print(text, file=self._stream, flush=True)  # noqa: T201 - this is the output


class PlainView(QuietView):
    """A line when something is announced and a line for every finished claim."""

    def loading(self, files: Sequence[Path]) -> None:
        """Say how many suites there are."""
        self._print(f"loading {len(files)} {'suite' if len(files) == 1 else 'suites'}")

    def started(self, claim: Claim, left_s: float) -> None:
        """Say what begins and how long the run still takes."""
        self._print(f"{claim.id} (about {wording.duration(left_s)} left)")

    def tick(self, news: Piece | str | None) -> None:
        """Pass announcements on."""
        if isinstance(news, str):
            self._print(f"    {news}")

    def finished(self, result: ClaimResult, printed: str) -> None:
        """Say the verdict, after what the suite itself wrote."""
        if printed.strip():
            self._print(printed.rstrip())
        self._print(f"    {result.verdict} in {wording.duration(result.duration_s)}")


class LiveView(PlainView):
    """One line that lives while a claim runs; finished claims stay above it."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        from rich.console import Console

        self._console = Console(file=stream, highlight=False, soft_wrap=True)
        self._status: Status | None = None
        self._claim = ""
        self._news = ""
        self._left_s = 0.0
        self._since = time.monotonic()

    def loading(self, files: Sequence[Path]) -> None:
        """Show that suites are being loaded."""
        count = f"{len(files)} {'suite' if len(files) == 1 else 'suites'}"
        self._show(f"loading {count}")

    def started(self, claim: Claim, left_s: float) -> None:
        """Begin the line of a claim."""
        self._claim, self._news, self._left_s, self._since = claim.id, "", left_s, time.monotonic()
        self._draw()

    def tick(self, news: Piece | str | None) -> None:
        """Show what is new, and the time."""
        if isinstance(news, str):
            self._news = news
        elif isinstance(news, Timing) and len(news.samples):
            found = analyse(news).speedup
            shown = wording.interval(found.estimate, found.low, found.high, "x")
            self._news = f"{news.label}: {shown}" if news.label else shown
        self._draw()

    def finished(self, result: ClaimResult, printed: str) -> None:
        """Leave a line for the finished claim."""
        self._stop()
        if printed.strip():
            self._print(printed.rstrip())
        self._print(f"{result.id}  {result.verdict}  {wording.duration(result.duration_s)}")

    def warn(self, text: str) -> None:
        """Show it above the live line."""
        self._stop()
        super().warn(text)

    def close(self) -> None:
        """End the live line."""
        self._stop()

    def _draw(self) -> None:
        elapsed = time.monotonic() - self._since
        left = max(0.0, self._left_s - elapsed)
        times = f"{elapsed:.0f} s, about {wording.duration(max(1.0, left))} left"
        self._show("  ".join(part for part in (self._claim, self._news, f"({times})") if part))

    def _show(self, text: str) -> None:
        from rich.markup import escape

        if self._status is None:
            # Twice a second is enough, and takes next to nothing from what is measured.
            self._status = self._console.status(escape(text), refresh_per_second=2)
            self._status.start()
        else:
            self._status.update(escape(text))

    def _stop(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None
