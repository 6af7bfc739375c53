"""An audit hook that ends a process which does what no submission may do, and says what that was."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

#: exit code of a process that did what it must not
VIOLATION = 77

#: modules that hold test answers, or lead to the leaderboard
FORBIDDEN_MODULES = {"sklearn", "pydoc_data", "sqlite3", "_sqlite3"}
_FORBIDDEN_EVENTS = (
    *("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate", "os.chmod"),
    *("os.chown", "os.utime", "os.kill", "os.killpg", "os.fork", "os.forkpty", "os.exec", "os.spawn"),
    *("os.posix_spawn", "os.system", "os.putenv", "subprocess.", "socket.", "sqlite3.", "shutil."),
    *("ctypes.dlopen", "ftplib.", "urllib.", "http.", "pty.", "signal.pthread_kill"),
)
# Numba looks whether it could keep compiled code there, and does without where it cannot.
_HARMLESS = ("__pycache__", "numba")

Hook = Callable[[str, tuple[Any, ...]], None]


def audit_hook(readable: tuple[str, ...], report: Callable[[str], None]) -> Hook:  # noqa: C901 - see below
    """Return a hook for `sys.addaudithook`.

    Its parts are closures: of functions in a module, submissions could put others in their place.

    Args:
        readable: real paths of what may be read, with all that is below.
        report: is told what was tried, before the process ends with the exit code `VIOLATION`.
    """
    realpath, exists, is_folder = os.path.realpath, os.path.lexists, os.path.isdir
    fsdecode, end, separator, null = os.fsdecode, os._exit, os.sep, os.devnull
    write = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

    def refuse(what: str) -> None:
        try:
            report(what)
        finally:
            end(VIOLATION)

    def inside(path: str) -> bool:
        return any(path == root or path.startswith(root + separator) for root in readable)

    def harmless(path: str) -> bool:
        return any(part in _HARMLESS for part in path.split(separator))

    def opened(path: str, mode: Any, flags: int) -> None:
        writes = bool(flags & write) or any(letter in "wax+" for letter in str(mode or ""))
        if writes and harmless(path):
            raise PermissionError(13, "nothing is written here", path)
        if writes and path != null:
            refuse(f"write to {path!r}")
        if inside(path):
            return
        if is_folder(path):  # as when a list of what is installed is looked for
            raise PermissionError(13, "it is not for submissions", path)
        if exists(path):  # Python looks for archives of its library that are not there
            refuse(f"read {path!r}")

    def used(event: str, paths: list[str]) -> None:
        if event == "ctypes.dlopen" and paths and "-packages" in paths[0] and inside(realpath(paths[0])):
            return  # a library that is installed, such as numba's compiler
        if event == "os.mkdir" and harmless(paths[0]):
            raise PermissionError(13, "nothing is written here", paths[0])
        refuse(f"use {event}" + (f" on {paths[0]!r}" if paths else ""))

    def hook(event: str, details: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(details[0], str | bytes | os.PathLike):
            opened(realpath(fsdecode(details[0])), details[1], details[2] or 0)
        elif event == "import" and str(details[0]).partition(".")[0] in FORBIDDEN_MODULES:
            refuse(f"import {details[0]}")
        elif event.startswith(_FORBIDDEN_EVENTS):
            used(event, [fsdecode(item) for item in details if isinstance(item, str | bytes | os.PathLike)])

    return hook
