"""The whole way to a small model: prune, fine-tune, round to int8, store without zeros, and report."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from tinytorch.core.checks import positive_int
from tinytorch.core.dataloader import as_inputs
from tinytorch.core.inference import set_aside
from tinytorch.core.layers import Layer, Linear
from tinytorch.core.spatial import Conv2d
from tinytorch.core.tensor import Tensor
from tinytorch.core.training import evaluating
from tinytorch.kernels import FloatArray
from tinytorch.perf.compression.pruning import SCOPES, MagnitudePruner, checked_sparsity
from tinytorch.perf.compression.report import CompressionReport, report_on
from tinytorch.perf.compression.sensitivity import GradualSchedule
from tinytorch.perf.compression.sparse import SparseConv2d, SparseLayer, SparseLinear
from tinytorch.perf.copies import copied

FineTune = Callable[..., Any]


class ModelCompressor:
    """Prunes a model, lets it be fine-tuned, and stores its Linear and Conv2d layers without their zeros.

    Args:
        sparsity: the share of weights to make zero, 0 to 1.
        quantize: store the weights that are left as int8, with a scale for each output.
        scope: of the pruning, "layer" or "global"; see `MagnitudePruner`. "global" can empty a layer.
        steps: with fine-tuning, how many times to prune a little more and train again; see `GradualSchedule`.
        evaluate: returns the accuracy of a model, for the report.

    Raises:
        ValueError: `sparsity` lies outside 0 to 1, `steps` is not positive, there is no such scope, or
            `evaluate` cannot be called.
    """

    def __init__(
        self,
        sparsity: float = 0.95,
        quantize: bool = True,
        *,
        scope: str = "layer",
        steps: int = 5,
        evaluate: Callable[[Layer], float] | None = None,
    ) -> None:
        if scope not in SCOPES:
            raise ValueError(f"`scope` must be 'global' or 'layer', got {scope!r}")
        if evaluate is not None and not callable(evaluate):
            raise ValueError(f"`evaluate` must be a function of the model, got {type(evaluate).__name__}")
        self.sparsity = checked_sparsity(sparsity, "sparsity")
        self.quantize = quantize
        self.scope = scope
        self.steps = positive_int(steps, "steps")
        self.evaluate = evaluate

    def compress(
        self, model: Layer, calibration_data: Any = None, fine_tune: FineTune | None = None
    ) -> tuple[Layer, CompressionReport]:
        """Return a new, compressed model and what it cost; the old one stays as it is.

        Args:
            model: must hold a Linear or a Conv2d; weights of other layers are pruned too, but stored as they
                are.
            calibration_data: inputs, a Tensor, an array or a list of them: outputs and latency are measured
                on them. Nothing else depends on them.
            fine_tune: trains a model, called after each step of pruning as `fine_tune(model, pruner)` where
                it has a parameter `pruner` or a second one without a default, else as `fine_tune(model)`.
                Call `pruner.apply_masks()` after each update in it; what is not held at zero there is cut off
                again at its end.

        Raises:
            ValueError: `model` holds neither, `calibration_data` is empty, not finite or does not fit, or
                `fine_tune` cannot be called.
        """
        if not isinstance(model, Layer):
            raise ValueError(f"`model` must be a Layer, got {type(model).__name__}")
        if fine_tune is not None and not callable(fine_tune):
            raise ValueError(f"`fine_tune` must be a function of the model, got {type(fine_tune).__name__}")
        if not any(type(layer) in (Linear, Conv2d) for _, layer in model.named_layers()):
            raise ValueError(f"`model` must hold a Linear or a Conv2d, got neither: {_instead(model)}")
        with set_aside(model):  # what runs would empty a cache, and be timed by other steps than `small` has
            data = _calibrated(model, calibration_data)
            small = _stored_sparse(self._pruned(model, fine_tune), "int8" if self.quantize else "float32")
            return small, report_on(model, small, data, self.evaluate)

    def _pruned(self, model: Layer, fine_tune: FineTune | None) -> Layer:
        pruner = MagnitudePruner(copied(model), self.sparsity, self.scope)
        if fine_tune is None:
            return pruner.prune()
        arguments, named = _arguments(fine_tune, pruner)
        for sparsity in GradualSchedule(self.sparsity, self.steps).sparsities:
            pruner.prune(sparsity)
            fine_tune(*arguments, **named)
            pruner.apply_masks()
        return pruner.model.train(model.training)


def _instead(model: Layer) -> str:
    """Say what to compress in place of a model without weights in FP32."""
    layers = [layer for _, layer in model.named_layers()]
    if any(hasattr(layer, "q_weight") for layer in layers):
        return "it is INT8 already; compress the FP32 model, of which `quantize=True` stores INT8 weights"
    if any(isinstance(layer, SparseLayer) for layer in layers):
        return "it is compressed already; compress the model that it was made of"
    return "there is nothing to compress"


def _stored_sparse(model: Layer, values: str) -> Layer:
    instead: dict[Layer, Layer] = {}
    for _, layer in model.named_layers():
        if type(layer) is Linear:
            instead[layer] = SparseLinear.from_linear(layer, values=values)
        elif type(layer) is Conv2d:
            instead[layer] = SparseConv2d.from_conv2d(layer, values=values)
    return copied(model, instead)


def _arguments(fine_tune: FineTune, pruner: MagnitudePruner) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return what a function that trains is called with: the model, and the pruner where it asks for it.

    It does so by a parameter of that name, or by a second one that has no default.
    """
    try:
        parameters = list(inspect.signature(fine_tune).parameters.values())
    except ValueError:  # some functions written in C do not say
        return (pruner.model,), {}
    if any(p.name == "pruner" and p.kind is not p.POSITIONAL_ONLY for p in parameters[1:]):
        return (pruner.model,), {"pruner": pruner}
    placed = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    needed = [p for p in placed if p.default is p.empty]
    many = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    asks = len(needed) > 1 or (many and len(placed) < 2) or (len(placed) > 1 and placed[1].name == "pruner")
    return (pruner.model, pruner) if asks else (pruner.model,), {}


def _calibrated(model: Layer, data: Any) -> list[tuple[Tensor, FloatArray]]:
    """Return the batches with what the model makes of them, which tells now whether they fit."""
    if data is None:
        return []
    batches = [as_inputs(item, "calibration_data") for item in (data if isinstance(data, list) else [data])]
    if not batches or any(batch.size == 0 for batch in batches):
        raise ValueError("`calibration_data` must hold at least one input, but it, or a part of it, is empty")
    if not all(np.isfinite(batch.data).all() for batch in batches):
        raise ValueError("`calibration_data` must be finite, got NaN or infinity")
    try:
        with evaluating(model):
            return [(batch, model(batch).data) for batch in batches]
    except (ValueError, IndexError) as error:
        raise ValueError(f"`calibration_data` does not fit the model: {error}") from error
