"""The command line from end to end: what is chosen, measured and printed, and the exit code."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from synthetic_suites import N, claim, documents, failing, files, run, suite, verdicts

from perfclaims.cli import main
from perfclaims.options import Options, parser

# Verdicts and exit codes


@pytest.mark.parametrize(
    ("chosen", "verdict", "code"),
    [
        (["m.pass", "m.away", "m.slow", "audit.fail"], "PASS", 0),
        (["m.fail", "m.partial", "m.pass"], "PARTIAL", 1),
        (["m.partial", "m.pass"], "PARTIAL", 3),
        (["m.pass", "audit.error"], "ERROR", 2),
        (["audit.pass", "audit.fail", "m.away", "m.slow"], None, 2),
    ],
)
def test_verdict_and_exit_code_follow_from_the_asserted_claims_that_ran(cli, tmp_path, chosen, verdict, code):
    found, out, _ = cli("--fast", "--claim", *chosen)
    assert found == code
    last = out.rstrip().rpartition("\n")[2]
    assert last.startswith(f"{verdict}: " if verdict else "No verdict: nothing was measured that is asserted")
    assert last.endswith(f"exit code {code}.")
    (document,) = documents(tmp_path / "out")
    assert document["verdict"] == verdict
    assert not document["interrupted"]


def test_a_suite_that_cannot_be_loaded_is_an_error_and_the_others_are_measured(cli, tmp_path):
    code, out, _ = cli(paths=(N, "broken"))
    assert code == 2
    assert "module_18_b: ERROR. 'test_module_18_b.py' cannot be loaded: ModuleNotFoundError" in out
    assert "ERROR: 2 of 2 asserted claims passed, module_18_b could not be loaded; exit code 2." in out
    (document,) = documents(tmp_path / "out")
    assert [module["error"] is None for module in document["modules"]] == [True, False]
    assert [module["verdict"] for module in document["modules"]] == ["PASS", "ERROR"]
    # A claim that is named is elsewhere; a pattern may mean one of those that could not be read.
    assert cli("--claim", "n.pass", paths=(N, "broken"))[0] == 0
    assert cli("--claim", "n.*", paths=(N, "broken"))[0] == 2
    code, _, err = cli("--claim", "b.b", paths=(N, "broken"))
    assert code == 2
    assert "unknown claim 'b.b'" in err
    assert "'test_module_18_b.py' cannot be loaded" in err


# What is run


def test_modules_and_claims_are_chosen_by_number_name_and_pattern(cli, tmp_path):
    for arguments in (
        ["--module", "17"],
        ["--module", "n", "--claim", "n.*"],
        ["--claim", "n.pass", "--claim", "n.two"],
    ):
        assert cli(*arguments, paths=["tests"])[0] == 0
    found = documents(tmp_path / "out")
    assert [verdicts(document) for document in found] == [{"n.pass": "PASS", "n.two": "PASS"}] * 3
    assert found[1]["configuration"]["modules"] == ["n"]
    assert found[2]["configuration"]["claims"] == ["n.pass", "n.two"]


def test_budget_and_seed_are_on_record(cli, tmp_path):
    cli("--claim", "m.pass", "--budget", "0.1", "--seed", "3")
    configuration = documents(tmp_path / "out")[0]["configuration"]
    assert (configuration["budget"], configuration["budget_s"], configuration["seed"]) == ("0.1 s", 0.1, 3)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--claim", "n.pas"], "unknown claim 'n.pas'; the nearest are 'n.pass'"),
        (["--module", "99"], "unknown module '99'; known are: module_16_m, module_17_n"),
        (["--module", "17", "--claim", "m.pass"], "unknown claim 'm.pass' in the modules chosen; it is in"),
        (["--claim", "m"], "unknown claim 'm'; 'm.*' means all of that family, 6 in number"),
    ],
)
def test_an_unknown_name_ends_the_run_before_it_begins_and_leaves_nothing(cli, tmp_path, arguments, said):
    code, out, err = cli(*arguments, paths=["tests"])
    assert (code, out) == (2, "")
    assert err.rpartition("python -m perfclaims: ")[2].startswith(said)
    assert files(tmp_path) == []


def test_an_id_in_two_suites_ends_the_run_before_it_begins(cli, study):
    suite(study / "twin" / "test_twin.py", claim("n.pass"))
    code, out, err = cli(paths=(N, "twin"))
    assert (code, out) == (2, "")
    assert "claim 'n.pass' is declared in 'module_17_n' and in 'twin'; ids must be unique\n" in err


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("nowhere", "does not exist; name a suite file"),
        ("empty", "no suite in '"),
        ("../" + "x" * 300, "too long"),
    ],
)
def test_paths_without_suites_are_refused(cli, study, path, said):
    (study / "empty").mkdir(exist_ok=True)
    code, out, err = cli(paths=(path,))
    assert (code, out) == (2, "")
    assert said in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--budget", "0"], "argument --budget: expected a positive number of seconds, got '0'"),
        (["--budget", "nan"], "argument --budget: expected a positive number of seconds, got 'nan'"),
        (["--budget", "quick"], "argument --budget: expected a positive number of seconds, got 'quick'"),
        (["--seed", "-1"], "argument --seed: expected an integer of zero or more, got '-1'"),
        (["--seed", "²"], "argument --seed: expected an integer of zero or more, got '²'"),
        (["--seed", "1.5"], "argument --seed: expected an integer of zero or more, got '1.5'"),
        (["--fast", "--rigorous"], "argument --rigorous: not allowed with argument --fast"),
        (["--claim"], "argument --claim: expected at least one argument"),
        (["--frobnicate"], "unrecognized arguments: --frobnicate"),
    ],
)
def test_wrong_options_are_refused_with_what_was_expected(study, capsys, arguments, said):
    with pytest.raises(SystemExit) as stop:
        main(["run", str(study / "tests"), *arguments])
    assert stop.value.code == 2
    assert said in capsys.readouterr().err


def test_without_a_command_there_is_help_and_exit_code_2(capsys):
    assert main([]) == 2
    assert "exit codes:" in capsys.readouterr().err


# What is written


def test_the_report_ends_with_remarks_then_the_run_file_then_the_sentence(cli, tmp_path):
    _, out, err = cli("--claim", "m.pass", "m.fail", "m.error", "m.away", "audit.fail")
    order = [
        "Title of module_16_m (module_16_m)",
        "claim",
        "  says m.pass",
        "m.fail: FAIL (no-benefit). x is 0.5 against at least 1.",
        "    claimed: says m.fail",
        "    repeat: ",
        "m.error: ERROR (raised). NameError: name 'missing' is not defined (at tests/test_module_16_m.py:",
        "audit.fail: stated by a blog, does not hold: FAIL",
        "    claimed: says audit.fail",
        "NOT_APPLICABLE: m.away: no GPU here.",
        f"run file: {tmp_path / 'out' / files(tmp_path)[0]}",
        "ERROR: 1 of 3 asserted claims passed, 1 FAIL (m.fail), 1 ERROR (m.error), 1 audited (1 FAIL), 1 not",
    ]
    places = [out.find(("\n" if i else "") + text) for i, text in enumerate(order)]
    assert -1 not in places
    assert places == sorted(places)
    assert "\033" not in out + err
    assert "Traceback" not in out + err


def test_progress_is_a_line_per_claim_and_goes_to_stderr(cli):
    _, _, err = cli(paths=[N])
    lines = err.splitlines()
    assert lines[0] == "loading 1 suite"
    assert [line.partition(" in ")[0] for line in lines[1:]] == ["n.pass: PASS", "n.two: PASS"]
    assert lines[1].endswith("about 1.7 s left")


def test_quiet_says_only_the_result_and_why(cli):
    _, out, err = cli("--claim", "m.pass", "--quiet")
    assert err == ""
    assert len(out.splitlines()) == 2
    _, out, err = cli("--claim", "m.fail", "--quiet")
    assert err == ""
    assert out.startswith("m.fail: FAIL")
    assert "measured" not in out


def test_the_command_that_repeats_a_claim_repeats_just_that(study, tmp_path):
    given = ["run", "tests", "--output-dir", str(tmp_path / "out"), "--budget", "0.03", "--seed", "7"]
    first = run(*given, "--claim", "m.fail", "m.pass", cwd=study)
    (line,) = [line for line in first.stdout.splitlines() if "repeat: " in line]
    command = line.partition("repeat: ")[2]
    assert command == "python -m perfclaims run tests --budget 0.03 --seed 7 --claim m.fail"
    again = run(*shlex.split(command)[3:], "--output-dir", str(tmp_path / "again"), cwd=study)
    assert again.returncode == first.returncode == 1
    (document,) = documents(tmp_path / "again")
    assert verdicts(document) == {"m.fail": "FAIL"}
    assert document["configuration"]["seed"] == 7


@pytest.mark.parametrize(
    ("given", "same", "longer"),
    [
        (["--fast"], "--fast", "--budget 4.4"),
        (["--rigorous", "--seed", "3"], "--rigorous --seed 3", "--budget 4.4 --seed 3"),
        (["--budget", "2"], "--budget 2", "--budget 4.4"),
        ([], "", "--budget 4.4"),
    ],
)
def test_a_budget_that_would_decide_takes_the_place_of_the_one_given(tmp_path, given, same, longer):
    options = parser("x", fixed_paths=True, output_dir=tmp_path).parse_args(given, namespace=Options())
    assert (options.flags(), options.flags(4.4)) == (same, longer)


def test_two_runs_in_one_second_have_files_of_their_own(cli, tmp_path):
    for _ in range(2):
        cli("--claim", "m.pass")
    found = documents(tmp_path / "out")
    assert len({document["run_id"] for document in found}) == 2
    assert [f"validation_{document['run_id']}.json" for document in found] == files(tmp_path)


# The list


def test_the_list_measures_and_writes_nothing(cli, tmp_path):
    code, out, err = cli("--list", "--fast")
    assert (code, err) == (0, "")
    assert files(tmp_path) == []
    slow = next(line for line in out.splitlines() if line.startswith("m.slow"))
    assert slow.split() == ["m.slow", "20", "s", "slow,", "left", "out"]
    assert "\n  says m.slow\n    x at least 1\n" in out
    assert out.rstrip().endswith("about 20 s in all")


def test_the_list_knows_how_long_claims_took_the_last_time(cli, tmp_path):
    cli("--claim", "n.pass", paths=[N])
    path = tmp_path / "out" / files(tmp_path)[0]
    document = json.loads(path.read_text())
    document["modules"][0]["claims"][0]["duration_s"] = 42.0
    path.write_text(json.dumps(document))
    _, out, _ = cli("--list", paths=[N])
    durations = {line.split()[0]: line for line in out.splitlines() if line.startswith("n.")}
    assert durations["n.pass"].endswith("42 s")
    assert durations["n.two"].endswith("1.7 s")


def test_the_list_of_a_suite_that_cannot_be_loaded_says_so(cli):
    code, out, err = cli("--list", paths=(N, "broken"))
    assert code == 2
    assert "n.pass" in out
    assert "cannot be loaded" in err


# A suite file as a program


def test_a_suite_file_runs_by_itself_from_any_folder_and_keeps_its_runs_in_its_project(tmp_path):
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "pyproject.toml").touch()
    (tmp_path / "elsewhere").mkdir()
    ends_with_main = 'if __name__ == "__main__":\n    suite.main()\n'
    path = suite(tmp_path / "project" / "tests" / "test_x.py", failing("x.x"), ends_with_main)
    environment = {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    found = subprocess.run(
        [sys.executable, str(path), "--budget", "0.02"],
        cwd=tmp_path / "elsewhere",
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 1
    assert f"    repeat: python {path} --budget 0.02 --claim x.x\n" in found.stdout
    assert len(documents(tmp_path / "project" / "validation_results")) == 1
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_the_main_job_names_itself_as_it_was_called(tmp_path):
    script = Path(__file__).resolve().parents[2] / "run_all_performance_tests.py"
    found = subprocess.run(
        [sys.executable, str(script), "--help"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    # argparse breaks the line where the path leaves no room for the options.
    assert " ".join(found.stdout.split()).startswith(f"usage: python {script} [-h]")
    assert "validation_results" in found.stdout
