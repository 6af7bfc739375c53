"""The cost of recording is that of every kind of record, each as often as it was made."""

import itertools

import numpy as np
import pytest

import tinytorch as tt
from tinytorch.core.tensor import OBSERVER, Tensor
from tinytorch.perf.profiling import Profiler, overhead, recording

STEP = tt.Sequential(tt.Linear(4, 6), tt.GELU(), tt.Linear(6, 3))


def forward():
    with tt.no_grad():
        STEP(Tensor(np.ones((2, 4))))


def keeping():
    STEP(Tensor(np.ones((2, 4))))


def training():
    STEP(Tensor(np.ones((2, 4)))).sum().backward()


def layers():
    tt.Sequential(tt.Sequential(), tt.Sequential())(Tensor([1.0]))


def operations():
    with tt.no_grad():
        Tensor([1.0]) + 1 + 2


@pytest.fixture
def clock(monkeypatch):
    """A clock that every look takes 1 us of, so that recording costs what it looks at it."""
    ticks = itertools.count(10**9, 1000)
    for module in (recording, overhead):
        monkeypatch.setattr(module, "perf_counter_ns", lambda: next(ticks))


@pytest.mark.parametrize(
    ("run", "looks"),
    [
        (forward, 4 * 2 + 3 * 3),  # two for each layer, three for each operation inside of one
        (keeping, 4 * 2 + 3 * 3),
        # The sum runs outside of layers, where there is a look less, and is taken for one inside. The input
        # wants no gradient: two derivatives and three of the linear layers, one of GELU, one of the sum.
        (training, 4 * 2 + 4 * 3 + 7 * 2),
        (layers, 3 * 2),
        (operations, 2 * 3),
    ],
)
def test_what_each_kind_of_record_costs_is_added_up(clock, run, looks):
    with Profiler() as p:
        run()
    assert 1e3 * p.overhead_ms == pytest.approx(looks)


@pytest.mark.parametrize(
    ("run", "us"),
    [
        (forward, 4 * 1 + 3 * 10),
        (keeping, 4 * 1 + 3 * 10 + 3 * 100),
        (training, 4 * 1 + 4 * 10 + 4 * 100 + 7 * 1000),
        (layers, 3 * 1),
        (operations, 2 * 10),
    ],
)
def test_every_kind_has_its_own_cost(monkeypatch, run, us):
    """1 us for a layer, 10 for an operation, 100 where one is kept for backward(), 1000 for a derivative."""
    costs = {
        overhead._empty_layers: overhead._Added(7 * 1, 7, 0, 0, 0),
        overhead._forward: overhead._Added(5 * 1 + 6 * 10, 5, 6, 0, 0),
        overhead._forward_keeping: overhead._Added(5 * 1 + 6 * 10 + 9 * 100, 5, 6, 9, 0),
        overhead._backward: overhead._Added(8 * 1000, 5, 7, 9, 8),
    }
    monkeypatch.setattr(overhead, "_added", costs.__getitem__)
    with Profiler() as p:
        run()
    assert 1e3 * p.overhead_ms == pytest.approx(us)


def test_nothing_recorded_costs_nothing():
    with Profiler() as p:
        pass
    assert p.overhead_ms == 0


def test_measuring_the_cost_inside_of_a_block_is_not_recorded_there():
    with Profiler() as p, tt.no_grad():
        keeping()
        before, listening = p.records, OBSERVER.get()
        assert p.overhead_ms > 0
        assert p.records == before
        assert OBSERVER.get() is listening


def test_the_report_divides_the_cost_by_the_number_of_records(clock):
    with Profiler() as p:
        forward()
    # All times come from the same clock, but for that of the block.
    assert "recording itself: 7 records of 2.43 us, 0.017 ms or " in p.report()
