"""The process in which a model plays: it gets inputs, one query after the other, and returns outputs.

It never sees labels, and its clock starts when a query is there and stops when its answer is an array.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import sys
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from tinytorch.benchmarking.tinymlperf.confinement import confine, limit_resources
from tinytorch.benchmarking.tinymlperf.frames import Closed, Frame, receive, send
from tinytorch.core.autograd import no_grad
from tinytorch.core.models import load_model
from tinytorch.core.tensor import Tensor


def main(arguments: list[str]) -> int:
    """Serve the referee through two pipes, whose descriptors are the arguments, until it closes them."""
    requests, answers = map(int, arguments)
    try:
        send(answers, Frame({"ready": True}))
        player = _loaded(receive(requests), answers)
        if player is None:
            return 1
        gc.collect()
        gc.freeze()
        with no_grad():
            while True:
                request = receive(requests)
                send(answers, player.answer(request))
    except Closed:
        return 0


class Player:
    """A model, and what it is asked."""

    def __init__(self, model: Any, cache: Any = None) -> None:
        self.model = model
        self.cache = cache

    def answer(self, request: Frame) -> Frame:
        """Return the outputs for a request, with the nanoseconds that they took."""
        try:
            if request.text["task"] == "describe":
                return Frame(self.described())
            inputs = np.array(request.array)  # its own copy, aligned as NumPy does
            return self.timed(request.text, inputs)
        except Exception as error:  # noqa: BLE001 - whatever a model raises is its answer
            return Frame({"error": _said(error)})

    def timed(self, request: dict[str, Any], inputs: Any, clock: Any = time.perf_counter_ns) -> Frame:
        """Predict or generate, and time it until the outputs are an array."""
        start = clock()
        if request["task"] == "generate":
            result = self.model.generate(inputs, request["new_tokens"], temperature=0.0)
        else:
            result = self.model(inputs)
        outputs = np.ascontiguousarray(result.data if isinstance(result, Tensor) else result)
        duration = clock() - start
        if outputs.dtype.kind not in "biuf":
            raise ValueError(f"the model must return an array of numbers, got {type(result).__name__}")
        return Frame({"duration_ns": duration}, outputs)

    def described(self) -> dict[str, Any]:
        """Return how many tokens the cache holds, where one was enabled."""
        if self.cache is None:
            return {"cached_tokens": 0}
        keys, _values = self.cache.get(0)
        return {"cached_tokens": int(np.shape(keys.data if isinstance(keys, Tensor) else keys)[2])}


def _loaded(setup: Frame, answers: int) -> Player | None:
    """Load the model of a submission, confined where it brings code; tell the referee of it."""
    task, confinement = setup.text, "none needed"
    try:
        limit_resources(task["memory_mb"])
        if task["confine"]:
            _warm_up((task["reference"], task["weights"]), setup.array)
            confinement = confine(
                Path(task["folder"]), lambda what: send(answers, Frame({"violation": what}))
            )
        model = _own(task["code"], task["folder"]) if task["code"] else load_model(task["weights"]).eval()
        cache = _cached(model) if task["kv_cache"] else None
    except Exception as error:  # noqa: BLE001 - whatever a submission raises is told
        send(answers, Frame({"error": _said(error)}))
        return None
    send(answers, Frame({"loaded": type(model).__name__, "confinement": confinement}))
    return Player(model, cache)


def _warm_up(files: Sequence[str], inputs: Any) -> None:
    """Load what models need, compiled kernels too, while all files can still be read.

    Args:
        files: the reference model, and what the submission brings, which need not be a model.
        inputs: for both.
    """
    for path in files:
        with contextlib.suppress(Exception), no_grad():
            load_model(path).eval()(inputs)


def _own(path: str, folder: str) -> Any:
    """Run a submission's own code: its `load(folder)` returns what is called with inputs."""
    spec = importlib.util.spec_from_file_location("submission", path)
    assert spec is not None, "it ends in .py"
    assert spec.loader is not None, "it ends in .py"
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, folder)
    spec.loader.exec_module(module)
    if not callable(getattr(module, "load", None)):
        raise ValueError("the code must define load(folder), which returns the model")
    model = module.load(folder)
    if not callable(model):
        raise ValueError(f"load(folder) must return a model that can be called, got {type(model).__name__}")
    return model


def _cached(model: Any) -> Any:
    return import_module("tinytorch.perf.memoization").enable_kv_cache(model)


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:2000]
