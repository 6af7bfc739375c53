"""Training kernels and arrays that compiled code does not take, or would read beyond."""

import os

import numpy as np
import pytest

import tinytorch as tt
from tinytorch.kernels import cross_entropy, gelu, layernorm, numba_available, optimizers, pooling, softmax
from tinytorch.kernels import sparse as sparse_kernels
from tinytorch.kernels.convolution import Window
from tinytorch.kernels.sparse_formats import pack

COMPILED = numba_available() and os.environ.get("TINYTORCH_KERNELS") != "reference"
needs_numba = pytest.mark.skipif(not COMPILED, reason="there are no compiled kernels")


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def read_only(array):
    kept = array.copy()
    kept.setflags(write=False)
    return kept


def misaligned(array):
    moved = np.zeros(array.nbytes + 1, np.uint8)[1:].view(array.dtype).reshape(array.shape)
    moved[...] = array
    return moved


def backwards(array):
    return array[..., ::-1].copy()[..., ::-1]


CHANGES = {"read-only": read_only, "odd": misaligned, "column-major": np.asfortranarray, "turned": backwards}
strange = pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())


# Inputs are large enough for the compiled kernels.
LAYERS = {
    "GELU": (tt.GELU(), (64, 256)),
    "LayerNorm": (tt.LayerNorm(256), (64, 256)),
    "Linear": (tt.Linear(256, 32, rng=np.random.default_rng(0)), (64, 256)),
    "Conv2d": (tt.Conv2d(8, 8, 3, padding=1, rng=np.random.default_rng(0)), (4, 8, 16, 16)),
    "Conv2d of stride 2": (tt.Conv2d(8, 8, 3, stride=2, rng=np.random.default_rng(0)), (4, 8, 16, 16)),
    "MaxPool2d": (tt.MaxPool2d(2), (4, 8, 16, 16)),
    "AvgPool2d": (tt.AvgPool2d(2), (4, 8, 16, 16)),
    "Softmax": (tt.Softmax(), (64, 256)),
    "MultiHeadAttention": (tt.MultiHeadAttention(32, 4, rng=np.random.default_rng(0)), (2, 40, 32)),
}


@strange
@pytest.mark.parametrize("name", LAYERS)
def test_layers_take_any_array_forward_and_backward(name, change):
    layer, shape = LAYERS[name]
    x = normal(*shape)
    usual = tt.Tensor(x, requires_grad=True)
    expected = layer(usual)
    g = normal(*expected.shape, seed=1)
    expected.backward(g)
    given = tt.Tensor(x, requires_grad=True)
    given.data = change(x)
    found = layer(given)
    found.backward(change(g))
    np.testing.assert_allclose(found.data, expected.data, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(given.grad, usual.grad, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(layer(change(x)).data, expected.data, rtol=1e-4, atol=1e-5)


@strange
@pytest.mark.parametrize("name", ["LayerNorm", "Linear", "Conv2d", "Conv2d of stride 2"])
def test_layers_take_any_weights(name, change):
    layer, shape = LAYERS[name]
    x = normal(*shape)
    expected = layer(x).data
    before = [parameter.data for parameter in layer.parameters()]
    try:
        for parameter, array in zip(layer.parameters(), before, strict=True):
            parameter.data = change(array)
        np.testing.assert_allclose(layer(x).data, expected, rtol=1e-4, atol=1e-5)
    finally:
        for parameter, array in zip(layer.parameters(), before, strict=True):
            parameter.data = array


@pytest.mark.parametrize("change", [read_only, misaligned, backwards], ids=["read-only", "odd", "turned"])
def test_labels_of_any_kind_give_the_same_loss(change):
    logits, labels = normal(400, 50), np.random.default_rng(0).integers(0, 50, 400)
    expected = cross_entropy.forward(logits, labels)
    found = cross_entropy.forward(logits, change(labels))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
    narrow = cross_entropy.forward(logits, labels.astype(np.int32))
    np.testing.assert_allclose(narrow[0], expected[0], rtol=1e-5)
    with pytest.raises(ValueError, match="broadcast"):
        cross_entropy.forward(logits, labels[:-1])


@strange
def test_masks_of_any_kind_give_the_same_weights(change):
    scores, mask = normal(4, 40, 40), np.tri(40, dtype=bool)
    expected = softmax.masked_softmax(scores, mask, 0.5)
    np.testing.assert_allclose(softmax.masked_softmax(scores, change(mask), 0.5), expected, atol=1e-6)
    np.testing.assert_allclose(softmax.masked_softmax(change(scores), mask, 0.5), expected, atol=1e-6)


@pytest.mark.parametrize("change", [read_only, misaligned], ids=["read-only", "odd"])
@pytest.mark.parametrize("form", ["csr", "bitmask", "dense"])
@pytest.mark.parametrize("rows", [1, 2, 5, 40])
def test_sparse_products_take_any_array(rows, form, change):
    weight = normal(300, 50) * (normal(300, 50, seed=1) > 1)
    x, bias = normal(rows, 300), normal(50)
    packed = pack(weight, form)
    changed = [change(a) if isinstance(a, np.ndarray) else a for a in packed]
    expected = sparse_kernels.product(x, packed, bias)
    found = sparse_kernels.product(change(x), type(packed)(*changed), change(bias))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


# Shapes beyond which loops would read


def test_a_scale_of_another_length_than_its_rows_is_not_read_beyond():
    layer = tt.LayerNorm(512)
    layer.gamma.data = np.ones(8)
    with pytest.raises(ValueError, match="broadcast"):
        layer(normal(64, 512))
    with pytest.raises(ValueError, match="broadcast"):
        layernorm.backward(normal(64, 512), normal(64, 512), normal(64, 1), np.ones(8, np.float32))


@pytest.mark.parametrize(
    "make",
    [lambda p: tt.SGD(p, lr=0.1), lambda p: tt.SGD(p, lr=0.1, momentum=0.9), lambda p: tt.Adam(p, lr=0.1)],
)
def test_an_optimizer_whose_parameter_was_given_another_shape_says_so(make):
    parameter = tt.Parameter(normal(300, 300))
    adjust = make([parameter])
    parameter.grad = normal(300, 300)
    adjust.step()
    parameter.data = normal(600, 600)
    parameter.grad = normal(600, 600)
    if isinstance(adjust, tt.SGD) and not adjust.momentum:
        adjust.step()  # it keeps nothing
        return
    with pytest.raises(ValueError, match=r"must have its shape \(600, 600\), got \(300, 300\)"):
        adjust.step()


def test_kernels_of_optimizers_refuse_other_shapes():
    data, short = normal(600, 600), normal(600, 1)
    with pytest.raises(ValueError, match="must have its shape"):
        optimizers.sgd(data, short, None, 0.1, 0.0, 0.0)
    with pytest.raises(ValueError, match="must have its shape"):
        optimizers.adam(data, data.copy(), short, data.copy(), 0.1, (0.9, 0.999), 1e-8, 1, 0.0)


@pytest.mark.parametrize("shape", [(2, 300, 0, 8), (2, 300, 8, 0)])
def test_pooling_of_images_without_pixels_writes_nowhere(shape):
    window = Window((2, 2), (1, 1), (1, 1))
    x = np.zeros(shape, np.float32)
    out, winners = pooling.largest(x, window)
    assert np.isneginf(out).all()
    assert out.size >= 512  # enough for the compiled kernel
    assert pooling.largest_backward(out, winners, shape, window).shape == shape


def test_an_infinite_gradient_of_a_patch_reaches_its_largest_pixel_alone():
    x, window = normal(2, 3, 16, 16), Window((3, 3), (2, 2), (1, 1))
    out, winners = pooling.largest(x, window)
    g = normal(*out.shape)
    g[1, 2, 4, 4], g[0, 0, 0, 0] = np.inf, np.nan
    found = pooling.largest_backward_reference(g, winners, x.shape, window)
    assert (~np.isfinite(found)).sum() == 2
    np.testing.assert_allclose(pooling.largest_backward(g, winners, x.shape, window), found, rtol=1e-6)


def test_gelu_of_gradients_of_another_shape_is_not_read_beyond():
    x = normal(100, 200)
    with pytest.raises(ValueError, match="broadcast"):
        gelu.backward(normal(99, 200), x, gelu.forward(x)[1])


@needs_numba
def test_compiled_gelu_of_the_most_negative_numbers_is_nothing():
    x = -np.logspace(1, 38, 9000, dtype=np.float32)
    with np.errstate(over="ignore"):
        assert np.abs(gelu.forward(x)[0]).max() < 1e-20
        assert np.abs(gelu.forward_reference(x)[0]).max() < 1e-20
