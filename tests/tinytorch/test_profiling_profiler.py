"""The profiler records what ran, gives each its own time, its bytes and its FLOPs, and changes nothing."""

import threading

import numpy as np
import pytest

import tinytorch as tt
from tinytorch.core.layers import Layer
from tinytorch.core.tensor import OBSERVER, Tensor, apply
from tinytorch.perf.profiling import FLOPCounter, Profiler, count_flops, profile, profiler, recording

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


def operation(clock, duration_ms, backward_ms=0.0, name="work"):
    """A rule that takes that long, and its derivative."""

    def rule(x):
        clock.work(duration_ms)

        def vjp(g):
            clock.work(backward_ms)
            return g

        return x + 1, (vjp,)

    rule.__name__ = name
    return rule


class Inner(Layer):
    """An operation of 3 ms and 2 ms beside it."""

    def __init__(self, clock):
        self.clock = clock

    def forward(self, x):
        self.clock.work(2)
        return apply(operation(self.clock, 3, name="three"), x)


class Outer(Layer):
    """Two inner layers, an operation of 5 ms and 7 ms beside these."""

    def __init__(self, clock):
        self.clock = clock
        self.first, self.second = Inner(clock), Inner(clock)

    def forward(self, x):
        self.clock.work(4)
        x = apply(operation(self.clock, 5, name="five"), self.first(x))
        self.clock.work(3)
        return self.second(x)


def times(rows):
    return {row.name: (row.calls, row.self_ms, row.total_ms) for row in rows}


def test_every_operation_and_layer_has_its_own_time_and_the_whole(clock):
    with Profiler() as p:
        Outer(clock)(Tensor([1.0]))
    assert times(p.by_operation()) == {
        "Outer": (1, 7, 22),
        "three": (2, 6, 6),
        "five": (1, 5, 5),
        "Inner": (2, 4, 10),
    }
    assert times(p.by_module()) == {"Outer": (1, 12, 22), "Inner": (2, 10, 10)}


def test_rows_are_sorted_by_their_own_time(clock):
    with Profiler() as p:
        Outer(clock)(Tensor([1.0]))
    assert [row.name for row in p.by_operation()] == ["Outer", "three", "five", "Inner"]
    assert [row.name for row in p.by_module()] == ["Outer", "Inner"]


def test_a_layer_inside_one_of_its_class_does_not_count_twice(clock):
    class Nested(Layer):
        def __init__(self, inside=None):
            self.inside = inside

        def forward(self, x):
            clock.work(1)
            return x if self.inside is None else self.inside(x)

    with Profiler() as p:
        Nested(Nested(Nested()))(Tensor([1.0]))
    assert times(p.by_module()) == {"Nested": (3, 3, 3)}
    assert times(p.by_operation()) == {"Nested": (3, 3, 3)}


def test_operations_outside_of_layers_have_a_row_of_their_own(clock):
    with Profiler() as p:
        apply(operation(clock, 2), Tensor([1.0]))
        Inner(clock)(Tensor([1.0]))
    assert times(p.by_module()) == {"Inner": (1, 5, 5), "(outside of layers)": (0, 2, 2)}


def test_the_backward_pass_belongs_to_the_layer_that_called_the_operation(clock):
    class Work(Layer):
        def forward(self, x):
            return apply(operation(clock, 1, backward_ms=4), x)

    x = Tensor([1.0], requires_grad=True)
    with Profiler() as p:
        Work()(x).backward()
    assert times(p.by_operation()) == {"work backward": (1, 4, 4), "work": (1, 1, 1), "Work": (1, 0, 5)}
    assert times(p.by_module()) == {"Work": (1, 5, 5)}
    assert x.grad == [1]


def test_a_layer_that_raises_keeps_its_time_and_the_profiler_ends(clock):
    class Failing(Layer):
        def forward(self, x):
            clock.work(6)
            raise ZeroDivisionError

    p = Profiler()
    model = tt.Sequential(Inner(clock), Failing())
    with pytest.raises(ZeroDivisionError), p:
        model(Tensor([1.0]))
    assert OBSERVER.get() is None
    assert times(p.by_module()) == {"Failing": (1, 6, 6), "Inner": (1, 5, 5), "Sequential": (1, 0, 11)}
    with p:
        Inner(clock)(Tensor([1.0]))
    assert times(p.by_module())["Inner"] == (2, 10, 10)  # and does not lie inside of what raised


def gpt():
    return tt.GPT(11, 12, 2, 3, 8, rng=np.random.default_rng(0)).eval()


IDS = np.random.default_rng(1).integers(0, 11, (4, 6))
CNN = tt.Sequential(
    tt.Conv2d(1, 4, 3), tt.BatchNorm2d(4), tt.ReLU(), tt.MaxPool2d(2), tt.Flatten(), tt.Linear(36, 3)
).eval()


@pytest.mark.parametrize(
    ("model", "x"), [(gpt(), IDS), (CNN, Tensor(np.ones((4, 1, 8, 8))))], ids=["gpt", "cnn"]
)
@pytest.mark.parametrize("grad", [False, True])
def test_flops_of_all_rows_are_those_of_the_whole_batch(model, x, grad):
    expected = count_flops(model, np.shape(x) if model is not CNN else x.shape)
    with Profiler() as p:
        if grad:
            model(x)
        else:
            with tt.no_grad():
                model(x)
    for rows in (p.by_operation(), p.by_module()):
        assert sum(row.flops for row in rows) == 4 * expected.flops
        assert sum(row.macs for row in rows) == 4 * expected.macs
        assert len({row.name for row in rows}) == len(rows)
    assert p.uncounted == ()
    assert {row.name: row.flops for row in p.by_module()}.get("Linear") == 4 * sum(
        flops
        for name, flops in expected.by_layer.items()
        if isinstance(dict(model.named_layers()).get(name), tt.Linear)
    )


def test_profiling_changes_no_number():
    model, x = gpt(), IDS
    labels = np.roll(x, -1, axis=1)

    def gradients():
        model.zero_grad()
        loss = tt.CrossEntropyLoss()(model(x), labels)
        loss.backward()
        return [loss.numpy(), *(parameter.grad for parameter in model.parameters())]

    plain = gradients()
    with Profiler():
        profiled = gradients()
    for one, other in zip(plain, profiled, strict=True):
        np.testing.assert_array_equal(one, other)


def test_backward_counts_both_products_of_each_layer():
    layer = tt.Linear(6, 8)
    x = Tensor(np.ones((5, 6)), requires_grad=True)
    with Profiler() as p:
        layer(x).backward(np.ones((5, 8)))
    rows = {row.name: row for row in p.by_operation()}
    assert rows["linear"].macs == 5 * 48
    assert rows["linear backward"].macs == 2 * 5 * 48
    assert rows["linear backward"].flops == 4 * 5 * 48 + 40
    assert rows["linear backward"].calls == 3


def test_derivatives_without_a_formula_are_named():
    with Profiler() as p:
        tt.GELU()(Tensor(np.ones(3), requires_grad=True)).sum().backward()
    assert p.uncounted == ("gelu backward", "sum backward")


def test_a_layer_of_layers_that_none_of_them_was_called_in_is_named():
    class Cached(tt.Sequential):
        """Answers from a cache the second time."""

        answer = None

        def forward(self, x):
            if self.answer is None:
                self.answer = super().forward(x)
            return self.answer

    model = Cached(tt.Linear(2, 2))
    for expected in ((), ("Cached",)):
        with Profiler() as p:
            model(Tensor([[1.0, 2.0]]))
        assert p.uncounted == expected


def test_a_graph_made_while_profiling_can_be_used_without():
    x = Tensor([2.0], requires_grad=True)
    with Profiler() as p:
        y = x * x
    y.backward()
    assert x.grad == [4]
    assert [row.name for row in p.by_operation()] == ["multiply"]


@pytest.mark.parametrize(
    ("compute", "n_bytes"),
    [
        (lambda x: x + x, 4 * 3 * 12),
        (lambda x: x * 2, 4 * 2 * 12),
        (lambda x: x.sum(), 4 * 13),
        (lambda x: x @ np.ones((4, 5), np.float32), 4 * (12 + 20 + 15)),
        (lambda x: x.reshape(4, 3), 0),
        (lambda x: x.transpose(), 0),
        (lambda x: x[1:], 0),
        (lambda x: x.T.reshape(12), 4 * 24 + 4 * 0),
        (lambda x: tt.Embedding(1000, 4)([[1, 2, 3]]), 4 * 24),
    ],
)
def test_bytes_are_those_read_and_written(compute, n_bytes):
    with Profiler() as p:
        compute(Tensor(np.ones((3, 4))))
    assert sum(row.bytes for row in p.by_operation()) == n_bytes


def test_blocks_add_up_and_profilers_inside_see_their_own_part(clock):
    outer, inner = Profiler(), Profiler()
    layer = Inner(clock)
    with outer:
        layer(Tensor([1.0]))
        with inner:
            layer(Tensor([1.0]))
        layer(Tensor([1.0]))
    with inner:
        layer(Tensor([1.0]))
    assert times(outer.by_module()) == {"Inner": (3, 15, 15)}
    assert times(inner.by_module()) == {"Inner": (2, 10, 10)}


def test_a_profiler_inside_a_layer_does_not_count_what_is_around_it(clock):
    p = Profiler()

    class Around(Layer):
        def __init__(self):
            self.inner = Inner(clock)

        def forward(self, x):
            clock.work(1)
            with p:
                return self.inner(x)

    with Profiler() as whole:
        Around()(Tensor([1.0]))
    assert times(p.by_module()) == {"Inner": (1, 5, 5)}
    assert times(whole.by_module()) == {"Inner": (1, 5, 5), "Around": (1, 1, 6)}


def test_counting_flops_inside_of_a_block_is_not_recorded_there():
    with Profiler() as p:
        assert count_flops(tt.Linear(2, 2), (1, 2)).flops == 8
        assert OBSERVER.get() is not None
    assert p.records == 0


def test_other_threads_are_not_recorded():
    def other():
        tt.Linear(2, 2)(Tensor([[1.0, 2.0]]))

    with Profiler() as p:
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert p.records == 0


def test_records_hold_no_arrays():
    import gc
    import weakref

    with Profiler() as p:
        y = Tensor(np.ones(1000)) * Tensor(np.ones(1000))
        array = weakref.ref(y.numpy())
        del y
    gc.collect()
    assert array() is None
    assert p.records == 1


class Slow(Layer):
    """Work that no operation does."""

    def __init__(self, clock):
        self.clock = clock

    def forward(self, x):
        self.clock.work(50)
        return x


def test_the_bottleneck_is_printed_first_with_its_share(clock, capsys):
    model = tt.Sequential(Inner(clock), Slow(clock), Outer(clock), Outer(clock))
    with Profiler() as p:
        model(Tensor([1.0]))
    p.print_top_operations(n=2)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["name", "kind", "calls"]
    assert lines[2].split()[:5] == ["Slow", "layer", "1", "50.000", "50.5%"]
    assert lines[3].split()[0] == "three"
    assert lines[4] == "and 4 more"
    assert lines[6].startswith("not recorded: ")
    assert lines[7].startswith("recording itself: 16 records of ")
    assert "no FLOPs are known of: Inner, Outer, Slow" in lines[8]
    report = p.report(n=5).split()
    assert report[report.index("Outer") : report.index("Outer") + 6] == [
        *("Outer", "layer", "2", "14.000", "14.1%", "44.000")
    ]


@pytest.fixture
def whole_clock(clock, monkeypatch):
    """The same clock also for when blocks begin and end, and recording that costs 1 ms in all."""
    monkeypatch.setattr(profiler, "perf_counter_ns", clock)
    monkeypatch.setattr(profiler, "overhead_us", lambda _log: 1000.0)
    return clock


def test_time_outside_of_operations_is_printed_with_its_share_of_the_whole(whole_clock):
    p = Profiler()
    for _ in range(2):
        with p:
            Inner(whole_clock)(Tensor([1.0]))
            whole_clock.work(20)
            whole_clock.now += MS // 2  # what recording takes is work of nobody
    whole_clock.work(100)  # after the blocks
    assert p.unrecorded_ms == pytest.approx(40)
    report = p.report().splitlines()
    assert report[2].split()[:5] == ["three", "operation", "2", "6.000", "60.0%"]
    assert report[5] == (
        "not recorded: 40.000 ms, 78.4% of 51.000 ms: work outside of tinytorch's operations and layers"
    )


def test_a_function_without_any_operation_shows_where_its_time_went(whole_clock):
    @profile
    def nothing_recorded():
        whole_clock.work(60)

    nothing_recorded()
    assert nothing_recorded.profiler.report() == (
        "no operations were recorded\n"
        "not recorded: 60.000 ms, 100.0% of 60.000 ms: work outside of tinytorch's operations and layers\n"
    )


def test_an_estimate_of_recording_that_is_too_high_leaves_no_negative_time(whole_clock):
    with Profiler() as p:
        Inner(whole_clock)(Tensor([1.0]))
    assert p.unrecorded_ms == 0.0
    assert "not recorded: 0.000 ms, 0.0% of 5.000 ms" in p.report()


def test_an_empty_profile_says_so(capsys):
    p = Profiler()
    p.print_top_operations()
    assert capsys.readouterr().out == "no operations were recorded\n"
    assert p.by_operation() == p.by_module() == []
    assert p.to_pandas().empty


@pytest.mark.parametrize("n", [0, -1, 2.5, None])
def test_the_number_of_printed_rows_is_positive(n):
    with pytest.raises(ValueError, match="`n` must be a positive whole number"):
        Profiler().print_top_operations(n)


def test_a_data_frame_has_a_column_for_each_attribute(clock):
    with Profiler() as p:
        Outer(clock)(Tensor([1.0]))
    frame = p.to_pandas()
    assert list(frame.columns) == ["name", "kind", "calls", "self_ms", "total_ms", "bytes", "flops", "macs"]
    assert frame["self_ms"].tolist() == [row.self_ms for row in p.by_operation()]


def test_overhead_is_measured_for_each_record():
    with Profiler() as p:
        for _ in range(10):
            Tensor([1.0]) + 1
    assert p.records == 10
    assert 0 < p.overhead_ms < 1
    assert p.elapsed_ms > 0


def test_a_decorated_function_has_the_profile_of_its_calls(clock):
    @profile
    def work(times, *, shift=0):
        """Do some work."""
        for _ in range(times):
            Inner(clock)(Tensor([1.0]))
        return times + shift

    assert work(2) + work(1, shift=5) == 8
    assert (work.__name__, work.__doc__) == ("work", "Do some work.")
    assert times(work.profiler.by_module()) == {"Inner": (3, 15, 15)}


def test_a_decorated_function_that_calls_itself_or_raises_is_recorded_once(clock):
    @profile
    def down(n):
        Inner(clock)(Tensor([1.0]))
        if n == 0:
            raise KeyError
        down(n - 1)

    with pytest.raises(KeyError):
        down(2)
    assert times(down.profiler.by_module()) == {"Inner": (3, 15, 15)}
    assert OBSERVER.get() is None


def test_functions_can_share_a_profiler(clock):
    p = Profiler()

    @profile(profiler=p)
    def one():
        Inner(clock)(Tensor([1.0]))

    @profile(profiler=p)
    def two():
        Inner(clock)(Tensor([1.0]))

    one()
    two()
    assert one.profiler is two.profiler is p
    assert times(p.by_module()) == {"Inner": (2, 10, 10)}


def test_only_functions_are_decorated():
    with pytest.raises(ValueError, match="`function` must be something to call, got 3"):
        profile(3)


def test_layers_with_a_formula_have_the_flops_of_all_inside(clock):
    counter = FLOPCounter()
    counter.register(Outer, lambda layer, given, made: 77)
    with Profiler(counter) as p:
        tt.Sequential(Outer(clock), tt.ReLU())(Tensor([1.0]))
    assert {row.name: row.flops for row in p.by_module()} == {
        "Outer": 77,
        "Inner": 0,
        "ReLU": 1,
        "Sequential": 0,
    }


def test_a_layer_that_raised_has_no_flops_by_its_formula():
    class Failing(Layer):
        def forward(self, x):
            raise ZeroDivisionError

    counter = FLOPCounter()
    counter.register(Failing, lambda layer, given, made: given[0] * made[0])
    p = Profiler(counter)
    with pytest.raises(ZeroDivisionError), p:
        Failing()(Tensor([1.0]))
    assert [(row.name, row.flops) for row in p.by_operation()] == [("Failing", 0)]
