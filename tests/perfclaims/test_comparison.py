"""Two implementations in, a speedup out: what the result says, and what is refused."""

import os
import sys
import threading

import numpy as np
import pytest
from evidence_factory import differing, timing
from simulated import MS, as_timing, simulated

from perfclaims import Implementation, OutputsMatch, PerformanceComparator
from perfclaims.comparison import Request, measure, summarise
from perfclaims.evidence import OutputCheck
from perfclaims.outputs import Tolerance


def loop(x):
    return float(sum(value * value for value in x.tolist()))


def fast(x):
    return float(x @ x)


def vectors(rng):
    return (rng.standard_normal(2000),)


def quick_comparison(**options):
    options = {"inputs": vectors, "claim_speedup": 2, **options}
    return PerformanceComparator(budget_s=0.05).compare_implementations(
        Implementation("a loop", lambda rng: loop), Implementation("a product", lambda rng: fast), **options
    )


def test_a_result_says_what_was_measured():
    run, _ = simulated(3.0, 0, baseline_ns=0.6 * MS)
    result = summarise(as_timing(run))
    assert result.speedup_low < 3 < result.speedup_high
    assert result.speedup == pytest.approx(3, rel=0.05)
    assert result.mean_speedup == pytest.approx(3, rel=0.5)
    assert result.is_significant
    assert result.baseline.median_time_ms == pytest.approx(0.6, rel=0.4)
    assert result.optimized.median_time_ms == pytest.approx(0.2, rel=0.4)
    assert result.instances == 10
    assert result.pairs == len(run.rows)
    assert result.outputs is None
    assert result.stop_reason == "budget used"
    assert str(result).startswith("b against a: ")


def test_equal_sides_are_not_significantly_different():
    assert not summarise(as_timing(simulated(1.0, 1)[0])).is_significant


def test_a_comparison_carries_its_evidence():
    result = quick_comparison()
    assert result.speedup_low > 2
    assert result.outputs.matched
    assert (result.timing.baseline, result.timing.optimized) == ("a loop", "a product")
    assert result.timing.fresh_arguments
    assert result.timing.last_round is not None
    assert result.timing.activity.duration_s > 0
    assert result.timing.threads == 1
    assert result.timing.plan.thresholds == (2.0,)
    parts = result.timing.setup_s + result.timing.pairing_s + result.timing.last_round_s
    assert parts == pytest.approx(result.timing.elapsed_s, rel=0.05)
    assert min(result.timing.first_call_ns) > 0


def test_wrong_outputs_are_told_and_may_be_left_unasked():
    wrong = {"baseline": loop, "optimized": lambda x: fast(x) + 1}
    comparator = PerformanceComparator(budget_s=0.02)
    result = comparator.compare_implementations(**wrong, inputs=vectors)
    assert not result.outputs.matched
    assert comparator.compare_implementations(**wrong, inputs=vectors, outputs=None).outputs is None
    loose = comparator.compare_implementations(**wrong, inputs=vectors, outputs=OutputsMatch(atol=2))
    assert loose.outputs.matched


def printed(**changes):
    """What a comparison of one instance prints."""
    return str(summarise(timing(3.0, single=True, **changes)))


def test_a_result_prints_whether_outputs_were_compared_and_agree():
    assert printed().startswith("arrays against loops: 3x [")
    assert printed().endswith(", 1 instance, 10 pairs, outputs match")
    for unchecked in ([], [OutputCheck(Tolerance(), None, None)]):
        assert printed(checks=unchecked).endswith(", 1 instance, 10 pairs; OUTPUTS NOT COMPARED")
    wrong = printed(checks=[differing()])
    assert wrong.startswith("arrays against loops: OUTPUTS DIFFER: 3 of 64 elements differ; 3x [")
    assert wrong.endswith(", 10 pairs")
    changed = printed(arguments_changed="the optimised side changed its arguments")
    assert "loops: ARGUMENTS CHANGED: the optimised side changed its arguments; 3x [" in changed
    assert ", 10 instances, 30 pairs, " in str(summarise(timing(3.0)))


def test_plain_callables_are_one_instance_and_graded_so():
    result = PerformanceComparator(budget_s=0.05).compare_implementations(
        loop, fast, "slow", "quick", vectors, 2
    )
    assert (result.baseline.name, result.optimized.name) == ("slow", "quick")
    assert result.instances == 1
    assert result.noise_grade.endswith("*")


def test_without_inputs_the_evidence_says_what_that_hides():
    x = np.arange(2000.0)
    result = quick_comparison_of_constants(x)
    assert not result.timing.fresh_arguments
    assert any("pass `inputs`" in warning for warning in result.warnings)


def quick_comparison_of_constants(x):
    return PerformanceComparator(budget_s=0.05).compare_implementations(
        Implementation("loop", lambda rng: lambda: loop(x)),
        Implementation("product", lambda rng: lambda: fast(x)),
        claim_speedup=2,
    )


def test_the_seed_fixes_arguments_order_and_coins():
    def drawn(seed):
        seen = []

        def inputs(rng):
            seen.append(rng.random())
            return vectors(rng)

        request = Request(budget_s=0.01, seed=seed)
        sides = Implementation("a", lambda rng: fast), Implementation("b", lambda rng: fast)
        timing = measure(*sides, inputs, request)
        return seen[:2], timing.samples.instance[:20:4].tolist()

    assert drawn(1)[0] == drawn(1)[0] != drawn(2)[0]


def test_every_pass_is_reported_while_it_goes_on():
    seen = []
    request = Request(budget_s=0.05, thresholds=(1.0,), on_progress=seen.append)
    same = Implementation("a", lambda rng: fast)
    timing = measure(same, same, vectors, request)
    assert [len(t.samples) for t in seen] == sorted(len(t.samples) for t in seen)
    assert len(seen[-1].samples) == len(timing.samples)
    assert seen[0].stop_reason == "interrupted"
    assert seen[0].last_round is None


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="needs CPU affinity")
def test_building_sees_all_cpus_and_timed_calls_one():
    building, calling = [], []

    def build(rng):
        building.append(os.sched_getaffinity(0))
        return lambda x: calling.append(os.sched_getaffinity(0)) or 1.0

    side = Implementation("a", build)
    timing = measure(side, side, vectors, Request(budget_s=0.01))
    allowed = os.sched_getaffinity(0)
    assert all(cpus == allowed for cpus in building)
    assert all(cpus == {timing.cpu} for cpus in calling[2:])
    assert len(calling) > 100


def test_a_tracer_and_a_thread_left_behind_are_told():
    stop, threads = threading.Event(), []

    def build(rng):
        threads.append(threading.Thread(target=stop.wait, args=(20,)))
        threads[-1].start()
        sys.setprofile(lambda *args: None)
        return fast

    before = sys.getprofile()
    request = Request(budget_s=0.01)
    try:
        timing = measure(Implementation("a", build), Implementation("b", lambda rng: fast), vectors, request)
    finally:
        sys.setprofile(before)
        stop.set()
        for thread in threads:
            thread.join()
    assert any("profiler or coverage tool is active" in warning for warning in timing.warnings)
    assert any("10 threads were started and not ended" in warning for warning in timing.warnings)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (
            lambda: PerformanceComparator(budget_s=-1),
            "`budget_s` must be a positive number of seconds, got -1",
        ),
        (lambda: PerformanceComparator(confidence=1.0), "`confidence` must lie between 0 and 1, got 1.0"),
        (lambda: PerformanceComparator(confidence=95), "`confidence` must lie between 0 and 1, got 95"),
        (lambda: PerformanceComparator(seed=-1), "`seed` must be an integer of zero or more, got -1"),
        (lambda: PerformanceComparator(seed=1.5), "`seed` must be an integer of zero or more, got 1.5"),
        (lambda: PerformanceComparator(threads="many"), "`threads` of PerformanceComparator must be"),
        (lambda: quick_comparison(inputs=5), r"`inputs` must be callable as inputs\(rng\), or None, got 5"),
        (
            lambda: quick_comparison(claim_speedup=0),
            "`claim_speedup` must be a positive number or None, got 0",
        ),
        (lambda: quick_comparison(outputs=1e-3), "`outputs` must be OutputsMatch or None, got 0.001"),
        (
            lambda: PerformanceComparator().compare_implementations(5, fast),
            "`baseline` must be an Implementation or a callable, got 5",
        ),
        (
            lambda: PerformanceComparator().compare_implementations(fast, None),
            "`optimized` must be an Implementation or a callable, got None",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(make, said):
    with pytest.raises(ValueError, match=said):
        make()
