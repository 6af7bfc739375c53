"""A trace is what the Trace Event Format asks for: every record in its time, in its thread, in its layer."""

import json
import threading

import numpy as np
import pytest

import tinytorch as tt
from tinytorch.core.layers import Layer
from tinytorch.core.tensor import Tensor, apply
from tinytorch.perf.profiling import FLOPCounter, Profiler, recording

MS = 10**6


@pytest.fixture
def clock(monkeypatch):
    """A clock in nanoseconds that only work advances."""

    class Clock:
        now = 10**15

        def __call__(self):
            return self.now

        def work(self, duration_ms):
            self.now += int(duration_ms * MS)

    clock = Clock()
    monkeypatch.setattr(recording, "perf_counter_ns", clock)
    return clock


def operation(clock, duration_ms, name):
    """A rule that takes that long."""

    def rule(x):
        clock.work(duration_ms)
        return x + 1, (lambda g: g,)

    rule.__name__ = name
    return rule


class Inner(Layer):
    """2 ms, and an operation of 3 ms."""

    def __init__(self, clock):
        self.clock = clock

    def forward(self, x):
        self.clock.work(2)
        return apply(operation(self.clock, 3, "three"), x)


class Outer(Layer):
    """4 ms, an inner layer, an operation of 5 ms, 3 ms, and another inner layer."""

    def __init__(self, clock):
        self.clock = clock
        self.first, self.second = Inner(clock), Inner(clock)

    def forward(self, x):
        self.clock.work(4)
        x = apply(operation(self.clock, 5, "five"), self.first(x))
        self.clock.work(3)
        return self.second(x)


def written(profiler, path):
    """The events of the trace, by phase, once they are known to be valid."""
    profiler.to_chrome_trace(path)
    document = json.loads(path.read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert document.keys() == {"traceEvents", "displayTimeUnit"}
    assert document["displayTimeUnit"] in {"ms", "ns"}
    phases = {"M": [], "X": []}
    for event in document["traceEvents"]:
        phases[event["ph"]].append(event)
        assert isinstance(event["name"], str)
        assert type(event["pid"]) is type(event["tid"]) is int
        assert isinstance(event["args"], dict)
    check_metadata(phases)
    for tid in {event["tid"] for event in phases["X"]}:
        check_nesting([event for event in phases["X"] if event["tid"] == tid])
    return phases


def check_metadata(phases):
    """Every process and every thread has one name."""
    named = {"process_name": [], "thread_name": []}
    for event in phases["M"]:
        assert list(event["args"]) == ["name"]
        assert isinstance(event["args"]["name"], str)
        named[event["name"]].append((event["pid"], event["tid"]))
    assert len(named["process_name"]) == 1
    assert sorted(named["thread_name"]) == sorted({(event["pid"], event["tid"]) for event in phases["X"]})
    assert {event["pid"] for event in phases["X"]} <= {named["process_name"][0][0]}


def check_nesting(events):
    """Of two events of one thread, one lies inside of the other or after it; times are whole nanoseconds."""
    open_until = []
    for event in events:
        assert {"ts", "dur", "cat"} <= event.keys()
        start_ns, duration_ns = round(1e3 * event["ts"]), round(1e3 * event["dur"])
        assert start_ns >= 0
        assert duration_ns >= 0
        assert (start_ns / 1e3, duration_ns / 1e3) == (event["ts"], event["dur"])  # microseconds
        end_ns = start_ns + duration_ns
        while open_until and open_until[-1] <= start_ns and open_until[-1] < end_ns:
            open_until.pop()
        assert not open_until or end_ns <= open_until[-1]
        open_until.append(end_ns)


def test_a_trace_has_every_record_at_its_time(clock, tmp_path):
    path = tmp_path / "trace.json"
    with Profiler() as p:
        Outer(clock)(Tensor([1.0]))
    found = [(e["ts"], e["dur"], e["name"], e["cat"]) for e in written(p, path)["X"]]
    assert found == [
        (0, 22_000, "Outer", "layer"),
        (4_000, 5_000, "Inner", "layer"),
        (6_000, 3_000, "three", "operation"),
        (9_000, 5_000, "five", "operation"),
        (17_000, 5_000, "Inner", "layer"),
        (19_000, 3_000, "three", "operation"),
    ]
    assert list(tmp_path.iterdir()) == [path]


def test_a_trace_of_training_is_valid_and_complete(tmp_path):
    model = tt.GPT(11, 12, 2, 3, 8, rng=np.random.default_rng(0)).train()
    ids = np.random.default_rng(1).integers(0, 11, (4, 6))
    with Profiler() as p:
        for _ in range(3):
            tt.CrossEntropyLoss()(model(ids), ids).backward()
    found = written(p, tmp_path / "trace.json")["X"]
    assert len(found) == p.records
    assert sum(e["args"]["flops"] for e in found) == sum(row.flops for row in p.by_operation())
    assert sum(e["args"].get("bytes", 0) for e in found) == sum(row.bytes for row in p.by_operation())
    whole_us = max(e["ts"] + e["dur"] for e in found)
    assert whole_us <= 1e3 * p.elapsed_ms


def test_layers_that_are_still_running_last_until_what_is_inside_has_ended(clock, tmp_path):
    class Around(Layer):
        def __init__(self):
            self.inner = Outer(clock)

        def forward(self, x):
            x = self.inner(x)
            clock.work(1)
            self.events = written(p, tmp_path / "trace.json")["X"]
            return x

    model = Around()
    with Profiler() as p:
        tt.Sequential(model)(Tensor([1.0]))
    found = [(e["ts"], e["dur"], e["name"]) for e in model.events]
    assert found[:3] == [(0, 22_000, "Sequential"), (0, 22_000, "Around"), (0, 22_000, "Outer")]
    done = [(e["dur"], e["name"]) for e in written(p, tmp_path / "trace.json")["X"]]
    assert done[:3] == [(23_000, "Sequential"), (23_000, "Around"), (22_000, "Outer")]


def test_every_thread_has_a_track_of_its_own(tmp_path):
    p, together = Profiler(), threading.Barrier(3, timeout=10)

    class Meeting(Layer):
        """Runs at the same time in all threads, and ends in none before it began in all."""

        def __init__(self):
            self.inner = tt.ReLU()

        def forward(self, x):
            together.wait()
            x = self.inner(x)
            together.wait()
            return x

    def run():
        with p:
            Meeting()(Tensor([1.0]))

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    phases = written(p, tmp_path / "trace.json")
    tracks = [(e["tid"], e["name"]) for e in phases["X"]]
    assert tracks == [(tid, name) for tid in (1, 2, 3) for name in ("Meeting", "ReLU", "relu")]
    assert [e["args"]["name"] for e in phases["M"]] == ["tinytorch", "thread 1", "thread 2", "thread 3"]


def test_flops_by_formulas_of_numpy_numbers_can_be_written(tmp_path):
    counter = FLOPCounter()
    counter.register(Inner, lambda layer, given, made: np.int64(7))
    with Profiler(counter) as p:
        Inner(type("Clock", (), {"work": lambda self, ms: None})())(Tensor([1.0]))
    assert [e["args"]["flops"] for e in written(p, tmp_path / "trace.json")["X"]] == [7, 0]


def test_an_empty_trace_is_one_too(tmp_path):
    with Profiler() as p:
        pass
    phases = written(p, tmp_path / "trace.json")
    assert (len(phases["M"]), phases["X"]) == (1, [])


def test_a_trace_needs_a_folder(tmp_path):
    for folder in (tmp_path, str(tmp_path), ""):
        with pytest.raises(ValueError, match="`path` must be that of a file, got the folder '"):
            Profiler().to_chrome_trace(folder)
    with pytest.raises(ValueError, match="`path` must lie in a folder that exists, got"):
        Profiler().to_chrome_trace(tmp_path / "missing" / "trace.json")
