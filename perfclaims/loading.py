"""Finds suite files and loads the suite in one."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from perfclaims.suite import PerformanceTestSuite

_ROOT_MARKS = ("pyproject.toml", "setup.py", "setup.cfg", ".git")


class LoadError(Exception):
    """A suite file that cannot be used; one sentence."""


def suite_files(paths: list[Path]) -> list[Path]:
    """The suite files below the paths, in order: a file stands for itself, a folder for its `test_*.py`.

    Raises:
        LoadError: a path that does not exist, or a folder without such files.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_file():
            found.append(path.resolve())
        elif path.is_dir():
            files = sorted(p.resolve() for p in path.glob("test_*.py") if mentions_suite(p))
            if not files:
                raise LoadError(
                    f"no suite in '{path}': expected files test_*.py that make a PerformanceTestSuite"
                )
            found.extend(files)
        else:
            raise LoadError(f"'{path}' does not exist; name a suite file or a folder of suite files")
    return list(dict.fromkeys(found))


def mentions_suite(path: Path) -> bool:
    """Whether a test file makes a suite, without importing it."""
    try:
        return "PerformanceTestSuite(" in path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False


def project_root(file: Path) -> Path:
    """The folder of the project that a suite file belongs to; its own folder when there is no sign of one."""
    for folder in file.resolve().parents:
        if any((folder / mark).exists() for mark in _ROOT_MARKS):
            return folder
    return file.resolve().parent


def put_first_on_path(file: Path) -> None:
    """Let the suite import its own project before anything of the same name that is installed."""
    for folder in (file.resolve().parent, project_root(file)):
        text = str(folder)
        if text in sys.path:
            sys.path.remove(text)
        sys.path.insert(0, text)


def load_suite(file: Path) -> PerformanceTestSuite:
    """Import a suite file and return its suite.

    Raises:
        LoadError: it makes none, more than one, or one without claims; and whatever importing it raises.
    """
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None:
        raise LoadError(f"'{file.name}' is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    spec.loader.exec_module(module)
    suites = list({id(v): v for v in vars(module).values() if isinstance(v, PerformanceTestSuite)}.values())
    if len(suites) != 1:
        raise LoadError(f"'{file.name}' must make one PerformanceTestSuite, it makes {len(suites)}")
    if not suites[0].declared:
        raise LoadError(f"suite {suites[0].name!r} in '{file.name}' declares no claims")
    return suites[0]
