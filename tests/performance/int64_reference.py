"""Quantized layers against integer sums: weights and inputs that bytes hold leave nothing to be rounded.

The scales of whole numbers with a range of 256 are exactly 1, so what a layer puts out is its integers, up to
the width of float32. Fewer levels than those of a byte would show.
"""

from __future__ import annotations

import numpy as np

import tinytorch as tt
from tinytorch.perf.quantization import QuantizedConv2d, QuantizedLinear

# The smallest of the 256 whole numbers that inputs are drawn from.
LOWEST = (0, -37, -128)


def whole_numbers(rng, shape, lowest):
    """Inputs of 256 values, whose first two in each row or image are the ends, so that a byte is one of them.

    Where there are several rows, the second is all ends, so that sums are as large as they can be.
    """
    x = rng.integers(lowest, lowest + 256, shape)
    rows = x.reshape(len(x), -1)
    rows[1:2] = lowest + 255
    rows[:, 0], rows[:, 1] = lowest, lowest + 255
    return x


def whole_weights(rng, outputs, *inputs):
    """Weights from -127 to 127, with a 127 for each output, so that their scale is exactly 1."""
    weights = rng.integers(-127, 128, (outputs, *inputs))
    rows = weights.reshape(outputs, -1)
    rows[0], rows[-1], rows[:, 0] = 127, -127, 127
    return weights


def differing(found, exact):
    """How many outputs are not the sums, which are exact up to the width of float32."""
    return int((found != exact.astype(np.float32)).sum())


def linear_differences(rng, rows, inputs, outputs):
    """How many outputs of quantized layers differ from int64, with ranges by row and fixed ones."""
    weights, wrong = whole_weights(rng, outputs, inputs).T, 0
    layer = tt.Linear(inputs, outputs, rng=rng)
    layer.weight.data[...] = weights
    for lowest in LOWEST:
        x = whole_numbers(rng, (rows, inputs), lowest)
        exact, floats = x @ weights, x.astype(np.float32)
        for calibration_data in (None, floats):
            quantized = QuantizedLinear(layer, calibration_data=calibration_data)
            wrong += differing(outputs_of(quantized, floats), exact)
    return wrong


def convolution_differences(rng, images, channels, side, outputs):
    """The same for convolutions, 3x3 with a border of one."""
    weights, wrong = whole_weights(rng, outputs, channels, 3, 3), 0
    layer = tt.Conv2d(channels, outputs, 3, padding=1, rng=rng)
    layer.weight.data[...] = weights
    for lowest in LOWEST:
        x = whole_numbers(rng, (images, channels, side, side), lowest)
        padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
        patches = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
        exact, floats = np.einsum("nchwuv,ocuv->nohw", patches, weights), x.astype(np.float32)
        for calibration_data in (None, floats):
            quantized = QuantizedConv2d(layer, calibration_data=calibration_data)
            wrong += differing(outputs_of(quantized, floats), exact)
    return wrong


def outputs_of(layer, x):
    """What a layer makes of an array."""
    with tt.no_grad():
        return layer(x).data
