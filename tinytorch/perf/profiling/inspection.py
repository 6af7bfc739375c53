"""Questions about one model, each answered by running it."""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from tinytorch.core.checks import positive_int, whole
from tinytorch.perf.profiling.contents import stored_bytes
from tinytorch.perf.profiling.memory import MemoryProfiler
from tinytorch.perf.profiling.states import (
    as_input,
    check_model,
    checked_shape,
    inference,
    parameters_of,
    taking,
    zeros,
)
from tinytorch.perf.profiling.timer import Timer

MB = 1e6


def count_parameters(model: Any) -> int:
    """Return how many numbers training adjusts; shared ones count once."""
    check_model(model)
    return sum(parameter.size for parameter in parameters_of(model))


def measure_latency(model: Any, input_tensor: Any, warmup: int = 10, iterations: int = 100) -> float:
    """Return the median milliseconds of a forward pass, in evaluation mode and without gradients.

    Memory is not traced meanwhile, and garbage not collected.

    Args:
        model: a Layer, or anything else to call; it stays as it is.
        input_tensor: what it is called with.
        warmup: how many calls are made before.
        iterations: how many calls are timed.

    Raises:
        ValueError: `model` cannot be called, `input_tensor` is empty, or `iterations` is not positive.
    """
    check_model(model)
    x = as_input(input_tensor)
    rounds, before = positive_int(iterations, "iterations"), whole(warmup, "warmup")
    with inference(model), without_collection():
        return _median_ms(lambda: model(x), before, rounds)


def measure_memory(model: Any, input_shape: Sequence[int]) -> dict[str, float]:
    """Return where the memory of a forward pass goes, in millions of bytes, exact for arrays.

    Args:
        model: a Layer, or anything else to call; it stays as it is.
        input_shape: of the input, the batch axis first. The input is zeros.

    Returns:
        `parameter_memory_mb`: the parameters.
        `buffer_memory_mb`: all other arrays that the model holds, such as int8 weights, running averages and
            an enabled KV cache; see `contents.stored_bytes`.
        `input_memory_mb`: the input.
        `activation_memory_mb`: the most that a forward pass without gradients holds beside these.
        `peak_memory_mb`: all of these together.
        `memory_efficiency`: the share of parameters and buffers in the peak.

    Raises:
        ValueError: `model` cannot be called, or `input_shape` is no tuple of positive whole numbers.
        RuntimeError: a Timer or a Profiler is running.
    """
    check_model(model)
    x = zeros(checked_shape(input_shape))
    with inference(model):
        with taking(input_shape):
            model(x)  # what is made once, such as compiled kernels, is not of the pass
        with MemoryProfiler() as memory:
            model(x)
    held, given = parameter_bytes(model), x.numpy().nbytes
    buffers = max(stored_bytes(model) - held, 0)  # parameters that share memory take less than their sizes
    peak = held + buffers + given + memory.peak_bytes
    return {
        "parameter_memory_mb": held / MB,
        "buffer_memory_mb": buffers / MB,
        "input_memory_mb": given / MB,
        "activation_memory_mb": memory.peak_bytes / MB,
        "peak_memory_mb": peak / MB,
        "memory_efficiency": (held + buffers) / peak,
    }


def _median_ms(call: Callable[[], object], warmup: int, iterations: int) -> float:
    for _ in range(warmup):
        call()
    timer = Timer()
    durations = []
    for _ in range(iterations):
        with timer:
            call()
        durations.append(timer.elapsed_ms)
    return statistics.median(durations)


@contextmanager
def without_collection() -> Iterator[None]:
    """Keep the garbage collector from running in this block."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def parameter_bytes(model: Any) -> int:
    """Return the bytes of the parameters of a model."""
    return sum(parameter.size * parameter.dtype.itemsize for parameter in parameters_of(model))
