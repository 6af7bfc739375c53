"""One callable on a made-up clock: how often it is called, and what is said of its durations."""

import os

import numpy as np
import pytest

from perfclaims import ScientificTimer, timing
from perfclaims.plan import SAMPLE_NS
from perfclaims.timing import calibrated_calls, timed

MS = 1_000_000


class Clock:
    """Stands still but for what `takes` says a call takes, and 50 ns for looking at it."""

    def __init__(self, monkeypatch, takes):
        self.now = 0
        self.calls = 0
        self._takes = takes
        monkeypatch.setattr(timing, "_clock", self)

    def __call__(self):
        self.now += 50
        return self.now

    def func(self, *args, **kwargs):
        self.calls += 1
        self.now += self._takes(self.calls)
        return args, kwargs


def test_a_constant_time_is_measured_as_it_is(monkeypatch):
    clock = Clock(monkeypatch, lambda call: 2 * MS)
    m = ScientificTimer(budget_s=0.5).measure_function(clock.func, name="steady")
    for value in (
        m.median_time_ms,
        m.mean_time_ms,
        m.min_time_ms,
        m.ci_low_ms,
        m.ci_high_ms,
        m.first_call_ms,
    ):
        assert value == pytest.approx(2.0, rel=1e-4)
    assert m.std_time_ms == pytest.approx(0.0, abs=1e-9)
    assert m.coefficient_of_variation == pytest.approx(0.0, abs=1e-9)
    assert m.warnings == ()
    assert m.calls_per_sample == 1
    assert len(m.samples_ns) == pytest.approx(250, abs=2)
    assert str(m) == f"steady: 2 ms [2, 2], {len(m.samples_ns)} samples of 1 calls"


@pytest.mark.parametrize("call_ns", [10, 90, 700, 5_000, 19_000])
def test_short_calls_are_timed_in_batches_that_are_long_for_the_clock(monkeypatch, call_ns):
    clock = Clock(monkeypatch, lambda call: call_ns)
    m = ScientificTimer(budget_s=0.01).measure_function(clock.func)
    assert m.calls_per_sample * call_ns == pytest.approx(SAMPLE_NS, rel=0.5)
    assert m.median_time_ms * MS == pytest.approx(call_ns, rel=0.01)


def test_a_first_call_that_compiles_is_reported_apart_and_calibrates_nothing(monkeypatch):
    clock = Clock(monkeypatch, lambda call: 300 * MS if call == 1 else 1_000)
    m = ScientificTimer(budget_s=0.01).measure_function(clock.func)
    assert m.first_call_ms == pytest.approx(300, rel=1e-3)
    assert m.median_time_ms == pytest.approx(0.001, rel=0.01)
    (warning,) = m.warnings
    assert warning.code == "slow-first-call"
    assert "the first call took 300 ms" in str(warning)
    assert warning.remedy in str(warning)


def test_slow_calls_are_made_no_more_often_than_an_interval_needs(monkeypatch):
    clock = Clock(monkeypatch, lambda call: 3000 * MS)
    m = ScientificTimer(budget_s=0.5, warmup_runs=1).measure_function(clock.func)
    assert len(m.samples_ns) == 6
    assert clock.calls == 6 + 2
    assert m.ci_low_ms == pytest.approx(3000, rel=1e-3)


@pytest.mark.parametrize("runs", [1, 4, 25])
def test_as_many_samples_are_taken_as_asked_for(monkeypatch, runs):
    clock = Clock(monkeypatch, lambda call: 1 * MS)
    m = ScientificTimer(budget_s=0.001, measurement_runs=runs, warmup_runs=5).measure_function(clock.func)
    assert len(m.samples_ns) == runs
    assert clock.calls == runs + 5
    codes = [warning.code for warning in m.warnings]
    assert codes == (["too-few-samples"] if runs < 6 else [])
    if runs < 6:
        assert (m.ci_low_ms, m.ci_high_ms) == (0.0, np.inf)


def test_the_mean_sees_what_the_median_does_not(monkeypatch):
    clock = Clock(monkeypatch, lambda call: 100 * MS if call % 10 == 0 else 1 * MS)
    m = ScientificTimer(measurement_runs=50).measure_function(clock.func)
    assert m.median_time_ms == pytest.approx(1, rel=1e-3)
    assert m.mean_time_ms == pytest.approx(10.9, rel=0.01)
    assert [warning.code for warning in m.warnings] == ["heavy-tail"]


def test_a_median_that_is_not_known_well_is_told(monkeypatch):
    times = np.random.default_rng(0).lognormal(0, 0.5, 1000)
    clock = Clock(monkeypatch, lambda call: int(MS * times[call]))
    m = ScientificTimer(measurement_runs=20).measure_function(clock.func)
    (warning,) = m.warnings
    assert warning.code == "unstable"
    assert m.ci_low_ms < m.median_time_ms < m.ci_high_ms
    assert m.coefficient_of_variation == pytest.approx(m.std_time_ms / m.mean_time_ms)


def test_samples_are_kept_in_the_order_in_which_they_ran(monkeypatch):
    clock = Clock(monkeypatch, lambda call: call * MS)
    m = ScientificTimer(measurement_runs=6, warmup_runs=3).measure_function(clock.func)
    assert (m.samples_ns // MS).tolist() == [4, 5, 6, 7, 8, 9]


def test_arguments_reach_the_function():
    seen = []
    timer = ScientificTimer(measurement_runs=1)
    timer.measure_function(lambda *args, **kwargs: seen.append((args, kwargs)), (1, 2), {"c": 3})
    timer.measure_function(lambda *args, **kwargs: seen.append((args, kwargs)), [4])
    assert {repr(entry) for entry in seen} == {"((1, 2), {'c': 3})", "((4,), {})"}


def test_the_state_of_the_process_is_put_back_after_an_error():
    before = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    with pytest.raises(ZeroDivisionError):
        ScientificTimer().measure_function(lambda: 1 / 0)
    assert before is None or os.sched_getaffinity(0) == before


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: ScientificTimer(budget_s=0), "`budget_s` must be a positive number of seconds, got 0"),
        (lambda: ScientificTimer(budget_s="1"), "`budget_s` .* got '1'"),
        (lambda: ScientificTimer(warmup_runs=-1), "`warmup_runs` must be an integer of zero or more, got -1"),
        (
            lambda: ScientificTimer(measurement_runs=0),
            "`measurement_runs` must be a positive integer or None",
        ),
        (lambda: ScientificTimer(measurement_runs=True), "`measurement_runs` .* got True"),
        (
            lambda: ScientificTimer(threads=0),
            "`threads` of ScientificTimer must be a positive integer or 'all'",
        ),
        (lambda: ScientificTimer().measure_function(3), "`func` must be callable, got 3"),
        (lambda: ScientificTimer().measure_function(len, "ab"), r"`args` must be a tuple .* write \(x,\)"),
        (lambda: ScientificTimer().measure_function(len, np.ones(3)), "`args` must be a tuple"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(make, said):
    with pytest.raises(ValueError, match=said):
        make()


def test_a_sample_is_the_time_of_so_many_calls(monkeypatch):
    clock = Clock(monkeypatch, lambda call: 1_000)
    assert timed(clock.func, 1) == 1_050
    assert timed(clock.func, 7) == 7_050
    assert clock.calls == 8


def test_calls_are_calibrated_from_a_batch_since_one_call_is_too_short_for_the_clock(monkeypatch):
    clock = Clock(monkeypatch, lambda call: 10)
    assert calibrated_calls(clock.func, 60) == pytest.approx(2000, rel=0.25)
    assert calibrated_calls(clock.func, SAMPLE_NS + 1) == 1
