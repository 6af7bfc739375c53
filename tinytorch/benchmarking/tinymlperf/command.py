"""`python -m tinytorch.benchmarking`: TinyMLPerf from a terminal."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from tinytorch.benchmarking.tinymlperf.contest import TinyMLPerf
from tinytorch.benchmarking.tinymlperf.entries import Entry
from tinytorch.benchmarking.tinymlperf.events import EVENTS, Event
from tinytorch.benchmarking.tinymlperf.fitting import check_model
from tinytorch.benchmarking.tinymlperf.leaderboard import Leaderboard, LeaderboardError
from tinytorch.benchmarking.tinymlperf.logs import check_log
from tinytorch.benchmarking.tinymlperf.processes import Refused
from tinytorch.benchmarking.tinymlperf.referee import Ruling
from tinytorch.benchmarking.tinymlperf.scenarios import FEWEST_SITTINGS, Settings
from tinytorch.benchmarking.tinymlperf.scoring import Score, figure, quality_of, scores_of
from tinytorch.benchmarking.tinymlperf.standings import Standing, tables, unverified
from tinytorch.benchmarking.tinymlperf.submissions import DIVISIONS, Submission, pack, read_submission
from tinytorch.benchmarking.tinymlperf.views import FORMATS, rendered

FINE, NO_RANK, CANNOT = 0, 1, 2
_PROGRAM = "python -m tinytorch.benchmarking"
_LEADERBOARD = "tinymlperf.sqlite"
# What the options of submit are called in `Settings`.
_OPTIONS = {
    "min_duration_s": "--duration",
    "sittings": "--sittings",
    "call_limit_s": "--time-limit",
    "memory_limit_mb": "--memory-limit",
}

_EPILOG = """\
exit codes: 0 all is well; 1 a submission has no rank, or does not hold what it says; 2 it could not be done;
130 interrupted

  python -m tinytorch.benchmarking pack model.safetensors mine --event mlp_sprint --name "INT8 MLP"
  python -m tinytorch.benchmarking check mine
  python -m tinytorch.benchmarking submit mine
  python -m tinytorch.benchmarking leaderboard
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command, and return its exit code."""
    options = _parser().parse_args(arguments)
    commands = {
        "events": _events,
        "pack": _pack,
        "check": _check,
        "submit": _submit,
        "leaderboard": _leaderboard,
    }
    try:
        return commands[options.command](options)
    except BrokenPipeError:
        raise
    except (ValueError, OSError) as error:
        _say(f"error: {error}", sys.stderr)
        return CANNOT
    except KeyboardInterrupt:
        _say("interrupted: nothing was added to the leaderboard", sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=_PROGRAM,
        description="TinyMLPerf: measures models beside a reference model, and keeps a leaderboard.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("events", help="list the events, what they measure, and what they ask")

    packing = commands.add_parser("pack", help="make a submission's folder of a saved model")
    packing.add_argument("model", type=Path, metavar="MODEL", help="what save_model wrote")
    packing.add_argument("folder", type=Path, metavar="FOLDER", help="is made")
    packing.add_argument("--event", required=True, choices=EVENTS, help="its event")
    packing.add_argument("--name", required=True, help="who or what it is")
    packing.add_argument(
        "--division",
        choices=DIVISIONS,
        default="closed",
        help="closed: the given weights, quantized at most; open: anything (default: closed)",
    )
    packing.add_argument(
        "--code", type=Path, metavar="FILE", help="Python with load(folder), for the open division"
    )
    packing.add_argument("--kv-cache", action="store_true", help="give the model a KV cache")

    checking = commands.add_parser("check", help="check a submission without measuring anything")
    checking.add_argument("folder", type=Path, metavar="FOLDER", help="of the submission")

    submitting = commands.add_parser("submit", help="measure a submission, and put it on the leaderboard")
    submitting.add_argument("folder", type=Path, metavar="FOLDER", help="of the submission")
    _add_file(submitting)
    given = Settings()
    submitting.add_argument(
        "--duration", type=float, metavar="S", default=given.min_duration_s, help=_default("of each scenario")
    )
    submitting.add_argument(
        "--sittings",
        type=int,
        metavar="N",
        default=given.sittings,
        help=_default(f"pairs of fresh processes, at least {FEWEST_SITTINGS}"),
    )
    submitting.add_argument(
        "--time-limit", type=float, metavar="S", default=given.call_limit_s, help=_default("for one answer")
    )
    submitting.add_argument(
        "--memory-limit",
        type=int,
        metavar="MB",
        default=given.memory_limit_mb,
        help=_default("of address space"),
    )

    board = commands.add_parser("leaderboard", help="show the leaderboard")
    _add_file(board)
    board.add_argument("--event", choices=EVENTS, help="only this one")
    board.add_argument("--division", choices=DIVISIONS, help="only this one")
    board.add_argument("--machine", help="only this kind of machine, as its tables name it")
    board.add_argument("--format", choices=FORMATS, default="text", help=_default("what to write"))
    board.add_argument("--output", type=Path, metavar="FILE", help="write there in place of the terminal")
    board.add_argument(
        "--verify", action="store_true", help="derive every figure and quality again from the raw logs"
    )
    return parser


def _add_file(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--leaderboard", type=Path, metavar="FILE", default=Path(_LEADERBOARD), help=_default("its file")
    )


def _default(text: str) -> str:
    return f"{text} (default: %(default)s)"


def _events(_options: argparse.Namespace) -> int:
    from tabulate import tabulate

    rows = [
        (
            event.name,
            event.reference,
            f"{_floor(event)} of the reference's {event.unit}",
            ", ".join(scenario.name for scenario in event.scenarios),
        )
        for event in EVENTS.values()
    ]
    _say(tabulate(rows, ("event", "reference model", "floor", "scenarios")))
    return FINE


def _floor(event: Event) -> str:
    return f"at most {1 / event.share:.0%}" if event.is_text else f"{event.share:.0%}"


def _pack(options: argparse.Namespace) -> int:
    if options.code is None and options.model.is_file():  # pack says what else a path cannot be
        benchmark = TinyMLPerf().load_benchmark(options.event)
        check_model(options.model, f"'{options.model}'", benchmark, options.division)
    submission = pack(
        options.model,
        options.folder,
        name=options.name,
        event=options.event,
        division=options.division,
        code=options.code,
        kv_cache=options.kv_cache,
    )
    _say(
        f"packed '{options.folder}' as submission {submission.submission_id}; now: {_PROGRAM} submit "
        f"{shlex.quote(str(options.folder))}"
    )
    return FINE


def _check(options: argparse.Namespace) -> int:
    submission = read_submission(options.folder)
    try:
        if submission.code is None:  # code is not run here
            benchmark = TinyMLPerf().load_benchmark(submission.event)
            check_model(submission.weights, submission.name, benchmark, submission.division)
        _say(
            f"'{options.folder}' is a submission to {submission.event}, {submission.division} division, and "
            "its files are those that were packed"
        )
        return _check_log(submission)
    except Refused as error:
        _say(f"no rank: {error}")
        return NO_RANK


def _check_log(submission: Submission) -> int:
    log, event = submission.document["log"], EVENTS[submission.event]
    if log is None:
        _say("it has no log yet: submit it")
        return FINE
    check_log(event, log)
    quality = quality_of(event, log)
    scores = scores_of(event, log)
    _say(f"by its own log, which a submit does not rely on: {event.unit} {quality.submission:.3g}")
    _say_scores(scores)
    if not quality.met:
        _say(f"no rank: the floor is {quality.floor:.3g}")
        return NO_RANK
    return FINE


def _submit(options: argparse.Namespace) -> int:
    settings = _settings(options)
    ruling = TinyMLPerf().submit(
        options.folder, options.leaderboard, settings, announce=lambda text: _say(text, sys.stderr)
    )
    if ruling.refused is not None:
        _say(f"no rank: {ruling.refused}")
        _say(f"listed without a rank on the leaderboard '{options.leaderboard}'")
        return NO_RANK
    _say_scores(ruling.scores)
    event, quality = EVENTS[ruling.submission.event], ruling.quality
    if quality is not None:
        _say(
            f"{event.unit}: {figure(quality.submission, event)}, where the floor is "
            f"{figure(quality.floor, event)} and the reference model has {figure(quality.reference, event)}"
        )
    if ruling.badges:
        _say(f"verified: {', '.join(ruling.badges)}")
    _say_ranks(ruling, options.leaderboard)
    return FINE


def _settings(options: argparse.Namespace) -> Settings:
    """Return what the options ask for; an error names the option rather than the attribute."""
    if 0 < options.sittings < FEWEST_SITTINGS:
        raise ValueError(f"--sittings must be at least {FEWEST_SITTINGS}, got {options.sittings}")
    try:
        return Settings(
            options.duration,
            options.sittings,
            call_limit_s=options.time_limit,
            memory_limit_mb=options.memory_limit,
        )
    except ValueError as error:
        text = str(error)
        for name, option in _OPTIONS.items():
            text = text.replace(f"`{name}`", option)
        raise ValueError(text) from None


def _leaderboard(options: argparse.Namespace) -> int:
    if not options.leaderboard.exists():
        raise LeaderboardError(f"'{options.leaderboard}' does not exist: submit makes it")
    board = Leaderboard(options.leaderboard)
    if options.machine is not None:
        _check_machine(options.machine, sorted({entry.machine for entry in board.entries()}))
    entries = board.entries(options.event, options.division, options.machine)
    text = rendered(entries, options.format)
    if options.output is None:
        sys.stdout.write(text)
    else:
        options.output.write_text(text, encoding="utf-8")
    return _verify(entries) if options.verify else FINE


def _check_machine(given: str, known: Sequence[str]) -> None:
    if given not in known:
        names = ", ".join(map(repr, known)) or "none yet"
        raise LeaderboardError(f"--machine must be one that is on the leaderboard ({names}), got {given!r}")


def _verify(entries: Sequence[Entry]) -> int:
    """Say what became of deriving entries again, on stderr: stdout may hold a page."""
    ranked = sum(entry.refused is None for entry in entries)
    wrong = unverified(entries)
    for sentence in wrong:
        _say(f"not verified: {sentence}", sys.stderr)
    said = f"{len(wrong)} of them not verified" if wrong else "all agree"
    what = f"{ranked} {'entry' if ranked == 1 else 'entries'} derived again from "
    logs = "its log" if ranked == 1 else "their logs"
    _say(f"{what}{logs}: {said}" if ranked else "no entry has a rank: nothing to derive again", sys.stderr)
    return NO_RANK if wrong else FINE


def _say_scores(scores: Sequence[Score]) -> None:
    for score in scores:
        ratio = score.ratio
        _say(
            f"{score.scenario}: {ratio.estimate:.2f} times as fast as the reference model "
            f"[{ratio.low:.2f}, {ratio.high:.2f}]"
        )


def _say_ranks(ruling: Ruling, path: Path) -> None:
    """Say where a submission stands on the leaderboard, and which file that is."""
    submission = ruling.submission
    entries = Leaderboard(path).entries(submission.event, submission.division, ruling.machine)
    ranks = [
        f"{_rank(standing)} of {len(table.standings)} in {table.scenario}"
        for table in tables(entries)
        for standing in table.standings
        if standing.entry.submission_id == submission.submission_id
    ]
    _say(f"on the leaderboard '{path}': {', '.join(ranks)}, {submission.division} division")


def _rank(standing: Standing) -> str:
    return f"rank {standing.rank}{' (shared)' if standing.tied else ''}"


def _say(text: str, stream: TextIO | None = None) -> None:
    print(text, file=stream or sys.stdout, flush=True)


def main_in_a_pipe() -> int:
    """Run `main`, and end quietly where the reader of its output has gone."""
    try:
        code = main()
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit
        return 141  # as a program that SIGPIPE ended
    return code
