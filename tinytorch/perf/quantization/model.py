"""Quantizing whole models."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinytorch.core.autograd import no_grad
from tinytorch.core.layers import Layer, Linear
from tinytorch.core.spatial import Conv2d
from tinytorch.core.tensor import Tensor, as_tensor
from tinytorch.kernels import int8
from tinytorch.perf.quantization.config import QuantizationConfig
from tinytorch.perf.quantization.layers import QuantizedConv2d, QuantizedLinear, batches, in_floats
from tinytorch.perf.quantization.observers import Observer
from tinytorch.perf.quantization.quantizer import finite
from tinytorch.perf.quantization.report import LayerReport, QuantizationReport

_Layer = Linear | Conv2d
_Quantized = QuantizedLinear | QuantizedConv2d
# Rows of calibration data that outputs are compared for: enough for a tenth of a decibel.
_COMPARED = 256
# In weights. Below the first, quantizing the activations and the call take as long as the product saves, or
# longer (64 to 128: 0.7 to 1.2 times the speed of FP32 at batches 1 to 450); up to the second, at batch 1.
_GAINS_FROM, _GAINS_ALONE_FROM = 1 << 14, 1 << 16
# In outputs, which share what quantizing a row costs: with 10 to 48 of them the speed is 0.6 to 0.8 of that
# of FP32 from batch 32 on, however many inputs there are, with 64 it is 1.7 to 2 times.
_MANY_OUTPUTS = 64


def quantize_model(
    model: Layer, config: QuantizationConfig | None = None, calibration_data: Any = None
) -> Any:
    """Return a copy of a model whose Linear and Conv2d layers are int8; the model stays as it is.

    The copies of weights are made now: later changes of `model` are not seen. The result is in evaluation
    mode; its attribute `quantization_report` says of each layer what became of it, and why. It belongs to
    this result: `save_model` does not write it, so a model that `load_model` returns has none.

    Args:
        model: a layer; its quantized copy is of the same class, unless it is a Linear or Conv2d itself.
        config: how, and which layers stay FP32; see `QuantizationConfig`.
        calibration_data: inputs of the model, a Tensor, an array or a list of them, from which the ranges of
            all activations are fixed. Without, every row or image has its own range.

    Raises:
        ValueError: nothing can be quantized; the data is empty, not finite or of the wrong shape; a name in
            `config.skip` fits no layer.
    """
    if not isinstance(model, Layer):
        raise ValueError(f"`model` must be a Layer, got {type(model).__name__}")
    chosen = QuantizationConfig.of(config)
    found = _candidates(model, chosen)
    if all(reason for _, _, reason in found):
        raise ValueError(_nothing(model, found))
    static = chosen.static(calibration_data is not None)
    watched = _watched(model, found, chosen, calibration_data) if calibration_data is not None else {}
    replaced: dict[int, Any] = {}
    for _, layer, reason in found:
        if not reason:
            replaced[id(layer)] = _converted(layer, chosen)
            if static and id(layer) in watched:
                replaced[id(layer)].fix(watched[id(layer)].observer)
    result: Any = copy.deepcopy(model, dict(replaced)).eval()
    result.zero_grad()
    rows = [
        _row(name, layer, reason, replaced, watched.get(id(layer)), static) for name, layer, reason in found
    ]
    convolutions = any(isinstance(layer, QuantizedConv2d) for layer in replaced.values())
    result.quantization_report = QuantizationReport(tuple(rows), _kernel(convolutions))
    return result


def _kernel(convolutions: bool) -> str:
    """Say which kernel runs here; where it has none for convolutions, and there are some, what these do."""
    if convolutions and in_floats():
        return f"{int8.describe()}; convolutions compute in FP32 with weights read as INT8"
    return int8.describe()


def _candidates(model: Layer, config: QuantizationConfig) -> list[tuple[str, _Layer, str]]:
    """Return name and layer of all that could be quantized, and why one will not be, "" if it will."""
    found = [(name, layer) for name, layer in model.named_layers() if isinstance(layer, Linear | Conv2d)]
    names = [name for name, _ in found]
    for pattern in config.skip:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ValueError(
                f"`skip` names {pattern!r}, which fits no Linear or Conv2d layer: there are {names}"
            )
    return [(name, layer, _kept_because(name, layer, config)) for name, layer in found]


def _kept_because(name: str, layer: _Layer, config: QuantizationConfig) -> str:
    if any(fnmatchcase(name, pattern) for pattern in config.skip):
        return "skipped by name"
    if type(layer) not in {Linear, Conv2d}:
        return f"{type(layer).__name__} may compute something else than its base class"
    if isinstance(layer, Conv2d):
        if layer.in_channels < config.min_channels:
            return f"{layer.in_channels} input channels, fewer than {config.min_channels}: INT8 would not pay"
    elif layer.weight.data.size < config.min_weights:
        return f"{layer.weight.data.size} weights, fewer than {config.min_weights}: INT8 would not pay"
    return ""


def _nothing(model: Layer, found: list[tuple[str, _Layer, str]]) -> str:
    kept = "; ".join(f"{name or 'the model'}: {reason}" for name, _, reason in found)
    return f"nothing in {model!r} can be quantized: {kept or 'it has no Linear or Conv2d layer'}"


def _converted(layer: _Layer, config: QuantizationConfig) -> _Quantized:
    plain = QuantizationConfig(per_channel=config.per_channel)
    return QuantizedConv2d(layer, plain) if isinstance(layer, Conv2d) else QuantizedLinear(layer, plain)


@dataclass
class _Watching:
    """What went into a layer while the model ran on calibration data."""

    observer: Observer
    sample: list[NDArray[np.float32]] = field(default_factory=list)

    def see(self, inputs: NDArray[np.float32]) -> None:
        self.observer.observe(inputs)
        missing = _COMPARED - sum(len(rows) for rows in self.sample)
        if missing > 0:
            self.sample.append(inputs[:missing].copy())


class _Watched(Layer):
    """A layer that lets an observer see what goes in."""

    def __init__(self, layer: _Layer, watching: _Watching) -> None:
        self.layer = layer
        self.watching = watching

    def __getattr__(self, name: str) -> Any:
        """Return what the layer has: models look at more of their layers than what these compute."""
        if name in {"layer", "watching"}:  # not there yet
            raise AttributeError(name)
        return getattr(self.layer, name)

    def forward(self, x: Any) -> Tensor:
        """Compute what the layer does."""
        inputs = as_tensor(x, "x")
        self.watching.see(inputs.numpy())
        return self.layer(inputs)


def _watched(
    model: Layer, found: list[tuple[str, _Layer, str]], config: QuantizationConfig, data: Any
) -> dict[int, _Watching]:
    """Run the model on calibration data, and return what each layer to quantize saw."""
    watching = {id(layer): _Watching(config.new_observer()) for _, layer, reason in found if not reason}
    replaced = {
        id(layer): _Watched(layer, watching[id(layer)]) for _, layer, _ in found if id(layer) in watching
    }
    copied = copy.deepcopy(model, dict(replaced)).eval()
    for inputs in batches(data):
        finite(inputs, "calibration_data")
        try:
            with no_grad():
                copied(inputs)
        except (ValueError, IndexError) as error:
            raise ValueError(f"`calibration_data` does not fit the model: {error}") from error
    return {key: value for key, value in watching.items() if value.sample}


def _row(
    name: str, layer: _Layer, reason: str, replaced: dict[int, Any], watching: _Watching | None, static: bool
) -> LayerReport:
    fp32_bytes = sum(parameter.data.nbytes for parameter in layer.parameters())
    kind = type(layer).__name__
    if reason:
        return LayerReport(name, kind, False, reason, fp32_bytes, fp32_bytes)
    quantized: _Quantized = replaced[id(layer)]
    weights, shape = layer.weight.data, (-1, 1, 1, 1) if isinstance(layer, Conv2d) else (-1,)
    scale = np.asarray(quantized.scale, np.float64)
    restored = quantized.q_weight * (scale.reshape(shape) if scale.ndim else scale)
    output_db = clipped = None
    if watching is not None:
        inputs = np.concatenate([rows.reshape(-1, *rows.shape[1:]) for rows in _same_shape(watching.sample)])
        with no_grad():
            output_db = _sqnr_db(layer(inputs).numpy(), quantized(inputs).numpy())
        clipped = _clipped(inputs, quantized)
    notes = [_pace(layer)] if isinstance(layer, Linear) and _pace(layer) else []
    if static and watching is None:
        notes.append("calibration data did not reach it: ranges of each row or image")
    return LayerReport(
        name, kind, True, "; ".join(notes), int(quantized.memory_usage()["bytes"]), fp32_bytes,
        _sqnr_db(weights, restored), output_db, clipped,
    )  # fmt: skip


def _pace(layer: Linear) -> str:
    """Return where INT8 takes no less time than FP32, which depends on the sizes; "" where it does."""
    if layer.weight.data.size < _GAINS_FROM:
        return "smaller, but too small to be faster: about as fast as FP32 or slower"
    if layer.out_features < _MANY_OUTPUTS:
        return f"smaller, but {layer.out_features} outputs are too few to be faster: slower beyond batch 1"
    return "smaller; at batch 1 about as fast as FP32" if layer.weight.data.size < _GAINS_ALONE_FROM else ""


def _same_shape(sample: list[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
    """Return the arrays that have the shape of the first, but for the number of rows."""
    return [rows for rows in sample if rows.shape[1:] == sample[0].shape[1:]]


def _clipped(inputs: NDArray[np.float32], quantized: _Quantized) -> float:
    """Return the share of the inputs beyond the fixed range; without one nothing is."""
    if quantized.activation_scale is None or quantized.activation_zero is None:
        return 0.0
    steps = np.rint(inputs / np.float32(quantized.activation_scale)) + quantized.activation_zero
    return float(np.mean((steps < 0) | (steps > 255)))


def _sqnr_db(exact: Any, rounded: Any) -> float:
    """Return signal to noise in decibels: the squares of what is right over those of the differences."""
    signal = float(np.sum(np.asarray(exact, np.float64) ** 2))
    noise = float(np.sum((np.asarray(rounded, np.float64) - exact) ** 2))
    return float("inf") if noise == 0 else 10 * float(np.log10(max(signal, 1e-300) / noise))
