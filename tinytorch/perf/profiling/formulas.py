"""How many floating-point operations (FLOPs) an operation takes, as formulas of the shapes.

A multiply-add counts 2, so that a product of (m, k) and (k, n) takes 2 m k n. A bias is free: the sum of k
products and a bias is k multiplications and k additions. Of everything else each addition,
multiplication, division, comparison, exponential, logarithm, root and hyperbolic tangent of an element
counts 1. What is done once for a row or a channel rather than for each element is not counted, and
moving numbers about takes none. Attention is counted in full, also where a mask blocks half of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tinytorch.core import activations, attention, derivatives, embeddings, layers, losses, spatial
from tinytorch.core.layers import Layer

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Work:
    """What something takes.

    Attributes:
        flops: floating-point operations, 2 for a multiply-add.
        macs: multiply-adds of products and convolutions, which are among the FLOPs twice.
    """

    flops: int
    macs: int = 0

    def __add__(self, other: Work) -> Work:
        return Work(self.flops + other.flops, self.macs + other.macs)


Shapes = Sequence[Shape | None]
Options = Mapping[str, Any]
#: of the shapes of the inputs (None for what is no array), the shape of the result, and the options
OperationFormula = Callable[[Shapes, Shape, Options], Work]
LayerFormula = Callable[["Call"], Work]


class Call(Protocol):
    """A call of a layer: the layer, the shapes of its first input and of its result, and its mode then."""

    layer: Any

    @property
    def given(self) -> Shape | None:
        """The shape of the first input."""

    @property
    def made(self) -> Shape | None:
        """The shape of the result."""

    @property
    def training(self) -> bool:
        """Whether the layer was in training mode."""


NOTHING = Work(0)


def products(macs: int) -> Work:
    """Return the work of so many multiply-adds."""
    return Work(2 * macs, macs)


def per_result(flops: int) -> OperationFormula:
    """Return the formula of so many FLOPs for each element of the result."""
    return lambda shapes, out, options: Work(flops * math.prod(out))


def per_input(flops: int) -> OperationFormula:
    """Return the formula of so many FLOPs for each element of the first input."""
    return lambda shapes, out, options: Work(flops * math.prod(shapes[0] or ()))


def _product(shapes: Shapes, out: Shape, _: Options) -> Work:
    """Every element of the result is a sum over the last axis of the left side."""
    assert shapes[0]
    return products(math.prod(out) * shapes[0][-1])


def _convolution(shapes: Shapes, out: Shape, _: Options) -> Work:
    """Every pixel of the result is a sum over a kernel."""
    assert shapes[1]
    return products(math.prod(out) * math.prod(shapes[1][1:]))


def _pooling(_: Shapes, out: Shape, options: Options) -> Work:
    """Every pixel of the result is compared with, or added to, all of its patch."""
    return Work(math.prod(out) * math.prod(options["window"].kernel))


# The largest, subtract it, exponentials, their sum, divide (or subtract its logarithm).
_SOFTMAX = 5
# Mean, subtract it, square, mean, divide by the root, scale, shift.
_NORMALISATION = 7
# 0.5 x (1 + tanh(c (x + 0.044715 x x x))).
_GELU = 9
# log p, log(1 - p), t times one, 1 - t times the other, added, and the mean: 1 - p and 1 - t are two more.
_BINARY_CROSS_ENTROPY = 8


def _int8_convolution(shapes: Shapes, out: Shape, options: Options) -> Work:
    """The same with kernels that are packed."""
    assert shapes[0]
    return products(math.prod(out) * shapes[0][1] * math.prod(options["window"].kernel))


def _sparse_product(shapes: Shapes, _: Shape, options: Options) -> Work:
    """Every row is multiplied by the weights that are stored, not by zeros."""
    assert shapes[0]
    return products(math.prod(shapes[0][:-1]) * options["layer"].values.size)


def _sparse_convolution(_: Shapes, out: Shape, options: Options) -> Work:
    """Every position of every image meets the weights that are stored, not zeros."""
    return products(out[0] * math.prod(out[2:]) * options["layer"].values.size)


def _fused_step(shapes: Shapes, out: Shape, options: Options) -> Work:
    """A pass of a GPT over new tokens, after others that a cache holds: that of its layers, added up."""
    assert shapes[0]
    batch, new = shapes[0]
    seen, scored, blocks = options["start"] + new, out[1], options["steps"].blocks
    width = blocks[0].attention.embed_dim
    total = products(scored * width * out[2]) + Work((new + _NORMALISATION * scored) * width)
    for block in blocks:
        hidden, pairs = block.first.layer.out_features, new * seen
        total += products(4 * new * width * width + 2 * pairs * width + 2 * new * width * hidden)
        total += Work(block.attention.num_heads * pairs * (1 + _SOFTMAX))
        total += Work(new * (_GELU * hidden + 2 * (_NORMALISATION + 1) * width))
    return Work(batch * total.flops, batch * total.macs)


def _batch_norm(call: Call) -> Work:
    """Evaluation scales and shifts; training normalises as LayerNorm does."""
    return Work((_NORMALISATION if call.training else 2) * math.prod(call.made or ()))


OPERATIONS: dict[Any, OperationFormula] = {
    **dict.fromkeys(
        (
            derivatives.add,
            derivatives.subtract,
            derivatives.multiply,
            derivatives.divide,
            derivatives.negative,
            derivatives.power,
            derivatives.exp,
            derivatives.log,
            derivatives.sqrt,
            derivatives.absolute,
            activations.relu,
            activations.tanh,
        ),
        per_result(1),
    ),
    derivatives.clip: per_result(2),
    activations.sigmoid: per_result(4),
    activations.gelu: per_result(_GELU),
    activations.softmax: per_result(_SOFTMAX),
    activations.log_softmax: per_result(_SOFTMAX),
    attention.attention_weights: per_result(1 + _SOFTMAX),
    layers.layer_norm: per_result(_NORMALISATION),
    spatial.batch_norm: per_result(_NORMALISATION),
    **dict.fromkeys((derivatives.sum_, derivatives.mean, derivatives.max_, derivatives.min_), per_input(1)),
    losses.mean_squared_error: per_input(3),
    losses.cross_entropy: per_input(_SOFTMAX),
    losses.binary_cross_entropy: per_input(_BINARY_CROSS_ENTROPY),
    derivatives.matmul: _product,
    layers.linear: _product,
    spatial.convolve: _convolution,
    spatial.max_pool: _pooling,
    spatial.average_pool: _pooling,
    **dict.fromkeys(
        (
            derivatives.reshape,
            derivatives.permute,
            derivatives.getitem,
            derivatives.concatenate,
            embeddings.embed,
        ),
        per_result(0),
    ),
}

#: of operations in modules that are not loaded for this, by their full names
ELSEWHERE: dict[str, OperationFormula] = {
    "tinytorch.core.inference.steps.fused_step": _fused_step,
    "tinytorch.perf.quantization.layers.quantized_linear": _product,
    "tinytorch.perf.quantization.layers.quantized_convolution": _int8_convolution,
    "tinytorch.perf.compression.sparse.sparse_linear": _sparse_product,
    "tinytorch.perf.compression.sparse.sparse_convolution": _sparse_convolution,
}

#: of layers whose operations say too little: these stand for everything inside such a layer
LAYERS: dict[type[Layer], LayerFormula] = {spatial.BatchNorm2d: _batch_norm}
