"""Handwritten digits: the 1797 images of 8x8 pixels that come with scikit-learn."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinytorch.kernels import FloatArray

Labels = NDArray[np.intp]

_SEED = 0
#: share of the images that is held out, and how many that are in file order
_HELD_OUT = 450


@dataclass(frozen=True, slots=True)
class Digits:
    """Images with their labels.

    Attributes:
        images: pixels between 0 and 1, shape (n, 1, side, side), or (n, side * side) where flat.
        labels: which digit, shape (n,).
    """

    images: FloatArray
    labels: Labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, chosen: Any) -> Digits:
        return Digits(self.images[chosen], self.labels[chosen])


@dataclass(frozen=True, slots=True)
class Split:
    """What to train on and what to test with; no image is in both."""

    train: Digits
    test: Digits


def load_digits(
    split: str = "shuffled", *, flat: bool = False, side: int = 8, fold: tuple[int, int] | None = None
) -> Split:
    """Return the digits, split in one of two ways, or one fold of several.

    Args:
        split: "shuffled" holds out 450 images drawn class by class, always the same. "file-order" holds
            out the last 450: they are by writers of whom the training images know less, and harder.
        flat: give each image as one row of pixels.
        side: 8, or 28: each pixel three by three times, with two of zeros around.
        fold: (i, k): hold out the i-th of k parts, drawn class by class; `split` is not used. Together the
            k parts hold out every image once.

    Raises:
        ValueError: there is no such split, side or fold.
    """
    if split not in ("shuffled", "file-order"):
        raise ValueError(f"`split` must be 'shuffled' or 'file-order', got {split!r}")
    everything = _all(side, flat)
    held_out = _fold(everything.labels, *fold) if fold is not None else _held_out(everything.labels, split)
    return Split(everything[~held_out], everything[held_out])


def data_hash() -> str:
    """Return the SHA-256 of all images and labels, which tells whether two models saw the same data."""
    pixels, labels = _pixels()
    return hashlib.sha256(pixels.tobytes() + labels.astype("<i8").tobytes()).hexdigest()


@functools.cache
def _pixels() -> tuple[NDArray[np.uint8], Labels]:
    from sklearn.datasets import load_digits as from_scikit_learn

    images, labels = from_scikit_learn(return_X_y=True)
    return images.astype(np.uint8), labels.astype(np.intp)


def _all(side: int, flat: bool) -> Digits:
    pixels, labels = _pixels()
    images = pixels.reshape(-1, 1, 8, 8).astype(np.float32) / np.float32(16)
    if side == 28:
        images = np.pad(images.repeat(3, axis=2).repeat(3, axis=3), ((0, 0), (0, 0), (2, 2), (2, 2)))
    elif side != 8:
        raise ValueError(f"`side` must be 8 or 28, got {side!r}")
    return Digits(images.reshape(len(images), -1) if flat else images, labels)


def _held_out(labels: Labels, split: str) -> NDArray[np.bool_]:
    chosen = np.zeros(len(labels), bool)
    if split == "file-order":
        chosen[-_HELD_OUT:] = True
    else:
        chosen[_by_class(labels)[:_HELD_OUT]] = True
    return chosen


def _fold(labels: Labels, index: int, count: int) -> NDArray[np.bool_]:
    if not (isinstance(count, int) and count > 1 and isinstance(index, int) and 0 <= index < count):
        raise ValueError(
            f"`fold` must be (i, k) with k of at least 2 and i in 0 to k - 1, got ({index}, {count})"
        )
    chosen = np.zeros(len(labels), bool)
    chosen[np.array_split(_by_class(labels), count)[index]] = True
    return chosen


def _by_class(labels: Labels) -> Labels:
    """Return all indices in such an order that any stretch of it has about as many of each class."""
    rng = np.random.default_rng(_SEED)
    place = np.empty(len(labels))
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        # Evenly over the whole order, and each class from another point on.
        place[rng.permutation(members)] = (np.arange(len(members)) + rng.random()) / len(members)
    return np.argsort(place, kind="stable")
