"""Losses: what training makes small. Each is a mean, a single number, and none of them broadcasts."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinytorch.core.autograd import Array, Vjps
from tinytorch.core.checks import Indices, indices
from tinytorch.core.layers import Layer
from tinytorch.core.tensor import Tensor, apply, as_tensor
from tinytorch.kernels import cross_entropy as cross_entropy_kernel


class MSELoss(Layer):
    """The mean of the squared differences."""

    def forward(self, predictions: Any, targets: Any) -> Tensor:
        """Return a single number.

        Raises:
            ValueError: the shapes differ, or are empty.
        """
        predictions, targets = as_tensor(predictions, "predictions"), as_tensor(targets, "targets")
        _check_shapes(self, predictions, targets)
        return apply(mean_squared_error, predictions, targets)


class CrossEntropyLoss(Layer):
    """The mean of -log softmax(logits) at the right classes, in one stable operation."""

    def forward(self, logits: Any, labels: Any) -> Tensor:
        """Return a single number.

        Args:
            logits: shape (..., classes).
            labels: whole numbers of shape (...), the index of the right class each.

        Raises:
            ValueError: the shapes do not fit, are empty, or a label is no class (also an IndexError).
        """
        logits = as_tensor(logits, "logits")
        if logits.ndim < 2 or logits.size == 0:
            raise ValueError(
                f"{self!r} expects logits of shape (..., classes), not empty, got {logits.shape}"
            )
        classes = indices(labels, "labels", logits.shape[-1], "classes")
        if classes.shape != logits.shape[:-1]:
            raise ValueError(
                f"{self!r} expects labels of shape {logits.shape[:-1]} for logits of shape {logits.shape}, "
                f"got {classes.shape}"
            )
        return apply(cross_entropy, logits, classes)


class BinaryCrossEntropyLoss(Layer):
    """The mean of -(t log p + (1 - t) log(1 - p)) for probabilities p and targets t between 0 and 1.

    Logarithms are held above -100, so that a prediction of exactly 0 or 1 that is wrong costs 100.
    """

    def forward(self, predictions: Any, targets: Any) -> Tensor:
        """Return a single number.

        Raises:
            ValueError: the shapes differ or are empty, or something lies outside [0, 1].
        """
        predictions, targets = as_tensor(predictions, "predictions"), as_tensor(targets, "targets")
        _check_shapes(self, predictions, targets)
        for name, tensor in (("predictions", predictions), ("targets", targets)):
            outside = (tensor.data < 0) | (tensor.data > 1)
            if outside.any():
                raise ValueError(f"`{name}` must lie between 0 and 1, got {tensor.data[outside].flat[0]}")
        return apply(binary_cross_entropy, predictions, targets)


def mean_squared_error(predictions: Array, targets: Array) -> tuple[Array, Vjps]:
    """Rule of MSELoss."""
    difference = predictions - targets
    loss = np.asarray(np.mean(difference * difference))
    share = 2 / difference.size
    return loss, (lambda g: difference * (g * share), lambda g: difference * (g * -share))


def cross_entropy(logits: Array, labels: Indices) -> tuple[Array, Vjps]:
    """Rule of CrossEntropyLoss: (..., classes) and (...) to a single number."""
    flat = labels.reshape(-1)
    loss, probabilities = cross_entropy_kernel.forward(logits.reshape(-1, logits.shape[-1]), flat)

    def vjp(g: Array) -> Array:
        return cross_entropy_kernel.backward(g, probabilities, flat).reshape(logits.shape)

    return loss, (vjp, None)


def binary_cross_entropy(predictions: Array, targets: Array) -> tuple[Array, Vjps]:
    """Rule of BinaryCrossEntropyLoss; beyond the bound of the logarithm there is no slope."""
    with np.errstate(divide="ignore"):
        log_p, log_q = (np.maximum(np.log(p), -100) for p in (predictions, 1 - predictions))
    loss = np.asarray(-np.mean(targets * log_p + (1 - targets) * log_q))
    n = predictions.size

    def of_predictions(g: Array) -> Array:
        p, q = (
            np.where(log > -100, value, np.inf)
            for log, value in ((log_p, predictions), (log_q, 1 - predictions))
        )
        return ((1 - targets) / q - targets / p) * (g / n)

    return loss, (of_predictions, lambda g: (log_q - log_p) * (g / n))


def _check_shapes(loss: Layer, predictions: Tensor, targets: Tensor) -> None:
    if predictions.shape != targets.shape:
        raise ValueError(
            f"{loss!r} expects predictions and targets of one shape, got {predictions.shape} and "
            f"{targets.shape}"
        )
    if predictions.size == 0:
        raise ValueError(f"{loss!r} expects at least one prediction, got shape {predictions.shape}")
