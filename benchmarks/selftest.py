"""Measures the harness itself: false alarms, coverage, resolution, decisions, and what a pair costs.

    python benchmarks/selftest.py             about 10 minutes on an idle machine
    python benchmarks/selftest.py --quick     a tenth of the trials, for a look

The work is such that true ratios are exact: a callable repeats one unit of work n times, and two callables
differ in n alone. Every rate has its 95 % interval (Wilson). Nothing else should run meanwhile; leave one of
two cores to the system.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import multiprocessing
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np

from perfclaims import Claim, ComparisonResult, Implementation, PerformanceComparator, Speedup, judge
from perfclaims.conditions import measuring
from perfclaims.evaluation import evaluate
from perfclaims.instances import LocalSource
from perfclaims.pairing import Pairing

BUDGET_S = 0.25
Unit = Callable[[], object]

_BUFFER = np.arange(8 << 20, dtype=np.int64)  # 64 MiB, streamed through in chunks
_CHUNK = 32 << 10


def c_unit() -> Unit:
    """CPU-bound work in C, about 2 us."""
    block = bytes(2048)
    return lambda: hashlib.sha256(block).digest()


def numpy_unit() -> Unit:
    """Two small NumPy calls, about 1 us; arrays so short that where they lie hardly matters."""
    x, y = np.linspace(0, 1, 100), np.linspace(1, 2, 100)
    z = np.empty_like(x)

    def unit() -> None:
        np.multiply(x, y, out=z)
        np.add(z, x, out=z)

    return unit


def interpreter_unit() -> Unit:
    """A loop in the interpreter, about 5 us."""
    data = tuple(range(300, 400))

    def unit() -> int:
        total = 0
        for value in data:
            total += value * 3
        return total

    return unit


UNITS: dict[str, Callable[[], Unit]] = {"C": c_unit, "NumPy": numpy_unit, "interpreter": interpreter_unit}
GATED = tuple(UNITS)
ALL = (*GATED, "memory")
# Units per call of the baseline; the memory workload streams this many chunks. Calls are 0.25 ms and more,
# so that what a call costs beside its units (0.2 us, however many there are) leaves ratios true to 0.1 %.
UNITS_PER_CALL = {"C": 200, "NumPy": 500, "interpreter": 200, "memory": 200}


def work(name: str, units: int) -> Callable[[], None]:
    """A callable that does `units` units of work, built anew."""
    if name == "memory":
        chunks = [_BUFFER[i * _CHUNK : (i + 1) * _CHUNK] for i in range(units)]

        def stream() -> None:
            for chunk in chunks:
                chunk.sum()

        return stream
    unit = UNITS[name]()

    def run() -> None:
        for _ in repeat(None, units):
            unit()

    return run


def implementation(name: str, units: int) -> Implementation:
    """Work that is built anew for every instance."""
    return Implementation(f"{units} units", lambda rng: work(name, units))


def compare(name: str, units: tuple[int, int], seed: int, claim: float | None = None) -> ComparisonResult:
    """Compare two amounts of the same work; the true speedup is units[0] / units[1]."""
    comparator = PerformanceComparator(budget_s=BUDGET_S, seed=seed)
    sides = implementation(name, units[0]), implementation(name, units[1])
    return comparator.compare_implementations(*sides, claim_speedup=claim, outputs=None)


def wilson(hits: int, trials: int) -> tuple[float, float]:
    """95 % interval of a rate."""
    if trials == 0:
        return 0.0, 1.0
    z, p = 1.96, hits / trials
    centre = (p + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z * math.sqrt(p * (1 - p) / trials + z * z / (4 * trials * trials)) / (1 + z * z / trials)
    return max(0.0, centre - half), min(1.0, centre + half)


def rate(hits: int, trials: int) -> str:
    """`3/160 = 1.9 % [0.6, 5.4]`."""
    low, high = wilson(hits, trials)
    share = 100 * hits / trials if trials else math.nan
    return f"{hits}/{trials} = {share:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"


class Report:
    """Prints results as they come and keeps them; a gate that is missed is remembered."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def add(self, what: str, text: str, *, met: bool | None = None, **figures: Any) -> None:
        """One result; `met` says whether it reaches what is asked for, None where nothing is."""
        mark = {None: "", True: "  met", False: "  MISSED"}[met]
        print(f"{what:58s} {text}{mark}", flush=True)
        self.rows.append({"what": what, "text": text, "met": met, **figures})

    @property
    def missed(self) -> int:
        """Gates that were not reached."""
        return sum(row["met"] is False for row in self.rows)


def shuffled(cells: Sequence[tuple[Any, ...]], trials: int) -> Iterator[tuple[int, tuple[Any, ...]]]:
    """Every cell `trials` times in random order, so that a bad minute of the machine hits all alike."""
    order = [cell for cell in cells for _ in range(trials)]
    random.Random(1).shuffle(order)
    yield from enumerate(order)


def false_alarms(report: Report, trials: int) -> None:
    """A/A: the same callable on both sides, and freshly built ones; also how small a slowdown is found."""
    found: dict[tuple[str, bool], list[ComparisonResult]] = {(n, f): [] for n in ALL for f in (False, True)}
    for seed, (name, fresh) in shuffled(list(found), trials):
        units = UNITS_PER_CALL[name]
        if fresh:
            result = compare(name, (units, units), seed)
        else:
            func = work(name, units)
            same = Implementation("same", lambda rng, func=func: func)
            comparator = PerformanceComparator(budget_s=BUDGET_S, seed=seed)
            result = comparator.compare_implementations(same, same, outputs=None)
        found[name, fresh].append(result)
    for fresh in (False, True):
        title = "A/A false alarms, freshly built" if fresh else "A/A false alarms, same callable"
        for name in ALL:
            hits = sum(r.is_significant for r in found[name, fresh])
            report.add(f"{title}: {name}", rate(hits, trials))
        results = [r for name in ALL for r in found[name, fresh]]
        hits = sum(r.is_significant for r in results)
        report.add(f"{title}: all", rate(hits, len(results)), met=wilson(hits, len(results))[0] <= 0.05)
    goals = {"C": 0.0025, "NumPy": 0.006, "interpreter": 0.0075, "memory": 0.045}
    for name in ALL:
        # A slowdown of d shifts the interval of the log speedup down by d: it is found once d exceeds the
        # upper end that the interval has without it. By symmetry the lower end says the same.
        ends = [e for r in found[name, True] for e in (math.log(r.speedup_high), -math.log(r.speedup_low))]
        smallest = float(np.quantile(ends, 0.8))
        halves = float(np.median([r.ratio.half_width for r in found[name, True]]))
        text = (
            f"{100 * smallest:.2f} % (goal {100 * goals[name]:g} %), median half width {100 * halves:.2f} %"
        )
        report.add(f"smallest slowdown found with 80 % power: {name}", text, met=smallest <= goals[name])


def coverage(report: Report, trials: int) -> None:
    """How often the interval holds the true ratio."""
    cells = [(name, extra) for name in ALL for extra in (1, 2, 5)]
    held: dict[tuple[Any, ...], int] = dict.fromkeys(cells, 0)
    seen: dict[tuple[Any, ...], int] = dict.fromkeys(cells, 0)
    for seed, (name, extra) in shuffled(cells, trials):
        units = UNITS_PER_CALL[name]
        result = compare(name, (units, units + units * extra // 100), seed)
        held[name, extra] += result.speedup_low <= 100 / (100 + extra) <= result.speedup_high
        seen[name, extra] += result.speedup_high < 1
    for name in ALL:
        each = ", ".join(f"{100 * held[name, extra] / trials:.0f} %" for extra in (1, 2, 5))
        hits = sum(held[name, extra] for extra in (1, 2, 5))
        met = None if name == "memory" else wilson(hits, 3 * trials)[1] >= 0.95
        report.add(f"coverage of 1.01, 1.02, 1.05: {name}", f"{each}; {rate(hits, 3 * trials)}", met=met)
        power = ", ".join(f"{100 * seen[name, extra] / trials:.0f} %" for extra in (1, 2, 5))
        report.add(f"true slowdown of 1, 2, 5 % found: {name}", power)


# True units (baseline, optimised), claimed speedup, and the outcome that would be wrong.
AWAY = (((102, 34), 2.0, "refuted"), ((100, 100), 1.02, "confirmed"), ((105, 100), 1.02, "refuted"))
BOUNDARY = (((102, 100), 1.02), ((100, 50), 2.0))


def scaled(name: str, units: tuple[int, int]) -> tuple[int, int]:
    """The same ratio in this workload's number of units."""
    factor = UNITS_PER_CALL[name] // 100
    return units[0] * factor, units[1] * factor


def decisions(report: Report, trials: int, title: str, names: Sequence[str] = ALL) -> None:
    """Wrong decisions well away from the threshold, and how long an easy claim takes."""
    undecided = total = 0
    wrong: list[str] = []
    seconds: dict[str, list[tuple[float, float, float]]] = {name: [] for name in names}
    for seed, (name, (units, claim, bad)) in shuffled([(n, c) for n in names for c in AWAY], trials):
        result = compare(name, scaled(name, units), seed, claim)
        outcome = evaluate(Speedup(at_least=claim), [result.timing]).outcome
        if outcome == bad:
            wrong.append(f"{name} {units[0] / units[1]:.3g}x against {claim:g}x: {result}")
        undecided += outcome == "inconclusive"
        total += 1
        if claim == 2.0:
            timing = result.timing
            seconds[name].append((timing.pairing_s, timing.setup_s, timing.last_round_s))
    report.add(f"wrong decisions away from the threshold{title}", rate(len(wrong), total), met=not wrong)
    for case in wrong:
        report.add("    wrong", case)
    report.add(f"undecided away from the threshold{title}", rate(undecided, total))
    for name in names:
        pairing, setup, last = (1000 * float(np.median(part)) for part in zip(*seconds[name], strict=True))
        longest = 1000 * float(np.quantile([s[0] for s in seconds[name]], 0.9))
        met = None if title or name == "memory" else pairing < 60
        text = f"{pairing:.0f} ms (90 %: {longest:.0f}); set-up and checks {setup:.0f}, last round {last:.0f}"
        report.add(f"3x against 2x, first to last pair: {name}{title}", text, met=met)


def boundary(report: Report, trials: int) -> None:
    """Decisions where the truth is the threshold itself: every decision counts as wrong."""
    total = 0
    wrong: list[str] = []
    for seed, (name, (units, claim)) in shuffled([(n, c) for n in GATED for c in BOUNDARY], trials):
        result = compare(name, scaled(name, units), seed, claim)
        if evaluate(Speedup(at_least=claim), [result.timing]).outcome != "inconclusive":
            wrong.append(f"{name}: {result}")
        total += 1
    met = wilson(len(wrong), total)[0] <= 0.05
    report.add("decisions at the threshold itself", rate(len(wrong), total), met=met)
    for case in wrong:
        report.add("    decided", case)


def array_work(rng: np.random.Generator, *, in_place: bool) -> Callable[[], None]:
    """Multiply and add on arrays of 320 kB; how fast depends on where they lie in memory."""
    a, b, c, t, d = (rng.random(40_000) for _ in range(5))
    target = t if in_place else d

    def run() -> None:
        np.multiply(a, b, out=t)
        np.add(t, c, out=target)

    return run


def array_verdict(seed: int, claim: float) -> tuple[str, float]:
    """Verdict on the array code in this process."""
    sides = (
        Implementation("out of place", lambda rng: array_work(rng, in_place=False)),
        Implementation("in place", lambda rng: array_work(rng, in_place=True)),
    )
    comparator = PerformanceComparator(budget_s=BUDGET_S, seed=seed)
    result = comparator.compare_implementations(*sides, claim_speedup=claim, outputs=None)
    declared = Claim("arrays", "in place is faster", "", (Speedup(at_least=claim),))
    verdict = judge(declared, [result.timing]).verdict
    # Outputs are not compared here, which alone would make a PASS partial.
    outcome = evaluate(declared.criteria[0], [result.timing]).outcome
    return ("PASS" if outcome == "confirmed" else str(verdict)), result.speedup


def arrays(report: Report, processes: int) -> None:
    """Array code in fresh processes: no verdict may contradict another."""
    scouts = [_in_process(seed, 1.0) for seed in range(1000, 1004)]
    claim = round(float(np.median([s for _, s in scouts])), 3)
    found = [_in_process(seed, claim) for seed in range(processes)]
    verdicts = [verdict for verdict, _ in found]
    counts = {v: verdicts.count(v) for v in sorted(set(verdicts))}
    speedups = [s for _, s in found]
    text = f"{counts}, speedups {min(speedups):.2f} to {max(speedups):.2f} against {claim:g}"
    met = not ("PASS" in counts and "FAIL" in counts)
    report.add(f"array code, {processes} fresh processes", text, met=met)


def _in_process(seed: int, claim: float) -> tuple[str, float]:
    command = [sys.executable, __file__, "--array-verdict", str(seed), str(claim)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - this script
    verdict, speedup = done.stdout.split()
    return verdict, float(speedup)


def pair_cost(report: Report) -> None:
    """Wall time per pair beyond the two timed calls."""
    costs = []
    for seed in range(9):
        source = LocalSource(implementation("C", 20), implementation("C", 20), None, seed)
        with measuring(1):
            pairing = Pairing(source, budget_s=BUDGET_S, seed=seed)
            run = pairing.run()
            start, before = time.perf_counter_ns(), len(run.rows)
            instance = source.build(99)
            instance.batch(1, 1, 1)
            start = time.perf_counter_ns()
            pairing._visit(0, instance.baseline, instance.optimized, 2000)
            wall = time.perf_counter_ns() - start
        timed = sum(row[2] + row[3] for row in run.rows[before:])
        costs.append((wall - timed) / 2000)
    cost = float(np.median(costs)) / 1000
    report.add("cost of a pair beyond its two calls", f"{cost:.2f} us", met=cost < 2)


def _compete(cpu: int) -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {cpu})
    while True:
        pass


@contextmanager
def competitor() -> Iterator[None]:
    """Another program on the CPU that is measured on, taking half of it."""
    cpu = max(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    process = multiprocessing.get_context("spawn").Process(target=_compete, args=(cpu,), daemon=True)
    process.start()
    time.sleep(1.0)
    try:
        yield
    finally:
        process.kill()
        process.join()


def main() -> int:
    """Run all parts; the exit code is the number of goals that were missed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the trials")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--array-verdict", nargs=2, metavar=("SEED", "CLAIM"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.array_verdict:
        verdict, speedup = array_verdict(int(options.array_verdict[0]), float(options.array_verdict[1]))
        print(verdict, speedup)
        return 0
    fewer = 10 if options.quick else 1
    report, start = Report(), time.perf_counter()
    pair_cost(report)
    decisions(report, max(2, 20 // fewer), "")
    false_alarms(report, max(4, 80 // fewer))
    coverage(report, max(3, 50 // fewer))
    boundary(report, max(2, 40 // fewer))
    arrays(report, max(4, 16 // fewer))
    with competitor():
        decisions(report, max(2, 20 // fewer), ", half the CPU taken")
    report.add("all of it", f"{(time.perf_counter() - start) / 60:.1f} min, {report.missed} goals missed")
    if options.json:
        options.json.write_text(json.dumps(report.rows, indent=1) + "\n", encoding="utf-8")
    return report.missed


if __name__ == "__main__":
    sys.exit(main())
