"""Finding suite files, and loading the one suite in each."""

import sys

import pytest
from synthetic_suites import HEAD, claim, suite

from perfclaims.loading import LoadError, load_suite, suite_files


@pytest.fixture(autouse=True)
def unloaded():
    """Suites that a test loads are forgotten after it."""
    before = dict(sys.modules)
    yield
    for name in set(sys.modules) - set(before):
        del sys.modules[name]
    sys.modules.update(before)


def test_a_file_stands_for_itself_and_a_folder_for_its_suites_in_order(tmp_path):
    second, first = suite(tmp_path / "a" / "test_2.py"), suite(tmp_path / "a" / "test_1.py")
    (tmp_path / "a" / "test_plain.py").write_text("def test_nothing(): pass")
    (tmp_path / "a" / "test_folder.py").mkdir()
    suite(tmp_path / "a" / "helper.py")
    single = suite(tmp_path / "other.py")
    assert suite_files([tmp_path / "a"]) == [first, second]
    assert suite_files([single, tmp_path / "a", single, second]) == [single, first, second]


def test_a_path_that_does_not_exist_and_a_folder_without_suites_are_refused(tmp_path):
    with pytest.raises(LoadError, match=r"nothing' does not exist; name a suite file or a folder"):
        suite_files([tmp_path / "nothing"])
    with pytest.raises(LoadError, match=r"no suite in .*: expected files test_\*\.py that make a Perf"):
        suite_files([tmp_path])
    with pytest.raises(LoadError, match=r"cannot read '.*': File name too long"):
        suite_files([tmp_path / ("x" * 300)])


def test_the_suite_of_a_file_is_found_and_can_be_imported_by_its_name(tmp_path):
    path = suite(tmp_path / "test_loaded_here.py", claim("a.b"), name="named")
    assert load_suite(path).name == "named"
    assert sys.modules["test_loaded_here"].suite.name == "named"


def test_a_file_named_like_a_module_does_not_take_its_place(tmp_path):
    path = suite(tmp_path / "json.py", claim("a.b"))
    assert load_suite(path).claims[0].id == "a.b"
    import json

    assert json.loads("1") == 1


def test_two_names_of_one_suite_are_one_suite(tmp_path):
    path = suite(tmp_path / "test_alias.py", claim("a.b"), "again = suite\n")
    assert len(load_suite(path).claims) == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (HEAD, "'test_x.py' must make one PerformanceTestSuite, it makes 0"),
        (HEAD + "a, b = PerformanceTestSuite('a'), PerformanceTestSuite('b')", "it makes 2"),
        (HEAD + "suite = PerformanceTestSuite('a')", "suite 'a' in 'test_x.py' declares no claims"),
    ],
)
def test_a_file_makes_one_suite_with_claims(tmp_path, text, said):
    path = tmp_path / "test_x.py"
    path.write_text(text)
    with pytest.raises(LoadError, match=said):
        load_suite(path)


def test_what_is_no_python_file_is_refused(tmp_path):
    path = tmp_path / "test_x.txt"
    path.write_text("PerformanceTestSuite(")
    with pytest.raises(LoadError, match=r"'test_x\.txt' is no Python file"):
        load_suite(path)
