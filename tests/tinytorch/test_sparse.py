"""Sparse formats and products: against dense float64, against SciPy, and with damaged arrays."""

import os

import numpy as np
import pytest
from guarded_memory import guarded, needs_guards
from hypothesis import example, given, settings
from hypothesis import strategies as st

import tinytorch as tt
from tinytorch.kernels import choice, numba_available, sparse
from tinytorch.kernels import sparse_formats as formats
from tinytorch.perf.compression import SparseConv2d, SparseLinear, magnitude_prune, measure_sparsity, sparsify

repeatable = settings(derandomize=True, database=None, deadline=None, max_examples=150)
COMPILED = numba_available() and os.environ.get("TINYTORCH_KERNELS") != "reference"
needs_numba = pytest.mark.skipif(not COMPILED, reason="there are no compiled kernels")
forms, types = st.sampled_from(["csr", "bitmask", "dense"]), st.sampled_from(["float32", "int8"])


def drawn(inputs, outputs, kept, seed, rows=1):
    """Whole numbers, whose sums of products float32 holds exactly; `kept` is the share that is not zero."""
    rng = np.random.default_rng(seed)
    weight = rng.integers(1, 9, (inputs, outputs)) * rng.choice([-1, 1], (inputs, outputs))
    weight = (weight * (rng.random((inputs, outputs)) < kept)).astype(np.float32)
    weight[:1] = np.where(weight[:1] != 0, 127, 0)  # so that int8 keeps whole numbers, or nearly
    return weight, rng.integers(-9, 10, (rows, inputs)).astype(np.float32), rng.integers(-9, 10, outputs)


def bits(a):
    return np.asarray(a).view(np.uint32)


@given(
    inputs=st.integers(1, 600),
    outputs=st.integers(1, 90),
    rows=st.integers(0, 70),
    kept=st.sampled_from([0.0, 0.02, 0.1, 0.5, 1.0]),
    form=forms,
    biased=st.booleans(),
    seed=st.integers(0, 99),
)
@example(inputs=256, outputs=64, rows=32, kept=1.0, form="csr", biased=True, seed=0)
@example(inputs=257, outputs=65, rows=33, kept=0.5, form="bitmask", biased=False, seed=1)
@example(inputs=512, outputs=16, rows=1, kept=1.0, form="csr", biased=True, seed=2)
@repeatable
def test_products_equal_the_dense_product_exactly_for_whole_numbers(
    inputs, outputs, rows, kept, form, biased, seed
):
    weight, x, bias = drawn(inputs, outputs, kept, seed, rows)
    bias = bias.astype(np.float32) if biased else None
    packed = formats.pack(weight, form)
    expected = x.astype(float) @ weight + (bias if biased else 0)
    for product in (sparse.product, sparse.product_reference):
        found = product(x, packed, bias)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, expected)


@given(
    inputs=st.integers(1, 400),
    outputs=st.integers(1, 70),
    rows=st.sampled_from([1, 2, 3, 16, 17, 40]),
    kept=st.sampled_from([0.0, 0.05, 0.3, 1.0]),
    form=forms,
    seed=st.integers(0, 99),
)
@repeatable
def test_int8_products_equal_those_of_the_rounded_weights(inputs, outputs, rows, kept, form, seed):
    rng = np.random.default_rng(seed)
    weight = (rng.standard_normal((inputs, outputs)) * (rng.random((inputs, outputs)) < kept)).astype("f4")
    x = rng.standard_normal((rows, inputs)).astype(np.float32)
    packed = formats.pack(weight, form, "int8")
    assert packed.values.dtype == np.int8
    rounded = formats.unpack(packed)
    steps = np.abs(weight).max(axis=0) / 127
    assert (np.abs(rounded - weight) <= 0.5001 * steps).all()
    expected = x.astype(float) @ rounded
    scale = np.abs(x).astype(float) @ np.abs(rounded) + 1e-30
    for product in (sparse.product, sparse.product_reference):
        assert (np.abs(product(x, packed) - expected) <= 1e-5 * scale).all()


@given(
    inputs=st.integers(1, 600),
    outputs=st.integers(1, 40),
    kept=st.sampled_from([0.0, 0.1, 0.9, 1.0]),
    form=forms,
    seed=st.integers(0, 99),
)
@repeatable
def test_packing_keeps_every_bit_of_a_weight(inputs, outputs, kept, form, seed):
    weight, *_ = drawn(inputs, outputs, kept, seed)
    packed = formats.pack(weight, form)
    np.testing.assert_array_equal(bits(formats.unpack(packed)), bits(weight + 0))
    if form != "dense":
        assert packed.values.size == np.count_nonzero(weight)


@needs_numba
@given(inputs=st.integers(1, 600), outputs=st.integers(1, 40), kept=st.floats(0, 1), seed=st.integers(0, 99))
@repeatable
def test_a_compiled_mask_is_read_as_numpy_reads_it(inputs, outputs, kept, seed):
    packed = formats.pack(drawn(inputs, outputs, kept, seed)[0], "bitmask")
    found = sparse._places(packed)
    expected = formats.places_reference(packed.mask, packed.shape)
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


@needs_numba
@pytest.mark.parametrize("rows", [1, 2, 5, 16, 40])
@pytest.mark.parametrize("values", ["float32", "int8"])
@pytest.mark.parametrize("form", ["csr", "bitmask"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_an_input_that_is_not_finite_reaches_the_outputs_that_have_a_weight_for_it_and_no_others(
    bad, form, values, rows
):
    weight, x, _ = drawn(300, 50, 0.1, 3, rows)
    x[rows // 2, 270] = bad
    packed = formats.pack(weight, form, values)
    found, expected = sparse.product(x, packed), sparse.product_reference(x, packed)
    finite = np.isfinite(expected)
    assert np.array_equal(np.isfinite(found), finite)
    assert np.array_equal(np.isnan(found), np.isnan(expected))
    assert np.array_equal(~finite[rows // 2], formats.unpack(packed)[270] != 0)
    assert finite[np.arange(rows) != rows // 2].all()


@pytest.mark.parametrize("size", [1e-45, 2e-43, 1e-40, 1e-30, 3e38])
def test_int8_weights_of_any_size_are_within_half_a_step(size):
    weight = np.float32(size) * np.linspace(-1, 1, 24, dtype=np.float32).reshape(8, 3)
    packed = formats.pack(weight, "csr", "int8")
    error = np.abs(formats.unpack(packed).astype(float) - weight)
    assert (error <= 0.5001 * packed.scale).all()
    assert (packed.scale <= max(size / 127 * 1.0001, 1.2e-38)).all()


def test_weights_that_are_not_finite_stay_so_and_are_refused_as_int8():
    weight = np.zeros((300, 3), np.float32)
    weight[[5, 280, 299], [0, 1, 2]] = np.nan, np.inf, 1
    np.testing.assert_array_equal(formats.unpack(formats.pack(weight, "csr")), weight)
    assert np.isnan(sparse.product(np.ones((1, 300), np.float32), formats.pack(weight, "csr"))[0, 0])
    with pytest.raises(ValueError, match="`weight` must be finite to be stored as int8"):
        formats.pack(weight, "csr", "int8")


@pytest.mark.parametrize("rows", [1, 7, 32])
def test_strided_inputs_give_what_contiguous_ones_give(rows):
    weight, x, _ = drawn(300, 50, 0.1, 4, rows)
    wide = np.zeros((2 * rows, 600), np.float32)
    wide[::2, ::2] = x
    layer = SparseLinear.from_linear(linear_of(weight))
    np.testing.assert_array_equal(layer(wide[::2, ::2]).data, layer(x).data)
    np.testing.assert_array_equal(layer(np.asfortranarray(x)).data, layer(x).data)


def linear_of(weight, bias=None):
    linear = tt.Linear(*weight.shape, bias=bias is not None)
    linear.weight.data[...] = weight
    if bias is not None:
        linear.bias.data[...] = bias
    return linear


@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize("values", ["float32", "int8"])
@pytest.mark.parametrize("form", formats.FORMATS)
def test_arrays_that_may_not_be_written_are_read_all_the_same(form, values, rows):
    weight, x, bias = drawn(300, 50, 0.1, 14, rows)
    layer = SparseLinear.from_linear(linear_of(weight, bias), form, values)
    expected = layer(x).data
    for array in (x, *(a for a in vars(layer).values() if isinstance(a, np.ndarray))):
        array.setflags(write=False)
    np.testing.assert_array_equal(layer(x).data, expected)


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int32])
def test_other_numbers_are_taken_as_float32(dtype):
    weight, x, bias = drawn(40, 30, 0.3, 5, 6)
    found = SparseLinear.from_linear(linear_of(weight, bias))(x.astype(dtype))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found.data, x @ weight + bias)


@pytest.mark.parametrize("shape", [(300,), (4, 300), (2, 3, 300), (0, 300), (2, 0, 300)])
def test_a_sparse_layer_keeps_leading_axes(shape):
    weight, _, bias = drawn(300, 20, 0.1, 6)
    linear = linear_of(weight, bias)
    x = np.random.default_rng(0).integers(-9, 10, shape)
    for form in formats.FORMATS:
        found = SparseLinear.from_linear(linear, format=form)(x)
        assert found.shape == (*shape[:-1], 20)
        np.testing.assert_array_equal(found.data, linear(x).data)


def test_gradients_go_through_a_sparse_layer_to_its_input():
    weight, x, bias = drawn(30, 20, 0.3, 7, 4)
    inputs = tt.Tensor(x, requires_grad=True)
    layer = SparseLinear.from_linear(linear_of(weight, bias))
    g = np.arange(80, dtype=np.float32).reshape(4, 20)
    layer(inputs).backward(g)
    np.testing.assert_array_equal(inputs.grad, g @ weight.T)
    assert layer.parameters() == []


# The bytes of values, places and the rest, as the formats are described.
@pytest.mark.parametrize(
    ("form", "values", "expected"),
    [
        ("dense", "float32", 4 * 300 * 50),
        ("csr", "float32", 5 * 1500 + 2 * 2 * 50),
        ("bitmask", "float32", 4 * 1500 + 50 * 38),
        ("dense", "int8", 300 * 50 + 4 * 50),
        ("csr", "int8", 2 * 1500 + 2 * 2 * 50 + 4 * 50),
        ("bitmask", "int8", 1500 + 50 * 38 + 4 * 50),
    ],
)
def test_stored_bytes_are_those_of_all_arrays(form, values, expected):
    rng = np.random.default_rng(0)
    linear = tt.Linear(300, 50, rng=rng)
    kept = rng.permutation(15000) < 1500
    linear.weight.data[...] = np.where(kept.reshape(300, 50), rng.choice([-1, 1], (300, 50)), 0)
    layer = SparseLinear.from_linear(linear, form, values)
    assert layer.stored_bytes == expected + 4 * 50
    assert layer.stored_bytes == sum(a.nbytes for a in vars(layer).values() if isinstance(a, np.ndarray))
    assert formats.stored_bytes(layer.packed) == expected


@pytest.mark.parametrize("values", ["float32", "int8"])
@pytest.mark.parametrize("kept", [0.0, 0.01, 0.05, 0.1, 0.13, 0.2, 0.5, 0.86, 0.9, 0.98, 1.0])
def test_auto_is_the_smallest_format(kept, values):
    weight, *_ = drawn(784, 40, kept, 8)
    linear = linear_of(weight)
    sizes = {form: SparseLinear.from_linear(linear, form, values).stored_bytes for form in formats.FORMATS}
    assert SparseLinear.from_linear(linear, values=values).stored_bytes == min(sizes.values())


@pytest.mark.parametrize(
    ("sparsity", "values", "least"),
    [(0.8, "float32", 4.2), (0.9, "float32", 7.6), (0.95, "float32", 15), (0.95, "int8", 34)],
)
def test_a_large_layer_is_as_much_smaller_as_the_formats_promise(sparsity, values, least):
    linear = magnitude_prune(tt.Linear(1024, 1024, rng=np.random.default_rng(0)), sparsity)
    layer = SparseLinear.from_linear(linear, values=values)
    assert (4 * 1024 * 1024 + 4 * 1024) / layer.stored_bytes > least
    assert layer.sparsity == pytest.approx(sparsity, abs=0.01)


@pytest.mark.parametrize("values", ["float32", "int8"])
@pytest.mark.parametrize("form", formats.FORMATS)
def test_a_saved_model_gives_the_same_bits_and_its_file_is_as_small_as_its_arrays(tmp_path, form, values):
    rng = np.random.default_rng(0)
    model = tt.Sequential(tt.Linear(400, 300, rng=rng), tt.ReLU(), tt.Linear(300, 10, bias=False, rng=rng))
    small = sparsify(magnitude_prune(model, 0.9, "layer"), form, values)
    tt.save_model(small, tmp_path / "model")
    loaded = tt.load_model(tmp_path / "model")
    x = rng.standard_normal((5, 400)).astype(np.float32)
    np.testing.assert_array_equal(bits(loaded(x).data), bits(small(x).data))
    stored = small[0].stored_bytes + small[2].stored_bytes
    assert stored < (tmp_path / "model").stat().st_size < stored + 4000
    assert [layer.format for layer in (loaded[0], loaded[2])] == [form, form]


class Net(tt.Layer):
    def __init__(self, rng):
        self.first, self.second = tt.Linear(300, 20, rng=rng), tt.Linear(20, 3, rng=rng)

    def forward(self, x):
        return self.second(self.first(x))


def test_sparse_layers_in_a_class_of_ones_own_are_loaded_in_place_of_dense_ones(tmp_path):
    rng = np.random.default_rng(0)
    small = sparsify(magnitude_prune(Net(rng), 0.9))
    assert type(small) is Net
    tt.save_model(small, tmp_path / "model")
    loaded = tt.load_model(tmp_path / "model", Net(rng))
    assert isinstance(loaded.first, SparseLinear)
    x = rng.standard_normal((5, 300)).astype(np.float32)
    np.testing.assert_array_equal(loaded(x).data, small(x).data)


def test_sparsify_makes_a_new_model_and_leaves_the_old_one():
    model = tt.GPT(20, 16, 2, 2, 8, rng=np.random.default_rng(0)).eval()
    magnitude_prune(model, 0.5)
    before = model.state_dict()
    small = sparsify(model)
    assert {type(layer) for _, layer in model.named_layers() if "Linear" in repr(type(layer))} == {tt.Linear}
    assert sum(isinstance(layer, SparseLinear) for _, layer in small.named_layers()) == 2 * 6 + 1
    assert not any(type(layer) is tt.Linear for _, layer in small.named_layers())
    ids = np.arange(8).reshape(1, 8)
    np.testing.assert_allclose(small(ids).data, model(ids).data, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(small.generate([1, 2], 5, 0), model.generate([1, 2], 5, 0))
    assert measure_sparsity(small) == measure_sparsity(model) == 0.5
    for layer in small.parameters():
        layer.data[...] = 7
    assert all(np.array_equal(model.state_dict()[name], array) for name, array in before.items())


def test_a_layer_in_two_places_becomes_one_sparse_layer():
    shared = tt.Linear(8, 8, rng=np.random.default_rng(0))
    small = sparsify(tt.Sequential(shared, tt.ReLU(), shared))
    assert small[0] is small[2]


def test_a_linear_layer_itself_can_be_made_sparse():
    assert isinstance(sparsify(tt.Linear(4, 3)), SparseLinear)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sparsify(tt.Sequential(tt.ReLU())), "`model` must hold a Linear layer, got none"),
        (lambda: sparsify("model"), "`model` must be a Layer, got str"),
        (
            lambda: sparsify(tt.Linear(2, 2), format="coo"),
            "`format` must be one of auto, dense, csr, bitmask",
        ),
        (lambda: sparsify(tt.Linear(2, 2), values="int4"), "`values` must be one of float32, int8"),
        (lambda: SparseConv2d.from_conv2d(tt.ReLU()), "`conv` must be a Conv2d, got ReLU"),
        (lambda: SparseLinear.from_linear(tt.ReLU()), "`linear` must be a Linear, got ReLU"),
        (lambda: SparseLinear.from_linear(tt.Linear(3, 2))(np.ones((2, 4))), r"\(\.\.\., 3\), got \(2, 4\)"),
        (lambda: formats.pack(np.ones(3, np.float32)), r"`weight` must have shape \(inputs, outputs\)"),
    ],
)
def test_wrong_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def damaged(**changes):
    weight, *_ = drawn(300, 20, 0.2, 9)
    packed = formats.pack(weight, changes.pop("form", "csr"), changes.pop("values_type", "float32"))
    return packed._replace(**{name: change(getattr(packed, name)) for name, change in changes.items()})


def piled_up(counts):
    """The same number of entries, but one more for an output than a panel has inputs."""
    taken = counts.reshape(-1).astype(np.intp)
    missing, taken[0] = 257 - taken[0], 257
    for at in range(1, taken.size):
        less = min(missing, taken[at])
        taken[at] -= less
        missing -= less
    assert missing == 0
    return taken.astype(np.uint16).reshape(counts.shape)


def moved_beyond(mask):
    """The same number of bits, one of them in the four that stand for no input of the 300."""
    moved = mask.copy()
    moved[np.flatnonzero(moved[:-1])[0]] &= moved[np.flatnonzero(moved[:-1])[0]] - np.uint8(1)
    moved[-1] |= np.uint8(128)
    return moved


@pytest.mark.parametrize(
    ("packed", "message"),
    [
        (damaged(values=lambda a: a[:-1]), "one index of one byte for each value"),
        (damaged(values=lambda a: a.astype(float)), "values are float64"),
        (damaged(values=lambda a: np.repeat(a, 2)[::2]), "values have shape"),
        (damaged(indices=lambda a: a.astype(np.uint16)), "one index of one byte"),
        (damaged(indices=lambda _: None), "one index of one byte"),
        (damaged(counts=lambda a: a + np.uint16(1)), "counts add up to"),
        (damaged(counts=piled_up), "an output has 257 entries in a panel of 256 inputs"),
        (damaged(values_type="int8", counts=piled_up), "an output has 257 entries"),
        (damaged(counts=lambda a: a[:1]), r"counts must be uint16 of shape \(2, 20\)"),
        (damaged(counts=lambda a: a.astype(np.int64)), "counts must be uint16"),
        (damaged(form="bitmask", mask=lambda a: a[:-1]), "the mask must be uint8 of shape"),
        (damaged(form="bitmask", mask=lambda a: a | np.uint8(1)), "the mask has"),
        (damaged(form="bitmask", mask=moved_beyond), "the mask has bits beyond its 300 inputs"),
        (damaged(form="dense", values=lambda a: a[:-1]), "values have shape"),
        (damaged(values_type="int8", scale=lambda _: None), "int8 values need a scale"),
        (damaged(scale=lambda _: np.ones(20, np.float32)), "others have none"),
        (damaged(values_type="int8", scale=lambda a: a[:-1]), r"`scale` must be contiguous float32"),
        (damaged(format=lambda _: "coo"), "there is no format 'coo'"),
    ],
)
def test_arrays_that_do_not_belong_together_are_refused_before_compiled_code_runs(packed, message):
    for rows in (1, 4):
        with pytest.raises(ValueError, match=message):
            sparse.product(np.ones((rows, 300), np.float32), packed)


def test_inputs_and_biases_of_wrong_shapes_are_refused():
    packed = damaged()
    x = np.ones((2, 300), np.float32)
    with pytest.raises(ValueError, match=r"`x` must be float32 of shape \(m, 300\), got float32 of shape"):
        sparse.product(x[:, :-1], packed)
    with pytest.raises(ValueError, match="got float64 of shape"):
        sparse.product(x.astype(float), packed)
    with pytest.raises(ValueError, match=r"`bias` must be contiguous float32 of shape \(20,\)"):
        sparse.product(x, packed, np.ones(19, np.float32))


@needs_numba
@pytest.mark.parametrize("values", ["float32", "int8"])
def test_indices_beyond_the_inputs_read_no_foreign_memory(values):
    packed = damaged(indices=lambda a: np.full_like(a, 255), values_type=values)
    inside = np.repeat(np.tile(np.arange(20), 2), packed.counts.reshape(-1))[: packed.counts[0].sum()]
    expected = np.bincount(inside, packed.values[: inside.size], 20)
    expected *= 1 if packed.scale is None else packed.scale
    for rows in (2, 40):  # input 511 is nothing, not what lies there
        found = sparse.product(np.ones((rows, 300), np.float32), packed)
        np.testing.assert_allclose(found, [expected] * rows, rtol=1e-5)


@needs_numba
@pytest.mark.parametrize("rows", [1, 2, 40])
@pytest.mark.parametrize("form", ["csr", "bitmask"])
def test_a_weight_that_is_not_finite_reaches_its_own_output_alone(form, rows):
    weight, x, _ = drawn(300, 60, 0.2, 11, rows)
    weight[::7, 20], weight[3::5, 40] = np.nan, np.inf
    packed = formats.pack(weight, form)
    found, expected = sparse.product(x, packed), sparse.product_reference(x, packed)
    assert np.array_equal(np.isnan(found), np.isnan(expected))
    assert np.isfinite(np.delete(found, [20, 40], axis=1)).all()


@needs_numba
@needs_guards
@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("values", ["float32", "int8"])
@pytest.mark.parametrize("rows", [1, 2, 3, 16, 33])
def test_kernels_touch_nothing_outside_their_arrays(rows, values, before):
    """A read or a write beyond would end the process."""
    from tinytorch.kernels import sparse_compiled

    for inputs, outputs, kept in ((300, 37, 0.03), (256, 64, 1.0), (7, 3, 0.5), (520, 16, 0.0)):
        weight, x, bias = drawn(inputs, outputs, kept, 12, rows)
        packed = formats.pack(weight, "csr", values)
        codes = packed.values if values == "int8" else np.empty(0, np.int8)
        floats = packed.values if values == "float32" else np.empty(0, np.float32)
        scale = np.empty(0, np.float32) if packed.scale is None else packed.scale
        arrays = [
            guarded(a, before)
            for a in (x, packed.counts, packed.indices, floats, codes, scale, bias.astype(np.float32))
        ]
        for product in (sparse_compiled.batch_product, sparse_compiled.row_product):
            out = guarded(np.full((rows, outputs), np.nan, np.float32), before)
            if product(*arrays, out):
                np.testing.assert_allclose(out, sparse.product_reference(x, packed, arrays[-1]), rtol=1e-4)
        mask = guarded(formats.pack(weight, "bitmask").mask, before)
        count = np.count_nonzero(weight)
        counts = guarded(np.empty((-(-inputs // 256), outputs), np.uint16), before)
        indices = guarded(np.empty(count + 8, np.uint8), before)
        assert sparse_compiled.positions(mask, inputs, counts, indices)
        np.testing.assert_array_equal(indices[:count], formats.pack(weight, "csr").indices)


@pytest.mark.parametrize("values", ["float32", "int8"])
@pytest.mark.parametrize("form", formats.FORMATS)
@pytest.mark.parametrize(
    ("stride", "padding", "bias"), [(1, 0, True), (1, 1, False), ((2, 1), (0, 2), True), (3, 1, True)]
)
def test_a_sparse_convolution_is_the_dense_one_forward_and_backward(
    tmp_path, stride, padding, bias, form, values
):
    rng = np.random.default_rng(0)
    conv = tt.Conv2d(3, 5, (3, 2), stride, padding, bias)
    shape = conv.weight.shape
    conv.weight.data[...] = rng.choice([-127, 0, 0, 127], shape)  # int8 holds these exactly
    if bias:
        conv.bias.data[...] = np.arange(5)
    layer = SparseConv2d.from_conv2d(conv, form, values)
    x = rng.integers(-9, 10, (2, 3, 7, 8)).astype(np.float32)
    inputs, dense_inputs = (tt.Tensor(x, requires_grad=True) for _ in range(2))
    found, expected = layer(inputs), conv(dense_inputs)
    np.testing.assert_array_equal(found.data, expected.data)
    g = rng.integers(-9, 10, expected.shape).astype(np.float32)
    found.backward(g)
    expected.backward(g)
    np.testing.assert_array_equal(inputs.grad, dense_inputs.grad)
    tt.save_model(layer, tmp_path / "layer")
    np.testing.assert_array_equal(tt.load_model(tmp_path / "layer")(x).data, found.data)
    assert layer.sparsity == 1 - np.count_nonzero(conv.weight.data) / conv.weight.size
    assert measure_sparsity(layer) == measure_sparsity(conv)


@pytest.mark.parametrize("shape", [(2, 4, 5, 5), (0, 3, 5, 5), (3, 5, 5), (1, 3, 2, 5)])
def test_a_sparse_convolution_refuses_what_does_not_fit(shape):
    layer = SparseConv2d.from_conv2d(tt.Conv2d(3, 2, 3))
    with pytest.raises(ValueError, match=r"expects images of shape \(N, 3, H, W\)"):
        layer(np.ones(shape))


@pytest.mark.parametrize("form", formats.FORMATS)
def test_a_sparse_layer_shares_nothing_with_the_one_it_was_made_from(form):
    linear = linear_of(drawn(30, 20, 0.5, 13)[0], np.ones(20))
    layer = SparseLinear.from_linear(linear, form)
    before = layer(np.ones(30)).data.copy()
    for parameter in linear.parameters():
        parameter.data[...] = 5
    np.testing.assert_array_equal(layer(np.ones(30)).data, before)


@needs_numba
def test_without_compiled_kernels_products_are_the_same(monkeypatch):
    weight, x, bias = drawn(300, 20, 0.2, 10, 5)
    packed = formats.pack(weight, "bitmask")
    expected = sparse.product(x, packed, bias.astype(np.float32))
    monkeypatch.setattr(sparse, "enabled", lambda: False)
    np.testing.assert_array_equal(sparse.product(x, packed, bias.astype(np.float32)), expected)


@needs_numba
@pytest.mark.parametrize("name", ["_batch", "_rows", "_positions"])
def test_a_kernel_that_computes_something_else_fails_its_self_test(name):
    from tinytorch.kernels import sparse_compiled

    def wrong(*arrays):
        for array in arrays:
            if isinstance(array, np.ndarray) and array.dtype != np.uint64:
                array.setflags(write=True)
        for array in arrays[-2:]:
            array[...] = 1

    assert not getattr(sparse_compiled, f"{name}_agrees")(wrong)


@needs_numba
def test_compiled_kernels_are_used_here():
    from tinytorch.kernels import sparse_compiled

    assert choice.enabled()
    assert sparse_compiled._batch_kernel() is not None
    assert sparse_compiled._positions_kernel() is not None
    assert (sparse_compiled._rows_kernel() is not None) == sparse_compiled.can_gather()
