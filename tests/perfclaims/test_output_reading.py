"""Deferred outputs count how often they are read; buffers are shared on purpose."""

from collections import OrderedDict, namedtuple
from dataclasses import dataclass

import numpy as np
import pytest

from perfclaims import output_nodes
from perfclaims.outputs import Tolerance, compare, needs_reading, read, share_storage, snapshot

Pair = namedtuple("Pair", "first second")
RIGHT = np.array([1.0, 2.0, 3.0])


class Lazy:
    def __init__(self, answer):
        self.answer = answer
        self.reads = 0

    def numpy(self):
        self.reads += 1
        return self.answer


class Hiding(list):
    def __iter__(self):
        return iter(())


@dataclass
class Result:
    logits: object


class Subclass(np.ndarray):
    def numpy(self):
        raise AssertionError("an array holds its content")


PLACES = [
    lambda lazy: lazy,
    lambda lazy: [1.0, lazy],
    lambda lazy: (None, {"a": [lazy]}),
    lambda lazy: OrderedDict(a=lazy),
    lambda lazy: Pair("x", lazy),
    Result,
    lambda lazy: [Result((lazy,))],
    lambda lazy: Hiding([lazy]),
]


@pytest.mark.parametrize("place", PLACES)
def test_a_deferred_answer_is_found_and_read_once_wherever_it_is(place):
    lazy = Lazy(np.arange(3.0))
    output = place(lazy)
    assert needs_reading(output)
    assert lazy.reads == 0
    answer = read(output)
    assert lazy.reads == 1
    assert not needs_reading(answer)
    assert compare(place(np.arange(3.0)), answer, Tolerance()).matched
    assert lazy.reads == 1


@pytest.mark.parametrize(
    "output",
    [
        np.ones(3),
        np.float64(1),
        1.0,
        None,
        "text",
        [[1.0, 2.0], (3, None)],
        {"a": Result(np.ones(2))},
        {1, 2},
        object(),
        np.ones(2).view(Subclass),
        np.array([Lazy(1)], dtype=object),
    ],
    ids=repr,
)
def test_an_output_without_deferred_answers_needs_no_reading(output):
    assert not needs_reading(output)


def test_reading_keeps_arrays_and_numbers_as_they_are():
    array = np.ones(2)
    assert read(array) is array
    answer = read({"a": (array, 3, "x"), "b": [None]})
    assert answer == {"a": (array, 3, "x"), "b": [None]}
    assert answer["a"][0] is array


def test_an_answer_that_is_no_array_does_not_match_and_is_not_read_again():
    inner = Lazy(np.ones(2))
    answer = read(Lazy(inner))
    found = compare(np.ones(2), answer, Tolerance())
    assert not found.matched
    assert ".numpy() of a Lazy must return an ndarray, got a Lazy" in found.message
    assert inner.reads == 0


@pytest.mark.parametrize(
    "hide",
    [
        lambda lazy: np.array([lazy, None], dtype=object),
        lambda lazy: np.array([(lazy,)], dtype=[("a", "O")]),
        lambda lazy: output_nodes.SequenceNode((lazy,)),
        lambda lazy: output_nodes.MappingNode({"a": lazy}),
        output_nodes.PlainNode,
        Lazy,
        lambda lazy: Lazy(np.array([lazy], dtype=object)),
        lambda lazy: {lazy: 1.0},
        lambda lazy: {lazy},
    ],
)
def test_work_hidden_from_the_timed_reading_is_not_done_after_the_clock_either(hide):
    lazy = Lazy(RIGHT)
    taken = read(hide(lazy))
    in_time = lazy.reads
    snapshot(taken)
    snapshot(hide(lazy), may_read=False)
    assert not compare(RIGHT, taken, Tolerance()).matched
    assert lazy.reads == in_time


class Moody:
    """Has `.numpy()` only from the second look on."""

    def __init__(self):
        self.looks = 0

    @property
    def numpy(self):
        self.looks += 1
        return None if self.looks == 1 else lambda: RIGHT


def test_an_object_that_hides_its_method_at_first_is_refused_by_a_snapshot_that_may_not_read():
    output = Moody()
    assert not needs_reading(output)
    assert not compare(RIGHT, snapshot(output, may_read=False), Tolerance()).matched


def test_what_numpy_raises_is_not_hidden():
    class Broken:
        def numpy(self):
            raise RuntimeError("requires grad")

    for function in (read, lambda output: compare(output, 1.0, Tolerance())):
        with pytest.raises(RuntimeError, match="requires grad"):
            function(Broken())


@pytest.mark.parametrize("function", [needs_reading, read, lambda output: share_storage([output, 1])])
def test_cycles_are_refused_in_a_sentence(function):
    cycle = {}
    cycle["self"] = [cycle]
    with pytest.raises(ValueError, match="`output` must be nested at most 100 levels deep"):
        function(cycle)


BUFFER = np.zeros(20)


@pytest.mark.parametrize(
    "outputs",
    [
        [BUFFER, BUFFER],
        [BUFFER[:5], BUFFER[4:]],
        [BUFFER, np.ones(3), {"a": [BUFFER.reshape(4, 5)[2]]}],
        [(1.0, BUFFER[::2]), (2.0, BUFFER[2:3])],
        [BUFFER.view(Subclass), BUFFER],
        [Lazy(BUFFER), Lazy(BUFFER)],
        [Result(BUFFER), [BUFFER]],
        [Hiding([BUFFER]), [BUFFER]],
        [[1.0, shared := [2.0]], (shared,)],
        [shared_set := {1}, shared_set],
        [same := object(), same],
    ],
)
def test_outputs_in_one_memory_are_noticed(outputs):
    assert share_storage(outputs)


@pytest.mark.parametrize(
    "outputs",
    [
        [],
        [BUFFER],
        [(BUFFER, BUFFER)],
        [BUFFER.copy(), BUFFER.copy()],
        [BUFFER[:5], BUFFER[5:10], BUFFER[10:]],
        [BUFFER[::2], BUFFER[1::2]],
        [BUFFER[:0], BUFFER],
        [None, None, 1, 1, "a", "a", np.float32, np.float32, np.float64(1)],
        [constant := (1.0, "x"), constant],
        [[1.0], [1.0]],
        [Lazy(BUFFER.copy()), Lazy(BUFFER.copy())],
    ],
)
def test_outputs_in_separate_memory_are_not_suspected(outputs):
    assert not share_storage(outputs)


def test_many_outputs_with_one_shared_pair_are_told_from_many_without():
    rows = list(np.zeros((2000, 8)))
    assert not share_storage(rows)
    assert share_storage([*rows, rows[1234][3:]])
