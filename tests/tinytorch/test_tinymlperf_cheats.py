"""Submissions that do not do the work: each is refused with the reason, and nothing comes of it."""

import io
import sqlite3
from dataclasses import replace

import numpy as np
import pytest
from tinymlperf_stand_ins import HONEST, QUICK, packed, small_benchmark

import tinytorch as tt
from tinytorch.benchmarking.tinymlperf.confinement import can_confine
from tinytorch.benchmarking.tinymlperf.leaderboard import Leaderboard
from tinytorch.benchmarking.tinymlperf.referee import judge


def ruled(tmp_path, code, *, weights=None, settings=QUICK):
    if not can_confine():
        pytest.skip("this kernel cannot confine own code")
    return judge(packed(tmp_path / "s", code=code, weights=weights), small_benchmark(), settings, seed=1)


MEMORY = """
import numpy as np

class Memory:
    def __init__(self, path):
        with np.load(path) as data:
            self.answers = {self.key(x): y for x, y in zip(data["images"], data["labels"])}
        self.seen = {}

    def key(self, image):
        return np.round(image * 16).astype(np.int8).tobytes()

    def __call__(self, inputs):
        scores = np.zeros((len(inputs), 10), np.float32)
        for row, image in zip(scores, inputs):
            row[self.answers.get(self.key(image), 0)] = 1
        return scores

def load(folder):
    return Memory(folder + "/model.safetensors")
"""


class TestAnswersFromMemory:
    def test_a_table_of_the_test_images_finds_none_of_the_fresh_ones(self, tmp_path):
        benchmark, table = small_benchmark(), io.BytesIO()
        np.savez(table, images=benchmark.inputs, labels=benchmark.labels)
        ruling = ruled(tmp_path, MEMORY, weights=table.getvalue())
        assert not ruling.ranked
        assert "floor" in ruling.refused
        assert ruling.quality.submission < 0.3

    def test_the_table_would_answer_everything_if_inputs_were_not_fresh(self, tmp_path):
        benchmark, table = small_benchmark(), tmp_path / "model.safetensors"
        with table.open("wb") as file:
            np.savez(file, images=benchmark.inputs, labels=benchmark.labels)
        scope = {}
        exec(MEMORY, scope)
        answers = scope["load"](str(tmp_path))(benchmark.inputs)
        assert (answers.argmax(axis=1) == benchmark.labels).all()

    def test_answers_kept_from_the_accuracy_run_do_not_serve_the_timed_one(self, tmp_path):
        code = HONEST.replace("return load_model", "model = load_model").rstrip() + (
            "\n    kept = {}\n"
            "    def answer(x):\n"
            "        if len(x) > 1 or not kept:\n"
            "            kept['last'] = model(x)\n"
            "            return kept['last']\n"
            "        return kept['last'].data[:1]\n"
            "    return answer\n"
        )
        ruling = ruled(tmp_path, code)
        assert "while it is timed (single-stream)" in ruling.refused


SKIPPING = {
    "half of the rows": "return model(x).data[::2]",
    "a quarter, copied to the others": "return model(x[::4]).data.repeat(4, axis=0)[: len(x)]",
    "everything": "import numpy as np; return np.zeros((len(x), 10), np.float32)",
    "those timed one by one": (
        "import numpy as np; return model(x) if len(x) > 1 else np.eye(10, dtype=np.float32)[:1]"
    ),
    "what is not a number": "import numpy as np; return np.full((len(x), 10), np.nan, np.float32)",
    "scores, giving classes": "return model(x).data.argmax(axis=1)",
    "scores, giving whole numbers": "return model(x).data.astype(int)",
}


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("half of the rows", r"outputs of shape \(128, 10\) where \(256, 10\) are due"),
        ("a quarter, copied to the others", "floor"),
        ("everything", "floor"),
        ("those timed one by one", "while it is timed"),
        ("what is not a number", "2560 outputs of 2560 that are NaN or infinite"),
        ("scores, giving classes", r"outputs of shape \(256,\)"),
        ("scores, giving whole numbers", "int64 outputs where floats are due"),
    ],
)
def test_skipping_outputs_gives_no_rank(tmp_path, what, reason):
    code = HONEST.replace("return load_model", "model = load_model").rstrip()
    ruling = ruled(tmp_path, f"{code}\n    def answer(x):\n        {SKIPPING[what]}\n    return answer\n")
    assert not ruling.ranked
    assert not ruling.scores
    with pytest.raises(ValueError, match=reason):
        raise ValueError(ruling.refused)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("from sklearn.datasets import load_digits", "tried to import sklearn"),
        ("import tinytorch.datasets; tinytorch.datasets.load_digits()", "tried to import sklearn"),
        ("import tinytorch.datasets; tinytorch.datasets.load_text()", "tried to import pydoc_data"),
        (f"open({str(np.__path__[0] + '/../sklearn/__init__.py')!r})", "tried to read '.*sklearn"),
        ("open('/etc/passwd')", "tried to read '/etc/passwd'"),
        ("import os; open(f'/proc/{os.getppid()}/mem', 'rb')", "tried to read '/proc/.*/mem'"),
        ("import subprocess; subprocess.run(['true'])", "tried to use (subprocess.Popen|os.posix_spawn)"),
        ("import os; os.system('true')", "tried to use os.system"),
        ("import os; os.fork()", "tried to use os.fork"),
        ("import socket; socket.create_connection(('127.0.0.1', 9))", "tried to use socket"),
    ],
)
def test_reading_labels_or_leaving_the_process_ends_it(tmp_path, line, reason):
    ruling = ruled(tmp_path, f"{line}\n{HONEST}")
    assert not ruling.ranked
    with pytest.raises(ValueError, match=reason):
        raise ValueError(ruling.refused)


def test_catching_the_refusal_does_not_help(tmp_path):
    line = "try:\n    import sklearn.datasets\nexcept BaseException:\n    pass\n"
    assert "tried to import sklearn" in ruled(tmp_path, line + HONEST).refused


def test_what_python_does_not_see_the_kernel_refuses(tmp_path):
    """The C library's own open() is no event of Python's: only Landlock stands in its way."""
    secret = tmp_path / "labels"
    secret.write_text("7")
    code = (
        "import ctypes\n"
        "opened = ctypes.pythonapi['open'](PATH, 0)\n"
        "if opened >= 0:\n"
        "    raise ValueError('it could be read')\n"
    ).replace("PATH", repr(str(secret).encode()))
    ruling = ruled(tmp_path, code + HONEST, settings=replace(QUICK, sittings=1))
    assert ruling.refused == "1 sittings have no interval at 95 %: measure at least 6"
    assert "Landlock" in ruling.confinement


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("import sqlite3; sqlite3.connect(BOARD)", "tried to import sqlite3"),
        ("open(BOARD, 'r+b')", "tried to write to '.*board.sqlite'"),
        ("open(BOARD, 'w')", "tried to write to"),
        ("import os; os.open(BOARD, os.O_RDWR)", "tried to write to"),
        ("import os; os.remove(BOARD)", "tried to use os.remove on"),
        ("import os; os.truncate(BOARD, 0)", "tried to use os.truncate on"),
        ("import os; os.rename(BOARD, BOARD + '2')", "tried to use os.rename on"),
        ("import pathlib; pathlib.Path(BOARD).unlink()", "tried to use os.remove on"),
        ("import shutil; shutil.copyfile(__file__, BOARD)", "tried to use shutil.copyfile"),
        ("import ctypes; ctypes.CDLL(None)", "tried to use ctypes.dlopen"),
    ],
)
def test_a_submission_that_writes_to_the_leaderboard_is_caught_and_changes_nothing(tmp_path, line, reason):
    board = tmp_path / "board.sqlite"
    Leaderboard(board)
    before = board.read_bytes()
    ruling = ruled(tmp_path, f"BOARD = {str(board)!r}\n{line}\n{HONEST}")
    assert not ruling.ranked
    with pytest.raises(ValueError, match=reason):
        raise ValueError(ruling.refused)
    assert board.read_bytes() == before
    with sqlite3.connect(board) as connection:
        assert connection.execute("SELECT count(*) FROM entries").fetchone() == (0,)
    connection.close()


class TestClocks:
    def test_a_player_that_reports_a_fraction_of_its_time_is_found_out(self, tmp_path):
        code = (
            "import time\n"
            "from tinytorch.benchmarking.tinymlperf import player\n"
            "from tinytorch.benchmarking.tinymlperf.frames import Frame\n"
            "timed = player.Player.timed\n"
            "def short(self, request, inputs):\n"
            "    time.sleep(0.001)\n"  # slower by far than it says
            "    frame = timed(self, request, inputs)\n"
            "    return Frame({'duration_ns': 1 + frame.text['duration_ns'] // 10}, frame.array)\n"
            "player.Player.timed = short\n"
        )
        assert "its clock is wrong" in ruled(tmp_path, code + HONEST).refused

    def test_a_player_that_reports_one_nanosecond_gains_next_to_nothing(self, tmp_path):
        """All that it hides lies within what the way of an answer may vary by."""
        code = (
            "from tinytorch.benchmarking.tinymlperf import player\n"
            "from tinytorch.benchmarking.tinymlperf.frames import Frame\n"
            "def timed(self, request, inputs):\n"
            "    return Frame({'duration_ns': 1}, self.model(inputs).data)\n"
            "player.Player.timed = timed\n"
        )
        ruling = ruled(tmp_path, code + HONEST, settings=replace(QUICK, min_duration_s=0.3))
        if ruling.refused is None:
            assert all(score.ratio.estimate < 12 for score in ruling.scores)
        else:
            assert "its clock is wrong" in ruling.refused

    @pytest.mark.parametrize("duration", ["-1", "10**15", "'soon'", "None", "0.5"])
    def test_a_duration_that_cannot_be_is_refused(self, tmp_path, duration):
        code = (
            "from tinytorch.benchmarking.tinymlperf import player\n"
            "from tinytorch.benchmarking.tinymlperf.frames import Frame\n"
            "def timed(self, request, inputs):\n"
            f"    return Frame({{'duration_ns': {duration}}}, self.model(inputs).data)\n"
            "player.Player.timed = timed\n"
        )
        assert "with a duration that cannot be" in ruled(tmp_path, code + HONEST).refused

    def test_a_changed_clock_of_python_changes_nothing(self, tmp_path):
        code = "import time\ntime.perf_counter_ns = lambda: 0\n"
        ruling = ruled(tmp_path, code + HONEST)
        assert ruling.ranked, ruling.refused
        assert all(score.ratio.estimate < 5 for score in ruling.scores)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("raise RuntimeError('no idea')", "failed: RuntimeError: no idea"),
        ("x = 1", r"failed: ValueError: the code must define load\(folder\)"),
        ("def load(folder): return 7", "must return a model that can be called, got int"),
        ("def load(folder): return lambda x: None", "must return an array of numbers, got NoneType"),
        ("def load(folder): return lambda x: 'text'", "must return an array of numbers, got str"),
        ("def load(folder): return lambda x: 1 / 0", "failed: ZeroDivisionError"),
        ("import os; os._exit(0)", r"ended without an answer \(exit code 0\)"),
        ("import os; os.abort()", "ended without an answer"),
        ("def load(folder): raise SystemExit", "ended without an answer|failed"),
        ("import numpy; numpy.empty(1 << 32, numpy.uint8)", "failed: .*Memory"),
        ("def load(", "failed: SyntaxError"),
    ],
)
def test_what_is_not_a_model_is_refused_with_its_reason(tmp_path, code, reason):
    ruling = ruled(tmp_path, code)
    assert not ruling.ranked
    with pytest.raises(ValueError, match=reason):
        raise ValueError(ruling.refused)


@pytest.mark.parametrize(
    "code",
    ["while True: pass", "def load(folder): return lambda x: __import__('time').sleep(60)"],
    ids=["loading", "answering"],
)
def test_a_submission_that_hangs_is_ended(tmp_path, code):
    ruling = ruled(tmp_path, code, settings=replace(QUICK, call_limit_s=1.0))
    assert "took longer than 1 s for an answer" in ruling.refused


def test_a_file_that_is_no_model_is_refused(tmp_path):
    submission = packed(tmp_path / "s", weights=b"\0" * 100)
    assert "is not a model" in judge(submission, small_benchmark(), QUICK, seed=0).refused


def test_a_faster_model_below_the_floor_gets_no_rank(tmp_path):
    rng = np.random.default_rng(0)
    small = tt.Sequential(tt.Linear(64, 10, rng=rng))
    ruling = judge(packed(tmp_path / "s", model=small, division="open"), small_benchmark(), QUICK, seed=0)
    assert not ruling.ranked
    assert not ruling.scores
    assert not ruling.quality.met
    assert "% where the floor is 9" in ruling.refused
