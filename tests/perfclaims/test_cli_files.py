"""Run files as the command line writes and reads them: folders, full disks, and judging again."""

import json

import pytest
from synthetic_suites import N, claim, documents, files, suite, verdicts

from perfclaims.archive import RunFile
from perfclaims.cli import main
from perfclaims.document import ArchiveError

# The folder of run files


def test_a_folder_that_cannot_be_written_to_is_found_before_anything_is_measured(tmp_path, capsys):
    mark = tmp_path / "measured"
    path = suite(tmp_path / "test_x.py", claim("x.x", f"open({str(mark)!r}, 'w')"))
    (tmp_path / "out").write_text("a file")
    assert main(["run", str(path), "--output-dir", str(tmp_path / "out")]) == 2
    out, err = capsys.readouterr()
    assert "cannot write run files to" in err
    assert "choose another folder with --output-dir" in err
    assert out == ""
    assert not mark.exists()
    assert (tmp_path / "out").read_text() == "a file"


@pytest.fixture
def full_when(monkeypatch):
    """Make the disk full for those writes of a run file, counted from 0, of which `full` is true."""
    write, written = RunFile.write, []

    def set_(full):
        def try_to_write(file, document):
            written.append(file)
            if full(len(written) - 1):
                raise ArchiveError("cannot write 'x.json': No space left on device")
            write(file, document)

        monkeypatch.setattr(RunFile, "write", try_to_write)

    return set_


def test_a_disk_that_is_full_from_the_start_is_found_before_anything_is_measured(cli, tmp_path, full_when):
    full_when(lambda n: True)
    code, out, err = cli(paths=[N])
    assert (code, out) == (2, "")
    assert "No space left on device" in err
    assert "n.pass" not in err
    assert files(tmp_path) == []


def test_a_disk_that_fills_up_costs_the_file_and_not_the_results(cli, tmp_path, full_when):
    full_when(lambda n: n >= 2)
    code, out, err = cli("--claim", "m.pass", "n.*", paths=["tests"])
    assert code == 2
    assert err.count("warning: cannot write 'x.json': No space left on device") == 1
    assert [line.split()[0] for line in out.splitlines() if line.endswith("PASS")] == [
        "m.pass",
        "n.pass",
        "n.two",
    ]
    full = "cannot write 'x.json': No space left on device"
    said = f"PASS: 3 of 3 asserted claims passed; but {full}; exit code 2."
    assert out.rstrip().endswith(said)
    (document,) = documents(tmp_path / "out")
    assert (document["interrupted"], verdicts(document)) == (True, {"m.pass": "PASS"})


def test_a_disk_with_space_again_gets_the_whole_run(cli, tmp_path, full_when):
    full_when(lambda n: n == 1)
    code, _, err = cli(paths=[N])
    assert code == 0
    assert "No space left" in err
    assert documents(tmp_path / "out")[0]["verdict"] == "PASS"


# Judging again


def rejudge(path, capsys):
    code = main(["rejudge", str(path)])
    return code, *capsys.readouterr()


def test_judging_again_gives_the_verdicts_of_the_run_and_its_exit_code(cli, tmp_path, capsys):
    code, first, _ = cli("--claim", "m.pass", "m.fail", "m.away", "audit.fail")
    again, out, err = rejudge(tmp_path / "out" / files(tmp_path)[0], capsys)
    assert (again, err) == (code, "") == (1, "")
    lines = [line for line in first.splitlines() if not line.startswith(("    repeat:", "run file:"))]
    again = out.splitlines()
    path = tmp_path / "out" / files(tmp_path)[0]
    assert again.pop(-2) == f"judged again: all 4 verdicts follow from the samples in '{path}'"
    assert [line for line in again if line] == [line for line in lines if line]


def test_a_file_that_does_not_say_what_its_evidence_says_is_exit_code_2(cli, tmp_path, capsys):
    cli("--claim", "m.fail")
    path = tmp_path / "out" / files(tmp_path)[0]
    path.write_text(path.read_text().replace('"FAIL"', '"PASS"'))
    code, out, err = rejudge(path, capsys)
    assert code == 2
    assert "differs: m.fail: the file says PASS, its evidence says FAIL" in err
    assert out.rstrip().endswith("does not say what its evidence says; exit code 2.")
    assert "exit code 1" not in out
    assert "judged again" not in out


def test_an_interrupted_run_is_judged_as_far_as_it_got(cli, tmp_path, capsys):
    cli(paths=[N])
    path = tmp_path / "out" / files(tmp_path)[0]
    document = json.loads(path.read_text())
    document |= {"interrupted": True, "finished_at": None, "verdict": None}
    document["modules"][0]["verdict"] = None
    del document["modules"][0]["claims"][1]
    path.write_text(json.dumps(document))
    code, out, _ = rejudge(path, capsys)
    assert code == 130
    assert out.rstrip().endswith("Interrupted: 1 of 1 asserted claim passed; exit code 130.")


@pytest.mark.parametrize(
    "text", ["", "hello", "{}", '{"schema": "perfclaims/run/9"}', '{"schema": "perfclaims/run/1"}']
)
def test_a_damaged_file_is_refused_in_one_sentence(tmp_path, capsys, text):
    path = tmp_path / "x.json"
    path.write_text(text)
    code, out, err = rejudge(path, capsys)
    assert (code, out) == (2, "")
    assert err.startswith(f"python -m perfclaims: '{path}' is ")
    assert err.count("\n") == 1


def test_a_missing_file_is_refused_in_one_sentence(tmp_path, capsys):
    code, _, err = rejudge(tmp_path / "none.json", capsys)
    assert (code, err) == (
        2,
        f"python -m perfclaims: cannot read '{tmp_path / 'none.json'}': No such file or directory\n",
    )
