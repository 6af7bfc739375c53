"""Checks of arguments that many layers share; each error names the argument and what was given."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinytorch.core.tensor import Tensor

Indices = NDArray[np.intp]


class OutOfRange(IndexError, ValueError):  # noqa: N818 - it says what the index is
    """An index that does not exist: an IndexError, and the ValueError that every wrong argument is."""


def positive_int(value: Any, name: str) -> int:
    """Return `value` as an int, or raise ValueError where it is not a positive whole number."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(f"`{name}` must be a positive whole number, got {value!r}")
    return int(value)


def whole(value: Any, name: str) -> int:
    """Return `value` as an int, or raise ValueError where it is not a whole number of zero or more."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 0:
        raise ValueError(f"`{name}` must be a whole number of zero or more, got {value!r}")
    return int(value)


def positive(value: Any, name: str) -> float:
    """Return `value` as a float, or raise ValueError where it is not a positive, finite number."""
    if not _is_number(value) or not math.isfinite(value) or value <= 0:
        raise ValueError(f"`{name}` must be a positive number, got {value!r}")
    return float(value)


def fraction(value: Any, name: str) -> float:
    """Return `value` as a float, or raise ValueError where it is not in [0, 1)."""
    if not _is_number(value) or not 0 <= value < 1:
        raise ValueError(f"`{name}` must be at least 0 and below 1, got {value!r}")
    return float(value)


def whole_numbers(value: Any, name: str) -> Indices:
    """Return a Tensor of whole numbers, an integer array or nested lists as an array of integers.

    Raises:
        ValueError: something in it is not a whole number.
    """
    try:
        array = value.data if isinstance(value, Tensor) else np.asarray(value)
    except ValueError:
        raise ValueError(f"`{name}` must be rectangular, got rows of different lengths") from None
    if array.dtype.kind in "iu":
        return array.astype(np.intp, copy=False)
    if array.size == 0:
        return np.zeros(array.shape, np.intp)
    if array.dtype.kind != "f":
        raise ValueError(f"`{name}` must hold whole numbers, got {array.dtype} data")
    whole = np.trunc(array)
    wrong = ~np.isfinite(array) | (whole != array)
    if wrong.any():
        raise ValueError(f"`{name}` must hold whole numbers, got {array[wrong].flat[0]}")
    return whole.astype(np.intp)


def indices(value: Any, name: str, size: int, of: str) -> Indices:
    """Return `value` as an array of integers that all lie in [0, size).

    Args:
        value: see `whole_numbers`.
        name: of the argument, for errors.
        size: how many there are to choose from.
        of: what there are, in the plural, for errors ("tokens of the vocabulary").

    Raises:
        ValueError: something is not a whole number.
        OutOfRange: one does not exist (an IndexError and a ValueError).
    """
    array = whole_numbers(value, name)
    # As unsigned numbers negative ones are huge: one reduction finds both kinds.
    if array.size and np.maximum.reduce(array.view(np.uintp), axis=None) >= size:
        wrong = array[(array < 0) | (array >= size)].flat[0]
        raise OutOfRange(f"`{name}` must lie in 0 to {size - 1} (there are {size} {of}), got {wrong}")
    return array


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
