"""Command line: parses arguments, calls the rest, turns results into exit codes."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from perfclaims.archive import ArchiveError, RunFile, rejudge
from perfclaims.experiment import Settings
from perfclaims.loading import LoadError, suite_files
from perfclaims.presets import as_preset
from perfclaims.report import progress, text
from perfclaims.results import ModuleResult, exit_code
from perfclaims.runner import Run, View

_INTERRUPTED = 130
_EPILOG = """exit codes:
  0  every asserted claim passed     2  at least one ERROR, or wrong usage
  1  at least one FAIL               3  otherwise (PARTIAL)       130  after Ctrl-C

An audited claim is a statement by others: it is measured and reported, and its FAIL fails nothing.
"""


def main(
    arguments: Sequence[str] | None = None,
    *,
    program: str = "python -m perfclaims",
    paths: Sequence[Path] | None = None,
    output_dir: Path | None = None,
) -> int:
    """Run the command line and return its exit code.

    Args:
        arguments: without the program's name; None: those of this process.
        program: how the program was called, for help and for commands that repeat a claim.
        paths: suites of a main job, which then has the options of `run` and no sub-commands.
        output_dir: default folder of run files.
    """
    parser = _parser(
        program, fixed_paths=paths is not None, output_dir=output_dir or Path("validation_results")
    )
    options = parser.parse_args(arguments)
    if paths is not None:
        options.command, options.paths = "run", list(paths)
        options.repeat = program
    elif options.command is None:
        parser.print_help(sys.stderr)
        return 2
    elif options.command == "run":
        options.repeat = shlex.join([*program.split(), "run", *(str(p) for p in options.paths)])
    try:
        return _rejudge(options) if options.command == "rejudge" else _run(options)
    except (ArchiveError, LoadError, ValueError) as error:
        _say(f"{parser.prog}: {error}")
        return 2
    except BrokenPipeError:
        # The reader went away (`| head`); nothing more can be said, also not by the interpreter at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 2


def _parser(program: str, *, fixed_paths: bool, output_dir: Path) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program,
        description="Tells whether performance claims are true.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"perfclaims {_version()}")
    if fixed_paths:
        _add_run_options(parser, output_dir)
        return parser
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
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
        "The exit code is that of the run, and 2 where the file's verdicts are not what its evidence says.",
    )
    again.add_argument("file", type=Path, metavar="FILE")
    return parser


def _add_run_options(parser: argparse.ArgumentParser, output_dir: Path) -> None:
    presets = parser.add_mutually_exclusive_group()
    presets.add_argument("--fast", action="store_true", help="0.25 s a comparison, without slow claims")
    presets.add_argument("--rigorous", action="store_true", help="5 s a comparison")
    presets.add_argument(
        "--budget", type=_seconds, metavar="SECONDS", help="seconds a comparison (default: 1)"
    )
    parser.add_argument(
        "--module", nargs="+", metavar="M", help="only these modules, by number or name: 17, quantization"
    )
    parser.add_argument(
        "--claim", nargs="+", metavar="ID", help="only these claims, by id or pattern: 'caching.*'"
    )
    parser.add_argument(
        "--list", action="store_true", help="show claims, thresholds and durations, measure nothing"
    )
    parser.add_argument(
        "--seed", type=_seed, default=0, metavar="N", help="of arguments, order and layout (default: 0)"
    )
    parser.add_argument(
        "--output-dir",
        type=Path,
        default=output_dir,
        metavar="DIR",
        help="folder of run files (default: %(default)s)",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress and no table, only the result")


def _seconds(given: str) -> float:
    try:
        return as_preset(float(given)).budget_s
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a positive number of seconds, got {given!r}") from None


def _seed(given: str) -> int:
    if not given.isdigit():
        raise argparse.ArgumentTypeError(f"expected an integer of zero or more, got {given!r}")
    return int(given)


def _version() -> str:
    try:
        return metadata.version("perfclaims")
    except metadata.PackageNotFoundError:
        return "(not installed)"


def _run(options: argparse.Namespace) -> int:
    named = "fast" if options.fast else "rigorous" if options.rigorous else None
    settings = Settings(as_preset(options.budget or named or "normal"), seed=options.seed)
    files = suite_files(options.paths)
    # Before anything is loaded or measured: a folder that cannot be written to is found here.
    run_file = None if options.list else RunFile(options.output_dir)
    view = progress.make_view(quiet=options.quiet or options.list)
    measured = False
    signal.signal(signal.SIGTERM, lambda signum, frame: sys.exit(128 + signum))
    try:
        run = Run(files, settings, view, modules=options.module, claims=options.claim)
        if run_file is None:
            return _list(run)
        measured = True
        return _measure(run, run_file, view, options)
    except KeyboardInterrupt:
        _say("Interrupted before anything was measured; exit code 130.")
        return _INTERRUPTED
    finally:
        view.close()
        if run_file is not None and not measured:
            run_file.discard()


def _list(run: Run) -> int:
    broken = [planned for planned in run.planned if planned.worker is None]
    for planned in run.planned:
        if planned.worker is not None:
            claims = [
                (planned.worker.claims[i], run.expected_s(planned, i), planned.worker.left_out[i])
                for i in planned.chosen
            ]
            _out(text.listing(planned.name, planned.title, claims) + "\n")
    run.close()
    for planned in broken:
        _say(str(planned.error))
    return 2 if broken else 0


def _measure(run: Run, run_file: RunFile, view: View, options: argparse.Namespace) -> int:
    interrupted, failure = False, None
    try:
        run.execute(run_file)
    except KeyboardInterrupt:
        interrupted = True
        # A second Ctrl-C ends the program at once, whatever it is printing.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    except ArchiveError as error:
        failure = str(error)
    view.close()
    modules = run.modules()
    _report(modules, _repeat(options), quiet=options.quiet, interrupted=interrupted)
    if failure is not None:
        _say(f"{failure}; exit code 2.")
        return 2
    _out(f"run file: {_shown(run_file.path)}")
    return _INTERRUPTED if interrupted else exit_code(modules)


def _rejudge(options: argparse.Namespace) -> int:
    found = rejudge(options.file)
    _report(found.modules, "", quiet=False, interrupted=False)
    if found.interrupted:
        _out("The run was interrupted: these are the claims that it finished.")
    for difference in found.differences:
        _say(f"differs: {difference}")
    if found.differences:
        _say(f"'{options.file}' does not say what its evidence says; exit code 2.")
        return 2
    return exit_code(found.modules)


def _report(modules: Sequence[ModuleResult], repeat: str, *, quiet: bool, interrupted: bool) -> None:
    parts = [text.remarks(modules, repeat), text.sentence(modules, interrupted=interrupted)]
    if not quiet:
        parts.insert(0, text.table(modules, colour=_colours()))
    _out("\n\n".join(part for part in parts if part))


def _repeat(options: argparse.Namespace) -> str:
    words = []
    if options.fast or options.rigorous:
        words.append("--fast" if options.fast else "--rigorous")
    elif options.budget is not None:
        words.append(f"--budget {options.budget:g}")
    if options.seed:
        words.append(f"--seed {options.seed}")
    return " ".join([options.repeat, *words])


def _colours() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _shown(path: Path) -> str:
    """Relative to the current folder where that is shorter."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _out(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - this is the output


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201 - this is the output
