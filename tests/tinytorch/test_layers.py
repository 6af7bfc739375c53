"""Layers: what belongs to a layer, state that travels, and what each layer computes, against NumPy."""

import numpy as np
import pytest
from gradients import check_layer, check_rule

import tinytorch as tt
from tinytorch.core.layers import layer_norm, linear


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


class Branch(tt.Layer):
    """One of everything that can belong to a layer."""

    buffers = ("seen",)

    def __init__(self):
        self.scale = tt.Parameter([2.0])
        self.first = tt.Linear(3, 4)
        self.rest = [tt.Linear(4, 4), tt.ReLU(), tt.Sequential(tt.Linear(4, 2), tt.Dropout(0.5))]
        self.pair = (tt.Linear(2, 2, bias=False),)
        self.seen = np.zeros(2, np.float32)
        self.constant = tt.Tensor([1.0])
        self.name = "branch"

    def forward(self, x):
        x = self.first(x)
        for layer in self.rest:
            x = layer(x)
        return self.pair[0](x) * self.scale


NAMES = ["scale", "first.weight", "first.bias", "rest.0.weight", "rest.0.bias", "rest.2.layers.0.weight",
         "rest.2.layers.0.bias", "pair.0.weight"]  # fmt: skip


def test_parameters_are_found_in_attributes_layers_lists_and_tuples_in_the_order_of_assignment():
    model = Branch()
    assert [name for name, _ in model.named_parameters()] == NAMES
    assert [id(p) for p in model.parameters()] == [id(p) for _, p in model.named_parameters()]
    assert [name for name, _ in model.named_layers()][:3] == ["", "first", "rest.0"]


def test_a_parameter_that_two_layers_share_is_one_parameter():
    model = tt.Sequential(tt.Linear(3, 3), tt.Linear(3, 3))
    model[1].weight = model[0].weight
    assert [name for name, _ in model.named_parameters()] == [
        "layers.0.weight",
        "layers.0.bias",
        "layers.1.bias",
    ]
    model(np.ones((1, 3))).sum().backward()
    assert model[0].weight.grad is model[1].weight.grad


def test_layers_that_hold_each_other_are_walked_once():
    a, b = Branch(), Branch()
    a.other, b.other = b, a
    assert len(a.parameters()) == 2 * len(NAMES)


def test_train_and_eval_reach_every_layer_and_return_the_model():
    model = Branch()
    assert model.eval() is model
    assert not any(layer.training for _, layer in model.named_layers())
    assert model.train() is model
    assert all(layer.training for _, layer in model.named_layers())


def test_state_is_copied_out_and_in_with_buffers():
    source, target = Branch(), Branch()
    source.seen[:] = 3
    state = source.state_dict()
    assert list(state) == [*NAMES, "seen"]
    before = [parameter.data for parameter in target.parameters()]
    target.load_state_dict(state)
    for array, parameter, original in zip(before, target.parameters(), source.parameters(), strict=True):
        assert parameter.data is array, "optimizers hold the arrays, which must stay the same"
        np.testing.assert_array_equal(array, original.data)
    assert target.seen.tolist() == [3, 3]
    state["scale"][0] = 9
    assert source.scale.item() == target.scale.item() == 2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s.pop("scale"), "it lacks scale"),
        (lambda s: s.update(more=np.zeros(1)), "it has more too many"),
        (lambda s: s.update(scale=np.zeros(2)), r"`scale` must have shape \(1,\), got \(2,\)"),
    ],
)
def test_a_state_of_another_model_is_refused_and_changes_nothing(change, said):
    model = Branch()
    state = {name: array + 1 for name, array in model.state_dict().items()}
    change(state)
    before = model.state_dict()
    with pytest.raises(ValueError, match=said):
        model.load_state_dict(state)
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_zero_grad_forgets_all_gradients():
    model = Branch()
    model(np.ones((2, 3))).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    model.zero_grad()
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_layer_without_forward_says_so():
    with pytest.raises(NotImplementedError, match=r"Layer must define forward\(\)"):
        tt.Layer()(1)


@pytest.mark.parametrize("shape", [(3,), (5, 3), (2, 5, 3), (2, 1, 4, 3), (0, 3)])
@pytest.mark.parametrize("bias", [True, False])
def test_linear_is_a_product_and_a_sum_for_any_leading_axes(shape, bias):
    layer = tt.Linear(3, 4, bias=bias)
    if bias:
        layer.bias.data[...] = [1, 2, 3, 4]
    x = normal(*shape)
    expected = x @ layer.weight.data.astype(float) + (layer.bias.data if bias else 0)
    out = layer(x)
    assert out.shape == (*shape[:-1], 4)
    np.testing.assert_allclose(out.data, expected, rtol=1e-4, atol=1e-5)
    if np.prod(shape):
        check_layer(layer, x, parameters=layer.parameters())


@pytest.mark.parametrize("shape", [(5, 3), (2, 5, 3), (3,)])
def test_the_rule_of_linear(shape):
    check_rule(linear, normal(*shape), normal(3, 4), normal(4))
    check_rule(linear, normal(*shape), normal(3, 4))


def test_weights_are_within_the_bound_of_glorot_and_come_from_the_generator():
    first, second = (tt.Linear(30, 50, rng=np.random.default_rng(4)) for _ in range(2))
    np.testing.assert_array_equal(first.weight.data, second.weight.data)
    bound = np.sqrt(6 / 80)
    assert 0.9 * bound < np.abs(first.weight.data).max() <= bound
    assert not first.bias.data.any()
    tt.manual_seed(5)
    drawn = tt.Linear(3, 3).weight.data
    tt.manual_seed(5)
    np.testing.assert_array_equal(tt.Linear(3, 3).weight.data, drawn)
    assert not np.array_equal(tt.Linear(3, 3).weight.data, drawn)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: tt.Linear(0, 3), "`in_features` must be a positive whole number, got 0"),
        (lambda: tt.Linear(3, -1), "`out_features` must be a positive whole number, got -1"),
        (lambda: tt.Linear(3, 2.5), "`out_features` must be a positive whole number, got 2.5"),
        (lambda: tt.Linear(3, True), "`out_features` must be a positive whole number, got True"),
        (lambda: tt.Linear(3, 4, rng=7), "`rng` must be a np.random.Generator, got 7"),
        (
            lambda: tt.Linear(64, 128)(np.ones((32, 63))),
            r"Linear\(64, 128\) expects shape \(..., 64\), got \(32, 63\)",
        ),
        (lambda: tt.Linear(1, 1)(3.0), r"Linear\(1, 1\) expects shape \(..., 1\), got \(\)"),
        (lambda: tt.LayerNorm(4)(np.ones((2, 3))), r"LayerNorm\(4\) expects shape \(..., 4\), got \(2, 3\)"),
        (lambda: tt.LayerNorm(4, eps=0), "`eps` must be a positive number, got 0"),
        (lambda: tt.Dropout(1.0), "`p` must be at least 0 and below 1, got 1.0"),
        (lambda: tt.Dropout(-0.1), "`p` must be at least 0 and below 1, got -0.1"),
        (lambda: tt.Flatten()(1.0), r"expects shape \(N, ...\), got \(\)"),
        (lambda: tt.Sequential(tt.ReLU(), 3), "`layers` must hold layers, got 3 at position 1"),
        (lambda: tt.manual_seed(-1), "`seed` must be a whole number of zero or more, got -1"),
    ],
)
def test_bad_arguments_name_the_layer_or_the_argument(call, said):
    with pytest.raises(ValueError, match=said):
        call()


def test_sequential_takes_layers_or_a_list_of_them():
    layers = [tt.Linear(3, 4), tt.ReLU(), lambda x: x * 2]
    x = normal(2, 3)
    both = [tt.Sequential(*layers), tt.Sequential(layers)]
    expected = 2 * np.maximum(x.astype(np.float32) @ layers[0].weight.data, 0)
    for model in both:
        np.testing.assert_allclose(model(x).data, expected, rtol=1e-5, atol=1e-6)
        assert len(model) == 3
        assert list(model) == layers
        assert model[0] is layers[0]
    assert repr(tt.Sequential(layers[:2])) == "Sequential(Linear(3, 4), ReLU())"


def test_flatten_keeps_the_first_axis_and_gradients():
    assert tt.Flatten()(np.zeros((2, 3, 4, 5))).shape == (2, 60)
    assert tt.Flatten()(np.zeros((0, 3, 4))).shape == (0, 12)
    assert tt.Flatten()(np.zeros(3)).shape == (3, 1)
    check_layer(tt.Flatten(), normal(2, 3, 4))


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_dropout_zeroes_its_share_and_rescales_the_rest(p):
    layer, x = tt.Dropout(p, rng=np.random.default_rng(0)), np.full((400, 500), 2.0)
    out = layer(x).data
    dropped = (out == 0).mean()
    # Four standard errors of a share among 200,000.
    assert abs(dropped - p) < 4 * np.sqrt(p * (1 - p) / x.size)
    np.testing.assert_allclose(out[out != 0], 2 / (1 - p), rtol=1e-6)
    assert not np.array_equal(layer(x).data, out)


def test_dropout_passes_the_gradient_where_it_passed_the_value():
    x = tt.Tensor(np.ones((20, 20)), requires_grad=True)
    out = tt.Dropout(0.4, rng=np.random.default_rng(1))(x)
    out.sum().backward()
    np.testing.assert_array_equal(x.grad, out.data)


def test_dropout_is_the_identity_in_evaluation_and_for_p_0():
    x = normal(3, 4).astype(np.float32)
    for layer in (tt.Dropout(0.9).eval(), tt.Dropout(0.0)):
        np.testing.assert_array_equal(layer(x).data, x)


@pytest.mark.parametrize("shape", [(5,), (3, 5), (2, 3, 5), (64, 129)])
def test_layer_norm_has_mean_0_and_variance_1_before_gamma_and_beta(shape):
    layer, x = tt.LayerNorm(shape[-1]), 3 + 5 * normal(*shape)
    layer.gamma.data[...], layer.beta.data[...] = normal(shape[-1], seed=1), normal(shape[-1], seed=2)
    centred = x - x.mean(-1, keepdims=True)
    expected = centred / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * layer.gamma.data + layer.beta.data
    np.testing.assert_allclose(layer(x).data, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(5,), (3, 5), (2, 3, 5)])
def test_the_rule_of_layer_norm(shape):
    check_rule(layer_norm, normal(*shape), normal(5, seed=1), normal(5, seed=2), eps=1e-5)


def test_gradients_of_layer_norm_do_not_change_mean_or_length():
    x = tt.Tensor(normal(64, 128), requires_grad=True)
    tt.LayerNorm(128)(x).backward(normal(64, 128, seed=3))
    # Adding to all of x, or stretching it, changes nothing: the gradient has no part along either.
    assert np.abs(x.grad.sum(-1)).max() < 1e-4
    assert np.abs((x.grad * x.data).sum(-1)).max() < 1e-2


def test_reprs_are_how_layers_are_made():
    layers = [tt.Linear(3, 4), tt.Dropout(0.5), tt.LayerNorm(8), tt.Flatten()]
    assert [repr(layer) for layer in layers] == ["Linear(3, 4)", "Dropout(0.5)", "LayerNorm(8)", "Flatten()"]
