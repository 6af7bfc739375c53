"""Magnitude pruning: the weights nearest to zero become zero, exactly as many as asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinytorch.core.layers import Layer
from tinytorch.core.tensor import Parameter
from tinytorch.kernels import FloatArray

Mask = NDArray[np.bool_]
SCOPES = ("global", "layer")


class MagnitudePruner:
    """Prunes a model, and keeps pruned weights at zero while it is trained further.

    Args:
        model: its weights, parameters of two or more axes, are pruned; biases are not.
        sparsity: the share of weights to make zero, 0 to 1.
        scope: "global" compares all weights of the model, so that layers lose different shares; "layer"
            prunes the same share of each.

    Attributes:
        masks: for each weight by its name, where it was pruned; empty before `prune`.

    Raises:
        ValueError: `model` has no weights, `sparsity` lies outside 0 to 1, or there is no such scope.
    """

    def __init__(self, model: Layer, sparsity: float = 0.9, scope: str = "global") -> None:
        if scope not in SCOPES:
            raise ValueError(f"`scope` must be 'global' or 'layer', got {scope!r}")
        self.model = model
        self.sparsity = checked_sparsity(sparsity, "sparsity")
        self.scope = scope
        self.masks: dict[str, Mask] = {}
        weights_of(model)

    def prune(self, sparsity: float | None = None) -> Layer:
        """Make exactly round(n * sparsity) weights zero, in place, and return the model.

        The smallest magnitudes go; of equal ones those that come first. Weights that are zero already are
        among the smallest, so that what was pruned stays pruned when more is. A model that has more zeros
        than asked for keeps them.

        Args:
            sparsity: instead of that of the pruner, which it becomes.

        Raises:
            ValueError: `sparsity` lies outside 0 to 1, or a weight is NaN; then nothing was changed.
        """
        wanted = self.sparsity if sparsity is None else checked_sparsity(sparsity, "sparsity")
        weights = weights_of(self.model)
        magnitudes = [magnitudes_of(name, weight) for name, weight in weights]
        if self.scope == "layer":
            flat = [smallest(m, round(m.size * wanted)) for m in magnitudes]
        else:
            together = np.concatenate(magnitudes)
            chosen = smallest(together, round(together.size * wanted))
            flat = np.split(chosen, np.cumsum([m.size for m in magnitudes])[:-1])
        self.sparsity = wanted
        self.masks = {
            name: mask.reshape(weight.shape) for (name, weight), mask in zip(weights, flat, strict=True)
        }
        self.apply_masks()
        return self.model

    def apply_masks(self) -> None:
        """Make pruned weights zero again: call it after each step of an optimizer.

        Raises:
            ValueError: the model's weights are others than when it was pruned.
        """
        weights = dict(weights_of(self.model))
        for name, mask in self.masks.items():
            if name not in weights or weights[name].shape != mask.shape:
                raise ValueError(f"the mask of `{name}`, of shape {mask.shape}, fits no weight of the model")
            bits = weights[name].data.view(np.uint32)
            bits &= mask.astype(np.uint32) - np.uint32(1)  # NaN too, and a fifth of the time of `[mask] = 0`


def magnitude_prune(model: Layer, sparsity: float, scope: str = "global") -> Layer:
    """Make the smallest weights of a model zero, in place, and return it; see `MagnitudePruner`.

    Raises:
        ValueError: `model` has no weights, one is NaN, `sparsity` lies outside 0 to 1, or there is no such
            scope.
    """
    return MagnitudePruner(model, sparsity, scope).prune()


def measure_sparsity(model: Layer) -> float:
    """Return the share of a model's weights that is zero, biases not counted.

    Weights of sparse and quantized layers count as what they stand for: zeros that are not stored as well.

    Raises:
        ValueError: `model` is no Layer, or has no weights.
    """
    zeros = total = 0
    for size, nonzero in _weight_counts(model):
        total += size
        zeros += size - nonzero
    if not total:
        raise ValueError("`model` must have weights, parameters of two or more axes, but it has none")
    return zeros / total


def weights_of(model: Layer) -> list[tuple[str, Parameter]]:
    """Return the weights of a model, parameters of two or more axes, with their names.

    Raises:
        ValueError: `model` is no Layer, or has none.
    """
    if not isinstance(model, Layer):
        raise ValueError(f"`model` must be a Layer, got {type(model).__name__}")
    weights = [(name, p) for name, p in model.named_parameters() if p.ndim >= 2 and p.size]
    if not weights:
        raise ValueError(
            "`model` must have weights, parameters of two or more axes, but it has none: prune a model "
            "before it is quantized or compressed"
        )
    return weights


def smallest(magnitudes: FloatArray, count: int) -> Mask:
    """Return where the `count` smallest of some magnitudes are; of equal ones the first."""
    if count == 0:
        return np.zeros(magnitudes.shape, bool)
    bound = np.partition(magnitudes, count - 1)[count - 1]
    chosen: Mask = magnitudes < bound
    equal = np.flatnonzero(magnitudes == bound)
    chosen[equal[: count - np.count_nonzero(chosen)]] = True
    return chosen


def checked_sparsity(value: Any, name: str) -> float:
    """Return `value` as a float, or raise ValueError where it is no number from 0 to 1."""
    number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    if not number or not 0 <= value <= 1:
        raise ValueError(f"`{name}` must be a share from 0 to 1 (90 % is 0.9), got {value!r}")
    return float(value)


def magnitudes_of(name: str, weight: Parameter) -> FloatArray:
    """Return the magnitudes of a weight as one row, or raise ValueError where one is NaN."""
    magnitudes = np.abs(weight.data).reshape(-1)
    if np.isnan(magnitudes).any():
        raise ValueError(f"`{name}` must hold no NaN to be pruned by magnitude: train or load it again")
    return magnitudes


def _weight_counts(model: Layer) -> list[tuple[int, int]]:
    """Return size and non-zero weights of all weights, whatever they are stored as."""
    if not isinstance(model, Layer):
        raise ValueError(f"`model` must be a Layer, got {type(model).__name__}")
    from tinytorch.perf.compression.sparse import SparseLayer

    counts = [(p.size, int(np.count_nonzero(p.data))) for _, p in model.named_parameters() if p.ndim >= 2]
    for _, layer in model.named_layers():
        if isinstance(layer, SparseLayer):
            counts.append((layer.shape[0] * layer.shape[1], int(np.count_nonzero(layer.values))))
        elif isinstance(stored := getattr(layer, "q_weight", None), np.ndarray):
            counts.append((stored.size, int(np.count_nonzero(stored))))
    return counts
