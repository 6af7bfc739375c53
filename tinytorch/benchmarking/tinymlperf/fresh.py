"""Inputs that did not exist before, whose labels are known: altered images, and spliced texts."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

# Images are moved by up to a quarter of a digit's pixel, dimmed or lit by up to a tenth, and get noise of a
# third of a grey level: people and models read them as before, and rounded pixels are no key to originals.
# The nearest original has the right label for 450 of 450, as after anything that leaves a digit what it is.
_SHIFT, _LIGHT, _NOISE = 0.25, 0.1, 0.02


def altered(images: Array, rng: np.random.Generator) -> Array:
    """Return images moved by part of a pixel, in other light and with noise, in the shape they came in.

    They keep answers from being looked up by equality. Who has the originals with their labels, and looks for
    the nearest one, still knows every answer.

    Args:
        images: between 0 and 1, shape (n, 1, side, side) or (n, side * side).
        rng: for the alterations, other ones for each image.
    """
    count = len(images)
    side = images.shape[-1] if images.ndim == 4 else round(images.shape[1] ** 0.5)
    square = images.reshape(count, side, side).astype(np.float64)
    for axis in (1, 2):
        reach = _SHIFT * max(side // 8, 1)
        square = _moved(square, rng.uniform(-reach, reach, count), axis)
    square = square * rng.uniform(1 - _LIGHT, 1 + _LIGHT, (count, 1, 1))
    square += rng.normal(0.0, _NOISE, square.shape)
    return square.reshape(images.shape).astype(np.float32)


def _moved(square: NDArray[np.float64], by: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """Move each image by less than a pixel: what leaves it is lost, what enters is its border."""
    edge = np.pad(square, [(0, 0), *((1, 1) if a == axis else (0, 0) for a in (1, 2))], mode="edge")
    size = square.shape[axis]
    before, after = (np.take(edge, range(start, start + size), axis=axis) for start in (0, 2))
    share = by[:, None, None]
    moved: NDArray[np.float64] = square * (1 - np.abs(share))
    moved += before * np.maximum(share, 0) + after * np.maximum(-share, 0)
    return moved


def spliced(tokens: Array, count: int, length: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Return pieces of a text that go on as other ones from a cut on, and what came next before the cut.

    The next token of a text is also the next input, so a model that looks ahead would know it. Only at a
    cut it does not: there the label is of the one piece, and what follows in the input of another. Cuts lie
    anywhere with equal chance, after the last token too, so the mean loss is that of whole pieces.

    Args:
        tokens: the text, shape (n,) with n > length.
        count: how many pieces.
        length: of a piece.
        rng: for where they start, and for the cuts.

    Returns:
        Inputs and labels, each of shape (count, length); labels are -1 except at the token before the cut.
    """
    inputs, following = pieces(tokens, count, length, rng)
    others, _ = pieces(tokens, count, length, rng)
    place, cut = np.arange(length), rng.integers(1, length + 1, (count, 1))
    return np.where(place < cut, inputs, others), np.where(place == cut - 1, following, -1)


def pieces(tokens: Array, count: int, length: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Return pieces of a text that start anywhere, and for each of their tokens the next one."""
    starts = rng.integers(0, len(tokens) - length, count)[:, None] + np.arange(length)
    return tokens[starts], tokens[starts + 1]
