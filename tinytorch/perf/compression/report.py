"""What compressing a model did to it: bytes, files, accuracy and latency, before and after."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from tinytorch.core.layers import Layer
from tinytorch.core.models import save_model
from tinytorch.core.tensor import Tensor
from tinytorch.core.training import evaluating
from tinytorch.kernels import FloatArray
from tinytorch.perf.compression.pruning import measure_sparsity
from tinytorch.perf.compression.sparse import SparseLayer
from tinytorch.perf.copies import arrays_of

Evaluate = Callable[[Layer], float]
#: inputs, and what the model made of them before
Calibrated = Sequence[tuple[Tensor, FloatArray]]

_FEWEST_CALLS, _LATENCY_BUDGET_S = 5, 0.2
# What the report warns of: more time than medians of a busy machine differ by, and a loss of accuracy that
# fine-tuning usually makes up for.
_SLOWER_FROM, _COLLAPSED_FROM = 1.05, 0.05


@dataclass(frozen=True, slots=True)
class LayerStorage:
    """How one layer is stored.

    Attributes:
        name: of the layer in the model.
        layer: its class.
        format: "dense", "csr" or "bitmask"; "dense" too where a layer has no other form.
        values: the type of its weights.
        dense_bytes: what its arrays took before.
        stored_bytes: what they take now, places and scales included.
    """

    name: str
    layer: str
    format: str
    values: str
    dense_bytes: int
    stored_bytes: int


@dataclass(frozen=True, slots=True)
class CompressionReport:
    """What compressing a model did to it.

    Attributes:
        sparsity: share of the weights that is zero now.
        dense_bytes: of all arrays of the model before.
        stored_bytes: of all arrays of the compressed model.
        dense_file_bytes: of the saved model before.
        file_bytes: of the saved compressed model.
        dense_accuracy: what `evaluate` said before, or None without it.
        accuracy: what it said after, or None.
        dense_latency_ms: median time of a call on the calibration data before, of a list on its first part,
            on one thread, or None without data.
        latency_ms: the same after, or None.
        output_error: norm of the change of the outputs over their norm, on the calibration data, or None.
        layers: of every layer that holds arrays.
        latency_inputs: how many inputs such a call takes, or None.
    """

    sparsity: float
    dense_bytes: int
    stored_bytes: int
    dense_file_bytes: int
    file_bytes: int
    dense_accuracy: float | None
    accuracy: float | None
    dense_latency_ms: float | None
    latency_ms: float | None
    output_error: float | None
    layers: tuple[LayerStorage, ...]
    latency_inputs: int | None = None

    @property
    def ratio(self) -> float:
        """Dense bytes over stored bytes."""
        return self.dense_bytes / self.stored_bytes

    @property
    def file_ratio(self) -> float:
        """Bytes of the dense file over those of the compressed one."""
        return self.dense_file_bytes / self.file_bytes

    @property
    def notes(self) -> tuple[str, ...]:
        """What went wrong, each with its remedy: a compressed model that is slower, or much less accurate."""
        notes = []
        if self.latency_ms is not None and self.dense_latency_ms is not None:
            slower = self.latency_ms / self.dense_latency_ms
            if slower > _SLOWER_FROM:
                notes.append(
                    f"slower than dense, {slower:.2f} times the latency: these layers are too small, or have "
                    "too few zeros, to save time; structured_prune saves it"
                )
        if self.accuracy is not None and self.dense_accuracy is not None:
            lost = self.dense_accuracy - self.accuracy
            if lost > _COLLAPSED_FROM:
                notes.append(f"accuracy fell by {100 * lost:.1f} points: prune less, or fine-tune")
        return tuple(notes)

    def __str__(self) -> str:
        from tabulate import tabulate

        rows = [
            ("zeros", "-", f"{self.sparsity:.1%}"),
            ("bytes", str(self.dense_bytes), str(self.stored_bytes)),
            ("file bytes", str(self.dense_file_bytes), str(self.file_bytes)),
            ("accuracy", *(_shown(share, ".2%") for share in (self.dense_accuracy, self.accuracy))),
            (self._timed(), *(_shown(ms, ".3g") for ms in (self.dense_latency_ms, self.latency_ms))),
        ]
        table: str = tabulate(
            rows, ("", "dense", "compressed"), colalign=("left", "right", "right"), disable_numparse=True
        )
        return "\n".join([table, *self.notes])

    def _timed(self) -> str:
        """Return the words for the latency, of which nobody could say what is long without the inputs."""
        if self.latency_inputs is None:
            return "latency, ms"
        return f"latency of {self.latency_inputs} input{'s' * (self.latency_inputs != 1)}, ms"


def _shown(number: float | None, form: str) -> str:
    return "-" if number is None else format(number, form)


def report_on(model: Layer, small: Layer, data: Calibrated, evaluate: Evaluate | None) -> CompressionReport:
    """Measure a model and its compressed copy; without data or `evaluate` what needs them is None."""
    dense_latency_ms = latency_ms = output_error = latency_inputs = None
    if data:
        output_error = _output_error(small, data)
        dense_latency_ms, latency_ms = _latencies_ms((model, small), data[0][0])
        latency_inputs = len(data[0][0].data) if data[0][0].ndim else 1
    return CompressionReport(
        sparsity=measure_sparsity(small),
        dense_bytes=model_bytes(model),
        stored_bytes=model_bytes(small),
        dense_file_bytes=_file_bytes(model),
        file_bytes=_file_bytes(small),
        dense_accuracy=_scored(model, evaluate),
        accuracy=_scored(small, evaluate),
        dense_latency_ms=dense_latency_ms,
        latency_ms=latency_ms,
        output_error=output_error,
        layers=_storage(model, small),
        latency_inputs=latency_inputs,
    )


def model_bytes(model: Layer) -> int:
    """Return the bytes of all arrays that a model holds, each once: weights, buffers, places, scales."""
    arrays = {id(array): array for _, layer in model.named_layers() for array in arrays_of(layer)}
    return sum(array.nbytes for array in arrays.values())


def _scored(model: Layer, evaluate: Evaluate | None) -> float | None:
    if evaluate is None:
        return None
    with evaluating(model):
        return float(evaluate(model))


def _output_error(small: Layer, data: Calibrated) -> float:
    change = total = 0.0
    for batch, expected in data:
        with evaluating(small):
            found = small(batch).data
        change += float(np.square(found - expected, dtype=float).sum())
        total += float(np.square(expected, dtype=float).sum())
    return float(np.sqrt(change / total)) if total else 0.0


def _latencies_ms(models: Sequence[Layer], batch: Tensor) -> list[float]:
    """Return the median duration of a call of each, taking turns on one thread, after one not counted."""
    from threadpoolctl import threadpool_limits

    durations_ns: list[list[int]] = [[] for _ in models]
    with threadpool_limits(limits=1), ExitStack() as modes:
        for model in models:
            modes.enter_context(evaluating(model))
            model(batch)
        end = time.perf_counter() + _LATENCY_BUDGET_S
        while len(durations_ns[0]) < _FEWEST_CALLS or time.perf_counter() < end:
            for model, durations in zip(models, durations_ns, strict=True):
                start = time.perf_counter_ns()
                model(batch)
                durations.append(time.perf_counter_ns() - start)
    return [float(np.median(durations)) / 1e6 for durations in durations_ns]


def _file_bytes(model: Layer) -> int:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        save_model(model, path)
        return path.stat().st_size


def _storage(model: Layer, small: Layer) -> tuple[LayerStorage, ...]:
    now = dict(small.named_layers())
    return tuple(
        _stored(name, before, now[name]) for name, before in model.named_layers() if arrays_of(before)
    )


def _stored(name: str, before: Layer, after: Layer) -> LayerStorage:
    form, values = "dense", str(arrays_of(before)[0].dtype)
    if isinstance(after, SparseLayer):
        form, values = after.format, str(after.values.dtype)
    sizes = [sum(array.nbytes for array in arrays_of(layer)) for layer in (before, after)]
    return LayerStorage(name, type(after).__name__, form, values, *sizes)
