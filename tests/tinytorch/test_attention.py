import numpy as np
import pytest
from gradients import check_layer, check_rule

from tinytorch.core.attention import (
    MultiHeadAttention,
    attention_weights,
    causal_mask,
    scaled_dot_product_attention,
)
from tinytorch.core.tensor import Tensor, wrap


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def oracle(q, k, v, mask=None):
    scores = np.einsum("...id,...jd->...ij", q, k) / np.sqrt(q.shape[-1])
    kept = np.ones(scores.shape) if mask is None else np.broadcast_to(mask, scores.shape)
    weights = kept * np.exp(scores - scores.max())
    weights /= weights.sum(axis=-1, keepdims=True)
    return np.einsum("...ij,...jw->...iw", weights, v), weights


def attend(q, k, v, mask=None):
    out, weights = scaled_dot_product_attention(wrap(q), wrap(k), wrap(v), mask)
    return out.data, weights.data


@pytest.mark.parametrize("batch", [(), (2,), (2, 3)])
@pytest.mark.parametrize("mask", [None, "causal", "random"])
@pytest.mark.parametrize(("queries", "keys", "d", "width"), [(5, 5, 4, 4), (3, 6, 8, 2), (1, 1, 1, 1)])
def test_attention_is_that_of_einsum(batch, mask, queries, keys, d, width):
    q, k, v = (
        normal(*batch, queries, d),
        normal(*batch, keys, d, seed=1),
        normal(*batch, keys, width, seed=2),
    )
    if mask == "causal":
        mask = causal_mask(queries, keys - queries)
    elif mask == "random":
        mask = np.random.default_rng(3).integers(0, 2, (*batch, queries, keys))
        mask[..., 0] = 1
    for found, expected in zip(attend(q, k, v, mask), oracle(q, k, v, mask), strict=True):
        assert np.allclose(found, expected, rtol=1e-12, atol=1e-14)


def test_scores_are_divided_by_the_root_of_the_width():
    q = k = np.full((2, 16), 1.0)
    k = k * [[0.0], [1.0]]  # scores 0 and 16, over 4: 0 and 4
    assert attend(q, k, k)[1][0, 1] == pytest.approx(1 / (1 + np.exp(-4)), rel=1e-12)


@pytest.mark.parametrize(
    "of", [np.asarray, lambda m: m.astype(bool), lambda m: m.astype("f"), np.ndarray.tolist, Tensor]
)
def test_a_mask_of_any_kind_keeps_ones_and_blocks_zeros(of):
    q, k, v = normal(2, 2, 4), normal(2, 3, 4, seed=1), normal(2, 3, 4, seed=2)
    weights = attend(q, k, v, of(np.array([[1, 0, 1], [0, 1, 0]])))[1]
    assert np.array_equal(weights == 0, np.broadcast_to([[0, 1, 0], [1, 0, 1]], (2, 2, 3)))
    assert np.allclose(weights.sum(axis=-1), 1)


@pytest.mark.parametrize("shape", [(3,), (1, 3), (2, 1), (2, 1, 1, 3), (4, 2, 3), (2, 4, 2, 3)])
def test_a_mask_broadcasts(shape):
    q, k, v = normal(2, 4, 2, 5), normal(2, 4, 3, 5, seed=1), normal(2, 4, 3, 5, seed=2)
    mask = np.random.default_rng(0).integers(0, 2, shape)
    mask[..., -1] = 1
    assert np.allclose(attend(q, k, v, mask)[0], oracle(q, k, v, mask)[0])


def test_a_query_that_may_look_at_nothing_gets_zeros():
    q, k, v = (Tensor(normal(2, 4, seed=seed), requires_grad=True) for seed in range(3))
    out, weights = scaled_dot_product_attention(q, k, v, [[0, 0], [1, 1]])
    assert not out.data[0].any()
    assert not weights.data[0].any()
    out.sum().backward()
    assert all(np.isfinite(x.grad).all() for x in (q, k, v))
    assert not q.grad[0].any()


def test_huge_scores_do_not_overflow():
    out, weights = attend(np.full((1, 1), 1e20), np.array([[1e15], [-1e15]]), np.array([[1.0], [2.0]]))
    assert weights.tolist() == [[1, 0]]
    assert out.tolist() == [[1]]


def test_a_number_that_is_none_is_passed_on():
    q, k, v = normal(2, 4), normal(2, 4, seed=1), normal(2, 4, seed=2)
    q[0, 0] = np.nan
    assert np.isnan(attend(q, k, v, causal_mask(2))[0][0]).all()


def test_the_causal_mask_keeps_itself_and_the_past():
    assert causal_mask(3).tolist() == [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    assert causal_mask(2, start=2).tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]


def test_attention_depends_on_content():
    v = np.eye(3)
    k = 9 * np.eye(3)
    for wanted in range(3):
        assert attend(k[wanted : wanted + 1], k, v)[0][0].argmax() == wanted
    past = attend(k[[0, 0, 0]], k, v, causal_mask(3))[0]
    assert (past[:, 0] > 0.99).all()  # uniform attention would give 1, 1/2 and 1/3


@pytest.mark.parametrize("mask", [None, causal_mask(4)])
def test_the_gradient_of_the_weights_is_that_of_differences(mask):
    check_rule(attention_weights, normal(2, 4, 4), mask, scale=0.3)


@pytest.mark.parametrize("mask", [None, causal_mask(3, 1)])
def test_gradients_of_attention_are_those_of_differences(mask):
    shapes = ((2, 3, 5), (2, 4, 5), (2, 4, 2))
    arrays = [normal(*shape, seed=seed) for seed, shape in enumerate(shapes)]
    check_layer(lambda q, k, v: scaled_dot_product_attention(q, k, v, mask)[0], *arrays)
    check_layer(lambda q, k, v: scaled_dot_product_attention(q, k, v, mask)[1] + v.sum() * 0, *arrays)


def by_heads(layer, x, mask):
    """Multi-head attention, head by head, in float64."""
    q, k, v = (
        x @ p.weight.data.astype(float) + p.bias.data for p in (layer.q_proj, layer.k_proj, layer.v_proj)
    )
    heads = [slice(h * layer.head_dim, (h + 1) * layer.head_dim) for h in range(layer.num_heads)]
    outs = [
        oracle(q[..., s], k[..., s], v[..., s], mask[:, h] if mask is not None and mask.ndim == 4 else mask)[
            0
        ]
        for h, s in enumerate(heads)
    ]
    return np.concatenate(outs, axis=-1) @ layer.out_proj.weight.data + layer.out_proj.bias.data


def layer_of(embed_dim, num_heads):
    layer = MultiHeadAttention(embed_dim, num_heads, rng=np.random.default_rng(0))
    for seed, parameter in enumerate(layer.parameters()):
        parameter.data[...] = normal(*parameter.shape, seed=seed) / 2
    return layer


@pytest.mark.parametrize("heads", [1, 2, 6])
@pytest.mark.parametrize("mask_shape", [None, (5, 5), (2, 5, 5), (2, 1, 5, 5), "heads"])
def test_heads_see_their_own_part_of_the_width(heads, mask_shape):
    layer, x = layer_of(6, heads), normal(2, 5, 6)
    mask = None
    if mask_shape is not None:
        shape = (2, heads, 5, 5) if mask_shape == "heads" else mask_shape
        mask = np.random.default_rng(1).integers(0, 2, shape)
        mask[..., 0] = 1
    expected = by_heads(
        layer, x, np.broadcast_to(mask, (2, heads, 5, 5)) if mask_shape == (2, 1, 5, 5) else mask
    )
    assert np.allclose(layer(x, mask).data, expected, rtol=1e-4, atol=1e-5)


def test_gradients_of_several_heads_are_those_of_differences():
    layer = layer_of(6, 3)
    check_layer(lambda x: layer(x, causal_mask(4)), normal(2, 4, 6), parameters=layer.parameters())


def test_every_projection_has_weights_and_a_bias():
    names = dict(layer_of(6, 3).named_parameters())
    assert set(names) == {f"{p}_proj.{w}" for p in ("q", "k", "v", "out") for w in ("weight", "bias")}


def test_one_seed_gives_one_layer():
    first, second = (MultiHeadAttention(4, 2, rng=np.random.default_rng(5)) for _ in range(2))
    x = normal(1, 3, 4)
    assert np.array_equal(first(x).data, second(x).data)
    assert not np.array_equal(first.q_proj.weight.data, first.k_proj.weight.data)


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match=r"`num_heads` \(=4\) must divide `embed_dim` \(=6\)"):
        MultiHeadAttention(6, 4)


@pytest.mark.parametrize(
    ("sizes", "name"), [((-6, 2), "embed_dim"), ((6, 0), "num_heads"), ((6, 1.5), "num_heads")]
)
def test_sizes_are_positive(sizes, name):
    with pytest.raises(ValueError, match=f"`{name}` must be a positive whole number"):
        MultiHeadAttention(*sizes)


@pytest.mark.parametrize("shape", [(6,), (5, 6), (2, 5, 4), (1, 2, 5, 6)])
def test_inputs_of_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=r"MultiHeadAttention\(6, 2\) expects shape \(B, T, 6\), got"):
        MultiHeadAttention(6, 2)(np.zeros(shape))


@pytest.mark.parametrize(
    "shapes", [((3, 4), (3, 5), (3, 4)), ((3, 4), (2, 4), (3, 4)), ((4,), (3, 4), (3, 4))]
)
def test_queries_keys_and_values_must_fit(shapes):
    with pytest.raises(ValueError, match=r"attention expects q \(\.\.\., queries, d\)"):
        scaled_dot_product_attention(*map(np.zeros, shapes))


@pytest.mark.parametrize("mask", [[[0.5, 1], [1, 1]], [[0, -np.inf], [0, 0]], [[2, 1], [1, 1]]])
def test_a_mask_of_anything_but_zeros_and_ones_is_refused(mask):
    x = np.zeros((1, 2, 4))
    with pytest.raises(ValueError, match="`mask` must hold 1"):
        scaled_dot_product_attention(x, x, x, mask)


@pytest.mark.parametrize("shape", [(3, 2), (5, 1, 2, 2), (4, 2)])
def test_a_mask_that_does_not_broadcast_is_refused(shape):
    x = np.zeros((1, 2, 4))
    with pytest.raises(ValueError, match=r"`mask` must broadcast to the scores' shape \(1, 2, 2\)"):
        scaled_dot_product_attention(x, x, x, np.ones(shape))
