"""`python -m tinytorch.benchmarking`: what it prints, and its exit codes."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tinymlperf_stand_ins import HONEST, log_of, packed, small_benchmark

import tinytorch as tt
from tinytorch.benchmarking.tinymlperf import contest
from tinytorch.benchmarking.tinymlperf.command import main
from tinytorch.benchmarking.tinymlperf.leaderboard import Leaderboard
from tinytorch.benchmarking.tinymlperf.referee import Ruling
from tinytorch.benchmarking.tinymlperf.scoring import quality_of, scores_of
from tinytorch.benchmarking.tinymlperf.submissions import read_submission, with_log
from tinytorch.core.models import save_model
from tinytorch.perf.quantization import quantize_model


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working folder, and the small event in place of the MLP Sprint."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(contest, "load_event", lambda _event, _seed: small_benchmark())
    return tmp_path


ABOUT = ["--event", "mlp_sprint", "--name", "x"]
OPEN = ["--division", "open"]
QUICK = ["--duration", "0.06", "--sittings", "6"]


def test_events_are_listed(capsys):
    assert main(["events"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[2:]] == ["mlp_sprint", "cnn_marathon", "transformer_decathlon"]
    assert "99% of the reference's accuracy" in lines[2]


def test_a_model_goes_from_a_file_to_the_leaderboard(here, capsys, monkeypatch):
    save_model(quantize_model(small_benchmark().model), here / "model")
    assert main(["pack", "model", "mine", "--event", "mlp_sprint", "--name", "INT8"]) == 0
    assert "; now: python -m tinytorch.benchmarking submit mine\n" in capsys.readouterr().out
    assert main(["check", "mine"]) == 0
    assert "it has no log yet: submit it" in capsys.readouterr().out
    assert main(["submit", "mine", *QUICK]) == 0
    out, err = capsys.readouterr()
    assert "sitting 6 of 6" in err
    assert "single-stream: " in out
    assert "verified: int8" in out
    assert len(read_submission("mine").document["log"]["sittings"]) == 6
    assert main(["check", "mine"]) == 0
    assert "by its own log, which a submit does not rely on" in capsys.readouterr().out
    assert main(["leaderboard", "--verify"]) == 0
    out, err = capsys.readouterr()
    assert "INT8" in out
    assert err == "2 entries derived again from their logs: all agree\n"
    assert main(["leaderboard", "--format", "html", "--output", "board.html"]) == 0
    assert "INT8" in (here / "board.html").read_text()
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(contest, "judge", lambda *_, **__: pytest.fail("it was measured again"))
    assert main(["submit", "mine", *QUICK]) == 2
    assert "is on the leaderboard 'tinymlperf.sqlite' already" in capsys.readouterr().err


def test_a_refused_submission_is_told_why_and_listed(here, capsys):
    packed(here / "s", model=tt.Sequential(tt.Linear(64, 10)), division="open", name="guessing")
    assert main(["submit", "s", *QUICK]) == 1
    out = capsys.readouterr().out
    assert re.match(
        r"no rank: guessing has an accuracy of [\d.]+% where the floor is [\d.]+%: the reference model has "
        r"[\d.]+% on the same fresh inputs\n",
        out,
    )
    assert out.endswith("listed without a rank on the leaderboard 'tinymlperf.sqlite'\n")
    assert main(["leaderboard"]) == 0
    assert "Without a rank\n- guessing (MLP Sprint, open)" in capsys.readouterr().out
    assert Leaderboard("tinymlperf.sqlite").entries()[0].refused is not None


def made_up(*arguments, **options):
    """A log that says which data the event has."""
    return {**log_of(*arguments, **options), "data": small_benchmark().event.data_hash}


def test_a_log_that_was_made_up_gives_no_place(here, capsys):
    submission = packed(here / "s", model=tt.Sequential(tt.Linear(64, 10)), division="open", name="guessing")
    with_log(submission, made_up([100.0] * 6))
    assert main(["check", "s"]) == 0
    assert "100.00 times as fast" in capsys.readouterr().out
    assert main(["submit", "s", *QUICK]) == 1
    assert tuple(e.ratio for e in Leaderboard("tinymlperf.sqlite").entries()) == (None,)


def test_check_finds_what_the_closed_division_excludes(here, capsys):
    packed(here / "s", model=tt.Sequential(tt.Linear(64, 10)))
    assert main(["check", "s"]) == 1
    assert "no rank: the closed division keeps the layers" in capsys.readouterr().out


def test_check_finds_a_file_that_is_no_model(here, capsys):
    packed(here / "s", weights=b"nothing", division="open", name="it")
    assert main(["check", "s"]) == 1
    assert "no rank: it is not a model" in capsys.readouterr().out


def test_check_does_not_run_code(here):
    packed(here / "s", code=f"open({str(here / 'ran')!r}, 'w')\n{HONEST}")
    assert main(["check", "s"]) == 0
    assert not (here / "ran").exists()


def test_check_finds_a_log_below_the_floor(here, capsys):
    submission = packed(here / "s", division="open")
    with_log(submission, made_up([2.0] * 6, accuracy=([1.0] * 10, [0.0] * 10)))
    assert main(["check", "s"]) == 1
    assert "no rank: the floor is 0.99" in capsys.readouterr().out


def phase_changed(**changes):
    def change(log):
        log["sittings"][2]["offline"].update(changes)

    return change


TIMES = "the log('s times are no rounds| lacks times)"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (phase_changed(submission_ns=[]), TIMES),
        (phase_changed(reference_ns=[]), TIMES),
        (phase_changed(submission_wall_ns=[[1] * 10] * 2), TIMES),
        (phase_changed(reference_wall_ns=[[1] * 10, [1] * 9, [1] * 10]), TIMES),
        (phase_changed(submission_ns=[[10**400] * 10] * 3), TIMES),
        (
            phase_changed(losses={"submission": [0.0], "reference": [0.0] * 2}),
            "losses of 1 outputs of the sub",
        ),
        (
            phase_changed(losses={"submission": [], "reference": []}),
            "the log lacks outputs .sitting 3, offline",
        ),
        (
            lambda log: log["accuracy"].update(submission=[0.0] * 2),
            r"2 outputs .* 1 of .*\(the accuracy run\)",
        ),
        (
            lambda log: log.update(accuracy={"submission": [], "reference": []}),
            "the log lacks outputs .the accuracy run",
        ),
        (lambda log: log.update(sittings=[]), "0 sittings have no interval"),
        (lambda log: log.update(data="1" * 64), "its log is of other data than this machine's"),
    ],
)
def test_check_finds_a_log_that_cannot_be_scored(here, capsys, change, said):
    submission, log = packed(here / "s", division="open"), made_up([2.0] * 6)
    change(log)
    with_log(submission, log)
    assert main(["check", "s"]) == 1
    out = capsys.readouterr().out.splitlines()[-1]
    with pytest.raises(ValueError, match=f"^no rank: .*{said}"):
        raise ValueError(out)


@pytest.mark.parametrize("name", ['"duration_s":', '"losses":{"submission":['])
def test_check_finds_numbers_that_are_too_large_for_a_float(here, capsys, name):
    with_log(packed(here / "s", division="open"), made_up([2.0] * 6))
    path = here / "s" / "submission.json"
    text, count = re.subn(re.escape(name) + r"[\d.]+", f"{name}1e999", path.read_text(), count=1)
    assert count == 1
    path.write_text(text)
    assert main(["check", "s"]) == 1
    assert "the log has an infinite" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["check", "nothing"], "error: cannot read 'nothing/submission.json'"),
        (["submit", "nothing"], "error: cannot read 'nothing/submission.json'"),
        (["leaderboard"], "error: 'tinymlperf.sqlite' does not exist: submit makes it"),
        (["leaderboard", "--leaderboard", "text"], "error: 'text' is no leaderboard"),
        (["submit", "s", "--sittings", "5"], "error: --sittings must be at least 6, got 5"),
        (["submit", "s", "--duration", "0"], "error: --duration must be a positive number, got 0"),
        (["submit", "s", "--memory-limit", "0"], "error: --memory-limit must be a positive whole number"),
        (["submit", "s", "--leaderboard", "text"], "error: 'text' is no leaderboard"),
        (["submit", "s", "--time-limit", "-1"], "error: --time-limit must be a positive number, got -1"),
        (["submit", "s", "--sittings", "0"], "error: --sittings must be a positive whole number, got 0"),
        (["pack", "no", "new", *ABOUT], "error: cannot pack 'no': No such file"),
        (["pack", "linear", "new", *ABOUT, "--kv-cache", *OPEN], "error: `kv_cache` (--kv-cache) is for"),
        (["pack", "convolution", "new", *ABOUT], "error: the closed division keeps the layers"),
        (["pack", "convolution", "new", *ABOUT, *OPEN], "error: 'convolution' is no model for mlp_sprint: "),
        (
            ["pack", "narrow", "new", *ABOUT, *OPEN],
            "error: 'narrow' is no model for mlp_sprint: for inputs of shape (1, 64) it answers with shape",
        ),
        (["pack", "text", "new", *ABOUT, *OPEN], "error: 'text' is not a model"),
    ],
)
def test_what_cannot_be_done_is_one_sentence_and_exit_code_2(here, capsys, arguments, reason):
    (here / "text").write_text("text")
    packed(here / "s")
    save_model(tt.Linear(64, 10), here / "linear")
    save_model(tt.Linear(64, 9), here / "narrow")
    save_model(tt.Sequential(tt.Conv2d(1, 2, 3), tt.Flatten(), tt.Linear(72, 10)), here / "convolution")
    assert main(arguments) == 2
    assert not (here / "new").exists()
    out, err = capsys.readouterr()
    assert err.startswith(reason)
    assert err.count("\n") == 1
    assert out == ""
    assert (here / "text").read_text() == "text"


def test_a_damaged_leaderboard_is_found_before_anything_is_measured(here, capsys, monkeypatch):
    monkeypatch.setattr(contest, "judge", lambda *_, **__: pytest.fail("it was measured"))
    (here / "text").write_text("text")
    packed(here / "s")
    assert main(["submit", "s", "--leaderboard", "text"]) == 2


def test_an_interruption_adds_nothing(here, capsys, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(contest, "judge", interrupted)
    packed(here / "s")
    assert main(["submit", "s"]) == 130
    assert Leaderboard("tinymlperf.sqlite").entries() == []
    assert "interrupted: nothing was added" in capsys.readouterr().err


def judged(submission, *_, **__):
    """A ruling without a measurement."""
    log = made_up([2.0] * 6)
    event = small_benchmark().event
    return Ruling(submission, "A, Linux", None, quality_of(event, log), scores_of(event, log), log=log)


def test_a_log_that_cannot_be_written_takes_no_rank_away(here, capsys, monkeypatch):
    def removed(submission, *_, **__):
        shutil.rmtree(submission.folder)
        return judged(submission)

    monkeypatch.setattr(contest, "judge", removed)
    packed(here / "s")
    assert main(["submit", "s"]) == 0
    out, err = capsys.readouterr()
    assert "single-stream: 2.00 times as fast" in out
    assert "the log is on the leaderboard alone: cannot write 's/submission.json'" in err
    assert [e.scenario for e in Leaderboard("tinymlperf.sqlite").entries()] == ["single-stream", "offline"]
    assert main(["leaderboard", "--verify"]) == 0


def test_an_interruption_after_the_entry_is_there_does_not_deny_it(here, capsys, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(contest, "judge", judged)
    monkeypatch.setattr(contest, "with_log", interrupted)
    packed(here / "while-writing")
    assert main(["submit", "while-writing"]) == 0
    assert "the log is on the leaderboard alone: interrupted" in capsys.readouterr().err

    add = Leaderboard.add
    monkeypatch.setattr(Leaderboard, "add", lambda *arguments: (add(*arguments), interrupted()))
    packed(here / "while-adding", name="another")
    assert main(["submit", "while-adding"]) == 0
    assert "nothing was added" not in capsys.readouterr().err
    assert len(Leaderboard("tinymlperf.sqlite").entries()) == 4

    monkeypatch.setattr(Leaderboard, "add", interrupted)
    packed(here / "before", name="a third")
    assert main(["submit", "before"]) == 130
    assert "interrupted: nothing was added" in capsys.readouterr().err


def test_a_figure_that_does_not_follow_from_its_log_is_told(here, capsys):
    from test_leaderboard import entry

    Leaderboard("tinymlperf.sqlite").add([entry("forged")])
    assert main(["leaderboard", "--verify"]) == 1
    err = capsys.readouterr().err
    assert "not verified: forged (single-stream): its log cannot be judged" in err
    assert err.endswith("1 entry derived again from its log: 1 of them not verified\n")


def test_a_submission_is_told_its_rank_its_quality_and_the_leaderboard(here, capsys, monkeypatch):
    from test_leaderboard import entry

    twice = {"event": "mlp_sprint", "division": "closed", "machine": "A, Linux", "scenario": "offline"}
    faster, slower = entry("faster", 9.0, 8.9, 9.1, **twice), entry("slower", 1.0, 0.9, 1.1, **twice)
    Leaderboard("board").add([faster, slower, entry("elsewhere", 9.0, 8.9, 9.1, machine="B, Linux")])
    monkeypatch.setattr(contest, "judge", judged)
    packed(here / "s")
    assert main(["submit", "s", "--leaderboard", "board"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"accuracy: .*%, where the floor is .*% and the reference model has .*%", lines[2])
    assert lines[-1] == (
        "on the leaderboard 'board': rank 1 of 1 in single-stream, rank 2 of 3 in offline, closed division"
    )


def test_a_machine_that_is_not_there_is_answered_with_those_that_are(here, capsys):
    from test_leaderboard import entry

    Leaderboard("tinymlperf.sqlite").add([entry("one"), entry("two", machine="B, Linux")])
    assert main(["leaderboard", "--machine", "B, Linux"]) == 0
    assert "two" in capsys.readouterr().out
    assert main(["leaderboard", "--machine", "foo"]) == 2
    assert capsys.readouterr().err == (
        "error: --machine must be one that is on the leaderboard ('A, Linux', 'B, Linux'), got 'foo'\n"
    )


@pytest.mark.parametrize("command", [[], ["events"], ["pack"], ["check"], ["submit"], ["leaderboard"]])
def test_help_is_there(capsys, command):
    with pytest.raises(SystemExit, match="0"):
        main([*command, "--help"])
    assert "usage: python -m tinytorch.benchmarking" in capsys.readouterr().out


def test_wrong_words_are_a_usage_error(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["pack", "m", "f", "--event", "marathon", "--name", "x"])
    assert "invalid choice: 'marathon'" in capsys.readouterr().err


def test_it_runs_as_a_module_and_ends_quietly_in_a_closed_pipe():
    command = [sys.executable, "-m", "tinytorch.benchmarking", "events"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert "mlp_sprint" in done.stdout
    assert done.stderr == ""
    read, write = os.pipe()
    os.close(read)
    closed = subprocess.run(command, check=False, stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert closed.returncode == 141
    assert closed.stderr == b""


def test_the_schema_is_one():
    from jsonschema import Draft202012Validator

    path = Path(contest.__file__).parent / "schema" / "submission-1.json"
    Draft202012Validator.check_schema(json.loads(path.read_text(encoding="utf-8")))
