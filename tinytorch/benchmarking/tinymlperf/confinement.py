"""What keeps a player from files, network and other processes: limits, the kernel's Landlock, audit hooks.

Landlock (Linux 5.13 and later; own code takes version 3, of Linux 6.2) holds whatever the code does. Audit
hooks see what goes through Python, and name it; code that writes to memory gets around them.

What none of them prevents: such code may change the priority, processors and limits of processes of the same
user. The referee looks at those of the players before every query (see `processes`), but can be ended itself.
Before Linux 6.12 such code may also send signals; and processes that it starts live on if they leave their
session. Who judges what strangers submit does so on a machine of its own, or as a user of its own.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from tinytorch.benchmarking.tinymlperf import landlock
from tinytorch.benchmarking.tinymlperf.audit import FORBIDDEN_MODULES, audit_hook

# Version 3 covers truncating: from there on nothing outside can be changed.
_LEAST_LANDLOCK = 3
_SYSTEM = (
    *("/usr/lib/locale", "/usr/share/zoneinfo", "/etc/ld.so.cache", "/etc/localtime"),
    *("/dev/null", "/dev/urandom", "/dev/zero", "/proc/cpuinfo", "/proc/meminfo", "/proc/self"),
    *("/sys/devices/system/cpu",),
)
# Only the shared libraries in them: beside these lie whole installations of Python.
_LIBRARIES = ("/usr/lib", "/usr/lib64", "/lib", "/lib64")


def can_confine() -> bool:
    """Return whether this system can keep own code from files and from everybody else's data."""
    return landlock.landlock_version() >= _LEAST_LANDLOCK


def limit_resources(memory_mb: int) -> None:
    """Limit this process's address space, and let it leave no core file.

    Raises:
        ValueError: the system has no such limits.
    """
    try:
        import resource
    except ImportError:
        raise ValueError(
            "submissions can be judged on Linux and macOS only: limits are missing here"
        ) from None
    size = memory_mb << 20
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def confine(folder: Path, report: Callable[[str], None]) -> str:
    """Confine this process for good, and return by what: it reads libraries and `folder`, and writes nothing.

    Args:
        folder: of the submission.
        report: is told of the first thing that was tried and is forbidden; then the process ends.

    Raises:
        ValueError: the system cannot.
    """
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    readable, listable = _readable(folder)
    level = landlock.restrict(readable, listable) if can_confine() else 0
    if not level:
        raise ValueError("own code runs only where it can be confined: on Linux 6.2 or later with Landlock")
    sys.addaudithook(audit_hook(tuple(os.path.realpath(path) for path in readable), report))
    return f"Landlock {level} and audit hooks"


def _readable(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return what may be read, and the folders that may be listed besides."""
    package = Path(__file__).resolve().parents[2]
    found = [folder, package, *map(Path, _SYSTEM), *_shared_libraries()]
    libraries = {Path(entry).resolve() for entry in sys.path if entry} - {package.parent}
    libraries |= {Path(os.__file__).resolve().parent}
    listable = [entry for entry in libraries if entry.is_dir()]
    for library in listable:
        found += [
            entry for entry in library.iterdir() if _innocent(entry) and entry.resolve() not in libraries
        ]
    return [path for path in found if path.exists()], listable


def _shared_libraries() -> list[Path]:
    """Return the system's shared libraries, which lie in folders for all, and for one kind of processor."""
    folders = {Path(name).resolve() for name in (*_LIBRARIES, f"{sys.base_prefix}/lib")}
    folders |= {inner for folder in folders for inner in folder.glob("*-linux-*")}
    found = {entry.resolve() for folder in folders for entry in folder.glob("*.so*")}
    return [entry for entry in found if entry.is_file() and _innocent(entry)]


def _innocent(path: Path) -> bool:
    return path.name.partition(".")[0] not in FORBIDDEN_MODULES | {"site-packages", "dist-packages"}
