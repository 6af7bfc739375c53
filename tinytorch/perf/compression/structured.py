"""Structured pruning: whole units and channels are taken out, and the model becomes physically smaller."""

from __future__ import annotations

import warnings
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinytorch.core.activations import GELU, ReLU, Sigmoid, Tanh
from tinytorch.core.checks import fraction
from tinytorch.core.layers import Dropout, Flatten, Layer, Linear, Sequential
from tinytorch.core.spatial import AvgPool2d, BatchNorm2d, Conv2d, MaxPool2d
from tinytorch.core.tensor import Parameter
from tinytorch.core.transformers import MLP
from tinytorch.perf.compression.pruning import smallest
from tinytorch.perf.copies import copied

Kept = NDArray[np.intp]
_Whole = tuple[Linear | Conv2d, str]  # a layer, and why it stays as it is

# What lies between two layers with weights and treats every unit for itself.
_UNITWISE = (ReLU, GELU, Sigmoid, Tanh, Dropout)
_POOLING = (MaxPool2d, AvgPool2d)


def structured_prune(model: Layer, prune_ratio: float) -> Layer:
    """Return a new, smaller model without the least important units and channels; the old one stays.

    Inside each chain of layers every Linear and Conv2d but the last loses round(n * prune_ratio) of its n
    outputs, at least one stays: those with the smallest Euclidean norm of weights. What follows loses the
    inputs that they fed, through ReLU, GELU, Sigmoid, Tanh, Dropout, pooling, Flatten and BatchNorm2d.
    Nothing makes up for them: the result computes what the dense model would with these units left out.
    Chains are Sequential models, also inside others, and the perceptrons of transformers.

    A layer of a chain stays whole, which a UserWarning says, where anything else comes before the next one:
    LayerNorm and Softmax would compute something else of fewer units, and of other classes nobody knows; also
    where it, or what it feeds, stands in several places, or is of a class of one's own.

    Args:
        model: its last layer keeps all outputs.
        prune_ratio: the share to take out of each layer, at least 0 and below 1.

    Raises:
        ValueError: `prune_ratio` lies outside, a weight is NaN, or `model` has no two such layers in a chain.
    """
    ratio = fraction(prune_ratio, "prune_ratio")
    if not isinstance(model, Layer):
        raise ValueError(f"`model` must be a Layer, got {type(model).__name__}")
    smaller = copied(model)
    links, whole = _usable_links(smaller)
    if not links:
        raise ValueError(
            "`model` must hold a Sequential in which a Linear or Conv2d feeds another, but there is none: "
            f"the outputs of a last layer are never removed{_named(smaller, whole, '; ')}"
        )
    kept = [_kept_units(link.producer, ratio) for link in links]  # of the weights as they are, before any cut
    for link, units in zip(links, kept, strict=True):
        _cut_outputs(link.producer, units)
        for norm in link.norms:
            _cut_norm(norm, units)
        _cut_inputs(link.consumer, units, link.pixels)
    whole = [(layer, reason) for layer, reason in whole if round(_outputs(layer) * ratio)]
    if whole:
        warnings.warn(f"not all layers became smaller{_named(smaller, whole, ': ')}", stacklevel=2)
    return smaller


@dataclass(frozen=True)
class _Link:
    """Two layers with weights, the second fed by the first alone; `pixels` inputs for each of its outputs."""

    producer: Any
    consumer: Any
    pixels: int
    norms: list[BatchNorm2d] = field(default_factory=list)

    @property
    def layers(self) -> list[Layer]:
        return [self.producer, self.consumer, *self.norms]


def _chains(model: Layer) -> list[list[Any]]:
    """Return the layers of every outermost Sequential in order, those inside it in their places."""
    if type(model) is Sequential:
        flat = _flat(model)
        inside = [chain for layer in flat if isinstance(layer, Layer) for chain in _chains(layer)]
        return [flat, *inside]
    chains = [[model.linear1, model.gelu, model.linear2]] if type(model) is MLP else []
    return chains + [chain for _, child in model.children() for chain in _chains(child)]


def _flat(model: Sequential) -> list[Any]:
    return [item for layer in model for item in (_flat(layer) if type(layer) is Sequential else [layer])]


def _usable_links(model: Layer) -> tuple[list[_Link], list[_Whole]]:
    """Return which layers of a model feed which, and those that feed others but stay whole."""
    found = [_links(chain) for chain in _chains(model)]
    links, whole = [link for some, _ in found for link in some], [item for _, some in found for item in some]
    uses = _uses(model)
    single = [all(uses[id(layer)] == 1 for layer in link.layers) for link in links]
    several = "it, or what it feeds, stands in several places"
    whole += [(link.producer, several) for link, one in zip(links, single, strict=True) if not one]
    return [link for link, one in zip(links, single, strict=True) if one], whole


def _links(chain: list[Any]) -> tuple[list[_Link], list[_Whole]]:
    """Return which layers of a chain feed which, and why others stay whole."""
    links, whole = list[_Link](), list[_Whole]()
    producer, problem, flattened, norms = None, "", False, list[BatchNorm2d]()
    for layer in chain:
        if isinstance(layer, Linear | Conv2d):
            pixels = 0 if problem else _pixels(producer, layer, flattened)
            if pixels:
                links.append(_Link(producer, layer, pixels, norms))
            elif producer is not None:
                whole.append((producer, problem or f"{layer!r}, which follows, does not take its outputs"))
            producer, flattened, norms = layer, False, []
            problem = "" if type(layer) in (Linear, Conv2d) else f"{type(layer).__name__} is not known"
        elif type(layer) is Flatten:
            flattened = True
        elif type(layer) is BatchNorm2d and not flattened:
            norms.append(layer)
        elif not (type(layer) in _UNITWISE or (type(layer) in _POOLING and not flattened)):
            name = type(layer).__name__ if isinstance(layer, Layer) else repr(layer)
            problem = problem or f"{name}, which follows, mixes units or is not known"
    return links, whole


def _pixels(producer: Any, consumer: Any, flattened: bool) -> int:
    """Return how many inputs of the second layer each output of the first one feeds; 0 if they do not fit."""
    if type(producer) is Linear and type(consumer) is Linear:
        return int(producer.out_features == consumer.in_features)
    if type(producer) is Conv2d and type(consumer) is Conv2d and not flattened:
        return int(producer.out_channels == consumer.in_channels)
    if type(producer) is Conv2d and type(consumer) is Linear and flattened:
        pixels, rest = divmod(consumer.in_features, producer.out_channels)
        return 0 if rest else pixels
    return 0


def _named(model: Layer, whole: list[_Whole], before: str) -> str:
    """Return the names of the layers that stay whole, each with its reason; nothing without any."""
    names = {id(layer): name for name, layer in model.named_layers()}
    reasons = {names[id(layer)]: reason for layer, reason in whole}
    shown = [f"{name} ({reason})" for name, reason in list(reasons.items())[:4]]
    more = f" and {len(reasons) - 4} more" if len(reasons) > 4 else ""
    return f"{before}left whole are {', '.join(shown)}{more}" if reasons else ""


def _outputs(layer: Linear | Conv2d) -> int:
    return layer.out_features if isinstance(layer, Linear) else layer.out_channels


def _uses(model: Layer) -> Counter[int]:
    """Return in how many places each layer stands: one that stands in several fits no single chain."""
    uses = Counter([id(model)])
    for _, child in model.children():
        uses += _uses(child)
    return uses


def _kept_units(layer: Any, ratio: float) -> Kept:
    """Return the indices of the outputs to keep, in their order."""
    weight = layer.weight.data.astype(float)
    axes = (0,) if type(layer) is Linear else (1, 2, 3)
    norms = np.sqrt((weight * weight).sum(axis=axes))
    if np.isnan(norms).any():
        raise ValueError(f"the weights of {layer!r} must hold no NaN to be pruned: train or load them again")
    count = min(round(norms.size * ratio), norms.size - 1)
    return np.flatnonzero(~smallest(norms, count))


def _cut_outputs(layer: Any, kept: Kept) -> None:
    if type(layer) is Linear:
        layer.weight = Parameter(layer.weight.data[:, kept])
        layer.out_features = len(kept)
    else:
        layer.weight = Parameter(layer.weight.data[kept])
        layer.out_channels = len(kept)
    if layer.bias is not None:
        layer.bias = Parameter(layer.bias.data[kept])


def _cut_inputs(layer: Any, kept: Kept, pixels: int) -> None:
    if type(layer) is Linear:
        rows = (kept[:, None] * pixels + np.arange(pixels)).reshape(-1)
        layer.weight = Parameter(layer.weight.data[rows])
        layer.in_features = len(rows)
    else:
        layer.weight = Parameter(layer.weight.data[:, kept])
        layer.in_channels = len(kept)


def _cut_norm(norm: BatchNorm2d, kept: Kept) -> None:
    norm.gamma, norm.beta = Parameter(norm.gamma.data[kept]), Parameter(norm.beta.data[kept])
    norm.running_mean, norm.running_var = norm.running_mean[kept], norm.running_var[kept]
    norm.num_features = len(kept)
