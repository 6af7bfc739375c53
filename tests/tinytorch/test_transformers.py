import numpy as np
import pytest
from gradients import check_layer

from tinytorch.core import attention
from tinytorch.core.attention import causal_mask
from tinytorch.core.autograd import recording
from tinytorch.core.inference import Steps
from tinytorch.core.tensor import Tensor
from tinytorch.core.transformers import GPT, MLP, TransformerBlock, drawn


def rng(seed=0):
    return np.random.default_rng(seed)


def stirred(model, scale=0.3):
    """Give every parameter numbers of some size, so that nothing is hidden by a zero bias."""
    for seed, parameter in enumerate(model.parameters()):
        parameter.data[...] += scale * rng(seed).standard_normal(parameter.shape)
    return model


def small(**options):
    return stirred(GPT(11, 8, 2, 2, 16, rng=rng(), **options))


TOKENS = rng(7).integers(0, 11, (3, 9))


def norm(x, layer):
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / np.sqrt(centred.var(axis=-1, keepdims=True) + 1e-5) * layer.gamma.data + layer.beta.data


def linear(x, layer):
    return x @ layer.weight.data.astype(float) + layer.bias.data


def by_hand(model, tokens, start=0):
    """The whole model in float64 with einsum."""
    batch, length = tokens.shape
    table, positions = model.token_embedding.weight.data, model.position_embedding.weight.data
    x = table[tokens].astype(float) + positions[start : start + length]
    for block in model.blocks:
        layer = block.attention
        normed = norm(x, block.ln1)
        q, k, v = (
            linear(normed, p).reshape(batch, length, layer.num_heads, -1)
            for p in (layer.q_proj, layer.k_proj, layer.v_proj)
        )
        scores = np.einsum("bihd,bjhd->bhij", q, k) / np.sqrt(q.shape[-1])
        weights = np.exp(scores) * np.tri(length)
        weights /= weights.sum(axis=-1, keepdims=True)
        x = x + linear(np.einsum("bhij,bjhd->bihd", weights, v).reshape(x.shape), layer.out_proj)
        inner = linear(norm(x, block.ln2), block.mlp.linear1)
        inner = inner / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (inner + 0.044715 * inner * inner * inner)))
        x = x + linear(inner, block.mlp.linear2)
    return linear(norm(x, model.ln_f), model.lm_head)


@pytest.mark.parametrize("start", [0, 4])
def test_the_model_is_that_of_einsum(start):
    model = small()
    assert np.allclose(
        model(TOKENS, start_pos=start).data, by_hand(model, TOKENS, start), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("position", range(9))
def test_nothing_of_the_future_comes_through(position):
    model, changed = small(), TOKENS.copy()
    changed[:, position] = (changed[:, position] + 1) % 11
    before, after = model(TOKENS).data, model(changed).data
    assert np.array_equal(before[:, :position], after[:, :position])
    assert not np.isclose(before[:, position:], after[:, position:]).all(axis=-1).any()


def test_what_comes_later_depends_on_what_came_and_on_where():
    model, swapped = small(), TOKENS.copy()
    swapped[:, [0, 1]] = [[1, 2]]
    twisted = swapped.copy()
    twisted[:, [0, 1]] = [[2, 1]]
    assert not np.allclose(model(swapped).data[:, -1], model(twisted).data[:, -1])


def test_uniform_attention_over_the_past_would_be_another_model(monkeypatch):
    model = small()
    right = model(TOKENS).data

    def uniform(scores, mask, *, scale):
        kept = np.broadcast_to(mask, scores.shape).astype(scores.dtype)
        return kept / kept.sum(axis=-1, keepdims=True), (None, None)

    monkeypatch.setattr(attention, "attention_weights", uniform)
    assert not np.allclose(model(TOKENS).data, right, atol=1e-2)
    assert not np.allclose(model(TOKENS).data, by_hand(model, TOKENS), atol=1e-2)


def test_a_later_start_shifts_positions():
    model = small()
    model.position_embedding.weight.data[:4] = model.position_embedding.weight.data[5:9]
    assert np.array_equal(model(TOKENS[:, :4], start_pos=5).data, model(TOKENS[:, :4]).data)
    assert not np.allclose(model(TOKENS[:, :4], start_pos=1).data, model(TOKENS[:, :4]).data)


def test_gradients_of_a_block_are_those_of_differences():
    block = stirred(TransformerBlock(6, 2, rng=rng()), 0.2)
    check_layer(
        lambda x: block(x, causal_mask(4)),
        rng(1).standard_normal((2, 4, 6)),
        parameters=block.parameters(),
        rtol=1e-5,
    )


def test_gradients_of_the_model_are_those_of_differences():
    model = small()
    check_layer(lambda: model(TOKENS), parameters=model.parameters(), rtol=1e-5)


def test_every_parameter_gets_a_gradient():
    model = small()
    (model(TOKENS) * rng(1).standard_normal((3, 9, 11)).astype("f")).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.shape == parameter.shape
        if "k_proj.bias" not in name:  # moves all scores of a query alike, which softmax does not see
            assert np.abs(parameter.grad).max() > 1e-4, name
    unused = model.position_embedding.weight.grad[9:]
    assert not unused.any()


def test_parameters_carry_their_names():
    names = [name for name, _ in small().named_parameters()]
    of_block = [
        *("ln1.gamma", "ln1.beta"),
        *(f"attention.{p}_proj.{w}" for p in ("q", "k", "v", "out") for w in ("weight", "bias")),
        *("ln2.gamma", "ln2.beta"),
        *(f"mlp.linear{i}.{w}" for i in (1, 2) for w in ("weight", "bias")),
    ]
    assert names == [
        "token_embedding.weight",
        "position_embedding.weight",
        *(f"blocks.{i}.{name}" for i in range(2) for name in of_block),
        *("ln_f.gamma", "ln_f.beta", "lm_head.weight", "lm_head.bias"),
    ]


def test_a_block_looks_everywhere_without_a_mask_and_back_with_one():
    block, x = stirred(TransformerBlock(6, 2, rng=rng())), rng(1).standard_normal((1, 4, 6))
    changed = x.copy()
    changed[:, -1] += [1, -1, 2, 0, 0, 1]
    assert np.array_equal(block(x, causal_mask(4)).data[:, :-1], block(changed, causal_mask(4)).data[:, :-1])
    assert not np.isclose(block(x).data, block(changed).data).all(axis=-1).any()


def test_the_perceptron_is_as_wide_as_asked():
    assert TransformerBlock(6, 2).mlp.linear1.weight.shape == (6, 24)
    assert TransformerBlock(6, 2, mlp_ratio=2).mlp.linear1.weight.shape == (6, 12)
    assert MLP(6, 5)(np.zeros((2, 6))).shape == (2, 6)


def test_dropout_acts_in_training_only():
    model = small(dropout_prob=0.5)
    assert not np.array_equal(model(TOKENS).data, model(TOKENS).data)
    model.eval()
    assert np.array_equal(model(TOKENS).data, small()(TOKENS).data)


@pytest.mark.parametrize("prompt", [[[1, 2], [3, 4]], np.array([[1, 2]]), Tensor([[1, 2]]), [1, 2]])
def test_generation_starts_with_the_prompt(prompt):
    ids = small().generate(prompt, 5, rng=rng())
    start = np.atleast_2d(np.asarray(prompt.data if isinstance(prompt, Tensor) else prompt))
    assert ids.shape == (len(start), 7)
    assert np.array_equal(ids[:, :2], start)
    assert ids.dtype.kind == "i"
    assert ((ids >= 0) & (ids < 11)).all()


def test_at_temperature_zero_the_best_token_is_taken():
    model = small()
    ids = model.generate(TOKENS[:, :3], 6, temperature=0)
    for length in range(3, 9):
        assert np.array_equal(ids[:, length], model(ids[:, :length]).data[:, -1].argmax(axis=-1))


def test_draws_follow_the_softmax_of_the_scaled_scores():
    logits, temperature = np.array([1.0, 0.0, -1.0], "f"), 0.5
    counts = np.bincount(drawn(np.tile(logits, (40_000, 1)), temperature, rng()), minlength=3)
    expected = np.exp(logits / temperature) / np.exp(logits / temperature).sum()
    assert np.allclose(counts / 40_000, expected, atol=4 * np.sqrt(0.25 / 40_000))


def test_the_same_seed_draws_the_same_tokens():
    model = small()
    first, second, other = (model.generate([1], 12, rng=rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)


def test_a_low_temperature_comes_close_to_the_best():
    model = small()
    assert np.array_equal(model.generate([1], 9, 1e-6, rng=rng()), model.generate([1], 9, temperature=0))


def test_generation_runs_without_dropout_or_graph_and_leaves_modes_alone(monkeypatch):
    model = small(dropout_prob=0.5)
    model.blocks[0].eval()
    modes = [layer.training for _, layer in model.named_layers()]
    seen, logits = [], Steps.logits

    def watched(self, *args, **kwargs):
        seen.append((recording(), any(layer.training for _, layer in self.model.named_layers())))
        return logits(self, *args, **kwargs)

    monkeypatch.setattr(Steps, "logits", watched)
    model.generate([1], 2)
    assert seen == [(False, False)] * 2
    assert [layer.training for _, layer in model.named_layers()] == modes
    assert recording()


def test_modes_come_back_after_an_error(monkeypatch):
    model = small()
    monkeypatch.setattr(Steps, "logits", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        model.generate([1], 2)
    assert model.training
    assert recording()


def test_nothing_to_add_returns_the_prompt():
    assert small().generate([3, 1], 0).tolist() == [[3, 1]]


def test_too_long_a_text_is_refused_before_any_work(monkeypatch):
    model = small()
    assert model.generate([1] * 10, 6).shape == (1, 16)
    monkeypatch.setattr(Steps, "logits", lambda *_, **__: pytest.fail("work was done"))
    with pytest.raises(ValueError, match=r"longer than `max_seq_len` \(=16\)"):
        model.generate([1] * 10, 7)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1], -1), "`max_new_tokens` must be"),
        (([1], 1.5), "`max_new_tokens` must be"),
        (([1], 1, -0.1), "`temperature` must be"),
        (([1], 1, np.nan), "`temperature` must be"),
        (([1], 1, "a"), "`temperature` must be a number of zero or more, got 'a'"),
        (([1], 1, None), "`temperature` must be a number of zero or more, got None"),
        (([], 1), "not empty"),
        ((np.zeros((0, 3), int), 1), "not empty"),
        (([11], 1), "`prompt` must lie in 0 to 10"),
        (([[[1]]], 1), "tokens of shape"),
    ],
)
def test_impossible_prompts_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        small().generate(*arguments)


@pytest.mark.parametrize("token", [11, -1])
def test_tokens_outside_the_vocabulary_are_both_kinds_of_error(token):
    for kind in (IndexError, ValueError):
        with pytest.raises(kind, match=f"`tokens` must lie in 0 to 10 .*got {token}"):
            small()([[0, token]])


@pytest.mark.parametrize("tokens", [[1, 2], 3, [[[1]]], np.zeros((0, 4), int), np.zeros((2, 0), int)])
def test_tokens_of_another_shape_are_refused(tokens):
    with pytest.raises(ValueError, match=r"GPT\(.*\) expects tokens of shape \(B, T\), not empty"):
        small()(tokens)


@pytest.mark.parametrize(("length", "start"), [(17, 0), (9, 8), (1, 16)])
def test_positions_beyond_the_last_are_refused(length, start):
    with pytest.raises(ValueError, match="`max_seq_len` is 16"):
        small()(np.zeros((1, length), int), start_pos=start)
    assert small()(np.zeros((1, 1), int), start_pos=15).shape == (1, 1, 11)


@pytest.mark.parametrize("start", [-1, 0.5, True])
def test_a_start_that_is_no_position_is_refused(start):
    with pytest.raises(ValueError, match="`start_pos` must be a whole number"):
        small()([[1]], start_pos=start)


@pytest.mark.parametrize("place", range(5))
@pytest.mark.parametrize("value", [0, -2, 1.5])
def test_sizes_are_positive(place, value):
    sizes = [11, 8, 2, 2, 16]
    sizes[place] = value
    name = ("vocab_size", "embed_dim", "num_layers", "num_heads", "max_seq_len")[place]
    with pytest.raises(ValueError, match=f"`{name}` must be a positive whole number"):
        GPT(*sizes)


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="must divide"):
        GPT(11, 8, 2, 3, 16)


@pytest.mark.parametrize("share", [-0.1, 1.0, "a"])
def test_dropout_is_a_fraction(share):
    with pytest.raises(ValueError, match="`dropout_prob` must be"):
        GPT(11, 8, 2, 2, 16, dropout_prob=share)
