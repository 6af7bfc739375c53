"""An audit hook that ends a process which does what no submission may do, and says what that was.

It names what is tried, and refuses what the kernel lets pass, as long as code is plain Python. Code that
writes to memory (ctypes, compiled code, bytecode made by hand) can get around it: files and connections are
kept by Landlock, which such code does not get around.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

#: exit code of a process that did what it must not
VIOLATION = 77

#: modules that hold test answers, or lead to the leaderboard
FORBIDDEN_MODULES = frozenset({"sklearn", "pydoc_data", "sqlite3", "_sqlite3"})
_FORBIDDEN_EVENTS = (
    *("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate", "os.chmod"),
    *("os.chown", "os.utime", "os.kill", "os.killpg", "os.fork", "os.forkpty", "os.exec", "os.spawn"),
    *("os.posix_spawn", "os.system", "os.putenv", "subprocess.", "socket.", "sqlite3.", "shutil."),
    *("ctypes.dlopen", "ftplib.", "urllib.", "http.", "pty.", "signal.pthread_kill", "resource."),
    # These find the hook's parts; another interpreter has no hook.
    *("gc.get_objects", "gc.get_referrers", "gc.get_referents", "cpython.PyInterpreterState_New"),
)
# Numba looks whether it could keep compiled code there, and does without where it cannot.
_HARMLESS = frozenset({"__pycache__", "numba"})
_WRITE = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_MOST_LINKS = 40  # as the kernel

Hook = Callable[[str, tuple[Any, ...]], None]

# A submission can put other things in place of every name of a module, of builtins, and of what a closure
# holds, and it gets at frames by errors. So the functions below are made anew for a hook, take all that they
# use from their own defaults, which are tuples, call C functions only, and watch over each other's defaults.


def audit_hook(readable: tuple[str, ...], report: Callable[[str], None]) -> Hook:  # noqa: C901 - see above
    """Return a hook for `sys.addaudithook`.

    Args:
        readable: real paths of what may be read, with all that is below, except for what is named as one of
            the forbidden modules.
        report: is told what was tried, before the process ends with the exit code `VIOLATION`.
    """
    refuse, resolved = _refusal(report), _resolver()
    opened = _opening(frozenset(readable), refuse, resolved)
    own = (refuse, resolved, opened)
    used = (_FORBIDDEN_EVENTS, FORBIDDEN_MODULES, _HARMLESS, type, str, PermissionError)

    def hook(
        event: str, details: tuple[Any, ...], own: tuple[Any, ...] = own, used: tuple[Any, ...] = used
    ) -> None:
        refuse, _resolved, opened = own
        forbidden, modules, harmless, kind, text, denied = used
        if event == "open":
            opened(*details)
        elif event == "import":
            if kind(details[0]) is not text or details[0].partition(".")[0] in modules:
                refuse(f"import {details[0]}")
        elif event in ("object.__setattr__", "object.__delattr__"):
            for part in own:
                if details[0] is part:
                    refuse("change what watches over it")
        elif event.startswith(forbidden):
            path = details[0] if details and kind(details[0]) is text else ""
            if event == "ctypes.dlopen" and "-packages" in path:
                opened(path, None, 0)
                return  # a library that is installed, such as numba's compiler
            if event == "os.mkdir":
                for part in path.split("/"):
                    if part in harmless:
                        raise denied(13, "nothing is written here", path)
            refuse(f"use {event}" + (f" on {path!r}" if path else ""))

    return hook


def _refusal(report: Callable[[str], None]) -> Callable[[str], None]:
    def refuse(what: str, own: tuple[Any, ...] = (report, os._exit, VIOLATION)) -> None:
        report, end, code = own
        try:
            report(what)
        finally:
            end(code)

    return refuse


def _resolver() -> Callable[[str], str]:
    """Return `os.path.realpath` of C functions alone."""

    def resolved(
        path: str, own: tuple[Any, ...] = (os.readlink, os.getcwd, OSError, _MOST_LINKS, False)
    ) -> str:
        readlink, here, failure, most, links = own
        real, rest = "", path.split("/")
        if not path.startswith("/"):
            rest = here().split("/") + rest
        while rest:
            part = rest.pop(0)
            if part == "..":
                real = real.rpartition("/")[0]
            elif part and part != ".":
                try:
                    target = readlink(f"{real}/{part}")
                except failure:  # it is no link, or there is none
                    real = f"{real}/{part}"
                    continue
                links += 1
                if links > most:
                    return "/"
                if target.startswith("/"):
                    real = ""
                rest = target.split("/") + rest
        return real or "/"

    return resolved


def _opening(
    readable: frozenset[str], refuse: Callable[[str], None], resolved: Callable[[str], str]
) -> Callable[..., None]:
    """Return what rules on opening a file, by its path, mode and flags."""
    own = (readable, refuse, resolved, FORBIDDEN_MODULES, _HARMLESS, _WRITE, os.devnull)
    tools = (type, int, bytes, str.__str__, tuple.__getitem__, os.fspath, os.stat, OSError, PermissionError)

    def opened(
        path: Any, mode: Any, flags: Any, own: tuple[Any, ...] = own, tools: tuple[Any, ...] = tools
    ) -> None:
        readable, refuse, resolved, modules, harmless, write, null = own
        kind, number, octets, plain, item, fspath, stat, failure, denied = tools
        if kind(path) is number:
            return  # it is open already
        path = fspath(path)
        real = resolved(path.decode("utf-8", "surrogateescape") if kind(path) is octets else plain(path))
        writes, answers, above = (flags or 0) & write, False, real
        for letter in plain(mode or ""):
            writes = writes or letter in "wax+"
        if writes:
            for part in real.split("/"):
                if part in harmless:
                    raise denied(13, "nothing is written here", real)
            if real != null:
                refuse(f"write to {real!r}")
        inside = above in readable
        while above and not inside:
            above, _, part = above.rpartition("/")
            answers = answers or part.partition(".")[0] in modules
            inside = above in readable
        if inside and not answers:
            return
        try:
            about = item(stat(real), 0) & 0o170000
        except failure:
            return  # Python looks for archives of its library that are not there
        if about == 0o040000:  # a folder, as when a list of what is installed is looked for
            raise denied(13, "it is not for submissions", real)
        refuse(f"read {real!r}")

    return opened
