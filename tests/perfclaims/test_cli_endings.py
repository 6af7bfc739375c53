"""Runs that are ended from outside, readers that go away, and what terminals get to see."""

import fcntl
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time

import pytest
from synthetic_suites import M, N, claim, command, documents, run, suite, verdicts

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="signals, pipes and /proc as on Linux")

# In compiled code, with the worker's own alarm shut out: only a kill ends it.
HANG = (
    "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])\n"
    "open(os.environ['PID_FILE'], 'w').write(str(os.getpid()))\n"
    "ctypes.PyDLL(None).sleep(60)"
)
LONG_IDS = [claim(f"long.{i}.{'x' * 300}") for i in range(20)]


@pytest.fixture
def hanging(tmp_path):
    """Start a run whose last claim hangs, and wait until it does: the process and the pid of its worker."""
    started = []

    def start(*claims, **changes):
        pid_file = tmp_path / "pid"
        path = suite(tmp_path / "test_s.py", *claims, claim("s.hangs", HANG), claim("s.never"))
        given = ["run", path, "--budget", "0.02", "--output-dir", tmp_path / "out"]
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **changes}
        made = command(*given, env={"PID_FILE": str(pid_file)})
        started.append(subprocess.Popen(**made, **streams, start_new_session=True))
        wait_until(lambda: pid_file.exists() and pid_file.read_text())
        return started[-1], int(pid_file.read_text())

    yield start
    for process in started:
        process.kill()
        process.communicate()


def wait_until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it never came to pass"
        time.sleep(0.01)


def gone(pid):
    """Whether a process has ended."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123
        return file.read().rpartition(")")[2].split()[0] == "Z"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_keeps_what_is_finished_and_ends_its_worker(hanging, tmp_path, number, code):
    process, worker = hanging(claim("s.first"))
    os.killpg(process.pid, number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == code
    wait_until(lambda: gone(worker))
    assert out.endswith(f"Interrupted with 2 claims left: 1 of 1 asserted claim passed; exit code {code}.\n")
    assert "Traceback" not in out + err
    (document,) = documents(tmp_path / "out")
    assert (document["interrupted"], document["finished_at"], document["verdict"]) == (True, None, None)
    assert verdicts(document) == {"s.first": "PASS"}


def test_a_second_ctrl_c_ends_the_program_while_it_prints(hanging):
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    process, worker = hanging(*LONG_IDS, stdout=writer)
    os.close(writer)
    os.killpg(process.pid, signal.SIGINT)
    wait_until(lambda: gone(worker))
    assert select.select([reader], [], [], 30)[0], "it never began to print"
    # Nobody reads on: it waits with its report half written.
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=30)
    os.close(reader)
    assert process.returncode == -signal.SIGINT
    assert "Traceback" not in err


def test_a_run_that_is_killed_leaves_a_readable_file_and_no_worker(hanging, tmp_path):
    process, worker = hanging(claim("s.first"))
    process.kill()
    process.communicate(timeout=30)
    wait_until(lambda: gone(worker))
    (document,) = documents(tmp_path / "out")
    assert document["interrupted"]
    assert verdicts(document) == {"s.first": "PASS"}
    again = run("rejudge", next((tmp_path / "out").glob("*.json")))
    assert again.returncode == 130
    assert "Interrupted" in again.stdout


def test_ctrl_c_while_suites_are_loaded_leaves_nothing(tmp_path):
    mark = tmp_path / "mark"
    before = f"open({str(mark)!r}, 'w').close(); time.sleep(60)"
    path = suite(tmp_path / "test_s.py", claim("s.s"), before=before)
    made = command("run", path, "--output-dir", tmp_path / "out")
    process = subprocess.Popen(**made, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
    wait_until(mark.exists)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (130, "")
    assert err.endswith("Interrupted before anything was measured; exit code 130.\n")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("streams", ["", "2>&1"])
def test_a_reader_that_goes_away_changes_neither_the_exit_code_nor_the_file(study, tmp_path, streams):
    made = command("run", N, "--budget", "0.02", "--output-dir", tmp_path / "out")
    line = f'"$@" {streams} | true; exit ${{PIPESTATUS[0]}}'
    arguments = ["bash", "-c", line, "bash", *made.pop("args")]
    found = subprocess.run(arguments, **made, cwd=study, capture_output=True, check=False)
    assert found.returncode == 0
    assert "Traceback" not in found.stderr
    assert "Exception" not in found.stderr
    assert documents(tmp_path / "out")[0]["verdict"] == "PASS"


def test_an_output_that_cannot_be_written_is_exit_code_2(study, tmp_path):
    made = command("run", N, "--budget", "0.02", "--output-dir", tmp_path / "out")
    with open("/dev/full", "w") as full:  # noqa: PTH123
        found = subprocess.run(**made, cwd=study, stdout=full, stderr=subprocess.PIPE, check=False)
    assert found.returncode == 2
    assert found.stderr.endswith("python -m perfclaims: cannot write the results: No space left on device\n")
    assert documents(tmp_path / "out")[0]["verdict"] == "PASS"


def on_terminal(study, tmp_path, **environment):
    """What a run shows on a terminal of 60 columns."""
    given = ["run", M, "--claim", "m.pass", "m.fail", "--budget", "0.02"]
    environment = {"TERM": "xterm", "NO_COLOR": "", "COLUMNS": "", **environment}
    made = command(*given, "--output-dir", tmp_path / "out", env=environment)
    leader, follower = pty.openpty()
    subprocess.run(["stty", "cols", "60"], stdin=follower, check=True)
    with subprocess.Popen(**made, cwd=study, stdin=follower, stdout=follower, stderr=follower) as process:
        os.close(follower)
        shown = b""
        try:
            while part := os.read(leader, 4096):
                shown += part
        except OSError:  # the end, on Linux
            pass
    os.close(leader)
    assert process.returncode == 1
    return shown.decode().replace("\r\n", "\n")


def drawn(shown):
    """What a terminal showed, one entry for each time a line was drawn."""
    return [part.strip() for part in re.split(r"\x1b\[[0-9;?]*[A-Za-z]|\r|\n", shown) if part.strip()]


def test_a_terminal_has_a_live_line_and_colours(study, tmp_path):
    shown = on_terminal(study, tmp_path)
    live = drawn(shown)
    assert live[0] == "loading 1 suite"
    assert "0 s, about 3.5 s left  m.pass" in live
    assert any(line.startswith("m.fail: FAIL in ") for line in live)
    assert "\033[31mFAIL\033[0m" in shown
    assert "\033[32mPASS\033[0m" in shown


def test_no_color_is_heeded_and_a_dumb_terminal_gets_plain_lines(study, tmp_path):
    plain = on_terminal(study, tmp_path, NO_COLOR="1")
    assert "\033[3" not in plain
    assert "loading 1 suite\r" in plain
    dumb = on_terminal(study, tmp_path, TERM="dumb")
    assert "\033" not in dumb
    assert "\r" not in dumb
    assert dumb.startswith("loading 1 suite\nm.pass: PASS in ")
