"""Times one callable at several sizes, interleaved, on instances built anew."""

from __future__ import annotations

import inspect
import math
import random
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from perfclaims.conditions import collect_if_piled_up, measuring
from perfclaims.evidence import Scaling, Threads
from perfclaims.implementation import Implementation
from perfclaims.plan import INSTANCES, SAMPLE_NS
from perfclaims.statistics import samples_needed

_clock = time.perf_counter_ns

# Samples of one size per visit: their least is not taken, so that the median sees all of them.
_SAMPLES_PER_VISIT = 3


def measure_scaling(
    build_for_size: Callable[..., Any],
    sizes: Sequence[float],
    *,
    label: str | None,
    budget_s: float,
    confidence: float,
    seed: int,
    threads: Threads,
    time_left: Callable[[], float] = lambda: math.inf,
) -> Scaling:
    """Durations at every size, in rounds of random order over rebuilt instances.

    Args:
        build_for_size: called as `build_for_size(size)` or `build_for_size(size, rng)`; returns the callable
            to be timed, or an Implementation.
        sizes: two or more different positive numbers.

    Raises:
        ValueError: sizes that make no sense, or something built that cannot be called.
    """
    _check(build_for_size, sizes)
    start = _clock()
    order = random.Random(f"scaling {seed}")  # noqa: S311 - an order, not secrets
    rows: list[tuple[int, int, int]] = []
    with measuring(threads) as conditions:
        rounds = 0
        calls: list[int] = []
        spent = 0
        wanted = max(INSTANCES, samples_needed(confidence))
        fewest = samples_needed(confidence)
        while rounds < wanted and (rounds < fewest or spent < budget_s * 1e9):
            rng = np.random.default_rng([seed, rounds])
            funcs = [_build(build_for_size, size, rng) for size in sizes]
            if not calls:
                calls = [_calls(func) for func in funcs]
            if rounds and time_left() * 1e9 < 1.5 * spent / rounds:
                break
            began = _clock()
            for index in order.sample(range(len(sizes)), len(sizes)):
                rows += [(rounds, index, t) for t in _visit(funcs[index], calls[index], budget_s, len(sizes))]
            spent += _clock() - began
            rounds += 1
            collect_if_piled_up()
    table = np.array(rows, dtype=np.int64).reshape(len(rows), 3)
    warnings = (
        ()
        if rounds >= fewest
        else (f"{rounds} instances are too few: {fewest} are needed; raise the time limit",)
    )
    return Scaling(
        label=label,
        sizes=tuple(float(size) for size in sizes),
        calls=tuple(calls),
        instances=rounds,
        confidence=confidence,
        instance=table[:, 0],
        size_index=table[:, 1],
        duration_ns=table[:, 2],
        threads=conditions.threads,
        cpu=conditions.cpu,
        elapsed_s=(_clock() - start) / 1e9,
        warnings=warnings,
    )


def _check(build_for_size: object, sizes: Sequence[float]) -> None:
    if not callable(build_for_size):
        raise ValueError(f"`build_for_size` must be callable as build_for_size(size), got {build_for_size!r}")
    values = list(sizes)
    if len(set(values)) < 2 or not all(v > 0 and math.isfinite(v) for v in values):
        raise ValueError(f"`sizes` must be two or more different positive numbers, got {values}")
    if len(set(values)) < len(values):
        raise ValueError(f"`sizes` must not repeat, got {values}")


def _build(build_for_size: Callable[..., Any], size: float, rng: np.random.Generator) -> Callable[[], Any]:
    built = build_for_size(size, rng) if _takes_rng(build_for_size) else build_for_size(size)
    func = built.instance(rng) if isinstance(built, Implementation) else built
    if not callable(func):
        raise ValueError(f"`build_for_size({size})` must return the callable to be timed, got {func!r}")
    return func


def _takes_rng(build_for_size: Callable[..., Any]) -> bool:
    try:
        inspect.signature(build_for_size).bind(0, None)
    except (TypeError, ValueError):
        return False
    return True


def _calls(func: Callable[[], Any]) -> int:
    """Warm up and find how many calls make a sample."""
    func()
    return max(1, round(SAMPLE_NS / max(1, min(_time(func, 1) for _ in range(2)))))


def _visit(func: Callable[[], Any], calls: int, budget_s: float, sizes: int) -> list[int]:
    """Samples of one size: at least one, more while this size's share of the budget lasts."""
    share = budget_s * 1e9 / (sizes * INSTANCES)
    first = _time(func, calls)
    if first < share / 2:
        # What ran before has pushed this size's data out of the caches: the first sample was the warm-up.
        first = _time(func, calls)
    more = int(min(_SAMPLES_PER_VISIT * 10, share / max(first, 1))) - 1
    return [first, *(_time(func, calls) for _ in range(more))]


def _time(func: Callable[[], Any], calls: int) -> int:
    start = _clock()
    for _ in range(calls):
        func()
    return _clock() - start
