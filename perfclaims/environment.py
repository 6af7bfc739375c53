"""What the machine is: processor, libraries, threads, and the code revision that ran on it.

A description holds no user name, host name or path, so that an archived run can be published.
"""

from __future__ import annotations

import functools
import os
import platform
import re
import shutil
import subprocess
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from perfclaims.activity import (
    Activity,
    Reader,
    Snapshot,
    activity_between,
    busy_warning,
    load_averages,
    read_proc,
    take_snapshot,
)

__all__ = [
    "Activity",
    "CodeRevision",
    "Snapshot",
    "activity_between",
    "busy_warning",
    "code_revision",
    "cpu_flags",
    "describe_environment",
    "missing_cpu_flags",
    "take_snapshot",
]

_LIBRARIES = (
    "llvmlite",
    "numba",
    "onnxruntime",
    "pandas",
    "psutil",
    "scikit-learn",
    "scipy",
    "threadpoolctl",
    "torch",
)
_THREAD_VARIABLES = (
    "BLIS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
# Apple's names of vector features and Linux's names of the same.
_APPLE_FLAGS = {
    "AdvSIMD": "asimd",
    "FEAT_FP16": "asimdhp",
    "FEAT_DotProd": "asimddp",
    "FEAT_FHM": "asimdfhm",
    "FEAT_BF16": "bf16",
    "FEAT_I8MM": "i8mm",
    "FEAT_SME": "sme",
    "FEAT_SME2": "sme2",
}
# They lead git away from the path asked for; a git hook that starts the audit sets them.
_GIT_REDIRECTIONS = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY")
_COMMIT = re.compile(r"# branch\.oid ([0-9a-f]{40}|[0-9a-f]{64})")
# Enough for a cold disk and a large work tree; an audit waits for it once.
_COMMAND_TIMEOUT_S = 15.0
_CLOCK_READINGS = 2_000

T = TypeVar("T")


def describe_environment(read: Reader = read_proc) -> dict[str, Any]:
    """Describe the machine as far as it explains results, in strict JSON, with null for what it hides.

    Call it outside of thread limits: `threads` tells how many BLAS and OpenMP would use now.

    Args:
        read: what stands for /proc.
    """
    pools = _ask(_thread_pools) or []
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "numpy": np.__version__,
        "blas": _blas(pools),
        "threads": _threads(pools),
        "cpu": {"model": _cpu_model(read), "flags": _sorted_flags(read), "cores": _cores()},
        "memory": _ask(_memory) or {"total_bytes": None, "available_bytes": None},
        "os": {"system": platform.system(), "release": platform.release(), "machine": platform.machine()},
        "load": {"average": load_averages()},
        "libraries": {name: _ask(functools.partial(_version, name)) for name in _LIBRARIES},
        "clock": _clock(),
    }


@functools.cache
def cpu_flags() -> frozenset[str] | None:
    """Instructions that every core has, by their Linux names ("avx512_vnni"); None where they cannot be read.

    Linux tells all of them; macOS on Apple silicon those for vectors and matrices; other systems none.
    """
    return _flags(read_proc)


def missing_cpu_flags(required: Iterable[str]) -> tuple[str, ...] | None:
    """Those of the flags that this CPU lacks, in the order given; None when its flags are unknown here.

    Raises:
        ValueError: `required` is a single string.
    """
    if isinstance(required, str):
        raise ValueError(
            f"`required` must hold names of CPU flags, got the string {required!r}; write ({required!r},)"
        )
    wanted = tuple(required)
    present = cpu_flags()
    if present is None:
        return None if wanted else ()
    return tuple(flag for flag in wanted if flag not in present)


@dataclass(frozen=True, slots=True)
class CodeRevision:
    """A git commit by its hexadecimal name, and whether the work tree differed from it.

    `dirty` means changes in tracked files, or Python files that are neither tracked nor ignored.
    """

    commit: str
    dirty: bool


def code_revision(path: Path) -> CodeRevision | None:
    """Revision of the git repository that holds a file or folder.

    None outside a repository, before its first commit, and where git is absent, refuses or takes too long.
    """
    folder = path if _ask(path.is_dir) else path.parent
    status = _output_of(
        # Neither the index nor a file system monitor is touched: an audit leaves the repository as it was.
        *("git", "--no-optional-locks", "-c", "core.fsmonitor=false", "-C", str(folder)),
        *("status", "--porcelain=v2", "--branch", "--untracked-files=all", "-z"),
    )
    entries = (status or "").split("\0")
    commit = next((found[1] for entry in entries if (found := _COMMIT.fullmatch(entry))), None)
    if commit is None:
        return None
    dirty = any(entry[:2] in {"1 ", "2 ", "u "} or _is_untracked_python(entry) for entry in entries)
    return CodeRevision(commit, dirty)


def _is_untracked_python(entry: str) -> bool:
    return entry.startswith("? ") and entry.endswith(".py")


def _sorted_flags(read: Reader) -> list[str] | None:
    flags = _flags(read)
    return None if flags is None else sorted(flags)


def _flags(read: Reader) -> frozenset[str] | None:
    if platform.system() == "Darwin":
        return _apple_flags() if platform.machine() == "arm64" else None
    listed = _cpuinfo(read, "flags") or _cpuinfo(read, "Features")
    return frozenset.intersection(*(frozenset(line.split()) for line in listed)) if listed else None


def _apple_flags() -> frozenset[str] | None:
    lines = (line.partition(":") for line in (_output_of("sysctl", "hw.optional") or "").splitlines())
    present = {name.rpartition(".")[2] for name, _, value in lines if value.strip() == "1"}
    return frozenset(_APPLE_FLAGS[name] for name in present & _APPLE_FLAGS.keys()) or None


def _cpu_model(read: Reader) -> str | None:
    if platform.system() == "Darwin":
        return (_output_of("sysctl", "-n", "machdep.cpu.brand_string") or "").strip() or None
    if named := _cpuinfo(read, "model name"):
        return named[0]
    implementer, part = _cpuinfo(read, "CPU implementer"), _cpuinfo(read, "CPU part")
    if implementer and part:  # ARM has numbers in place of a name
        return f"implementer {implementer[0]}, part {part[0]}"
    return None if platform.system() == "Linux" else platform.processor() or None


def _cpuinfo(read: Reader, key: str) -> list[str]:
    """Values of one key of /proc/cpuinfo, one for each core."""
    pairs = (line.partition(":") for line in (read("cpuinfo") or "").splitlines())
    return [value.strip() for name, _, value in pairs if name.strip() == key and value.strip()]


def _cores() -> dict[str, int | None]:
    return {
        "physical": _ask(_physical_cores),
        "logical": os.cpu_count(),
        "allowed": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
    }


def _physical_cores() -> int | None:
    import psutil

    return psutil.cpu_count(logical=False)


def _memory() -> dict[str, int | None]:
    import psutil

    memory = psutil.virtual_memory()
    return {"total_bytes": memory.total, "available_bytes": memory.available}


def _thread_pools() -> list[dict[str, Any]]:
    import threadpoolctl

    return list(threadpoolctl.threadpool_info())


def _blas(pools: list[dict[str, Any]]) -> list[dict[str, str | None]]:
    """Each BLAS that is loaded; NumPy's own account of its build where none can be asked (Accelerate)."""
    loaded = [
        {
            "name": pool.get("internal_api"),
            "library": pool.get("prefix"),
            "version": pool.get("version"),
            "architecture": pool.get("architecture"),
            "threading_layer": pool.get("threading_layer"),
        }
        for pool in pools
        if pool.get("user_api") == "blas"
    ]
    return loaded or _ask(_blas_of_the_build) or []


def _blas_of_the_build() -> list[dict[str, str | None]]:
    build: Any = np.show_config(mode="dicts")
    blas = build["Build Dependencies"]["blas"]
    return [{"name": blas["name"], "version": blas["version"]}]


def _threads(pools: list[dict[str, Any]]) -> dict[str, Any]:
    def most(user_api: str) -> int | None:
        return max((pool["num_threads"] for pool in pools if pool["user_api"] == user_api), default=None)

    given = {name: os.environ.get(name, "") for name in _THREAD_VARIABLES}
    return {
        "blas": most("blas"),
        "openmp": most("openmp"),
        "variables": {name: value for name, value in given.items() if re.fullmatch(r"\d+(,\d+)*", value)},
    }


def _clock() -> dict[str, float | int | None]:
    """State the resolution of the clock that times, and the smallest step seen between two readings."""
    readings = [time.perf_counter_ns() for _ in range(_CLOCK_READINGS)]
    steps = (later - earlier for earlier, later in pairwise(readings))
    return {
        "resolution_ns": time.get_clock_info("perf_counter").resolution * 1e9,
        "smallest_step_ns": min((step for step in steps if step > 0), default=None),
    }


def _version(library: str) -> str:
    from importlib import metadata

    return metadata.version(library)


def _output_of(*command: str) -> str | None:
    """Return what a program prints; None where it is absent, fails or takes too long."""
    program = shutil.which(command[0])
    if program is None:
        return None
    try:
        done = subprocess.run(  # noqa: S603 - no shell, and the program is named in this file
            [program, *command[1:]],
            check=True,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=_COMMAND_TIMEOUT_S,
            env={name: value for name, value in os.environ.items() if name not in _GIT_REDIRECTIONS},
        )
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return done.stdout.decode("utf-8", errors="replace")


def _ask(question: Callable[[], T]) -> T | None:
    """Return the answer, or None: a machine that cannot be described can still be measured."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return question()
    except Exception:  # noqa: BLE001 - see above
        return None
