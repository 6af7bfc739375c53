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

from perfclaims.codes import Reason, Verdict
from perfclaims.criteria import AccuracyDrop, OutputsMatch, SizeRatio, Speedup, Value
from perfclaims.evidence import Trouble
from perfclaims.report.layout import folded, grid, wrapped, write_line
from perfclaims.report.remarks import remarks
from perfclaims.report.table import table
from perfclaims.report.text import listing, sentence, verdicts_hold

BUSY = "the machine was busy: others kept {} of 2 cores busy and this process lost {}% of its time; rerun"
AT_LEAST_1 = Value("x", at_least=1)
PARTLY = Value("y", at_least=1)


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
    """The lines of a table below its rule, each split at its columns; statements left out."""
    lines = text.split("\n")
    rule = next(i for i, line in enumerate(lines) if set(line) == {"-", " "})
    ends = [len(part) for part in lines[rule].split("  ")]
    found = []
    for line in lines[rule + 1 :]:
        if not line:
            break
        if line.startswith("  ") and line[2] != " ":
            continue
        cells, start = [], 0
        for width in ends[:-1]:
            cells.append(line[start : start + width].strip())
            start += width + 2
        found.append([*cells, line[start:].strip()])
    return found


# The table


def test_below_each_claim_with_its_verdict_stands_what_is_claimed_beside_what_was_measured():
    both = claim(Speedup(at_least=1.5), SizeRatio(at_least=3), OutputsMatch(), id="a.both")
    found = rows(table([module(result(both, timing(2.0, label="n=1"), sizes(4000, 1000)), failing())]))
    assert found[0] == ["a.both", "PASS"]
    assert found[1][0] == "n=1: at least 1.5x"
    assert found[1][1].startswith("2x [1.99")
    assert found[1][1].endswith("] B")
    assert found[2:] == [
        ["at least 3x smaller", "4x"],
        ["outputs match (rtol 1e-05, atol 1e-06)", "they match"],
        ["a.fails", "FAIL"],
        ["x at least 1", "0.5"],
    ]


def test_every_claim_says_what_it_claims_and_those_of_others_who_says_so(columns):
    columns(60)
    stated = "a statement that is rather longer than one line of the screen on which it is to be read."
    ours = result(replace(claim(AT_LEAST_1, id="a.ours"), statement=stated), number("x", 2.0))
    theirs = result(audited(AT_LEAST_1, id="b.theirs", source="a blog"), number("x", 2.0))
    lines = table([module(ours, theirs)]).split("\n")
    at = lines.index("a.ours                      PASS")
    assert lines[at + 1 : at + 3] == [
        "  a statement that is rather longer than one line of the",
        "  screen on which it is to be read.",
    ]
    assert lines[lines.index("b.theirs (audited)          PASS") + 1] == (
        "  It is as good as they say. Source: a blog"
    )
    assert "a paper" not in "\n".join(lines)


def test_a_criterion_without_a_label_has_a_row_for_each_piece():
    two = claim(Speedup(at_least=1.5), OutputsMatch(), id="a.two")
    found = rows(table([module(result(two, timing(2.0, label="n=1"), timing(3.0, label="n=2")))]))
    assert [row[0] for row in found[1:3]] == ["n=1: at least 1.5x", "n=2: at least 1.5x"]
    assert [row[1].split("x")[0] for row in found[1:3]] == ["2", "3"]


def test_what_no_criterion_speaks_of_is_shown_with_nothing_claimed():
    labelled = claim(Speedup(at_least=1.5, label="n=1"), OutputsMatch(label="n=1"), id="a.x")
    pieces = [
        timing(2.0, label="n=1"),
        timing(0.5, label="n=2"),
        sizes(4000, 1000),
        number("peak", 12.5, 12.0, 13.0, unit="MB"),
        number("peak", 3, label="cold"),
        outcomes(3, 1, 1000),
        scaling(2.0),
    ]
    found = [row for row in rows(table([module(result(labelled, *pieces))]))[3:] if row[0]]
    assert [row[0] for row in found] == [
        "n=2: nothing claimed",
        "nothing claimed",
        "peak: nothing claimed",
        "peak, cold: nothing claimed",
        "nothing claimed",
        "nothing claimed",
    ]
    shown = [row[1] for row in found]
    assert shown[0].startswith("0.5x [")
    assert shown[1:4] == ["4x smaller", "12.5 MB [12, 13]", "3"]
    assert shown[4].startswith("accuracy lost 0.2 %")
    assert shown[5].startswith("exponent 2 [")


def test_a_value_of_another_name_is_not_the_one_that_is_claimed():
    found = rows(table([module(result(claim(AT_LEAST_1, id="a.x"), number("x", 2.0), number("y", 3.0)))]))
    assert found[1:] == [["x at least 1", "2"], ["y: nothing claimed", "3"]]


def test_what_a_value_must_be_has_the_unit_that_it_was_measured_in():
    bound = result(claim(Value("call", at_most=1), id="a.x"), number("call", 0.3, unit="us"))
    assert rows(table([module(bound)]))[1] == ["call at most 1 us", "0.3 us"]


def test_yes_and_no_are_said_in_words():
    asked = claim(Value("it is first", equals=True), Value("it is last", equals=False), id="a.x")
    answered = result(asked, number("it is first", 0.0), number("it is last", 0.0))
    assert rows(table([module(answered)]))[1:] == [["it is first: yes", "no"], ["it is last: no", "no"]]
    assert answered.summary == "it is first: no, and yes is claimed."


def test_outputs_that_were_compared_have_one_row_for_each_tolerance():
    close = OutputsMatch(relative_l2=0.03, label="b")
    strict = [OutputsMatch(label="a"), OutputsMatch(label="b")]
    timed = claim(*strict, close, Speedup(at_least=1.5), id="a.x")
    checks = [matching(), matching(close.tolerance)]
    pieces = [timing(2.0, label=label, checks=checks) for label in "ab"]
    assert rows(table([module(result(timed, *pieces))]))[-2:] == [
        ["outputs match (rtol 1e-05, atol 1e-06)", "all 2 match"],
        ["b: outputs match (relative L2 error at most 0.03)", "they match"],
    ]


def test_outputs_that_differ_say_so_and_outputs_alone_are_shown_as_well():
    timed = claim(OutputsMatch(), Speedup(at_least=1.5), id="a.x")
    bad = table([module(result(timed, timing(2.0, checks=[differing()])))])
    assert rows(bad)[:2] == [["a.x", "FAIL"], ["outputs match (rtol 1e-05, atol 1e-06)", "they differ"]]
    alone = claim(OutputsMatch(), id="a.x")
    assert rows(table([module(result(alone, timing(2.0)))]))[1][1] == "they match"


def test_what_was_not_measured_has_its_row_too():
    left = result(claim(AT_LEAST_1, id="a.left"), not_run="left out")
    away = result(claim(AT_LEAST_1, id="a.away"), not_applicable="no GPU")
    found = rows(table([module(broken(), left, away)]))
    assert [row[1] for row in found[1::2]] == ["-"] * 3
    assert [row[1] for row in found[::2]] == ["ERROR", "NOT_RUN", "NOT_APPLICABLE"]


def test_audited_claims_are_marked_and_only_ours_have_the_colour_of_failure():
    text = table([module(failing("b.x", status="audited"), failing("a.x"), broken("b.y", status="audited"))])
    assert [row[0] for row in rows(text)[::2]] == ["b.x (audited)", "a.x", "b.y (audited)"]
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
        Value("a value with a name of many words that goes on and on", at_least=1),
        OutputsMatch(),
        id="acceleration.dispatch-overhead",
    )
    return result(
        long,
        timing(around(16000, 0.5), baseline_ns=10**9, label="over indexing arrays of float32"),
        timing(3.0, label="n=1"),
        number(long.criteria[2].name, 12.25, 11.5, 13.5, unit="thousandths of a percentage point"),
    )


@pytest.mark.parametrize("number_of_columns", [60, 80, 100, 140])
def test_the_table_stays_within_the_screen_and_no_interval_is_torn(columns, number_of_columns):
    columns(number_of_columns)
    text = table([module(wide()), module(passing(), name="other")])
    assert max(map(len, text.split("\n"))) <= min(92, number_of_columns)
    intervals = [line for line in text.split("\n") if "[" in line or "]" in line]
    assert len(intervals) == 3
    assert all("[" in line and "]" in line for line in intervals)
    assert any("16000x [" in line and line.endswith("] D") for line in intervals)


def test_what_is_too_long_for_its_column_is_folded_in_it_and_every_row_begins_on_the_left(columns):
    columns(60)
    found = rows(table([module(wide())]))
    assert found[1][0] == "over indexing arrays"
    assert found[2] == ["of float32: at least", ""]
    assert found[3] == ["2987x", ""]
    found = found[1:]
    assert found[3][0] == "n=1: at least 2x"
    value = found[4:-2]
    assert " ".join(row[0] for row in value) == (
        "a value with a name of many words that goes on and on at least 1 thousandths of a percentage point"
    )
    assert " ".join(row[1] for row in value).strip() == "12.2 thousandths of a percentage point [11.5, 13.5]"


def test_the_columns_depend_on_the_screen_alone():
    def rules(*results):
        return {line for line in table([module(r) for r in results]).split("\n") if line.startswith("---")}

    assert rules(wide(), passing()) == rules(failing()) == rules(passing("a" * 60))
    assert len(rules(wide(), passing())) == 1


def test_grades_are_explained_where_there_are_any_and_a_run_without_claims_has_no_table():
    assert "Grades A to D" in table([module(wide())])
    assert "Grades" not in table([module(passing())])
    assert table([module(error="cannot be loaded")]) == table([]) == ""


# Remarks


def again(budget_s):
    """The command that repeats the run."""
    return f"python run.py --budget {budget_s}"


def test_what_passed_needs_no_remark():
    assert remarks([module(passing(), passing("b.x", status="audited"))], again) == ""


def test_what_did_not_pass_says_why_and_how_to_repeat_just_that():
    text = remarks([module(passing(), failing(), broken("a.it's"))], again)
    assert text.split("\n") == [
        "a.fails: FAIL (no-benefit). x is 0.5 against at least 1.",
        "    claimed: It is as good as they say",
        "    repeat: python run.py --budget None --claim a.fails",
        "a.it's: ERROR (raised). KeyError: 'w'.",
        "    claimed: It is as good as they say",
        "    repeat: python run.py --budget None --claim 'a.it'\"'\"'s'",
    ]


def test_what_a_larger_budget_would_decide_is_repeated_with_that():
    noisy = [
        timing(around(2.0, 0.03), label=label, budget_s=budget_s) for label, budget_s in (("a", 2), ("b", 7))
    ]
    open_ = result(claim(Speedup(at_least=2.02), OutputsMatch(), id="a.open"), *noisy)
    text = " ".join(remarks([module(open_)], again).split())
    assert "a: 2x" in text
    assert "a budget of about" in text
    wanted = [f.budget_s for c in open_.criteria for f in c.findings if f.budget_s]
    assert wanted[1] == pytest.approx(3.5 * wanted[0], rel=0.02)
    assert f"repeat: python run.py --budget {wanted[1]} --claim a.open" in text
    late = replace(open_, verdict=Verdict.ERROR)
    assert "--budget None" in remarks([module(late)], again)


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
        [module(away("a.1", "no GPU"), left, away("a.2", "no GPU"), away("a.3", "no disk"))], again
    )
    assert text.split("\n") == [
        "NOT_APPLICABLE: a.1, a.2: no GPU.",
        "NOT_RUN: a.slow: left out of fast runs: it needs about 60 s.",
        "NOT_APPLICABLE: a.3: no disk.",
    ]


def test_a_suite_that_could_not_be_loaded_is_told_first():
    text = remarks(
        [module(failing()), module(name="b", error="'test_b.py' cannot be loaded: it hangs")], again
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
    text = remarks([module(*found)], again)
    assert " ".join(text.split()) == (
        "warning for a.1, a.3: the machine was busy: others kept 0.5 to 1.3 of 2 cores busy and this "
        "process lost 9 to 12% of its time; rerun"
    )


def test_a_warning_on_all_timed_claims_lists_none_of_them():
    text = remarks([module(timed("a.1", "too hot"), timed("a.2", "too hot"), passing())], again)
    assert text == "warning for all 2 timed claims: too hot"
    assert remarks([module(timed("a.1", "too hot"))], again) == "warning for a.1: too hot"


def test_warnings_that_differ_in_more_than_numbers_stay_apart_and_come_last():
    text = remarks(
        [module(timed("a.1", "too hot at 90 C"), timed("a.2", "too cold at 9 C", speedup=1.0))], again
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
            [passing(), broken(), failing("b.1", status="audited")],
            {"code": 2},
            "ERROR: 1 of 2 asserted claims passed, 1 ERROR (a.raises), 1 audited (1 FAIL); exit code 2.",
        ),
        (
            [
                passing(),
                failing(),
                result(claim(AT_LEAST_1, PARTLY, id="a.y"), number("x", 2), number("y", 0)),
            ],
            {"code": 1},
            "PARTIAL: 1 of 3 asserted claims passed, 1 PARTIAL (a.y), 1 FAIL (a.fails); exit code 1.",
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


def test_the_final_sentence_names_a_handful_of_what_did_not_pass_and_what_erred_wherever_it_is():
    many = [failing(f"a.{i}") for i in range(12)]
    said = sentence([module(*many, broken("b.x", status="audited"))], 2)
    assert "12 FAIL (a.0, a.1, a.2, a.3, a.4, a.5, a.6, a.7, a.8, a.9, 2 more)" in said
    assert "1 audited (1 ERROR: b.x); exit code 2." in said


def test_judging_again_says_that_the_verdicts_follow_from_the_samples():
    assert verdicts_hold([module(passing(), failing())]) == "all 2 verdicts follow from the samples"
    assert verdicts_hold([module(passing())]) == "the verdict follows from the samples"
    assert verdicts_hold([]) == "there are no verdicts"


def test_the_list_shows_statements_thresholds_labels_durations_and_marks():
    declared = [
        (claim(Speedup(at_least=2, label="n=1"), AccuracyDrop(), id="a.1"), 12.0, None),
        (claim(AT_LEAST_1, id="a.2", status="audited", slow=True), 90.0, "left out"),
    ]
    text = listing("module_1", "Title", declared)
    lines = [" ".join(line.split()) for line in text.split("\n") if not line.startswith("---")]
    assert lines == [
        "Title (module_1)",
        "",
        "claim takes about notes",
        "criteria",
        "a.1 12 s",
        "It is as good as they say",
        "n=1: at least 2x",
        "at most 0.5 points lost",
        "a.2 90 s audited, slow, left out",
        "It is as good as they say. Source: a paper",
        "x at least 1",
    ]


def test_the_list_stays_within_the_screen(columns):
    columns(70)
    declared = replace(wide().claim, statement="word " * 40)
    assert max(map(len, listing("module_1", "Title", [(declared, 12.0, None)]).split("\n"))) <= 70


# Lines


def test_paragraphs_hang_and_never_break_words(columns):
    columns(18)
    assert wrapped("one two three four", "  ") == "  one two three\n      four"
    assert wrapped("a" * 30) == "a" * 30


@pytest.mark.parametrize("text", ["2x [1.9, 2.1] B", "2x [1.9, 2.1] D*", "1 us [0, inf]"])
def test_an_interval_is_never_broken(text):
    interval = text[text.index("[") :]
    assert folded(f"it took {text} at most", 16)[1].startswith(interval)
    assert folded(f"it took {text}", len(text) - 1)[-1].strip() == interval
    assert folded("", 10) == [""]


def test_a_grid_has_no_spaces_at_the_ends_of_its_lines():
    assert grid([("a", "b")], [("1", ""), ("22", "x")], [3, 1]) == "a    b\n---  -\n1\n22   x"


def test_a_row_of_one_cell_goes_across_all_columns():
    assert grid([("a", "b")], [("a sentence",), ("22", "x")], [3, 1]) == "a    b\n---  -\na sentence\n22   x"


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
