"""Softmax and the negative logarithm of the right class's share, in one: forward and backward."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]


def forward(logits: Array, labels: NDArray[np.intp]) -> tuple[Array, Array]:
    """Return the mean loss over all rows, and the class probabilities, which `backward` needs.

    Args:
        logits: shape (n, classes), n > 0.
        labels: shape (n,), the index of the right class in each row.
    """
    rows = np.arange(len(labels))
    largest = logits.max(axis=-1, keepdims=True)
    probabilities = logits - largest
    right = probabilities[rows, labels]
    np.exp(probabilities, out=probabilities)
    totals = np.add.reduce(probabilities, axis=-1, keepdims=True)
    probabilities /= totals
    losses = np.log(totals[:, 0])
    losses -= right
    return np.asarray(np.add.reduce(losses) / logits.dtype.type(len(losses))), probabilities


def backward(g: Array, probabilities: Array, labels: NDArray[np.intp]) -> Array:
    """Return the gradient with respect to the logits, from that of the mean loss, a single number."""
    share = probabilities.dtype.type(g / len(labels))
    of_logits = probabilities * share
    of_logits[np.arange(len(labels)), labels] -= share
    return of_logits
