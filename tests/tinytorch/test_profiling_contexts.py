"""One profiler or several, in threads and asynchronous tasks: each block hears its own, until it ends."""

import asyncio
import contextvars
import functools
import gc
import threading
import weakref

import numpy as np
import pytest

import tinytorch as tt
from tinytorch.core.layers import Layer
from tinytorch.core.tensor import OBSERVER, Tensor
from tinytorch.perf.profiling import Profiler, count_flops, profile, timer


def add():
    """One operation."""
    return Tensor([1.0]) + 1


def names(profiler):
    return {row.name: row.calls for row in profiler.by_operation()}


def in_thread(function):
    """Run a function in another thread, and return what it returned."""
    found = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join()
    assert found, "the function raised in its thread"
    return found[0]


@pytest.fixture(autouse=True)
def nobody_listens_afterwards():
    yield
    assert OBSERVER.get() is None
    assert not timer.RUNNING


@pytest.mark.parametrize("first_out", [0, 1])
def test_two_threads_in_one_profiler_are_both_recorded_until_each_leaves(first_out):
    p, steps, observers = Profiler(), threading.Barrier(2, timeout=10), [1, 1]

    def run(index):
        with p:
            steps.wait()
            add()
            steps.wait()
            if index != first_out:
                steps.wait()  # the other one has left
                add()
        observers[index] = OBSERVER.get()
        if index == first_out:
            steps.wait()
        add()  # after the block

    threads = [threading.Thread(target=run, args=(index,)) for index in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert names(p) == {"add": 3}
    assert observers == [None, None]


def test_a_thread_that_shares_the_profiler_of_a_running_block_is_recorded():
    with Profiler() as p:

        def other():
            with p:
                add()
            add()
            return OBSERVER.get()

        assert in_thread(other) is None
        add()
    assert names(p) == {"add": 2}


def test_the_time_of_blocks_side_by_side_is_added_up(monkeypatch):
    from tinytorch.perf.profiling import profiler as module

    now = [10**9]
    monkeypatch.setattr(module, "perf_counter_ns", lambda: now[0])
    with Profiler() as p:
        now[0] += 10**6

        def other():
            with p:
                now[0] += 10**6
                with p:  # inside of itself, which counts once
                    now[0] += 10**6
            return p.elapsed_ms

        assert in_thread(other) == 3 + 2
    assert p.elapsed_ms == 3 + 2


def test_a_thread_that_runs_in_a_copy_of_the_context_is_not_recorded():
    x = Tensor([1.0], requires_grad=True)

    def other():
        tt.Linear(1, 1)(x)
        (x * 2).backward()
        y.backward()
        return True

    with Profiler() as p:
        y = x * x
        copied = contextvars.copy_context()
        assert in_thread(lambda: copied.run(other))
    assert names(p) == {"multiply": 1}
    assert x.grad == [2 + 2]


def test_a_thread_in_a_copy_of_the_context_can_enter_the_same_profiler():
    def other():
        with p:
            add()
        add()
        return True

    with Profiler() as p:
        copied = contextvars.copy_context()
        assert in_thread(lambda: copied.run(other))
    assert names(p) == {"add": 1}


def test_tasks_that_take_turns_in_one_profiler_are_recorded_until_each_leaves():
    p = Profiler()

    async def run(turns_inside):
        with p:
            for _ in range(turns_inside):
                add()
                await asyncio.sleep(0)
        assert OBSERVER.get() is None
        add()

    async def both():
        await asyncio.gather(run(2), run(5))

    asyncio.run(both())
    assert names(p) == {"add": 7}


class Waiting:
    """Adds twice when it is called, and lets others run in between."""

    async def __call__(self):
        add()
        await asyncio.sleep(0)
        return add()


async def waiting():
    return await Waiting()()


@pytest.mark.parametrize("function", [waiting, Waiting(), functools.partial(waiting)])
def test_a_profiled_coroutine_is_recorded_until_it_returns(function):
    found = profile()(function)

    async def both():
        _, result = await asyncio.gather(plain(), found())
        return result

    async def plain():
        add()
        await asyncio.sleep(0)
        add()

    assert asyncio.run(both()).item() == 2
    assert names(found.profiler) == {"add": 2}


def generator():
    yield add()


async def asynchronous_generator():
    yield add()


@pytest.mark.parametrize("function", [generator, asynchronous_generator, functools.partial(generator)])
def test_a_generator_cannot_be_profiled(function):
    with pytest.raises(
        ValueError, match="`function` must not be a generator, whose code runs after the call"
    ):
        profile(function)


def test_a_task_started_in_a_block_is_recorded_until_the_block_ends():
    p = Profiler()

    async def child():
        add()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        add()  # the block has ended
        with Profiler() as later:
            add()
        return names(later)

    async def parent():
        with p:
            task = asyncio.create_task(child())
            await asyncio.sleep(0)
        add()
        return await task

    assert asyncio.run(parent()) == {"add": 1}
    assert names(p) == {"add": 1}


def test_a_profiler_in_a_task_does_not_hear_the_task_that_started_it():
    parents, childs = Profiler(), Profiler()

    async def child():
        with childs:
            add()
            for _ in range(3):
                await asyncio.sleep(0)
            Tensor([1.0]) * 2  # the block of the parent has ended

    async def parent():
        with parents:
            task = asyncio.create_task(child())
            await asyncio.sleep(0)
            Tensor([1.0]) - 2
        assert OBSERVER.get() is None
        Tensor([1.0]) / 2
        await task

    asyncio.run(parent())
    assert names(parents) == {"add": 1, "subtract": 1}
    assert names(childs) == {"add": 1, "multiply": 1}


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2), (0, 2, 1)])
def test_blocks_may_end_in_any_order(order):
    profilers = [Profiler() for _ in range(3)]
    for p in profilers:
        p.__enter__()
        add()
    for index in order:
        profilers[index].__exit__()
        add()
    expected = [3 - index + order.index(index) for index in range(3)]
    assert [names(p)["add"] for p in profilers] == expected


def test_a_block_can_be_left_in_another_context_than_it_was_entered_in():
    p, entered = Profiler(), contextvars.Context()
    entered.run(p.__enter__)
    entered.run(add)
    p.__exit__()
    entered.run(add)
    assert names(p) == {"add": 1}
    with Profiler() as other:
        add()
    assert names(other) == {"add": 1}


def test_only_a_block_that_runs_can_be_left():
    with pytest.raises(RuntimeError, match="this Profiler is not running: enter it before"):
        Profiler().__exit__()


def test_a_context_is_left_as_it_was():
    context = contextvars.Context()

    def run():
        with Profiler(), Profiler():
            add()

    context.run(run)
    assert OBSERVER not in context


def test_what_is_profiled_inside_of_a_count_is_still_looked_at():
    class Sneaking(Layer):
        def __init__(self):
            self.inner = tt.ReLU()

        @profile
        def forward(self, x):
            return self.inner(Tensor(np.sort(x.data)))

    count = count_flops(Sneaking(), (1, 4))
    assert (count.flops, count.uncounted) == (4, ("Sneaking",))
    assert names(Sneaking.forward.profiler) == {"ReLU": 1, "relu": 1}

    class Reaching(Layer):
        def forward(self, x):
            return x * float(np.sort(x.data).max())

    class Around(Layer):
        def __init__(self):
            self.inner = Reaching()

        @profile
        def forward(self, x):
            return self.inner(x)

    assert count_flops(Around(), (1, 4)).uncounted == ("Reaching",)


def test_blocks_that_have_ended_keep_nothing_alive():
    layer = tt.ReLU()
    gc.disable()
    try:
        with Profiler() as p, p:
            layer(Tensor([1.0]))
        recorded = weakref.ref(layer)
        del p, layer
        assert recorded() is None
    finally:
        gc.enable()
