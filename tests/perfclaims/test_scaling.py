"""Growth on a made-up clock: every size as often as every other, in rounds, within budget and time."""

from collections import Counter

import numpy as np
import pytest

from perfclaims import scaling, timing
from perfclaims.exponent import exponent_interval
from perfclaims.implementation import Implementation
from perfclaims.scaling import measure_scaling

MS = 1_000_000


class Clock:
    def __init__(self, monkeypatch):
        self.now = 0
        for module in (scaling, timing):
            monkeypatch.setattr(module, "_clock", self)

    def __call__(self):
        self.now += 50
        return self.now

    def spend(self, ns):
        self.now += int(ns)


def measured(monkeypatch, ns_of, sizes=(10, 20, 40), *, building_ns=0, limit_s=np.inf, **options):
    """Time something that takes `ns_of(size)`; also what was built, and the clock."""
    clock, built = Clock(monkeypatch), []

    def build(size):
        built.append(size)
        clock.spend(building_ns)
        return lambda: clock.spend(ns_of(size))

    options = {"label": None, "budget_s": 0.25, "confidence": 0.95, "seed": 0, "threads": 1, **options}
    found = measure_scaling(build, sizes, time_left=lambda: limit_s - clock.now / 1e9, **options)
    return found, built, clock


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0, 3.0])
def test_a_planted_exponent_is_found(monkeypatch, exponent):
    found, _, _ = measured(monkeypatch, lambda size: 20_000 * size**exponent)
    assert not exponent_interval(found).excludes(exponent)
    assert exponent_interval(found).half_width < 0.01


def test_ten_instances_time_every_size_and_the_budget_is_kept(monkeypatch):
    found, built, clock = measured(monkeypatch, lambda size: MS * size / 20)
    assert found.instances == 10
    assert Counter(built) == {10: 10, 20: 10, 40: 10}
    assert set(zip(found.instance.tolist(), found.size_index.tolist(), strict=True)) == {
        (i, s) for i in range(10) for s in range(3)
    }
    assert found.duration_ns.sum() / 1e9 <= 0.25
    assert clock.now / 1e9 < 0.4
    assert found.warnings == ()


def test_sizes_are_visited_in_an_order_that_changes(monkeypatch):
    found, _, _ = measured(monkeypatch, lambda size: MS)
    orders = set()
    for instance in range(found.instances):
        visited = found.size_index[found.instance == instance]
        orders.add(tuple(visited[np.flatnonzero(np.diff(visited, prepend=-1))]))
    assert all(sorted(order) == [0, 1, 2] for order in orders)
    assert len(orders) > 2


def test_calls_too_short_for_the_clock_are_batched(monkeypatch):
    found, _, _ = measured(monkeypatch, lambda size: size * 10)
    assert all(
        calls * size * 10 == pytest.approx(20_000, rel=0.5)
        for calls, size in zip(found.calls, found.sizes, strict=True)
    )
    assert not exponent_interval(found).excludes(1.0) or abs(exponent_interval(found).estimate - 1) < 0.01


def test_slow_calls_get_six_instances_of_one_sample_and_no_second_warm_up(monkeypatch):
    calls = Counter()

    def slow(size):
        calls[size] += 1
        return 200 * MS

    found, _, _ = measured(monkeypatch, slow)
    assert found.instances == 6
    assert len(found.duration_ns) == 18
    assert set(calls.values()) == {7}


def test_the_first_sample_of_a_visit_is_a_warm_up_where_it_is_cheap(monkeypatch):
    """Each size is slow once after another size ran: that must not be in the samples."""
    last = []

    def cold(size):
        slow = 5 if last != [size] else 1
        last[:] = [size]
        return slow * 100_000

    found, _, _ = measured(monkeypatch, cold)
    assert found.duration_ns.max() < 200_000


def test_a_time_limit_ends_it_and_says_how_much_would_be_needed(monkeypatch):
    found, _, clock = measured(monkeypatch, lambda size: 500 * MS, limit_s=6.0)
    assert clock.now / 1e9 <= 6
    assert 0 < found.instances < 6
    (warning,) = found.warnings
    assert "are too few for an interval: 6 are needed" in warning
    assert "raise the time limit" in warning
    assert not exponent_interval(found).exists


def test_slow_building_counts_against_the_time_limit(monkeypatch):
    found, _, clock = measured(monkeypatch, lambda size: MS, building_ns=300 * MS, limit_s=8.0)
    assert clock.now / 1e9 <= 8
    assert 6 <= found.instances < 10


def test_the_generator_is_passed_where_it_is_taken_and_differs_by_size_and_instance():
    drawn = []

    def build(size, rng):
        drawn.append(rng.random())
        return lambda: None

    measure_scaling(build, [1, 2], label=None, budget_s=0.001, confidence=0.95, seed=3, threads=1)
    assert len(drawn) == len(set(drawn)) >= 12


def test_an_implementation_may_be_built_and_is_given_a_generator():
    found = measure_scaling(
        lambda size: Implementation("x", lambda rng: rng.random),
        np.array([1.0, 2.0]),
        label="x",
        budget_s=0.001,
        confidence=0.95,
        seed=0,
        threads="all",
    )
    assert (found.label, found.threads, found.cpu) == ("x", "all", None)
    assert found.sizes == (1.0, 2.0)


@pytest.mark.parametrize(
    ("build", "sizes", "said"),
    [
        (None, [1, 2], r"`build_for_size` must be callable as build_for_size\(size\), got None"),
        (len, [1], r"`sizes` must be two or more different positive numbers, got \[1\]"),
        (len, [3, 3], "`sizes` must be two or more different"),
        (len, [1, 2, 2], r"`sizes` must not repeat, got \[1, 2, 2\]"),
        (len, [0, 1], "positive numbers"),
        (len, ["1", 2], "positive numbers"),
        (len, 5, "positive numbers, got 5"),
        (lambda size: 5, [1, 2], r"`build_for_size\(1\)` must return the callable to be timed, got 5"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(build, sizes, said):
    with pytest.raises(ValueError, match=said):
        measure_scaling(build, sizes, label=None, budget_s=0.01, confidence=0.95, seed=0, threads=1)
