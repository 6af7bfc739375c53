"""Progress on stderr: a live line on a terminal, a line per claim elsewhere, nothing when quiet."""

from __future__ import annotations

import math
import os
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, TextIO

from perfclaims import wording
from perfclaims.claims import Claim
from perfclaims.evidence import Piece, Timing
from perfclaims.ratio import analyse
from perfclaims.report.layout import write_line
from perfclaims.results import ClaimResult
from perfclaims.runner import View

if TYPE_CHECKING:
    from rich.live import Live

_MOST_PRINTED_LINES = 20


def make_view(*, quiet: bool, stream: TextIO | None = None) -> View:
    """The view that fits the stream (stderr unless given)."""
    stream = stream or sys.stderr
    if quiet:
        return QuietView(stream)
    live = stream.isatty() and os.environ.get("TERM") != "dumb"
    return LiveView(stream) if live else PlainView(stream)


class QuietView:
    """Shows warnings only."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def loading(self, suites: int) -> None:
        """Say nothing."""

    def started(self, claim: Claim, takes_s: float, then_s: float) -> None:
        """Say nothing."""

    def tick(self, news: Piece | str | None) -> None:
        """Say nothing."""

    def finished(self, result: ClaimResult, printed: str, left_s: float) -> None:
        """Say nothing."""

    def warn(self, text: str) -> None:
        """Say it."""
        self._print(f"warning: {text}")

    def close(self) -> None:
        """There is nothing to put back."""

    def _print(self, text: str) -> None:
        with suppress(OSError):  # results do not hang on progress
            write_line(self._stream, text)


class PlainView(QuietView):
    """A line for every finished claim, with what was announced and what the suite printed before it."""

    def loading(self, suites: int) -> None:
        """Say how many suites there are."""
        self._print(_loading(suites))

    def tick(self, news: Piece | str | None) -> None:
        """Pass announcements on."""
        if isinstance(news, str):
            self._print(news)

    def finished(self, result: ClaimResult, printed: str, left_s: float) -> None:
        """Say the verdict and how long the rest takes, after what the suite itself wrote."""
        lines = printed.rstrip().splitlines()
        if len(lines) > _MOST_PRINTED_LINES:
            lines[:-_MOST_PRINTED_LINES] = [f"[{len(lines) - _MOST_PRINTED_LINES} lines left out]"]
        for line in lines:
            self._print(f"  | {line}")
        audited = " (audited)" if result.status == "audited" else ""
        took = f" in {wording.duration(result.duration_s)}" if result.ran else ""
        left = f", {_about(left_s)} left" if left_s else ""
        self._print(f"{result.id}{audited}: {result.verdict}{took}{left}")


class LiveView(PlainView):
    """One line that lives while a claim runs; finished claims stay above it."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console

        super().__init__(stream)
        self._console = Console(file=stream, color_system=None)
        self._live: Live | None = None
        self._claim = ""
        self._news = ""
        self._takes_s = self._then_s = 0.0
        self._since = time.monotonic()

    def loading(self, suites: int) -> None:
        """Show that suites are being loaded."""
        self._draw(_loading(suites))

    def started(self, claim: Claim, takes_s: float, then_s: float) -> None:
        """Begin the line of a claim."""
        self._claim, self._news = claim.id, ""
        self._takes_s, self._then_s, self._since = takes_s, then_s, time.monotonic()
        self.tick(None)

    def tick(self, news: Piece | str | None) -> None:
        """Show what is new, and the time left."""
        if isinstance(news, str):
            self._news = news
        elif isinstance(news, Timing) and len(news.samples):
            found = analyse(news).speedup
            low, high = (found.low, found.high) if math.isfinite(found.high) else (None, None)
            shown = wording.interval(found.estimate, low, high, "x")
            self._news = f"{news.label}: {shown}" if news.label else shown
        elapsed_s = time.monotonic() - self._since
        left_s = max(0.0, self._takes_s - elapsed_s) + self._then_s
        times = f"{elapsed_s:.0f} s, {_about(left_s)} left"
        self._draw("  ".join(part for part in (times, self._claim, self._news) if part))

    def close(self) -> None:
        """End the live line."""
        with suppress(OSError):
            if self._live is not None:
                self._live.stop()
        self._live = None

    def _print(self, text: str) -> None:
        self.close()
        super()._print(text)

    def _draw(self, text: str) -> None:
        """Replace the line; what does not fit is cut off, or the terminal would begin another one."""
        from rich.live import Live
        from rich.text import Text

        line = Text(text, no_wrap=True, overflow="ellipsis")
        with suppress(OSError):
            if self._live is None:
                # Drawn when there is news, a few times a second, and not by a thread of its own.
                self._live = Live(line, console=self._console, auto_refresh=False, transient=True)
                self._live.start()
            self._live.update(line, refresh=True)


def _about(left_s: float) -> str:
    return f"about {wording.duration(max(1.0, left_s))}"


def _loading(suites: int) -> str:
    return f"loading {suites} {'suite' if suites == 1 else 'suites'}"
