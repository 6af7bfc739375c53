"""What the closed division allows: the given weights, stored as they are, in half precision or as int8."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinytorch.benchmarking.tinymlperf.processes import Refused
from tinytorch.core.layers import Layer
from tinytorch.core.tensor import Tensor

_QUANTIZED = "Quantized"
# A rounded number lies within half a step of the original; computing both in float32 adds a little.
_HALF_A_STEP = 0.501
# Half precision keeps eleven bits.
_HALF_PRECISION = 2.0**-10
#: a step this large, as a share of the largest weight, is coarser than int8 with a sign
_COARSEST_STEP = 1.05 / 127


def check_closed(model: Layer, reference: Layer) -> None:
    """Check that a model is the reference model, quantized at most.

    Layers are the same ones at the same places, or quantized forms of them. Every weight lies within half a
    step of the given one, every other number is the given one, up to half precision. Calibrated ranges are
    free: where they come from cannot be seen in them.

    Raises:
        Refused: a layer or a number differs; the sentence names it.
    """
    own, given = dict(model.named_layers()), dict(reference.named_layers())
    if own.keys() != given.keys():
        place = min(own.keys() ^ given.keys())
        raise Refused(f"the closed division keeps the layers of the reference model, but {place!r} differs")
    for place, layer in given.items():
        _check_layer(place or "the model", own[place], layer)


def _check_layer(place: str, layer: Layer, given: Layer) -> None:
    quantized = type(layer).__name__ == _QUANTIZED + type(given).__name__
    if type(layer) is not type(given) and not quantized:
        raise Refused(
            f"the closed division keeps the layers of the reference model, but {place} is "
            f"{type(layer).__name__} in place of {type(given).__name__}"
        )
    for name, value in vars(given).items():
        if name == "training" or isinstance(value, np.random.Generator):
            continue
        # Quantized layers give their weights and scales in the shape of the original, however they hold them.
        rounded = getattr(layer, "q_" + name, None) if quantized else None
        stored = getattr(layer, name, None) if rounded is None else rounded
        if isinstance(value, Tensor | np.ndarray):
            scale = getattr(layer, "scale", None) if quantized else None
            _check_array(f"{place}.{name}", _array(stored), _array(value), scale)
        elif isinstance(value, bool | int | float | str | tuple) and stored != value:
            raise Refused(
                f"the closed division keeps the reference model, but {place}.{name} is {stored!r}, not "
                f"{value!r}"
            )


def _check_array(name: str, stored: Any, given: NDArray[Any], scale: Any) -> None:
    if stored is None or stored.shape != given.shape:
        shape = "missing" if stored is None else f"of shape {stored.shape}"
        raise Refused(
            f"the closed division keeps the given weights, but {name} is {shape}, not {given.shape}"
        )
    if stored.dtype == np.int8:
        steps = [np.abs(step) for step in _broadcast(scale, given)]
        fits = any(_rounded(stored, given, step) for step in steps)
    else:
        allowed = _HALF_PRECISION * np.abs(given) + 1e-7
        fits = bool((np.abs(stored.astype(np.float64) - given) <= allowed).all())
    if not fits:
        raise Refused(
            f"the closed division keeps the given weights, but {name} differs by more than rounding: "
            "retrained or pruned models are for the open division"
        )


def _rounded(stored: NDArray[Any], given: NDArray[Any], step: NDArray[np.float64]) -> bool:
    """Return whether int8 weights are the given ones, rounded to steps that are not needlessly coarse.

    A step that is too coarse would prune: everything below half of it becomes zero.
    """
    if (step > _COARSEST_STEP * max(float(np.abs(given).max()), 1e-30)).any():
        return False
    return bool((np.abs(stored * step - given) <= _HALF_A_STEP * step + 1e-7).all())


def _broadcast(scale: Any, given: NDArray[Any]) -> Iterator[NDArray[np.float64]]:
    """Yield a scale for one tensor, or for each channel of any axis, in a shape that fits the weights."""
    values = np.asarray(_array(scale), np.float64) if scale is not None else np.zeros(0)
    if values.size == 1:
        yield values.reshape(1)
    for axis, size in enumerate(given.shape):
        if values.size == size > 1:
            yield values.reshape([-1 if a == axis else 1 for a in range(given.ndim)])


def _array(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.data
    return np.asarray(value) if isinstance(value, np.ndarray | np.generic | float | int) else None
