"""Where in a project an error came from, and which project a file belongs to."""

import sys
from pathlib import Path

import pytest

from perfclaims.criteria import Speedup
from perfclaims.project import place_in_dump, place_of, project_root, put_first_on_path, without_home


@pytest.fixture
def project(tmp_path):
    (tmp_path / "own" / "tests").mkdir(parents=True)
    (tmp_path / "own" / "pyproject.toml").touch()
    return tmp_path / "own"


def raised_in(path, text, **names):
    """The error that a file with this text raises."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    try:
        exec(compile(text, str(path), "exec"), names)
    except (ArithmeticError, LookupError) as error:
        return error
    raise AssertionError("nothing was raised")


@pytest.mark.parametrize("mark", ["pyproject.toml", "setup.py", "setup.cfg", ".git"])
def test_the_root_is_the_nearest_folder_with_the_mark_of_a_project(tmp_path, mark):
    (tmp_path / mark).touch()
    (tmp_path / "a" / "b").mkdir(parents=True)
    assert project_root(tmp_path / "a" / "b" / "test_x.py") == tmp_path
    (tmp_path / "a" / mark).touch()
    assert project_root(tmp_path / "a" / "b" / "test_x.py") == tmp_path / "a"


def test_without_a_mark_the_root_is_where_the_nearest_package_lies(tmp_path):
    suite = tmp_path / "a" / "tests" / "performance" / "test_x.py"
    suite.parent.mkdir(parents=True)
    assert project_root(suite) == suite.parent
    package = tmp_path / "a" / "tinytorch"
    package.mkdir()
    assert project_root(suite) == suite.parent
    (package / "__init__.py").touch()
    assert project_root(suite) == tmp_path / "a"


def test_the_place_of_an_error_is_the_innermost_line_in_the_project(project, tmp_path):
    def elsewhere():
        raise KeyError("x")

    error = raised_in(project / "tests" / "test_x.py", "def f():\n    g()\n\nf()", g=elsewhere)
    assert place_of(error, project) == "tests/test_x.py:2"
    assert place_of(error, tmp_path / "other") is None


@pytest.mark.parametrize("folder", [".venv/lib/site-packages/lib", "env/dist-packages"])
def test_installed_libraries_in_the_projects_folder_are_not_its_code(project, folder):
    text = "def f():\n    1 / 0"
    library = project / folder / "lib.py"
    library.parent.mkdir(parents=True)
    library.write_text(text)
    names = {}
    exec(compile(text, str(library), "exec"), names)
    error = raised_in(project / "tests" / "test_x.py", "\n\nf()", f=names["f"])
    assert place_of(error, project) == "tests/test_x.py:3"


def test_the_harness_is_never_the_place_also_where_the_project_holds_it():
    root = project_root(Path(__file__))
    with pytest.raises(ValueError, match="at_least") as caught:
        Speedup(at_least=-1)
    line = caught.tb.tb_lineno
    assert place_of(caught.value, root) == f"tests/perfclaims/test_project.py:{line}"


def test_a_syntax_error_is_placed_where_it_is(project):
    path = project / "tests" / "test_x.py"
    path.write_text("x = 1\ndef f(:\n")
    with pytest.raises(SyntaxError) as caught:
        compile(path.read_text(), str(path), "exec")
    assert place_of(caught.value, project) == "tests/test_x.py:2"


def test_a_dump_of_the_fault_handler_is_read_from_the_innermost_call_outwards(project):
    path = project / "tests" / "test_x.py"
    dump = (
        f'Traceback (most recent call last):\n  File "{path}", line 99 in wrong\n'
        "Fatal Python error: Segmentation fault\n\nCurrent thread 0x1 (most recent call first):\n"
        '  File "/usr/lib/python3/ctypes/__init__.py", line 519 in string_at\n'
        f'  File "<string>", line 3 in made\n  File "{path}", line 7 in f\n  File "{path}", line 9 in g\n'
    )
    assert place_in_dump(dump, project) == "tests/test_x.py:7"
    assert place_in_dump(dump.split("Fatal", maxsplit=1)[0], project) is None


def test_home_is_not_named(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    assert without_home("cannot read /home/ada/x") == "cannot read ~/x"
    monkeypatch.setenv("HOME", "/")
    assert without_home("cannot read /srv/x") == "cannot read /srv/x"


def test_the_project_comes_first_on_the_path_with_its_source_folder_and_each_folder_once(
    project, monkeypatch
):
    (project / "src").mkdir()
    monkeypatch.setattr(sys, "path", ["/first", str(project), "/last", str(project / "tests")])
    put_first_on_path(project / "tests" / "test_x.py")
    folders = [project, project / "src", project / "tests"]
    assert sys.path == [*map(str, folders), "/first", "/last"]


def test_a_project_without_a_source_folder_adds_none(project, monkeypatch):
    monkeypatch.setattr(sys, "path", ["/first"])
    put_first_on_path(project / "tests" / "test_x.py")
    assert sys.path == [str(project), str(project / "tests"), "/first"]
