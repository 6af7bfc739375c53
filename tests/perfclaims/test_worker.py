"""A suite in a process of its own: what reaches the parent, also when the process ends, crashes or hangs."""

import ast
import os
import re
import signal
import subprocess
import sys
import time

import pytest
from synthetic_suites import LINE, claim, suite

from perfclaims import process
from perfclaims.codes import Reason
from perfclaims.evidence import Number, Timing
from perfclaims.experiment import Settings
from perfclaims.presets import as_preset
from perfclaims.process import Worker, WorkerError

QUICK = Settings(as_preset(0.02), seed=5)
# The worker's own alarm does not get through to the one, nor a signal that asks for its stack to the other.
NO_ALARM = "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])"
DEAF = "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM, signal.SIGUSR1])"
CLAIMS = [
    claim("z.passes", "e.value('seed', float(e.rng.integers(2**40)))\ne.value('x', 2)"),
    claim("z.prints", "print('print')\nos.system('echo child')\nsys.stderr.write('stderr')\ne.value('x', 2)"),
    claim("z.prints-much", "print('a' * 100_000 + 'END')\ne.value('x', 2)"),
    claim("z.announces", "e.announce('compiling for 3 s')\ne.value('x', 2)"),
    claim("z.reads", "input()"),
    claim("z.exits", "e.value('x', 2)\nprint('last words')\nos._exit(7)"),
    claim("z.killed", "os.kill(os.getpid(), signal.SIGKILL)"),
    claim("z.segfaults", "e.value('x', 2)\nctypes.string_at(0)"),
    claim("z.hangs-in-python", "e.value('x', 2)\nwhile True: pass", options="time_limit_s=0.2"),
    claim(
        "z.hangs-in-c",
        f"e.value('x', 2)\n{NO_ALARM}\nctypes.PyDLL(None).sleep(60)",
        options="time_limit_s=0.2",
    ),
    claim("z.hangs-deaf", f"{DEAF}\nctypes.PyDLL(None).sleep(60)", options="time_limit_s=0.2"),
    claim("z.closes-its-streams", "sys.stdout.close()\nsys.stderr = None\ne.value('x', 2)"),
    claim("z.closes-everything", "os.closerange(0, 100)\ntime.sleep(60)"),
    claim("z.leaves-a-fork", "if (pid := os.fork()) == 0: time.sleep(20)\ne.value('pid', pid)\nos._exit(4)"),
    claim(
        "z.times",
        "nap = lambda: time.sleep(2e-4)\n"
        "e.time(Implementation('a', lambda rng: nap), Implementation('b', lambda rng: int))",
        "Speedup(at_least=1.5)",
    ),
    claim("z.slow", options="slow=True, expected_s=60"),
]  # fmt: skip


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    """A worker that is used again after each of its animals."""
    with pytest.MonkeyPatch.context() as environment:
        environment.delenv("PYTHONUNBUFFERED", raising=False)
        worker = Worker(suite(tmp_path_factory.mktemp("zoo") / "test_zoo.py", *CLAIMS), QUICK)
        worker.load()
        yield worker
        worker.kill()


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(process, "_GRACE_S", 0.3)
    monkeypatch.setattr(process, "_TICK_S", 0.05)


def measure(worker, claim_id):
    """Evidence, ticks and what was printed."""
    ticks = []
    evidence = worker.measure(claim_id, ticks.append)
    return evidence, ticks, worker.printed()


def loaded(path, settings=QUICK):
    """The sentence with which loading fails, or the claims that it declares."""
    worker = Worker(path, settings)
    try:
        worker.load()
        return list(worker.claims)
    except WorkerError as error:
        return str(error)
    finally:
        worker.kill()


# What reaches the parent


def test_the_suite_is_declared(zoo):
    assert (zoo.name, zoo.title, len(zoo.claims)) == ("zoo", "Title of zoo", len(CLAIMS))
    assert zoo.claims["z.passes"].statement == "says z.passes"
    assert set(zoo.left_out.values()) == {None}


def test_evidence_arrives_as_it_was_measured_and_the_seed_is_that_of_the_run(zoo):
    evidence, ticks, printed = measure(zoo, "z.passes")
    assert evidence.trouble is None
    assert [piece for piece in ticks if piece is not None] == list(evidence.pieces)
    assert evidence.pieces[1] == Number(None, "x", 2.0)
    assert measure(zoo, "z.passes")[0].pieces == evidence.pieces
    assert printed == ""


def test_what_a_claim_prints_is_kept_apart_and_told_once(zoo):
    evidence, _, printed = measure(zoo, "z.prints")
    assert len(evidence.pieces) == 1
    assert sorted(printed.split("\n")) == ["child", "print", "stderr"]
    assert measure(zoo, "z.passes")[2] == ""


def test_of_much_that_is_printed_the_end_is_kept(zoo):
    _, _, printed = measure(zoo, "z.prints-much")
    assert printed.startswith("[80")
    assert "bytes left out]" in printed
    assert printed.endswith("aaaEND\n")
    assert len(printed) < 21_000


def test_announcements_reach_the_view(zoo):
    _, ticks, _ = measure(zoo, "z.announces")
    assert "compiling for 3 s" in ticks


def test_a_comparison_is_heard_of_while_it_runs(zoo):
    evidence, ticks, _ = measure(zoo, "z.times")
    heard = [len(tick.samples) for tick in ticks if isinstance(tick, Timing)]
    assert len(evidence.pieces) == 1
    assert len(heard) >= 2
    assert heard[-1] == len(evidence.pieces[0].samples) > 0


def test_a_claim_reads_nothing(zoo):
    assert measure(zoo, "z.reads")[0].trouble.message.startswith(
        "EOFError: EOF when reading a line (at test_zoo"
    )


def test_a_claim_may_close_its_streams(zoo):
    evidence, _, _ = measure(zoo, "z.closes-its-streams")
    assert (evidence.trouble, len(evidence.pieces)) == (None, 1)
    zoo.kill()


# How it ends


@pytest.mark.parametrize(
    ("claim_id", "said"),
    [
        ("z.exits", "exit code 7; it last printed: last words"),
        ("z.killed", "killed by SIGKILL"),
        ("z.segfaults", r"killed by SIGSEGV, at test_zoo\.py:\d+"),
        ("z.closes-everything", "it closed its connection"),
    ],
)
def test_a_process_that_ends_says_how_and_the_next_claim_gets_another(zoo, claim_id, said):
    evidence, _, _ = measure(zoo, claim_id)
    assert evidence.trouble.reason is Reason.RAISED
    assert re.fullmatch(f"the measuring process ended: {said}", evidence.trouble.message)
    assert len(measure(zoo, "z.passes")[0].pieces) == 2


def test_a_crash_is_noticed_though_a_fork_keeps_the_connection_open(zoo):
    evidence, _, _ = measure(zoo, "z.leaves-a-fork")
    fork = int(evidence.pieces[0].number)
    assert evidence.trouble.message == "the measuring process ended: exit code 4"
    assert _runs(fork), "it was only noticed at the end of the fork"
    os.kill(fork, signal.SIGKILL)


def test_what_was_measured_before_a_crash_is_kept(zoo):
    assert len(measure(zoo, "z.segfaults")[0].pieces) == len(measure(zoo, "z.exits")[0].pieces) == 1


@pytest.mark.parametrize("claim_id", ["z.hangs-in-python", "z.hangs-in-c"])
def test_a_hang_is_ended_at_the_limit_and_says_where_it_was(zoo, claim_id):
    evidence, ticks, _ = measure(zoo, claim_id)
    assert evidence.trouble.reason is Reason.TIMED_OUT
    assert "after its limit of 0.2 s, at test_zoo.py:" in evidence.trouble.message
    assert evidence.pieces == (Number(None, "x", 2.0),)
    assert None in ticks
    assert len(measure(zoo, "z.passes")[0].pieces) == 2


def test_a_hang_that_hears_nothing_is_killed_all_the_same(zoo):
    evidence, _, _ = measure(zoo, "z.hangs-deaf")
    assert evidence.trouble.reason is Reason.TIMED_OUT
    assert "limit of 0.2 s; raise" in evidence.trouble.message


@pytest.mark.parametrize(
    ("ending", "reason"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", Reason.RAISED),
        ("signal.raise_signal(signal.SIGALRM)", Reason.TIMED_OUT),
    ],
)
def test_an_unfinished_comparison_is_kept(tmp_path, ending, reason):
    body = (
        "def slow():\n    calls.append(time.sleep(1e-3))\n    if len(calls) > 600: " + ending + "\n"
        "e.time(Implementation('a', lambda rng: slow), Implementation('b', lambda rng: slow))"
    )
    long = claim("l.long", body, "OutputsMatch(), Speedup(at_least=1.0)")
    worker = Worker(suite(tmp_path / "test_l.py", long, before="calls = []"), Settings(as_preset(100.0)))
    worker.load()
    evidence = worker.measure("l.long", lambda news: None)
    worker.kill()
    assert evidence.trouble.reason is reason
    (piece,) = evidence.pieces
    assert 0 < len(piece.samples) < 600
    assert piece.stop_reason == "interrupted"


def test_a_worker_that_is_killed_takes_along_what_it_started(tmp_path):
    pid = str(tmp_path / "pid")
    body = f"import subprocess\nopen({pid!r}, 'w').write(str(subprocess.Popen(['sleep', '60']).pid))"
    worker = Worker(suite(tmp_path / "test_p.py", claim("p.p", body)), QUICK)
    worker.load()
    worker.measure("p.p", lambda news: None)
    pid = int((tmp_path / "pid").read_text())
    os.kill(pid, 0)
    worker.kill()
    deadline = time.monotonic() + 10
    while _runs(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not _runs(pid)


def _runs(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123
        return file.read().rpartition(")")[2].split()[0] != "Z"


# Loading


@pytest.mark.parametrize(
    ("before", "said"),
    [
        (
            "import no_such_module",
            f"ModuleNotFoundError: No module named 'no_such_module' (at tests/test_l.py:{LINE})",
        ),
        ("def f(:", f"SyntaxError: invalid syntax (test_l.py, line {LINE}) (at tests/test_l.py:{LINE})"),
        ("Speedup(at_least=-1)", f"must be a positive number, got -1 (at tests/test_l.py:{LINE})"),
        ("sys.exit(3)", f"SystemExit: 3 (at tests/test_l.py:{LINE})"),
        ("print('hm'); os._exit(3)", "exit code 3; it last printed: hm"),
        ("ctypes.string_at(0)", f"killed by SIGSEGV, at tests/test_l.py:{LINE}"),
        (
            "raise ValueError(os.path.expanduser('~/secret'))",
            f"ValueError: ~/secret (at tests/test_l.py:{LINE})",
        ),
    ],
)
def test_a_suite_that_cannot_be_loaded_says_why_and_where(tmp_path, before, said):
    (tmp_path / "pyproject.toml").touch()
    failure = loaded(suite(tmp_path / "tests" / "test_l.py", claim("l.l"), before=before))
    assert failure.startswith("'test_l.py' cannot be loaded: ")
    assert failure.endswith(said)


def test_a_suite_that_never_loads_is_given_up_and_says_where_it_hangs(tmp_path, monkeypatch):
    monkeypatch.setattr(process, "_LOADING_LIMIT_S", 1.5)
    path = suite(tmp_path / "test_l.py", claim("l.l"), before="while True: pass")
    assert loaded(path) == f"'test_l.py' was not loaded within 1.5 s, at test_l.py:{LINE}; find what hangs"


def test_a_suite_that_loads_only_once_makes_the_rest_of_its_claims_errors(tmp_path):
    mark = str(tmp_path / "mark")
    before = f"if os.path.exists({mark!r}): raise OSError('gone')\nopen({mark!r}, 'w').close()"
    worker = Worker(
        suite(tmp_path / "test_l.py", claim("l.a", "os._exit(1)"), claim("l.b"), before=before), QUICK
    )
    worker.load()
    first, second = (worker.measure(i, lambda news: None).trouble.message for i in ("l.a", "l.b"))
    worker.kill()
    assert first == "the measuring process ended: exit code 1"
    assert second.startswith("'test_l.py' cannot be loaded: OSError: gone")


def test_the_preset_decides_what_is_left_out(tmp_path):
    worker = Worker(suite(tmp_path / "test_l.py", *CLAIMS[-1:]), Settings(as_preset("fast")))
    worker.load()
    worker.kill()
    assert worker.left_out["z.slow"].startswith("left out of fast runs: it needs about 60 s")


def package(folder, value):
    """A package called `tinytorch` with an attribute to tell it by."""
    (folder / "tinytorch").mkdir(parents=True)
    (folder / "tinytorch" / "__init__.py").write_text(f"WHICH = {value!r}\n")


@pytest.mark.parametrize("layout", [".", "src"])
def test_a_suites_own_project_wins_over_an_installed_package_of_the_same_name(tmp_path, monkeypatch, layout):
    installed, project = tmp_path / "installed", tmp_path / "project"
    package(installed, "installed")
    package(project / layout, "own")
    (project / "pyproject.toml").touch()
    monkeypatch.setenv("PYTHONPATH", str(installed))
    path = suite(
        project / "tests" / "perf" / "test_l.py",
        claim("l.l"),
        before="import tinytorch; assert tinytorch.WHICH == 'own'",
    )
    assert loaded(path) == ["l.l"]


def test_neither_the_folder_of_the_run_nor_what_lies_beside_the_harness_can_be_imported(
    tmp_path, monkeypatch
):
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "random.py").write_text("raise SystemExit('wrong module')")
    monkeypatch.chdir(tmp_path / "here")
    path = suite(tmp_path / "tests" / "test_l.py", claim("l.l"), before="import random\nprint(sys.path)")
    worker = Worker(path, QUICK)
    worker.load()
    paths = ast.literal_eval(worker.printed())
    worker.kill()
    plain = [sys.executable, "-P", "-c", "import sys; print(sys.path)"]
    usual = ast.literal_eval(subprocess.run(plain, capture_output=True, text=True, check=True).stdout)
    assert paths == [str(tmp_path / "tests"), *usual]
