"""Optimizers: how gradients change parameters. All update in place: `parameter.data` stays the same array."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from tinytorch.core.autograd import Array
from tinytorch.core.checks import fraction, positive
from tinytorch.core.layers import Layer
from tinytorch.core.tensor import Tensor
from tinytorch.kernels import FloatArray
from tinytorch.kernels import optimizers as kernels


class Optimizer:
    """Base class: holds parameters, and arrays of state in the shape of each.

    Args:
        params: what to adjust, each tensor once.
        lr: the learning rate; it may be assigned at any time.

    Raises:
        ValueError: there are no parameters, one is no Tensor or comes twice, or `lr` is not positive.
    """

    #: names of the arrays that are kept for each parameter
    state_names: tuple[str, ...] = ()

    def __init__(self, params: Iterable[Tensor], lr: float) -> None:
        self.params = _checked(params)
        self.lr = positive(lr, "lr")
        self.steps = 0
        self.state = {name: [np.zeros_like(p.data) for p in self.params] for name in self.state_names}

    def zero_grad(self) -> None:
        """Forget the gradients of all parameters."""
        for parameter in self.params:
            parameter.grad = None

    def step(self) -> None:
        """Change each parameter that has a gradient.

        Raises:
            ValueError: a gradient has another shape than its parameter; then nothing was changed.
        """
        gradients = [_gradient(parameter, i) for i, parameter in enumerate(self.params)]
        self.steps += 1
        for parameter, gradient, state in zip(self.params, gradients, self._states(), strict=True):
            if gradient is not None:
                self.update(parameter.data, gradient, *state)

    def update(self, data: FloatArray, gradient: FloatArray, *state: FloatArray) -> None:
        """Change the array of one parameter, and its state, in place; subclasses say how."""
        raise NotImplementedError(f"{type(self).__name__} must define update()")

    def _states(self) -> Iterable[tuple[FloatArray, ...]]:
        return zip(*self.state.values(), strict=True) if self.state else [()] * len(self.params)

    def state_dict(self) -> dict[str, FloatArray]:
        """Return copies of all state: "momentum.0", and so on, and "steps"."""
        arrays = {
            f"{name}.{i}": a.copy() for name in self.state_names for i, a in enumerate(self.state[name])
        }
        return {"steps": np.array(self.steps, np.float32), **arrays}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Copy the state out of what `state_dict` returned.

        Raises:
            ValueError: names or shapes differ; then nothing was changed.
        """
        own = {f"{name}.{i}": a for name in self.state_names for i, a in enumerate(self.state[name])}
        if set(state) != {"steps", *own}:
            differing = ", ".join(sorted(set(state) ^ {"steps", *own})[:5])
            raise ValueError(
                f"`state` must be that of {self!r} for the same parameters; it differs in {differing}"
            )
        loaded = {name: np.asarray(state[name], np.float32) for name in own}
        for name, array in own.items():
            if loaded[name].shape != array.shape:
                raise ValueError(f"`{name}` must have shape {array.shape}, got {loaded[name].shape}")
        for name, array in own.items():
            array[...] = loaded[name]
        self.steps = int(state["steps"])

    def __repr__(self) -> str:
        return f"{type(self).__name__}(lr={self.lr:g})"


class SGD(Optimizer):
    """Stochastic gradient descent with momentum.

    `v = momentum * v + g + weight_decay * p` and `p = p - lr * v` (Polyak 1964, without dampening).

    Args:
        params: what to adjust.
        lr: the learning rate.
        momentum: at least 0 and below 1.
        weight_decay: zero or more.
    """

    def __init__(
        self, params: Iterable[Tensor], lr: float = 0.01, momentum: float = 0.0, weight_decay: float = 0.0
    ) -> None:
        self.momentum = fraction(momentum, "momentum")
        self.weight_decay = _not_negative(weight_decay, "weight_decay")
        self.state_names = ("momentum",) if self.momentum else ()
        super().__init__(params, lr)

    def update(self, data: FloatArray, gradient: FloatArray, *state: FloatArray) -> None:
        """Change one parameter and its momentum."""
        velocity = state[0] if state else None
        kernels.sgd(data, gradient, velocity, self.lr, self.momentum, self.weight_decay)


class Adam(Optimizer):
    """Adam: steps of the gradient's running mean over the root of its running square (Kingma and Ba 2015).

    Args:
        params: what to adjust.
        lr: the learning rate.
        betas: how much of the running mean and of the running square each step keeps.
        eps: added to the root.
        weight_decay: of the parameter is added to the gradient.
    """

    state_names = ("mean", "square")
    decoupled = False

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        self.betas = (fraction(betas[0], "betas[0]"), fraction(betas[1], "betas[1]"))
        self.eps = positive(eps, "eps")
        self.weight_decay = _not_negative(weight_decay, "weight_decay")
        super().__init__(params, lr)

    def update(self, data: FloatArray, gradient: FloatArray, *state: FloatArray) -> None:
        """Change one parameter and its running mean and square."""
        if self.weight_decay and not self.decoupled:
            gradient = gradient + np.float32(self.weight_decay) * data
        decay = self.lr * self.weight_decay if self.decoupled else 0.0
        mean, square = state
        kernels.adam(data, gradient, mean, square, self.lr, self.betas, self.eps, self.steps, decay)


class AdamW(Adam):
    """Adam with the weights' decay apart from the gradient: `p` first shrinks by `lr * weight_decay * p`.

    Loshchilov and Hutter 2019.
    """

    decoupled = True

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay)


def gradient_array(parameter: Tensor, name: str) -> Array | None:
    """Return the gradient of `parameter`, whatever buffer it was assigned as, as a float32 array, or None.

    Raises:
        ValueError: it has another shape, or holds no numbers; `name` says whose it is.
    """
    if parameter.grad is None:
        return None
    try:
        gradient: Array = np.asarray(parameter.grad, np.float32)
    except (TypeError, ValueError):
        raise ValueError(
            f"the gradient of {name} must be an array of numbers, got {parameter.grad!r}"
        ) from None
    if gradient.shape != parameter.shape:
        raise ValueError(
            f"the gradient of {name} must have its shape {parameter.shape}, got {gradient.shape}"
        )
    return gradient


def _gradient(parameter: Tensor, index: int) -> Any:
    return gradient_array(parameter, f"parameter {index}")


def _checked(params: Any) -> list[Tensor]:
    if isinstance(params, Layer | Tensor) or not isinstance(params, Iterable):
        raise ValueError(
            f"`params` must be a list of tensors, got {type(params).__name__}: pass model.parameters()"
        )
    found = list(params)
    if not found:
        raise ValueError(
            "`params` must hold at least one parameter, got none: quantized and compressed models have none "
            "to train, so train a model before"
        )
    for item in found:
        if not isinstance(item, Tensor):
            raise ValueError(
                f"`params` must hold tensors, got {type(item).__name__}: pass model.parameters()"
            )
    if len({id(item) for item in found}) < len(found):
        raise ValueError("`params` must hold each parameter once, but one comes twice")
    return found


def _not_negative(value: Any, name: str) -> float:
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float | np.number)
        or not 0 <= float(value) < np.inf
    ):
        raise ValueError(f"`{name}` must be a number of zero or more, got {value!r}")
    return float(value)
