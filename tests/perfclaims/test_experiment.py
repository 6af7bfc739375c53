"""What a claim's function is handed: evidence is kept, failures are kept, nothing can be taken back."""

import math

import numpy as np
import pytest

from perfclaims import Claim, Implementation, OutputsMatch, Overhead, SizeRatio, Speedup, Value
from perfclaims.evidence import Missing, Number, Outcomes, Outputs, Scaling, Sizes, Timing
from perfclaims.experiment import (
    Experiment,
    NotApplicable,
    Settings,
    deciding_speedups,
    describe_error,
)
from perfclaims.outputs import Tolerance
from perfclaims.presets import Preset

QUICK = Preset("quick", 0.01, 30.0, runs_slow=False)


def claim_of(*criteria, **options):
    return Claim("a.claim", "something", criteria=criteria or (SizeRatio(at_least=2),), **options)


def experiment_of(*criteria, listener=None, seed=0, **options):
    return Experiment(claim_of(*criteria, **options), Settings(QUICK, seed=seed), listener)


class Heard:
    def __init__(self):
        self.pieces, self.progress, self.announced = [], [], []

    def on_piece(self, piece):
        self.pieces.append(piece)

    def on_progress(self, timing):
        self.progress.append(timing)

    def on_announcement(self, text):
        self.announced.append(text)


SAME = Implementation("same", lambda rng: lambda x: x.sum())


def vectors(rng):
    return (rng.standard_normal(5000),)


def test_every_kind_of_evidence_is_kept_in_order_and_told():
    heard = Heard()
    experiment = experiment_of(listener=heard)
    experiment.sizes(baseline=400, optimized=np.int64(100), label="weights")
    experiment.outputs(np.ones(3), np.ones(3))
    experiment.outcomes(baseline=[True, False], optimized=[True, True])
    experiment.value("accuracy", 0.93, unit="%", low=0.9, high=0.95)
    experiment.value("exact", 3)
    experiment.rate("hits", 9, 10)
    experiment.scaling(lambda size: lambda: sum(range(int(size))), [10, 20])
    experiment.time(SAME, SAME, inputs=vectors, label="sum")
    kinds = [Sizes, Outputs, Outcomes, Number, Number, Number, Scaling, Timing]
    assert [type(piece) for piece in experiment.pieces] == kinds
    assert heard.pieces == list(experiment.pieces)
    assert len(heard.progress) >= 1
    sizes, _, _, accuracy, exact, hits, _, timing = experiment.pieces
    assert sizes == Sizes("weights", 400, 100)
    assert accuracy == Number(None, "accuracy", 0.93, "%", 0.9, 0.95)
    assert exact == Number(None, "exact", 3.0)
    assert (hits.number, hits.successes, hits.trials) == (0.9, 9, 10)
    assert hits.low < 0.9 < hits.high
    assert timing.label == "sum"


def test_evidence_cannot_be_taken_back():
    experiment = experiment_of()
    experiment.value("x", 1.0)
    with pytest.raises(AttributeError):
        experiment.pieces = ()
    assert isinstance(experiment.pieces, tuple)


def test_a_comparison_is_measured_as_the_claim_was_declared():
    loose = OutputsMatch(rtol=0.5)
    experiment = experiment_of(loose, OutputsMatch(label="other"), Speedup(at_least=3), threads="all")
    result = experiment.time(SAME, SAME, inputs=vectors, label="this")
    timing = experiment.pieces[0]
    assert result.timing is timing
    assert timing.plan.thresholds == (1.1, 3.0)
    assert timing.plan.budget_s == 0.01
    assert timing.threads == "all"
    assert [check.tolerance for check in timing.outputs] == [loose.tolerance]


def test_seeds_differ_by_run_claim_and_label():
    def seed(label, run=0):
        experiment = experiment_of(seed=run)
        experiment.time(SAME, SAME, inputs=vectors, label=label)
        return experiment.pieces[0].seed

    assert len({seed("a"), seed("b"), seed(None), seed("a", run=1)}) == 4
    assert seed("a") == seed("a")
    assert experiment_of().rng.random() == experiment_of().rng.random() != experiment_of(seed=1).rng.random()


def test_outputs_are_compared_under_each_declared_tolerance_or_the_usual_one():
    strict, loose = OutputsMatch(), OutputsMatch(atol=1.0)
    experiment = experiment_of(strict, loose, strict)
    experiment.outputs(np.ones(3), np.full(3, 1.5))
    assert [check.matched for check in experiment.pieces[0].checks] == [False, True]
    plain = experiment_of()
    plain.outputs(1.0, 1.0)
    assert [check.tolerance for check in plain.pieces[0].checks] == [Tolerance()]


@pytest.mark.parametrize(
    ("criteria", "label", "found"),
    [
        ((Speedup(at_least=3),), None, (1.1, 3.0)),
        ((Speedup(at_least=3, worthwhile=1.5),), "x", (1.5, 3.0)),
        ((Speedup(at_least=3, label="y"), Speedup(at_least=2)), "x", (1.1, 2.0)),
        ((Speedup(at_least=3, label="y"), Speedup(at_least=2)), "y", (1.1, 2.0, 3.0)),
        ((Overhead(at_most=0.25),), None, (0.8,)),
        ((Overhead(at_most=0.25), Speedup(at_least=2)), None, (0.8, 1.1, 2.0)),
        ((Overhead(at_most_us=2.0), Speedup(at_least=2)), None, ()),
        ((Speedup(at_least=2, over="geometric_mean"),), "x", ()),
        ((SizeRatio(at_least=2), OutputsMatch()), None, ()),
    ],
)
def test_early_looks_ask_about_every_speedup_that_can_change_the_verdict(criteria, label, found):
    assert deciding_speedups(claim_of(*criteria), label) == pytest.approx(found)


def test_what_could_not_be_measured_stays_on_record_also_when_the_claim_goes_on():
    def broken(rng):
        raise OSError("no such file")

    experiment = experiment_of(Speedup(at_least=2))
    with pytest.raises(OSError, match="no such file"):
        experiment.time(SAME, Implementation("broken", broken), inputs=vectors, label="one")
    (missing,) = experiment.pieces
    assert isinstance(missing, Missing)
    assert (missing.label, missing.wanted) == ("one", "timing 'one'")
    assert "OSError: no such file" in missing.message
    assert "raised while building the optimised 'broken'" in missing.message


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda e: e.time(5, SAME), "`baseline` must be an Implementation or a callable, got 5"),
        (lambda e: e.time(SAME, 5), "`optimized` must be an Implementation or a callable, got 5"),
        (lambda e: e.time(SAME, SAME, inputs=5), "`inputs` must be callable"),
        (lambda e: e.time(SAME, SAME, label=""), "`label` must be a non-empty string, got ''"),
        (lambda e: e.time(SAME, SAME, label=7), "`label` must be a non-empty string, got 7"),
        (lambda e: e.sizes(0, 3), "`baseline` of sizes must be a positive number of bytes, got 0"),
        (lambda e: e.sizes(3, 2.5), "`optimized` of sizes must be a positive number of bytes, got 2.5"),
        (lambda e: e.value("x", math.nan), "`number` of value 'x' must be a finite number, got nan"),
        (lambda e: e.value("x", "1"), "`number` of value 'x' must be a finite number, got '1'"),
        (lambda e: e.value("x", 1, low=math.inf), "`low` of value 'x' must be a finite number, got inf"),
        (lambda e: e.value("x", 1, low=2), "`number` of value 'x' must lie within its interval, got 1"),
        (lambda e: e.value("", 1), "`name` must be a non-empty string, got ''"),
        (lambda e: e.rate(3, 1, 2), "`name` must be a non-empty string, got 3"),
        (lambda e: e.rate("x", 3, 2), "`successes` must lie between 0 and `trials`"),
        (lambda e: e.outcomes([True], [True, False]), "baseline"),
        (lambda e: e.scaling(None, [1, 2]), "`build_for_size` must be callable"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name_and_kept_as_missing(ask, said):
    experiment = experiment_of()
    with pytest.raises(ValueError, match=said):
        ask(experiment)
    (missing,) = experiment.pieces
    assert isinstance(missing, Missing)


def test_nothing_is_measured_twice_to_get_a_better_result():
    experiment = experiment_of()
    experiment.value("x", 1.0)
    experiment.value("y", 1.0)
    experiment.value("x", 1.0, label="other")
    with pytest.raises(ValueError, match="value 'x' was measured already; give each piece a `label`"):
        experiment.value("x", 2.0)
    experiment.sizes(2, 1)
    with pytest.raises(ValueError, match="sizes was measured already"):
        experiment.sizes(3, 1)
    assert [piece.kind for piece in experiment.pieces] == ["value"] * 3 + ["sizes"]


def test_a_claim_can_be_not_applicable_until_something_was_measured():
    with pytest.raises(NotApplicable, match="no GPU"):
        experiment_of().not_applicable("no GPU")
    experiment = experiment_of()
    experiment.value("x", 1.0)
    with pytest.raises(ValueError, match="must come before anything is measured"):
        experiment.not_applicable("the result is bad")
    with pytest.raises(ValueError, match="`reason` must be a non-empty string, got ''"):
        experiment_of().not_applicable("")


def test_no_except_exception_swallows_that_a_claim_is_not_applicable():
    assert not issubclass(NotApplicable, Exception)


def test_announcements_are_passed_on():
    heard = Heard()
    experiment_of(listener=heard).announce("training: about 20 s")
    assert heard.announced == ["training: about 20 s"]
    with pytest.raises(ValueError, match="`text` must be a non-empty string, got None"):
        experiment_of().announce(None)


def test_an_error_is_described_on_one_line_with_its_notes():
    error = ValueError("two\n  lines")
    assert describe_error(error) == "ValueError: two lines"
    error.add_note("raised by the baseline 'a'")
    assert describe_error(error) == "ValueError: two lines (raised by the baseline 'a')"
    assert describe_error(KeyError()) == "KeyError"


def test_a_value_may_be_true_or_false():
    experiment = experiment_of(Value("same", equals=True))
    experiment.value("same", True)
    assert experiment.pieces[0].number == 1.0
