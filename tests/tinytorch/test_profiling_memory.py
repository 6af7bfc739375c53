"""Peak and retained memory are those of the arrays that were made, to within the objects around them."""

import gc
import tracemalloc

import numpy as np
import pytest

from tinytorch.perf.profiling import MemoryProfiler, MemoryTracker

MB = 10**6
# Python objects, and what is allocated besides.
SMALL = 4096


def array(n_bytes):
    return np.ones(n_bytes, np.uint8)


@pytest.mark.parametrize("n_bytes", [10_000, MB, 30 * MB])
@pytest.mark.parametrize("profiler", [MemoryProfiler, MemoryTracker])
def test_an_array_that_is_kept_is_peak_and_retained(profiler, n_bytes):
    with profiler() as m:
        kept = array(n_bytes)
    assert m.peak_bytes == pytest.approx(kept.nbytes, abs=SMALL)
    assert m.retained_bytes == pytest.approx(kept.nbytes, abs=SMALL)


def test_what_is_freed_before_the_end_counts_in_the_peak_only():
    with MemoryProfiler() as m:
        array(5 * MB)
        array(2 * MB)
    assert m.peak_bytes == pytest.approx(5 * MB, abs=SMALL)
    assert m.retained_bytes == pytest.approx(0, abs=SMALL)


def test_arrays_held_at_one_time_add_up():
    with MemoryProfiler() as m:
        a, b = array(2 * MB), array(3 * MB)
        del a
        c = array(MB)
    assert m.peak_bytes == pytest.approx(5 * MB, abs=SMALL)
    assert m.retained_bytes == pytest.approx(b.nbytes + c.nbytes, abs=SMALL)


def test_what_was_held_before_does_not_count_and_freeing_it_is_below_zero():
    before = tracemalloc.is_tracing()
    with MemoryProfiler():
        held = [array(4 * MB)]
        with MemoryProfiler() as m:
            array(MB)
            held.clear()
            array(2 * MB)
    assert m.peak_bytes == pytest.approx(MB, abs=SMALL)
    assert m.retained_bytes == pytest.approx(-4 * MB, abs=SMALL)
    assert tracemalloc.is_tracing() == before


def test_garbage_in_cycles_is_not_retained():
    with MemoryProfiler() as m:
        cycle = [array(MB)]
        cycle.append(cycle)
        del cycle
    assert m.peak_bytes == pytest.approx(MB, abs=SMALL)
    assert m.retained_bytes == pytest.approx(0, abs=SMALL)


def test_garbage_from_before_is_gone_before_the_block_starts():
    gc.disable()
    try:
        with MemoryProfiler():  # so that the garbage is traced
            cycle = [array(3 * MB)]
            cycle.append(cycle)
            del cycle
            with MemoryProfiler() as m:
                gc.collect()
    finally:
        gc.enable()
    assert m.retained_bytes == pytest.approx(0, abs=SMALL)


def test_blocks_inside_see_their_own_peak_and_leave_that_of_the_outer_one():
    with MemoryProfiler() as outer:
        array(6 * MB)
        with MemoryProfiler() as first:
            array(2 * MB)
        with MemoryProfiler() as second:
            kept = array(3 * MB)
    assert first.peak_bytes == pytest.approx(2 * MB, abs=SMALL)
    assert second.peak_bytes == pytest.approx(3 * MB, abs=SMALL)
    assert outer.peak_bytes == pytest.approx(6 * MB, abs=SMALL)
    assert outer.retained_bytes == pytest.approx(kept.nbytes, abs=SMALL)


def test_an_inner_block_counts_in_the_peak_of_the_outer_one():
    with MemoryProfiler() as outer:
        kept = array(MB)
        with MemoryProfiler():
            array(2 * MB)
    assert outer.peak_bytes == pytest.approx(kept.nbytes + 2 * MB, abs=SMALL)


def test_a_peak_before_an_exception_is_kept_and_tracing_ends():
    m = MemoryProfiler()

    def failing():
        with m:
            array(7 * MB)
            raise KeyError

    with pytest.raises(KeyError):
        failing()
    assert m.peak_bytes == pytest.approx(7 * MB, abs=SMALL)
    assert m.retained_bytes == pytest.approx(0, abs=SMALL)
    assert not tracemalloc.is_tracing()


def test_tracing_that_somebody_else_started_goes_on():
    tracemalloc.start()
    try:
        with MemoryProfiler() as m:
            array(MB)
        assert tracemalloc.is_tracing()
    finally:
        tracemalloc.stop()
    assert m.peak_bytes == pytest.approx(MB, abs=SMALL)


def test_a_profiler_can_be_used_again_but_not_inside_itself():
    m = MemoryTracker()
    with m:
        array(3 * MB)
        m.snapshot("first")
        with pytest.raises(RuntimeError, match="this MemoryTracker is running already"):
            m.__enter__()
    with m:
        array(MB)
    assert m.peak_bytes == pytest.approx(MB, abs=SMALL)
    assert m.snapshots == []


def test_snapshots_say_what_is_held_and_the_peak_since_the_last_one():
    with MemoryTracker() as m:
        kept = array(MB)
        m.snapshot("one")
        array(4 * MB)
        m.snapshot("two")
        last = m.snapshot("three")
    assert [s.label for s in m.snapshots] == ["one", "two", "three"]
    assert [s.current_bytes for s in m.snapshots] == pytest.approx([kept.nbytes] * 3, abs=SMALL)
    assert [s.peak_bytes for s in m.snapshots] == pytest.approx([MB, 5 * MB, MB], abs=SMALL)
    assert last is m.snapshots[-1]
    assert m.peak_bytes == pytest.approx(5 * MB, abs=SMALL)


@pytest.mark.parametrize("inside", [MemoryProfiler, MemoryTracker])
def test_blocks_inside_leave_the_peak_of_a_snapshot(inside):
    with MemoryTracker() as m:
        array(6 * MB)
        with inside() as first:
            array(2 * MB)
        m.snapshot("before it")
        with inside():
            array(3 * MB)
        m.snapshot("in it")
        array(MB)
        with inside() as last:
            pass
        m.snapshot("after it")
        m.snapshot("nothing")
    assert [s.peak_bytes for s in m.snapshots] == pytest.approx([6 * MB, 3 * MB, MB, 0], abs=SMALL)
    assert (first.peak_bytes, last.peak_bytes) == pytest.approx((2 * MB, 0), abs=SMALL)
    assert m.peak_bytes == pytest.approx(6 * MB, abs=SMALL)


def test_snapshots_of_trackers_inside_each_other_have_their_own_peaks():
    with MemoryTracker() as outer:
        array(5 * MB)
        with MemoryTracker() as inner:
            array(2 * MB)
            outer.snapshot("outer")
            inner.snapshot("inner")
            array(MB)
            inner.snapshot("inner again")
        outer.snapshot("outer again")
    assert [s.peak_bytes for s in outer.snapshots] == pytest.approx([5 * MB, MB], abs=SMALL)
    assert [s.peak_bytes for s in inner.snapshots] == pytest.approx([2 * MB, MB], abs=SMALL)


@pytest.mark.parametrize("label", ["", None, 3])
def test_a_snapshot_has_a_name(label):
    with MemoryTracker() as m, pytest.raises(ValueError, match="`label` must be a text, not empty"):
        m.snapshot(label)


def test_a_snapshot_needs_a_running_tracker():
    with pytest.raises(RuntimeError, match="needs a tracker that is running"):
        MemoryTracker().snapshot("late")
