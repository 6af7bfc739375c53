"""Landlock, by which Linux keeps a process from files, network and signals, whatever its code does.

Source: the kernel's Documentation/userspace-api/landlock.rst.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_PR_SET_NO_NEW_PRIVS = 38
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3


def landlock_version() -> int:
    """Return the version of the kernel's interface, 0 where it has none, or it is off."""
    if not sys.platform.startswith("linux"):
        return 0
    return max(int(ctypes.CDLL(None, use_errno=True).syscall(_CREATE_RULESET, None, 0, 1)), 0)


def restrict(readable: Iterable[Path], listable: Iterable[Path]) -> int:
    """Restrict this process for good; return the version of the kernel's interface, 0 where it has none.

    Args:
        readable: files and folders that may be read, with all that is below.
        listable: folders of which only the names may be read.
    """
    version = landlock_version()
    if not version:
        return 0
    library = ctypes.CDLL(None, use_errno=True)
    handled = (1 << (13 + (version >= 2) + (version >= 3))) - 1
    attributes = struct.pack("<Q", handled)
    attributes += struct.pack("<Q", 3) if version >= 4 else b""  # binding and connecting over TCP
    attributes += struct.pack("<Q", 3) if version >= 6 else b""  # signals and abstract sockets
    rules = library.syscall(_CREATE_RULESET, attributes, len(attributes), 0)
    if rules < 0:
        return 0
    for path in readable:
        _allow(library, rules, path, _READ_FILE | _READ_DIR if path.is_dir() else _READ_FILE)
    for path in listable:
        _allow(library, rules, path, _READ_DIR)
    restricted = library.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    restricted = restricted and library.syscall(_RESTRICT_SELF, rules, 0) == 0
    os.close(rules)
    return version if restricted else 0


def _allow(library: Any, rules: int, path: Path, access: int) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_PATH", 0) | os.O_CLOEXEC)
    except OSError:
        return  # what cannot be opened cannot be read either
    try:
        # A packed struct: allowed_access, parent_fd.
        library.syscall(_ADD_RULE, rules, 1, struct.pack("<Qi", access, descriptor), 0)
    finally:
        os.close(descriptor)
