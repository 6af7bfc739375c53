"""Finds suite files and loads the suite in one."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterable
from pathlib import Path

from perfclaims.suite import PerformanceTestSuite


class LoadError(Exception):
    """A suite file that cannot be used; one sentence."""


def suite_files(paths: Iterable[Path]) -> list[Path]:
    """The suite files below the paths, in order: a file stands for itself, a folder for its `test_*.py`.

    Raises:
        LoadError: a path that does not exist or cannot be read, or a folder without such files.
    """
    found: list[Path] = []
    for path in paths:
        try:
            found.extend(_suite_files(path))
        except OSError as error:
            raise LoadError(f"cannot read '{error.filename or path}': {error.strerror or error}") from None
    return list(dict.fromkeys(found))


def _suite_files(path: Path) -> list[Path]:
    if path.is_file():
        return [path.resolve()]
    if not path.is_dir():
        raise LoadError(f"'{path}' does not exist; name a suite file or a folder of suite files")
    files = sorted(file.resolve() for file in path.iterdir() if _is_suite_file(file))
    if not files:
        raise LoadError(f"no suite in '{path}': expected files test_*.py that make a PerformanceTestSuite")
    return files


def _is_suite_file(file: Path) -> bool:
    return file.match("test_*.py") and file.is_file() and mentions_suite(file)


def mentions_suite(path: Path) -> bool:
    """Whether a test file makes a suite, without importing it."""
    return "PerformanceTestSuite(" in path.read_text(encoding="utf-8", errors="replace")


def load_suite(file: Path) -> PerformanceTestSuite:
    """Import a suite file and return its suite.

    Raises:
        LoadError: it makes none, more than one, or one without claims; and whatever importing it raises.
    """
    # A file named like a module that is loaded already must not take its place.
    name = file.stem if file.stem not in sys.modules else f"suite_in_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise LoadError(f"'{file.name}' is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    suites = list({id(v): v for v in vars(module).values() if isinstance(v, PerformanceTestSuite)}.values())
    if len(suites) != 1:
        raise LoadError(f"'{file.name}' must make one PerformanceTestSuite, it makes {len(suites)}")
    if not suites[0].declared:
        raise LoadError(f"suite {suites[0].name!r} in '{file.name}' declares no claims")
    return suites[0]
