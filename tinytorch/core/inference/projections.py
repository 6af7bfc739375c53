"""Linear layers as fused steps call them: live weights, packed bytes, or whatever stands in their place."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tinytorch.core.layers import Layer, Linear
from tinytorch.core.tensor import Tensor
from tinytorch.kernels import int8
from tinytorch.kernels.int8 import Packed, Range
from tinytorch.kernels.products import product

Array = NDArray[np.float32]


class Projection:
    """A linear layer: its product with rows, and the bias that the next kernel adds."""

    __slots__ = ("layer", "live", "packed", "zeros")

    def __init__(self, layer: Any) -> None:
        self.layer = layer
        self.live = type(layer) is Linear and replaced_forward(layer) is None
        self.packed = _packed(layer) if _is_quantized(layer) else None
        self.zeros = np.zeros(layer.out_features, np.float32)

    def __call__(self, rows: Array) -> Array:
        """Return rows (n, out), without the bias where the layer is a plain one."""
        if self.live:
            return product(rows, self.layer.weight._array)
        if self.packed is not None:
            layer = self.layer
            fixed = None if layer.activation_scale is None else layer._fixed
            return int8.linear(rows, self.packed, layer.out_features, fixed)
        return np.array(self.layer(rows).numpy(), np.float32, order="C")  # what follows writes into it

    @property
    def bias(self) -> Array:
        """What is missing from the product, shape (out,)."""
        if self.live and self.layer.bias is not None:
            found: Array = self.layer.bias._array
            return found
        return self.zeros

    @property
    def n_bytes(self) -> int:
        """The bytes of what is read for rows, however many: packed weights, or all that the layer holds."""
        if self.packed is not None:
            return sum(array.nbytes for array in self.packed)
        return sum(
            n_bytes_of(value) for _, layer in self.layer.named_layers() for value in vars(layer).values()
        )


class Merged(NamedTuple):
    """Quantized query, key and value layers, packed together: rows are quantized once."""

    packed: Packed
    outputs: int
    fixed: Range | None


def merged(*layers: Any) -> Merged | None:
    """Pack quantized layers of the same rows together; None where they are not, or do not fit."""
    if not all(map(_is_quantized, layers)) or layers[0].out_features % int8.PANEL:
        return None
    if len({(layer.activation_scale, layer.activation_zero) for layer in layers}) > 1:
        return None
    parts = zip(*map(_packed, layers), strict=True)
    packed = Packed(*(np.concatenate(part) for part in parts))
    return Merged(packed, sum(layer.out_features for layer in layers), layers[0]._fixed)


def outputs_of(layer: Any) -> Any:
    """Return how many outputs a layer has that can stand where a Linear was, or None.

    Like a Linear, such a layer is taken to treat each position by itself: it is called with rows.
    """
    return getattr(layer, "out_features", None) if isinstance(layer, Layer) else None


def replaced_forward(layer: Any) -> Any:
    """Return the `forward` that was assigned to a layer in the place of that of its class, or None."""
    return getattr(layer, "__dict__", {}).get("forward")


def n_bytes_of(value: Any) -> int:
    """Return the bytes of an array or a Tensor, 0 of anything else."""
    array = value._array if isinstance(value, Tensor) else value
    return array.nbytes if isinstance(array, np.ndarray) else 0


def _is_quantized(layer: Any) -> bool:
    from tinytorch.perf.quantization.layers import QuantizedLinear

    return type(layer) is QuantizedLinear and replaced_forward(layer) is None


def _packed(layer: Any) -> Packed:
    return Packed(layer.panels, layer.scales, layer.sums, layer.padded_bias)
