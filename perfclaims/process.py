"""The parent's end of a worker: start it, ask it to measure a claim, kill it at the claim's limit."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from perfclaims.claims import Claim
from perfclaims.codec import decode
from perfclaims.codes import Reason
from perfclaims.evidence import Evidence, Piece, Trouble
from perfclaims.experiment import Settings
from perfclaims.records import read_claim
from perfclaims.suite import timed_out

# The worker ends Python code at the limit by itself; what is left of it after this long is killed.
_GRACE_S = 1.0
_LOADING_LIMIT_S = 120.0
_TICK_S = 0.25
_TAIL_LINES = 8

_START = "import sys; sys.path.insert(0, sys.argv.pop(1)); from perfclaims.worker import main; sys.exit(main(sys.argv[1:]))"


class WorkerFailed(Exception):
    """The suite could not be loaded; one sentence."""


class Worker:
    """A child process with one suite loaded.

    Attributes:
        name, title: of the suite.
        claims: what it declares, by id; `limits` and `left_out` go with them.
    """

    def __init__(self, file: Path, settings: Settings) -> None:
        self._file = file
        self._settings = settings
        self._printed = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the worker
        self._messages: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._process = self._spawn()
        threading.Thread(target=self._listen, daemon=True).start()
        self.name = file.stem.removeprefix("test_")
        self.title = self.name
        self.claims: dict[str, Claim] = {}
        self.limits: dict[str, float] = {}
        self.left_out: dict[str, str | None] = {}

    def load(self) -> None:
        """Wait for the suite's declarations.

        Raises:
            WorkerFailed: it cannot be loaded.
        """
        message = self._next(time.monotonic() + _LOADING_LIMIT_S)
        if message is _LATE:
            self.kill()
            raise WorkerFailed(
                f"'{self._file.name}' was not loaded within {_LOADING_LIMIT_S:g} s; find what hangs"
            )
        if message is None:
            raise WorkerFailed(f"'{self._file.name}' cannot be loaded: {self._how_it_ended()}")
        if message["say"] == "failed":
            raise WorkerFailed(message["message"])
        self.name, self.title = message["name"], message["title"]
        for record in message["claims"]:
            claim = read_claim(record)
            self.claims[claim.id] = claim
            self.limits[claim.id] = record["limit_s"]
            self.left_out[claim.id] = record["left_out"]

    def measure(self, claim_id: str, tick: Callable[[Piece | str | None], None]) -> tuple[Evidence, bool]:
        """Have one claim measured.

        Args:
            tick: called with every piece of evidence, every announcement, and with None a few times a second.

        Returns:
            The evidence, and whether the worker is still alive.
        """
        limit_s = self.limits[claim_id]
        deadline = time.monotonic() + limit_s + _GRACE_S
        pieces: list[Piece] = []
        unfinished: Piece | None = None
        self._send({"claim": claim_id})
        while True:
            message = self._next(min(deadline, time.monotonic() + _TICK_S))
            if message is _LATE:
                tick(None)
                if time.monotonic() < deadline:
                    continue
                self.kill()
                return Evidence(_with(pieces, unfinished), timed_out(limit_s)), False
            if message is None:
                trouble = Trouble(Reason.RAISED, f"the measuring process ended: {self._how_it_ended()}")
                return Evidence(_with(pieces, unfinished), trouble), False
            if message["say"] == "done":
                evidence: Evidence = decode(Evidence, {"pieces": [], **message["rest"]})
                late = evidence.trouble is not None and evidence.trouble.reason is Reason.TIMED_OUT
                return replace(evidence, pieces=_with(pieces, unfinished if late else None)), True
            if message["say"] == "announcement":
                tick(message["text"])
                continue
            piece: Piece = decode(Piece, message["piece"])
            if message["say"] == "progress":
                unfinished = piece
            else:
                pieces.append(piece)
                unfinished = None
            tick(piece)

    def printed(self) -> str:
        """What the suite printed since the last time this was asked."""
        return self._printed.read().decode("utf-8", errors="replace")

    def restarted(self) -> Worker:
        """Another worker with the same suite, after this one is gone."""
        self.kill()
        worker = Worker(self._file, self._settings)
        worker.load()
        return worker

    def kill(self) -> None:
        """End the process and whatever it started, at once."""
        if self._process.poll() is None:
            if hasattr(os, "killpg"):
                os.killpg(self._process.pid, signal.SIGKILL)
            else:
                self._process.kill()
        self._process.wait()

    def _spawn(self) -> subprocess.Popen[str]:
        settings = {
            "preset": asdict(self._settings.preset),
            "confidence": self._settings.confidence,
            "seed": self._settings.seed,
        }
        harness = str(Path(__file__).resolve().parent.parent)
        # -P: the folder in which the run was started must not shadow what the suite imports.
        command = [sys.executable, "-P", "-c", _START, harness, str(self._file), json.dumps(settings)]
        return subprocess.Popen(  # noqa: S603 - our own interpreter
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._printed,
            text=True,
            encoding="utf-8",
            start_new_session=True,
        )

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            try:
                self._messages.put(json.loads(line))
            except ValueError:
                # A line cut off by a kill.
                break
        self._messages.put(None)

    def _next(self, deadline: float) -> Any:
        """The next message, None at the end of the process, `_LATE` at the deadline."""
        try:
            return self._messages.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            return _LATE

    def _send(self, order: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
        except OSError:
            # It is gone; the end of its messages tells how.
            pass

    def _how_it_ended(self) -> str:
        code = self._process.wait()
        last = [line for line in self.printed().splitlines() if line.strip()][-_TAIL_LINES:]
        said = f"; it last printed: {' | '.join(last)}" if last else ""
        if code < 0:
            return f"killed by {signal.Signals(-code).name}{said}"
        return f"exit code {code}{said}"


_LATE: Any = object()


def _with(pieces: list[Piece], unfinished: Piece | None) -> tuple[Piece, ...]:
    return (*pieces, unfinished) if unfinished is not None else tuple(pieces)
