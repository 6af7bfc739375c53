"""Softmax and the negative logarithm of the right class's share, in one: forward and backward."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from tinytorch.kernels.choice import Kernel, compiled_or_none, fits

Array = NDArray[np.floating]
Labels = NDArray[np.intp]

# NumPy's passes are as quick while all of it stays in the first-level cache.
_SMALLEST = 16384
# The largest of a row is looked for in so many places at once; one after the other takes four times as long.
_LANES = 16
# See `gelu` for this way to compute exp.
_LOG2_E = np.float32(math.log2(math.e))
_C1, _C2, _C3, _C4, _C5, _C6 = (np.float32(math.log(2) ** k / math.factorial(k)) for k in range(1, 7))
_FARTHEST = np.float32(-126)


def forward(logits: Array, labels: Labels) -> tuple[Array, Array]:
    """Return the mean loss over all rows, and the class probabilities, which `backward` needs.

    Args:
        logits: shape (n, classes), not empty.
        labels: shape (n,), the index of the right class in each row.

    Raises:
        ValueError: there are no rows, or no classes.
    """
    if logits.size == 0:
        raise ValueError(f"`logits` must have shape (n, classes), not empty, got {logits.shape}")
    fitting = labels.shape == logits.shape[:1] and labels.dtype == np.intp and labels.flags.carray
    if fitting and fits(_SMALLEST, logits) and (kernel := _forward_kernel()) is not None:
        probabilities, losses = np.empty_like(logits), np.empty(len(labels), np.float32)
        kernel(logits, labels, probabilities, losses)
        return _mean(losses), probabilities
    return forward_reference(logits, labels)


def backward(g: Array, probabilities: Array, labels: Labels) -> Array:
    """Return the gradient with respect to the logits, from that of the mean loss, a single number."""
    share = probabilities.dtype.type(g / len(labels))
    of_logits = probabilities * share
    of_logits[np.arange(len(labels)), labels] -= share
    return of_logits


def forward_reference(logits: Array, labels: Labels) -> tuple[Array, Array]:
    """`forward` in NumPy."""
    probabilities = logits - logits.max(axis=-1, keepdims=True)
    right = probabilities[np.arange(len(labels)), labels]
    np.exp(probabilities, out=probabilities)
    totals = np.add.reduce(probabilities, axis=-1, keepdims=True)
    probabilities /= totals
    losses = np.log(totals[:, 0])
    losses -= right
    return _mean(losses), probabilities


def _mean(losses: Array) -> Array:
    return np.asarray(np.add.reduce(losses) / losses.dtype.type(len(losses)))


def _forward(logits: Array, labels: Labels, probabilities: Array, losses: Array) -> None:
    rows, classes = logits.shape
    one, half = np.float32(1), np.float32(0.5)
    lanes = np.empty(_LANES, np.float32)
    for i in range(rows):
        row, result = logits[i], probabilities[i]
        lanes[:] = row[0]
        for start in range(0, classes - _LANES + 1, _LANES):
            part = row[start : start + _LANES]
            for k in range(_LANES):
                lanes[k] = part[k] if part[k] > lanes[k] else lanes[k]
        largest = row[0]
        for k in range(_LANES):
            largest = lanes[k] if lanes[k] > largest else largest
        for j in range(classes - classes % _LANES, classes):
            largest = row[j] if row[j] > largest else largest
        total = np.float32(0)
        for j in range(classes):
            difference = row[j] - largest
            t = max(difference * _LOG2_E, _FARTHEST)
            n = np.floor(t + half)
            f = t - n
            power = one + f * (_C1 + f * (_C2 + f * (_C3 + f * (_C4 + f * (_C5 + f * _C6)))))
            power *= np.int32((np.int32(n) + np.int32(127)) << np.int32(23)).view(np.float32)
            # max lets go of a NaN: here it is again.
            power = power if difference == difference else difference  # noqa: PLR0124
            result[j] = power
            total += power
        share = one / total
        for j in range(classes):
            result[j] *= share
        losses[i] = np.log(total) - (row[labels[i]] - largest)


def _forward_kernel() -> Kernel | None:
    matrix = "float32[:, ::1]"
    return compiled_or_none(_forward, f"void({matrix}, intp[::1], {matrix}, float32[::1])", _agrees)


def _agrees(kernel: Kernel) -> bool:
    rng = np.random.default_rng(0)
    for classes in (1, 7, 16, 50):
        logits = 10 * rng.standard_normal((5, classes), np.float32)
        labels = rng.integers(0, classes, 5).astype(np.intp)
        probabilities, losses = np.empty_like(logits), np.empty(5, np.float32)
        kernel(logits, labels, probabilities, losses)
        mean, expected = forward_reference(logits, labels)
        close = np.allclose(probabilities, expected, rtol=1e-5, atol=1e-6)
        if not (close and np.allclose(losses.mean(), mean, rtol=1e-5, atol=1e-6)):
            return False
    return True
