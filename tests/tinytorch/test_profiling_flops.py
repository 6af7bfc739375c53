"""FLOPs equal closed forms for every layer, and work without a formula is named."""

import sys

import numpy as np
import pytest

import tinytorch as tt
from tinytorch.core.layers import Layer
from tinytorch.core.losses import BinaryCrossEntropyLoss, CrossEntropyLoss, MSELoss
from tinytorch.core.tensor import OBSERVER, Parameter, Tensor, apply
from tinytorch.perf.profiling import FLOPCounter, Profiler, Work, count_flops, formulas


def block_macs(d, t):
    """Four projections, scores and their use, and the perceptron of four times the width."""
    return 4 * t * d * d + 2 * t * t * d + 8 * t * d * d


def block_flops(d, heads, t):
    return 2 * block_macs(d, t) + 6 * heads * t * t + 2 * 7 * t * d + 9 * 4 * t * d + 2 * t * d


CLOSED_FORMS = [
    # layer, shape of the input with a batch of 5, FLOPs for one sample, multiply-adds among them
    (tt.Linear(7, 11), (5, 7), 2 * 7 * 11, 77),
    (tt.Linear(7, 11, bias=False), (5, 7), 2 * 7 * 11, 77),
    (tt.Linear(7, 11), (5, 3, 2, 7), 6 * 2 * 7 * 11, 6 * 77),
    (tt.Conv2d(3, 8, 3), (5, 3, 10, 12), 2 * 8 * 10 * 8 * 27, 8 * 10 * 8 * 27),
    (tt.Conv2d(3, 8, (3, 5), 2, (1, 2), bias=False), (5, 3, 9, 11), 2 * 5 * 6 * 8 * 45, 5 * 6 * 8 * 45),
    (tt.MaxPool2d(2), (5, 3, 8, 6), 3 * 4 * 3 * 4, 0),
    (tt.AvgPool2d(3, stride=1), (5, 3, 8, 6), 3 * 6 * 4 * 9, 0),
    (tt.BatchNorm2d(3), (5, 3, 8, 6), 2 * 3 * 8 * 6, 0),
    (tt.LayerNorm(12), (5, 4, 12), 7 * 4 * 12, 0),
    (tt.ReLU(), (5, 4, 3), 12, 0),
    (tt.Tanh(), (5, 4, 3), 12, 0),
    (tt.Sigmoid(), (5, 4, 3), 4 * 12, 0),
    (tt.GELU(), (5, 4, 3), 9 * 12, 0),
    (tt.Softmax(), (5, 4, 3), 5 * 12, 0),
    (tt.Softmax(dim=1), (5, 4, 3), 5 * 12, 0),
    (tt.LogSoftmax(), (5, 4, 3), 5 * 12, 0),
    (tt.Flatten(), (5, 4, 3), 0, 0),
    (tt.Dropout(0.5), (5, 4, 3), 0, 0),
    (tt.Embedding(9, 4), (5, 6), 0, 0),
    (tt.PositionalEncoding(10, 4), (5, 6, 4), 24, 0),
    (
        tt.MultiHeadAttention(12, 3),
        (5, 4, 12),
        2 * (4 * 4 * 144 + 2 * 16 * 12) + 6 * 3 * 16,
        4 * 4 * 144 + 2 * 16 * 12,
    ),
    (tt.TransformerBlock(12, 3), (5, 4, 12), block_flops(12, 3, 4), block_macs(12, 4)),
    (tt.MLP(6), (5, 4, 6), 2 * 8 * 4 * 36 + 9 * 4 * 24, 8 * 4 * 36),
    (
        tt.GPT(17, 12, 2, 3, 8),
        (5, 6),
        6 * 12 + 2 * block_flops(12, 3, 6) + 7 * 6 * 12 + 2 * 6 * 12 * 17,
        2 * block_macs(12, 6) + 6 * 12 * 17,
    ),
    (tt.Sequential(tt.Linear(4, 5), tt.ReLU(), tt.Linear(5, 2)), (5, 4), 40 + 5 + 20, 30),
]


@pytest.mark.parametrize(("layer", "shape", "flops", "macs"), CLOSED_FORMS, ids=lambda x: str(x)[:40])
def test_flops_of_a_sample_equal_the_closed_form(layer, shape, flops, macs):
    count = count_flops(layer, shape)
    assert (count.flops, count.macs, count.uncounted) == (flops, macs, ())
    assert sum(count.by_layer.values()) == flops
    assert type(count.flops) is type(count.macs) is int
    assert count_flops(layer, (1, *shape[1:])) == count  # whatever the batch


@pytest.mark.parametrize(
    ("name", "layer", "shape", "macs"),
    [
        ("QuantizedLinear", lambda: tt.Linear(40, 24), (5, 3, 40), 3 * 40 * 24),
        ("QuantizedConv2d", lambda: tt.Conv2d(16, 8, 3, padding=1), (5, 16, 7, 6), 42 * 8 * 16 * 9),
    ],
)
def test_quantized_layers_count_as_those_they_were_made_from(name, layer, shape, macs):
    quantization = pytest.importorskip("tinytorch.perf.quantization")
    count = count_flops(tt.Sequential(getattr(quantization, name)(layer())), shape)
    assert (count.flops, count.macs, count.uncounted) == (2 * macs, macs, ())


def test_a_sparse_layer_counts_the_weights_that_it_stores():
    sparse = pytest.importorskip("tinytorch.perf.compression.sparse")
    linear = tt.Linear(40, 24)
    linear.weight.data[:] = np.random.default_rng(0).random((40, 24)) < 0.1
    stored = int(linear.weight.data.sum())
    for form, macs in (("csr", 3 * stored), ("dense", 3 * 40 * 24)):
        layer = sparse.SparseLinear.from_linear(linear, format=form)
        count = count_flops(tt.Sequential(layer), (5, 3, 40))
        assert (count.flops, count.macs, count.uncounted) == (2 * macs, macs, ())
        with Profiler() as p:
            layer(Tensor(np.ones((3, 40))))
        arrays = 4 * 3 * (40 + 24) + layer.stored_bytes
        assert sum(row.bytes for row in p.by_operation()) == arrays


@pytest.mark.parametrize("batch", [1, 5])
def test_a_fused_pass_of_a_gpt_counts_as_its_layers_do(batch):
    inference = pytest.importorskip("tinytorch.core.inference")
    model = tt.GPT(17, 12, 2, 3, 8).eval()
    formula = formulas.ELSEWHERE["tinytorch.core.inference.steps.fused_step"]
    whole = count_flops(model, (1, 6))
    steps = inference.steps_of(model)
    options = {"steps": steps, "start": 0}
    assert formula([(batch, 6)], (batch, 6, 17), options) == Work(batch * whole.flops, batch * whole.macs)
    # Step by step, each position with those before it, is what full attention takes but for its upper half.
    parts = [formula([(batch, 1)], (batch, 1, 17), {"steps": steps, "start": start}) for start in range(6)]
    unseen = batch * 2 * 15 * (2 * 2 * 12 + 6 * 3)
    assert sum(part.flops for part in parts) == batch * whole.flops - unseen


def test_every_layer_of_the_framework_has_a_closed_form_here():
    tested = {type(layer) for layer, *_ in CLOSED_FORMS}
    losses = {MSELoss, CrossEntropyLoss, BinaryCrossEntropyLoss}
    every = {
        value
        for name in tt.__all__
        if isinstance(value := getattr(tt, name), type) and issubclass(value, Layer) and value is not Layer
    }
    assert {kind for kind in every if kind.__module__.startswith("tinytorch.core.")} <= tested | losses


@pytest.mark.parametrize(
    ("loss", "of_element"), [(MSELoss(), 3), (CrossEntropyLoss(), 5), (BinaryCrossEntropyLoss(), 8)]
)
def test_flops_of_losses(loss, of_element):
    predictions = Tensor(np.full((6, 4), 0.5))
    targets = np.zeros(6, int) if isinstance(loss, CrossEntropyLoss) else Tensor(np.zeros((6, 4)))
    with Profiler() as p:
        loss(predictions, targets)
    assert sum(row.flops for row in p.by_operation()) == 24 * of_element
    assert p.uncounted == ()


@pytest.mark.parametrize(
    ("compute", "flops"),
    [
        (lambda x: x + 1, 12),
        (lambda x: 1 - x, 12),
        (lambda x: x * x, 12),
        (lambda x: x / 2, 12),
        (lambda x: -x, 12),
        (lambda x: x**3, 12),
        (lambda x: x.exp().log().sqrt().abs(), 48),
        (lambda x: x.clip(0, 1), 24),
        (lambda x: x.sum(axis=1), 12),
        (lambda x: x.mean() + x.max() + x.min(), 38),
        (lambda x: x @ x.T, 2 * 9 * 4),
        (lambda x: x @ np.ones(4, np.float32), 2 * 12),
        (lambda x: tt.concatenate([x.reshape(4, 3), x.permute(1, 0)])[:2], 0),
    ],
)
def test_flops_of_operations(compute, flops):
    with Profiler() as p:
        compute(Tensor(np.ones((3, 4))))
    assert sum(row.flops for row in p.by_operation()) == flops
    assert p.uncounted == ()


def test_by_layer_names_layers_as_their_parameters_are_named():
    model = tt.Sequential(tt.Linear(4, 5), tt.Sequential(tt.ReLU(), tt.Linear(5, 2)))
    found = count_flops(model, (3, 4)).by_layer
    expected = {
        "Sequential": 0,
        "layers.0": 40,
        "layers.1": 0,
        "layers.1.layers.0": 5,
        "layers.1.layers.1": 20,
    }
    assert found == expected


def test_a_layer_that_is_called_twice_counts_twice():
    shared = tt.Linear(4, 4)
    count = count_flops(tt.Sequential(shared, shared), (1, 4))
    assert count.flops == 64
    assert sum(count.by_layer.values()) == 64


class Sorting(Layer):
    """Works outside of operations."""

    def forward(self, x):
        return Tensor(np.sort(x.data))


class RMSNorm(Layer):
    """Works by operations only."""

    def __init__(self):
        self.scale = Parameter(np.ones(4))

    def forward(self, x):
        return x / ((x * x).mean(axis=-1, keepdims=True) + 1e-5).sqrt() * self.scale


class HalfHidden(RMSNorm):
    """Operations on what NumPy computed."""

    def forward(self, x):
        return super().forward(Tensor(np.sort(x.data)))


class HiddenBehind(RMSNorm):
    """NumPy computes on what operations gave."""

    def forward(self, x):
        return Tensor(np.sort(super().forward(x).data))


class ByNumber(RMSNorm):
    """Operations with a number that NumPy computed from the input."""

    def forward(self, x):
        return x / float(np.sqrt((x.data**2).mean()))


class ByNumberBetween(RMSNorm):
    """Operations with an array of one number that NumPy computed from a result."""

    def forward(self, x):
        return x / np.sqrt((x * x).numpy().mean(axis=-1, keepdims=True))


class ByList(RMSNorm):
    """Operations with a number that Python computed."""

    def forward(self, x):
        return x / sum(number**2 for row in (x + 1).tolist() for number in row)


class InPlace(RMSNorm):
    """NumPy changes what an operation gave."""

    def forward(self, x):
        x = super().forward(x)
        np.tanh(np.asarray(x), out=x.data)
        return x


class Net(Layer):
    """A model of known layers and operations."""

    def __init__(self):
        self.fc1, self.fc2 = tt.Linear(4, 6), tt.Linear(6, 4)

    def forward(self, x):
        return x + self.fc2(self.fc1(x).clip(0))


class Sneaking(Net):
    """Known layers, with work between them that no operation does."""

    def forward(self, x):
        return self.fc2(Tensor(np.sort(self.fc1(x).data)))


class Returning(Net):
    """Known layers, and a result that no operation made."""

    def forward(self, x):
        return Tensor(np.sort(self.fc1(x).data))


class Adding(Net):
    """Adds what NumPy computed."""

    def forward(self, x):
        return self.fc1(x) + np.cumsum(np.ones(6, np.float32))


class Repeating(Net):
    """Products of NumPy, written into what a known layer gave."""

    def __init__(self):
        self.lin = tt.Linear(4, 4)

    def forward(self, x):
        y = self.lin(x)
        for _ in range(5):
            y.data[...] = y.data @ self.lin.weight.data
        return y


class OneValue(Net):
    """A single number that NumPy computed, which is all that is left of the input."""

    def forward(self, x):
        return Tensor(np.linalg.svd(self.fc1(x).numpy())[1])


class OneValueBehindItsBack(RMSNorm):
    """A single number of no operation, got at in a way that is not noticed."""

    def forward(self, x):
        return Tensor(np.linalg.svd(super().forward(x)._array)[1])


def test_a_model_of_known_layers_and_operations_is_counted_in_full():
    count = count_flops(Net(), (3, 4))
    assert (count.flops, count.macs, count.uncounted) == (2 * 48 + 2 * 6 + 4, 48, ())


def test_a_layer_of_operations_only_is_counted_in_full():
    flops = 4 + 4 + 1 + 1 + 4 + 4  # squares, their sum, 1e-5, the root, divide, scale
    count = count_flops(tt.Sequential(tt.Linear(4, 4), RMSNorm()), (3, 4))
    assert (count.flops, count.uncounted) == (32 + flops, ())
    assert count.by_layer["layers.1"] == flops
    with Profiler() as p:
        RMSNorm()(Tensor(np.ones((3, 4))))
    assert sum(row.flops for row in p.by_module()) == 3 * flops
    assert p.uncounted == ()


class Sampling(RMSNorm):
    """Reads numbers of tensors by other ways than the framework's own code does."""

    def forward(self, x):
        return super().forward(x) * np.asarray(x).size


def test_the_numbers_are_noticed_that_other_code_reaches_not_those_that_the_framework_does():
    assert count_flops(Sampling(), (1, 4)).uncounted == ("Sampling",)
    # Embedding looks at its tokens, GPT at its input: neither is of others.
    assert count_flops(tt.GPT(9, 4, 1, 1, 4), (1, 3)).uncounted == ()

    class Asking(Layer):
        def forward(self, x):
            return tt.Embedding(9, 4)(x) + tt.concatenate([x, x], axis=1).sum()

    assert count_flops(Asking(), (1, 4)).uncounted == ()


def test_where_another_profiler_follows_the_calls_layers_of_others_are_listed():
    def follow(frame, event, argument):
        return None

    before = sys.getprofile()
    assert before is None
    sys.setprofile(follow)
    try:
        followed = count_flops(tt.Sequential(tt.Linear(4, 4), RMSNorm()), (1, 4))
        assert sys.getprofile() is follow
    finally:
        sys.setprofile(None)
    assert followed.uncounted == ("RMSNorm",)
    assert count_flops(RMSNorm(), (1, 4)).uncounted == ()
    assert sys.getprofile() is None


def test_a_layer_that_computed_once_and_answers_from_a_cache_later_is_listed():
    class Cached(RMSNorm):
        answer = None

        def forward(self, x):
            if self.answer is None:
                self.answer = super().forward(x)
            return self.answer

    layer = Cached()
    for expected in ((), ("Cached",)):
        with Profiler() as p:
            layer(Tensor(np.ones((3, 4))))
        assert p.uncounted == expected


@pytest.mark.parametrize(
    ("layer", "name"),
    [
        (Sorting(), "Sorting"),
        (HalfHidden(), "HalfHidden"),
        (HiddenBehind(), "HiddenBehind"),
        (ByNumber(), "ByNumber"),
        (ByNumberBetween(), "ByNumberBetween"),
        (ByList(), "ByList"),
        (InPlace(), "InPlace"),
        (Sneaking(), "Sneaking"),
        (Returning(), "Returning"),
        (Adding(), "Adding"),
        (Repeating(), "Repeating"),
        (OneValue(), "OneValue"),
        (OneValueBehindItsBack(), "OneValueBehindItsBack"),
    ],
)
def test_layers_whose_work_cannot_be_seen_are_listed_and_the_rest_is_counted(layer, name):
    count = count_flops(tt.Sequential(tt.Linear(4, 4), layer), (1, 4))
    assert count.uncounted == (name,)
    assert count.flops >= 32
    assert count.by_layer["layers.0"] == 32


def test_functions_and_objects_that_are_no_layers_are_listed():
    def doubled(x):
        return x * 2

    assert count_flops(tt.Sequential(tt.Linear(4, 4), doubled), (1, 4)).uncounted == ("doubled",)
    alone = count_flops(doubled, (1, 4))
    assert (alone.flops, alone.uncounted, alone.by_layer) == (4, ("doubled",), {"doubled": 4})


def cube(x):
    """A rule of somebody else."""
    return x * x * x, (lambda g: 3 * g * x * x,)


class Cubing(tt.ReLU):
    """Calls an operation without a formula."""

    def forward(self, x):
        return apply(cube, x)


def test_an_operation_without_a_formula_is_listed_until_it_has_one():
    assert count_flops(Cubing(), (1, 4)).uncounted == ("Cubing",)
    with Profiler() as p:
        apply(cube, Tensor(np.ones(3)))
    assert p.uncounted == ("cube",)
    counter = FLOPCounter()
    counter.register(cube, lambda shapes, out, options: 2 * int(np.prod(out)))
    with Profiler(counter) as p:
        apply(cube, Tensor(np.ones(3)))
    assert (p.uncounted, p.by_operation()[0].flops) == ((), 6)


def test_a_subclass_with_a_forward_of_its_own_does_not_inherit_a_formula():
    counter = FLOPCounter()
    counter.register(Sorting, lambda layer, given, made: 1)

    class Same(Sorting):
        pass

    class Other(Sorting):
        def forward(self, x):
            return super().forward(x)

    assert counter.count(Same(), (1, 4)).uncounted == ()
    assert counter.count(Other(), (1, 4)).uncounted == ("Other",)


def test_a_formula_of_a_layer_stands_for_everything_inside():
    counter = FLOPCounter()
    seen = []

    def formula(layer, given, made):
        seen.append((type(layer), given, made))
        return Work(1000, 100)

    counter.register(Sneaking, formula)
    count = counter.count(tt.Sequential(Sneaking(), tt.Linear(4, 4)), (3, 4))
    assert seen == [(Sneaking, (1, 4), (1, 4))]
    assert (count.flops, count.macs, count.uncounted) == (1032, 116, ())
    with Profiler(counter) as p:
        Sneaking()(Tensor(np.ones((3, 4))))
    assert {row.name: row.flops for row in p.by_operation()} == {"Sneaking": 1000, "Linear": 0, "linear": 0}
    assert count_flops(Sneaking(), (1, 4)).uncounted == ("Sneaking",)  # other counters know nothing of it


@pytest.mark.parametrize("what", [Sorting, cube])
def test_a_formula_is_registered_once(what):
    counter = FLOPCounter()
    counter.register(what, lambda *_: 1)
    with pytest.raises(ValueError, match=f"{what.__name__} has a formula already"):
        counter.register(what, lambda *_: 2)


def test_built_in_formulas_are_not_replaced():
    with pytest.raises(ValueError, match="BatchNorm2d has a formula already"):
        FLOPCounter().register(tt.BatchNorm2d, lambda *_: 2)


@pytest.mark.parametrize("what", [3, "Linear", tt.Linear(2, 2), Tensor])
def test_formulas_are_of_layers_and_rules(what):
    with pytest.raises(ValueError, match="`what` must be a subclass of Layer or the rule of an operation"):
        FLOPCounter().register(what, lambda *_: 2)


@pytest.mark.parametrize("found", [-1, 2.5, None, True])
def test_a_formula_returns_whole_numbers(found):
    counter = FLOPCounter()
    counter.register(Sorting, lambda *_: found)
    with pytest.raises(ValueError, match="the formula of Sorting must return a whole number of FLOPs"):
        counter.count(Sorting(), (1, 4))
    with pytest.raises(ValueError, match="`formula` must be a function"):
        counter.register(RMSNorm, 3)


@pytest.mark.parametrize("shape", [(), (0, 4), (1, -4), (1, 2.5), 4, None, "14", (True, 4)])
def test_an_input_shape_is_of_positive_whole_numbers(shape):
    with pytest.raises(ValueError, match="`input_shape` must be a"):
        count_flops(tt.Linear(4, 4), shape)


def test_a_model_can_be_called():
    with pytest.raises(ValueError, match="`model` must be a Layer, or something else to call, got int"):
        count_flops(3, (1, 4))


def test_counting_leaves_the_model_as_it_was_also_when_it_raises():
    class Failing(Layer):
        def forward(self, x):
            raise ZeroDivisionError

    model = tt.Sequential(tt.Conv2d(1, 2, 3), tt.BatchNorm2d(2), tt.Dropout(0.5)).train()
    state, drawn = model.state_dict(), model[2].rng.bit_generator.state
    model[0].weight.grad = gradient = np.ones(model[0].weight.shape)
    for broken in (False, True):
        if broken:
            model.layers.append(Failing())
            with pytest.raises(ZeroDivisionError):
                count_flops(model, (2, 1, 8, 8))
        else:
            count_flops(model, (2, 1, 8, 8))
        assert model.training
        assert model[1].training
        assert model[0].weight.requires_grad
        assert model[0].weight.grad is gradient
        assert model[2].rng.bit_generator.state == drawn
        assert OBSERVER.get() is None
        for name, array in model.state_dict().items():
            np.testing.assert_array_equal(array, state[name])


def test_counting_sees_a_model_outside_of_no_grad_and_inside_alike():
    class Cached(tt.Sequential):
        """Skips its work where no gradients are recorded, as a cache would."""

        def forward(self, x):
            from tinytorch.core.autograd import recording

            return super().forward(x) if recording() else x

    model = Cached(tt.Linear(4, 4))
    with tt.no_grad():
        assert count_flops(model, (1, 4)).flops == 32


def test_counting_keeps_no_graph():
    class Asking(tt.ReLU):
        seen: list[bool] = []  # noqa: RUF012 - of the test

        def forward(self, x):
            self.seen.append(x.requires_grad)
            return super().forward(x)

    count_flops(tt.Sequential(tt.Linear(4, 4), Asking()), (1, 4))
    assert Asking.seen == [False]


def test_zeros_that_a_model_divides_by_are_no_matter():
    class Normalised(Net):
        def forward(self, x):
            return self.fc1(x / x.sum(axis=-1, keepdims=True)).log()

    assert count_flops(Normalised(), (1, 4)).flops == 4 + 4 + 48 + 6


@pytest.mark.parametrize("ask", [count_flops, Profiler.measure_memory])
def test_an_input_shape_without_the_batch_is_told_to_start_with_it(ask):
    said = r"`input_shape` must .*, starting with the batch.*, got \(10,\): Linear\(64, 10\) expects"
    with pytest.raises(ValueError, match=said):
        ask(tt.Linear(64, 10), (10,))
