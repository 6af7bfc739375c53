"""What a person reads of a run: rows, remarks, warnings and the final sentence, at several widths."""

import errno
import io
from dataclasses import replace

import pytest
from evidence_factory import (
    around,
    claim,
    differing,
    matching,
    module,
    number,
    outcomes,
    result,
    scaling,
    sizes,
    timing,
)

from perfclaims.codes import Reason
from perfclaims.criteria import AccuracyDrop, OutputsMatch, SizeRatio, Speedup, Value
from perfclaims.evidence import Trouble
from perfclaims.report.layout import grid, wrapped, write_line
from perfclaims.report.remarks import remarks
from perfclaims.report.table import table
from perfclaims.report.text import listing, sentence

BUSY = "the machine was busy: others kept {} of 2 cores busy and this process lost {}% of its time; rerun"
AT_LEAST_1 = Value("x", at_least=1)


@pytest.fixture(autouse=True)
def columns(monkeypatch):
    """Set the width of the screen; 100 to begin with."""

    def set_(number):
        monkeypatch.setenv("COLUMNS", str(number))

    set_(100)
    return set_


def audited(*criteria, id, source):  # noqa: A002
    """A statement of others."""
    return replace(claim(*criteria, id=id, status="audited"), source=source)


def passing(id="a.passes", **changes):  # noqa: A002
    return result(claim(AT_LEAST_1, id=id, **changes), number("x", 2.0))


def failing(id="a.fails", **changes):  # noqa: A002
    return result(claim(AT_LEAST_1, id=id, **changes), number("x", 0.5))


def broken(id="a.raises", **changes):  # noqa: A002
    return result(claim(AT_LEAST_1, id=id, **changes), trouble=Trouble(Reason.RAISED, "KeyError: 'w'"))


def rows(text):
    """The lines of a table below its rule, each split at its columns."""
    lines = text.split("\n")
    rule = next(i for i, line in enumerate(lines) if set(line) == {"-", " "})
    ends = [len(part) for part in lines[rule].split("  ")]
    found = []
    for line in lines[rule + 1 :]:
        if not line:
            break
        cells, start = [], 0
        for width in ends[:-1]:
            cells.append(line[start : start + width].rstrip())
            start += width + 2
        found.append([*cells, line[start:]])
    return found


# The table


def test_each_criterion_has_a_row_with_what_is_claimed_and_measured_and_each_claim_its_verdict():
    both = claim(Speedup(at_least=1.5), SizeRatio(at_least=3), OutputsMatch(), id="a.both")
    found = rows(table([module(result(both, timing(2.0, label="n=1"), sizes(4000, 1000)), failing())]))
    assert found[0][0::3] == ["a.both", "PASS"]
    assert found[0][1] == "at least 1.5x"
    assert found[0][2].startswith("n=1: 2x [1.99")
    assert found[0][2].endswith("] B")
    assert found[1:] == [["", "at least 3x smaller", "4x", ""], ["a.fails", "x at least 1", "0.5", "FAIL"]]


def test_a_criterion_without_a_label_has_a_row_for_each_piece_and_its_claim_once():
    two = claim(Speedup(at_least=1.5), OutputsMatch(), id="a.two")
    found = rows(table([module(result(two, timing(2.0, label="n=1"), timing(3.0, label="n=2")))]))
    assert [row[:2] for row in found] == [["a.two", "at least 1.5x"], ["", ""]]
    assert [row[2].split(":")[0] for row in found] == ["n=1", "n=2"]


def test_what_no_criterion_speaks_of_is_shown_with_nothing_claimed():
    labelled = claim(Speedup(at_least=1.5, label="n=1"), OutputsMatch(), id="a.x")
    pieces = [
        timing(2.0, label="n=1"),
        timing(0.5, label="n=2"),
        sizes(4000, 1000),
        number("peak", 12.5, 12.0, 13.0, unit="MB"),
        number("peak", 3, label="cold"),
        outcomes(3, 1, 1000),
        scaling(2.0),
    ]
    found = rows(table([module(result(labelled, *pieces))]))
    assert [row[1] for row in found] == ["at least 1.5x", "-", "-", "-", "-", "-", "-"]
    shown = [row[2] for row in found]
    assert shown[1].startswith("n=2: 0.5x [")
    assert shown[2:5] == ["4x smaller", "peak: 12.5 MB [12, 13]", "peak, cold: 3"]
    assert shown[5].startswith("accuracy lost 0.2 %")
    assert shown[6].startswith("exponent 2 [")


def test_a_value_of_another_name_is_not_the_one_that_is_claimed():
    found = rows(table([module(result(claim(AT_LEAST_1, id="a.x"), number("x", 2.0), number("y", 3.0)))]))
    assert [row[1:3] for row in found] == [["x at least 1", "2"], ["-", "y: 3"]]


def test_a_passed_check_of_outputs_needs_no_row_beside_others_and_a_failed_one_has_it():
    timed = claim(OutputsMatch(), Speedup(at_least=1.5), id="a.x")
    good, bad = (table([module(result(timed, timing(2.0, checks=[c])))]) for c in (matching(), differing()))
    assert "outputs match" not in good
    assert rows(bad)[0] == ["a.x", "outputs match (rtol 1e-05, atol 1e-06)", "they differ", "FAIL"]
    alone = claim(OutputsMatch(), id="a.x")
    assert rows(table([module(result(alone, timing(2.0)))]))[0][2] == "they match"


def test_what_was_not_measured_has_its_row_too():
    left = result(claim(AT_LEAST_1, id="a.left"), not_run="left out")
    away = result(claim(AT_LEAST_1, id="a.away"), not_applicable="no GPU")
    found = rows(table([module(broken(), left, away)]))
    assert [row[2] for row in found] == ["-"] * 3
    assert [row[3] for row in found] == ["ERROR", "NOT_RUN", "NOT_APPLICABLE"]


def test_audited_claims_are_marked_and_only_ours_have_the_colour_of_failure():
    text = table([module(failing("b.x", status="audited"), failing("a.x"), broken("b.y", status="audited"))])
    assert [row[0] for row in rows(text)] == ["b.x (audited)", "a.x", "b.y (audited)"]
    assert "\033" not in text
    painted = table(
        [module(failing("b.x", status="audited"), failing("a.x"), broken("b.y", status="audited"))],
        colour=True,
    )
    lines = [line for line in painted.split("\n") if "\033" in line]
    assert [line.split("\033")[1] for line in lines] == ["[2mFAIL", "[31mFAIL", "[35mERROR"]
    assert (
        painted.replace("\033[2m", "").replace("\033[31m", "").replace("\033[35m", "").replace("\033[0m", "")
        == text
    )


def wide():
    """A claim whose label and numbers are long."""
    long = claim(
        Speedup(at_least=2987, label="over indexing arrays of float32"),
        Speedup(at_least=2, label="n=1"),
        OutputsMatch(),
        id="acceleration.dispatch-overhead",
    )
    return result(
        long,
        timing(around(16000, 0.5), baseline_ns=10**9, label="over indexing arrays of float32"),
        timing(3.0, label="n=1"),
    )


@pytest.mark.parametrize("number_of_columns", [80, 100, 140])
def test_the_table_stays_within_the_screen_and_no_measurement_is_torn(columns, number_of_columns):
    columns(number_of_columns)
    text = table([module(wide()), module(passing(), name="other")])
    assert max(map(len, text.split("\n"))) <= number_of_columns
    assert "16000x [" in text
    intervals = [line for line in text.split("\n") if "[" in line and "x" in line]
    assert all("]" in line for line in intervals)


def test_a_long_label_stands_above_its_measurement_where_both_do_not_fit(columns):
    columns(100)
    found = rows(table([module(wide())]))
    assert found[0][2] == "over indexing arrays of float32:"
    assert found[1][:2] == ["", ""]
    assert found[1][2].startswith("  16000x [")
    assert found[2][2].startswith("n=1: 3x")
    columns(140)
    assert rows(table([module(wide())]))[0][2].startswith("over indexing arrays of float32: 16000x [")


def test_on_a_narrow_screen_what_is_claimed_stands_below_the_claim(columns):
    columns(72)
    found = rows(table([module(wide())]))
    assert found[0] == ["acceleration.dispatch-overhead", "", "PASS"]
    assert found[1][0] == "  at least 2987x"


def test_modules_share_the_widths_of_their_columns():
    text = table([module(wide()), module(passing(), name="other")])
    rules = [line for line in text.split("\n") if line.startswith("---")]
    assert len(rules) == 2
    assert len(set(rules)) == 1


def test_grades_are_explained_where_there_are_any_and_a_run_without_claims_has_no_table():
    assert "Grades A to D" in table([module(wide())])
    assert "Grades" not in table([module(passing())])
    assert table([module(error="cannot be loaded")]) == table([]) == ""


# Remarks


def test_what_passed_needs_no_remark():
    assert remarks([module(passing(), passing("b.x", status="audited"))], "run") == ""


def test_what_did_not_pass_says_why_and_how_to_repeat_just_that():
    text = remarks([module(passing(), failing(), broken("a.it's"))], "python run.py --fast")
    lines = text.split("\n")
    assert lines[0] == "a.fails: FAIL (no-benefit). x is 0.5 against at least 1."
    assert lines[1] == "    repeat: python run.py --fast --claim a.fails"
    assert lines[2] == "a.it's: ERROR (raised). KeyError: 'w'."
    assert lines[3] == "    repeat: python run.py --fast --claim 'a.it'\"'\"'s'"


def test_without_a_command_nothing_is_said_about_repeating():
    assert "repeat" not in remarks([module(failing())], None)


def test_statements_of_others_come_after_ours_and_do_not_read_like_failures():
    trouble = Trouble(Reason.RAISED, "KeyError: 'w'")
    three = (Speedup(at_least=3), OutputsMatch())
    of_others = [
        result(audited(AT_LEAST_1, id="b.false", source="a blog"), number("x", 0.5)),
        result(audited(AT_LEAST_1, id="b.broken", source=""), trouble=trouble),
        result(audited(*three, id="b.part", source="a blog"), timing(2.0)),
        result(audited(AT_LEAST_1, id="b.open", source="a blog"), number("x", 1.0, 0.5, 1.5)),
    ]
    lines = [li for li in remarks([module(*of_others, failing())], None).split("\n") if li[0] != " "]
    assert lines[0].startswith("a.fails: FAIL")
    assert [line.split(" (")[0] for line in lines[1:]] == [
        "b.false: stated by a blog, does not hold: FAIL",
        "b.broken: a statement of others, not measured: ERROR",
        "b.part: stated by a blog, holds in part: PARTIAL",
        "b.open: stated by a blog, not decided: FAIL",
    ]


def test_what_was_left_out_or_does_not_apply_is_told_with_its_reason_and_those_of_one_reason_together():
    def away(id, reason):  # noqa: A002
        return result(claim(AT_LEAST_1, id=id), not_applicable=reason)

    left = result(claim(AT_LEAST_1, id="a.slow"), not_run="left out of fast runs: it needs about 60 s")
    text = remarks(
        [module(away("a.1", "no GPU"), left, away("a.2", "no GPU"), away("a.3", "no disk"))], "run"
    )
    assert text.split("\n") == [
        "NOT_APPLICABLE: a.1, a.2: no GPU.",
        "NOT_RUN: a.slow: left out of fast runs: it needs about 60 s.",
        "NOT_APPLICABLE: a.3: no disk.",
    ]


def test_a_suite_that_could_not_be_loaded_is_told_first():
    text = remarks(
        [module(failing()), module(name="b", error="'test_b.py' cannot be loaded: it hangs")], "run"
    )
    assert text.startswith("b: ERROR. 'test_b.py' cannot be loaded: it hangs\n")


def timed(id, *warnings, speedup=2.0):  # noqa: A002
    declared = claim(Speedup(at_least=1.5), OutputsMatch(), id=id)
    pieces = [timing(speedup, label=f"n={i}", warnings=(w,)) for i, w in enumerate(warnings)]
    return result(declared, *(pieces or [timing(speedup)]))


def test_one_warning_on_many_claims_is_said_once_with_the_range_of_its_numbers(columns):
    columns(110)
    found = [
        timed("a.1", BUSY.format("0.5", "12"), BUSY.format("1.3", "9")),
        timed("a.2"),
        timed("a.3", BUSY.format("1.0", "9")),
    ]
    text = remarks([module(*found)], "run")
    assert " ".join(text.split()) == (
        "warning for a.1, a.3: the machine was busy: others kept 0.5 to 1.3 of 2 cores busy and this "
        "process lost 9 to 12% of its time; rerun"
    )


def test_a_warning_on_all_timed_claims_lists_none_of_them():
    text = remarks([module(timed("a.1", "too hot"), timed("a.2", "too hot"), passing())], "run")
    assert text == "warning for all 2 timed claims: too hot"
    assert remarks([module(timed("a.1", "too hot"))], "run") == "warning for a.1: too hot"


def test_warnings_that_differ_in_more_than_numbers_stay_apart_and_come_last():
    text = remarks(
        [module(timed("a.1", "too hot at 90 C"), timed("a.2", "too cold at 9 C", speedup=1.0))], "run"
    )
    lines = text.split("\n")
    assert lines[-2:] == ["warning for a.1: too hot at 90 C", "warning for a.2: too cold at 9 C"]
    assert lines[0].startswith("a.2: FAIL")


# The sentence


@pytest.mark.parametrize(
    ("results", "options", "said"),
    [
        ([passing(), passing("a.2")], {"code": 0}, "PASS: 2 of 2 asserted claims passed; exit code 0."),
        ([passing()], {"code": 0}, "PASS: 1 of 1 asserted claim passed; exit code 0."),
        (
            [passing(), failing(), broken(), failing("b.1", status="audited")],
            {"code": 2},
            "ERROR: 1 of 3 asserted claims passed, 1 FAIL, 1 ERROR, 1 audited (1 FAIL); exit code 2.",
        ),
        (
            [
                passing(),
                result(claim(AT_LEAST_1), not_run="x"),
                result(claim(AT_LEAST_1), not_applicable="x"),
            ],
            {"code": 0},
            "PASS: 1 of 1 asserted claim passed, 1 not run, 1 not applicable; exit code 0.",
        ),
        (
            [passing("b.1", status="audited")],
            {"code": 2},
            "No verdict: nothing was measured that is asserted (1 audited (1 PASS)); exit code 2.",
        ),
        ([], {"code": 2}, "No verdict: nothing was measured that is asserted; exit code 2."),
        ([], {"code": 130, "interrupted": True}, "Interrupted: nothing was measured; exit code 130."),
        (
            [passing()],
            {"code": 130, "interrupted": True, "left": 3},
            "Interrupted with 3 claims left: 1 of 1 asserted claim passed; exit code 130.",
        ),
        (
            [passing()],
            {"code": 2, "problem": "the disk is full"},
            "PASS: 1 of 1 asserted claim passed; but the disk is full; exit code 2.",
        ),
    ],
)
def test_the_final_sentence_counts_and_names_verdict_and_exit_code(results, options, said):
    assert sentence([module(*results)], **options) == said


def test_a_suite_that_could_not_be_loaded_makes_the_run_an_error():
    said = sentence([module(passing()), module(name="b", error="no")], 2)
    assert said == "ERROR: 1 of 1 asserted claim passed, b could not be loaded; exit code 2."


# The list


def test_the_list_shows_thresholds_labels_durations_and_marks():
    declared = [
        (claim(Speedup(at_least=2, label="n=1"), AccuracyDrop(), id="a.1"), 12.0, None),
        (claim(AT_LEAST_1, id="a.2", status="audited", slow=True), 90.0, "left out"),
    ]
    text = listing("module_1", "Title", declared)
    assert text.startswith("Title (module_1)\n\n")
    assert rows(text) == [
        ["a.1", "n=1: at least 2x", "12 s", ""],
        ["", "at most 0.5 points lost", "", ""],
        ["a.2", "x at least 1", "90 s", "audited, slow, left out"],
    ]


# Lines


def test_paragraphs_hang_and_never_break_words(columns):
    columns(18)
    assert wrapped("one two three four", "  ") == "  one two three\n      four"
    assert wrapped("a" * 30) == "a" * 30


def test_a_grid_has_no_spaces_at_the_ends_of_its_lines():
    assert grid(("a", "b"), [("1", ""), ("22", "x")], [3, 1]) == "a    b\n---  -\n1\n22   x"


def test_letters_that_a_stream_lacks_are_escaped():
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    write_line(stream, "2 µs")
    assert stream.buffer.getvalue() == b"2 \\xb5s\n"


def test_a_full_disk_behind_a_stream_is_not_kept_quiet():
    class Full(io.StringIO):
        def flush(self):
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write_line(Full(), "x")
