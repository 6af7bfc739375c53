"""The command line's options: declared, parsed and checked in one place."""

from __future__ import annotations

import argparse
from importlib import metadata
from pathlib import Path

from perfclaims.presets import as_preset

_EPILOG = """exit codes:
  0  every asserted claim passed     2  at least one ERROR, or wrong usage
  1  at least one FAIL               3  otherwise (PARTIAL)       130  after Ctrl-C

An audited claim is a statement by others: it is measured and reported, and its FAIL fails nothing.
"""


class Options(argparse.Namespace):
    """What was asked for, by whichever command."""

    command: str | None
    paths: list[Path]
    file: Path
    fast: bool
    rigorous: bool
    budget: float | None
    module: list[str] | None
    claim: list[str] | None
    listing: bool
    seed: int
    output_dir: Path
    quiet: bool

    @property
    def preset(self) -> str | float:
        """The preset's name, or seconds per comparison."""
        return self.budget or ("fast" if self.fast else "rigorous" if self.rigorous else "normal")

    def flags(self, budget_s: float | None = None) -> str:
        """The options without which a claim would be measured differently.

        Args:
            budget_s: seconds a comparison instead of those that were asked for.
        """
        words = ["--fast"] if self.fast else ["--rigorous"] if self.rigorous else []
        words = words if budget_s is None else []
        words += [f"--budget {budget_s or self.budget:g}"] if budget_s or self.budget else []
        words += [f"--seed {self.seed}"] if self.seed else []
        return " ".join(words)


def parser(program: str, *, fixed_paths: bool, output_dir: Path) -> argparse.ArgumentParser:
    """The parser of the general command, or that of a main job whose suites are fixed."""
    made = argparse.ArgumentParser(
        prog=program,
        description="Tells whether performance claims are true.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--version", action="version", version=f"perfclaims {_version()}")
    if fixed_paths:
        _add_run_options(made, output_dir)
        return made
    commands = made.add_subparsers(dest="command", metavar="COMMAND")
    run = commands.add_parser(
        "run",
        help="measure and judge the claims of suites",
        description="Measure and judge the claims of suites, and write a run file.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    run.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="suite file, or folder of test_*.py")
    _add_run_options(run, output_dir)
    again = commands.add_parser(
        "rejudge",
        help="judge a run file again, from the samples in it",
        description="Judge every claim of a run file again, from the samples in it and nothing else. "
        "The exit code is that of the run (130 where it was interrupted), and 2 where the file's verdicts "
        "are not what its evidence says.",
    )
    again.add_argument("file", type=Path, metavar="FILE")
    return made


def _add_run_options(made: argparse.ArgumentParser, output_dir: Path) -> None:
    presets = made.add_mutually_exclusive_group()
    presets.add_argument("--fast", action="store_true", help="0.25 s a comparison, without slow claims")
    presets.add_argument("--rigorous", action="store_true", help="5 s a comparison")
    presets.add_argument(
        "--budget", type=_seconds, metavar="SECONDS", help="seconds a comparison (default: 1)"
    )
    made.add_argument(
        "--module",
        nargs="+",
        action="extend",
        metavar="M",
        help="only these modules, by number or name: 17, quantization",
    )
    made.add_argument(
        "--claim",
        nargs="+",
        action="extend",
        metavar="ID",
        help="only these claims, by id or pattern: 'caching.*'",
    )
    made.add_argument(
        "--list",
        dest="listing",
        action="store_true",
        help="show what is claimed, thresholds and durations, measure nothing",
    )
    made.add_argument(
        "--seed", type=_seed, default=0, metavar="N", help="of arguments, order and layout (default: 0)"
    )
    made.add_argument(
        "--output-dir",
        type=Path,
        default=output_dir,
        metavar="DIR",
        help="folder of run files (default: %(default)s)",
    )
    made.add_argument("--quiet", action="store_true", help="no progress and no table, only the result")


def _seconds(given: str) -> float:
    try:
        return as_preset(float(given)).budget_s
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a positive number of seconds, got {given!r}") from None


def _seed(given: str) -> int:
    if not (given.isascii() and given.isdigit()):
        raise argparse.ArgumentTypeError(f"expected an integer of zero or more, got {given!r}")
    return int(given)


def _version() -> str:
    try:
        return metadata.version("perfclaims")
    except metadata.PackageNotFoundError:
        return "(not installed)"
