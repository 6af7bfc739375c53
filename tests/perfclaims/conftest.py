"""A project with two suites, and the command line on it."""

import pytest
from synthetic_suites import M, N, claim, failing, suite

from perfclaims.cli import main

PARTIAL = "Value('x', at_least=1), Value('y', at_least=1)"
EVERY_KIND = [
    claim("m.pass"),
    failing("m.fail"),
    claim("m.partial", "e.value('x', 2)\ne.value('y', 0.5)", PARTIAL),
    claim("m.error", "missing"),
    claim("m.slow", options="slow=True, expected_s=40"),
    claim("m.away", "e.not_applicable('no GPU here')"),
    claim("audit.pass", options="status='audited'"),
    failing("audit.fail", "status='audited', source='a blog'"),
    claim("audit.error", "missing", options="status='audited'"),
]


@pytest.fixture(scope="session")
def study(tmp_path_factory):
    """The project: one suite with a claim of every kind, one whose two claims pass, and a broken one."""
    project = tmp_path_factory.mktemp("study")
    (project / "pyproject.toml").touch()
    suite(project / M, *EVERY_KIND, name="module_16_m")
    suite(project / N, claim("n.pass"), claim("n.two"), name="module_17_n")
    suite(project / "broken" / "test_module_18_b.py", claim("b.b"), before="import no_such_thing")
    return project


@pytest.fixture
def cli(study, tmp_path, capsys):
    """Run a command on suites of the study in this process: its exit code, stdout and stderr."""

    def run_(*arguments, paths=(M,)):
        where = [str(study / path) for path in paths]
        given = ["run", *where, "--output-dir", str(tmp_path / "out"), *arguments]
        code = main(given if "--fast" in given or "--budget" in given else [*given, "--budget", "0.02"])
        return code, *capsys.readouterr()

    return run_
