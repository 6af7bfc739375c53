import math

import numpy as np
import pytest
from gradients import check_layer, check_rule
from hypothesis import given
from hypothesis import strategies as st

from tinytorch.core.embeddings import Embedding, PositionalEncoding, embed
from tinytorch.core.tensor import Tensor


@pytest.mark.parametrize("tokens", [[[0, 3, 3], [1, 0, 0]], np.array([4, 4, 2]), Tensor([1.0, 2.0]), 3])
def test_rows_are_looked_up(tokens):
    layer = Embedding(5, 4)
    chosen = np.asarray(tokens.data if isinstance(tokens, Tensor) else tokens).astype(int)
    assert layer.weight.shape == (5, 4)
    assert np.array_equal(layer(tokens).data, layer.weight.data[chosen])


@given(st.integers(1, 40), st.lists(st.integers(0, 1000), max_size=60), st.integers(0, 2**32 - 1))
def test_the_gradient_adds_up_where_a_token_repeats(vocab, tokens, seed):
    ids = np.array(tokens, dtype=np.intp) % vocab
    weight = np.zeros((vocab, 3))
    gradient = np.random.default_rng(seed).standard_normal((len(ids), 3))
    expected = np.zeros_like(weight)
    np.add.at(expected, ids, gradient)
    found = embed(weight, ids)[1][0](gradient)
    assert np.allclose(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", [(), (7,), (3, 4), (2, 3, 2)])
def test_the_gradient_is_that_of_differences(shape):
    rng = np.random.default_rng(0)
    check_rule(embed, rng.standard_normal((4, 3)), rng.integers(0, 4, shape))


def test_a_table_that_is_used_twice_gets_both_gradients():
    layer = Embedding(3, 2)
    (layer([0, 1]) + layer([1, 1])).sum().backward()
    assert layer.weight.grad.tolist() == [[1, 1], [3, 3], [0, 0]]


@pytest.mark.parametrize("token", [5, -1])
def test_tokens_outside_the_vocabulary_are_both_kinds_of_error(token):
    for kind in (IndexError, ValueError):
        with pytest.raises(kind, match=rf"`tokens` must lie in 0 to 4 .*got {token}"):
            Embedding(5, 4)([0, token])


@pytest.mark.parametrize("tokens", [[0.5], [math.nan], ["a"], [[1, 2], [3]]])
def test_what_is_no_token_is_refused(tokens):
    with pytest.raises(ValueError, match="`tokens` must"):
        Embedding(5, 4)(tokens)


@pytest.mark.parametrize(
    ("sizes", "name"), [((0, 4), "vocab_size"), ((5, -1), "embed_dim"), ((5, 2.0), "embed_dim")]
)
def test_sizes_are_positive(sizes, name):
    with pytest.raises(ValueError, match=f"`{name}` must be a positive whole number"):
        Embedding(*sizes)


@pytest.mark.parametrize("dim", [1, 4, 5])
def test_positions_are_encoded_by_sines_and_cosines(dim):
    layer = PositionalEncoding(9, dim)
    out = layer(np.zeros((2, 9, dim))).data
    for position in range(9):
        for i in range(dim):
            angle = position / 10000 ** (2 * (i // 2) / dim)
            expected = math.cos(angle) if i % 2 else math.sin(angle)
            assert out[1, position, i] == pytest.approx(expected, abs=1e-6)


def test_a_later_start_shifts_positions():
    layer, x = PositionalEncoding(9, 4), np.random.default_rng(0).standard_normal((9, 4)).astype("f")
    assert np.array_equal(layer(x[3:7], start_pos=3).data, layer(x).data[3:7])


def test_positional_encoding_passes_gradients_and_has_no_parameters():
    layer = PositionalEncoding(5, 4)
    assert layer.parameters() == []
    check_layer(layer, np.random.default_rng(0).standard_normal((2, 5, 4)))


@pytest.mark.parametrize(("length", "start"), [(6, 0), (3, 3), (2, -1)])
def test_positions_that_do_not_exist_are_refused(length, start):
    with pytest.raises(ValueError, match="has positions 0 to 4"):
        PositionalEncoding(5, 4)(np.zeros((length, 4)), start_pos=start)


@pytest.mark.parametrize("shape", [(4,), (3, 5)])
def test_positional_encoding_refuses_other_widths(shape):
    with pytest.raises(ValueError, match=r"PositionalEncoding\(5, 4\) expects shape"):
        PositionalEncoding(5, 4)(np.zeros(shape))
