"""Compiled kernels, each with a NumPy reference beside it.

Here is what they share: checks of arguments, made in Python before compiled code touches memory, and
compiling with numba. Numba is imported, and a kernel compiled, when a kernel is first used.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
_FLOAT32 = np.dtype(np.float32)


def float32_array(data: Any, name: str) -> FloatArray:
    """Return `data` as a float32 array, the same object where it already is one.

    Args:
        data: an array, a Tensor, a number or nested lists of them, of any shape.
        name: of the argument, for the error.

    Raises:
        ValueError: `data` is ragged or holds anything but real numbers.
    """
    if type(data) is np.ndarray and data.dtype == _FLOAT32:
        return data  # the rest takes as long as a small product
    try:
        array = np.asarray(data)
    except ValueError as error:
        raise ValueError(f"`{name}` must be rectangular, got rows of different lengths") from error
    if array.dtype.kind not in "biuf":
        raise ValueError(f"`{name}` must hold real numbers, got {array.dtype} data")
    return array.astype(_FLOAT32, copy=False)


def product_error(left: tuple[int, ...], right: tuple[int, ...]) -> ValueError:
    """Say why arrays of these two shapes have no matrix product."""
    cannot = f"cannot multiply {left} by {right}"
    if not left or not right:
        return ValueError(f"{cannot}: a number has no matrix product, use * instead")
    inner_left, inner_right = left[-1], right[-2] if len(right) > 1 else right[0]
    if inner_left != inner_right:
        return ValueError(f"{cannot}: the inner sizes {inner_left} and {inner_right} differ")
    return ValueError(f"{cannot}: the batch shapes {left[:-2]} and {right[:-2]} do not broadcast")


def numba_problem() -> str | None:
    """Return why numba cannot be imported, in its own words, or None when it can."""
    try:
        import numba  # noqa: F401 - slow to import, so only where compiled kernels are asked for
    except ImportError as error:
        return str(error)
    return None


def numba_available() -> bool:
    """Return whether compiled kernels can run here."""
    return numba_problem() is None


def compiled(
    body: Callable[..., None], signature: str, fastmath: frozenset[str] = frozenset()
) -> Callable[..., None]:
    """Compile `body` for one signature, or load it from numba's cache.

    Args:
        body: the loops, in the part of Python that numba compiles.
        signature: numba's.
        fastmath: LLVM's names of what may deviate from IEEE arithmetic; nothing may unless named.

    Numba keeps its cache beside the source file, or in the user's cache folder where that cannot be
    written. Where neither can, every process compiles anew.

    Raises:
        ImportError: numba is missing.
    """
    problem = numba_problem()
    if problem is not None:
        raise ImportError(
            f"compiled kernels need numba, which cannot be imported ({problem}): `pip install numba`, "
            "or use the NumPy reference of the kernel"
        )
    import numba

    # As in NumPy a division by zero is infinite: checking for it would keep loops from vectorising.
    options: Any = {"fastmath": set(fastmath), "error_model": "numpy"}
    try:
        kernel: Callable[..., None] = numba.njit(signature, cache=True, **options)(body)
    except (RuntimeError, OSError):  # numba found no folder for its cache, or could not write there
        kernel = numba.njit(signature, **options)(body)
    return kernel


def in_cache(body: Callable[..., None]) -> bool:
    """Return whether numba's cache holds a compiled `body` that is newer than its source file.

    True does not promise a hit: another processor or another numba compiles again all the same.

    Raises:
        ImportError: numba is missing.
    """
    from numba.core.caching import FunctionCache

    try:
        folder = FunctionCache(body).cache_path  # type: ignore[no-untyped-call]
    except RuntimeError:  # no folder that can be written
        return False
    changed = Path(body.__code__.co_filename).stat().st_mtime
    return any(index.stat().st_mtime >= changed for index in Path(folder).glob(f"*.{body.__name__}-*.nbi"))
