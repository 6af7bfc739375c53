"""Instances in this process: what is built, on which arguments it is called, and what belongs to a call."""

import gc
import random
import sys
from collections import Counter, namedtuple

import numpy as np
import psutil
import pytest

from perfclaims import instances
from perfclaims.conditions import prepare_process
from perfclaims.implementation import Implementation
from perfclaims.instances import LocalSource
from perfclaims.outputs import Tolerance, compare


def vectors(rng):
    return (rng.standard_normal(8),)


def instance_of(baseline, optimized=None, inputs=vectors, calls=(1, 1), index=0, seed=0):
    sides = [
        Implementation(name, lambda rng, f=f: f)
        for name, f in (("a", baseline), ("b", optimized or baseline))
    ]
    instance = LocalSource(*sides, inputs, seed).build(index)
    instance.batch(*calls, 10)
    return instance


def drawn_by_builds(inputs=vectors, seed=0, instances=3):
    """First numbers that each build and the arguments of each instance draw."""
    drawn = {"a": [], "b": [], "inputs": []}

    def implementation(name):
        def build(rng):
            drawn[name].append(rng.random())
            return lambda *args: 0.0

        return Implementation(name, build)

    def noted_inputs(rng):
        drawn["inputs"].append(rng.random())
        return ()

    source = LocalSource(implementation("a"), implementation("b"), noted_inputs if inputs else None, seed)
    for index in range(instances):
        source.build(index)
    return drawn


def test_both_builds_of_an_instance_draw_the_same_and_nothing_else_does():
    drawn = drawn_by_builds()
    assert drawn["a"] == drawn["b"]
    assert len(set(drawn["a"])) == 3
    assert not set(drawn["a"]) & set(drawn["inputs"])
    assert len(set(drawn["inputs"])) == len(drawn["inputs"])
    assert drawn_by_builds()["a"] == drawn["a"]
    assert drawn_by_builds(seed=1)["a"] != drawn["a"]


def test_how_a_build_was_seeded_does_not_tell_the_other_seeds():
    seeds = []
    source = LocalSource(
        Implementation("a", lambda rng: seeds.append(rng.bit_generator.seed_seq.entropy) or len),
        Implementation("b", lambda rng: len),
        vectors,
        7,
    )
    for index in range(3):
        source.build(index)
    assert len(set(seeds)) == 3
    assert all(isinstance(seed, int) and seed > 2**64 for seed in seeds)


def test_which_side_is_built_first_is_a_coin():
    order = []

    def implementation(name):
        return Implementation(name, lambda rng: order.append(name) or len)

    source = LocalSource(implementation("a"), implementation("b"), None, 0)
    for index in range(100):
        source.build(index)
    first = Counter(order[::2])
    assert 30 < first["a"] < 70
    assert all({a, b} == {"a", "b"} for a, b in zip(order[::2], order[1::2], strict=True))


def test_arguments_are_drawn_after_both_sides_are_built():
    log = []

    def inputs(rng):
        log.append("inputs")
        return vectors(rng)

    source = LocalSource(
        Implementation("a", lambda rng: log.append("build") or len),
        Implementation("b", lambda rng: log.append("build") or len),
        inputs,
        0,
    )
    source.build(0)
    assert log[:3] == ["build", "build", "inputs"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="about the GNU C library")
@pytest.mark.parametrize("length", [40_000, 100_000])
@pytest.mark.parametrize("gaps", [0, 400])
def test_instances_differ_in_their_memory_layout(length, gaps):
    """Arrays of 320 and 800 kB: mapped afresh, all of them would stand at one offset within a page.

    On a heap with gaps, what is put between two arrays may go into these, and not between them.
    """
    prepare_process()
    sizes = random.Random(0)
    blocks = [bytearray(sizes.randrange(1_000, 200_000)) for _ in range(600 if gaps else 0)]
    for index in sizes.sample(range(len(blocks)), gaps):
        blocks[index] = None
    addresses = {"a": [], "b": []}

    def implementation(name):
        def build(rng):
            data = rng.standard_normal(length)
            addresses[name].append(data.ctypes.data)
            return lambda: data

        return Implementation(name, build)

    source = LocalSource(implementation("a"), implementation("b"), None, 0)
    kept = [source.build(index) for index in range(10)]
    assert len({address % 4096 for address in addresses["a"] + addresses["b"]}) > 10
    apart = [abs(a - b) % 4096 for a, b in zip(addresses["a"], addresses["b"], strict=True)]
    assert len(set(apart)) > 5, "how the two sides lie to each other matters most"
    del kept, blocks


def test_an_error_while_building_names_the_implementation():
    def broken(rng):
        raise OSError("planted")

    source = LocalSource(Implementation("a", lambda rng: len), Implementation("b", broken), None, 0)
    with pytest.raises(OSError, match="planted") as caught:
        source.build(0)
    assert caught.value.__notes__ == ["raised while building the optimised 'b'"]


Memory = namedtuple("Memory", "available")


@pytest.mark.parametrize(("free_bytes", "room"), [(1 << 30, True), (60 << 20, False)])
def test_there_is_room_while_one_more_instance_takes_half_of_the_free_memory(monkeypatch, free_bytes, room):
    # 40 MB for an instance; what a process really takes depends on what it freed before.
    resident = iter([100 << 20, 140 << 20])
    monkeypatch.setattr(instances, "_resident_bytes", lambda: next(resident))
    source = LocalSource(Implementation("a", lambda rng: len), Implementation("b", lambda rng: len), None, 0)
    source.build(0)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: Memory(free_bytes))
    assert source.has_room() == room


def test_whether_instances_are_rebuilt_follows_from_both_sides():
    built, single = Implementation("a", lambda rng: len), Implementation.of("b", len)
    assert LocalSource(built, built, None, 0).rebuilt
    assert not LocalSource(built, single, None, 0).rebuilt
    assert not LocalSource(single, built, None, 0).rebuilt


class Recorder:
    """Keeps the identity of what it is called with."""

    def __init__(self):
        self.calls = []

    def __call__(self, *args):
        self.calls.append(tuple(id(arg) for arg in args))
        return 1.0


@pytest.mark.parametrize("calls", [(1, 1), (2, 5), (6, 1)])
def test_a_sample_is_so_many_calls_on_the_sets_of_its_position(calls):
    recorders = Recorder(), Recorder()
    instance = instance_of(*recorders, calls=calls)
    used = []
    for position in range(6):
        for recorder in recorders:
            recorder.calls.clear()
        assert instance.baseline.sample(position) > 0
        assert instance.optimized.sample(position) > 0
        a, b = (recorder.calls for recorder in recorders)
        assert (len(a), len(b)) == calls
        assert len(set(a)) == calls[0]
        assert a[0] == b[0], "both sides start on the same arguments"
        used.append(a[0])
    assert used[0] != used[1]


@pytest.mark.parametrize("calls", [1, 4])
def test_without_inputs_a_sample_calls_without_arguments(calls):
    recorder = Recorder()
    instance = instance_of(recorder, inputs=None, calls=(calls, calls))
    recorder.calls.clear()
    instance.baseline.sample(3)
    assert recorder.calls == [()] * calls


def test_the_check_is_one_call_on_the_first_set_and_its_snapshot_stays():
    buffer = np.zeros(1)

    def call(x):
        buffer[0] += 1
        return buffer

    instance = instance_of(call)
    duration, output = instance.baseline.call()
    instance.baseline.call()
    assert duration > 0
    assert compare(np.ones(1), output, Tolerance()).matched


def test_the_last_sample_keeps_the_output_of_its_last_call():
    instance = instance_of(lambda x: x.sum(), calls=(4, 4))
    assert instance.lay_out_last(4, 4) == (4, 4)
    for position in (0, 1):
        _, output = instance.optimized.last_sample(position)
        assert compare(instance.baseline.last_output(position, 3), output, Tolerance()).matched
        assert not compare(instance.baseline.last_output(position, 2), output, Tolerance()).matched
        assert not compare(instance.baseline.last_output(1 - position, 3), output, Tolerance()).matched


def test_drawing_anew_reaches_both_sides():
    instance = instance_of(lambda x: x[0])
    instance.baseline.call()
    before = instance.optimized.last_output(0, 0)
    assert instance.redraw() == []
    after = instance.baseline.last_output(0, 0)
    assert not compare(before, after, Tolerance()).matched
    assert compare(after, instance.optimized.last_output(0, 0), Tolerance()).matched


class Tensor:
    reads = 0

    def __init__(self, data):
        self.data = data

    def numpy(self):
        Tensor.reads += 1
        return self.data


@pytest.mark.parametrize("wrap", [lambda t: t, lambda t: {"logits": t}, lambda t: (t, 1.0)])
@pytest.mark.parametrize("calls", [1, 3])
def test_reading_an_answer_belongs_to_every_timed_call(wrap, calls):
    instance = instance_of(lambda x: wrap(Tensor(x)), calls=(calls, calls))
    instance.lay_out_last(calls, calls)
    instance.baseline.call()
    Tensor.reads = 0
    instance.baseline.sample(0)
    assert Tensor.reads == calls
    instance.baseline.last_sample(0)
    assert Tensor.reads == 2 * calls


def test_an_answer_that_is_sometimes_an_array_is_read_when_it_is_not():
    kinds = [Tensor, Tensor, np.asarray, Tensor]

    def call(x):
        return kinds.pop()(x)

    instance = instance_of(call)
    instance.baseline.call()
    for _ in range(3):
        instance.baseline.sample(0)
    assert kinds == []


def test_an_error_inside_reading_is_not_taken_for_an_array():
    class Broken(Tensor):
        def numpy(self):
            raise AttributeError("planted")

    with pytest.raises(AttributeError, match="planted"):
        instance_of(Broken).baseline.call()


def test_an_answer_that_was_never_read_does_not_match_afterwards():
    answers = [Tensor, lambda x: x]

    def call(x):
        return answers.pop()(x)

    instance = instance_of(lambda x: x, call)
    instance.lay_out_last(1, 1)
    instance.optimized.call()
    _, output = instance.optimized.last_sample(0)
    comparison = compare(instance.baseline.last_output(0, 0), output, Tolerance())
    assert not comparison.matched


@pytest.mark.parametrize("what", ["call", "sample", "last_sample", "last_output"])
@pytest.mark.parametrize("side", ["baseline", "optimized"])
def test_an_error_names_the_side_and_the_implementation(what, side):
    def broken(x):
        raise OSError("planted")

    instance = instance_of(broken)
    arguments = {"call": (), "last_output": (0, 0)}.get(what, (0,))
    with pytest.raises(OSError, match="planted") as caught:
        getattr(getattr(instance, side), what)(*arguments)
    names = {"baseline": "the baseline 'a'", "optimized": "the optimised 'b'"}
    assert caught.value.__notes__ == [f"raised by {names[side]}"]


@pytest.mark.parametrize("what", ["call", "sample", "last_sample", "last_output"])
def test_a_call_with_wrong_arguments_is_told_where_arguments_come_from(what):
    def notes_of(func, inputs):
        source = LocalSource(Implementation.of("a", func), Implementation.of("b", func), inputs, 1)
        instance = source.build(0)
        instance.batch(1, 1, 10)
        instance.lay_out_last(1, 1)
        arguments = {"call": (), "last_output": (0, 0)}.get(what, (0,))
        with pytest.raises(TypeError) as caught:
            getattr(instance.optimized, what)(*arguments)
        assert caught.value.__notes__[0] == "raised by the optimised 'b'"
        return caught.value.__notes__[1:]

    for takes_two in (np.dot, lambda x, y: x):
        (without,) = notes_of(takes_two, None)
        assert (
            "called without arguments, since no `inputs` was given: pass inputs=lambda rng: (x, ...)"
            in without
        )
        (with_one,) = notes_of(takes_two, lambda rng: (rng.random(3),))
        assert with_one == "it was called with what `inputs` returned: 1 argument"
    # An error from within says nothing about its arguments.
    assert notes_of(lambda: len(5), None) == []


def test_samples_leave_no_garbage_behind():
    instance = instance_of(lambda x: x)
    instance.baseline.sample(0)
    gc.collect()
    gc.disable()
    try:
        before = gc.get_count()[0]
        for position in range(1000):
            instance.baseline.sample(position)
        assert gc.get_count()[0] - before < 50
    finally:
        gc.enable()
