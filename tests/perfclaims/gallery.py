"""One claim of every verdict and with every kind of evidence, for the tests of keeping and showing."""

from dataclasses import replace

from evidence_factory import (
    around,
    claim,
    differing,
    matching,
    module,
    number,
    outcomes,
    outputs,
    pairs,
    rate,
    result,
    scaling,
    sizes,
    timing,
)

from perfclaims.activity import Activity
from perfclaims.codes import Reason
from perfclaims.criteria import (
    AccuracyDrop,
    OutputsMatch,
    Overhead,
    ScalingExponent,
    SizeRatio,
    Speedup,
    Value,
)
from perfclaims.evidence import Missing, OutputCheck, Trouble
from perfclaims.outputs import Tolerance

SAME = OutputsMatch()
CLOSE = OutputsMatch(relative_l2=0.03)
CHANGED = "the optimised implementation changed its arguments"


def needs_numba():
    """A condition that holds."""


def gallery():
    """Results by id: every verdict, every kind of evidence, and every way in which it can be incomplete."""
    early = {"thresholds": (1.1, 2.0), "looks": 5, "looks_taken": 1, "decided_early": True}
    both = [matching(), matching(CLOSE.tolerance)]
    unchecked = OutputCheck(Tolerance(), None, None)
    busy = Activity(0.5, 0.7, 1.4, 0.02, 120.5, 1.75, 2)
    results = [
        result(claim(SAME, Speedup(2.0), id="pass"), timing(2.5, label="n=4")),
        result(claim(SAME, Speedup(2.0), id="pass.early"), timing(2.5, fresh=2.4, **early)),
        result(
            claim(
                SAME, CLOSE, Speedup(2.0, label="a"), Speedup(1.5, over="geometric_mean"), id="pass.several"
            ),
            timing(2.5, label="a", checks=both, activity=busy),
            timing(2.5, label="b", fresh=2.5, checks=both, warnings=("busy",)),
        ),
        result(
            claim(SizeRatio(3.8), AccuracyDrop(0.01), Value("zeros", equals=95000), id="pass.exact"),
            sizes(4_000_000, 1_000_000),
            outcomes(3, 2, 1797),
            number("zeros", 95_000.0),
        ),
        result(claim(SAME, id="pass.outputs"), outputs(label="logits")),
        result(claim(Speedup(2.0), id="partial.unchecked"), timing(2.5, checks=[])),
        result(claim(SAME, Speedup(3.0), id="partial.below"), timing(2.0)),
        result(claim(SAME, Speedup(3.0), id="partial.noisy"), timing(around(3.0, 0.2))),
        result(
            claim(SAME, Overhead(0.05), Overhead(at_most_us=2.0), SizeRatio(2), id="partial.overhead"),
            timing(1 / 1.02, baseline_ns=100_000, activity=busy),
            sizes(10, 5),
        ),
        result(claim(ScalingExponent(at_most=2.5), id="pass.scaling"), scaling(2.0, label="n")),
        result(claim(Value("share", at_least=0.9), id="pass.rate"), rate("share", 60, 60)),
        result(claim(SAME, Speedup(2.0), id="fail.slower"), timing(0.5, label="n=4")),
        result(claim(SAME, SizeRatio(2), Speedup(2.0, gate=True), id="fail.gate"), timing(1.5), sizes(9, 1)),
        result(claim(SAME, Speedup(2.0), id="fail.new"), timing(9.0, fresh=0.9)),
        result(claim(SAME, Speedup(2.0), id="fail.outputs"), timing(9.0, checks=[differing()])),
        result(
            claim(SAME, Speedup(2.0), id="fail.outputs-new"),
            timing(9.0, fresh=9.0, checks=[differing(on_new=True)]),
        ),
        result(
            claim(SAME, Speedup(2.0), id="fail.changed"),
            timing(9.0, last_round=None, arguments_changed=CHANGED),
        ),
        result(
            claim(AccuracyDrop(0.01), SizeRatio(2), id="fail.accuracy"), outcomes(80, 2, 900), sizes(9, 2)
        ),
        result(claim(SAME, Speedup(1.0), id="fail.single"), timing(around(1.01, 0.01, 40), single=True)),
        result(claim(Value("bound", at_most=3), id="fail.open"), number("bound", 2.0, low=1.0, unit="dB")),
        result(
            claim(SAME, Speedup(2.0), id="error.raised"), trouble=Trouble(Reason.RAISED, "ValueError: no")
        ),
        result(
            claim(SAME, Speedup(2.0), id="error.timed-out"),
            timing(9.0, label="a"),
            timing(around(9.0)[:5], label="b", last_round=None, stop_reason="interrupted"),
            trouble=Trouble(Reason.TIMED_OUT, "not finished after its limit of 2 s"),
        ),
        result(
            claim(SAME, Speedup(2.0), id="error.missing"),
            timing(9.0, label="a"),
            Missing("b", "timing 'b'", "MemoryError: 9 GB (raised by the baseline 'loops')"),
        ),
        result(claim(SAME, SizeRatio(2.0), id="error.nothing"), timing(9.0, checks=[unchecked])),
        result(claim(ScalingExponent(at_most=2.5), id="fail.few"), scaling([2.0] * 4, warnings=("too few",))),
        result(claim(ScalingExponent(at_most=2.5), id="error.none"), scaling([], calls=())),
        result(
            claim(SAME, Speedup(2.0), id="error.no-pairs"),
            timing(2.0, samples=pairs([]), last_round=pairs([])),
        ),
        result(
            claim(SAME, id="none.applicable", requires=["avx2", needs_numba]),
            not_applicable="no AVX2",
            cpu_feature_missing=True,
        ),
        result(
            claim(SAME, id="none.run", slow=True, time_limit_s=9, expected_s=60.0),
            not_run="it needs about 60 s",
        ),
        result(
            claim(SAME, Speedup(2), id="audited.fail", status="audited", threads="all"),
            timing(1.0, threads="all", cpu=None),
        ),
    ]
    return {made.id: replace(made, duration_s=0.125 * i) for i, made in enumerate(results)}


def modules():
    """The gallery as three modules, one of which could not be loaded."""
    results = list(gallery().values())
    broken = module(name="broken", error="'broken.py' cannot be loaded: SyntaxError")
    return [module(*results[:14], name="first"), module(*results[14:], name="second"), broken]
