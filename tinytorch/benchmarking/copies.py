"""Models elsewhere in memory: the same weights, in the same order, at other addresses.

Where arrays lie makes code faster or slower: two perceptrons 64-128-64-10 of the same weights differed by up
to 4 % at batch 32, each time that they were measured. A difference between models is therefore measured on
many copies of each.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from numpy.lib.array_utils import byte_bounds
from numpy.typing import NDArray

from tinytorch.core import inference
from tinytorch.perf.profiling.contents import arrays_of, layers_of, owner_of

Array = NDArray[Any]

# Addresses differ by their place within a page; the C library places arrays at multiples of 16.
_PAGE, _GRAIN = 4096, 16
# Vector registers and cache lines; some arrays are placed at multiples of it on purpose.
_LINE = 64


def relocated(model: Any, rng: np.random.Generator) -> Any:
    """Return a deep copy of a model, with every array at a place drawn anew.

    Views that share memory still share it. What cannot be copied raises what it raises.
    """
    arrays = [array for array in arrays_of(model) if type(array) is np.ndarray and array.dtype != object]
    owners = {id(array): owner_of(array) for array in arrays}
    # A view within a larger array was perhaps placed there for its address: it keeps that, modulo a line.
    placed = {id(owners[id(array)]) for array in arrays if owners[id(array)] is not array}
    moved = {
        id(owner): _moved(owner, rng, _LINE if id(owner) in placed else _GRAIN) for owner in owners.values()
    }
    # What deepcopy finds here it takes, instead of making a copy of its own.
    memo: dict[int, Any] = {id(array): _like(array, *moved[id(owners[id(array)])]) for array in arrays}
    duplicate = copy.deepcopy(model, memo)
    _give_caches(duplicate, model, memo)
    return duplicate


def is_whole(duplicate: Any, model: Any) -> bool:
    """Whether a copy holds as many arrays as the model, and none of the same; a function is its own copy."""
    if duplicate is model:
        return False
    own, copied = ([id(owner_of(array)) for array in arrays_of(item)] for item in (model, duplicate))
    return len(own) == len(copied) and not set(own) & set(copied)


def _give_caches(duplicate: Any, model: Any, memo: dict[int, Any]) -> None:
    """Give the copies of language models the caches that these have, which are kept beside them."""
    pairs = zip(layers_of(model), layers_of(duplicate), strict=False)
    for layer, twin in pairs:
        cache = inference.cached(layer)
        if cache is not None and type(layer) is type(twin):
            inference.enable(twin, copy.deepcopy(cache, memo))


def relocated_array(array: Array, rng: np.random.Generator) -> Array:
    """Return a copy of an array at a place drawn anew."""
    return _like(array, *_moved(array, rng, _GRAIN))


def _moved(owner: Array, rng: np.random.Generator, grain: int) -> tuple[int, NDArray[np.uint8]]:
    """Return the address of an array, and a copy of its memory that lies elsewhere, equal modulo `grain`."""
    start, stop = byte_bounds(owner)
    room = np.empty(stop - start + _PAGE + grain, np.uint8)
    shift = (start - room.ctypes.data) % grain + grain * int(rng.integers(_PAGE // grain))
    place = room[shift : shift + stop - start]
    _like(owner, start, place, writeable=True)[...] = owner
    return start, place


def _like(array: Array, start: int, place: NDArray[np.uint8], writeable: bool | None = None) -> Array:
    """Return the view of a place that an array is of the memory which began at `start`."""
    offset = array.ctypes.data - start
    view: Array = np.ndarray(array.shape, array.dtype, place, offset, array.strides)
    view.flags.writeable = array.flags.writeable if writeable is None else writeable
    return view
