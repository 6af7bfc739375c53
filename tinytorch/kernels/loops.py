"""Matrix products as compiled loops: what the order of loops and blocking do, and nothing else.

For every element the three kernels add the same products in the same order, in IEEE float32 with
nothing fused or reordered, so they agree bit for bit with each other and with `matmul_reference`.
Only the order in which they visit memory differs, and with it the time.

Where TINYTORCH_KERNELS=reference switches compiled kernels off, or one differs from the reference on this
machine, which is warned of, the reference runs in its place.

The first use in a process imports numba and then compiles a kernel (all three: about 1 s) or loads it
from numba's cache (about 0.3 s), measured with numba 0.68 on a 2.6 GHz Xeon.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from tinytorch.kernels import FloatArray, compiled, float32_array, in_cache, numba_problem, product_error
from tinytorch.kernels.choice import switched_off, warn_of


def matmul_ijk(a: Any, b: Any) -> FloatArray:
    """Multiply an (m, k) by a (k, n) matrix with one dot product per element.

    The inner loop walks down a column of `b`: every step is on another cache line and nothing
    vectorises. This is the textbook order, and the slowest.

    Raises:
        ValueError: an argument is not a matrix of numbers, or the inner sizes differ.
        ImportError: numba is missing.
    """
    return _run(_ijk, a, b)


def matmul_ikj(a: Any, b: Any) -> FloatArray:
    """Multiply an (m, k) by a (k, n) matrix, adding multiples of the rows of `b`.

    The inner loop walks along a row of `b` and a row of the result, both contiguous in memory, and
    vectorises.

    Raises:
        ValueError: an argument is not a matrix of numbers, or the inner sizes differ.
        ImportError: numba is missing.
    """
    return _run(_ikj, a, b)


def matmul_blocked(a: Any, b: Any, block_size: int = 64) -> FloatArray:
    """Multiply an (m, k) by a (k, n) matrix tile by tile, in i-k-j order inside each tile.

    A tile of `block_size` x `block_size` stays in the cache while it is used again. That pays once
    `b` as a whole does not fit there, and costs time before: short rows vectorise less well. With
    2 MB of second-level cache this is 0.8 times as fast as `matmul_ikj` at n = 512 and 1.2 times at
    1024, or 1.4 times in blocks of 256.

    Raises:
        ValueError: an argument is not a matrix of numbers, the inner sizes differ, or `block_size`
            is not a positive whole number.
        ImportError: numba is missing.
    """
    return _run(_blocked, a, b, checked_block_size(block_size))


def matmul_reference(a: Any, b: Any) -> FloatArray:
    """Multiply an (m, k) by a (k, n) matrix in NumPy, with the additions of the compiled loops.

    Raises:
        ValueError: an argument is not a matrix of numbers, or the inner sizes differ.
    """
    a, b = _checked(a, b)
    out = np.zeros((a.shape[0], b.shape[1]), np.float32)
    for k in range(a.shape[1]):
        out += a[:, k : k + 1] * b[k]
    return out


def compile_all() -> None:
    """Compile every kernel of this module, or load it from numba's cache, and test it once.

    Raises:
        ImportError: numba is missing.
    """
    for body in _KERNELS:
        _ready(body)


def compiling_expected() -> bool:
    """Return whether `compile_all` will probably have to compile, about 1 s, rather than load.

    Raises:
        ImportError: numba is missing.
    """
    all_ready = switched_off() or _ready.cache_info().currsize == len(_KERNELS)
    return not all_ready and not all(in_cache(body) for body in _KERNELS)


def problem(order: str) -> str | None:
    """Return why the kernel of an order ("ijk", "ikj" or "blocked") cannot run here, None if it can.

    To know, it is compiled and tested as before its first use.
    """
    if switched_off():
        return "TINYTORCH_KERNELS=reference switches compiled kernels off"
    missing = numba_problem()
    if missing is not None:
        return f"numba is missing ({missing})"
    if _ready({"ijk": _ijk, "ikj": _ikj, "blocked": _blocked}[order]) is None:
        return "the compiled kernel differs from its NumPy reference on this machine"
    return None


def checked_block_size(block_size: int) -> int:
    """Return `block_size`, or raise ValueError where it is not a positive whole number."""
    if not isinstance(block_size, int | np.integer) or block_size < 1:
        raise ValueError(f"`block_size` must be a positive whole number, got {block_size!r}")
    return min(int(block_size), 2**31)  # longer than any row, and i0 + size does not overflow


def _ijk(a: FloatArray, b: FloatArray, out: FloatArray) -> None:
    for i in range(a.shape[0]):
        for j in range(b.shape[1]):
            total = np.float32(0.0)
            for k in range(a.shape[1]):
                total += a[i, k] * b[k, j]
            out[i, j] = total


def _ikj(a: FloatArray, b: FloatArray, out: FloatArray) -> None:
    for i in range(a.shape[0]):
        for k in range(a.shape[1]):
            factor = a[i, k]
            for j in range(b.shape[1]):
                out[i, j] += factor * b[k, j]


def _blocked(a: FloatArray, b: FloatArray, out: FloatArray, size: int) -> None:
    (m, inner), n = a.shape, b.shape[1]
    for i0 in range(0, m, size):
        for k0 in range(0, inner, size):
            for j0 in range(0, n, size):
                for i in range(i0, min(i0 + size, m)):
                    # Rows are cut out first: for all the compiler knows an index j0 + j is negative,
                    # and the check for that keeps the loop from vectorising (5 times slower).
                    out_row = out[i, j0 : j0 + size]
                    for k in range(k0, min(k0 + size, inner)):
                        factor = a[i, k]
                        b_row = b[k, j0 : j0 + size]
                        for j in range(out_row.size):
                            out_row[j] += factor * b_row[j]


_THREE_MATRICES = "float32[:, ::1], float32[:, ::1], float32[:, ::1]"
# Each body's compiled signature, and its further arguments in the test before first use.
_KERNELS: dict[Callable[..., None], tuple[str, tuple[int, ...]]] = {
    _ijk: (f"void({_THREE_MATRICES})", ()),
    _ikj: (f"void({_THREE_MATRICES})", ()),
    _blocked: (f"void({_THREE_MATRICES}, intp)", (2,)),
}


@functools.cache
def _ready(body: Callable[..., None]) -> Callable[..., None] | None:
    """Return the compiled kernel; None where it is switched off or not what the reference is."""
    if switched_off():
        return None
    signature, further = _KERNELS[body]
    kernel = compiled(body, signature)
    a = np.arange(15, dtype=np.float32).reshape(3, 5) / 7
    b = np.arange(20, dtype=np.float32).reshape(5, 4) / 3
    out = np.zeros((3, 4), np.float32)
    kernel(a, b, out, *further)
    if np.array_equal(out, matmul_reference(a, b)):
        return kernel
    warn_of(body)
    return None


def _run(body: Callable[..., None], a: Any, b: Any, *further: int) -> FloatArray:
    a, b = _checked(a, b)
    kernel = _ready(body)
    if kernel is None:
        return matmul_reference(a, b)
    out = np.zeros((a.shape[0], b.shape[1]), np.float32)
    kernel(a, b, out, *further)
    return out


def _checked(a: Any, b: Any) -> tuple[FloatArray, FloatArray]:
    a, b = _matrix(a, "a"), _matrix(b, "b")
    if a.shape[1] != b.shape[0]:
        raise product_error(a.shape, b.shape)
    return a, b


def _matrix(data: Any, name: str) -> FloatArray:
    array = float32_array(data, name)
    if array.ndim != 2:
        raise ValueError(f"`{name}` must be a matrix, got shape {array.shape}")
    # The compiled signatures take contiguous, aligned, writable arrays and no others.
    return array if array.flags.carray else array.copy()
