"""The referee's side of a player: started, asked, timed from outside, and ended whatever it does."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tinytorch.benchmarking.tinymlperf.audit import VIOLATION
from tinytorch.benchmarking.tinymlperf.frames import Array, Closed, Frame, Malformed, TooLate, receive, send
from tinytorch.benchmarking.tinymlperf.turns import turns_of

_ROOT = Path(__file__).resolve().parents[3]
# The same tinytorch as here, wherever else one is installed; its folder is on the path no longer than that.
_START = "import os, sys, numpy; sys.path.insert(0, {root!r}); import tinytorch; del sys.path[0]; "
_START += "from tinytorch.benchmarking.tinymlperf.player import main; os._exit(main(sys.argv[1:]))"
_KEPT = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TMPDIR", "NUMBA_CACHE_DIR")
_ONE_THREAD = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")

_PIPE_BYTES = 1 << 20  # what Linux allows to everybody


class Refused(ValueError):  # noqa: N818 - it says what is done with a submission
    """A submission that gets no rank; the message is the sentence that says why."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a player returned.

    Attributes:
        outputs: as they came.
        duration_ns: by the player's clock, without the way there and back.
        wall_ns: by the referee's clock, with it.
    """

    outputs: Array
    duration_ns: int
    wall_ns: int


@dataclass(frozen=True, slots=True)
class Entrant:
    """What a player loads.

    Attributes:
        name: of the submission, for sentences.
        folder: all that it may read besides libraries.
        weights: a file of `save_model`; with code, whatever that reads.
        code: a file that defines `load(folder)`.
        kv_cache: whether the model gets a KV cache before it plays.
    """

    name: str
    folder: Path
    weights: Path
    code: Path | None = None
    kv_cache: bool = False


def _pipe() -> tuple[int, int]:
    """Return a pipe's ends; it holds a whole query where it may, so that its way takes few turns."""
    ends = os.pipe()
    with contextlib.suppress(ImportError, AttributeError, OSError):
        import fcntl

        fcntl.fcntl(ends[1], fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    return ends


class PlayerProcess:
    """A player in a fresh interpreter, as a context manager.

    Args:
        entrant: what it loads.
        setup: the memory limit, whether it is confined, and inputs that warm it up.
        limit_s: for each answer, the sending of the request included.
    """

    def __init__(self, entrant: Entrant, setup: Frame, limit_s: float) -> None:
        self.entrant = entrant
        self.limit_s = limit_s
        requests_read, self._requests = _pipe()
        self._answers, answers_write = _pipe()
        os.set_blocking(self._requests, False)  # who does not read must not hold the referee
        environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
        environment |= dict.fromkeys(_ONE_THREAD, "1") | {"PYTHONDONTWRITEBYTECODE": "1"}
        start = _START.format(root=str(_ROOT))
        self._process = subprocess.Popen(  # noqa: S603 - this interpreter and this package
            [sys.executable, "-I", "-B", "-c", start, str(requests_read), str(answers_write)],
            pass_fds=(requests_read, answers_write),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
        )
        os.close(requests_read)
        os.close(answers_write)
        self._turns = turns_of(0)  # it has those of this process
        files = {
            "folder": str(entrant.folder),
            "weights": str(entrant.weights),
            "code": str(entrant.code) if entrant.code else None,
            "kv_cache": entrant.kv_cache,
        }
        self._setup = Frame(setup.text | files, setup.array)

    def load(self) -> str:
        """Load the model, and return by what the process is confined.

        Raises:
            Refused: it is no model, or took too long.
        """
        self._exchange(None)
        return str(self._exchange(self._setup).text["confinement"])

    def ask(self, task: str, inputs: Array, **details: Any) -> Answer:
        """Return the answer to one query.

        Raises:
            Refused: the model raised, took too long, broke a rule or returned nothing that is an array; the
                process has another priority or other processors than it started with.
        """
        self._check_turns()
        request = Frame({"task": task, **details}, inputs)
        start = time.perf_counter_ns()
        frame = self._exchange(request)
        wall = time.perf_counter_ns() - start
        duration = frame.text.get("duration_ns")
        if frame.array is None or not isinstance(duration, int) or not 0 <= duration <= wall:
            raise Refused(f"{self.entrant.name} answered with no array, or with a duration that cannot be")
        return Answer(frame.array, duration, wall)

    def pause(self) -> None:
        """Stop the process: while the other one plays, nothing of this one can take time from it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let the process go on."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGCONT)

    def cpu_s(self) -> float:
        """Return the processor time that all threads of the player have used; 0 where it is gone."""
        import psutil

        try:
            times = psutil.Process(self._process.pid).cpu_times()
        except psutil.Error:
            return 0.0
        return float(times.user + times.system)

    def describe(self) -> dict[str, Any]:
        """Return what the player says of itself."""
        return self._exchange(Frame({"task": "describe"})).text

    def _check_turns(self) -> None:
        """Look, before a query, whether the processes still have the processor as they should.

        No kernel keeps a process from changing that of others of the same user. While one player is asked the
        other one is stopped, so nothing changes between this look and the answer.
        """
        with contextlib.suppress(ProcessLookupError):
            if {turns_of(0), turns_of(self._process.pid)} != {self._turns}:
                raise Refused(
                    f"{self.entrant.name} or the referee has another priority or other processors than it "
                    "started with, which no submission may change"
                )

    def _exchange(self, request: Frame | None) -> Frame:
        name = self.entrant.name
        deadline = time.monotonic() + self.limit_s
        try:
            if request is not None:
                send(self._requests, request, self.limit_s)
            frame = receive(self._answers, deadline - time.monotonic())
        except TooLate:
            raise Refused(f"{name} took longer than {self.limit_s:g} s for an answer") from None
        except Malformed as error:
            raise Refused(f"{name} sent {error} in place of an answer") from None
        except Closed:
            raise Refused(f"{name} ended without an answer ({self._end()})") from None
        if "violation" in frame.text:
            raise Refused(f"{name} tried to {frame.text['violation']}, which no submission may do")
        if "error" in frame.text:
            raise Refused(f"{name} failed: {frame.text['error']}")
        return frame

    def _end(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = self._process.wait(5)
            if code == VIOLATION:
                return "it tried what no submission may do"
            return f"exit code {code}, as when memory runs out" if code else "exit code 0"
        return "it closed its pipe"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._requests)
        os.close(self._answers)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)  # a session of its own: whatever it started too
        self._process.wait()
