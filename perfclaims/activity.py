"""What this process and the rest of the machine did between two moments: an explanation of noise.

Nothing here judges a measurement. The width of its interval does that better than any figure below;
these tell what to do about it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

# Takes a name below /proc, such as "stat", and returns the file's text, or None where there is none.
Reader = Callable[[str], str | None]

# /proc/stat counts in ticks of 10 ms: below five of them its shares are accidents.
SHORTEST_SPAN_S = 0.05
TICK_S = 0.01
# Of one thread's time. On a quiet machine it loses under 0.1 %, beside a competitor 13 to 50 %.
LOST_SHARE_LIMIT = 0.10
# In cores. The parent that draws the progress of the measuring process takes a few hundredths.
OTHER_CPU_LIMIT = 0.5
STEAL_SHARE_LIMIT = 0.02


def read_proc(name: str) -> str | None:
    """Text of /proc/`name`; None where it does not exist or cannot be read."""
    try:
        return Path("/proc", name).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Counters at one moment; None for a counter that this system does not offer.

    Attributes:
        wall_ns: of a monotonic clock.
        cpu_ns: CPU time of all threads of this process.
        busy_s: CPU time of all programs of the machine, summed over its cores.
        steal_s: time in which a core had work while the hypervisor ran another machine on it.
        voluntary_switches, involuntary_switches: how often this process gave up, or lost, its core.
        load_average: of the last minute.
        cores: logical cores of the machine.
    """

    wall_ns: int
    cpu_ns: int
    busy_s: float | None = None
    steal_s: float | None = None
    voluntary_switches: int | None = None
    involuntary_switches: int | None = None
    load_average: float | None = None
    cores: int | None = None


@dataclass(frozen=True, slots=True)
class Activity:
    """What happened between two snapshots; None for what this system does not tell.

    Attributes:
        cpu_share: CPU time of this process over wall time; 1.0 is one core all the time.
        other_cpu: cores kept busy on average by other processes, children of this one among them.
        steal_share: of the CPU time that the machine's programs asked for, the part that the hypervisor
            withheld. Idle cores do not dilute it.
        load_average: of the minute before the later snapshot.
        cores: logical cores of the machine.
    """

    duration_s: float
    cpu_share: float | None = None
    other_cpu: float | None = None
    steal_share: float | None = None
    involuntary_switches_per_s: float | None = None
    load_average: float | None = None
    cores: int | None = None


def take_snapshot(read: Reader = read_proc) -> Snapshot:
    """Read every counter; some 30 µs on a machine of few cores.

    Args:
        read: what stands for /proc.
    """
    busy_s, steal_s = _machine_times(read("stat"))
    load = load_averages()
    usage = None if resource is None else resource.getrusage(resource.RUSAGE_SELF)
    return Snapshot(
        wall_ns=time.perf_counter_ns(),
        cpu_ns=time.process_time_ns(),
        busy_s=busy_s,
        steal_s=steal_s,
        voluntary_switches=None if usage is None else usage.ru_nvcsw,
        involuntary_switches=None if usage is None else usage.ru_nivcsw,
        load_average=None if load is None else load[0],
        cores=os.cpu_count(),
    )


def load_averages() -> list[float] | None:
    """Return how many processes ran or wanted to, averaged over 1, 5 and 15 minutes; None if not counted."""
    try:
        return list(os.getloadavg())
    except (AttributeError, OSError):
        return None


def activity_between(before: Snapshot, after: Snapshot) -> Activity:
    """Express what happened from one snapshot to the next as rates.

    Raises:
        ValueError: `after` is the earlier one.
    """
    duration_s = (after.wall_ns - before.wall_ns) / 1e9
    if duration_s < 0:
        raise ValueError(
            f"`after` must be the later snapshot, got one taken {-duration_s:.3g} s earlier; swap the two"
        )
    cpu_s = (after.cpu_ns - before.cpu_ns) / 1e9
    busy_s = _increase(before.busy_s, after.busy_s)
    steal_s = _increase(before.steal_s, after.steal_s)
    # Ticks are counted by sampling, this process's own time exactly: their difference can fall below zero.
    others_s = None if busy_s is None else max(0.0, busy_s - cpu_s)
    asked_s = None if busy_s is None or steal_s is None else busy_s + steal_s
    return Activity(
        duration_s=duration_s,
        cpu_share=_ratio(cpu_s, duration_s),
        other_cpu=_ratio(others_s, duration_s),
        steal_share=_ratio(steal_s, asked_s),
        involuntary_switches_per_s=_ratio(
            _increase(before.involuntary_switches, after.involuntary_switches), duration_s
        ),
        load_average=after.load_average,
        cores=after.cores,
    )


def busy_warning(activity: Activity, *, threads: int | Literal["all"] = 1) -> str | None:
    """One sentence on how the machine disturbed a measurement, with the remedy; None when it did not.

    Args:
        activity: during the measurement. Nothing is said about spans under 50 ms.
        threads: that measured. Time lost counts for one thread only, since several wait for each other.
    """
    if activity.duration_s < SHORTEST_SPAN_S:
        return None
    other_cpu = activity.other_cpu or 0.0
    lost = 1.0 - activity.cpu_share if threads == 1 and activity.cpu_share is not None else 0.0
    signs = []
    if other_cpu > OTHER_CPU_LIMIT:
        total = "" if activity.cores is None else f" of {activity.cores}"
        signs.append(f"other programs kept {other_cpu:.1f}{total} cores busy")
    if _stolen_beyond_doubt(activity):
        signs.append(f"the hypervisor withheld {activity.steal_share:.0%} of the CPU time")
    if lost <= LOST_SHARE_LIMIT and not signs:
        return None
    if not signs:
        return (
            f"this process was off the CPU for {lost:.0%} of its time; "
            "rerun on an idle machine, unless the measured code sleeps or waits by itself"
        )
    if lost > LOST_SHARE_LIMIT:
        signs.append(f"this process lost {lost:.0%} of its time")
    listed = " and ".join([", ".join(signs[:-1]), signs[-1]] if signs[:-1] else signs)
    return f"the machine was busy: {listed}; rerun on an idle machine"


def _stolen_beyond_doubt(activity: Activity) -> bool:
    """Whether steal is above its limit even without one tick, most of which may be older than the span."""
    share = activity.steal_share
    if share is None or activity.cpu_share is None or activity.other_cpu is None:
        return False
    # With got = (1 - share) asked, this is: share * asked - tick > limit * asked.
    got_s = (activity.cpu_share + activity.other_cpu) * activity.duration_s
    return (share - STEAL_SHARE_LIMIT) * got_s > TICK_S * (1.0 - share)


def _machine_times(stat: str | None) -> tuple[float | None, float | None]:
    """Busy and stolen seconds since boot, from the first line of /proc/stat.

    Its fields are ticks (proc_stat(5)): user nice system idle iowait irq softirq steal guest guest_nice. The
    last two are within user and nice. Sandboxes that count nothing show zeros, which is not an idle machine.
    """
    label, *fields = (stat or "").partition("\n")[0].split() or [""]
    if label != "cpu" or len(fields) < 8 or not all(f.isascii() and f.isdigit() for f in fields):
        return None, None
    user, nice, system, idle, _, irq, softirq, steal = (int(field) for field in fields[:8])
    busy = user + nice + system + irq + softirq
    if busy + idle == 0:
        return None, None
    per_second = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
    return busy / per_second, steal / per_second


def _increase(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else max(0.0, after - before)


def _ratio(amount: float | None, of: float | None) -> float | None:
    return None if amount is None or not of else amount / of
