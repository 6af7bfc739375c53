"""Embeddings: vectors for tokens and for positions."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinytorch.core.autograd import Array, Vjps
from tinytorch.core.checks import Indices, indices, positive_int
from tinytorch.core.layers import Layer
from tinytorch.core.random import generator
from tinytorch.core.tensor import Parameter, Tensor, apply, as_tensor


class Embedding(Layer):
    """A table with a vector for every token.

    Args:
        vocab_size: how many tokens there are.
        embed_dim: length of a vector.
        rng: for the table, which is normal with standard deviation 0.02 (Radford et al. 2019).

    Attributes:
        weight: shape (vocab_size, embed_dim).
    """

    def __init__(self, vocab_size: int, embed_dim: int, *, rng: np.random.Generator | None = None) -> None:
        self.vocab_size = positive_int(vocab_size, "vocab_size")
        self.embed_dim = positive_int(embed_dim, "embed_dim")
        self.weight = Parameter(generator(rng).normal(0, 0.02, (self.vocab_size, self.embed_dim)))

    def forward(self, tokens: Any) -> Tensor:
        """Map whole numbers of shape (...) to vectors of shape (..., embed_dim).

        Raises:
            ValueError: a token is no whole number, or not in the vocabulary (also an IndexError).
        """
        return apply(
            embed, self.weight, indices(tokens, "tokens", self.vocab_size, "tokens in the vocabulary")
        )

    def __repr__(self) -> str:
        return f"Embedding({self.vocab_size}, {self.embed_dim})"


class PositionalEncoding(Layer):
    """Adds sines and cosines of the position, which need no training (Vaswani et al. 2017, section 3.5).

    Args:
        max_seq_len: how many positions there are.
        embed_dim: length of a vector.

    Attributes:
        encoding: shape (max_seq_len, embed_dim).
    """

    def __init__(self, max_seq_len: int, embed_dim: int) -> None:
        self.max_seq_len = positive_int(max_seq_len, "max_seq_len")
        self.embed_dim = positive_int(embed_dim, "embed_dim")
        self.encoding = sinusoidal(self.max_seq_len, self.embed_dim)

    def forward(self, x: Any, start_pos: int = 0) -> Tensor:
        """Add the encodings of positions `start_pos` and on to x of shape (..., T, embed_dim).

        Raises:
            ValueError: `x` has another width, or reaches beyond the last position.
        """
        inputs = as_tensor(x, "x")
        if inputs.ndim < 2 or inputs.shape[-1] != self.embed_dim:
            raise ValueError(f"{self!r} expects shape (..., T, {self.embed_dim}), got {inputs.shape}")
        end = start_pos + inputs.shape[-2]
        if start_pos < 0 or end > self.max_seq_len:
            raise ValueError(
                f"{self!r} has positions 0 to {self.max_seq_len - 1}, got {start_pos} to {end - 1}"
            )
        return inputs + self.encoding[start_pos:end]

    def __repr__(self) -> str:
        return f"PositionalEncoding({self.max_seq_len}, {self.embed_dim})"


def sinusoidal(positions: int, dim: int) -> Array:
    """Return sin and cos of position / 10000^(2 i / dim), side by side: shape (positions, dim)."""
    frequencies = np.exp(np.arange(0, dim, 2) * (-np.log(10000.0) / dim))
    angles = np.arange(positions)[:, None] * frequencies
    table = np.empty((positions, dim), np.float32)
    table[:, 0::2] = np.sin(angles)
    table[:, 1::2] = np.cos(angles[:, : dim // 2])
    return table


def embed(weight: Array, tokens: Indices) -> tuple[Array, Vjps]:
    """Rule of `Embedding`: rows of `weight`, each of which gets the sum of the gradients where it was taken.

    Sorted tokens make one sum for each that occurs, where adding row by row (`np.add.at`) takes longer.
    """

    def vjp(g: Array) -> Array:
        of_weight = np.zeros_like(weight)
        if tokens.size == 0:
            return of_weight
        flat = tokens.reshape(-1)
        order = np.argsort(flat, kind="stable")
        ordered = flat[order]
        starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
        of_weight[ordered[starts]] = np.add.reduceat(g.reshape(-1, weight.shape[1])[order], starts, axis=0)
        return of_weight

    return weight[tokens], (vjp, None)
