"""A model that changes while it has a cache: what the next step sees, and what is refused."""

import copy
import pickle
import threading

import numpy as np
import pytest

import tinytorch as tt
from tinytorch.core import inference
from tinytorch.kernels import int8
from tinytorch.perf.memoization import disable_kv_cache, enable_kv_cache
from tinytorch.perf.profiling import Profiler
from tinytorch.perf.quantization import QuantizationConfig, QuantizedLinear, quantize_model

LENGTH, VOCAB = 12, 50
ALL = QuantizationConfig(min_weights=0)


def gpt(seed=0, **sizes):
    rng = np.random.default_rng(seed)
    given = {"embed_dim": 32, "num_layers": 2, "num_heads": 4, "max_seq_len": 16} | sizes
    model = tt.GPT(VOCAB, **given, rng=rng).eval()
    for parameter in model.parameters():
        parameter.data[...] += rng.normal(0, 0.1, parameter.shape)
    return model


def tokens(batch=1, length=LENGTH, seed=1):
    return np.random.default_rng(seed).integers(0, VOCAB, (batch, length))


def token_by_token(model, ids, prompt=2):
    with tt.no_grad():
        parts = [model(ids[:, :prompt]).data]
        parts += [model(ids[:, i : i + 1], start_pos=i).data for i in range(prompt, ids.shape[1])]
    return np.concatenate(parts, axis=1)


def layer_by_layer(model, ids):
    """What the layers make of `ids` when they are called one after the other, without fused steps."""
    x = model.dropout(model.token_embedding(ids) + model.position_embedding(np.arange(ids.shape[1])))
    for block in model.blocks:
        x = block(x, tt.causal_mask(ids.shape[1]))
    return model.lm_head(model.ln_f(x)).data


def check(model, batch=1, other=None):
    """Compare the steps of a model with its layers, or with those of another that it should equal."""
    ids = tokens(batch)
    found, expected = token_by_token(model, ids), layer_by_layer(other or model, ids)
    # Without instructions for bytes, inputs are rounded only where there are more than a few rows.
    rounded = int8.chosen_way() == "weight-only" and any(
        isinstance(layer, QuantizedLinear) for _, layer in model.named_layers()
    )
    allowed = 0.03 if rounded else 1e-4
    assert np.linalg.norm(found - expected) <= allowed * np.linalg.norm(expected)


def greedy(model, ids, wanted):
    for _ in range(wanted):
        ids = np.concatenate([ids, layer_by_layer(model, ids)[:, -1].argmax(axis=-1)[:, None]], axis=1)
    return ids


def small(seed=0, **options):
    return quantize_model(gpt(seed), ALL, **options)


# Weights


@pytest.mark.parametrize("kind", ["plain", "quantized"])
def test_a_file_that_is_loaded_into_a_model_with_a_cache_is_seen(tmp_path, kind):
    model, other = (gpt(0), gpt(1)) if kind == "plain" else (small(0), small(1))
    enable_kv_cache(model)
    token_by_token(model, tokens())
    tt.save_model(other, tmp_path / "other")
    tt.load_model(tmp_path / "other", model)
    check(model, other=other)


def test_a_float_model_into_which_a_quantized_one_is_loaded_steps_in_bytes(tmp_path):
    model, other = gpt(), small(1)
    enable_kv_cache(model)
    token_by_token(model, tokens())
    tt.save_model(other, tmp_path / "other")
    tt.load_model(tmp_path / "other", model)
    assert type(model.blocks[0].attention.k_proj) is QuantizedLinear
    check(model, other=other)


def test_a_state_that_is_loaded_and_a_step_of_training_are_seen():
    model = gpt()
    cache = enable_kv_cache(model)
    token_by_token(model, tokens())
    model.load_state_dict(gpt(3).state_dict())
    check(model)
    optimizer = tt.SGD(model.parameters(), lr=0.5)
    before = layer_by_layer(model, tokens())
    model.train()
    tt.CrossEntropyLoss()(model(tokens()).reshape(-1, VOCAB), tokens(seed=2).reshape(-1)).backward()
    optimizer.step()
    model.eval()
    assert cache.length == LENGTH  # what records gradients leaves the cache alone
    assert np.abs(layer_by_layer(model, tokens()) - before).max() > 0.01
    check(model)


@pytest.mark.parametrize("name", ["q_proj", "k_proj", "v_proj", "out_proj"])
def test_packed_weights_that_are_replaced_are_seen(name):
    model, other = small(), small(5)
    enable_kv_cache(model)
    token_by_token(model, tokens())
    layer, source = (getattr(m.blocks[1].attention, name) for m in (model, other))
    for attribute in ("panels", "scales", "sums", "padded_bias"):
        setattr(layer, attribute, getattr(source, attribute))
    check(model)


def test_packed_weights_that_are_overwritten_are_seen_after_enabling_again():
    model, other = small(), small(5)
    enable_kv_cache(model)
    token_by_token(model, tokens())
    for mine, theirs in zip(model.blocks, other.blocks, strict=True):
        for name in ("q_proj", "k_proj", "v_proj"):
            for attribute in ("panels", "scales", "sums", "padded_bias"):
                into = getattr(getattr(mine.attention, name), attribute)
                into[...] = getattr(getattr(theirs.attention, name), attribute)
    enable_kv_cache(model)
    check(model)


@pytest.mark.parametrize("names", [("q_proj", "k_proj", "v_proj"), ("v_proj",)])
def test_ranges_that_are_calibrated_after_enabling_are_seen(names):
    model = small()
    enable_kv_cache(model)
    before = token_by_token(model, tokens())
    narrow = np.random.default_rng(0).uniform(-0.2, 0.2, (5, 32))  # so narrow that clipping shows
    for block in model.blocks:
        for name in names:
            getattr(block.attention, name).calibrate(narrow)
    check(model)
    assert np.abs(token_by_token(model, tokens()) - before).max() > 0.05


# Layers


class Doubled(tt.TransformerBlock):
    def forward(self, x, mask=None):
        return 2 * super().forward(x, mask)


class Plain(tt.Layer):
    def forward(self, x, mask=None):
        return tt.Tensor(1.5) * x


class Shifted(tt.Embedding):
    def forward(self, ids):
        return super().forward(ids) + 1


class Noted(tt.Dropout):
    def forward(self, x):
        return x + 1


def doubled(model):
    model.blocks[1] = Doubled(32, 4)


def without_parts(model):
    model.blocks[1] = Plain()


def shifted_tokens(model):
    model.token_embedding = Shifted(VOCAB, 32)


def shifted_positions(model):
    model.position_embedding = Shifted(16, 32)


def noted(model):
    model.dropout = Noted()


def noted_in_block(model):
    model.blocks[0].dropout = Noted()


def noted_in_mlp(model):
    model.blocks[0].mlp.dropout = Noted()


def assigned_forward(model):
    attention = model.blocks[0].attention
    attention.forward = lambda x, mask=None: 2 * tt.MultiHeadAttention.forward(attention, x, mask)


CHANGES = [
    doubled, without_parts, shifted_tokens, shifted_positions, noted, noted_in_block, noted_in_mlp,
    assigned_forward,
]  # fmt: skip


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("change", CHANGES)
def test_parts_of_ones_own_are_called_and_no_cache_is_given(change, known):
    model, ids = gpt(), tokens(length=4)
    if known:
        model.generate(ids, 2, temperature=0)
    change(model)
    model.eval()
    np.testing.assert_array_equal(model.generate(ids, 5, temperature=0), greedy(model, ids, 5))
    with pytest.raises(ValueError, match="a cache needs the blocks of GPT as they are, got"):
        enable_kv_cache(model)


@pytest.mark.parametrize("change", CHANGES)
def test_parts_of_ones_own_after_enabling_are_refused_until_it_is_disabled(change):
    model, ids = gpt(), tokens()
    enable_kv_cache(model)
    token_by_token(model, ids)
    change(model)
    model.eval()
    with tt.no_grad():
        with pytest.raises(ValueError, match=r"as they are: disable_kv_cache\(\)"):
            model(ids)
        disable_kv_cache(model)
        np.testing.assert_array_equal(model(ids).data, layer_by_layer(model, ids))


class Scaled(tt.Linear):
    def forward(self, x):
        return super().forward(x) * 0.5


class Same(tt.Layer):
    """Returns memory of its own, which nobody may write into."""

    def __init__(self, width):
        self.out_features = width
        self.answer = tt.Tensor(np.full((1, width), 0.25))

    def forward(self, x):
        return self.answer if x.shape[:-1] == (1,) else self.answer + np.zeros((*x.shape[:-1], 1))


@pytest.mark.parametrize("place", ["q_proj", "v_proj", "linear1", "lm_head"])
def test_layers_of_ones_own_in_the_place_of_linear_ones_are_called(place):
    model = gpt()
    owner = {"linear1": model.blocks[0].mlp, "lm_head": model}.get(place, model.blocks[0].attention)
    width = getattr(owner, place).out_features
    enable_kv_cache(model)
    setattr(owner, place, Scaled(32, width))
    check(model)
    plain = tt.Linear(32, width)
    setattr(owner, place, plain)
    check(model)
    plain.forward = lambda x: 3 * tt.Linear.forward(plain, x)
    check(model)
    model.eval()
    setattr(owner, place, Same(width))
    ids = tokens(length=3)
    expected = layer_by_layer(model, ids)
    with tt.no_grad():
        found = np.concatenate([model(ids[:, i : i + 1], start_pos=i).data for i in range(3)], axis=1)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    np.testing.assert_array_equal(getattr(owner, place).answer.data, np.full((1, width), np.float32(0.25)))


def test_a_quantized_layer_with_a_forward_that_was_assigned_is_called():
    model = small()
    layer = model.blocks[0].attention.k_proj
    layer.forward = lambda x: 2 * QuantizedLinear.forward(layer, x)
    enable_kv_cache(model)
    check(model)


def test_blocks_that_are_taken_away_or_added_need_a_new_cache():
    model = gpt(num_layers=3)
    cache = enable_kv_cache(model)
    check(model)
    for blocks in (model.blocks[:1], [model.blocks[0]] * 5):
        model.blocks = blocks
        with tt.no_grad(), pytest.raises(ValueError, match="the cache does not fit the blocks of the model"):
            model(tokens())
        with pytest.raises(ValueError, match="the cache does not fit the blocks of the model"):
            model.generate(tokens(length=2), 3)
        newer = enable_kv_cache(model)
        assert newer is not cache
        assert newer.num_layers == len(blocks)
        check(model)
        cache = newer


def test_blocks_of_other_heads_need_a_new_cache_and_of_different_ones_get_none():
    model = gpt()
    enable_kv_cache(model)
    model.blocks = [tt.TransformerBlock(32, 2).eval() for _ in range(2)]
    with tt.no_grad(), pytest.raises(ValueError, match="the cache does not fit"):
        model(tokens())
    with pytest.raises(ValueError, match="the cache does not fit"):
        model.generate(tokens(length=2), 3)
    assert enable_kv_cache(model).num_heads == 2
    check(model)
    model.blocks[1] = tt.TransformerBlock(32, 8).eval()
    with tt.no_grad(), pytest.raises(ValueError, match="blocks of the same heads"):
        model(tokens())
    with pytest.raises(ValueError, match="blocks that differ in `num_heads`"):
        enable_kv_cache(model)
    ids = tokens(length=3)
    disable_kv_cache(model)
    np.testing.assert_array_equal(model.generate(ids, 4, temperature=0), greedy(model, ids, 4))


def test_a_model_without_blocks_generates_and_gets_no_cache():
    model, ids = gpt(), tokens(length=1)
    model.blocks = []
    np.testing.assert_array_equal(model.generate(ids, 4, temperature=0), greedy(model, ids, 4))
    with pytest.raises(ValueError, match="as they are"):
        enable_kv_cache(model)


def test_dropout_of_a_single_layer_is_not_left_out():
    model = gpt(dropout_prob=0.5)
    enable_kv_cache(model)
    model.blocks[1].mlp.dropout.train()
    with tt.no_grad(), pytest.raises(ValueError, match=r"call model\.eval"):
        model(tokens())
    model.blocks[1].mlp.dropout.eval()
    model.training = True  # the model itself drops nothing
    check(model)


# Copies


def test_a_copy_has_no_cache_until_it_is_given_one():
    model, ids = gpt(), tokens()
    cache = enable_kv_cache(model)
    token_by_token(model, ids)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), quantize_model(model, ALL)):
        assert inference.cached(twin) is None
        other = enable_kv_cache(twin)
        assert other is not cache
        check(twin)
        twin.blocks[0].ln1.gamma.data[...] = 0
    assert cache.length == LENGTH
    check(model)


def test_disabling_wants_a_model():
    disable_kv_cache(gpt())
    with pytest.raises(ValueError, match="`model` must be a GPT, got NoneType"):
        disable_kv_cache(None)


def test_models_that_share_layers_have_caches_of_their_own():
    first, second = gpt(0), gpt(1)
    second.blocks = first.blocks
    caches = enable_kv_cache(first), enable_kv_cache(second)
    ids = tokens()
    expected = [layer_by_layer(model, ids) for model in (first, second)]
    with tt.no_grad():
        for start in range(0, LENGTH, 2):  # in turns
            for model, logits in zip((first, second), expected, strict=True):
                found = model(ids[:, start : start + 2], start_pos=start).data
                np.testing.assert_allclose(found, logits[:, start : start + 2], atol=1e-4)
    assert [cache.length for cache in caches] == [LENGTH] * 2
    disable_kv_cache(first)
    check(second)


# Enabling again


def test_another_batch_size_allocates_anew_and_none_keeps_what_there_is():
    model = gpt()
    cache = enable_kv_cache(model, batch_size=3)
    assert cache.keys[0].shape[0] == 3
    token_by_token(model, tokens(2))
    assert enable_kv_cache(model) is cache
    assert (cache.batch_size, cache.length) == (2, LENGTH)
    again = enable_kv_cache(model, batch_size=4)
    assert (again.batch_size, again.length, again.keys[0].shape[0]) == (4, 0, 4)
    check(model, batch=4)
    with pytest.raises(ValueError, match="`batch_size` must be a positive"):
        enable_kv_cache(model, batch_size=0)
    assert inference.cached(model) is again


def test_disabling_in_the_middle_forgets_what_came_before():
    model, ids = gpt(), tokens()
    enable_kv_cache(model)
    token_by_token(model, ids[:, :5])
    disable_kv_cache(model)
    with tt.no_grad():
        alone = model(ids[:, 5:], start_pos=5).data
        enable_kv_cache(model)
        with pytest.raises(ValueError, match=r"`start_pos` \(=5\) is beyond the 0 positions"):
            model(ids[:, 5:], start_pos=5)
    assert np.abs(alone - layer_by_layer(model, ids)[:, 5:]).max() > 0.01
    check(model)


@pytest.mark.parametrize("prompt", [[], np.zeros((1, 0), int), np.zeros((0, 3), int)])
def test_an_empty_prompt_is_refused_and_leaves_the_cache_alone(prompt):
    model = gpt()
    cache = enable_kv_cache(model)
    token_by_token(model, tokens())
    with pytest.raises(ValueError, match=r"`prompt` must|not empty"):
        model.generate(prompt, 3)
    assert cache.length == LENGTH


def test_a_prompt_longer_than_the_cache_is_refused_before_anything_is_lost():
    model = gpt()
    cache = enable_kv_cache(model, max_seq_len=6)
    token_by_token(model, tokens(length=5))
    for ids, wanted in ((tokens(length=7), 1), (tokens(length=6), 2)):
        with pytest.raises(ValueError, match="do not fit into a cache of 6"):
            model.generate(ids, wanted)
    assert cache.length == 5
    assert model.generate(tokens(length=6), 1).shape == (1, 7)  # the last one is not read
    assert model.generate(tokens(length=7), 0).shape == (1, 7)


@pytest.mark.parametrize("measure", ["measure_memory", "measure_latency", "profile_forward_pass"])
def test_measuring_a_model_leaves_its_cache_as_it_was(measure):
    model, ids = gpt(), tokens()
    cache = enable_kv_cache(model)
    token_by_token(model, ids[:, :5])
    keys = [stored.copy() for stored in cache.keys]
    profiler = Profiler()
    if measure == "profile_forward_pass":
        profiler.profile_forward_pass(model, ids)
    elif measure == "measure_latency":
        profiler.measure_latency(model, tt.Tensor(ids), warmup=1, iterations=2)
    else:
        profiler.measure_memory(model, ids.shape)
    assert inference.cached(model) is cache
    assert cache.length == 5
    assert all(np.array_equal(now, then) for now, then in zip(cache.keys, keys, strict=True))


def test_two_threads_cannot_generate_with_one_cache_at_once(monkeypatch):
    model, inside, go_on, found = gpt(), threading.Event(), threading.Event(), []
    enable_kv_cache(model)
    expected = model.generate([[1, 2]], 3, temperature=0)
    genuine = inference.Steps.logits

    def slow(*arguments, **options):
        inside.set()
        assert go_on.wait(10)
        return genuine(*arguments, **options)

    monkeypatch.setattr(inference.Steps, "logits", slow)
    thread = threading.Thread(target=lambda: found.append(model.generate([[1, 2]], 3, temperature=0)))
    thread.start()
    assert inside.wait(10)
    with pytest.raises(RuntimeError, match="another thread is generating with this model"):
        model.generate([[1, 2]], 3)
    go_on.set()
    thread.join()
    assert np.array_equal(found[0], expected)
    assert np.array_equal(model.generate([[1, 2]], 3, temperature=0), expected)  # it is free again
