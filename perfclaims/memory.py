"""How much memory a call needs at its peak, and how many bytes an object or a file holds."""

from __future__ import annotations

import gc
import os
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType, FunctionType, ModuleType, NoneType
from typing import Any, TypeGuard, cast

import numpy as np
from numpy.lib.array_utils import byte_bounds
from numpy.typing import NDArray

# What holds no arrays, and what belongs to the program and not to the object: from a class, a module or a
# frame everything can be reached.
_NOT_FOLLOWED = (
    *(NoneType, bytes, bytearray, complex, float, int, str, np.dtype, np.generic),
    *(CodeType, FrameType, ModuleType, type),
)

# For each peak_memory() under way the highest peak that another one inside it has reset.
_hidden_peaks: list[int] = []


@dataclass(frozen=True, slots=True)
class PeakMemory:
    """Memory of one call, above what was allocated before it.

    Attributes:
        peak_bytes: most that was allocated at any moment, the result included.
        retained_bytes: what stayed allocated after the result was dropped, such as caches and leaks.
        warning: what the reader should know, or None.
    """

    peak_bytes: int
    retained_bytes: int
    warning: str | None = None


def peak_memory(func: Callable[..., object], *args: Any, **kwargs: Any) -> PeakMemory:
    """Call `func` once under tracemalloc, in a pass of its own: tracing makes a call several times slower.

    Seen are allocations of Python objects and of NumPy arrays, by any thread; unseen those that compiled
    libraries make for themselves. What a first call imports and caches counts: call `func` before to exclude
    it. The state of tracemalloc is put back afterwards, also after an exception, but where it was tracing
    already its peak so far cannot be kept, and the result carries a warning.

    Raises:
        ValueError: `func` is not callable.
        RuntimeError: `func` stopped tracemalloc.
    """
    if not callable(func):
        raise ValueError(f"`func` must be callable, got {func!r}; pass its arguments after it")
    gc.collect()
    with _tracing() as warning:
        start, _ = tracemalloc.get_traced_memory()
        func(*args, **kwargs)
        if not tracemalloc.is_tracing():
            raise RuntimeError(
                "`func` stopped tracemalloc, so its memory is unknown; let it leave tracing on"
            )
        peak = max(tracemalloc.get_traced_memory()[1], _hidden_peaks[-1])
        gc.collect()
        end, _ = tracemalloc.get_traced_memory()
    return PeakMemory(peak - start, max(0, end - start), warning)


@contextmanager
def _tracing() -> Iterator[str | None]:
    """Trace with a fresh peak; yields a warning when that took the peak away from someone else."""
    frames = tracemalloc.get_traceback_limit() if tracemalloc.is_tracing() else None
    warning = None
    if frames is None:
        tracemalloc.start()
    else:
        _, peak = tracemalloc.get_traced_memory()
        if not _hidden_peaks:
            warning = (
                f"tracemalloc was tracing before this call: its peak of {peak} bytes until then was reset"
            )
        _hidden_peaks[:] = [max(hidden, peak) for hidden in _hidden_peaks]
        tracemalloc.reset_peak()
    _hidden_peaks.append(0)
    try:
        yield warning
    finally:
        _hidden_peaks.pop()
        if frames is None:
            tracemalloc.stop()
        elif not tracemalloc.is_tracing():
            tracemalloc.start(frames)


def stored_bytes(obj: object) -> int:
    """Bytes of all NumPy memory that an object keeps alive.

    Arrays are found through attributes, slots, containers, closures and bound methods. Shared memory counts
    once, and a view counts as all of the memory that it keeps alive. Numbers and strings do not count, nor do
    arrays of classes and modules, arrays behind weak references, and arrays of other libraries.
    """
    seen: dict[int, object] = {}
    spans = []
    waiting = [obj]
    while waiting:
        current = waiting.pop()
        if id(current) in seen or not _is_followed(type(current)):
            continue
        seen[id(current)] = current  # kept alive: a freed object's id could come back
        if _is_array(current):
            spans.append(_span(current))
        waiting.extend(_parts(current))
    return _covered(spans)


def _is_followed(kind: type) -> bool:
    # From a function compiled by numba the whole compiler can be reached.
    return not issubclass(kind, _NOT_FOLLOWED) and not str(kind.__module__).startswith("numba.")


def _is_array(obj: object) -> TypeGuard[NDArray[Any]]:
    # isinstance() would ask a weak proxy for the type of what it points to.
    return issubclass(type(obj), np.ndarray)


def _parts(obj: object) -> list[Any]:
    """Return the objects that this one refers to."""
    if type(obj) is FunctionType:  # without its module's globals
        return [obj.__closure__, obj.__defaults__, obj.__kwdefaults__, obj.__dict__]
    parts = gc.get_referents(obj)
    if _is_array(obj) and obj.dtype.hasobject:  # NumPy does not show these to the collector
        parts.append(_owner(obj)[0].tolist())
    return parts


def _span(array: NDArray[Any]) -> tuple[int, int]:
    """Return the first and the past-the-last address of the memory that an array keeps alive."""
    widest, owner = _owner(array)
    if owner is not widest:
        # Of an owner that is not a buffer no more is known than what the arrays show of it.
        with suppress(BufferError, TypeError, ValueError):
            widest = np.frombuffer(cast("Any", owner), dtype=np.uint8)
    return byte_bounds(widest)


def _owner(array: NDArray[Any]) -> tuple[NDArray[Any], object]:
    """Return the last array in a chain of views, and the owner of its memory: itself or another object."""
    widest, owner = array, cast("Any", array)
    # Not only arrays stand between a view and its base: as_strided() puts a dummy there.
    while (base := getattr(owner, "base", None)) is not None and base is not owner:
        owner = base
        widest = owner if _is_array(owner) else widest
    return widest, owner


def _covered(spans: Iterable[tuple[int, int]]) -> int:
    """Return the length of the union of address ranges."""
    total, reached = 0, 0
    for start, end in sorted(spans):
        total += max(0, end - max(start, reached))
        reached = max(reached, end)
    return total


def file_bytes(path: str | os.PathLike[str]) -> int:
    """Return the size of a file, or of all files below a folder, in bytes.

    Links below the folder are neither followed nor counted.

    Raises:
        FileNotFoundError: there is neither a file nor a folder.
        OSError: a folder cannot be listed, so its size is unknown.
    """
    path = Path(path)
    if not path.is_file() and not path.is_dir():
        raise FileNotFoundError(f"`path` must be an existing file or folder, got {str(path)!r}")
    return _bytes_of(path)


def _bytes_of(path: Path) -> int:
    if path.is_dir():
        return sum(_bytes_of(child) for child in path.iterdir() if not child.is_symlink())
    return path.stat().st_size
