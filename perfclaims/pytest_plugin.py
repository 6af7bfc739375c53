"""Claims as pytest items.

A conftest.py in the folder of the suites has a line for itself and one that imports the hooks::

    \"\"\"Claims under pytest.\"\"\"
    from perfclaims.pytest_plugin import pytest_addoption, pytest_pycollect_makemodule  # noqa: F401

Claims are measured and judged only when a path at or under that folder is named on the command line
(`pytest tests/performance`, also with `-k`): they take minutes, and want a machine of their own. Otherwise
one item for each suite file checks that it loads and declares its claims. Suites are loaded and claims are
measured in a worker, so that a hang is killed; ordinary test functions of a suite file run as ever.

PASS passes; PARTIAL and FAIL fail; ERROR is an error; what does not apply or is left out is skipped; an
audited claim that does not hold is an expected failure. `--claim-budget` says how long to measure.
"""

from __future__ import annotations

import argparse
import ast
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

from perfclaims.claims import Claim
from perfclaims.codes import Verdict
from perfclaims.experiment import Settings
from perfclaims.loading import mentions_suite
from perfclaims.presets import Preset, as_preset
from perfclaims.process import Worker, WorkerError
from perfclaims.results import ClaimResult


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--claim-budget`."""
    with suppress(ValueError):  # another conftest.py has added it
        parser.getgroup("perfclaims").addoption(
            "--claim-budget",
            type=_checked_budget,
            default="normal",
            metavar="fast|normal|rigorous|SECONDS",
            help="how long to measure performance claims, by preset or in seconds a comparison (normal)",
        )


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> SuiteFile | None:
    """Collect a suite file by its claims; leave other files to pytest."""
    with suppress(OSError):
        if mentions_suite(module_path):
            suite: SuiteFile = SuiteFile.from_parent(parent, path=module_path)
            return suite
    return None


class SuiteFile(pytest.Module):
    """A file that makes a suite; imported into this process only where it has ordinary tests as well."""

    _worker: Worker | None = None

    def collect(self) -> Iterable[pytest.Item | pytest.Collector]:
        """Claims, or the one item that stands for them, and then ordinary tests."""
        if _is_named(self.config, _folder_of_conftest(self.config, self.path)):
            yield from self._claims()
        else:
            yield Declarations.from_parent(self, name="declares-its-claims")
        claim_functions, has_tests = _functions(self.path, self.config)
        if has_tests:
            yield from (node for node in super().collect() if node.name not in claim_functions)

    def worker(self) -> Worker:
        """The worker with this suite loaded.

        Raises:
            WorkerError: it cannot be loaded.
        """
        if self._worker is None:
            worker = Worker(self.path, Settings(_preset(self.config)))
            self.config.add_cleanup(worker.kill)
            worker.load()
            self._worker = worker
        return self._worker

    def teardown(self) -> None:
        """End the worker after the last claim of this file."""
        if self._worker is not None:
            self._worker.kill()
            self._worker = None

    def _claims(self) -> Iterator[pytest.Item]:
        try:
            claims = self.worker().claims
        except WorkerError as error:
            raise self.CollectError(str(error)) from None
        for claim in claims.values():
            yield ClaimItem.from_parent(self, name=claim.id, claim=claim)


class SuiteItem(pytest.Item):
    """What claims and declarations share: they belong to a suite file and have a time limit of their own."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if self.config.pluginmanager.has_plugin("timeout"):
            self.add_marker(pytest.mark.timeout(0))

    @property
    def suite(self) -> SuiteFile:
        """The file that this item belongs to."""
        assert isinstance(self.parent, SuiteFile)
        return self.parent

    def reportinfo(self) -> tuple[Path, int, str]:
        """Where pytest says that this item is."""
        return self.path, 0, f"claim {self.name}"


class Declarations(SuiteItem):
    """That a suite file loads and declares claims; nothing is measured."""

    def runtest(self) -> None:
        """Load the suite in a worker."""
        try:
            self.suite.worker()
        except WorkerError as error:
            pytest.fail(str(error), pytrace=False)


class ClaimItem(SuiteItem):
    """One claim."""

    def __init__(self, *, claim: Claim, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._claim = claim
        self._result: ClaimResult | None = None

    def setup(self) -> None:
        """Measure: what cannot be measured is an error, not a failure."""
        start = time.perf_counter()
        worker = self.suite.worker()
        evidence = worker.measure(self._claim.id, lambda news: None)
        result = self._result = ClaimResult.of(self._claim, evidence, time.perf_counter() - start)
        if printed := worker.printed():
            self.add_report_section("setup", "output of the claim", printed)
        self.user_properties += [("verdict", result.verdict.value), ("summary", result.summary)]
        if result.verdict is Verdict.ERROR:
            pytest.fail(_explanation(result), pytrace=False)
        if not result.ran:
            pytest.skip(result.summary)

    def runtest(self) -> None:
        """Fail where the claim does not hold and is one of ours."""
        result = self._result
        assert result is not None
        if result.verdict is Verdict.PASS:
            return
        if result.status == "audited":
            pytest.xfail(f"a statement of others: {_explanation(result)}")  # returns with --runxfail
        else:
            pytest.fail(_explanation(result), pytrace=False)


def _explanation(result: ClaimResult) -> str:
    reasons = f" ({', '.join(result.reasons)})" if result.reasons else ""
    return f"{result.verdict}{reasons}: {result.summary}\nclaimed: {result.statement}"


def _checked_budget(given: str) -> str:
    try:
        _as_preset(given)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected fast, normal, rigorous or a positive number of seconds, got {given!r}"
        ) from None
    return given


def _preset(config: pytest.Config) -> Preset:
    # Where the conftest.py was found late, its option does not exist.
    return _as_preset(config.getoption("claim_budget", "normal"))


def _as_preset(given: str) -> Preset:
    with suppress(ValueError):
        return as_preset(float(given))
    return as_preset(given)


def _folder_of_conftest(config: pytest.Config, path: Path) -> Path:
    """Folder of the nearest conftest.py that has these hooks; the root where they were loaded otherwise."""
    folders = [
        Path(plugin.__file__).resolve().parent
        for plugin in config.pluginmanager.get_plugins()
        if getattr(plugin, "pytest_pycollect_makemodule", None) is pytest_pycollect_makemodule
        and getattr(plugin, "__file__", None)
    ]
    above = [folder for folder in folders if path.resolve().is_relative_to(folder)]
    return max(above, key=lambda folder: len(folder.parts), default=config.rootpath)


def _is_named(config: pytest.Config, folder: Path) -> bool:
    """Whether the command line names a path at or under a folder."""
    if config.args_source is not pytest.Config.ArgsSource.ARGS:
        return False
    paths = (config.invocation_params.dir / argument.split("::")[0] for argument in config.args)
    return any(path.resolve().is_relative_to(folder) for path in paths)


def _functions(path: Path, config: pytest.Config) -> tuple[set[str], bool]:
    """Names of a file's claim functions, and whether it has ordinary tests; without importing it."""
    try:
        nodes = list(ast.walk(ast.parse(path.read_bytes())))
    except (SyntaxError, ValueError):  # the worker says so
        return set(), False
    claims = {
        node.name
        for node in nodes
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and any(map(_declares_claim, node.decorator_list))
    }
    patterns = [*config.getini("python_functions"), *config.getini("python_classes")]
    return claims, any(_is_test(node, patterns) for node in nodes if getattr(node, "name", "") not in claims)


def _declares_claim(decorator: ast.expr) -> bool:
    return (
        isinstance(decorator, ast.Call)
        and isinstance(decorator.func, ast.Attribute)
        and decorator.func.attr == "claim"
    )


def _is_test(node: ast.AST, patterns: Iterable[str]) -> bool:
    """Whether pytest may collect what a node defines or imports: a name that fits, or a unittest class."""
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.alias):
        return False
    name = getattr(node, "asname", None) or node.name
    bases = {getattr(base, "attr", getattr(base, "id", "")) for base in getattr(node, "bases", ())}
    return (
        name == "*"
        or any(name.startswith(p) or ("*" in p and fnmatchcase(name, p)) for p in patterns)
        or any(base.endswith("TestCase") for base in bases)
    )
