"""Players as processes: nothing that one does, or leaves undone, holds up the referee or slows others."""

import contextlib
import os
import time

import numpy as np
import pytest
from tinymlperf_stand_ins import HONEST, packed

from tinytorch.benchmarking.tinymlperf.frames import Closed, Frame, TooLate, receive, send
from tinytorch.benchmarking.tinymlperf.processes import Entrant, PlayerProcess, Refused

LARGE = np.zeros((1 << 19, 8), np.float32)  # 16 MB: more than any pipe holds


@pytest.fixture
def pipe():
    """A pipe's ends, of which the writing one does not block."""
    ends = os.pipe()
    os.set_blocking(ends[1], False)
    yield ends
    for end in ends:
        os.close(end)


def player_of(tmp_path, code=None, *, confine=False):
    """A player that is not yet started, with a limit of a second."""
    submission = packed(tmp_path / "s", code=code)
    entrant = Entrant("it", submission.folder, submission.weights, submission.code)
    setup = Frame({"memory_mb": 4096, "confine": confine, "reference": ""}, np.zeros((1, 64), np.float32))
    return PlayerProcess(entrant, setup, 20.0)


class TestSending:
    def test_a_side_that_does_not_read_is_too_late(self, pipe):
        start = time.monotonic()
        with pytest.raises(TooLate):
            send(pipe[1], Frame({}, LARGE), 0.1)
        assert time.monotonic() - start < 10  # in place of never

    def test_no_time_left_is_too_late_once_the_pipe_is_full(self, pipe):
        with pytest.raises(TooLate):
            send(pipe[1], Frame({}, LARGE), 0.0)

    def test_what_fits_arrives_whole(self, pipe):
        send(pipe[1], Frame({"task": "x"}, np.arange(6.0).reshape(2, 3)), 1.0)
        frame = receive(pipe[0], 1.0)
        assert frame.text["task"] == "x"
        assert (frame.array == np.arange(6.0).reshape(2, 3)).all()

    def test_a_side_that_is_gone_is_closed(self):
        read, write = os.pipe()
        os.close(read)
        with pytest.raises(Closed):
            send(write, Frame({}), 1.0)
        os.close(write)


class TestPlayers:
    @pytest.mark.timeout(60)
    def test_one_that_stops_reading_after_loading_is_ended(self, tmp_path):
        code = (
            "import time\n"
            "from tinytorch.benchmarking.tinymlperf import player\n"
            "player.receive = lambda requests: time.sleep(1000)\n"
        )
        with player_of(tmp_path, code + HONEST) as player:
            player.load()
            player.limit_s = 0.5
            with pytest.raises(Refused, match=r"it took longer than 0\.5 s for an answer"):
                player.ask("predict", LARGE)

    def test_a_large_query_arrives_and_is_answered(self, tmp_path):
        code = "def load(folder): return lambda x: x[:, :2] + 1\n"
        with player_of(tmp_path, code) as player:
            player.load()
            outputs = player.ask("predict", LARGE).outputs
            assert outputs.shape == (len(LARGE), 2)
            assert (outputs == 1).all()


ONE = np.zeros((1, 64), np.float32)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no such calls")
class TestShareOfTheProcessor:
    @pytest.mark.parametrize(
        "change",
        [
            lambda pid: os.setpriority(os.PRIO_PROCESS, pid, os.getpriority(os.PRIO_PROCESS, pid) + 1),
            lambda pid: os.sched_setscheduler(pid, os.SCHED_BATCH, os.sched_param(0)),
            lambda pid: os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0)),
            lambda pid: os.sched_setaffinity(pid, {min(os.sched_getaffinity(pid))}),
        ],
        ids=["priority", "batch", "idle", "processors"],
    )
    def test_a_player_whose_share_was_changed_is_not_asked(self, tmp_path, change):
        if len(os.sched_getaffinity(0)) < 2:
            pytest.skip("there is one processor")
        with player_of(tmp_path) as player:
            player.load()
            player.ask("predict", ONE)
            change(player._process.pid)
            with pytest.raises(Refused, match="it or the referee has another priority or other processors"):
                player.ask("predict", ONE)

    def test_a_referee_whose_share_was_changed_does_not_ask(self, tmp_path):
        before = os.sched_getaffinity(0)
        if len(before) < 2:
            pytest.skip("there is one processor")
        with player_of(tmp_path) as player, contextlib.ExitStack() as stack:
            player.load()
            stack.callback(os.sched_setaffinity, 0, before)
            os.sched_setaffinity(0, {min(before)})
            with pytest.raises(
                Refused, match="has another priority or other processors than it started with"
            ):
                player.ask("predict", ONE)

    def test_a_submission_that_changes_its_own_is_refused(self, tmp_path):
        with player_of(tmp_path, "import os\nos.nice(1)\n" + HONEST) as player:
            player.load()
            with pytest.raises(Refused, match="has another priority"):
                player.ask("predict", ONE)
