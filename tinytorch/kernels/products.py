"""Which function multiplies the matrices of tensors: `np.matmul`, unless a backend is active."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import numpy as np
from numpy.typing import NDArray

Product = Callable[[Any, Any], NDArray[np.floating]]

#: for this thread, or this asynchronous task; set by `tinytorch.perf.acceleration.OptimizedBackend`
ACTIVE: ContextVar[Product] = ContextVar("product", default=np.matmul)


def product(a: NDArray[np.floating], b: NDArray[np.floating]) -> NDArray[np.floating]:
    """Multiply (..., m, k) by (..., k, n) with the active function."""
    return ACTIVE.get()(a, b)
