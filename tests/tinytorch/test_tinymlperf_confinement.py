"""What own code cannot do: read what is not its own, take away the hook that watches it, or change limits.

Each line of code is refused by the hook, which names it; where the hook were gone, Landlock would refuse
files without a name, and the tests would see another reason.
"""

import os
import site
import sys
from pathlib import Path

import numpy as np
import pytest
from tinymlperf_stand_ins import HONEST, QUICK, packed, small_benchmark

from tinytorch.benchmarking.tinymlperf import audit, confinement
from tinytorch.benchmarking.tinymlperf.confinement import can_confine
from tinytorch.benchmarking.tinymlperf.frames import Frame
from tinytorch.benchmarking.tinymlperf.processes import Entrant, PlayerProcess, Refused
from tinytorch.benchmarking.tinymlperf.referee import judge

needs_confinement = pytest.mark.skipif(not can_confine(), reason="this kernel cannot confine own code")

LIBRARY = Path(os.__file__).parent
ANSWERS = [
    LIBRARY / "pydoc_data" / "topics.py",
    *Path("/usr/lib").glob("python3*/pydoc_data/topics.py"),
    *Path("/usr/lib/python3").glob("dist-packages/sklearn/__init__.py"),
    *(Path(folder) / "sklearn" / "datasets" / "data" / "digits.csv.gz" for folder in site.getsitepackages()),
]


def load(tmp_path, code):
    """Load own code in a confined player; return what it says, or raise Refused."""
    submission = packed(tmp_path / "s", code=code)
    entrant = Entrant("it", submission.folder, submission.weights, submission.code)
    setup = Frame({"memory_mb": 4096, "confine": True, "reference": ""}, np.zeros((1, 64), np.float32))
    with PlayerProcess(entrant, setup, 20.0) as player:
        return player.load()


@needs_confinement
class TestFilesWithAnswers:
    @pytest.mark.parametrize("path", [path for path in ANSWERS if path.exists()], ids=str)
    def test_they_cannot_be_opened(self, tmp_path, path):
        with pytest.raises(Refused, match=r"tried to read '.*(topics\.py|digits\.csv\.gz|__init__\.py)'"):
            load(tmp_path, f"open({str(path)!r}, 'rb').read()\n{HONEST}")

    @pytest.mark.parametrize("path", [path for path in ANSWERS if path.exists()], ids=str)
    def test_the_kernel_keeps_them_too(self, tmp_path, path):
        code = (
            "import ctypes\n"
            f"if ctypes.pythonapi['open']({str(path).encode()!r}, 0) >= 0: raise ValueError('it was read')\n"
        )
        assert "Landlock" in load(tmp_path, code + HONEST)

    def test_libraries_that_are_installed_still_load(self, tmp_path):
        code = "import scipy.linalg, scipy.special, numba, json, sqlite3 as _none\n"
        with pytest.raises(Refused, match="tried to import sqlite3"):
            load(tmp_path, code + HONEST)
        assert "audit hooks" in load(tmp_path / "2", code.replace(", sqlite3 as _none", "") + HONEST)


class TestWhatIsReadable:
    def test_of_the_systems_folders_only_shared_libraries(self, tmp_path, monkeypatch):
        root = tmp_path / "lib"
        readable = ["libx.so.1", "liby.so", "x86_64-linux-gnu/libz.so.2.1", "blas/libblas.so.3"]
        hidden = [
            "python3.11/pydoc_data/topics.py",
            "python3/dist-packages/sklearn/data.csv",
            "python3/dist-packages/x.so",
            "sqlite3.so",
            "libx.txt",
        ]
        for name in readable + hidden:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text("")
        (root / "libblas.so").symlink_to("blas/libblas.so.3")  # as alternatives are
        monkeypatch.setattr(confinement, "_LIBRARIES", (str(root),))
        monkeypatch.setattr(sys, "path", [])
        found, _listed = confinement._readable(tmp_path / "submission")
        below = {str(path.relative_to(root)) for path in found if path.is_relative_to(root)}
        assert below == set(readable)

    def test_a_librarys_entries_but_not_those_with_answers(self, tmp_path, monkeypatch):
        for name in ("scipy", "sklearn", "pydoc_data", "sqlite3", "site-packages", "inner/_sqlite3"):
            (tmp_path / "packages" / name).mkdir(parents=True)
        packages = tmp_path / "packages"
        monkeypatch.setattr(sys, "path", [str(packages), str(packages / "inner")])
        found, listed = confinement._readable(tmp_path / "submission")
        names = {str(path.relative_to(packages)) for path in found if path.is_relative_to(packages)}
        assert names == {"scipy"}
        assert {packages, packages / "inner"} <= set(listed)


# Each makes the hook believe, or do, something else, where it uses what can be changed.
AROUND = {
    "its parts, found among all objects": (
        "import gc\nfor item in gc.get_objects():\n    pass\n",
        "use gc.get_objects",
    ),
    "its parts, found by what refers to them": (
        "import gc, os\ngc.get_referrers(os._exit)\n",
        "use gc.get_referrers",
    ),
    "its parts, found by what they refer to": ("import gc\ngc.get_referents(gc)\n", "use gc.get_referents"),
    "how paths are resolved": (
        (
            "import os, posixpath\n"
            "posixpath.abspath = posixpath.realpath = posixpath._joinrealpath = lambda *a, **k: '/dev/null'\n"
            "os.readlink = os.getcwd = os.fsdecode = os.fspath = lambda *a: '/dev/null'\n"
            "open('/etc/passwd')\n"
        ),
        "read '/etc/passwd'",
    ),
    "whether a path exists": (
        (
            "import os, posixpath, genericpath\n"
            "posixpath.lexists = posixpath.isdir = genericpath.isdir = lambda path: False\n"
            "os.stat = os.lstat = None\n"
            "os.stat_result.st_mode = 0o040000\n"
            "open('/etc/passwd')\n"
        ),
        "read '/etc/passwd'",
    ),
    "what builtins do": (
        (
            "import builtins, os\n"
            "opened, builtins.any, builtins.isinstance = open, lambda items: True, lambda *a: False\n"
            "builtins.str = builtins.type = builtins.bool = builtins.tuple = lambda *a: ''\n"
            "opened('/etc/passwd')\n"
        ),
        "read '/etc/passwd'",
    ),
    "the lists of what is forbidden": (
        (
            "from tinytorch.benchmarking.tinymlperf import audit\n"
            "audit.FORBIDDEN_MODULES = audit._FORBIDDEN_EVENTS = audit._WRITE = ()\n"
            "import os\nos.system('true')\n"
        ),
        "use os.system",
    ),
    "the list of modules": (
        """from tinytorch.benchmarking.tinymlperf import audit
audit.FORBIDDEN_MODULES = frozenset()
import sklearn
""",
        "import sklearn",
    ),
    "how a process ends": (
        "import os\nos._exit = lambda code: None\nopen('/etc/passwd')\n",
        "read '/etc/passwd'",
    ),
    "a path that is another one when asked again": (
        (
            "import os\n"
            "class Path:\n"
            "    asked = 0\n"
            "    def __fspath__(self):\n"
            "        Path.asked += 1\n"
            "        return '/dev/null' if Path.asked == 2 else '/etc/passwd'\n"
            "open(Path())\n"
        ),
        "read '/etc/passwd'",
    ),
    "an interpreter without a hook": (
        "import _xxsubinterpreters as others\nothers.run_string(others.create(), \"open('/etc/passwd')\")\n",
        "use cpython.PyInterpreterState_New",
    ),
}
FRAMES = """
import types
try:
    open('/etc')
except PermissionError as error:
    trace = error.__traceback__
found = []
while trace:
    found += [item for item in trace.tb_frame.f_locals.values()]
    trace = trace.tb_next
for item in list(found):
    if isinstance(item, tuple):
        found += item
parts = [item for item in found if isinstance(item, types.FunctionType)]
if not parts:
    raise ValueError('the test is out of date')
for item in parts:
    for cell in item.__closure__ or ():
        cell.cell_contents = lambda *a: None
for item in parts:
    CHANGE
open('/etc/passwd')
"""


@needs_confinement
class TestTheHook:
    @pytest.mark.parametrize("what", AROUND)
    def test_plain_python_does_not_change(self, tmp_path, what):
        code, reason = AROUND[what]
        with pytest.raises(Refused, match=f"tried to {reason}"):
            load(tmp_path, code + HONEST)

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            ("item.__code__ = (lambda *a: None).__code__", "change what watches over it"),
            ("item.__defaults__ = ((), ())", "change what watches over it"),
            ("del item.__defaults__", "change what watches over it"),
            ("item.__kwdefaults__ = {}", "change what watches over it"),
            ("item.__globals__.clear()", "read '/etc/passwd'"),
            ("item.__dict__['own'] = ()", "read '/etc/passwd'"),
        ],
    )
    def test_its_parts_found_in_the_frames_of_an_error_cannot_be_changed(self, tmp_path, change, reason):
        with pytest.raises(Refused, match=f"tried to {reason}"):
            load(tmp_path, FRAMES.replace("CHANGE", change) + HONEST)

    @pytest.mark.parametrize(
        "line",
        [
            "resource.prlimit(os.getpid(), resource.RLIMIT_CORE, (0, 0))",
            "resource.prlimit(os.getppid(), resource.RLIMIT_CORE)",
            "resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))",
        ],
    )
    def test_limits_are_not_changed(self, tmp_path, line):
        with pytest.raises(Refused, match=r"tried to use resource\.(prlimit|setrlimit)"):
            load(tmp_path, f"import os, resource\n{line}\n{HONEST}")


class TestPaths:
    def test_they_are_resolved_as_the_system_does(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "a" / "b").mkdir(parents=True)
        (tmp_path / "a" / "b" / "file").write_text("")
        for link, target in (
            ("up", ".."),
            ("whole", str(tmp_path / "a" / "b")),
            ("chain", "whole"),
            ("a/back", "../chain"),
            ("none", "nothing/there"),
        ):
            (tmp_path / link).symlink_to(target)
        resolved = audit._resolver()
        paths = ["a/b/file", "./a//b/../b/file", "up", "chain/file", "a/back/file", "none", "a/back/../.."]
        for path in [*paths, "/", "", "..", "/..", "/proc/self/cwd/a", *(f"{tmp_path}/{p}" for p in paths)]:
            assert resolved(path) == os.path.realpath(path), path

    def test_links_that_lead_nowhere_end(self, tmp_path):
        (tmp_path / "loop").symlink_to("loop")
        assert audit._resolver()(str(tmp_path / "loop")) == "/"


class TestWithoutLandlock:
    @pytest.mark.parametrize("version", [0, 1, 2])
    def test_own_code_is_not_run(self, tmp_path, monkeypatch, version):
        monkeypatch.setattr("tinytorch.benchmarking.tinymlperf.landlock.landlock_version", lambda: version)
        ruling = judge(packed(tmp_path / "s", code="raise SystemExit"), small_benchmark(), QUICK, seed=0)
        assert (
            "brings code, which runs only where it can be confined: on Linux 6.2 or later" in ruling.refused
        )
        assert ruling.quality is None
