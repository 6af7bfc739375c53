"""A text for language models: the documentation topics that the running Python carries for `help()`.

Nothing of it is copied. It differs between versions of Python, which is why its hash goes along with
whatever is trained or measured on it.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_HELD_OUT = 0.1


@dataclass(frozen=True, slots=True)
class Text:
    """A text in two parts.

    Attributes:
        train: the first nine tenths.
        held_out: the rest, for evaluation.
        sha256: of the whole.
    """

    train: str
    held_out: str
    sha256: str

    @property
    def whole(self) -> str:
        """Both parts together."""
        return self.train + self.held_out


@functools.cache
def load_text() -> Text:
    """Return the topics in the order of their names, about 465,000 characters in Python 3.11."""
    from pydoc_data.topics import topics

    whole = "\n\n".join(topics[name].strip() for name in sorted(topics)) + "\n"
    cut = round(len(whole) * (1 - _HELD_OUT))
    return Text(whole[:cut], whole[cut:], hashlib.sha256(whole.encode()).hexdigest())


def windows(
    tokens: NDArray[np.intp], length: int, count: int, rng: np.random.Generator
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Draw pieces of a text, and for each of their tokens the next one.

    Args:
        tokens: the text, shape (n,) with n > length.
        length: of a piece.
        count: how many pieces.
        rng: for where they start.

    Returns:
        Two arrays of shape (count, length).
    """
    starts = rng.integers(0, len(tokens) - length, count)[:, None] + np.arange(length)
    return tokens[starts], tokens[starts + 1]


def bigram_bits(train: NDArray[np.intp], held_out: NDArray[np.intp], vocab_size: int) -> float:
    """Return the bits per token of a table of pairs, counted in `train`, on `held_out`: a yardstick.

    Every pair is counted a tenth of a time more than it occurs, so that none is impossible.
    """
    counts = np.full((vocab_size, vocab_size), 0.1)
    np.add.at(counts, (train[:-1], train[1:]), 1)
    shares = counts / counts.sum(axis=1, keepdims=True)
    return float(-np.log2(shares[held_out[:-1], held_out[1:]]).mean())
