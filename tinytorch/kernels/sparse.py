"""Products with matrices that leave zeros out; the formats stand in `sparse_formats`.

A zero takes part in nothing, except in the format "dense": where an input is NaN or infinite, an output that
has no entry for it stays what it is.
"""

from __future__ import annotations

from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from tinytorch.kernels import FloatArray
from tinytorch.kernels.choice import enabled, usable
from tinytorch.kernels.sparse_formats import PANEL, Packed, coordinates, fitting, places_reference, problem

# Rows up to which a product for each is faster than columns of sixteen, most of them empty: 1024 x 1024 at
# 95 % take 16 us a row, and 54 us for up to sixteen rows; at 50 % 107 and 268.
_FEW_ROWS = 2
# Rows of INT8 values that become floats together before BLAS multiplies: they stay in the cache.
_DENSE_BLOCK = 64

_NOTHING = np.empty(0, np.float32)
_NO_CODES = np.empty(0, np.int8)


def product(x: FloatArray, packed: Packed, bias: FloatArray | None = None) -> FloatArray:
    """Return `x @ matrix + bias`.

    Args:
        x: float32, shape (m, inputs).
        packed: the matrix; its arrays are checked here, because compiled code trusts them.
        bias: float32, shape (outputs,), or None.

    Returns:
        Shape (m, outputs).

    Raises:
        ValueError: shapes do not fit, or the arrays of the matrix do not belong together.
    """
    _check_arguments(x, packed, bias)
    if packed.format == "dense":
        return _dense_product(x, packed, bias)
    out = np.empty((len(x), packed.shape[1]), np.float32)
    if out.size == 0:
        return out
    if enabled():
        codes = packed.values.dtype == np.int8
        given = (
            x,
            *_places(packed),
            _NOTHING if codes else packed.values,
            packed.values if codes else _NO_CODES,
            _NOTHING if packed.scale is None else packed.scale,
            _NOTHING if bias is None else bias,
        )
        arrays = [usable(a) for a in given]
        if len(x) <= _FEW_ROWS and _compiled().row_product(*arrays, out):
            return out
        if _compiled().batch_product(*arrays, out):
            return out
    return product_reference(x, packed, bias)


def product_reference(x: FloatArray, packed: Packed, bias: FloatArray | None = None) -> FloatArray:
    """`product` with SciPy, which leaves zeros out as well."""
    if packed.format == "dense":
        return _dense_product(x, packed, bias)
    from scipy.sparse import csr_array

    rows, columns, values = coordinates(packed)
    matrix = csr_array((values.astype(x.dtype), (rows, columns)), shape=packed.shape[::-1])
    out: FloatArray = np.ascontiguousarray((matrix @ x.T).T)
    if packed.scale is not None:
        out *= packed.scale
    if bias is not None:
        out += bias
    return out


def _dense_product(x: FloatArray, packed: Packed, bias: FloatArray | None) -> FloatArray:
    values, scale = packed.values, packed.scale
    if scale is None:
        out: FloatArray = x @ values
    else:
        out = np.zeros((len(x), packed.shape[1]), np.float32)
        for first in range(0, packed.shape[0], _DENSE_BLOCK):
            block = slice(first, first + _DENSE_BLOCK)
            out += x[:, block] @ values[block].astype(np.float32)
        out *= scale
    if bias is not None:
        out += bias
    return out


def _places(packed: Packed) -> tuple[NDArray[np.uint16], NDArray[np.uint8]]:
    """Return counts and indices, decoded where there is a mask."""
    if packed.counts is not None and packed.indices is not None:
        return packed.counts, packed.indices
    mask = packed.mask
    assert mask is not None, "the arguments are checked"
    inputs, outputs = packed.shape
    counts = np.empty((-(-inputs // PANEL), outputs), np.uint16)
    indices = np.empty(packed.values.size + 8, np.uint8)
    if not (enabled() and _compiled().positions(usable(mask), inputs, counts, indices)):
        return places_reference(mask, packed.shape)
    return counts, indices[: packed.values.size]


def _check_arguments(x: FloatArray, packed: Packed, bias: FloatArray | None) -> None:
    inputs, outputs = packed.shape
    if x.ndim != 2 or x.shape[1] != inputs or x.dtype != np.float32:
        raise ValueError(f"`x` must be float32 of shape (m, {inputs}), got {x.dtype} of shape {x.shape}")
    for name, array in (("bias", bias), ("scale", packed.scale)):
        if array is not None and not fitting(array, np.float32, (outputs,)):
            raise ValueError(f"`{name}` must be contiguous float32 of shape ({outputs},), got {array.shape}")
    wrong = problem(packed)
    if wrong is not None:
        raise ValueError(f"`packed` must hold the arrays of one matrix, but {wrong}: pack it again")


def _compiled() -> ModuleType:
    from tinytorch.kernels import sparse_compiled  # imports numba

    return sparse_compiled
