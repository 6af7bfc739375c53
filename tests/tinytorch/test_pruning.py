"""Magnitude pruning: exact counts, which weights go, masks that last, schedules, and sensitivity."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinytorch as tt
from tinytorch.perf.compression import (
    GradualSchedule,
    MagnitudePruner,
    Sensitivity,
    SparseLinear,
    magnitude_prune,
    measure_sparsity,
    sensitivity_scan,
    sparsify,
)
from tinytorch.perf.quantization import quantize_model

repeatable = settings(derandomize=True, database=None, deadline=None, max_examples=100)


def perceptron(seed=0, sizes=(20, 30, 10)):
    rng = np.random.default_rng(seed)
    layers = []
    for inputs, outputs in itertools.pairwise(sizes):
        layers += [tt.Linear(inputs, outputs, rng=rng), tt.ReLU()]
    for layer in layers[::2]:
        layer.bias.data[...] = rng.standard_normal(layer.out_features)
    return tt.Sequential(*layers[:-1])


def weights(model):
    return [p.data for p in model.parameters() if p.ndim >= 2]


def zeros(array):
    return array.size - np.count_nonzero(array)


@given(
    n=st.integers(1, 400),
    sparsity=st.floats(0, 1),
    levels=st.sampled_from([1, 2, 5, None]),
    seed=st.integers(0, 99),
)
@repeatable
def test_exactly_the_share_asked_for_becomes_zero_and_it_is_the_smallest(n, sparsity, levels, seed):
    layer = tt.Linear(n, 1)
    rng = np.random.default_rng(seed)
    before = rng.standard_normal((n, 1)) if levels is None else rng.integers(1, levels + 1, (n, 1))
    layer.weight.data[...] = before * rng.choice([-1, 1], (n, 1))
    before = layer.weight.data.copy()
    array = layer.weight.data
    assert magnitude_prune(layer, sparsity) is layer
    assert layer.weight.data is array
    gone = array == 0
    assert gone.sum() == round(n * sparsity)
    assert np.array_equal(array[~gone], before[~gone])
    if gone.any() and not gone.all():
        assert np.abs(before[gone]).max() <= np.abs(before[~gone]).min()


def test_of_equal_magnitudes_the_first_go():
    layer = tt.Linear(6, 1)
    layer.weight.data[:, 0] = [2, -1, 1, -1, 3, 1]
    magnitude_prune(layer, 0.5)
    assert layer.weight.data[:, 0].tolist() == [2, 0, 0, 0, 3, 1]


@pytest.mark.parametrize("sparsity", [0, 0.5, 0.9, 0.95, 1, 1 / 3])
def test_scopes_count_over_the_model_or_in_each_layer(sparsity):
    model = perceptron()
    weights(model)[1][...] += 100
    magnitude_prune(model, sparsity, "layer")
    assert [zeros(w) for w in weights(model)] == [round(600 * sparsity), round(300 * sparsity)]
    model = perceptron()
    weights(model)[1][...] += 100
    magnitude_prune(model, sparsity)
    first, second = (zeros(w) for w in weights(model))
    assert first + second == round(900 * sparsity)
    assert first == min(600, round(900 * sparsity))  # the second layer's are all larger
    assert measure_sparsity(model) == round(900 * sparsity) / 900


def test_biases_and_scales_are_not_pruned():
    model = tt.Sequential(
        tt.Conv2d(2, 3, 3), tt.BatchNorm2d(3), tt.Flatten(), tt.Linear(12, 4), tt.LayerNorm(4)
    )
    for parameter in model.parameters():
        parameter.data[...] = 0.5
    magnitude_prune(model, 1)
    for name, parameter in model.named_parameters():
        assert (parameter.data == (0 if parameter.ndim >= 2 else 0.5)).all(), name
    assert measure_sparsity(model) == 1


def test_a_shared_weight_is_counted_once():
    shared = tt.Linear(4, 4)
    model = magnitude_prune(tt.Sequential(shared, shared, tt.Linear(4, 2)), 0.5)
    assert sum(zeros(w) for w in weights(model)) == 12


def test_a_pruned_model_keeps_its_zeros_when_more_is_pruned_and_when_less_is_asked_for():
    model = magnitude_prune(perceptron(), 0.5)
    before = [w == 0 for w in weights(model)]
    magnitude_prune(model, 0.8)
    assert measure_sparsity(model) == round(0.8 * 900) / 900
    assert all((w[b] == 0).all() for w, b in zip(weights(model), before, strict=True))
    magnitude_prune(model, 0.3)
    assert measure_sparsity(model) == round(0.8 * 900) / 900


def test_masks_hold_through_training_with_momentum_and_decay():
    model = perceptron()
    pruner = MagnitudePruner(model, 0.8, "layer")
    assert pruner.prune() is model
    pruned = [w == 0 for w in weights(model)]
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((40, 20)), rng.integers(0, 10, 40)
    optimizer = tt.AdamW(model.parameters(), lr=0.05)
    for _ in range(5):
        optimizer.zero_grad()
        tt.CrossEntropyLoss()(model(x), y).backward()
        optimizer.step()
        assert measure_sparsity(model) < 0.7  # the step alone brings weights back
        pruner.apply_masks()
        assert measure_sparsity(model) == 0.8
    assert all(np.array_equal(w == 0, p) for w, p in zip(weights(model), pruned, strict=True))


def test_a_trainer_keeps_pruned_weights_at_zero_through_every_update_of_an_epoch():
    model = perceptron()
    pruner = MagnitudePruner(model, 0.8)
    pruner.prune()
    seen = []

    def after_update():
        seen.append(measure_sparsity(model))
        pruner.apply_masks()
        seen.append(measure_sparsity(model))

    rng = np.random.default_rng(0)
    data = tt.TensorDataset(rng.standard_normal((40, 20)), rng.integers(0, 10, 40))
    trainer = tt.Trainer(
        model, tt.AdamW(model.parameters(), lr=0.05), tt.CrossEntropyLoss(), after_update=after_update
    )
    trainer.train_epoch(tt.DataLoader(data, 8))
    assert len(seen) == 10  # five updates
    assert max(seen[::2]) < 0.7
    assert seen[1::2] == [0.8] * 5


def test_what_a_trainer_calls_after_updates_must_be_callable():
    model = perceptron()
    with pytest.raises(ValueError, match="`after_update` must be callable, got 3"):
        tt.Trainer(model, tt.SGD(model.parameters(), lr=0.1), tt.CrossEntropyLoss(), after_update=3)


def test_masks_are_named_and_shaped_as_the_weights():
    pruner = MagnitudePruner(perceptron(), 0.5)
    assert pruner.masks == {}
    pruner.apply_masks()
    assert measure_sparsity(pruner.model) == 0
    pruner.prune()
    assert {name: mask.shape for name, mask in pruner.masks.items()} == {
        "layers.0.weight": (20, 30),
        "layers.2.weight": (30, 10),
    }
    assert sum(int(mask.sum()) for mask in pruner.masks.values()) == 450


def test_masks_of_another_shape_are_refused():
    pruner = MagnitudePruner(perceptron(), 0.5)
    pruner.prune()
    pruner.model.layers[0] = tt.Linear(20, 31)
    with pytest.raises(ValueError, match=r"mask of `layers.0.weight`, of shape \(20, 30\), fits no weight"):
        pruner.apply_masks()


def test_a_pruner_can_be_told_another_sparsity_each_time():
    pruner = MagnitudePruner(perceptron(), 0.9, "layer")
    for sparsity in (0.2, 0.5, 0.9):
        pruner.prune(sparsity)
        assert pruner.sparsity == sparsity
        assert measure_sparsity(pruner.model) == sparsity


@pytest.mark.parametrize("sparsity", [-0.1, 1.01, 90, np.nan, True, "0.5", None])
def test_sparsity_outside_0_to_1_is_refused(sparsity):
    model = perceptron()
    with pytest.raises(ValueError, match=r"`sparsity` must be a share from 0 to 1 \(90 % is 0.9\), got"):
        magnitude_prune(model, sparsity)
    assert measure_sparsity(model) == 0


def test_a_weight_that_is_nan_is_refused_before_anything_is_pruned():
    model = perceptron()
    weights(model)[1][3, 3] = np.nan
    for scope in ("global", "layer"):
        with pytest.raises(ValueError, match=r"`layers.2.weight` must hold no NaN"):
            magnitude_prune(model, 0.5, scope)
    assert zeros(weights(model)[0]) == 0


def test_infinite_weights_are_the_last_to_go():
    layer = tt.Linear(4, 1)
    layer.weight.data[:, 0] = [np.inf, 1, -np.inf, 2]
    magnitude_prune(layer, 0.5)
    assert layer.weight.data[:, 0].tolist() == [np.inf, 0, -np.inf, 0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: magnitude_prune(tt.Sequential(tt.ReLU()), 0.5), "`model` must have weights"),
        (lambda: magnitude_prune("model", 0.5), "`model` must be a Layer, got str"),
        (lambda: magnitude_prune(perceptron(), 0.5, "row"), "`scope` must be 'global' or 'layer', got 'row'"),
        (lambda: measure_sparsity(tt.ReLU()), "`model` must have weights"),
        (lambda: measure_sparsity(None), "`model` must be a Layer, got NoneType"),
        (lambda: GradualSchedule(0.9, 0), "`steps` must be a positive whole number"),
        (lambda: GradualSchedule(1.5, 2), "`final` must be a share"),
        (lambda: GradualSchedule(0.5, 2, 0.6), r"`initial` must not be above `final` \(=0.5\), got 0.6"),
        (lambda: sensitivity_scan(perceptron(), measure_sparsity, [2]), "`sparsities` must be a share"),
        (
            lambda: sensitivity_scan(perceptron(), None),
            "`evaluate` must be a function of the model, got None",
        ),
        (
            lambda: sensitivity_scan(perceptron(), measure_sparsity, 0.5),
            "`sparsities` must be a list of shares from 0 to 1, got 0.5",
        ),
    ],
)
def test_wrong_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_sparsity_of_sparse_layers_is_that_of_what_they_stand_for():
    model = magnitude_prune(perceptron(), 0.75, "layer")
    expected = measure_sparsity(model)
    for form in ("csr", "bitmask", "dense"):
        model.layers[0] = SparseLinear.from_linear(perceptron_pruned().layers[0], form)
        assert measure_sparsity(model) == expected


def perceptron_pruned():
    return magnitude_prune(perceptron(), 0.75, "layer")


def test_the_schedule_is_cubic_and_ends_at_its_final_sparsity():
    found = GradualSchedule(0.9, 4, 0.1).sparsities
    assert found == pytest.approx([0.9 - 0.8 * (1 - t / 4) ** 3 for t in (1, 2, 3, 4)])
    assert found[-1] == 0.9
    assert GradualSchedule(0.5, 1).sparsities == (0.5,)


def test_the_scan_scores_each_weight_pruned_alone_and_restores_it():
    model = perceptron()
    before = model.state_dict()
    found = sensitivity_scan(model, measure_sparsity, (0.5, 1.0))
    assert found == [
        Sensitivity("layers.0.weight", 0.5, 300 / 900),
        Sensitivity("layers.0.weight", 1.0, 600 / 900),
        Sensitivity("layers.2.weight", 0.5, 150 / 900),
        Sensitivity("layers.2.weight", 1.0, 300 / 900),
    ]
    assert all(np.array_equal(model.state_dict()[name], array) for name, array in before.items())


def test_the_scan_restores_weights_also_when_scoring_fails():
    model = perceptron()
    before = model.state_dict()

    def fail(_):
        raise RuntimeError("no data")

    with pytest.raises(RuntimeError, match="no data"):
        sensitivity_scan(model, fail)
    assert all(np.array_equal(model.state_dict()[name], array) for name, array in before.items())


def test_pruned_weights_that_became_no_numbers_are_zero_again_and_the_others_keep_their_bits():
    model = tt.Linear(6, 5)
    pruner = MagnitudePruner(model, 0.5)
    pruner.prune()
    (mask,) = pruner.masks.values()
    model.weight.data[...] = np.resize(np.float32([np.nan, -np.inf, -1.5, -0.0, 1e-45]), mask.shape)
    before = model.weight.data.copy()
    pruner.apply_masks()
    assert np.array_equal(model.weight.data[mask].view(np.uint32), np.zeros(15, np.uint32))
    assert np.array_equal(model.weight.data[~mask].view(np.uint32), before[~mask].view(np.uint32))


@pytest.mark.parametrize("stored", [quantize_model, sparsify])
def test_weights_that_are_stored_otherwise_cannot_be_pruned_which_is_said_with_what_to_do(stored):
    model = stored(tt.Linear(64, 32))
    with pytest.raises(ValueError, match="it has none: prune a model before it is quantized or compressed"):
        magnitude_prune(model, 0.5)
