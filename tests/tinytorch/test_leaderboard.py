"""The leaderboard: nothing is lost or doubled, ranks say only what is known, and damage is refused."""

import contextlib
import functools
import json
import os
import sqlite3
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tinymlperf_stand_ins import log_of, packed

from tinytorch.benchmarking.tinymlperf import leaderboard
from tinytorch.benchmarking.tinymlperf.entries import Entry, entries_of
from tinytorch.benchmarking.tinymlperf.events import EVENTS
from tinytorch.benchmarking.tinymlperf.leaderboard import Leaderboard, LeaderboardError
from tinytorch.benchmarking.tinymlperf.referee import Ruling
from tinytorch.benchmarking.tinymlperf.scoring import quality_of, scores_of
from tinytorch.benchmarking.tinymlperf.standings import ranked, tables, unverified
from tinytorch.benchmarking.tinymlperf.views import rendered


def entry(name="it", ratio=2.0, low=1.9, high=2.1, **changes):
    """An entry; what is not given does not matter."""
    given = Entry(
        entry_id=name,
        submission_id=name,
        name=name,
        event="mlp_sprint",
        division="closed",
        machine="A, Linux",
        scenario="single-stream",
        refused=None,
        ratio=ratio,
        low=low,
        high=high,
        quality=0.97,
        latency_ms=0.1,
        latency_bound_ms=0.11,
        throughput_per_s=None,
        badges=(),
        own_code=False,
        weights_sha256="0" * 64,
        revision=None,
        submitted_at="2026-01-01T00:00:00+00:00",
        log=b"",
    )
    return replace(given, **changes)


def ruling_of(tmp_path, name="mine", refused=None):
    """A ruling whose scores follow from its log."""
    event = EVENTS["mlp_sprint"]
    log = log_of([1.9, 2.0, 2.1, 2.0, 1.95, 2.05], accuracy=([1.0] + [0.0] * 99, [1.0] + [0.0] * 99))
    log["data"] = event.data_hash
    scores = () if refused else scores_of(event, log)
    return Ruling(
        packed(tmp_path / name, name=name),
        "A, Linux",
        refused,
        quality_of(event, log),
        scores,
        ("int8 (96% of the weights)",),
        log=None if refused else log,
    )


@pytest.fixture
def board(tmp_path):
    """An empty leaderboard."""
    return Leaderboard(tmp_path / "board.sqlite")


class TestEntries:
    def test_what_is_added_is_read_again(self, board):
        first = entry("first", badges=("int8 (96%)", "x"), own_code=True, revision="a" * 40, log=b"\0\1")
        second = entry("second", latency_ms=None, latency_bound_ms=None, throughput_per_s=5.5)
        board.add([first])
        board.add([second])
        assert Leaderboard(board.path).entries() == [first, second]

    def test_a_ruling_is_an_entry_for_each_scenario(self, board, tmp_path):
        ruling = ruling_of(tmp_path)
        board.add(entries_of(ruling))
        found = board.entries()
        assert [e.scenario for e in found] == ["single-stream", "offline"]
        assert all(e.ratio == pytest.approx(2.0, rel=0.01) for e in found)
        assert all(e.badges == ("int8 (96% of the weights)",) for e in found)
        assert found[0].read_log() == {**ruling.log, "badges": ["int8 (96% of the weights)"]}
        assert found[0].weights_sha256 == ruling.submission.document["weights"]["sha256"]

    def test_a_refusal_is_kept_with_its_reason_as_often_as_it_happens(self, board, tmp_path):
        ruling = ruling_of(tmp_path, refused="it skipped outputs")
        for _ in range(2):
            board.add(entries_of(ruling))
        assert [e.refused for e in board.entries()] == ["it skipped outputs"] * 2
        assert [e.ratio for e in board.entries()] == [None] * 2
        assert tables(board.entries()) == []

    def test_the_same_submission_is_not_there_twice(self, board, tmp_path):
        entries = entries_of(ruling_of(tmp_path))
        board.add(entries)
        with pytest.raises(LeaderboardError, match=r"mine is on the leaderboard '.*' already"):
            board.add(entries)
        assert board.entries() == list(entries)

    def test_a_ranked_submission_is_known_on_its_kind_of_machine_and_a_refused_one_may_try_again(
        self, board, tmp_path
    ):
        one, refused = ruling_of(tmp_path), ruling_of(tmp_path, "other", refused="why")
        board.add(entries_of(one))
        board.add(entries_of(refused))
        board.check_new(refused.submission.submission_id, "other", "A, Linux")
        board.check_new(one.submission.submission_id, "mine", "B")
        with pytest.raises(LeaderboardError, match="mine is on the leaderboard"):
            board.check_new(one.submission.submission_id, "mine", "A, Linux")

    def test_an_entry_is_known_by_its_id(self, board):
        board.add([entry("there")])
        assert board.has("there")
        assert not board.has("elsewhere")

    def test_all_of_a_submission_is_added_or_nothing(self, board):
        board.add([entry("there")])
        with pytest.raises(LeaderboardError, match="nothing was added"):
            board.add([entry("new"), entry("there")])
        assert [e.name for e in board.entries()] == ["there"]

    @pytest.mark.parametrize(
        "changes",
        [
            {"ratio": None},
            {"refused": "why", "ratio": 2.0},
            {"low": 2.05},
            {"high": 1.95},
            {"low": 0.0},
            {"low": None},
        ],
    )
    def test_what_contradicts_itself_is_not_added(self, board, changes):
        with pytest.raises(LeaderboardError, match="cannot be added"):
            board.add([entry(**changes)])
        assert board.entries() == []

    @pytest.mark.parametrize(
        "changes", [{"name": "\ud800"}, {"ratio": 2**70, "high": 2.0**71}, {"quality": "high"}, {"log": [1]}]
    )
    def test_what_the_file_cannot_keep_is_not_added(self, board, changes):
        with pytest.raises(LeaderboardError, match=r"cannot be added to '.*board.sqlite'"):
            board.add([entry("before"), entry(**changes)])
        assert board.entries() == []

    def test_entries_can_be_asked_for_by_event_division_and_machine(self, board):
        board.add(
            [
                entry("a"),
                entry("b", event="cnn_marathon"),
                entry("c", division="open"),
                entry("d", machine="B"),
            ]
        )
        assert [e.name for e in board.entries(event="cnn_marathon")] == ["b"]
        assert [e.name for e in board.entries(division="open")] == ["c"]
        assert [e.name for e in board.entries(machine="B")] == ["d"]
        assert [e.name for e in board.entries("mlp_sprint", "closed")] == ["a", "d"]
        assert board.entries(event="'; DROP TABLE entries; --") == []
        assert len(board.entries()) == 4


WRITER = """
import sys
from dataclasses import replace
sys.path.insert(0, {tests!r})
from test_leaderboard import entry
from tinytorch.benchmarking.tinymlperf.leaderboard import Leaderboard
path, process = sys.argv[1:]
print("ready", flush=True)
sys.stdin.read()
for number in range(25):
    Leaderboard(path).add([entry(f"{{process}}-{{number}}", log=b"x" * 5000)])
"""


def test_a_table_that_appears_while_the_file_is_checked_is_no_strange_database(tmp_path, monkeypatch):
    path, connect, others = tmp_path / "new.sqlite", sqlite3.connect, []

    class Interrupted(sqlite3.Connection):
        def execute(self, statement, *arguments):
            if statement == "PRAGMA application_id" and not others:
                others.append(path)
                with contextlib.suppress(LeaderboardError):  # where it would have to wait for this check
                    Leaderboard(path)
            return super().execute(statement, *arguments)

    monkeypatch.setattr(leaderboard, "_PATIENCE_S", 0)
    monkeypatch.setattr(sqlite3, "connect", functools.partial(connect, factory=Interrupted))
    board = Leaderboard(path)
    board.add([entry("a")])
    assert others
    assert [e.name for e in board.entries()] == ["a"]


def test_eight_processes_that_submit_200_entries_at_once_lose_and_double_none(tmp_path):
    path = tmp_path / "new.sqlite"  # all of them find no file
    tests = str(__import__("pathlib").Path(__file__).parent)
    command = [sys.executable, "-c", WRITER.format(tests=tests), str(path)]
    writers = [
        subprocess.Popen(
            [*command, str(i)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for i in range(8)
    ]
    with ThreadPoolExecutor(8) as pool:
        ready = [writer.stdout.readline() for writer in writers]
        errors = [errors for _, errors in pool.map(lambda writer: writer.communicate(b""), writers)]
    assert ready == [b"ready\n"] * 8
    assert errors == [b""] * 8
    names = [e.name for e in Leaderboard(path).entries()]
    assert len(names) == 200
    assert set(names) == {f"{process}-{number}" for process in range(8) for number in range(25)}
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


def test_a_reader_is_not_kept_waiting_by_a_writer(board):
    board.add([entry("a")])
    with sqlite3.connect(board.path, isolation_level=None) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        writer.execute("DELETE FROM entries")
        assert [e.name for e in board.entries()] == ["a"]
        writer.execute("ROLLBACK")
    writer.close()


class TestDamage:
    def refused(self, path, reason):
        before = path.read_bytes()
        with pytest.raises(LeaderboardError, match=reason) as caught:
            Leaderboard(path)
        assert str(caught.value).count("\n") == 0
        assert path.read_bytes() == before

    def test_another_version_is_left_as_it_is(self, board):
        board.add([entry()])
        connection = sqlite3.connect(board.path)
        connection.execute("PRAGMA user_version = 1")
        connection.close()
        self.refused(board.path, "is a leaderboard of version 1, and this program knows version 2: use the")

    @pytest.mark.parametrize(
        "change",
        [
            "SET ratio = 2.05",
            "SET event = 'cnn_marathon'",
            "SET log = x'00'",
            "SET quality = NULL",
            "SET number = 7",
            "SET badges = '{'",
            "SET digest = ''",
        ],
    )
    def test_an_entry_that_is_not_as_it_was_written_is_not_shown(self, board, change):
        board.add([entry("a"), entry("b", ratio=2, event="transformer_decathlon")])
        assert len(board.entries()) == 2
        with contextlib.closing(sqlite3.connect(board.path, isolation_level=None)) as connection:
            connection.execute(f"UPDATE entries {change} WHERE name = 'a'")
        for event in (None, "mlp_sprint", "cnn_marathon"):
            with pytest.raises(
                LeaderboardError, match=r"is damaged \(entry . is not as it was written\): restore"
            ):
                board.entries(event)

    def test_no_flipped_bit_changes_what_is_shown(self, board):
        board.add([entry(str(number), log=bytes(range(100))) for number in range(3)])
        expected, content = board.entries(), board.path.read_bytes()
        used = np.flatnonzero(np.frombuffer(content, np.uint8))
        refused = 0
        for place in np.random.default_rng(0).choice(used, 400, replace=False):
            changed = bytearray(content)
            changed[place] ^= 1 << place % 8
            board.path.write_bytes(changed)
            try:
                assert Leaderboard(board.path).entries() == expected
            except LeaderboardError:
                refused += 1
        assert refused > 200

    def test_another_database_is_left_as_it_is(self, tmp_path):
        path = tmp_path / "other.sqlite"
        connection = sqlite3.connect(path)
        connection.execute("CREATE TABLE mine (x)")
        connection.commit()
        connection.close()
        self.refused(path, "is no leaderboard, but another SQLite database")

    @pytest.mark.parametrize("content", [b"hello", b"\0" * 4096, b"{}" * 1000])
    def test_another_file_is_left_as_it_is(self, tmp_path, content):
        path = tmp_path / "file"
        path.write_bytes(content)
        self.refused(path, "is no leaderboard: it is not an SQLite file")

    def test_a_file_that_was_cut_off_is_refused(self, board):
        for number in range(30):
            board.add([entry(str(number), log=bytes(3000))])
        content = board.path.read_bytes()
        board.path.write_bytes(content[: len(content) // 2])
        self.refused(board.path, "is damaged")

    def test_overwritten_pages_are_refused(self, board):
        for number in range(30):
            board.add([entry(str(number), log=bytes(3000))])
        content = bytearray(board.path.read_bytes())
        content[4096:12288] = b"\xa5" * 8192
        board.path.write_bytes(content)
        self.refused(board.path, "is damaged")

    @pytest.mark.timeout(20)
    def test_a_pipe_or_a_folder_is_no_leaderboard(self, tmp_path):
        os.mkfifo(tmp_path / "pipe")
        for path in (tmp_path / "pipe", tmp_path, Path("/dev/zero")):
            with pytest.raises(
                LeaderboardError, match="is no leaderboard: it is a folder, a pipe or a device"
            ):
                Leaderboard(path)

    def test_an_empty_file_becomes_a_leaderboard(self, tmp_path):
        (tmp_path / "b").touch()
        assert Leaderboard(tmp_path / "b").entries() == []

    def test_a_folder_that_does_not_exist_is_named(self, tmp_path):
        with pytest.raises(LeaderboardError, match="cannot be opened for writing: choose another file"):
            Leaderboard(tmp_path / "no" / "board")


class TestRanks:
    def ranks(self, *intervals):
        entries = [entry(str(i), (low + high) / 2, low, high) for i, (low, high) in enumerate(intervals)]
        return {s.entry.name: (s.rank, s.tied) for s in ranked(entries)}

    def test_what_is_surely_faster_comes_first(self):
        assert self.ranks((1.0, 1.1), (2.0, 2.1), (3.0, 3.1)) == {
            "0": (3, False),
            "1": (2, False),
            "2": (1, False),
        }

    def test_overlapping_intervals_tie_and_the_next_rank_counts_them(self):
        assert self.ranks((2.0, 2.2), (2.1, 2.3), (1.0, 1.1)) == {
            "1": (1, True),
            "0": (1, True),
            "2": (3, False),
        }

    def test_nobody_is_put_behind_one_that_may_be_slower(self):
        # The third is surely behind the first, not behind the second.
        assert self.ranks((2.0, 2.2), (1.9, 2.1), (1.7, 1.95)) == {
            "0": (1, True),
            "1": (1, True),
            "2": (2, False),
        }

    def test_intervals_that_touch_overlap(self):
        assert set(self.ranks((1.0, 2.0), (2.0, 3.0)).values()) == {(1, True)}

    def test_quality_and_badges_do_not_count(self):
        one = entry("one", 2, 1.9, 2.1, quality=1.0, badges=("a", "b", "c"))
        two = entry("two", 3, 2.9, 3.1, quality=0.9)
        assert [s.entry.name for s in ranked([one, two])] == ["two", "one"]

    def test_each_event_division_machine_and_scenario_has_its_table(self):
        changes = {"event": "cnn_marathon", "division": "open", "machine": "B", "scenario": "offline"}
        entries = [entry("base"), *(entry(f"{k}", **{k: v}) for k, v in changes.items())]
        found = tables(entries)
        assert len(found) == 5
        assert all(len(table.standings) == 1 for table in found)
        assert found[-1].event == "cnn_marathon"


class TestVerifying:
    def test_figures_that_follow_from_the_log_are_verified(self, tmp_path):
        assert unverified(entries_of(ruling_of(tmp_path))) == []

    def test_a_ratio_that_does_not_is_found(self, tmp_path):
        one, two = entries_of(ruling_of(tmp_path))
        assert unverified([replace(one, ratio=2.05), two]) == [
            "mine (single-stream): its ratio is 2.05 on the leaderboard and 2 in its log"
        ]

    @pytest.mark.parametrize(
        ("column", "value", "said"),
        [
            ("low", 1.8, "ratio's lower end is 1.8 on the leaderboard and 1.9 in its log"),
            ("high", 2.2, "ratio's upper end is 2.2 on the leaderboard and 2.1 in its log"),
            ("quality", 0.9901, "quality is 0.9901 on the leaderboard and 0.99 in its log"),
            ("quality", None, "quality is none on the leaderboard and 0.99 in its log"),
            ("latency_ms", 0.01, "latency in ms is 0.01 on the leaderboard and 0.1 in its log"),
            ("latency_bound_ms", None, "latency's bound in ms is none on the leaderboard and 0.1 in its log"),
            ("throughput_per_s", 9.0, "throughput is 9 on the leaderboard and none in its log"),
            ("badges", ("zeros (99%)",), "badges are not those in its log"),
        ],
    )
    def test_every_figure_is_derived_again(self, tmp_path, column, value, said):
        one, two = entries_of(ruling_of(tmp_path))
        assert unverified([replace(one, **{column: value}), two]) == [f"mine (single-stream): its {said}"]

    def test_all_that_differs_is_told(self, tmp_path):
        _, two = entries_of(ruling_of(tmp_path))
        (said,) = unverified([replace(two, throughput_per_s=None, badges=())])
        assert said.count(";") == 1
        assert "throughput is none on the leaderboard and 2.56e+06 in its log" in said

    def with_log(self, entry, change):
        log = json.loads(zlib.decompress(entry.log))
        change(log)
        return replace(entry, log=zlib.compress(json.dumps(log).encode()))

    def test_a_log_below_the_floor_or_of_other_data_is_found(self, tmp_path):
        one, _ = entries_of(ruling_of(tmp_path))
        worse = self.with_log(one, lambda log: log["accuracy"].update(submission=[1.0] * 3 + [0.0] * 97))
        assert "the quality in its log is 0.97 where the floor is 0.98" in unverified([worse])[0]
        bare = self.with_log(one, lambda log: log.pop("badges"))
        assert unverified([bare]) == ["mine (single-stream): its badges are not those in its log"]
        other = self.with_log(one, lambda log: log.update(data="0" * 64))
        assert "its log cannot be judged: its log is of other data" in unverified([other])[0]

    def test_an_entry_without_a_log_or_with_another_is_found(self, tmp_path):
        one, _ = entries_of(ruling_of(tmp_path))
        for log in (b"", b"junk", zlib.compress(b"[]"), zlib.compress(json.dumps({"sittings": []}).encode())):
            assert "its log cannot be judged" in unverified([replace(one, log=log)])[0]

    def test_refused_entries_have_nothing_to_verify(self, tmp_path):
        assert unverified(entries_of(ruling_of(tmp_path, refused="why"))) == []


class TestViews:
    ENTRIES = (
        entry("<script>|evil\x1b[31m`*", 3.0, 2.9, 3.1, badges=("int8 (96%)",), own_code=True),
        entry("second", 2.0, 1.9, 2.1),
        entry("equal", 2.05, 1.95, 2.15, latency_ms=None, throughput_per_s=12345.6),
        replace(
            entry("slow", quality=None, low=None, high=None),
            ratio=None,
            scenario="",
            refused="it has <b>none</b>",
        ),
    )

    def test_text_shows_ranks_ties_intervals_and_reasons(self):
        lines = rendered(self.ENTRIES).splitlines()
        rows = [line.split() for line in lines if line[:1].isdigit()]
        assert [row[0] for row in rows] == ["1", "2", "2"]
        assert rows[1][1:3] == ["=", "equal"]
        text = "\n".join(lines)
        for part in ("[2.90, 3.10]", "0.1 ms for nine in ten (at most 0.11)", "12,346 a second", "97.0%"):
            assert part in text
        assert "- slow (MLP Sprint, closed): it has <b>none</b>" in text
        assert "\x1b" not in text

    def test_html_escapes_what_submissions_write(self):
        page = rendered(self.ENTRIES, "html")
        assert "<script>" not in page
        assert "&lt;script&gt;" in page
        assert "it has &lt;b&gt;none&lt;/b&gt;" in page
        assert page.count("<tr>") == 4
        assert page.rstrip().endswith("</html>")

    def test_markdown_rows_keep_their_columns(self):
        import re

        rows = [line for line in rendered(self.ENTRIES, "markdown").splitlines() if line.startswith("| ")]
        assert len(rows) == 4
        assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {8}

    @pytest.mark.parametrize("form", ["text", "markdown", "html"])
    def test_it_says_what_no_rank_can_rule_out(self, form):
        assert "in the open division a model may have been trained on them" in rendered(self.ENTRIES, form)

    @pytest.mark.parametrize("form", ["text", "markdown", "html"])
    def test_an_empty_leaderboard_says_so(self, form):
        assert "No submission has a rank yet." in rendered([], form)

    def test_there_are_three_forms(self):
        with pytest.raises(ValueError, match="`form` must be one of text, markdown, html, got 'pdf'"):
            rendered([], "pdf")
