"""The updates of parameters, each in one pass over memory."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tinytorch.kernels.choice import Kernel, compiled_or_none, fits

Array = NDArray[np.floating]

# Below this NumPy's ten passes over a parameter take no longer than the compiled call.
_SMALLEST = 512
# NumPy's two passes for SGD are slower only where a parameter and its gradient fill the second-level cache:
# 105 against 50 us for 784 x 256 (2 MB of cache).
_SMALLEST_SGD = 1 << 16


def sgd(
    data: Array, gradient: Array, velocity: Array | None, lr: float, momentum: float, decay: float
) -> None:
    """Change `data`, and `velocity` where there is one, in place.

    Args:
        data, gradient, velocity: of one shape.
        lr: the learning rate.
        momentum: what the velocity keeps.
        decay: share of `data` that is added to the gradient.
    """
    arrays = (data, gradient) if velocity is None else (data, gradient, velocity)
    _check(*arrays)
    if fits(_SMALLEST_SGD, *arrays) and (kernel := _sgd_kernel()) is not None:
        flat = [array.reshape(-1) for array in arrays]
        kernel(flat[0], flat[1], flat[-1], lr, momentum, decay, velocity is not None)
    else:
        sgd_reference(data, gradient, velocity, lr, momentum, decay)


def _check(data: Array, *others: Array) -> None:
    """Refuse other shapes: loops would read beyond what is shorter, and NumPy would broadcast it."""
    for other in others:
        if other.shape != data.shape:
            raise ValueError(
                f"the gradient and the running numbers of a parameter must have its shape {data.shape}, got "
                f"{other.shape}: make a new optimizer after a parameter was given another shape"
            )


def sgd_reference(
    data: Array, gradient: Array, velocity: Array | None, lr: float, momentum: float, decay: float
) -> None:
    """`sgd` in NumPy."""
    if decay:
        gradient = gradient + data * data.dtype.type(decay)
    if velocity is not None:
        velocity *= velocity.dtype.type(momentum)
        velocity += gradient
        gradient = velocity
    data -= gradient * data.dtype.type(lr)


def adam(
    data: Array,
    gradient: Array,
    mean: Array,
    square: Array,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    step: int,
    decay: float,
) -> None:
    """Change `data`, `mean` and `square` in place, by algorithm 1 of Kingma and Ba 2015.

    Args:
        data, gradient, mean, square: of one shape.
        lr: the learning rate.
        betas: what the running mean and the running square keep.
        eps: added to the root of the corrected square.
        step: number of this step, from 1; corrects the running numbers for having started at zero.
        decay: share of `data` that is taken away first.
    """
    _check(data, gradient, mean, square)
    size = lr / (1 - betas[0] ** step)
    root = (1 - betas[1] ** step) ** 0.5
    if fits(_SMALLEST, data, gradient, mean, square) and (kernel := _adam_kernel()) is not None:
        flat = [array.reshape(-1) for array in (data, gradient, mean, square)]
        kernel(*flat, size, root, *betas, eps, decay)
    else:
        adam_reference(data, gradient, mean, square, size, root, *betas, eps, decay)


def adam_reference(
    data: Array,
    gradient: Array,
    mean: Array,
    square: Array,
    size: float,
    root: float,
    beta1: float,
    beta2: float,
    eps: float,
    decay: float,
) -> None:
    """`adam` in NumPy.

    Args:
        data, gradient, mean, square: of one shape.
        size: the learning rate over the correction of the mean.
        root: square root of the correction of the square.
        beta1, beta2: what the running numbers keep.
        eps: added to the root.
        decay: share of `data` that is taken away first.
    """
    number = data.dtype.type
    if decay:
        data *= number(1 - decay)
    mean *= number(beta1)
    scratch = gradient * number(1 - beta1)
    mean += scratch
    square *= number(beta2)
    np.multiply(gradient, gradient, out=scratch)
    scratch *= number(1 - beta2)
    square += scratch
    np.sqrt(square, out=scratch)
    scratch *= number(1 / root)
    scratch += number(eps)
    np.divide(mean, scratch, out=scratch)
    scratch *= number(size)
    data -= scratch


def _sgd(
    data: Array, gradient: Array, velocity: Array, lr: float, momentum: float, decay: float, moving: bool
) -> None:
    rate, keep, pull = np.float32(lr), np.float32(momentum), np.float32(decay)
    if moving:
        for i in range(data.size):
            v = velocity[i] * keep + gradient[i] + data[i] * pull
            velocity[i] = v
            data[i] -= v * rate
    else:
        for i in range(data.size):
            data[i] -= (gradient[i] + data[i] * pull) * rate


def _sgd_kernel() -> Kernel | None:
    arrays = ", ".join(["float32[::1]"] * 3)
    return compiled_or_none(_sgd, f"void({arrays}{', float64' * 3}, boolean)", _sgd_agrees)


def _sgd_agrees(kernel: Kernel) -> bool:
    rng = np.random.default_rng(0)
    start, gradient, velocity = (rng.standard_normal(37, np.float32) for _ in range(3))
    for moving in (False, True):
        found, expected = start.copy(), start.copy()
        kernel(found, gradient, velocity.copy(), 0.1, 0.9, 0.01, moving)
        sgd_reference(expected, gradient, velocity.copy() if moving else None, 0.1, 0.9, 0.01)
        if not np.allclose(found, expected, rtol=1e-5, atol=1e-6):
            return False
    return True


def _adam(
    data: Array,
    gradient: Array,
    mean: Array,
    square: Array,
    size: float,
    root: float,
    beta1: float,
    beta2: float,
    eps: float,
    decay: float,
) -> None:
    keep, b1, c1 = np.float32(1 - decay), np.float32(beta1), np.float32(1 - beta1)
    b2, c2 = np.float32(beta2), np.float32(1 - beta2)
    length, inverse, small = np.float32(size), np.float32(1 / root), np.float32(eps)
    for i in range(data.size):
        g = gradient[i]
        m = mean[i] * b1 + g * c1
        v = square[i] * b2 + g * g * c2
        mean[i] = m
        square[i] = v
        data[i] = data[i] * keep - m / (np.sqrt(v) * inverse + small) * length


def _adam_kernel() -> Kernel | None:
    arrays = ", ".join(["float32[::1]"] * 4)
    return compiled_or_none(_adam, f"void({arrays}{', float64' * 6})", _adam_agrees)


def _adam_agrees(kernel: Kernel) -> bool:
    rng = np.random.default_rng(0)
    data, gradient, mean = (rng.standard_normal(37, np.float32) for _ in range(3))
    square = rng.random(37, np.float32)
    expected = data.copy()
    options = (0.01, 0.3, 0.9, 0.999, 1e-8, 0.001)
    adam_reference(expected, gradient, mean.copy(), square.copy(), *options)
    kernel(data, gradient, mean, square, *options)
    return np.allclose(data, expected, rtol=1e-5, atol=1e-6)
