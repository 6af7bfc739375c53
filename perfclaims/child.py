"""A child process that speaks JSON lines: started in its own session, listened to, and killed."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

# A child that has closed its end is given this long to end as well.
_ENDING_S = 1.0
# Of what a claim prints no more than its end is kept.
_MOST_PRINTED_BYTES = 20_000

Message = dict[str, Any]


class Late:
    """No message came in time."""


LATE: Final = Late()


class Child:
    """A running program, its messages (JSON objects, one a line of its stdout) and what it prints to stderr.

    Args:
        command: the program and its arguments.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._printed = _Printed()
        self._messages: queue.Queue[Message | None] = queue.Queue()
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._printed.writer,
            text=True,
            encoding="utf-8",
            # Ctrl-C in the terminal is the parent's to handle.
            start_new_session=True,
        )
        threading.Thread(target=self._listen, daemon=True).start()

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def next(self, deadline: float) -> Message | Late | None:
        """The next message, None when there will be no more, LATE at the deadline (of time.monotonic)."""
        try:
            return self._messages.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            return LATE

    def send(self, message: Message) -> None:
        """Send a message; when the child is gone, its own messages tell so."""
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()

    def printed(self, *, keep: bool = False) -> str:
        """What it printed since the last time this was asked; with `keep` it is told again the next time."""
        return self._printed.read(keep=keep)

    def interrupt(self, number: int) -> None:
        """Send it a signal."""
        with suppress(OSError):
            self._process.send_signal(number)

    def ending(self) -> str:
        """How it ended, in words: `exit code 3`."""
        try:
            code = self._process.wait(_ENDING_S)
        except subprocess.TimeoutExpired:
            self.kill()
            return "it closed its connection"
        return f"exit code {code}" if code >= 0 else f"killed by {_signal_name(-code)}"

    def kill(self) -> None:
        """End the process and whatever it started, at once, and close what was open."""
        if self.alive:
            if hasattr(os, "killpg"):
                os.killpg(self._process.pid, signal.SIGKILL)
            else:
                self._process.kill()
        self._process.wait()
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()
        self._printed.close()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                try:
                    self._messages.put(json.loads(line))
                except ValueError:
                    # A line cut off by a kill.
                    break
        self._messages.put(None)


class _Printed:
    """A file that a child writes to and the parent reads from, each at a place of its own.

    A pipe would have to be emptied while the child measures.
    """

    def __init__(self) -> None:
        handle, path = tempfile.mkstemp(prefix="perfclaims-")
        self.writer = os.fdopen(handle, "ab")
        self._reader = open(path, "rb")  # noqa: SIM115, PTH123 - closed with the child
        self._rest = ""
        with suppress(OSError):  # some systems keep open files
            os.unlink(path)  # noqa: PTH108

    def read(self, *, keep: bool) -> str:
        text = self._rest + ("" if self._reader.closed else self._new())
        self._rest = text if keep else ""
        return text

    def _new(self) -> str:
        start = self._reader.tell()
        skipped = max(0, self._reader.seek(0, os.SEEK_END) - start - _MOST_PRINTED_BYTES)
        self._reader.seek(start + skipped)
        text = self._reader.read().decode("utf-8", errors="replace")
        return (f"[{skipped} bytes left out]\n" if skipped else "") + text

    def close(self) -> None:
        self.read(keep=True)
        self.writer.close()
        self._reader.close()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
