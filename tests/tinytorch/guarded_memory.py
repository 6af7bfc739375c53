"""Arrays with forbidden memory beside them: what reads or writes beyond them ends the process."""

import ctypes
import mmap
import sys

import numpy as np
import pytest

needs_guards = pytest.mark.skipif(sys.platform != "linux", reason="memory is protected by a call of Linux")


def guarded(array, before):
    """A copy of an array with forbidden memory directly before or after it."""
    page = mmap.PAGESIZE
    size = -(-max(array.nbytes, 1) // page) * page
    room = mmap.mmap(-1, size + 2 * page)
    start = ctypes.addressof(ctypes.c_char.from_buffer(room))
    for address in (start, start + page + size):
        assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(address), page, 0) == 0
    offset = page if before else page + size - array.nbytes
    copy = np.ndarray(array.shape, array.dtype, room, offset)
    copy[...] = array
    return copy
