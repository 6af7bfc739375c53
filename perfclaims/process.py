"""The parent's end of a worker: start it, ask it to measure a claim, kill it at the claim's limit."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

from perfclaims.child import Child, Late, Message
from perfclaims.claims import Claim
from perfclaims.codec import decode
from perfclaims.codes import Reason
from perfclaims.evidence import Evidence, Piece, Trouble
from perfclaims.experiment import Settings
from perfclaims.gathering import timed_out
from perfclaims.project import place_in_dump, project_root, without_home
from perfclaims.records import read_claim
from perfclaims.worker import STACK_SIGNAL

# The worker ends Python code at the limit by itself; what is left of it after this long is killed.
_GRACE_S = 1.0
_LOADING_LIMIT_S = 120.0
_TICK_S = 0.25
_TAIL_LINES = 3
_STACK_S = 0.1

# The folder that holds the harness is on the path while the harness is imported, no longer: what lies beside
# it must not stand in for something that the suite's own project lacks.
_START = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); from perfclaims.worker import main; "
    "sys.path.pop(0); sys.exit(main(sys.argv[1:]))"
)

Tick = Callable[[Piece | str | None], None]


class WorkerError(Exception):
    """The suite could not be loaded; one sentence."""


class Worker:
    """A suite, loaded in a child process; the process is replaced when it was killed or crashed.

    It starts loading at once, so that several suites load side by side.

    Attributes:
        name, title: of the suite.
        claims: what it declares, by id.
        left_out: for each claim why the preset leaves it out, or None.
    """

    def __init__(self, file: Path, settings: Settings) -> None:
        self._file = file
        self._settings = settings
        self._child = self._start()
        self._limits: dict[str, float] = {}
        self.name = file.stem.removeprefix("test_")
        self.title = self.name
        self.claims: dict[str, Claim] = {}
        self.left_out: dict[str, str | None] = {}

    def load(self) -> None:
        """Wait for the suite's declarations.

        Raises:
            WorkerError: it cannot be loaded.
        """
        message = self._child.next(time.monotonic() + _LOADING_LIMIT_S)
        failure = self._failure(message)
        if failure is not None:
            self.kill()
            raise WorkerError(failure)
        assert isinstance(message, dict)
        self.name, self.title = message["name"], message["title"]
        for record in message["claims"]:
            claim = read_claim(record)
            self.claims[claim.id] = claim
            self._limits[claim.id] = record["limit_s"]
            self.left_out[claim.id] = record["left_out"]

    def measure(self, claim_id: str, tick: Tick) -> Evidence:
        """Have one claim measured.

        Args:
            claim_id: one of `claims`.
            tick: called with every piece of evidence, every announcement, and with None a few times a second.
        """
        if not self._child.alive:
            self.kill()
            self._child = self._start()
            try:
                self.load()
            except WorkerError as error:
                return Evidence(trouble=Trouble(Reason.RAISED, str(error)))
        self._child.send({"claim": claim_id})
        return self._listen(self._limits[claim_id], tick)

    def printed(self) -> str:
        """What the suite printed since the last time this was asked."""
        return self._child.printed()

    def kill(self) -> None:
        """End the process and whatever it started, at once."""
        self._child.kill()

    def _start(self) -> Child:
        settings = {
            "preset": asdict(self._settings.preset),
            "confidence": self._settings.confidence,
            "seed": self._settings.seed,
        }
        harness = str(Path(__file__).resolve().parent.parent)
        # -P: the folder in which the run was started must not shadow what the suite imports.
        # faulthandler: a crash says where.
        interpreter = [sys.executable, "-P", "-X", "faulthandler"]
        return Child([*interpreter, "-c", _START, harness, str(self._file), json.dumps(settings)])

    def _failure(self, message: Message | Late | None) -> str | None:
        name = f"'{self._file.name}'"
        if isinstance(message, Late):
            at = f", at {place}" if (place := self._place_of_hang()) else ""
            return f"{name} was not loaded within {_LOADING_LIMIT_S:g} s{at}; find what hangs"
        if message is None:
            return f"{name} cannot be loaded: {self._how_it_ended()}"
        return str(message["message"]) if message["say"] == "failed" else None

    def _listen(self, limit_s: float, tick: Tick) -> Evidence:
        """Collect evidence until the claim is done, the process ends, or it is too late and gets killed."""
        deadline = time.monotonic() + limit_s + _GRACE_S
        pieces: list[Piece] = []
        unfinished: list[Piece] = []
        while True:
            message = self._child.next(min(deadline, time.monotonic() + _TICK_S))
            if isinstance(message, Late):
                if not self._child.alive:
                    # What it started may keep its end open, so that no end is heard.
                    deadline = min(deadline, time.monotonic() + _GRACE_S)
                if time.monotonic() < deadline:
                    tick(None)
                    continue
                alive = self._child.alive
                trouble = timed_out(limit_s, self._place_of_hang()) if alive else self._ended()
                self.kill()
                return Evidence((*pieces, *unfinished), trouble)
            if message is None:
                return Evidence((*pieces, *unfinished), self._ended())
            match message["say"]:
                case "done":
                    evidence: Evidence = decode(Evidence, {"pieces": [], **message["rest"]})
                    late = evidence.trouble is not None and evidence.trouble.reason is Reason.TIMED_OUT
                    return replace(evidence, pieces=(*pieces, *(unfinished if late else ())))
                case "announcement":
                    tick(message["text"])
                case "progress":
                    unfinished = [decode(Piece, message["piece"])]
                    tick(unfinished[0])
                case _:
                    pieces.append(decode(Piece, message["piece"]))
                    unfinished = []
                    tick(pieces[-1])

    def _ended(self) -> Trouble:
        return Trouble(Reason.RAISED, f"the measuring process ended: {self._how_it_ended()}")

    def _how_it_ended(self) -> str:
        how, printed = self._child.ending(), self._child.printed(keep=True)
        place = place_in_dump(printed, project_root(self._file))
        if place is not None:
            return f"{how}, at {place}"
        last = [line.strip() for line in printed.splitlines() if line.strip()][-_TAIL_LINES:]
        return f"{how}; it last printed: {without_home(' | '.join(last))}" if last else how

    def _place_of_hang(self) -> str | None:
        """Have the worker's fault handler print its stack, and read where in the project it is."""
        if STACK_SIGNAL is None:
            return None
        self._child.interrupt(STACK_SIGNAL)
        time.sleep(_STACK_S)
        return place_in_dump(self._child.printed(keep=True), project_root(self._file))
