"""What a layer, a forward pass or a step of training takes, as dictionaries for reading."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tinytorch.core.tensor import Tensor
from tinytorch.perf.profiling.flops import FLOPCounter, name_of
from tinytorch.perf.profiling.inspection import (
    MB,
    count_parameters,
    measure_latency,
    measure_memory,
    parameter_bytes,
    without_collection,
)
from tinytorch.perf.profiling.memory import MemoryProfiler
from tinytorch.perf.profiling.states import (
    as_input,
    check_model,
    checked_shape,
    inference,
    parameters_of,
    preserved,
    zeros,
)
from tinytorch.perf.profiling.timer import Timer

_WARMUP, _ITERATIONS = 3, 20


def profile_layer(counter: FLOPCounter, layer: Any, input_shape: Sequence[int]) -> dict[str, Any]:
    """Return what one layer takes for an input of zeros of this shape, the batch axis first.

    Returns:
        `layer_name`, and all of `profile_forward_pass`.

    Raises:
        ValueError: as for `measure_memory`.
    """
    shape = checked_shape(input_shape)
    forward = profile_forward_pass(counter, layer, zeros(shape))
    return {"layer_name": name_of(layer), **forward}


def profile_forward_pass(counter: FLOPCounter, model: Any, input_tensor: Any) -> dict[str, Any]:
    """Return what a forward pass takes, in evaluation mode and without gradients.

    Returns:
        `parameters`; `flops` and `macs` of the whole batch, `uncounted` names (see `FLOPCount`);
        `latency_ms` (median); `gflops_per_second`; `bottleneck` (the name of what takes longest, see
        `Profiler.by_operation`) and `bottleneck_share` of the time; and all of `measure_memory`.

    Raises:
        ValueError: `model` cannot be called, or `input_tensor` is empty or has no batch axis.
    """
    from tinytorch.perf.profiling.profiler import Profiler

    check_model(model)
    x = as_input(input_tensor)
    shape = checked_shape(np.shape(x.numpy() if isinstance(x, Tensor) else x))
    count = counter.count(model, shape)
    latency_ms = measure_latency(model, x, _WARMUP, _ITERATIONS)
    with inference(model), Profiler(counter) as profiler:
        model(x)
    found = profiler.by_operation()
    whole_ms = sum(row.self_ms for row in found)
    flops = count.flops * shape[0]
    return {
        "parameters": count_parameters(model),
        "flops": flops,
        "macs": count.macs * shape[0],
        "uncounted": count.uncounted,
        "latency_ms": latency_ms,
        "gflops_per_second": flops / latency_ms / 1e6,
        "bottleneck": found[0].name if found else name_of(model),
        "bottleneck_share": found[0].self_ms / whole_ms if whole_ms else 1.0,
        **measure_memory(model, shape),
    }


def profile_backward_pass(
    counter: FLOPCounter, model: Any, input_tensor: Any, loss_fn: Callable[[Any], Any] | None = None
) -> dict[str, Any]:
    """Return what a step of training takes without the optimizer, in the mode that the model is in.

    Args:
        counter: has the formulas.
        model: a Layer with parameters; it stays as it is, and so do its gradients.
        input_tensor: what it is called with.
        loss_fn: from the output to a loss, a single number; the sum of the output unless given.

    Returns:
        Medians `forward_latency_ms`, `backward_latency_ms` and `total_latency_ms`; `forward_flops`, and
        `backward_flops` of products and convolutions, of the whole batch; `uncounted` names;
        `gradient_memory_mb` of the parameters; `peak_memory_mb` above what is held before the step; and
        `optimizer_memory_mb`, what "sgd", "momentum" and "adam" keep beside the parameters.

    Raises:
        ValueError: `model` cannot be called, `input_tensor` is empty, or nothing requires a gradient.
    """
    from tinytorch.perf.profiling.profiler import Profiler

    check_model(model)
    x = as_input(input_tensor)
    forward_ms: list[float] = []
    backward_ms: list[float] = []

    def step() -> None:
        with Timer() as forward:
            output = model(x)
            loss = output.sum() if loss_fn is None else loss_fn(output)
        if not loss.requires_grad:
            raise ValueError("`model` must have parameters that require a gradient, outside of no_grad()")
        with Timer() as backward:
            loss.backward()
        forward_ms.append(forward.elapsed_ms)
        backward_ms.append(backward.elapsed_ms)
        for parameter in parameters_of(model):
            parameter.grad = None

    with preserved(model):
        with without_collection():
            for _ in range(_WARMUP + _ITERATIONS):
                step()
        with Profiler(counter) as profiler:
            step()
        peak = _peak_of_step(model, x, loss_fn)
    backward_flops = sum(row.flops for row in profiler.by_operation() if row.name.endswith(" backward"))
    forward_flops = sum(row.flops for row in profiler.by_operation()) - backward_flops
    held = parameter_bytes(model) / MB
    timed = slice(_WARMUP, _WARMUP + _ITERATIONS)
    forward, backward = statistics.median(forward_ms[timed]), statistics.median(backward_ms[timed])
    return {
        "forward_latency_ms": forward,
        "backward_latency_ms": backward,
        "total_latency_ms": forward + backward,
        "forward_flops": forward_flops,
        "backward_flops": backward_flops,
        "uncounted": profiler.uncounted,
        "gradient_memory_mb": held,
        "peak_memory_mb": peak / MB,
        "optimizer_memory_mb": {"sgd": 0.0, "momentum": held, "adam": 2 * held},
    }


def _peak_of_step(model: Any, x: Any, loss_fn: Callable[[Any], Any] | None) -> int:
    with MemoryProfiler() as memory:
        output = model(x)
        (output.sum() if loss_fn is None else loss_fn(output)).backward()
    return memory.peak_bytes
