"""Layers whose weights are int8 and whose products are integers; they compute, and do not learn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from tinytorch.core.autograd import Array, Vjps
from tinytorch.core.chains import link
from tinytorch.core.dataloader import as_inputs
from tinytorch.core.layers import Layer, Linear
from tinytorch.core.spatial import Conv2d
from tinytorch.core.tensor import Tensor, apply, as_tensor
from tinytorch.kernels import convolution, int8, int8_images
from tinytorch.kernels.convolution import Window
from tinytorch.kernels.int8 import Packed, Range
from tinytorch.kernels.int8_images import PackedKernels
from tinytorch.perf.quantization.config import QuantizationConfig
from tinytorch.perf.quantization.observers import MinMaxObserver, Observer
from tinytorch.perf.quantization.quantizer import (
    LARGEST_SCALE,
    SMALLEST_SCALE,
    finite,
    quantized,
    symmetric,
)
from tinytorch.perf.quantization.state import range_of, state_of

_FLOAT32 = np.dtype(np.float32)


class _Quantized(Layer):
    """What both layers share: the range of their activations, and what they keep.

    Attributes:
        activation_scale, activation_zero: of the calibrated range, (byte - zero) * scale with bytes from 0 to
            255; None while every row or image gets its own.
    """

    scales: NDArray[np.float32]
    per_channel: bool
    has_bias: bool
    activation_scale: float | None
    activation_zero: int | None

    @property
    def q_weight(self) -> NDArray[np.int8]:
        """int8 of the shape of the original; unpacked anew, so a change of it has no effect."""
        raise NotImplementedError

    @property
    def scale(self) -> NDArray[np.float32] | float:
        """What the weights are multiplied by: one number for each output, or one for all."""
        return self.scales[: self._outputs()].copy() if self.per_channel else float(self.scales[0])

    @property
    def zero_point(self) -> int:
        """The byte that is zero: weights are symmetric."""
        return 0

    @property
    def bias(self) -> NDArray[np.float32] | None:
        """float32, one number for each output, or None."""
        return self._all_bias()[: self._outputs()].copy() if self.has_bias else None

    def calibrate(self, data: Any, observer: Observer | None = None) -> None:
        """Fix the range of the activations from data such as will come in.

        Args:
            data: inputs of this layer: a Tensor, an array, or a list of them.
            observer: finds the range; the smallest and largest number unless given.

        Raises:
            ValueError: there is no data, it is not finite, or of another shape; then nothing was changed.
        """
        watching = MinMaxObserver() if observer is None else observer
        for inputs in batches(data):
            self._check_inputs(inputs)
            watching.observe(inputs)
        self.fix(watching)

    def fix(self, observer: Observer) -> None:
        """Fix the range of the activations to what an observer has found.

        Raises:
            ValueError: its scale is no number above zero that float32 can hold and invert, or its zero point
                no whole number from -128 to 127; then nothing was changed.
        """
        scale, zero_point = observer.qparams()
        if not SMALLEST_SCALE <= scale <= LARGEST_SCALE:
            raise ValueError(
                f"`observer` must find a finite scale of {SMALLEST_SCALE:.1e} or more, got {scale!r}"
            )
        if not (-128 <= zero_point <= 127 and int(zero_point) == zero_point):
            raise ValueError(
                f"`observer` must find a zero point that is whole, -128 to 127, got {zero_point!r}"
            )
        self.activation_scale, self.activation_zero = float(scale), int(zero_point) + 128

    def memory_usage(self) -> dict[str, float]:
        """Return the bytes of all arrays kept, those of the FP32 layer, and their ratio."""
        n_bytes = sum(value.nbytes for value in vars(self).values() if isinstance(value, np.ndarray))
        shape = self.q_weight.shape
        fp32_bytes = 4 * (int(np.prod(shape)) + (self._outputs() if self.has_bias else 0))
        return {"bytes": n_bytes, "fp32_bytes": fp32_bytes, "ratio": fp32_bytes / n_bytes}

    def own_state(self) -> dict[str, NDArray[Any]]:
        """Return `q_weight`, `scale`, `activation_range` and, if there is one, `bias`; see `state_of`."""
        return state_of(self)

    def own_changes(self, state: Mapping[str, NDArray[Any]]) -> Callable[[], None]:
        """Return what packs a state into new arrays; nobody who holds the old ones sees it.

        Raises:
            ValueError: a scale or the range is not one, or the weights are no symmetric bytes.
        """
        scale, zero = range_of(state)
        scales = np.array(np.broadcast_to(state["scale"], self._outputs()))
        arrays = self._packing(state["q_weight"], scales, state.get("bias"))
        return lambda: vars(self).update(arrays, activation_scale=scale, activation_zero=zero)

    def _packing(self, q: NDArray[np.int8], scales: Any, bias: Any) -> dict[str, NDArray[Any]]:
        """Return the arrays of the layer by their names."""
        raise NotImplementedError

    @property
    def _fixed(self) -> Range | None:
        if self.activation_scale is None or self.activation_zero is None:
            return None
        return Range(self.activation_scale, self.activation_zero)

    def _quantize(self, weight: NDArray[np.float32], bias: Any, axes: tuple[int, ...]) -> NDArray[np.int8]:
        """Return int8 weights, and set what belongs to each output but the packing."""
        largest = np.abs(finite(weight, "weight")).max(axis=axes if self.per_channel else None, keepdims=True)
        scale = symmetric(-largest, largest)[0]
        self.scales = np.array(np.broadcast_to(scale.reshape(-1), self._outputs()))
        self.has_bias = bias is not None
        return quantized(weight, scale, 0, low=-127)

    def _prepare(self, config: QuantizationConfig | None, calibration_data: Any) -> None:
        chosen = QuantizationConfig.of(config)
        self.training = False
        self.activation_scale = self.activation_zero = None
        if chosen.static(calibration_data is not None):
            self.calibrate(calibration_data, chosen.new_observer())
        elif calibration_data is not None:
            for inputs in batches(calibration_data):
                self._check_inputs(inputs)
                finite(inputs, "calibration_data")

    def _outputs(self) -> int:
        raise NotImplementedError

    def _all_bias(self) -> NDArray[np.float32]:
        raise NotImplementedError

    def _check_inputs(self, inputs: Tensor) -> None:
        raise NotImplementedError


class QuantizedLinear(_Quantized):
    """A linear layer in int8: `y = x @ weight + bias`, with integer products.

    Args:
        linear: the layer; its weights are packed now, and later changes of them are not seen.
        config: how; see `QuantizationConfig`.
        calibration_data: inputs of this layer, from which the range of the activations is fixed; without
            them every row has its own.

    Raises:
        ValueError: the weights are not finite, or so many that sums could leave int32; the data does not fit.
    """

    def __init__(
        self, linear: Linear, config: QuantizationConfig | None = None, calibration_data: Any = None
    ) -> None:
        if not isinstance(linear, Linear):
            raise ValueError(f"`linear` must be a Linear layer, got {type(linear).__name__}")
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.per_channel = QuantizationConfig.of(config).per_channel
        bias = None if linear.bias is None else linear.bias.data
        packed = int8.pack(self._quantize(linear.weight.data, bias, (0,)), self.scales, bias)
        self.panels, self.scales, self.sums, self.padded_bias = packed
        self._prepare(config, calibration_data)

    @property
    def q_weight(self) -> NDArray[np.int8]:
        """int8, shape (in_features, out_features); unpacked anew, so a change of it has no effect."""
        return int8.unpack(self.panels, self.in_features, self.out_features)

    def forward(self, x: Any) -> Tensor:
        """Map (..., in_features) to (..., out_features).

        A row that holds NaN or infinity becomes NaN. There is no gradient.

        Raises:
            ValueError: the last axis of `x` has another length.
        """
        inputs = as_tensor(x, "x")
        self._check_inputs(inputs)
        packed = Packed(self.panels, self.scales, self.sums, self.padded_bias)
        fixed = None if self.activation_scale is None else self._fixed
        return apply(quantized_linear, inputs, packed=packed, outputs=self.out_features, fixed=fixed)

    def _packing(self, q: NDArray[np.int8], scales: Any, bias: Any) -> dict[str, NDArray[Any]]:
        return dict(zip(("panels", "scales", "sums", "padded_bias"), int8.pack(q, scales, bias), strict=True))

    def _outputs(self) -> int:
        return self.out_features

    def _all_bias(self) -> NDArray[np.float32]:
        return self.padded_bias

    def _check_inputs(self, inputs: Tensor) -> None:
        if inputs.shape[-1:] != (self.in_features,):
            raise ValueError(f"{self!r} expects shape (..., {self.in_features}), got {inputs.shape}")

    def __repr__(self) -> str:
        return f"QuantizedLinear({self.in_features}, {self.out_features})"


class QuantizedConv2d(_Quantized):
    """A convolution in int8, with integer products.

    Args:
        conv: the layer; its weights are packed now, and later changes of them are not seen.
        config: how; see `QuantizationConfig`.
        calibration_data: inputs of this layer, from which the range of the activations is fixed; without
            them every image has its own.

    Raises:
        ValueError: the weights are not finite, or so many that sums could leave int32; the data does not fit.
    """

    def __init__(
        self, conv: Conv2d, config: QuantizationConfig | None = None, calibration_data: Any = None
    ) -> None:
        if not isinstance(conv, Conv2d):
            raise ValueError(f"`conv` must be a Conv2d layer, got {type(conv).__name__}")
        self.in_channels, self.out_channels, self.window = conv.in_channels, conv.out_channels, conv.window
        self.per_channel = QuantizationConfig.of(config).per_channel
        bias = None if conv.bias is None else conv.bias.data
        packed = int8_images.pack(self._quantize(conv.weight.data, bias, (1, 2, 3)), self.scales, bias)
        self.blocks, self.scales, self.sums, self.all_bias = packed
        self._prepare(config, calibration_data)

    @property
    def q_weight(self) -> NDArray[np.int8]:
        """int8, shape (out_channels, in_channels, kh, kw); unpacked anew, a change of it has no effect."""
        return int8_images.unpack(self.blocks, (self.out_channels, self.in_channels, *self.window.kernel))

    def forward(self, x: Any) -> Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, H', W'), as `Conv2d` does.

        An image that holds NaN or infinity becomes NaN. There is no gradient.

        Raises:
            ValueError: another number of channels or axes, no images, or images smaller than a kernel.
        """
        inputs = as_tensor(x, "x")
        self._check_inputs(inputs)
        packed = PackedKernels(self.blocks, self.scales, self.sums, self.all_bias)
        return apply(quantized_convolution, inputs, packed=packed, window=self.window, fixed=self._fixed)

    def _packing(self, q: NDArray[np.int8], scales: Any, bias: Any) -> dict[str, NDArray[Any]]:
        packed = int8_images.pack(q, scales, bias)
        return dict(zip(("blocks", "scales", "sums", "all_bias"), packed, strict=True))

    def _outputs(self) -> int:
        return self.out_channels

    def _all_bias(self) -> NDArray[np.float32]:
        return self.all_bias

    def _check_inputs(self, inputs: Tensor) -> None:
        shape = inputs.shape
        if len(shape) != 4 or shape[1] != self.in_channels or shape[0] == 0:
            raise ValueError(f"{self!r} expects shape (N, {self.in_channels}, H, W), not empty, got {shape}")
        if min(self.window.positions(*shape[2:])) < 1:
            raise ValueError(f"{self!r} expects images no smaller than its kernel, got {shape}")

    def __repr__(self) -> str:
        return f"QuantizedConv2d({self.in_channels}, {self.out_channels}, {self.window.kernel})"


def batches(data: Any) -> list[Tensor]:
    """Return calibration data as a list of Tensors.

    Raises:
        ValueError: there is none, or it is no Tensor, array or list of them.
    """
    given = data if isinstance(data, list | tuple) else [data]
    if not given:
        raise ValueError("`calibration_data` must hold inputs, got an empty list")
    tensors = [as_inputs(item, "calibration_data") for item in given]
    for tensor in tensors:
        if 0 in tensor.shape or tensor.ndim == 0:
            raise ValueError(f"`calibration_data` must hold inputs, got shape {tensor.shape}")
    return tensors


def _linked(layer: QuantizedLinear, x: NDArray[np.float32], _: bool) -> NDArray[np.float32] | None:
    if x.ndim != 2 or x.shape[1] != layer.in_features:
        return None
    packed = Packed(layer.panels, layer.scales, layer.sums, layer.padded_bias)
    fixed = None if layer.activation_scale is None else layer._fixed
    return int8.linear(_usable(x), packed, layer.out_features, fixed)


link(QuantizedLinear, _linked)


def quantized_linear(x: Array, *, packed: Packed, outputs: int, fixed: Range | None) -> tuple[Array, Vjps]:
    """Rule of a quantized linear layer, which has no gradient: (..., in) to (..., out)."""
    if x.ndim == 2:
        return int8.linear(_usable(x), packed, outputs, fixed), (_no_gradient,)
    out = int8.linear(_usable(x.reshape(-1, x.shape[-1])), packed, outputs, fixed)
    return out.reshape(*x.shape[:-1], outputs), (_no_gradient,)


def quantized_convolution(
    x: Array, *, packed: PackedKernels, window: Window, fixed: Range | None
) -> tuple[Array, Vjps]:
    """Rule of a quantized convolution, which has no gradient."""
    if in_floats():
        return _convolved(np.asarray(x, np.float32), packed, window, fixed), (_no_gradient,)
    return int8_images.forward(_usable(x), packed, x.shape[1], window, fixed), (_no_gradient,)


def in_floats() -> bool:
    """Return whether convolutions compute in FP32: here no instructions multiply bytes, and NumPy is slow."""
    return int8.chosen_way() == "weight-only"


def _convolved(
    x: NDArray[np.float32], packed: PackedKernels, window: Window, fixed: Range | None
) -> NDArray[np.float32]:
    """Return the convolution in FP32: weights made of their bytes, inputs rounded where a range is fixed."""
    shape = (packed.scales.size, x.shape[1], *window.kernel)
    weight = int8_images.unpack(packed.blocks, shape) * packed.scales[:, None, None, None]
    known = np.asarray(np.isfinite(x).all(axis=(1, 2, 3)))
    if fixed is not None:
        with np.errstate(over="ignore"):  # what is beyond float32 is clipped, as all beyond the range is
            steps = np.rint(np.where(known[:, None, None, None], x, 0) / np.float32(fixed.scale))
        x = np.clip(steps, -fixed.zero, 255 - fixed.zero) * np.float32(fixed.scale)
    out = convolution.forward(x, weight, packed.bias, window)[0]
    out[~known] = np.nan
    return out


def _usable(x: Array) -> NDArray[np.float32]:
    """Return `x`, or a copy where compiled loops would not take it: they want memory that can be written."""
    return x if x.dtype == _FLOAT32 and x.flags.carray else np.array(x, np.float32, order="C")


def _no_gradient(_: Array) -> NoReturn:
    raise RuntimeError("quantized layers have no gradient: train the model before it is quantized")
