"""Choosing between a compiled kernel and its NumPy reference, at run time."""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from tinytorch.kernels import compiled, numba_available

Kernel = Callable[..., None]
# Sums may be added up in another order, products and sums fused; NaN and infinity stay what they are.
REORDERED = frozenset({"reassoc", "contract"})


def compiled_or_none(body: Kernel, signature: str, agrees: Callable[[Kernel], bool]) -> Kernel | None:
    """Compile `body`, or load it from numba's cache, and test it; once for each process.

    Args:
        body: the loops, in the part of Python that numba compiles.
        signature: numba's, with contiguous float32 arrays.
        agrees: runs a kernel on a small case and compares it with the reference.

    Returns:
        The kernel; None where numba is missing, switched off by TINYTORCH_KERNELS=reference, or where the
        kernel disagrees with its reference, which is warned of.
    """
    return _tested(body, signature, agrees)


@functools.cache
def enabled() -> bool:
    """Return whether compiled kernels may run: numba is there, and TINYTORCH_KERNELS allows them.

    Raises:
        ValueError: TINYTORCH_KERNELS is neither auto nor reference.
    """
    return not switched_off() and numba_available()


@functools.cache
def switched_off() -> bool:
    """Return whether TINYTORCH_KERNELS switches compiled kernels off; it raises what `enabled` does."""
    asked = os.environ.get("TINYTORCH_KERNELS", "auto")
    if asked not in ("auto", "reference"):
        raise ValueError(f"TINYTORCH_KERNELS must be auto or reference, got {asked!r}")
    return asked == "reference"


@functools.cache
def _tested(body: Kernel, signature: str, agrees: Callable[[Kernel], bool]) -> Kernel | None:
    if not enabled():
        return None
    kernel = compiled(body, signature, fastmath=REORDERED)
    if agrees(kernel):
        return kernel
    warn_of(body, stacklevel=4)
    return None


def warn_of(body: Kernel, stacklevel: int = 3) -> None:
    """Warn that the compiled kernel of `body` does not compute what its reference does."""
    warnings.warn(
        f"the compiled kernel {body.__module__}.{body.__name__} differs from its NumPy reference on this "
        "machine, so the reference is used: correct and slower",
        RuntimeWarning,
        stacklevel=stacklevel,
    )


def usable(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return an array, or a copy of it where it is not contiguous, aligned and writable, as kernels ask."""
    return array if array.flags.carray else array.copy()


def fits(smallest: int, *arrays: np.ndarray[Any, Any]) -> bool:
    """Return whether all arrays are such that compiled kernels take, and the first has `smallest` elements.

    They take float32 that is contiguous, aligned and writable, even where they only read.
    """
    return arrays[0].size >= smallest and all(
        array.dtype == np.float32 and array.flags.carray for array in arrays
    )
