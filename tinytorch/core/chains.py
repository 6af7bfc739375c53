"""Layers one after the other without a Tensor between them, where nobody records or observes.

A small layer takes a few microseconds, and as long again for what surrounds it: checks, a Tensor, the graph
that is not recorded. A class may say how it computes from array to array; `Sequential` then calls these
functions one after the other, and each layer itself where one of them says nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tinytorch.core.autograd import recording
from tinytorch.core.tensor import OBSERVER, Tensor, wrap
from tinytorch.kernels import FloatArray

#: from a layer, its input, and whether this may be overwritten, to its output: a new array, or the same one;
#: None where the layer has to be called, as for an input that it refuses
Link = Callable[[Any, FloatArray, bool], FloatArray | None]

_LINKS: dict[type, tuple[Any, Link]] = {}
_FLOAT32 = np.dtype(np.float32)


def link(kind: type, function: Link) -> None:
    """Let layers of exactly this class, with the `forward` that it has now, be computed by `function`."""
    _LINKS[kind] = vars(kind)["forward"], function


def through(layers: Sequence[Any], x: Any) -> Tensor | None:
    """Return what the layers make of `x`; None where that has to be computed layer by layer."""
    if recording() or OBSERVER.get() is not None:
        return None
    given = x._array if isinstance(x, Tensor) else x
    if type(given) is not np.ndarray or given.dtype is not _FLOAT32:
        return None
    links = []
    for layer in layers:
        kind = type(layer)
        forward, function = _LINKS.get(kind, (None, None))
        if function is None or kind.forward is not forward or "forward" in layer.__dict__:
            return None
        links.append(function)
    out = given
    for layer, function in zip(layers, links, strict=True):
        found = function(layer, out, out is not given)
        if found is None:
            return None
        out = found
    return None if out is given else wrap(out)
