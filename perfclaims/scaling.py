"""Times one callable at several sizes, interleaved, on instances built anew."""

from __future__ import annotations

import inspect
import math
import random
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from perfclaims.conditions import Conditions, collect_if_piled_up, measuring
from perfclaims.criteria import is_number
from perfclaims.evidence import Scaling, Threads
from perfclaims.implementation import Implementation
from perfclaims.plan import INSTANCES
from perfclaims.statistics import samples_needed
from perfclaims.timing import calibrated_calls, timed

_clock = time.perf_counter_ns

# The median over an instance's samples of a size is known well enough by then.
_MOST_SAMPLES = 30
# A first call this long is not made again to warm up.
_SLOW_NS = 20_000_000
# Of the time that is left, a third is kept for what cannot be foreseen.
_TIME_MARGIN = 1.5

# Instance, index of the size, duration in ns.
Row = tuple[int, int, int]


def measure_scaling(
    build_for_size: Callable[..., Any],
    sizes: Iterable[float],
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
        budget_s: seconds of timing; exceeded where an interval needs more instances than fit.
        time_left: seconds until the caller must be done.

    Raises:
        ValueError: sizes that make no sense, or something built that cannot be called.
    """
    checked = _checked(build_for_size, sizes)
    start = _clock()
    with measuring(threads) as conditions:
        rounds = _Rounds(build_for_size, checked, conditions, budget_s, seed)
        fewest = samples_needed(confidence)
        wanted = max(INSTANCES, fewest)
        while rounds.done < wanted and (rounds.done < fewest or rounds.timed_ns < budget_s * 1e9):
            if time_left() * 1e9 < _TIME_MARGIN * rounds.longest_ns:
                break
            rounds.measure()
        warnings = conditions.warnings()
    if rounds.done < fewest:
        needed_s = _TIME_MARGIN * fewest * rounds.longest_ns / 1e9
        warnings.append(
            f"{rounds.done} instances are too few for an interval: {fewest} are needed, about "
            f"{needed_s:.2g} s; raise the time limit"
        )
    table = np.array(rounds.rows, dtype=np.int64).reshape(len(rounds.rows), 3)
    return Scaling(
        label=label,
        sizes=tuple(float(size) for size in checked),
        calls=tuple(rounds.calls),
        instances=rounds.done,
        confidence=confidence,
        instance=table[:, 0],
        size_index=table[:, 1],
        duration_ns=table[:, 2],
        threads=conditions.threads,
        cpu=conditions.cpu,
        elapsed_s=(_clock() - start) / 1e9,
        warnings=tuple(warnings),
    )


class _Rounds:
    """Instance after instance: every size built, and timed in random order."""

    def __init__(
        self,
        build_for_size: Callable[..., Any],
        sizes: Sequence[float],
        conditions: Conditions,
        budget_s: float,
        seed: int,
    ) -> None:
        self._build_for_size = build_for_size
        self._takes_rng = _takes_rng(build_for_size)
        self._sizes = sizes
        self._conditions = conditions
        # Of the budget, for one size in one instance.
        self._share_ns = budget_s * 1e9 / (len(sizes) * INSTANCES)
        self._seed = seed
        self._order = random.Random(f"scaling {seed}")  # noqa: S311 - an order, not secrets
        self.rows: list[Row] = []
        self.calls: list[int] = []
        self.done = 0
        self.timed_ns = 0
        self.longest_ns = 0

    def measure(self) -> None:
        """One instance more."""
        start = _clock()
        with self._conditions.setting_up():
            funcs = [self._build(index) for index in range(len(self._sizes))]
            self.calls = self.calls or [_calls(func) for func in funcs]
        began = _clock()
        for index in self._order.sample(range(len(funcs)), len(funcs)):
            samples = self._visit(funcs[index], self.calls[index])
            self.rows += [(self.done, index, ns) for ns in samples]
        self.timed_ns += _clock() - began
        self.done += 1
        collect_if_piled_up()
        self.longest_ns = max(self.longest_ns, _clock() - start)

    def _build(self, index: int) -> Callable[[], Any]:
        size = self._sizes[index]
        rng = np.random.default_rng([self._seed, self.done, index])
        built = self._build_for_size(size, rng) if self._takes_rng else self._build_for_size(size)
        func = built.instance(rng) if isinstance(built, Implementation) else built
        if not callable(func):
            raise ValueError(f"`build_for_size({size})` must return the callable to be timed, got {func!r}")
        return func

    def _visit(self, func: Callable[[], Any], calls: int) -> list[int]:
        """Samples of one size: one at least, more while its share of the budget lasts."""
        first = timed(func, calls)
        if first < self._share_ns / 2:
            # What ran before has pushed this size's data out of the caches: that was the warm-up.
            first = timed(func, calls)
        more = int(min(_MOST_SAMPLES, self._share_ns / max(first, 1))) - 1
        return [first, *(timed(func, calls) for _ in range(more))]


def _calls(func: Callable[[], Any]) -> int:
    """Warm up and find how many calls make a sample."""
    first = timed(func, 1)
    return 1 if first > _SLOW_NS else calibrated_calls(func, min(timed(func, 1) for _ in range(2)))


def _checked(build_for_size: object, sizes: object) -> list[float]:
    if not callable(build_for_size):
        raise ValueError(f"`build_for_size` must be callable as build_for_size(size), got {build_for_size!r}")
    values = list(sizes) if isinstance(sizes, Iterable) else []
    if not all(is_number(value) and value > 0 for value in values) or len(set(values)) < 2:
        raise ValueError(f"`sizes` must be two or more different positive numbers, got {sizes!r}")
    if len(set(values)) < len(values):
        raise ValueError(f"`sizes` must not repeat, got {values}")
    return values


def _takes_rng(build_for_size: Callable[..., Any]) -> bool:
    try:
        inspect.signature(build_for_size).bind(0, None)
    except (TypeError, ValueError):
        return False
    return True
