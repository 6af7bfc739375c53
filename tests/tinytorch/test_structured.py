"""Structured pruning: the smaller model against the dense one with the same units silenced."""

import numpy as np
import pytest

import tinytorch as tt
from tinytorch.perf.compression import structured_prune


def drawn(*layers, seed=0):
    """A model of which all parameters and running averages are random, in evaluation mode."""
    model = tt.Sequential(*layers).eval()
    rng = np.random.default_rng(seed)
    for parameter in model.parameters():
        parameter.data[...] = rng.standard_normal(parameter.shape)
    for _, layer in model.named_layers():
        if isinstance(layer, tt.BatchNorm2d):
            layer.running_mean[...] = rng.standard_normal(layer.num_features)
            layer.running_var[...] = rng.uniform(0.5, 2, layer.num_features)
    return model


def kept_units(layer, ratio):
    """Which outputs have the largest norms, by sorting."""
    weight = layer.weight.data.astype(float)
    norms = np.linalg.norm(weight, axis=0) if isinstance(layer, tt.Linear) else norms_of_kernels(weight)
    count = max(1, norms.size - round(norms.size * ratio))
    return np.sort(np.argsort(norms, kind="stable")[norms.size - count :])


def norms_of_kernels(weight):
    return np.linalg.norm(weight.reshape(len(weight), -1), axis=1)


def silenced(consumer, kept, units):
    """Cut what a layer makes of all inputs but those of the kept units: nothing they send arrives."""
    gone = np.setdiff1d(np.arange(units), kept)
    weight = consumer.weight.data
    if isinstance(consumer, tt.Conv2d):
        weight[:, gone] = 0
    else:
        pixels = consumer.in_features // units
        weight.reshape(units, pixels, -1)[gone] = 0


def close(found, expected):
    np.testing.assert_allclose(found.data, expected.data, rtol=1e-4, atol=1e-4 * np.abs(expected.data).max())


@pytest.mark.parametrize("ratio", [0, 0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("activation", [tt.ReLU, tt.GELU, tt.Sigmoid, tt.Tanh])
def test_a_perceptron_computes_what_the_dense_one_does_without_the_units(ratio, activation):
    model = drawn(
        tt.Linear(7, 20), activation(), tt.Dropout(0.3), tt.Linear(20, 11), activation(), tt.Linear(11, 5)
    )
    before = model.state_dict()
    smaller = structured_prune(model, ratio)
    first, second = kept_units(model[0], ratio), kept_units(model[3], ratio)
    assert [smaller[i].weight.shape for i in (0, 3, 5)] == [
        (7, len(first)),
        (len(first), len(second)),
        (len(second), 5),
    ]
    assert [smaller[i].bias.shape for i in (0, 3, 5)] == [(len(first),), (len(second),), (5,)]
    assert (smaller[3].in_features, smaller[3].out_features) == smaller[3].weight.shape
    assert all(np.array_equal(model.state_dict()[name], array) for name, array in before.items())
    silenced(model[3], first, 20)
    silenced(model[5], second, 11)
    x = np.random.default_rng(1).standard_normal((6, 7))
    close(smaller(x), model(x))


@pytest.mark.parametrize("pool", [tt.MaxPool2d, tt.AvgPool2d])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("ratio", [0.25, 0.7])
def test_channels_go_through_pooling_normalisation_and_flatten(pool, bias, ratio):
    model = drawn(
        tt.Conv2d(2, 8, 3, padding=1, bias=bias),
        tt.BatchNorm2d(8),
        tt.ReLU(),
        pool(2),
        tt.Conv2d(8, 10, 3, bias=bias),
        tt.ReLU(),
        tt.BatchNorm2d(10),
        pool(2),
        tt.Flatten(),
        tt.Dropout(0.5),
        tt.Linear(90, 12, bias=bias),
        tt.ReLU(),
        tt.Linear(12, 4, bias=bias),
    )
    smaller = structured_prune(model, ratio)
    kept = [kept_units(model[i], ratio) for i in (0, 4, 10)]
    sizes = [len(k) for k in kept]
    assert sizes == [8 - round(8 * ratio), 10 - round(10 * ratio), 12 - round(12 * ratio)]
    assert smaller[4].weight.shape == (sizes[1], sizes[0], 3, 3)
    assert (smaller[4].in_channels, smaller[4].out_channels) == (sizes[0], sizes[1])
    assert smaller[10].weight.shape == (9 * sizes[1], sizes[2])
    assert smaller[1].num_features == sizes[0] == len(smaller[1].running_var)
    np.testing.assert_array_equal(smaller[6].running_mean, model[6].running_mean[kept[1]])
    silenced(model[4], kept[0], 8)
    silenced(model[10], kept[1], 10)
    silenced(model[12], kept[2], 12)
    x = np.random.default_rng(2).standard_normal((3, 2, 16, 16))
    close(smaller(x), model(x))


def test_the_smaller_model_trains_saves_and_loads(tmp_path):
    model = structured_prune(
        drawn(tt.Conv2d(1, 4, 3), tt.BatchNorm2d(4), tt.ReLU(), tt.Flatten(), tt.Linear(144, 3)), 0.5
    )
    x, y = np.random.default_rng(0).standard_normal((5, 1, 8, 8)), [0, 1, 2, 0, 1]
    optimizer = tt.SGD(model.parameters(), lr=0.01)
    tt.CrossEntropyLoss()(model.train()(x), y).backward()
    assert all(p.grad.shape == p.shape for p in model.parameters())
    optimizer.step()
    tt.save_model(model.eval(), tmp_path / "model")
    np.testing.assert_array_equal(tt.load_model(tmp_path / "model")(x).data, model(x).data)


def test_the_norms_are_those_of_the_model_as_it_was_given():
    """Cutting the first layer must not change which units of the second stay."""
    model = drawn(tt.Linear(4, 6), tt.ReLU(), tt.Linear(6, 4), tt.ReLU(), tt.Linear(4, 2))
    model[0].weight.data[:, 0] = 1e-3  # goes first
    model[2].weight.data[0] = [1, 1, 1e3, 1]  # most of unit 2 stands in the row that will be cut
    model[2].weight.data[1:, 2] = 0
    smaller = structured_prune(model, 0.5)
    assert 2 in kept_units(model[2], 0.5)
    np.testing.assert_array_equal(smaller[2].bias.data, model[2].bias.data[kept_units(model[2], 0.5)])


def test_nested_sequentials_are_one_chain_and_perceptrons_of_transformers_are_chains():
    model = drawn(tt.Sequential(tt.Linear(6, 10), tt.ReLU()), tt.Sequential(tt.Linear(10, 4)))
    assert structured_prune(model, 0.5)[1][0].weight.shape == (5, 4)
    gpt = tt.GPT(11, 8, 2, 2, 6, rng=np.random.default_rng(0)).eval()
    smaller = structured_prune(gpt, 0.75)
    kept = [kept_units(block.mlp.linear1, 0.75) for block in gpt.blocks]
    assert [block.mlp.linear1.weight.shape for block in smaller.blocks] == [(8, 8), (8, 8)]
    for block, units in zip(gpt.blocks, kept, strict=True):
        silenced(block.mlp.linear2, units, 32)
    ids = np.arange(6).reshape(1, 6)
    close(smaller(ids), gpt(ids))


@pytest.mark.parametrize(
    ("between", "said"),
    [
        ([tt.Softmax()], r"layers\.0 \(Softmax, which follows, mixes units or is not known\)$"),
        (
            [tt.LayerNorm(10), tt.ReLU()],
            r"layers\.0 \(LayerNorm, which follows, mixes units or is not known\)$",
        ),
        ([np.tanh], r"layers\.0 \(<ufunc 'tanh'>, which follows, mixes units or is not known\)$"),
    ],
)
def test_units_that_something_mixes_are_left_alone_which_is_said(between, said):
    model = tt.Sequential(tt.Linear(6, 10), *between, tt.Linear(10, 8), tt.ReLU(), tt.Linear(8, 4))
    with pytest.warns(UserWarning, match=f"not all layers became smaller: left whole are {said}"):
        smaller = structured_prune(model, 0.5)
    smaller = [layer for layer in smaller if isinstance(layer, tt.Linear)]
    assert [layer.weight.shape for layer in smaller] == [(6, 10), (10, 4), (4, 4)]


def test_layers_of_which_no_unit_was_to_go_are_not_warned_of():
    model = tt.Sequential(tt.Linear(6, 10), tt.Softmax(), tt.Linear(10, 40), tt.ReLU(), tt.Linear(40, 4))
    smaller = structured_prune(model, 0.04)
    assert [smaller[i].weight.shape for i in (0, 2, 4)] == [(6, 10), (10, 38), (38, 4)]


def test_a_layer_of_a_class_of_ones_own_and_what_feeds_it_stay_whole_which_is_said():
    class Doubled(tt.Linear):
        def forward(self, x):
            return super().forward(x) * 2

    model = tt.Sequential(
        tt.Linear(6, 10), tt.ReLU(), Doubled(10, 10), tt.Linear(10, 8), tt.ReLU(), tt.Linear(8, 4)
    )
    said = r"left whole are layers\.0 \(Linear\(10, 10\), which .*\), layers\.2 \(Doubled is not known\)$"
    with pytest.warns(UserWarning, match=said):
        smaller = structured_prune(model, 0.5)
    assert [smaller[i].weight.shape for i in (0, 2, 3, 5)] == [(6, 10), (10, 10), (10, 4), (4, 4)]


def test_where_every_layer_stays_whole_the_error_says_why():
    with pytest.raises(
        ValueError, match=r"never removed; left whole are layers\.0 \(LayerNorm, which follows"
    ):
        structured_prune(tt.Sequential(tt.Linear(6, 10), tt.LayerNorm(10), tt.Linear(10, 4)), 0.5)


def test_a_convolution_without_flatten_before_a_linear_layer_is_left_alone():
    model = tt.Sequential(tt.Conv2d(1, 4, 3), tt.Linear(4, 4), tt.ReLU(), tt.Linear(4, 2))
    with pytest.warns(
        UserWarning, match=r"layers\.0 \(Linear\(4, 4\), which follows, does not take its outp"
    ):
        smaller = structured_prune(model, 0.5)
    assert [smaller[i].weight.shape for i in (0, 1, 3)] == [(4, 1, 3, 3), (4, 2), (2, 2)]


def test_layers_in_several_places_are_left_alone():
    block = tt.Sequential(tt.Linear(6, 6), tt.ReLU())
    model = tt.Sequential(block, block, tt.Linear(6, 6), tt.ReLU(), tt.Linear(6, 3))
    with pytest.warns(
        UserWarning, match=r"left whole are layers\.0\.layers\.0 \(it, or .* several places\)$"
    ):
        smaller = structured_prune(model, 0.5)
    assert smaller[0] is smaller[1]
    assert [layer.weight.shape for layer in (smaller[0][0], smaller[2], smaller[4])] == [
        (6, 6),
        (6, 3),
        (3, 3),
    ]
    assert smaller(np.ones((1, 6))).shape == (1, 3)


def test_one_unit_always_stays():
    smaller = structured_prune(drawn(tt.Linear(3, 2), tt.ReLU(), tt.Linear(2, 2)), 0.99)
    assert smaller[0].weight.shape == (3, 1)


@pytest.mark.parametrize("ratio", [-0.1, 1, 1.5, np.nan, "half", True])
def test_a_ratio_outside_is_refused(ratio):
    with pytest.raises(ValueError, match="`prune_ratio` must be at least 0 and below 1, got"):
        structured_prune(drawn(tt.Linear(3, 2), tt.ReLU(), tt.Linear(2, 2)), ratio)


def test_models_without_a_chain_and_weights_without_a_size_are_refused():
    with pytest.raises(ValueError, match="`model` must hold a Sequential in which a Linear or Conv2d feeds"):
        structured_prune(tt.Sequential(tt.Linear(3, 2), tt.ReLU()), 0.5)
    with pytest.raises(ValueError, match="`model` must be a Layer, got list"):
        structured_prune([], 0.5)
    model = drawn(tt.Linear(3, 2), tt.ReLU(), tt.Linear(2, 2))
    model[0].weight.data[0, 0] = np.nan
    with pytest.raises(ValueError, match=r"the weights of Linear\(3, 2\) must hold no NaN"):
        structured_prune(model, 0.5)
