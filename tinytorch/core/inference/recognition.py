"""Which models fused steps fit: a GPT, or a subclass that computes the same, made of the known parts."""

from __future__ import annotations

from typing import Any

from tinytorch.core.activations import GELU
from tinytorch.core.attention import MultiHeadAttention
from tinytorch.core.embeddings import Embedding
from tinytorch.core.inference.blocks import Block
from tinytorch.core.inference.projections import Projection, merged, outputs_of, replaced_forward
from tinytorch.core.layers import Dropout, LayerNorm

# What decides about what a GPT computes, and, with the last two, about whose steps these are. What a subclass
# makes of `generate` and the rest ends in one of these.
_DECISIVE = ("forward", "__call__", "__getattribute__", "__eq__", "__hash__")


def parts_of(model: Any) -> tuple[Any, ...] | None:
    """Return all layers that steps depend on, equal only to themselves; None where a block has others."""
    parts = [model.token_embedding, model.position_embedding, model.dropout, model.lm_head, model.ln_f]
    try:
        for block in model.blocks:
            attention, mlp = block.attention, block.mlp
            parts += (
                block, attention, mlp, block.ln1, block.ln2, block.dropout, mlp.gelu, mlp.linear1,
                mlp.linear2, mlp.dropout, attention.q_proj, attention.k_proj, attention.v_proj,
                attention.out_proj,
            )  # fmt: skip
    except AttributeError:
        return None
    return tuple(parts)


def known_blocks(model: Any) -> list[Block] | None:
    """Return the blocks of a GPT as fused steps take them; None where a part of it is of another class."""
    from tinytorch.core.transformers import GPT

    if not isinstance(model, GPT) or overridden(model) is not None or replaced_forward(model) is not None:
        return None
    if not model.blocks or not all(map(_is_known_block, model.blocks)):
        return None
    around = (model.token_embedding, model.position_embedding, model.dropout, model.ln_f)
    if not _are(around, (Embedding, Embedding, Dropout, LayerNorm)) or outputs_of(model.lm_head) is None:
        return None
    blocks = []
    for block in model.blocks:
        attention, mlp = block.attention, block.mlp
        layers = (
            attention.q_proj,
            attention.k_proj,
            attention.v_proj,
            attention.out_proj,
            mlp.linear1,
            mlp.linear2,
        )
        if any(outputs_of(layer) is None for layer in layers):
            return None
        q, k, v, out, first, second = map(Projection, layers)
        blocks.append(
            Block(attention, q, k, v, merged(*layers[:3]), out, first, second, block.ln1, block.ln2)
        )
    return blocks


def overridden(model: Any) -> str | None:
    """Return which method a subclass of GPT defines anew, "Class.method", so that steps may not fit it."""
    from tinytorch.core.transformers import GPT

    for cls in type(model).__mro__[: type(model).__mro__.index(GPT)]:
        for name in _DECISIVE:
            if name in vars(cls):
                return f"{cls.__name__}.{name}"
    return None


def _is_known_block(block: Any) -> bool:
    from tinytorch.core.transformers import MLP, TransformerBlock

    if type(block) is not TransformerBlock:
        return False
    mlp = block.mlp
    kinds = (TransformerBlock, MultiHeadAttention, LayerNorm, LayerNorm, Dropout, MLP)
    return _are((block, block.attention, block.ln1, block.ln2, block.dropout, mlp), kinds) and _are(
        (mlp.gelu, mlp.dropout), (GELU, Dropout)
    )


def _are(layers: tuple[Any, ...], kinds: tuple[type, ...]) -> bool:
    """Return whether layers are of these very classes, and compute what these compute."""
    return all(
        type(layer) is kind and replaced_forward(layer) is None
        for layer, kind in zip(layers, kinds, strict=True)
    )
