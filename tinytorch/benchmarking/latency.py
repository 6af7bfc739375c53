"""Durations of models that take turns, in random order, on the same inputs."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import repeat
from typing import Any

import numpy as np

from tinytorch.benchmarking.conditions import collect_if_piled_up, collector_paused, single_threaded
from tinytorch.benchmarking.contenders import Contender, RefusedModel
from tinytorch.benchmarking.copies import is_whole
from tinytorch.benchmarking.data import Data
from tinytorch.benchmarking.limits import TooSlow, time_limit
from tinytorch.benchmarking.samples import GROUP, LatencySamples

_clock = time.perf_counter_ns

# A sample is as many calls as take this long: the clock itself takes 0.05 us.
_SAMPLE_NS = 20_000
# What each model gets in a run, where its calls are that quick. With ten such runs, while other programs ran,
# 2 % of the work of a small perceptron were found 79 times of 80, and equal ones called different 0 of 120.
_RUN_NS = 30_000_000
# Answers of a copy, over the largest one.
_SAME = 1e-3
_MOST_ROUNDS, _MOST_COPIES = 240, 16


def measure(
    contenders: Sequence[Contender],
    datasets: Sequence[Data],
    warmup_runs: int,
    measurement_runs: int,
    rng: np.random.Generator,
    time_limit_s: float,
) -> LatencySamples:
    """Time all models on all data, with one thread and without the garbage collector.

    A run takes copies of every model and of the inputs, at other addresses, several times where the calls are
    quick. On each it makes rounds, in which every model has one sample, in an order drawn anew.

    Raises:
        RefusedModel: a model raises, or takes longer than `time_limit_s` for a call.
        RuntimeError: memory is being traced.
    """
    check_untraced()
    with single_threaded(), collector_paused():
        with _ending(time_limit_s * (warmup_runs + 4) * len(contenders)):
            calls = [_Calls(c, _copyable(c, datasets, rng)) for c in contenders]
            _place(calls, datasets, rng, copied=False)
            for _ in range(max(1, warmup_runs)):
                for index in rng.permutation(len(calls)):
                    calls[index].warm_up()
        copies, rounds = _plan(calls)
        samples = np.empty((measurement_runs, copies, rounds, len(calls)))
        for block in samples.reshape(-1, rounds, len(calls)):
            with _ending(time_limit_s * (rounds + 1) * len(calls)):
                _place(calls, datasets, rng, copied=True)
                for row in block:
                    for index in rng.permutation(len(calls)).tolist():
                        row[index] = calls[index].sample_ns()
            collect_if_piled_up()
    names = tuple(c.name for c in contenders)
    single = tuple(call.contender.name for call in calls if not call.copyable)
    return LatencySamples(names, np.maximum(samples, 1.0), tuple(call.repeats for call in calls), single)


def one_pass(call: Callable[[Any], Any], inputs: Sequence[Any]) -> Callable[[], Any]:
    """Return a function that calls a model once for each of its inputs."""
    if len(inputs) == 1:
        only = inputs[0]
        return lambda: call(only)

    def over_all() -> None:
        for item in inputs:
            call(item)

    return over_all


class _Calls:
    """Calls of one model on its inputs, so many that a sample is long enough for the clock."""

    def __init__(self, contender: Contender, copyable: bool) -> None:
        self.contender = contender
        self.copyable = copyable
        self.pass_: Callable[[], Any] = lambda: None
        self.fastest_ns = float("inf")
        self.repeats = 1

    def warm_up(self) -> None:
        self.fastest_ns = min(self.fastest_ns, self.sample_ns())
        self.repeats = max(1, round(_SAMPLE_NS / max(1.0, self.fastest_ns)))

    def sample_ns(self) -> float:
        call, repeats = self.pass_, self.repeats
        with refusing(self.contender, "it was timed"):
            start = _clock()
            for _ in repeat(None, repeats):
                call()
            return (_clock() - start) / repeats


@contextmanager
def refusing(contender: Contender, during: str) -> Iterator[None]:
    """Refuse a model by name where it raises, or does not end, though it had answered the same inputs.

    Args:
        contender: the only one that is called in the block.
        during: what the block is for, as in "while it was timed".
    """
    try:
        yield
    except TooSlow:
        raise RefusedModel(
            f"{contender.name!r} did not end while {during}, after it had answered the same inputs before"
        ) from None
    except (Exception, SystemExit) as error:
        raise RefusedModel(
            f"{contender.name!r} raised {type(error).__name__} while {during}, after it had answered the "
            f"same inputs: {error}"
        ) from error


def check_untraced() -> None:
    """Refuse to measure time or energy while memory is traced, which makes everything slower.

    Raises:
        RuntimeError: it is, by a `with MemoryProfiler()` block or by whatever else started `tracemalloc`.
    """
    if tracemalloc.is_tracing():
        raise RuntimeError(
            "models cannot be timed while memory is traced, which makes everything slower: leave "
            "`with MemoryProfiler()`, or stop `tracemalloc`, and measure time and memory in two runs"
        )


@contextmanager
def _ending(seconds: float) -> Iterator[None]:
    """Refuse what takes longer; models name themselves where it is they that do."""
    try:
        with time_limit(seconds):
            yield
    except TooSlow:
        raise RefusedModel(
            "a model, or a copy of one, did not end within the time limit, after it had answered the same "
            "inputs before"
        ) from None


def _copyable(contender: Contender, datasets: Sequence[Data], rng: np.random.Generator) -> bool:
    """Whether a copy of a model can be measured in its place: it answers the same, from memory of its own."""
    try:
        duplicate = contender.copied(rng)
        if not is_whole(duplicate.model, contender.model):
            return False
        for data in datasets:
            inputs = contender.prepared(data.inputs)
            answer, same = np.asarray(contender.call(inputs)), np.asarray(duplicate.call(inputs))
            # Sums may be rounded otherwise at other addresses; a copy that lost its weights is far off.
            tolerance = _SAME * float(np.abs(answer).max())
            if answer.shape != same.shape or not np.allclose(answer, same, rtol=0, atol=tolerance):
                return False
    except (Exception, SystemExit):  # noqa: BLE001 - copying runs code of the model; it is then measured as it is
        return False
    return True


def _place(
    calls: Sequence[_Calls], datasets: Sequence[Data], rng: np.random.Generator, *, copied: bool
) -> None:
    """Let the next calls be those of other copies, on a copy of the inputs, each called once already."""
    inputs = [data.moved_inputs(rng) for data in datasets]
    for index in rng.permutation(len(calls)).tolist():
        contender = calls[index].contender
        if copied and calls[index].copyable:
            contender = contender.copied(rng)
        calls[index].pass_ = one_pass(contender.call, [contender.prepared(item) for item in inputs])
        calls[index].sample_ns()


def _plan(calls: Sequence[_Calls]) -> tuple[int, int]:
    """Return how many copies a run takes, and how many rounds it makes on each, by the slowest model."""
    sample_ns = max(call.fastest_ns * call.repeats for call in calls)
    rounds = max(1, min(_MOST_ROUNDS, round(_RUN_NS / sample_ns)))
    copies = max(1, min(_MOST_COPIES, rounds // GROUP))
    return copies, rounds // copies
