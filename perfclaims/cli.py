"""Command line: calls the rest, and turns results into exit codes."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from perfclaims import wording
from perfclaims.archive import ArchiveError, rejudge
from perfclaims.durations import recorded_durations
from perfclaims.experiment import Settings
from perfclaims.loading import LoadError, suite_files
from perfclaims.options import Options, parser
from perfclaims.presets import as_preset
from perfclaims.report import progress
from perfclaims.report.layout import silence, write_line
from perfclaims.report.remarks import Repeat, remarks
from perfclaims.report.table import table
from perfclaims.report.text import listing, sentence, verdicts_hold
from perfclaims.results import ModuleResult, exit_code
from perfclaims.runner import Run

_WRONG = 2
_INTERRUPTED = 130


class OutputError(Exception):
    """The results cannot be printed; one sentence."""


def main(
    arguments: Sequence[str] | None = None,
    *,
    program: str = "python -m perfclaims",
    paths: Sequence[Path] | None = None,
    output_dir: Path = Path("validation_results"),
) -> int:
    """Run the command line and return its exit code.

    Args:
        arguments: without the program's name; None: those of this process.
        program: how the program was called, for help and for commands that repeat a claim.
        paths: suites of a main job, which then has the options of `run` and no sub-commands.
        output_dir: default folder of run files.
    """
    parsing = parser(program, fixed_paths=paths is not None, output_dir=output_dir)
    options = parsing.parse_args(arguments, namespace=Options())
    repeat = program
    if paths is not None:
        options.command, options.paths = "run", list(paths)
    elif options.command is None:
        parsing.print_help(sys.stderr)
        return _WRONG
    elif options.command == "run":
        repeat = f"{program} run {shlex.join(map(str, options.paths))}"
    try:
        with _signals():
            return _rejudge(options) if options.command == "rejudge" else _run(options, repeat)
    except (ArchiveError, LoadError, OutputError, ValueError, OSError) as error:
        _say(f"{program}: {error}")
        return _WRONG


def _run(options: Options, repeat: str) -> int:
    files, preset = suite_files(options.paths), as_preset(options.preset)
    durations = recorded_durations(options.output_dir, preset)
    settings = Settings(preset, seed=options.seed)
    recorder, stopped, problem = None, None, None
    try:
        with closing(progress.make_view(quiet=options.quiet or options.listing)) as view:
            run = Run(files, settings, view, durations, modules=options.module, claims=options.claim)
            with closing(run):
                if options.listing:
                    return _list(run)
                recorder = run.recorder(options.output_dir)
                run.execute(recorder)
    except (KeyboardInterrupt, SystemExit) as stop:
        stopped = stop.code if isinstance(stop, SystemExit) else _INTERRUPTED
        if recorder is None:
            _say(f"Interrupted before anything was measured; exit code {stopped}.")
            return int(stopped or 0)
    except ArchiveError as error:
        if recorder is None:
            raise
        problem = str(error)
    _end_at_once_when_interrupted_again()
    modules = run.modules()
    code = int(stopped or 0) or (_WRONG if problem else exit_code(modules))
    _report(modules, lambda s: f"{repeat} {options.flags(s)}".strip(), quiet=options.quiet)
    _out(f"run file: {_shown(recorder.path)}")
    left = sum(len(planned.left) for planned in run.planned)
    _out(sentence(modules, code, interrupted=stopped is not None, left=left, problem=problem))
    return code


def _list(run: Run) -> int:
    broken = [planned.error for planned in run.planned if planned.error is not None]
    total_s = 0.0
    for planned in run.planned:
        worker = planned.worker
        claims = [
            (worker.claims[i], run.expected_s(worker.claims[i]), worker.left_out[i]) for i in planned.chosen
        ]
        total_s += sum(expected_s for _, expected_s, left_out in claims if left_out is None)
        if claims:
            _out(listing(worker.name, worker.title, claims) + "\n")
    _out(f"about {wording.duration(total_s)} in all")
    for error in broken:
        _say(error)
    return _WRONG if broken else 0


def _rejudge(options: Options) -> int:
    found = rejudge(options.file)
    _report(found.modules, None, quiet=False)
    for difference in found.differences:
        _say(f"differs: {difference}")
    problem = f"'{options.file}' does not say what its evidence says" if found.differences else None
    if problem is None:
        _out(f"judged again: {verdicts_hold(found.modules)} in '{options.file}'")
    code = _WRONG if problem else _INTERRUPTED if found.interrupted else exit_code(found.modules)
    _out(sentence(found.modules, code, interrupted=found.interrupted, problem=problem))
    return code


def _report(modules: Sequence[ModuleResult], repeat: Repeat | None, *, quiet: bool) -> None:
    parts = [remarks(modules, repeat)]
    if not quiet:
        parts.insert(0, table(modules, colour=_colours()))
    for part in parts:
        if part:
            _out(f"{part}\n")


@contextmanager
def _signals() -> Iterator[None]:
    """A polite kill ends a run as Ctrl-C does; how signals were handled is put back afterwards."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _end_at_once_when_interrupted_again() -> None:
    """From here on only results are printed: Ctrl-C then ends that, without ceremony."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def _colours() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _shown(path: Path) -> str:
    """Relative to the current folder where it is below that."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except (ValueError, OSError):
        return str(path)


def _out(text: str) -> None:
    try:
        write_line(sys.stdout, text)
    except OSError as error:
        silence(sys.stdout)
        raise OutputError(f"cannot write the results: {error.strerror or error}") from None


def _say(text: str) -> None:
    with suppress(OSError):
        write_line(sys.stderr, text)
