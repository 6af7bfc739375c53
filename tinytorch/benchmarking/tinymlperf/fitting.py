"""Whether a saved model can take part in an event at all, asked before anything is packed or measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tinytorch.benchmarking.tinymlperf.divisions import check_closed
from tinytorch.benchmarking.tinymlperf.events import LoadedBenchmark, outputs_of
from tinytorch.benchmarking.tinymlperf.processes import Refused
from tinytorch.core.models import load_model


def check_model(path: Path, name: str, benchmark: LoadedBenchmark, division: str) -> None:
    """Check that a file is a model that takes an event's inputs and answers them as its reference does.

    Args:
        path: what `save_model` wrote.
        name: what to call it.
        benchmark: the event's model and data.
        division: "closed": also that it is the reference model, quantized at most.

    Raises:
        Refused: it is not; the sentence says why.
    """
    try:
        model = load_model(path)
    except Exception as error:  # noqa: BLE001 - a file can be wrong in every way
        raise Refused(f"{name} is not a model: {error}") from None
    if division == "closed":
        check_closed(model, benchmark.model)
        return
    inputs = benchmark.inputs[:1]
    about = f"{name} is no model for {benchmark.event.name}: for inputs of shape {inputs.shape}"
    try:
        with np.errstate(all="ignore"):
            shape = outputs_of(model.eval(), inputs).shape
    except Exception as error:  # noqa: BLE001 - a model can fail in every way
        raise Refused(f"{about} it raises {type(error).__name__}: {error}") from None
    expected = outputs_of(benchmark.model, inputs).shape
    if shape != expected:
        raise Refused(f"{about} it answers with shape {shape}, where the reference model's is {expected}")
