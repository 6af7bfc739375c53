"""What of a quantized layer is its state: bytes, scales, bias and range, however they are packed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinytorch.perf.quantization.quantizer import LARGEST_SCALE, SMALLEST_SCALE


def state_of(layer: Any) -> dict[str, NDArray[Any]]:
    """Return the weights as they were before packing, int8; scales and bias, float32; and the range.

    `activation_range` is (scale, zero) as float64, or twice NaN while every row or image gets its own.
    """
    scale, zero = layer.activation_scale, layer.activation_zero
    static = scale is not None and zero is not None
    state = {
        "q_weight": layer.q_weight,
        "scale": layer.scales[: len(layer.scale)] if layer.per_channel else layer.scales[:1],
        "activation_range": np.array([scale, zero] if static else [np.nan, np.nan], np.float64),
    }
    return state | ({"bias": layer.bias} if layer.has_bias else {})


def range_of(state: Mapping[str, NDArray[Any]]) -> tuple[float | None, int | None]:
    """Return scale and zero of a state's range, twice None where it has none.

    Raises:
        ValueError: the range, or a scale of the weights, is not what float32 can hold and invert.
    """
    if not ((state["scale"] >= SMALLEST_SCALE) & (state["scale"] <= LARGEST_SCALE)).all():
        raise ValueError(f"`scale` must hold finite numbers of {SMALLEST_SCALE:.1e} or more")
    scale, zero = state["activation_range"].tolist()
    if np.isnan(scale) and np.isnan(zero):
        return None, None
    if not (SMALLEST_SCALE <= scale <= LARGEST_SCALE and 0 <= zero <= 255 and int(zero) == zero):
        raise ValueError(
            f"`activation_range` must be a finite scale of {SMALLEST_SCALE:.1e} or more and a whole zero "
            f"from 0 to 255, or twice NaN for none, got {[scale, zero]}"
        )
    return scale, int(zero)
