"""Claims under pytest: when they are judged, what each verdict becomes, and what stays ordinary."""

from pathlib import Path

import pytest
from synthetic_suites import claim, failing, suite

pytest_plugins = "pytester"

CONFTEST = '''\
"""Claims under pytest."""

from perfclaims.pytest_plugin import pytest_addoption, pytest_pycollect_makemodule
'''
# What would break if the suite were imported by pytest.
NOT_HERE = "assert 'pytest' not in sys.modules, 'imported by pytest'"
CLAIMS = [
    claim("v.pass", "print('hello')\ne.value('x', 2)"),
    failing("v.fail"),
    claim("v.partial", "e.value('x', 2)\ne.value('y', 0)", "Value('x', at_least=1), Value('y', at_least=1)"),
    claim("v.error", "print('before it')\nmissing"),
    claim("v.crash", "os._exit(3)"),
    claim("v.hang", "while True: pass", options="time_limit_s=0.1"),
    claim("v.away", "e.not_applicable('no GPU here')"),
    claim("v.slow", options="slow=True, expected_s=40"),
    claim("audit.pass", options="status='audited'"),
    failing("audit.fail", "status='audited'"),
    claim("audit.error", "missing", options="status='audited'"),
]


@pytest.fixture
def project(pytester, monkeypatch):
    """A project whose warnings are errors, with a suite of every verdict and an ordinary test elsewhere."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[2]))
    pytester.makepyprojecttoml(
        """
        [tool.pytest.ini_options]
        testpaths = ["tests"]
        filterwarnings = ["error"]
        addopts = "--strict-markers --strict-config -p no:cacheprovider -p no:hypothesispytest"
        """
    )
    performance = pytester.path / "tests" / "performance"
    suite(performance / "test_v.py", *CLAIMS, before=NOT_HERE)
    (performance / "conftest.py").write_text(CONFTEST)
    (pytester.path / "tests" / "unit").mkdir()
    (pytester.path / "tests" / "unit" / "test_plain.py").write_text("def test_plain(): pass")
    return pytester


def outcomes(result):
    """Outcome of each item by its name, from the lines of a verbose run."""
    found = {}
    for line in result.outlines:
        name, _, outcome = line.partition(" ")
        if "::" in name and outcome.strip():
            found[name.rpartition("::")[2]] = outcome.split()[0]
    return found


# When claims are judged


@pytest.mark.parametrize("arguments", [[], ["tests"], ["."], ["tests/unit", "tests"], ["-k", "v"]])
def test_a_run_that_does_not_name_the_folder_only_checks_that_suites_load(project, arguments):
    result = project.runpytest("-v", *arguments)
    assert outcomes(result)["declares-its-claims"] == "PASSED"
    assert not any("v." in name for name in outcomes(result))


@pytest.mark.parametrize(
    "arguments",
    [
        ["tests/performance"],
        ["tests/performance/test_v.py"],
        ["tests/unit", "tests/performance"],
        ["./tests/unit/../performance"],
    ],
)
def test_a_run_that_names_the_folder_or_something_in_it_judges(project, arguments):
    result = project.runpytest("--collect-only", "-q", *arguments)
    names = [line.rpartition("::")[2] for line in result.outlines if "test_v.py::" in line]
    assert names == [
        *("v.pass", "v.fail", "v.partial", "v.error", "v.crash", "v.hang", "v.away", "v.slow"),
        *("audit.pass", "audit.fail", "audit.error"),
    ]


def test_the_folder_counts_from_where_pytest_was_called(project, monkeypatch):
    monkeypatch.chdir(project.path / "tests")
    assert outcomes(project.runpytest("-v", "performance", "-k", "v.pass")) == {"v.pass": "PASSED"}
    monkeypatch.chdir(project.path / "tests" / "performance")
    assert outcomes(project.runpytest("-v")) == {"declares-its-claims": "PASSED"}


def test_a_claim_is_chosen_by_its_id(project):
    result = project.runpytest("-v", "tests/performance/test_v.py::v.pass")
    assert outcomes(result) == {"v.pass": "PASSED"}
    result = project.runpytest("-v", "-k", "audit.pass", "tests/performance")
    assert outcomes(result) == {"audit.pass": "PASSED"}


# Verdicts


def test_each_verdict_becomes_an_outcome(project):
    result = project.runpytest("-v", "-rsx", "tests/performance", "--claim-budget", "fast")
    assert outcomes(result) == {
        "v.pass": "PASSED",
        "v.fail": "FAILED",
        "v.partial": "FAILED",
        "v.error": "ERROR",
        "v.crash": "ERROR",
        "v.hang": "ERROR",
        "v.away": "SKIPPED",
        "v.slow": "SKIPPED",
        "audit.pass": "PASSED",
        "audit.fail": "XFAIL",
        "audit.error": "ERROR",
    }
    result.assert_outcomes(passed=2, failed=2, errors=4, skipped=2, xfailed=1)
    result.stdout.fnmatch_lines(
        [
            "FAIL (no-benefit): x is 0.5 against at least 1.",
            "claimed: says v.fail",
            "SKIPPED * no GPU here.",
            "SKIPPED * left out of fast runs: it needs about 40 s*",
            "XFAIL *audit.fail - a statement of others: FAIL (no-benefit): x is 0.5*",
        ]
    )
    text = result.stdout.str()
    assert "ERROR (raised): NameError: name 'missing' is not defined (at tests/performance/test_v.py:" in text
    assert "ERROR (raised): the measuring process ended: exit code 3." in text
    assert "ERROR (timed-out): not finished after its limit of 0.1 s, at tests/performance/test_v.py:" in text
    assert "before it" in text
    assert "hello" not in text
    assert "Traceback" not in text
    assert "pytest_plugin.py:" not in text.partition("short test summary")[0]


def test_an_audited_claim_does_not_fail_when_expected_failures_are_run_as_they_are(project):
    result = project.runpytest("-v", "--runxfail", "tests/performance", "-k", "audit.fail")
    assert outcomes(result) == {"audit.fail": "PASSED"}


def test_a_claim_can_be_skipped_from_outside(project):
    (project.path / "tests" / "conftest.py").write_text(
        "import pytest\n\n\ndef pytest_collection_modifyitems(items):\n"
        "    for item in items:\n        item.add_marker(pytest.mark.skip(reason='not today'))\n"
    )
    result = project.runpytest("-rs", "tests/performance")
    result.assert_outcomes(skipped=len(CLAIMS))
    result.stdout.fnmatch_lines(["SKIPPED * not today"])


# Budgets


@pytest.mark.parametrize(
    ("budget", "said"),
    [([], "normal"), (["--claim-budget", "fast"], "fast"), (["--claim-budget=0.5"], "0.5 s")],
)
def test_the_budget_is_the_one_asked_for(project, budget, said):
    suite(project.path / "tests" / "performance" / "test_b.py", claim("b.b", "raise OSError(e.preset)"))
    result = project.runpytest("tests/performance/test_b.py", *budget)
    result.stdout.fnmatch_lines([f"ERROR (raised): OSError: {said} (at *"])


@pytest.mark.parametrize("budget", ["quick", "0", "nan"])
def test_a_budget_that_is_none_is_refused(project, budget):
    result = project.runpytest("tests/performance", "--claim-budget", budget)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*expected fast, normal, rigorous or a positive number of seconds, got*"])


def test_a_limit_on_the_duration_of_tests_is_not_one_on_claims(project):
    pytest.importorskip("pytest_timeout")
    path = project.path / "tests" / "performance" / "test_b.py"
    suite(path, claim("b.b", "time.sleep(0.4)\ne.value('x', 2)"))
    project.runpytest("--timeout=0.2", "tests/performance/test_b.py").assert_outcomes(passed=1)


# Suites that cannot be loaded


@pytest.mark.parametrize(
    ("before", "said"),
    [
        (
            "import no_such_module",
            "'test_x.py' cannot be loaded: ModuleNotFoundError*(at tests/*/test_x.py:*)",
        ),
        ("def f(:", "'test_x.py' cannot be loaded: SyntaxError*"),
    ],
)
def test_a_suite_that_cannot_be_loaded_fails_its_check_and_its_collection(project, before, said):
    suite(project.path / "tests" / "performance" / "test_x.py", claim("x.x"), before=before)
    checked = project.runpytest("-v")
    checked.assert_outcomes(passed=2, failed=1)
    checked.stdout.fnmatch_lines([said])
    judged = project.runpytest("tests/performance/test_x.py")
    assert judged.ret == pytest.ExitCode.INTERRUPTED
    judged.assert_outcomes(errors=1)
    judged.stdout.fnmatch_lines([said])


# Ordinary tests


def test_ordinary_tests_of_a_suite_file_run_as_ever_and_claims_are_not_taken_for_tests(project):
    ordinary = (
        "import unittest\nfrom pytest import fixture\n"
        "@fixture\ndef two(): return 2\n"
        "def test_with_fixture(two, tmp_path): assert two == 2\n"
        "class TestGroup:\n    def test_in_class(self): assert True\n"
        "class Case(unittest.TestCase):\n    def test_unit(self): self.assertTrue(True)\n"
    )
    named_like_a_test = claim("o.o").replace("def measure", "def test_measure")
    suite(project.path / "tests" / "performance" / "test_o.py", named_like_a_test, ordinary)
    expected = {"test_with_fixture": "PASSED", "test_in_class": "PASSED", "test_unit": "PASSED"}
    found = outcomes(project.runpytest("-v", "tests/performance/test_o.py"))
    assert found == {"o.o": "PASSED", **expected}
    found = outcomes(project.runpytest("-v", "tests", "-k", "test_o"))
    assert found == {"declares-its-claims": "PASSED", **expected}


def test_test_files_without_a_suite_are_left_to_pytest(project):
    (project.path / "tests" / "performance" / "test_plain.py").write_text("def test_it(): pass")
    found = outcomes(project.runpytest("-v", "tests/performance", "-k", "test_plain"))
    assert found == {"test_it": "PASSED"}


def test_two_folders_with_suites_are_judged_each_by_its_own_name(project):
    other = project.path / "tests" / "other"
    suite(other / "test_w.py", claim("w.w"), before=NOT_HERE)
    (other / "conftest.py").write_text(CONFTEST)
    found = outcomes(project.runpytest("-v", "tests/other", "tests/performance", "-k", "pass or w.w"))
    assert found == {"w.w": "PASSED", "v.pass": "PASSED", "audit.pass": "PASSED"}
    found = outcomes(project.runpytest("-v", "tests/other", "tests/performance/../unit"))
    assert found == {"w.w": "PASSED", "test_plain": "PASSED"}


def test_no_worker_outlives_the_session(project):
    pids = project.path / "pids"
    before = f"open({str(pids)!r}, 'a').write(f'{{os.getpid()}} ')"
    path = suite(project.path / "tests" / "performance" / "test_p.py", claim("p.p"), before=before)
    for arguments in ([str(path)], [str(path), "--collect-only"], ["-k", "test_p"]):
        project.runpytest(*arguments)
    for pid in pids.read_text().split():
        assert not Path("/proc", pid, "cmdline").exists()
    assert len(pids.read_text().split()) == 3
