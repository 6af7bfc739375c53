"""A GPT as it is written without any care: formula by formula in NumPy, all positions anew each time."""

from __future__ import annotations

import numpy as np


def textbook(model, ids):
    """Scores after each token, shape (T, vocab), in plain NumPy."""
    heads, length = model.num_heads, len(ids)
    hidden = np.where(np.tri(length) == 1, np.float32(0), np.float32(-1e9))

    def normalized(x, layer):
        spread = np.sqrt(x.var(axis=-1, keepdims=True) + np.float32(1e-5))
        return (x - x.mean(axis=-1, keepdims=True)) / spread * layer.gamma.data + layer.beta.data

    def through(x, layer):
        return x @ layer.weight.data + layer.bias.data

    def split(x):
        return x.reshape(length, heads, -1).transpose(1, 0, 2)

    x = model.token_embedding.weight.data[ids] + model.position_embedding.weight.data[:length]
    for block in model.blocks:
        h, attention = normalized(x, block.ln1), block.attention
        q, k, v = (split(through(h, p)) for p in (attention.q_proj, attention.k_proj, attention.v_proj))
        scores = q @ k.transpose(0, 2, 1) / np.float32(np.sqrt(q.shape[-1])) + hidden
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        x = x + through((weights @ v).transpose(1, 0, 2).reshape(length, -1), attention.out_proj)
        h = through(normalized(x, block.ln2), block.mlp.linear1)
        h = (
            np.float32(0.5)
            * h
            * (1 + np.tanh(np.float32(np.sqrt(2 / np.pi)) * (h + np.float32(0.044715) * h**3)))
        )
        x = x + through(h, block.mlp.linear2)
    return through(normalized(x, model.ln_f), model.lm_head)
