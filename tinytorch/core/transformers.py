"""Transformers: blocks of attention and a perceptron, and a language model made of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tinytorch.core import inference
from tinytorch.core.activations import GELU
from tinytorch.core.attention import MultiHeadAttention, causal_mask
from tinytorch.core.autograd import no_grad
from tinytorch.core.checks import Indices, fraction, indices, positive_int
from tinytorch.core.embeddings import Embedding
from tinytorch.core.layers import Dropout, Layer, LayerNorm, Linear
from tinytorch.core.random import generator
from tinytorch.core.tensor import Tensor, as_tensor, wrap
from tinytorch.kernels import FloatArray


class MLP(Layer):
    """Two linear layers with GELU between them, applied to every position alike.

    Args:
        embed_dim: width of the input and of the output.
        hidden_dim: width between, four times `embed_dim` unless given.
        dropout_prob: share of the output that is dropped in training.
        rng: for the weights.
    """

    def __init__(
        self,
        embed_dim: int,
        hidden_dim: int | None = None,
        dropout_prob: float = 0.0,
        *,
        rng: np.random.Generator | None = None,
    ) -> None:
        rng = generator(rng)
        hidden = 4 * positive_int(embed_dim, "embed_dim") if hidden_dim is None else hidden_dim
        self.linear1 = Linear(embed_dim, hidden, rng=rng)
        self.gelu = GELU()
        self.linear2 = Linear(hidden, embed_dim, rng=rng)
        self.dropout = Dropout(dropout_prob, rng=rng)

    def forward(self, x: Any) -> Tensor:
        """Keep the shape (..., embed_dim) of `x`."""
        return self.dropout(self.linear2(self.gelu(self.linear1(x))))


class TransformerBlock(Layer):
    """`x + attention(ln1(x))`, then `x + mlp(ln2(x))`: normalised before, not after (Radford et al. 2019).

    Args:
        embed_dim: width.
        num_heads: number of heads; it divides `embed_dim`.
        mlp_ratio: width inside the perceptron over `embed_dim`.
        dropout_prob: share of each branch's output that is dropped in training.
        rng: for the weights.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        mlp_ratio: int = 4,
        dropout_prob: float = 0.0,
        *,
        rng: np.random.Generator | None = None,
    ) -> None:
        rng = generator(rng)
        self.ln1 = LayerNorm(embed_dim)
        self.attention = MultiHeadAttention(embed_dim, num_heads, rng=rng)
        self.dropout = Dropout(dropout_prob, rng=rng)
        self.ln2 = LayerNorm(embed_dim)
        self.mlp = MLP(embed_dim, positive_int(mlp_ratio, "mlp_ratio") * embed_dim, dropout_prob, rng=rng)

    def forward(self, x: Any, mask: Any = None) -> Tensor:
        """Keep the shape (B, T, embed_dim) of `x`; the mask is that of `MultiHeadAttention`."""
        inputs = as_tensor(x, "x")
        attended = inputs + self.dropout(self.attention(self.ln1(inputs), mask))
        return attended + self.mlp(self.ln2(attended))


class GPT(Layer):
    """A language model: from each token and those before it, scores of what comes next.

    Args:
        vocab_size: number of tokens there are.
        embed_dim: width.
        num_layers: number of blocks.
        num_heads: number of heads in each block; it divides `embed_dim`.
        max_seq_len: how many positions it knows.
        dropout_prob: share of the embeddings and of each branch that is dropped in training.
        rng: for the weights.
    """

    def __init__(
        self,
        vocab_size: int,
        embed_dim: int,
        num_layers: int,
        num_heads: int,
        max_seq_len: int = 1024,
        dropout_prob: float = 0.0,
        *,
        rng: np.random.Generator | None = None,
    ) -> None:
        self.vocab_size = positive_int(vocab_size, "vocab_size")
        self.embed_dim = positive_int(embed_dim, "embed_dim")
        self.num_layers = positive_int(num_layers, "num_layers")
        self.num_heads = positive_int(num_heads, "num_heads")
        self.max_seq_len = positive_int(max_seq_len, "max_seq_len")
        fraction(dropout_prob, "dropout_prob")
        rng = generator(rng)
        self.token_embedding = Embedding(vocab_size, embed_dim, rng=rng)
        self.position_embedding = Embedding(max_seq_len, embed_dim, rng=rng)
        self.dropout = Dropout(dropout_prob, rng=rng)
        self.blocks = [
            TransformerBlock(embed_dim, num_heads, dropout_prob=dropout_prob, rng=rng)
            for _ in range(num_layers)
        ]
        self.ln_f = LayerNorm(embed_dim)
        self.lm_head = Linear(embed_dim, vocab_size, rng=rng)

    def forward(self, tokens: Any, start_pos: int = 0) -> Tensor:
        """Return the scores of the next token at every position; none sees a later one.

        Args:
            tokens: whole numbers, shape (B, T).
            start_pos: position of the first token. Those before are seen only where a cache holds them; see
                `tinytorch.perf.memoization.enable_kv_cache`.

        Returns:
            Logits of shape (B, T, vocab_size).

        Raises:
            ValueError: another shape, nothing at all, a token that does not exist (also an IndexError), or
                positions beyond `max_seq_len`.
        """
        ids = self._checked(tokens, start_pos)
        continued = inference.continued(self, ids, start_pos)
        if continued is not None:
            return wrap(continued)
        positions = np.arange(start_pos, start_pos + ids.shape[1])
        x = self.dropout(self.token_embedding(ids) + self.position_embedding(positions))
        mask = causal_mask(ids.shape[1])
        for block in self.blocks:
            x = block(x, mask)
        return self.lm_head(self.ln_f(x))

    def generate(
        self,
        prompt: Any,
        max_new_tokens: int,
        temperature: float = 1.0,
        *,
        rng: np.random.Generator | None = None,
    ) -> Indices:
        """Continue a prompt, token by token, without dropout.

        Args:
            prompt: whole numbers, shape (B, T) or (T,).
            max_new_tokens: how many to add.
            temperature: scores are divided by it before one is drawn; 0 always takes the best.
            rng: for the draws.

        Returns:
            Whole numbers of shape (B, T + max_new_tokens), the prompt first.

        Raises:
            ValueError: as for `forward`, or the result would be longer than `max_seq_len`.
            RuntimeError: another thread is generating with the same cache.
        """
        ids = indices(prompt, "prompt", self.vocab_size, "tokens in the vocabulary")
        ids = self._checked(ids[None] if ids.ndim == 1 else ids, 0)
        wanted = positive_int(max_new_tokens, "max_new_tokens") if max_new_tokens else 0
        if ids.shape[1] + wanted > self.max_seq_len:
            raise ValueError(
                f"a prompt of {ids.shape[1]} and {wanted} new tokens are longer than `max_seq_len` "
                f"(={self.max_seq_len})"
            )
        number = isinstance(temperature, int | float | np.integer | np.floating)
        if not (number and 0 <= temperature < np.inf):
            raise ValueError(f"`temperature` must be a number of zero or more, got {temperature!r}")
        modes = [(layer, layer.training) for _, layer in self.named_layers()]
        self.eval()
        try:
            with no_grad(), inference.generating(self):
                return self._continued(ids, wanted, temperature, generator(rng))
        finally:
            for layer, training in modes:
                layer.training = training

    def _continued(self, ids: Indices, wanted: int, temperature: float, rng: np.random.Generator) -> Indices:
        result = np.empty((ids.shape[0], ids.shape[1] + wanted), np.intp)
        result[:, : ids.shape[1]] = ids
        scores = self._scores_of_last(len(ids), result.shape[1] - 1) if wanted else None
        for length in range(ids.shape[1], result.shape[1]):
            assert scores is not None  # something is wanted
            result[:, length] = drawn(scores(result[:, :length]), temperature, rng)
        return result

    def _scores_of_last(self, batch: int, longest: int) -> Callable[[Indices], FloatArray]:
        """Return what gives the scores after the last of more and more tokens, (B, T) to (B, vocab)."""
        steps, cache = inference.steps_of(self), inference.cached(self)
        if steps is None:  # a model of one's own
            return lambda ids: self.forward(ids).data[:, -1]
        if cache is None:
            return lambda ids: steps.logits(ids, 0, None, last_only=True)[:, -1]
        cache.room(0, longest)
        cache.begin(batch)
        return lambda ids: steps.logits(ids[:, cache.length :], cache.length, cache, last_only=True)[:, -1]

    def _checked(self, tokens: Any, start_pos: int) -> Indices:
        ids = indices(tokens, "tokens", self.vocab_size, "tokens in the vocabulary")
        if ids.ndim != 2 or ids.size == 0:
            raise ValueError(f"{self!r} expects tokens of shape (B, T), not empty, got {ids.shape}")
        if isinstance(start_pos, bool) or not isinstance(start_pos, int | np.integer) or start_pos < 0:
            raise ValueError(f"`start_pos` must be a whole number of zero or more, got {start_pos!r}")
        if start_pos + ids.shape[1] > self.max_seq_len:
            raise ValueError(
                f"positions {start_pos} to {start_pos + ids.shape[1] - 1} do not all exist: `max_seq_len` is "
                f"{self.max_seq_len}"
            )
        return ids

    def __repr__(self) -> str:
        sizes = (self.vocab_size, self.embed_dim, self.num_layers, self.num_heads, self.max_seq_len)
        return f"GPT({', '.join(map(str, sizes))})"


def drawn(logits: Any, temperature: float, rng: np.random.Generator) -> Indices:
    """Draw one token for each row of logits, shape (B, vocab) to (B,); at temperature 0 the best.

    A Gumbel number added to each score makes the largest a draw from the softmax.
    """
    if temperature == 0:
        best: Indices = logits.argmax(axis=-1)
        return best
    noisy: Indices = (logits.astype(float) / temperature + rng.gumbel(size=logits.shape)).argmax(axis=-1)
    return noisy
