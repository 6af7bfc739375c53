"""Layers whose zeros take no memory, and for Linear layers no time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinytorch.core.autograd import Array, Vjps
from tinytorch.core.layers import Layer, Linear
from tinytorch.core.spatial import Conv2d
from tinytorch.core.tensor import Tensor, apply, as_tensor
from tinytorch.kernels import FloatArray, convolution
from tinytorch.kernels import sparse as kernels
from tinytorch.kernels.convolution import Window
from tinytorch.kernels.sparse_formats import Packed, pack, problem, unpack
from tinytorch.perf.copies import arrays_of, copied

_ARRAYS = ("values", "counts", "indices", "mask", "scale", "bias")


class SparseLayer(Layer):
    """What layers with fixed weights in a format without zeros have in common.

    They hold copies: later changes of the layer they were made from do not reach them. They have no
    parameters to train; gradients go through them to their input. An input that is NaN or infinite touches
    the outputs that have a weight for it, the others not.

    Attributes:
        shape: (inputs, outputs) of the weights as a matrix.
        format: "dense", "csr" or "bitmask"; see `tinytorch.kernels.sparse_formats`.
        values: the weights that are stored, float32 or int8.
        counts, indices: for "csr", how many there are for each output and 256 inputs, and where; or None.
        mask: for "bitmask", a bit for each place; or None.
        scale: for int8, of each output; or None.
        bias: of each output; or None.
    """

    def __init__(self, packed: Packed, bias: FloatArray | None) -> None:
        self.shape = packed.shape
        self.format = packed.format
        self.values = packed.values
        self.counts = packed.counts
        self.indices = packed.indices
        self.mask = packed.mask
        self.scale = packed.scale
        self.bias = bias

    @property
    def packed(self) -> Packed:
        """The weights as the kernels take them."""
        return Packed(self.shape, self.format, self.values, self.counts, self.indices, self.mask, self.scale)

    @property
    def stored_bytes(self) -> int:
        """The bytes of all arrays that the layer holds: values, places, scales, bias."""
        return sum(array.nbytes for array in arrays_of(self))

    @property
    def sparsity(self) -> float:
        """The share of the weights that is zero."""
        return 1 - int(np.count_nonzero(self.values)) / (self.shape[0] * self.shape[1])

    def dense_weight(self) -> FloatArray:
        """Return the weights with their zeros, as a matrix of shape (inputs, outputs)."""
        return unpack(self.packed)

    def own_state(self) -> dict[str, NDArray[Any]]:
        """Return the arrays of the layer by their names, and its `shape`, without which they say nothing."""
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        found = {name: array for name, array in arrays.items() if array is not None}
        return {"shape": np.array(self.shape, np.int64), **found}

    def own_changes(self, state: Mapping[str, NDArray[Any]]) -> Callable[[], None]:
        """Return what replaces the arrays; the pattern of zeros is that of the state then.

        Raises:
            ValueError: they are of weights of another shape, or do not belong together.
        """
        if tuple(state["shape"].tolist()) != self.shape:
            raise ValueError(f"`shape` must be {self.shape}, got {tuple(state['shape'].tolist())}")
        arrays = {name: np.array(state[name], order="C") for name in _ARRAYS if name in state}
        weights = {name: array for name, array in arrays.items() if name != "bias"}
        wrong = problem(Packed(self.shape, self.format, **weights))
        if wrong is not None:
            raise ValueError(f"`state` must be that of a sparse layer, but {wrong}")
        return lambda: vars(self).update(arrays)

    @property
    def _kind(self) -> str:
        return f"{self.format}, {self.values.dtype}, {self.sparsity:.1%} zeros"


class SparseLinear(SparseLayer):
    """A linear layer without its zeros; made by `from_linear`. See `SparseLayer`."""

    @classmethod
    def from_linear(
        cls,
        linear: Linear,
        format: str = "auto",  # noqa: A002 - the word that says it
        values: str = "float32",
    ) -> SparseLinear:
        """Return a layer that computes what `linear` does.

        Args:
            linear: of any sparsity.
            format: "dense", "csr", "bitmask", or "auto", the smallest of them.
            values: "float32", which keeps the weights as they are, or "int8", which rounds them to steps of
                max|w| / 127 for each output; what becomes zero is left out too.

        Raises:
            ValueError: `linear` is no Linear, there is no such format or type, or int8 is asked for and a
                weight is NaN or infinite.
        """
        if not isinstance(linear, Linear):
            raise ValueError(f"`linear` must be a Linear, got {type(linear).__name__}")
        packed = pack(linear.weight.data, format, values)
        return cls(packed, _copied_bias(linear)).train(linear.training)

    @property
    def in_features(self) -> int:
        """Length of the last axis of the input."""
        return self.shape[0]

    @property
    def out_features(self) -> int:
        """Length of the last axis of the output."""
        return self.shape[1]

    def forward(self, x: Any) -> Tensor:
        """Map (..., in_features) to (..., out_features).

        Raises:
            ValueError: the last axis of `x` has another length.
        """
        inputs = as_tensor(x, "x")
        if inputs.shape[-1:] != self.shape[:1]:
            raise ValueError(f"{self!r} expects shape (..., {self.in_features}), got {inputs.shape}")
        return apply(sparse_linear, inputs, layer=self)

    def __repr__(self) -> str:
        return f"SparseLinear({self.in_features}, {self.out_features}, {self._kind})"


class SparseConv2d(SparseLayer):
    """A convolution without its zeros; made by `from_conv2d`. See `SparseLayer`.

    It is smaller, and usually no faster: it lays patches out as rows, which a fused convolution need not.

    Attributes:
        window: where the kernels are put.
    """

    window: Window

    @classmethod
    def from_conv2d(
        cls,
        conv: Conv2d,
        format: str = "auto",  # noqa: A002 - as in `SparseLinear.from_linear`
        values: str = "float32",
    ) -> SparseConv2d:
        """Return a layer that computes what `conv` does; arguments and errors are those of `from_linear`."""
        if not isinstance(conv, Conv2d):
            raise ValueError(f"`conv` must be a Conv2d, got {type(conv).__name__}")
        matrix = conv.weight.data.reshape(conv.out_channels, -1).T
        layer = cls(pack(matrix, format, values), _copied_bias(conv)).train(conv.training)
        layer.window = conv.window
        return layer

    @property
    def in_channels(self) -> int:
        """Channels of the input."""
        return self.shape[0] // (self.window.kernel[0] * self.window.kernel[1])

    @property
    def out_channels(self) -> int:
        """Channels of the output."""
        return self.shape[1]

    def forward(self, x: Any) -> Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, H', W'), as `Conv2d` does.

        Raises:
            ValueError: another number of channels or axes, no images, or images smaller than a kernel.
        """
        images = as_tensor(x, "x")
        fitting = images.ndim == 4 and images.shape[0] > 0 and images.shape[1] == self.in_channels
        if not fitting or min(self.window.positions(*images.shape[2:])) < 1:
            raise ValueError(
                f"{self!r} expects images of shape (N, {self.in_channels}, H, W), at least one and at least "
                f"as large as its kernels {self.window.kernel}, got {images.shape}"
            )
        return apply(sparse_convolution, images, layer=self)

    def __repr__(self) -> str:
        return f"SparseConv2d({self.in_channels}, {self.out_channels}, {self.window.kernel}, {self._kind})"


def sparse_linear(x: Array, *, layer: SparseLinear) -> tuple[Array, Vjps]:
    """Rule of `SparseLinear`, with a gradient for the input only."""
    rows = x.reshape(-1, layer.in_features).astype(np.float32, copy=False)
    out = kernels.product(rows, layer.packed, layer.bias)
    return out.reshape(*x.shape[:-1], layer.out_features), (lambda g: g @ layer.dense_weight().T,)


def sparse_convolution(x: Array, *, layer: SparseConv2d) -> tuple[Array, Vjps]:
    """Rule of `SparseConv2d`, with a gradient for the input only."""
    patches = convolution.columns(x.astype(np.float32, copy=False), layer.window)
    rows = patches.transpose(0, 2, 1).reshape(-1, layer.shape[0])
    out = kernels.product(rows, layer.packed, layer.bias).reshape(len(x), -1, layer.out_channels)
    down, across = layer.window.positions(*x.shape[2:])

    def of_input(g: Array) -> Array:
        kernel = layer.dense_weight().T.reshape(layer.out_channels, layer.in_channels, *layer.window.kernel)
        return convolution.of_input(g, kernel, x.shape, layer.window)

    shaped = np.ascontiguousarray(out.transpose(0, 2, 1)).reshape(len(x), -1, down, across)
    return shaped, (of_input,)


def sparsify(
    model: Layer,
    format: str = "auto",  # noqa: A002 - as in `SparseLinear.from_linear`
    values: str = "float32",
) -> Layer:
    """Return a new model in which every Linear is a SparseLinear; the old one stays as it is.

    Convolutions stay as they are: `SparseConv2d.from_conv2d` stores one without its zeros, which makes it
    smaller, but usually no faster, and `ModelCompressor` does it with all of a model.

    Weights are copied when this is called. Prune first: at less than a fifth of zeros there is little to
    gain. With format "auto" each layer gets the smallest format, which may be the dense one.

    Args:
        model: a Linear, or layers that hold some.
        format: see `SparseLinear.from_linear`.
        values: see `SparseLinear.from_linear`.

    Raises:
        ValueError: `model` is no Layer or holds no Linear, or an argument is not one of its choices.
    """
    if not isinstance(model, Layer):
        raise ValueError(f"`model` must be a Layer, got {type(model).__name__}")
    linears = [layer for _, layer in model.named_layers() if type(layer) is Linear]
    if not linears:
        raise ValueError("`model` must hold a Linear layer, got none: there is nothing to make sparse")
    return copied(model, {layer: SparseLinear.from_linear(layer, format, values) for layer in linears})


def _copied_bias(layer: Linear | Conv2d) -> FloatArray | None:
    return None if layer.bias is None else layer.bias.data.copy()
