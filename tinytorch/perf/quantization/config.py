"""How a model is quantized."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tinytorch.core.checks import whole
from tinytorch.perf.quantization.observers import (
    MinMaxObserver,
    MovingAverageObserver,
    MSEObserver,
    Observer,
    PercentileObserver,
)

_OBSERVERS: dict[str, Callable[[], Observer]] = {
    "minmax": MinMaxObserver,
    "moving-average": MovingAverageObserver,
    "percentile": PercentileObserver,
    "mse": MSEObserver,
}
_ACTIVATIONS = ("auto", "dynamic", "static")


@dataclass(frozen=True, slots=True)
class QuantizationConfig:
    """How weights and activations become bytes, and which layers are left alone.

    Attributes:
        per_channel: whether every output channel has a scale of its own, or the whole layer one.
        activations: "dynamic" takes the range of each row or image as it comes, "static" one range from
            calibration data, and "auto" is static where there is such data.
        observer: what finds the static range: "minmax", "moving-average", "percentile", "mse", or a function
            that makes an object with `observe(x)` and `qparams()`.
        skip: names of layers that stay FP32, as `named_layers` gives them; `*` stands for anything.
        min_weights: Linear layers with fewer weights stay FP32, because quantizing what comes in takes
            longer than the products.
        min_channels: Conv2d layers with fewer input channels stay FP32: four of them share an instruction,
            and fewer are not worth quantizing the image.

    Raises:
        ValueError: a value is none of these.
    """

    per_channel: bool = True
    activations: str = "auto"
    observer: str | Callable[[], Observer] = "minmax"
    skip: tuple[str, ...] = ()
    min_weights: int = 1024
    min_channels: int = 16

    def __post_init__(self) -> None:
        if self.activations not in _ACTIVATIONS:
            raise ValueError(
                f"`activations` must be one of {', '.join(_ACTIVATIONS)}, got {self.activations!r}"
            )
        if not callable(self.observer) and self.observer not in _OBSERVERS:
            names = ", ".join(map(repr, _OBSERVERS))
            raise ValueError(
                f"`observer` must be {names}, or a class or function that makes observers, got "
                f"{self.observer!r}"
            )
        if isinstance(self.skip, str):
            raise ValueError(f"`skip` must be a tuple of names, got the string {self.skip!r}")
        whole(self.min_weights, "min_weights")
        whole(self.min_channels, "min_channels")

    def new_observer(self) -> Observer:
        """Return an observer that has seen nothing.

        Raises:
            ValueError: the function that should make one made something else.
        """
        made: Any = self.observer() if callable(self.observer) else _OBSERVERS[self.observer]()
        if not (callable(getattr(made, "observe", None)) and callable(getattr(made, "qparams", None))):
            raise ValueError(
                f"`observer` must make objects with observe(x) and qparams(), got {type(made).__name__}"
            )
        observer: Observer = made
        return observer

    @staticmethod
    def of(config: Any) -> QuantizationConfig:
        """Return a configuration, the default one for None.

        Raises:
            ValueError: it is something else, such as data.
        """
        if config is not None and not isinstance(config, QuantizationConfig):
            raise ValueError(
                f"`config` must be a QuantizationConfig, got {type(config).__name__}; data is given as "
                "calibration_data=..."
            )
        return config or QuantizationConfig()

    def static(self, has_data: bool) -> bool:
        """Return whether activations get a calibrated range.

        Raises:
            ValueError: they should, and there is no data.
        """
        if self.activations == "static" and not has_data:
            raise ValueError("activations='static' needs `calibration_data`, got none")
        return has_data and self.activations != "dynamic"
