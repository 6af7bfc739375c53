"""Sequential without Tensors in between: the same bits as layer by layer, and only where nobody can tell."""

import itertools

import numpy as np
import pytest

import tinytorch as tt
from tinytorch.core import chains
from tinytorch.core.tensor import Tensor
from tinytorch.perf.profiling import Profiler
from tinytorch.perf.quantization import QuantizedLinear, quantize_model


def model(*widths):
    tt.manual_seed(0)
    inner = [layer for i, o in itertools.pairwise(widths) for layer in (tt.Linear(i, o), tt.ReLU())]
    return tt.Sequential(*inner[:-1], tt.Dropout(0.5)).eval()


def layer_by_layer(layers, x):
    for layer in layers:
        x = layer(x)
    return x


X = np.random.default_rng(0).standard_normal((3, 64), np.float32)


@pytest.mark.parametrize(
    "convert", [lambda m: m, quantize_model, lambda m: quantize_model(m, calibration_data=X)]
)
@pytest.mark.parametrize("given", [X, X[:1], X[:0], np.asfortranarray(X), np.full_like(X, np.nan)])
@pytest.mark.parametrize("kind", [Tensor, np.asarray])
def test_a_chain_has_the_bits_of_its_layers_and_leaves_its_input_alone(convert, given, kind):
    net, before = convert(model(64, 96, 80, 10)), given.copy()
    with tt.no_grad():
        expected = layer_by_layer(net.layers, kind(given)).data
        assert chains.through(net.layers, kind(given)) is not None
        found = net(kind(given))
    assert np.array_equal(found.data, expected, equal_nan=True)
    assert np.array_equal(given, before, equal_nan=True)
    assert not found.requires_grad


def test_a_chain_of_activations_alone_does_not_write_into_its_input():
    x = Tensor(X)
    with tt.no_grad():
        out = tt.Sequential(tt.ReLU(), tt.ReLU())(x)
    assert np.array_equal(x.data, X)
    assert np.array_equal(out.data, np.maximum(X, 0))


def test_what_changes_nothing_returns_the_same_tensor_as_ever():
    x = Tensor(X)
    with tt.no_grad():
        assert tt.Sequential(tt.Dropout(0.5)).eval()(x) is x
        assert tt.Sequential()(x) is x


class Doubled(tt.Linear):
    """A Linear of another kind."""

    def forward(self, x):
        """Twice as much."""
        return super().forward(x) * 2


def test_a_forward_of_ones_own_is_called(monkeypatch):
    with tt.no_grad():
        net = model(64, 10)
        plain = net(X).data
        net.layers[0].forward = lambda x: Tensor(np.full((3, 10), 7))
        assert (net(X).data == 7).all()
        net = model(64, 10)
        twin = Doubled(64, 10)
        twin.load_state_dict(net.layers[0].state_dict())
        assert np.array_equal(tt.Sequential(twin)(X).data, 2 * plain)
        monkeypatch.setattr(tt.Linear, "forward", lambda self, x: Tensor(np.full((3, 10), 5)))
        assert (net(X).data == 5).all()


def test_gradients_are_recorded_and_operations_observed_as_without_chains():
    net = model(64, 32, 10)
    net(X).sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())
    with tt.no_grad(), Profiler() as p:
        net(X)
    assert {row.name: row.calls for row in p.by_module()} == {
        "Linear": 2,
        "ReLU": 1,
        "Dropout": 1,
        "Sequential": 1,
    }


def test_dropout_drops_in_training():
    net = model(64, 1000).train()
    with tt.no_grad():
        assert 0.3 < np.mean(net(X).data == 0) < 0.7


@pytest.mark.parametrize(
    "bad", [np.zeros((3, 65), np.float32), np.float32(1), np.zeros((2, 3, 65), np.float32)]
)
@pytest.mark.parametrize("convert", [lambda m: m, quantize_model])
def test_inputs_of_another_shape_are_refused_as_by_the_layer(bad, convert):
    net = convert(model(64, 96, 10))
    with tt.no_grad(), pytest.raises(ValueError, match=r"expects shape \(\.\.\., 64\), got"):
        net(bad)


def test_other_axes_and_types_go_layer_by_layer():
    net = model(64, 32, 10)
    with tt.no_grad():
        stacked = net(np.stack([X, X])).data
        assert np.allclose(stacked[1], net(X).data, atol=1e-6)
        assert np.allclose(net(X.astype(float)).data, net(X).data, atol=1e-6)
        assert np.allclose(net(X.tolist()).data, net(X).data, atol=1e-6)


def test_weights_are_those_of_now():
    net = tt.Sequential(tt.Linear(64, 10))
    with tt.no_grad():
        net(X)
        net.layers[0].weight.data[...] = 0
        net.layers[0].bias.data[...] = 3
        assert (net(X).data == 3).all()
        net.layers[0] = QuantizedLinear(tt.Linear(64, 10, rng=np.random.default_rng(5)))
        assert np.array_equal(net(X).data, net.layers[0](X).data)
