"""The memory behind arrays: whose it is, and whether others use it."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Steps of NumPy's exact search for an overlap before it gives up; strided pairs seen in practice need a few.
OVERLAP_SEARCH_STEPS = 100_000


def data_array(value: object) -> NDArray[Any] | None:
    """Return the ndarray behind the `.data` of a Tensor-like object, None without one."""
    if isinstance(value, np.ndarray | np.generic):  # their `.data` is a memoryview
        return None
    data = getattr(value, "data", None)
    return data if isinstance(data, np.ndarray) else None


def array_of(value: object) -> NDArray[Any] | None:
    """Return an array as a base ndarray, or the one behind `.data`, None without either."""
    array = value if isinstance(value, np.ndarray) else data_array(value)
    return None if array is None else np.asarray(array)


def owner(array: NDArray[Any]) -> object:
    """Return the object that the memory of an array came from: of a view, what it is a view of."""
    found: object = array
    while True:
        below = found.obj if isinstance(found, memoryview) else getattr(found, "base", None)
        if below is None:
            return found
        found = below


def overlap(first: NDArray[Any], second: NDArray[Any]) -> bool:
    """Tell whether two arrays share memory; a pair too intricate to decide counts as sharing."""
    if not np.may_share_memory(first, second):
        return False
    try:
        return np.shares_memory(first, second, max_work=OVERLAP_SEARCH_STEPS)  # type: ignore[arg-type]
    except np.exceptions.TooHardError:
        return True


class MemoryInUse:
    """The memory of the arrays added so far."""

    def __init__(self) -> None:
        self._arrays: list[NDArray[Any]] = []
        # Addresses between which they lie, as disjoint ascending intervals: most questions end here.
        self._lows: list[int] = []
        self._highs: list[int] = []

    def add(self, array: NDArray[Any]) -> None:
        """Add an array; one without elements uses no memory."""
        if array.size == 0:
            return
        low, high = np.lib.array_utils.byte_bounds(array)
        first, last = bisect_right(self._highs, low), bisect_left(self._lows, high)
        if first < last:
            low, high = min(low, self._lows[first]), max(high, self._highs[last - 1])
        self._lows[first:last], self._highs[first:last] = [low], [high]
        self._arrays.append(array)

    def touches(self, array: NDArray[Any]) -> bool:
        """Tell whether an array shares memory with one that was added."""
        if array.size == 0:
            return False
        low, high = np.lib.array_utils.byte_bounds(array)
        first = bisect_right(self._highs, low)
        near = first < len(self._lows) and self._lows[first] < high
        return near and any(overlap(array, other) for other in self._arrays)
