"""Copies of models, with other layers in the place of some, and the arrays that layers hold."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np

from tinytorch.core.layers import Layer
from tinytorch.core.tensor import Tensor


def copied(model: Layer, instead: Mapping[Layer, Layer] | None = None) -> Layer:
    """Return a model with copies of all layers, weights and buffers, and without gradients.

    Args:
        model: stays as it is.
        instead: for layers of the model, what shall stand in all their places.
    """
    twin = copy.deepcopy(model, {id(layer): other for layer, other in (instead or {}).items()})
    for parameter in twin.parameters():
        parameter.grad = None
    return twin


def arrays_of(layer: Layer) -> list[np.ndarray[Any, Any]]:
    """Return the arrays that a layer itself holds, without those of layers inside it."""
    held = [value.data if isinstance(value, Tensor) else value for value in vars(layer).values()]
    return [value for value in held if isinstance(value, np.ndarray)]
