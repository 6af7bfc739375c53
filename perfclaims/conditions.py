"""The state of the process while it times: collector, threads and CPU, all put back afterwards."""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from perfclaims.evidence import Threads

# Objects allocated since the last collection beyond which one runs, untimed, between passes.
_PILED_UP = 20_000
_SPREAD_BYTES = 30 << 20
# The threads of this process, by number (Linux).
_TASKS = Path("/proc/self/task")

_prepared = False


def prepare_process() -> None:
    """Once per process: spread the heap and collect what start-up left behind.

    The GNU C library serves blocks of 128 kB and more by mmap, all at one offset within a page, until the
    first such block is freed; from then on they come from the heap, where each instance gets an alignment of
    its own. Without this, ten instances of array code are ten copies of one accident of alignment: ratios of
    unchanged code were seen from 0.63 to 0.97 from process to process, each with a tight interval.
    """
    global _prepared  # noqa: PLW0603 - a property of the process, not of an object
    if not _prepared:
        _prepared = True
        bytearray(_SPREAD_BYTES)
        gc.collect()


class Conditions:
    """What holds while timing.

    Attributes:
        threads: allowed to BLAS, OpenMP and numba.
        cpu: the one that the process is pinned to, if any.
    """

    def __init__(self, threads: Threads, limits: _ThreadLimits, pin: _Pin) -> None:
        self.threads: Threads = threads
        self.cpu = pin.cpu
        self._running = threading.active_count()
        self._limits = limits
        self._pin = pin

    @contextmanager
    def setting_up(self) -> Iterator[None]:
        """Enter this to build something.

        What is imported meanwhile counts the CPUs of this process, once and for all (numba does), and its
        threads keep the CPUs of the thread that started them; so the pin is off. The limits on threads are
        set again at the end, for libraries that were not there before.
        """
        self._pin.release()
        try:
            yield
        finally:
            self._limits.renew()
            self._pin.hold()

    def warnings(self) -> list[str]:
        """What distorts a comparison and is seen in the process itself, each with its remedy."""
        found = []
        if sys.gettrace() is not None or sys.getprofile() is not None:
            found.append(
                "a debugger, profiler or coverage tool is active, which slows Python code and not compiled "
                "code; measure without it"
            )
        started = threading.active_count() - self._running
        if self.threads == 1 and started > 0:
            threads = "thread was" if started == 1 else "threads were"
            found.append(
                f"{started} {threads} started and not ended: what is done there between the timed calls is "
                "not seen; end them, or declare the claim with threads='all'"
            )
        return found


@contextmanager
def measuring(threads: Threads = 1) -> Iterator[Conditions]:
    """Hold the process in the state for timing.

    The collector is off and what exists is frozen (a collection then costs microseconds, not 10 to 20 ms).
    With one thread the process is pinned to one allowed CPU where the system can (Linux).
    """
    prepare_process()
    with ExitStack() as restore:
        restore.enter_context(_collector_off())
        limits = _ThreadLimits(threads, restore)
        limits.renew()
        pin = _Pin(wanted=threads == 1)
        restore.callback(pin.release)
        pin.hold()
        yield Conditions(threads, limits, pin)


def collect_if_piled_up() -> None:
    """Collect garbage when enough objects were made since the last time; call it between timed passes."""
    if gc.get_count()[0] > _PILED_UP:
        gc.collect()


@contextmanager
def _collector_off() -> Iterator[None]:
    was_enabled = gc.isenabled()
    # What the caller froze must stay frozen, and `unfreeze` knows no subsets: then all is left as it is.
    freeze = gc.get_freeze_count() == 0
    gc.disable()
    if freeze:
        gc.freeze()
    try:
        yield
    finally:
        if freeze:
            gc.unfreeze()
        (gc.enable if was_enabled else gc.disable)()


class _Pin:
    """Keeps all threads of this process on the last allowed CPU: interrupts gather on the first ones.

    All threads, because one that worked on another CPU for a single-threaded side would work for nothing.
    """

    def __init__(self, *, wanted: bool) -> None:
        self.cpu: int | None = None
        self._allowed: set[int] = set()
        self._before: dict[int, set[int]] = {}
        if wanted and hasattr(os, "sched_setaffinity"):
            self._allowed = os.sched_getaffinity(0)
            cpu = max(self._allowed)
            with suppress(OSError):  # a sandbox may forbid it
                os.sched_setaffinity(0, {cpu})
                self.cpu = cpu
                os.sched_setaffinity(0, self._allowed)

    def hold(self) -> None:
        if self.cpu is not None:
            for thread in _threads():
                with suppress(OSError):  # it has ended meanwhile
                    self._before[thread] = os.sched_getaffinity(thread)
                    os.sched_setaffinity(thread, {self.cpu})

    def release(self) -> None:
        """Give every thread the CPUs it had, and those that were started meanwhile all of them."""
        if self.cpu is not None:
            for thread in _threads():
                with suppress(OSError):
                    os.sched_setaffinity(thread, self._before.get(thread, self._allowed))
            self._before.clear()


def _threads() -> list[int]:
    try:
        return [int(entry.name) for entry in _TASKS.iterdir()]
    except OSError:
        return [0]


class _ThreadLimits:
    """Sets the threads of BLAS, OpenMP and numba explicitly: so many, or as many as there are CPUs."""

    def __init__(self, threads: Threads, restore: ExitStack) -> None:
        self._number = available_cpus() if threads == "all" else threads
        self._restore = restore
        self._renewals = 0
        self._modules = 0

    def renew(self) -> None:
        """Limit what is loaded by now; cheap when nothing was imported since the last time."""
        # The first instance may load libraries without importing anything.
        if self._renewals > 1 and len(sys.modules) == self._modules:
            return
        from threadpoolctl import threadpool_limits

        self._renewals += 1
        self._modules = len(sys.modules)
        self._restore.enter_context(threadpool_limits(limits=self._number))
        numba = sys.modules.get("numba")
        if numba is not None:
            before = numba.get_num_threads()
            numba.set_num_threads(min(self._number, numba.config.NUMBA_NUM_THREADS))
            self._restore.callback(numba.set_num_threads, before)


def available_cpus() -> int:
    """CPUs this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
