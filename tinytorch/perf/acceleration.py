"""Ways to multiply matrices, from loops in Python to BLAS, and a backend that chooses among them.

All take arrays or Tensors of shapes (..., m, k) and (..., k, n), whose leading axes broadcast as in
NumPy, and return float32 of shape (..., m, n): a Tensor where a Tensor came in, otherwise an ndarray.
All raise ValueError where an argument has fewer than two axes or holds anything but real numbers, and
where the shapes do not fit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextvars import ContextVar
from typing import TypeVar

import numpy as np

from tinytorch.core.tensor import Tensor, array_of, wrap
from tinytorch.kernels import FloatArray, loops, product_error
from tinytorch.kernels.products import ACTIVE

Matrix = TypeVar("Matrix", Tensor, FloatArray)
Kernel = Callable[[FloatArray, FloatArray], FloatArray]

# Where anything beats np.matmul, calls included (NumPy 2.4, OpenBLAS, one thread of a 2.6 GHz Xeon).
# Compiled loops do not at 2 x 2 (1.2 against 0.65 us), nor at any larger size (160 against 33 us at 128).
# But NumPy computes outer products itself, not in BLAS, and np.multiply is quicker at it: 1.1 to 7 times
# from 16 columns on, for 1 to 2048 rows and batches too; at 4 columns it is slower. Compiled loops are
# quicker still where the product is large (43, 109 and 323 us for 512 x 512), but not worth compiling.
_OUTER_MIN_COLUMNS = 16

_FLOAT32 = np.dtype(np.float32)


def naive_matmul(a: Matrix, b: Matrix) -> Matrix:
    """Multiply with three loops over Python lists; converting to lists and back is part of the call."""
    return _multiply(_KERNELS["naive"], a, b)


def blocked_matmul(a: Matrix, b: Matrix, block_size: int = 64) -> Matrix:
    """Multiply with compiled loops, tile by tile; where they cannot run, their NumPy reference does.

    Raises:
        ValueError: `block_size` is not a positive whole number.
    """
    size = loops.checked_block_size(block_size)
    if loops.problem("blocked") is not None:
        return _multiply(_KERNELS["reference"], a, b)
    return _multiply(_over_batch(lambda x, y: loops.matmul_blocked(x, y, size)), a, b)


def vectorized_matmul(a: Matrix, b: Matrix) -> Matrix:
    """Multiply with one call of `np.matmul`, which hands matrices to BLAS."""
    return _multiply(np.matmul, a, b)


def matmul(a: Matrix, b: Matrix) -> Matrix:
    """Multiply with the active backend, that of the innermost `with OptimizedBackend(...)` block."""
    return active_backend().matmul(a, b)


class OptimizedBackend:
    """Multiplies with the kernel that is fastest for the shapes, or with one that is forced.

    As a context manager it is the backend of `matmul`, and of the products of tensors and layers (forward,
    not of their gradients), inside the block. Blocks nest. Every thread and every asynchronous task has
    its own active backend; outside of all blocks `matmul` has an "auto" one, and tensors use `np.matmul`.

    Args:
        kernel: "auto", or for all products "naive" (Python loops), "loops" (compiled, i-k-j),
            "blocked" (compiled, tiled) or "vectorized" (`np.matmul`).

    Attributes:
        last_kernel: the kernel that ran last, None before the first product. Beside the names above
            it can be "outer" (`np.multiply`, for outer products) and, where a compiled kernel is
            forced but cannot run, "reference" (the NumPy reference of the loops).
        calls: how often each kernel ran.

    Raises:
        ValueError: there is no such kernel.
    """

    def __init__(self, kernel: str = "auto") -> None:
        if kernel not in _CHOICES:
            raise ValueError(f"`kernel` must be one of {', '.join(_CHOICES)}, got {kernel!r}")
        self.kernel = kernel
        self.last_kernel: str | None = None
        self.calls: Counter[str] = Counter()

    def matmul(self, a: Matrix, b: Matrix) -> Matrix:
        """Multiply `a` by `b`, and record which kernel did."""
        if type(a) is np.ndarray and type(b) is np.ndarray and a.dtype == b.dtype == _FLOAT32:
            return self._dispatch(a, b)  # nothing to convert: 0.3 us less
        return _like(a, b, self._dispatch(array_of(a, "a"), array_of(b, "b")))

    def describe(self) -> str:
        """Say which kernel is chosen when, why, and what is missing; a forced one is compiled to know."""
        if self.kernel == "auto":
            return (
                f"auto: outer (np.multiply) for an inner size of 1 and {_OUTER_MIN_COLUMNS} columns or more, "
                "which np.matmul does not hand to BLAS; vectorized (np.matmul, so BLAS) for everything else, "
                "where compiled loops are slower at every size"
            )
        if self.kernel in _COMPILED and (problem := loops.problem(_COMPILED[self.kernel])) is not None:
            return (
                f"{self.kernel}: forced, but {problem}, so its NumPy reference multiplies everything: "
                "correct and slower"
            )
        return f"{self.kernel}: forced, multiplies everything"

    def __enter__(self) -> OptimizedBackend:
        _STACK.set((*_STACK.get(), self))
        ACTIVE.set(self._of_tensors)
        return self

    def __exit__(self, *_: object) -> None:
        stack = _STACK.get()[:-1]
        _STACK.set(stack)
        ACTIVE.set(stack[-1]._of_tensors if len(stack) > 1 else np.matmul)

    def __repr__(self) -> str:
        return f"OptimizedBackend({self.kernel!r})"

    def _of_tensors(self, a: FloatArray, b: FloatArray) -> FloatArray:
        """Multiply for a tensor: vectors too, and arrays of other floats, are left to NumPy."""
        if a.ndim < 2 or b.ndim < 2 or not a.dtype == b.dtype == _FLOAT32:
            product: FloatArray = np.matmul(a, b)
            return product
        return self._dispatch(a, b)

    def _dispatch(self, a: FloatArray, b: FloatArray) -> FloatArray:
        left, right = a.shape, b.shape
        _check_shapes(left, right)
        name = self._choose(left[-1], right[-1])
        product = _KERNELS[name](a, b)
        self.last_kernel = name
        self.calls[name] += 1
        return product

    def _choose(self, inner: int, columns: int) -> str:
        if self.kernel == "auto":
            return "outer" if inner == 1 and columns >= _OUTER_MIN_COLUMNS else "vectorized"
        if self.kernel in _COMPILED and loops.problem(_COMPILED[self.kernel]) is not None:
            return "reference"
        return self.kernel


def active_backend() -> OptimizedBackend:
    """Return the backend that `matmul` uses here."""
    return _STACK.get()[-1]


def _naive(a: FloatArray, b: FloatArray) -> FloatArray:
    left, right = a.tolist(), b.tolist()
    m, inner, n = a.shape[0], a.shape[1], b.shape[1]
    product = [[0.0] * n for _ in range(m)]
    for i in range(m):
        for j in range(n):
            total = 0.0
            for k in range(inner):
                total += left[i][k] * right[k][j]
            product[i][j] = total
    return np.array(product, dtype=np.float32).reshape(m, n)


def _over_batch(kernel: Kernel) -> Kernel:
    """Return `kernel`, which takes matrices, such that it takes batches of matrices too."""
    batched = np.vectorize(kernel, otypes=[np.float32], signature="(m,k),(k,n)->(m,n)")
    return lambda a, b: kernel(a, b) if a.ndim == b.ndim == 2 else batched(a, b)


_KERNELS: dict[str, Kernel] = {
    "naive": _over_batch(_naive),
    "loops": _over_batch(loops.matmul_ikj),
    "blocked": _over_batch(loops.matmul_blocked),
    "reference": _over_batch(loops.matmul_reference),
    "vectorized": np.matmul,
    "outer": np.multiply,
}
_COMPILED = {"loops": "ikj", "blocked": "blocked"}  # the order of each, as `loops` calls it
_CHOICES = ("auto", "naive", *_COMPILED, "vectorized")
_STACK: ContextVar[tuple[OptimizedBackend, ...]] = ContextVar("backends", default=(OptimizedBackend(),))


def _multiply(kernel: Kernel, a: Matrix, b: Matrix) -> Matrix:
    x, y = array_of(a, "a"), array_of(b, "b")
    _check_shapes(x.shape, y.shape)
    return _like(a, b, kernel(x, y))


def _like(a: Matrix, b: Matrix, product: FloatArray) -> Matrix:
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return wrap(product)
    return product


def _check_shapes(left: tuple[int, ...], right: tuple[int, ...]) -> None:
    if len(left) < 2 or len(right) < 2:
        raise ValueError(f"`a` and `b` must have two axes or more, got shapes {left} and {right}")
    if left[-1] != right[-2]:
        raise product_error(left, right)
    if len(left) + len(right) > 4:
        try:
            np.broadcast_shapes(left[:-2], right[:-2])
        except ValueError:
            raise product_error(left, right) from None
