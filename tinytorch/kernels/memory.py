"""Keeping memory that was freed, for the next array."""

from __future__ import annotations

import functools
import os

# Numbers of glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LARGEST_MMAP = 32 << 20  # glibc refuses more
_KEPT = 256 << 20


@functools.cache
def keep_freed_memory() -> bool:
    """Ask the C library to keep up to 256 MB of freed memory; return whether it will.

    By default glibc hands arrays of a few hundred kB back to the system as soon as they are freed. The next
    one is then new memory, and its first use costs a page fault for every 4 kB: 540 us for GELU of 512 x 512
    numbers, of which 110 us are arithmetic. Nothing happens with other C libraries, or where the environment
    has TINYTORCH_MALLOC=default.
    """
    if os.environ.get("TINYTORCH_MALLOC") == "default":
        return False
    import ctypes

    try:
        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version  # noqa: B018 - other libraries may have a mallopt that means something else
        return bool(libc.mallopt(_MMAP_THRESHOLD, _LARGEST_MMAP) and libc.mallopt(_TRIM_THRESHOLD, _KEPT))
    except (AttributeError, OSError, TypeError):
        return False
