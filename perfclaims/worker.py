"""The child process in which a suite's claims are measured; speaks JSON lines with its parent.

It is a fresh interpreter, so that nothing of the parent is in its heap, and it can be killed: a hang in
compiled code ignores everything else.
"""

from __future__ import annotations

import ctypes
import faulthandler
import json
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from perfclaims.codec import encode
from perfclaims.conditions import prepare_process
from perfclaims.evidence import Piece, Timing
from perfclaims.experiment import Settings
from perfclaims.gathering import explained, gather
from perfclaims.loading import LoadError, load_suite
from perfclaims.presets import Preset
from perfclaims.project import project_root, put_first_on_path
from perfclaims.records import claim_record
from perfclaims.suite import PerformanceTestSuite

_PR_SET_PDEATHSIG = 1
# A worker that gets it prints where it is, also from within compiled code; None where there are no signals.
STACK_SIGNAL: int | None = getattr(signal, "SIGUSR1", None)


class Channel:
    """Writes messages to the parent; claims print elsewhere."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def say(self, what: str, **fields: Any) -> None:
        """Send one message."""
        self._stream.write(json.dumps({"say": what, **fields}, allow_nan=False) + "\n")
        self._stream.flush()

    def on_piece(self, piece: Piece) -> None:
        """Send a finished piece of evidence."""
        self.say("piece", piece=encode(piece))

    def on_progress(self, timing: Timing) -> None:
        """Send an unfinished comparison, so that it is not lost when this process is killed."""
        self.say("progress", piece=encode(timing))

    def on_announcement(self, text: str) -> None:
        """Pass on that something long is about to start."""
        self.say("announcement", text=text)


def main(arguments: list[str]) -> int:
    """Load a suite, declare its claims, then measure those that the parent asks for."""
    file, settings = Path(arguments[0]), _settings(json.loads(arguments[1]))
    orders, channel = _private_streams()
    _handle_signals()
    put_first_on_path(file)
    try:
        suite = load_suite(file)
    except LoadError as error:
        channel.say("failed", message=str(error))
        return 1
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a suite file raises is its own ERROR
        why = explained(error, project_root(file))
        channel.say("failed", message=f"'{file.name}' cannot be loaded: {why}")
        return 1
    channel.say("declared", name=suite.name, title=suite.title, claims=_declarations(suite, settings))
    prepare_process()
    for line in orders:
        _measure(suite, json.loads(line)["claim"], settings, channel)
    return 0


def _settings(data: dict[str, Any]) -> Settings:
    return Settings(Preset(**data["preset"]), data["confidence"], data["seed"])


def _declarations(suite: PerformanceTestSuite, settings: Settings) -> list[dict[str, Any]]:
    return [
        {
            **claim_record(declared.claim),
            "limit_s": declared.time_limit_s(settings.preset),
            "left_out": declared.left_out(settings.preset),
        }
        for declared in suite.declared.values()
    ]


def _measure(suite: PerformanceTestSuite, claim_id: str, settings: Settings, channel: Channel) -> None:
    start = time.perf_counter()
    evidence = gather(suite.declared[claim_id], settings, channel)
    for stream in (sys.stdout, sys.stderr):
        # The claim may have closed or replaced them.
        with suppress(Exception):
            stream.flush()
    rest = {
        "trouble": encode(evidence.trouble),
        "not_applicable": evidence.not_applicable,
        "cpu_feature_missing": evidence.cpu_feature_missing,
        "not_run": evidence.not_run,
        "notes": list(evidence.notes),
    }
    channel.say("done", rest=rest, duration_s=time.perf_counter() - start)


def _private_streams() -> tuple[TextIO, Channel]:
    """Keep stdin and stdout for the parent; what claims print goes to stderr, and they read nothing."""
    orders = os.fdopen(os.dup(0), "r", encoding="utf-8")
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    # What was printed before a crash is not to be lost.
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    return orders, Channel(answers)


def _handle_signals() -> None:
    """Ctrl-C is the parent's to handle; and when that is gone, even a hang must not outlive it (Linux)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if STACK_SIGNAL is not None:
        faulthandler.register(STACK_SIGNAL, all_threads=False)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
