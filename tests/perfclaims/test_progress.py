"""Progress: what each view shows of a run that is played to it."""

import errno
import io
import re
from types import SimpleNamespace

import pytest
from evidence_factory import claim, number, result, timing

from perfclaims.criteria import OutputsMatch, Speedup, Value
from perfclaims.report import progress
from perfclaims.report.progress import LiveView, PlainView, QuietView, make_view

CLAIM = claim(Speedup(at_least=1.5), OutputsMatch(), id="a.b")
PASSED = result(CLAIM, timing(2.0))


class Terminal(io.StringIO):
    """A stream that says it is a terminal, without a size."""

    def isatty(self):
        return True


def played(view, stream, printed=""):
    """Play a claim to a view, and return what it showed."""
    view.loading(2)
    view.started(CLAIM, 4.0, 60.0)
    view.tick(None)
    view.tick("compiling: about 3 s")
    view.tick(timing(2.0, label="n=1"))
    view.tick(number("x", 2.0))
    view.warn("the disk is full")
    view.finished(PASSED, printed, 60.0)
    view.close()
    return stream.getvalue()


def test_a_quiet_view_shows_warnings_only():
    stream = io.StringIO()
    assert played(QuietView(stream), stream, "hello") == "warning: the disk is full\n"


def test_a_plain_view_has_a_line_per_claim_and_what_was_announced_and_printed():
    stream = io.StringIO()
    assert played(PlainView(stream), stream, "one\ntwo\n\n").split("\n") == [
        "loading 2 suites",
        "compiling: about 3 s",
        "warning: the disk is full",
        "  | one",
        "  | two",
        "a.b: PASS in 250 ms, about 60 s left",
        "",
    ]


def test_of_much_that_was_printed_the_end_is_shown():
    stream = io.StringIO()
    shown = played(PlainView(stream), stream, "".join(f"line {i}\n" for i in range(100))).split("\n")
    assert shown[3:5] == ["  | [80 lines left out]", "  | line 80"]
    assert shown[-3] == "  | line 99"


def test_a_statement_of_others_is_marked_and_what_did_not_run_took_no_time():
    stream = io.StringIO()
    view = PlainView(stream)
    audited = claim(Value("x", at_least=1), id="b.c", status="audited")
    view.finished(result(audited, number("x", 0.5)), "", 0.0)
    view.finished(result(audited, not_run="slow"), "", 0.2)
    assert stream.getvalue() == "b.c (audited): FAIL in 250 ms\nb.c (audited): NOT_RUN, about 1 s left\n"


def frames(shown):
    """What a terminal showed, one entry for each time the live line was drawn or a line was written."""
    return [part.strip() for part in re.split(r"\x1b\[[0-9;?]*[A-Za-z]|\r|\n", shown) if part.strip()]


def test_a_live_view_shows_what_is_measured_now_and_the_time_left():
    stream = Terminal()
    shown = frames(played(LiveView(stream), stream, "hello\n"))
    assert shown[0] == "loading 2 suites"
    for text in (
        "0 s, about 64 s left  a.b",
        "0 s, about 64 s left  a.b  compiling: about 3 s",
        "warning: the disk is full",
        "| hello",
        "a.b: PASS in 250 ms, about 60 s left",
    ):
        assert text in shown
    assert any(text.startswith("0 s, about 64 s left  a.b  n=1: 2x [") for text in shown)


def test_a_live_view_clears_up_behind_itself():
    stream = Terminal()
    shown = played(LiveView(stream), stream)
    hidden, visible = shown.rfind("\x1b[?25l"), shown.rfind("\x1b[?25h")
    assert 0 <= hidden < visible, "the cursor is shown again"
    assert shown.endswith("a.b: PASS in 250 ms, about 60 s left\n")


def test_an_interval_that_is_not_known_yet_is_not_shown():
    stream = Terminal()
    view = LiveView(stream)
    view.started(CLAIM, 4.0, 0.0)
    view.tick(timing([2.0, 2.1], instances=10))
    assert frames(stream.getvalue())[-1].endswith("  2.05x")


def test_time_that_is_longer_than_expected_does_not_eat_into_what_comes_after(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now[0]))
    stream = Terminal()
    view = LiveView(stream)
    view.started(CLAIM, 4.0, 20.0)
    now[0] = 130.0
    view.tick(None)
    assert frames(stream.getvalue())[-1] == "30 s, about 20 s left  a.b"


def test_a_long_line_is_cut_to_one_row(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    stream = Terminal()
    view = LiveView(stream)
    view.started(claim(Speedup(at_least=2), id="x" * 200), 4.0, 0.0)
    line = frames(stream.getvalue())[-1]
    assert len(line) <= 80
    assert line.endswith("xxx\N{HORIZONTAL ELLIPSIS}")


@pytest.mark.parametrize("view", [PlainView, LiveView])
def test_a_full_disk_behind_the_progress_ends_nothing(view):
    class Full(Terminal):
        def flush(self):
            raise OSError(errno.ENOSPC, "No space left on device")

    played(view(Full()), io.StringIO())


@pytest.mark.parametrize(
    ("stream", "term", "quiet", "view"),
    [
        (Terminal(), "xterm", False, LiveView),
        (Terminal(), "dumb", False, PlainView),
        (io.StringIO(), "xterm", False, PlainView),
        (Terminal(), "xterm", True, QuietView),
    ],
)
def test_the_view_fits_its_stream(monkeypatch, stream, term, quiet, view):
    monkeypatch.setenv("TERM", term)
    assert type(make_view(quiet=quiet, stream=stream)) is view
