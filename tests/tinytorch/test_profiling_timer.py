"""The timer reads its clock exactly, also when the body raises, and never while memory is traced."""

import pytest

from tinytorch.perf.profiling import MemoryProfiler, MemoryTracker, Profiler, Timer, timer


@pytest.fixture
def clock(monkeypatch):
    """A clock in nanoseconds that a test sets itself."""

    class Clock:
        now = 10**18

        def __call__(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(timer, "perf_counter_ns", clock)
    return clock


def test_a_block_takes_what_the_clock_advanced_in_it(clock):
    with Timer() as t:
        clock.now += 1_234_567
    clock.now += 10**9
    assert t.elapsed_ns == 1_234_567
    assert t.elapsed_ms == 1.234567


def test_the_time_is_set_also_when_the_body_raises(clock):
    t = Timer()

    def failing():
        with t:
            clock.now += 3_000_000
            raise KeyError

    with pytest.raises(KeyError):
        failing()
    assert t.elapsed_ms == 3


def test_start_and_stop_measure_what_passes_between(clock):
    t = Timer().start()
    clock.now += 5_000_000
    assert t.elapsed_ms == 5  # while it runs
    clock.now += 1_000_000
    assert t.stop() == 6
    clock.now += 1_000_000
    assert t.elapsed_ms == 6


def test_a_timer_starts_from_zero_each_time(clock):
    t = Timer()
    for duration_ns in (7, 3):
        with t:
            clock.now += duration_ns
        assert t.elapsed_ns == duration_ns


def test_a_timer_that_was_never_started_has_no_time():
    with pytest.raises(RuntimeError, match="never started: call start"):
        Timer().elapsed_ms  # noqa: B018


def test_a_timer_is_stopped_once():
    t = Timer()
    with pytest.raises(RuntimeError, match="needs a Timer that runs"):
        t.stop()
    t.start()
    t.stop()
    with pytest.raises(RuntimeError, match="needs a Timer that runs"):
        t.stop()


@pytest.mark.parametrize("enter", [Timer().__enter__, Timer().start, Profiler().__enter__])
def test_nothing_is_timed_while_memory_is_traced(enter):
    with MemoryProfiler(), pytest.raises(RuntimeError, match="measure time and memory in two runs"):
        enter()


@pytest.mark.parametrize("timing", [Timer, Profiler])
@pytest.mark.parametrize("tracing", [MemoryProfiler, MemoryTracker])
def test_memory_is_not_traced_while_something_is_timed(timing, tracing):
    with timing(), pytest.raises(RuntimeError, match=f"{tracing.__name__} cannot start while a Timer"):
        tracing().__enter__()
    with tracing():
        pass  # afterwards it may


@pytest.mark.parametrize("tracing", [MemoryProfiler, MemoryTracker])
@pytest.mark.parametrize("read", [Timer.stop, Timer.elapsed_ms.fget, Timer.elapsed_ns.fget])
def test_a_timer_started_before_memory_was_traced_has_no_time(clock, tracing, read):
    t = Timer().start()
    with tracing(), pytest.raises(RuntimeError, match="block began while this Timer was running"):
        read(t)
    with pytest.raises(RuntimeError, match="block began while this Timer was running"):
        read(t)  # nor afterwards
    t.start()
    clock.now += 2_000_000
    assert t.stop() == 2


def test_a_timer_that_was_stopped_before_memory_was_traced_keeps_its_time(clock):
    stopped, block = Timer().start(), Timer()
    clock.now += 1_000_000
    stopped.stop()
    with block:
        clock.now += 3_000_000
    with MemoryProfiler():
        assert (stopped.elapsed_ms, block.elapsed_ms) == (1, 3)
    with block:
        clock.now += 4_000_000
        assert block.elapsed_ms == 4


def test_a_timer_shows_what_it_knows(clock):
    t = Timer()
    assert repr(t) == "Timer()"
    t.start()
    clock.now += 1_500_000
    with MemoryProfiler():
        assert repr(t) == "Timer(running)"
    t.start()
    clock.now += 1_500_000
    t.stop()
    assert repr(t) == "Timer(1.5 ms)"


def test_timing_that_raised_does_not_keep_memory_from_being_traced():
    for timing in (Timer(), Profiler()):
        with pytest.raises(KeyError), timing:
            raise KeyError
    with MemoryProfiler() as memory:
        pass
    assert memory.retained_bytes < 10_000
