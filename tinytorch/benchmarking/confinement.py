"""What keeps a player from files, network and other processes: limits, the kernel's Landlock, audit hooks.

Landlock (Linux 5.13 and later) holds whatever the code does. Audit hooks see what goes through Python, and
name it; code that gets around Python gets around them, so without Landlock the referee says so.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from tinytorch.benchmarking import landlock
from tinytorch.benchmarking.audit import FORBIDDEN_MODULES, audit_hook

_SYSTEM = (
    *("/usr/lib", "/usr/lib64", "/lib", "/lib64", "/usr/share/zoneinfo", "/etc/ld.so.cache"),
    *("/etc/localtime", "/dev/null", "/dev/urandom", "/dev/zero", "/proc/cpuinfo", "/proc/meminfo"),
    *("/proc/self", "/sys/devices/system/cpu"),
)


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
    """
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    readable, listable = _readable(folder)
    level = landlock.restrict(readable, listable)
    sys.addaudithook(audit_hook(tuple(os.path.realpath(path) for path in readable), report))
    return f"Landlock {level} and audit hooks" if level else "audit hooks only"


def _readable(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return what may be read, and the folders that may be listed besides."""
    package = Path(__file__).resolve().parent.parent
    found = [folder, package, *map(Path, _SYSTEM)]
    libraries = {Path(entry).resolve() for entry in sys.path if entry} - {package.parent}
    libraries |= {Path(os.__file__).resolve().parent}
    listable = [entry for entry in libraries if entry.is_dir()]
    for library in listable:
        found += [entry for entry in library.iterdir() if _innocent(entry.name)]
    return [path for path in found if path.exists()], listable


def _innocent(name: str) -> bool:
    return name.partition(".")[0] not in FORBIDDEN_MODULES | {"site-packages", "dist-packages"}
