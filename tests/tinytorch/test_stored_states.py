"""State of layers whose weights are stored otherwise: copied whole, or refused, never passed over."""

import numpy as np
import pytest

import tinytorch as tt
from tinytorch.perf.compression import SparseConv2d, SparseLinear, magnitude_prune, sparsify
from tinytorch.perf.memoization import enable_kv_cache
from tinytorch.perf.quantization import QuantizationConfig, QuantizedConv2d, QuantizedLinear, quantize_model


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def linear(seed, shape=(21, 19), bias=True):
    layer = tt.Linear(*shape, bias=bias, rng=np.random.default_rng(seed))
    if bias:
        layer.bias.data[...] = normal(shape[1], seed=seed)
    return layer


def conv(seed):
    layer = tt.Conv2d(5, 7, 3, padding=1, rng=np.random.default_rng(seed))
    layer.bias.data[...] = normal(7, seed=seed)
    return layer


PER_TENSOR = QuantizationConfig(per_channel=False)
LAYERS = {
    "INT8": (lambda seed: QuantizedLinear(linear(seed)), (4, 21)),
    "INT8, calibrated": (lambda seed: QuantizedLinear(linear(seed), None, normal(9, 21, seed=seed)), (4, 21)),
    "INT8, one scale, no bias": (lambda seed: QuantizedLinear(linear(seed, bias=False), PER_TENSOR), (4, 21)),
    "INT8 images": (lambda seed: QuantizedConv2d(conv(seed)), (2, 5, 6, 6)),
    **{
        f"sparse, {form}, {values}": (
            lambda seed, form=form, values=values: SparseLinear.from_linear(
                magnitude_prune(linear(seed), 0.8), form, values
            ),
            (4, 21),
        )
        for form, values in (("csr", "float32"), ("bitmask", "float32"), ("dense", "int8"))
    },
    "sparse images": (
        lambda seed: SparseConv2d.from_conv2d(magnitude_prune(conv(seed), 0.8)),
        (2, 5, 6, 6),
    ),
}


def held(layer):
    return {name: v.tobytes() if isinstance(v, np.ndarray) else v for name, v in vars(layer).items()}


@pytest.mark.parametrize(("make", "shape"), LAYERS.values(), ids=LAYERS)
def test_a_loaded_layer_computes_the_bits_of_the_other_and_shares_nothing_with_it(make, shape):
    source, target, x = make(1), make(2), normal(*shape, seed=3)
    expected = source(x).data
    assert not np.array_equal(target(x).data, expected)
    state = source.state_dict()
    target.load_state_dict(state)
    assert held(target) == held(source)
    np.testing.assert_array_equal(target(x).data, expected)
    for array in state.values():
        array[...] = 0
    np.testing.assert_array_equal(target(x).data, expected)
    np.testing.assert_array_equal(source(x).data, expected)


def test_a_calibrated_range_is_part_of_the_state_and_so_is_that_there_is_none():
    fixed, free = QuantizedLinear(linear(1), None, normal(9, 21)), QuantizedLinear(linear(2))
    one, other = fixed.state_dict(), free.state_dict()
    scale, zero = fixed.activation_scale, fixed.activation_zero
    free.load_state_dict(one)
    fixed.load_state_dict(other)
    assert (free.activation_scale, free.activation_zero) == (scale, zero)
    assert type(free.activation_zero) is int
    assert fixed.activation_scale is fixed.activation_zero is None


def put(name, values):
    return lambda state: state.update({name: np.asarray(values(state[name]))})


@pytest.mark.parametrize(
    ("kind", "change", "said"),
    [
        (
            "INT8",
            put("layers.1.q_weight", lambda q: q[:-1]),
            r"`layers.1.q_weight` must have shape \(21, 19\), got \(20, 19\)",
        ),
        (
            "INT8",
            put("layers.1.q_weight", lambda q: q + 0.5),
            "`layers.1.q_weight` must hold int8 numbers, got float",
        ),
        (
            "INT8",
            put("layers.1.q_weight", lambda q: np.full_like(q, -128)),
            "does not fit 'layers.1': `weight` must be -127 to 127",
        ),
        (
            "INT8",
            put("layers.1.scale", lambda s: s * np.nan),
            "does not fit 'layers.1': `scale` must hold finite numbers",
        ),
        (
            "INT8",
            put("layers.1.scale", lambda s: s[0]),
            r"`layers.1.scale` must have shape \(19,\), got \(\)",
        ),
        (
            "INT8",
            put("layers.1.activation_range", lambda r: np.full_like(r, -1)),
            "`activation_range` must be .* got",
        ),
        ("INT8 images", lambda s: s.pop("layers.1.bias"), "lacks layers.1.bias"),
        (
            "sparse, csr, float32",
            put("layers.1.shape", lambda s: s - 1),
            r"`shape` must be \(21, 19\), got \(20, 18\)",
        ),
        ("sparse, csr, float32", put("layers.1.counts", lambda c: c * 0), "but counts add up to 0, not to"),
        ("sparse, bitmask, float32", put("layers.1.mask", lambda m: m * 0), "but the mask has 0 bits for"),
        (
            "sparse, bitmask, float32",
            put("layers.1.values", lambda v: v[1:]),
            "`layers.1.values` must have shape",
        ),
        (
            "sparse, dense, int8",
            put("layers.1.values", lambda v: v.astype(int)),
            "must hold int8 numbers, got int64",
        ),
        (
            "INT8",
            put("layers.0.weight", lambda w: w.astype(str)),
            "`layers.0.weight` must hold float32 numbers, got <U",
        ),
        (
            "INT8",
            lambda s: s.update({"layers.0.bias": [[1], [2, 3]]}),
            "`layers.0.bias` must have shape .* different lengths",
        ),
    ],
)
def test_a_state_that_does_not_fit_is_refused_and_nothing_of_it_is_loaded(kind, change, said):
    model = tt.Sequential(linear(4), LAYERS[kind][0](1))
    state = tt.Sequential(linear(5), LAYERS[kind][0](2)).state_dict()
    change(state)
    before = [held(layer) for layer in model], [p.data.tobytes() for p in model.parameters()]
    with pytest.raises(ValueError, match=said):
        model.load_state_dict(state)
    assert before == ([held(layer) for layer in model], [p.data.tobytes() for p in model.parameters()])


def test_a_state_of_another_number_of_inputs_is_refused_also_where_padding_makes_arrays_alike():
    with pytest.raises(ValueError, match=r"`q_weight` must have shape \(22, 19\), got \(21, 19\)"):
        QuantizedLinear(linear(1, (22, 19))).load_state_dict(QuantizedLinear(linear(2)).state_dict())
    one, other = (SparseLinear.from_linear(linear(1, (n, 3)), "csr") for n in (40, 41))
    other.values, other.indices, other.counts = one.values, one.indices, one.counts
    with pytest.raises(ValueError, match=r"`shape` must be \(41, 3\), got \(40, 3\)"):
        other.load_state_dict(one.state_dict())


def test_a_checkpoint_holds_frozen_sparse_layers_and_refuses_those_of_another_shape(tmp_path):
    def trainer(seed, inputs=20):
        frozen = SparseLinear.from_linear(linear(seed, (inputs, 8)), "csr")
        model = tt.Sequential(frozen, tt.ReLU(), linear(seed, (8, 3)))
        return tt.Trainer(model, tt.Adam(model.parameters(), lr=0.1), tt.MSELoss())

    source, target, x = trainer(1), trainer(2), normal(4, 20)
    source.model(x).sum().backward()
    source.optimizer.step()
    source.save_checkpoint(tmp_path / "state")
    target.load_checkpoint(tmp_path / "state")
    np.testing.assert_array_equal(target.model(x).data, source.model(x).data)

    other = trainer(3, 19)
    for name in ("values", "indices", "counts"):
        setattr(other.model[0], name, getattr(source.model[0], name))
    before, optimizer = other.model.state_dict(), other.optimizer.state_dict()
    with pytest.raises(ValueError, match=r"`shape` must be \(19, 8\), got \(20, 8\)"):
        other.load_checkpoint(tmp_path / "state")
    assert all(np.array_equal(optimizer[name], a) for name, a in other.optimizer.state_dict().items())
    assert all(np.array_equal(before[name], array) for name, array in other.model.state_dict().items())


@pytest.mark.parametrize("make", [quantize_model, sparsify], ids=["INT8", "sparse"])
def test_a_language_model_with_a_cache_sees_what_was_loaded(make):
    def gpt(seed):
        return make(tt.GPT(19, 32, 2, 2, 16, rng=np.random.default_rng(seed)))

    source, target = gpt(1), gpt(2)
    enable_kv_cache(target)
    target.generate([[1, 2]], 6, temperature=0)
    target.load_state_dict(source.state_dict())
    np.testing.assert_array_equal(
        target.generate([[1, 2]], 6, temperature=0), source.generate([[1, 2]], 6, temperature=0)
    )
