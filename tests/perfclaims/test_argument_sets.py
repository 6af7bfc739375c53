"""Sets of arguments: how many, whose, where each call finds its own, and what is left of the old."""

import time
from collections import Counter

import numpy as np
import pytest

from perfclaims import argument_sets
from perfclaims.argument_sets import SETS_BYTES, SHARED_BYTES, ArgumentSets, Drawing


def vectors(rng):
    return (rng.standard_normal(100),)


def sets_of(inputs, calls=(1, 1), instances=10):
    sets = ArgumentSets(Drawing(inputs), np.random.default_rng(0))
    sets.batch(calls, instances)
    return sets


def flat(windows):
    return [args for window in windows for args in window]


def distinct(windows):
    return len({id(args) for args in flat(windows)})


def test_without_inputs_there_is_one_empty_set_and_a_note_that_says_what_cannot_be_seen():
    sets = ArgumentSets(Drawing(None), np.random.default_rng(0))
    (note,) = sets.batch((3, 2), 10)
    assert "pass `inputs`" in note
    assert sets.windows == ([[(), (), ()]][:1], [[(), ()]])
    assert sets.lay_out_last((3, 2)) == (3, 2)
    sets.uses += 1
    assert not sets.changed()
    assert sets.redraw() == sets.prepare_last() == sets.write_last() == []


@pytest.mark.parametrize("calls", [(1, 1), (1, 3), (7, 2), (20, 20)])
def test_k_calls_of_a_sample_are_on_k_sets_and_the_first_is_the_same_for_both_sides(calls):
    sets = sets_of(vectors, calls)
    baseline, optimized = sets.windows
    assert len(baseline) == len(optimized) >= 2
    for a, b in zip(baseline, optimized, strict=True):
        assert (len(a), len(b)) == calls
        assert len({id(args) for args in a}) == calls[0]
        assert a[0] is b[0]
    longest = max(sets.windows, key=distinct)
    assert distinct(longest) == len(flat(longest)), "no set stands at two positions"


@pytest.mark.parametrize("calls", [(1, 1), (1, 3), (7, 2), (20, 20)])
def test_the_two_positions_of_the_last_round_have_no_set_in_common(calls):
    sets = sets_of(vectors, calls)
    assert sets.lay_out_last(calls) == calls
    for windows in sets.last_windows:
        assert distinct(windows[:2]) == len(flat(windows[:2]))
    first = {id(args) for side in sets.last_windows for args in side[0]}
    second = {id(args) for side in sets.last_windows for args in side[1]}
    assert not first & second
    for position in (0, 1):
        longest = max((side[position] for side in sets.last_windows), key=len)
        assert all(sets.last_set(position, which) is args for which, args in enumerate(longest))


def test_large_arguments_are_few_and_a_sample_says_that_it_repeats_them():
    size = SETS_BYTES // 3
    drawing = Drawing(lambda rng: (np.full(size, rng.integers(250), dtype=np.uint8),))
    sets = ArgumentSets(drawing, np.random.default_rng(0))
    assert sets.batch((12, 1), 10) == []
    (note,) = sets.batch((13, 1), 10)
    assert "13 calls of a sample share 3 sets" in note
    assert distinct(sets.windows[0]) == 3
    assert sets.lay_out_last((5, 1)) == (1, 1), "in the last round no set is used twice"


def test_slow_drawing_makes_few_sets():
    def slow(rng):
        time.sleep(0.02)
        return vectors(rng)

    start = time.perf_counter()
    sets = sets_of(slow, (500, 1))
    assert distinct(sets.windows[0]) == 2
    assert time.perf_counter() - start < 1


def test_arguments_that_are_slow_to_write_are_few():
    """A thousand numbers in a tuple are compared one by one."""
    sets = sets_of(lambda rng: (tuple(rng.standard_normal(1000).tolist()),), (300, 1))
    assert distinct(sets.windows[0]) < 20


def test_instances_have_sets_of_their_own_with_other_content():
    drawing = Drawing(vectors)
    both = [drawing.sets_for(np.random.default_rng(seed)) for seed in (0, 1)]
    for sets in both:
        sets.batch((1, 1), 10)
    contents = {args[0].tobytes() for sets in both for args in flat(sets.windows[0])}
    assert len(contents) == 8


def test_all_instances_have_the_same_number_of_sets_however_long_drawing_takes():
    pauses = iter([0.01] * 8 + [0.0] * 100)

    def uneven(rng):
        time.sleep(next(pauses))
        return vectors(rng)

    drawing = Drawing(uneven)
    counts = set()
    for seed in range(3):
        sets = drawing.sets_for(np.random.default_rng(seed))
        sets.batch((30, 1), 10)
        counts.add((distinct(sets.windows[0]), sets.lay_out_last((30, 1))))
    assert len(counts) == 1


def test_huge_arguments_are_shared_by_all_instances_and_drawn_anew_once():
    drawn = Counter()

    def huge(rng):
        drawn["sets"] += 1
        return (np.full(SHARED_BYTES + 1, rng.integers(250), dtype=np.uint8),)

    drawing = Drawing(huge)
    instances = [drawing.sets_for(np.random.default_rng(seed)) for seed in range(4)]
    assert all(sets is instances[0] for sets in instances)
    (note,) = [note for sets in instances for note in sets.batch((1, 1), 10)][:1]
    assert "all instances share them" in note
    assert drawn["sets"] == 3
    for sets in instances:
        sets.uses += 1
    for sets in instances:
        assert not sets.changed()
        sets.redraw()
    assert drawn["sets"] == 5


def test_nothing_is_drawn_anew_that_was_not_used():
    sets = sets_of(vectors)
    before = flat(sets.windows[0])[0][0].copy()
    assert sets.redraw() == []
    assert np.array_equal(flat(sets.windows[0])[0][0], before)


class Tensor:
    def __init__(self, data):
        self.data = data


def contents(sets):
    return [
        np.asarray(getattr(value, "data", value) if isinstance(value, Tensor) else value).tobytes()
        for args in flat(sets.windows[0])
        for value in args
    ]


@pytest.mark.parametrize(
    ("inputs", "in_place"),
    [
        (vectors, True),
        (lambda rng: (rng.standard_normal(5), rng.integers(0, 9, (3, 3))), True),
        (lambda rng: (Tensor(rng.standard_normal(5)),), True),
        (lambda rng: (rng.standard_normal(50).tolist(),), True),
        (lambda rng: (tuple(rng.standard_normal(50).tolist()),), False),
        (lambda rng: (float(rng.standard_normal()),), False),
        (lambda rng: (rng.standard_normal(int(rng.integers(5, 5000))),), False),
    ],
)
def test_drawing_anew_gives_new_content_to_every_set_in_place_where_that_goes(inputs, in_place):
    sets = sets_of(inputs)
    objects = [id(value) for args in flat(sets.windows[0]) for value in args]
    kept = flat(sets.windows[0])
    before = contents(sets)
    sets.uses += 1
    notes = sets.redraw()
    assert not set(before) & set(contents(sets))
    same = [id(value) for args in flat(sets.windows[0]) for value in args] == objects
    assert same == in_place
    assert bool(notes) == (not in_place)
    if not in_place:
        assert "were replaced, not overwritten" in notes[0]
        assert len(notes[0]) < 250
    assert not sets.changed()
    del kept


@pytest.mark.parametrize(
    "inputs",
    [
        vectors,
        lambda rng: (Tensor(rng.standard_normal(5)),),
        lambda rng: (rng.standard_normal(50).tolist(),),
        lambda rng: (float(rng.standard_normal()),),
    ],
)
def test_the_last_round_gets_content_that_was_nowhere_before_it_is_written(inputs):
    sets = sets_of(inputs)
    sets.lay_out_last((1, 1))
    old = set(contents(sets))
    sets.uses += 1
    sets.prepare_last()
    warm = contents(sets)
    sets.write_last()
    timed = {
        np.asarray(getattr(value, "data", value) if isinstance(value, Tensor) else value).tobytes()
        for position in (0, 1)
        for value in sets.last_set(position, 0)
    }
    assert len(timed) == 2
    assert not timed & old
    assert not timed & set(warm[:2]), "what is warmed up on is not what is timed"
    assert not sets.changed()


def test_what_is_held_back_is_written_into_the_same_arrays():
    sets = sets_of(vectors)
    sets.lay_out_last((1, 1))
    arrays = [sets.last_set(position, 0)[0] for position in (0, 1)]
    sets.uses += 1
    sets.prepare_last()
    sets.write_last()
    assert all(sets.last_set(position, 0)[0] is arrays[position] for position in (0, 1))


def test_the_same_arguments_again_are_told():
    constant = np.arange(5.0)
    sets = sets_of(lambda rng: (constant.copy(),))
    sets.uses += 1
    (note,) = sets.redraw()
    assert "gave the same arguments again" in note


@pytest.mark.parametrize("index", [0, 2])
def test_a_written_argument_is_noticed_until_it_is_drawn_anew(index):
    sets = sets_of(vectors)
    assert not sets.changed()
    flat(sets.windows[0])[index][0][7] += 1e-9
    sets.uses += 1
    assert sets.changed()
    assert sets.changed(first_only=True) == (index == 0)
    sets.uses += 1
    sets.redraw()
    assert not sets.changed()


def test_a_written_argument_is_noticed_in_the_last_round():
    sets = sets_of(vectors)
    sets.lay_out_last((1, 1))
    sets.prepare_last()
    sets.write_last()
    assert not sets.changed()
    sets.last_set(1, 0)[0][0] += 1
    sets.uses += 1
    assert sets.changed()


def test_arguments_are_looked_at_once_after_every_use(monkeypatch):
    """Of huge arguments that ten instances share, a look takes seconds."""
    sets = sets_of(vectors)
    looks = []
    look = argument_sets.checksum
    monkeypatch.setattr(argument_sets, "checksum", lambda value: looks.append(None) or look(value))
    sets.uses += 1
    for _ in range(3):
        assert not sets.changed()
    assert len(looks) == 4
    sets.uses += 1
    assert not sets.changed()
    assert len(looks) == 8


def test_inputs_that_fill_the_same_memory_give_every_set_a_copy():
    buffer = np.zeros(10)

    def refill(rng):
        buffer[:] = rng.standard_normal(10)
        return (buffer,)

    drawing = Drawing(refill)
    instances = [drawing.sets_for(np.random.default_rng(seed)) for seed in range(3)]
    for sets in instances:
        sets.batch((1, 1), 10)
    assert not any(sets.changed() for sets in instances)
    assert len({content for sets in instances for content in contents(sets)}) == 12
    for sets in instances:
        sets.uses += 1
        assert sets.redraw() == []
        assert not any(other.changed() for other in instances)


def test_the_same_object_each_time_is_passed_on_as_it_is():
    model = Tensor(np.arange(3.0))
    sets = sets_of(lambda rng: (model, rng.standard_normal(3)))
    assert all(args[0] is model for args in flat(sets.windows[0]))
    sets.uses += 1
    sets.redraw()
    assert all(args[0] is model for args in flat(sets.windows[0]))
    assert np.array_equal(model.data, np.arange(3.0))
    assert not sets.changed()


def test_inputs_must_return_a_tuple():
    with pytest.raises(
        ValueError, match=r"`inputs` must return a tuple of arguments, got ndarray; .* \(x,\)"
    ):
        sets_of(lambda rng: rng.standard_normal(3))


def test_an_error_in_inputs_says_so():
    def broken(rng):
        raise KeyError("planted")

    with pytest.raises(KeyError) as caught:
        sets_of(broken)
    assert caught.value.__notes__ == ["raised by `inputs`"]
