"""The project that a suite file belongs to: its root, what it may import, and places in its code."""

from __future__ import annotations

import os
import re
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path

_ROOT_MARKS = ("pyproject.toml", "setup.py", "setup.cfg", ".git")
_HARNESS = Path(__file__).resolve().parent
_INSTALLED = ("site-packages", "dist-packages")
# A line of a stack as the interpreter's fault handler prints it.
_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+)')


def project_root(file: Path) -> Path:
    """The folder of the project that a file belongs to.

    That is the nearest folder with a `pyproject.toml` or another mark; without one, the nearest of the file's
    own folder and the two above it that holds a package; without that, the file's own folder.
    """
    folders = file.resolve().parents
    marked = (folder for folder in folders if any((folder / mark).exists() for mark in _ROOT_MARKS))
    packaged = (folder for folder in folders[:3] if any(folder.glob("*/__init__.py")))
    return next(marked, None) or next(packaged, None) or folders[0]


def put_first_on_path(file: Path) -> None:
    """Let a suite import its own project before anything of the same name that is installed."""
    root = project_root(file)
    for folder in (file.resolve().parent, root / "src", root):
        text = str(folder)
        while text in sys.path:
            sys.path.remove(text)
        if folder.is_dir():
            sys.path.insert(0, text)


def place_of(error: BaseException, project: Path) -> str | None:
    """Innermost place in the project from which an error came, as `folder/file.py:12`; None without one."""
    frames = traceback.extract_tb(error.__traceback__)
    if isinstance(error, SyntaxError) and error.filename:
        frames.append(traceback.FrameSummary(error.filename, error.lineno or 0, ""))
    return _innermost(((f.filename, f.lineno) for f in reversed(frames)), project)


def place_in_dump(text: str, project: Path) -> str | None:
    """The same from a stack that the interpreter's fault handler printed somewhere in the text."""
    _, marked, stack = text.rpartition("(most recent call first)")
    frames = _FRAME.finditer(stack) if marked else ()
    return _innermost(((found["file"], int(found["line"])) for found in frames), project)


def _innermost(frames: Iterable[tuple[str, int | None]], project: Path) -> str | None:
    project = project.resolve()
    for name, line in frames:
        if name.startswith("<"):  # code that was made, not written
            continue
        file = Path(name).resolve()
        # Harness and libraries can lie within the project's folder.
        ours = file.is_relative_to(project) and not file.is_relative_to(_HARNESS)
        if ours and not any(part in _INSTALLED for part in file.parts):
            return f"{file.relative_to(project).as_posix()}:{line}"
    return None


def without_home(text: str) -> str:
    """Text with the home folder written `~`: run files are published, and name nobody."""
    home = os.path.expanduser("~")  # noqa: PTH111 - Path.home() raises where there is none
    return text.replace(home, "~") if len(home) > 1 else text
