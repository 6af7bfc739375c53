"""Low-rank factors: a matrix as the product of two thinner ones."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinytorch.core.checks import positive_int
from tinytorch.core.layers import Linear, Sequential
from tinytorch.core.tensor import Parameter, array_of
from tinytorch.kernels import FloatArray


def low_rank(weight: Any, rank_ratio: float = 0.5) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the leading part of the singular value decomposition, the best approximation of its rank.

    `(u * s) @ v` is nearest to `weight` among all matrices of that rank (Eckart and Young 1936).

    Args:
        weight: shape (m, n).
        rank_ratio: the rank over min(m, n), above 0 and at most 1; at least rank 1 is kept.

    Returns:
        u of shape (m, rank), s of shape (rank,) in falling order, v of shape (rank, n).

    Raises:
        ValueError: `weight` is no matrix, is empty, or holds NaN or infinity, or `rank_ratio` lies outside.
    """
    matrix = array_of(weight, "weight")
    if matrix.ndim != 2 or matrix.size == 0:
        raise ValueError(f"`weight` must be a matrix that is not empty, got shape {matrix.shape}")
    if not np.isfinite(matrix).all():
        raise ValueError("`weight` must be finite to be factored, got NaN or infinity")
    if isinstance(rank_ratio, bool) or not isinstance(rank_ratio, int | float) or not 0 < rank_ratio <= 1:
        raise ValueError(f"`rank_ratio` must be above 0 and at most 1, got {rank_ratio!r}")
    rank = max(1, round(min(matrix.shape) * rank_ratio))
    u, s, v = np.linalg.svd(matrix, full_matrices=False)
    return u[:, :rank], s[:rank], v[:rank]


def low_rank_linear(linear: Linear, rank: int) -> Sequential:
    """Return two Linear layers that approximate one: (in, rank) without a bias, then (rank, out).

    They are smaller and faster where `rank` is below in * out / (in + out).

    Raises:
        ValueError: `linear` is no Linear, or `rank` is not from 1 to min(in, out).
    """
    if not isinstance(linear, Linear):
        raise ValueError(f"`linear` must be a Linear, got {type(linear).__name__}")
    largest = min(linear.in_features, linear.out_features)
    if positive_int(rank, "rank") > largest:
        raise ValueError(f"`rank` must be at most min(in, out) (={largest}), got {rank}")
    u, s, v = low_rank(linear.weight, 1.0)
    u, root, v = u[:, :rank], np.sqrt(s[:rank]), v[:rank]  # the root, so that no factor is the larger one
    first = Linear(linear.in_features, rank, bias=False)
    second = Linear(rank, linear.out_features, bias=linear.bias is not None)
    first.weight, second.weight = Parameter(u * root), Parameter(root[:, None] * v)
    if linear.bias is not None:
        second.bias = Parameter(linear.bias.data)
    return Sequential(first, second)
