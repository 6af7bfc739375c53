"""Deferred outputs count how often they are read; buffers are shared on purpose."""

from collections import OrderedDict, namedtuple
from dataclasses import dataclass

import numpy as np
import pytest

from perfclaims.outputs import Tolerance, compare, needs_reading, read, share_storage

Pair = namedtuple("Pair", "first second")  # noqa: PYI024


class Lazy:
    def __init__(self, answer):
        self.answer = answer
        self.reads = 0

    def numpy(self):
        self.reads += 1
        return self.answer


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
    lambda lazy: Result(lazy),
    lambda lazy: [Result((lazy,))],
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
