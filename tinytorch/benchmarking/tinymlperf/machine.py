"""What kind of machine this is, without naming it, and which revision of code ran."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np


def describe_system() -> dict[str, Any]:
    """Describe this machine as a submission does."""
    import psutil

    return {
        "cpu": _cpu(),
        "cores": os.cpu_count() or 1,
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "os": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "numpy": np.__version__,
    }


def machine_kind(system: dict[str, Any] | None = None) -> str:
    """Return the kind of machine whose results stand in one table: the processor and the system.

    Cores and memory do not belong to it: every model runs on one thread, and fits.
    """
    described = system or describe_system()
    return f"{described['cpu']}, {described['os']}"


def revision_of(folder: Path) -> dict[str, Any] | None:
    """Return the git commit of a folder, and whether files differ from it; None where git does not know."""
    commit = _git(folder, "rev-parse", "HEAD")
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    if commit is None or changes is None:
        return None
    return {"commit": commit.strip(), "dirty": bool(changes.strip())}


def _git(folder: Path, *arguments: str) -> str | None:
    program = shutil.which("git")
    if program is None:
        return None
    try:
        done = subprocess.run(  # noqa: S603 - no shell, and the program is git
            [program, "--no-optional-locks", "-C", str(folder), *arguments],
            check=True,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=15,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode(errors="replace")


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name" and value.strip():
                return " ".join(value.split())
    except OSError:
        pass
    return platform.processor() or platform.machine() or "unknown"
