"""The KV cache: cached and uncached logits, generation, memory, windows and refusals."""

import gc
import weakref
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinytorch as tt
from tinytorch.core import inference
from tinytorch.kernels import decoding, numba_available
from tinytorch.perf.memoization import CachedMultiHeadAttention, KVCache, disable_kv_cache, enable_kv_cache
from tinytorch.perf.quantization import QuantizationConfig, quantize_model

CAPACITY = 24


def gpt(seed=0, **sizes):
    rng = np.random.default_rng(seed)
    given = {
        "vocab_size": 50,
        "embed_dim": 48,
        "num_layers": 3,
        "num_heads": 4,
        "max_seq_len": CAPACITY,
    } | sizes
    model = tt.GPT(**given, rng=rng).eval()
    for parameter in model.parameters():  # biases and scales of LayerNorm too, so that leaving one out shows
        parameter.data[...] += rng.normal(0, 0.1, parameter.shape)
    return model


def tokens(batch=1, length=CAPACITY, seed=1):
    return np.random.default_rng(seed).integers(0, 50, (batch, length))


def token_by_token(model, ids, prompt=1):
    parts = [model(ids[:, :prompt]).data]
    parts += [model(ids[:, i : i + 1], start_pos=i).data for i in range(prompt, ids.shape[1])]
    return np.concatenate(parts, axis=1)


@pytest.fixture(params=["compiled", "reference"])
def kernels(request, monkeypatch):
    """Run a test with compiled kernels, and with their references."""
    if request.param == "compiled" and not numba_available():
        pytest.skip("needs numba")
    if request.param == "reference":
        for name in ("_normalize_kernel", "_gelu_kernel", "_attend_kernel", "_block_kernel"):
            monkeypatch.setattr(decoding, name, lambda *_: None)


# Exactness


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("prompt", [1, 2, CAPACITY - 1, CAPACITY])
def test_cached_logits_equal_uncached_ones_at_every_position(kernels, batch, prompt):
    model, ids = gpt(), tokens(batch)
    with tt.no_grad():
        expected = model(ids).data
        enable_kv_cache(model)
        np.testing.assert_allclose(token_by_token(model, ids, prompt), expected, atol=1e-4)


@given(cuts=st.sets(st.integers(1, CAPACITY - 1), max_size=6), heads=st.sampled_from([1, 3, 16]))
@settings(max_examples=25, deadline=None)
def test_a_text_can_be_read_in_pieces_of_any_length(cuts, heads):
    model, ids = gpt(num_heads=heads), tokens(2)
    ends = [0, *sorted(cuts), CAPACITY]
    with tt.no_grad():
        expected = model(ids).data
        enable_kv_cache(model)
        for start, stop in pairwise(ends):
            found = model(ids[:, start:stop], start_pos=start).data
            np.testing.assert_allclose(found, expected[:, start:stop], atol=1e-4)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("prompt", [1, 2, CAPACITY - 1, CAPACITY])
def test_greedy_tokens_are_identical(kernels, batch, prompt):
    model, ids = gpt(), tokens(batch, prompt)
    expected = slow_generation(model, ids, CAPACITY - prompt)
    uncached = model.generate(ids, CAPACITY - prompt, temperature=0)
    cache = enable_kv_cache(model)
    cached = model.generate(ids, CAPACITY - prompt, temperature=0)
    np.testing.assert_array_equal(uncached, expected)
    np.testing.assert_array_equal(cached, expected)
    if prompt < CAPACITY:
        assert cache.length == CAPACITY - 1  # the last token was not read: nothing came after it


def slow_generation(model, ids, wanted):
    """Greedy generation by `forward` alone."""
    for _ in range(wanted):
        with tt.no_grad():
            best = model(ids).data[:, -1].argmax(axis=-1)
        ids = np.concatenate([ids, best[:, None]], axis=1)
    return ids


def test_sampled_tokens_are_the_same_for_the_same_seed():
    model, ids = gpt(), tokens(2, 5)
    expected = model.generate(ids, 10, temperature=0.8, rng=np.random.default_rng(3))
    enable_kv_cache(model)
    found = model.generate(ids, 10, temperature=0.8, rng=np.random.default_rng(3))
    np.testing.assert_array_equal(found, expected)


def test_going_back_overwrites_what_followed():
    model, ids, other = gpt(), tokens(), tokens(seed=2)
    with tt.no_grad():
        enable_kv_cache(model)
        token_by_token(model, ids)
        model(other[:, 5:9], start_pos=5)
        found = model(other[:, 9:12], start_pos=9).data
        disable_kv_cache(model)
        expected = model(np.concatenate([ids[:, :5], other[:, 5:12]], axis=1)).data[:, 9:]
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_the_cache_is_read():
    model, ids = gpt(), tokens()
    with tt.no_grad():
        cache = enable_kv_cache(model)
        model(ids[:, :10])
        before = model(ids[:, 10:11], start_pos=10).data
        for values in cache.values:
            values[:, :, :5] = 0
        assert np.abs(model(ids[:, 10:11], start_pos=10).data - before).max() > 1e-3


def test_a_quantized_model_can_be_cached():
    model, ids = gpt(embed_dim=64), tokens(2)
    for config in (None, QuantizationConfig(skip=("*.q_proj",))):
        small = quantize_model(model, config)
        with tt.no_grad():
            expected = small(ids).data
            enable_kv_cache(small)
            np.testing.assert_allclose(token_by_token(small, ids), expected, atol=1e-4)


def test_an_int8_cache_is_a_quarter_and_close():
    model, ids = gpt(), tokens(2)
    with tt.no_grad():
        expected = model(ids).data
        full = enable_kv_cache(model, batch_size=2).get_memory_usage()["bytes"]
        cache = enable_kv_cache(model, dtype="int8")
        found = token_by_token(model, ids)
        assert cache.keys[0].dtype == np.int8
    error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
    assert 1e-6 < error < 0.02
    # A scale of four bytes for every vector of 12 bytes.
    assert cache.get_memory_usage()["keys_and_values_bytes"] == full / 4
    assert cache.get_memory_usage()["bytes"] == full / 4 + full / 12


@pytest.mark.parametrize("prompt", [1, 3, 11])
def test_a_window_attends_to_the_latest_positions(kernels, prompt):
    model, ids, window = gpt(), tokens(2), 5
    mask = np.tri(CAPACITY, dtype=bool) & ~np.tri(CAPACITY, k=-window, dtype=bool)
    with tt.no_grad():
        x = model.token_embedding(ids) + model.position_embedding(np.arange(CAPACITY))
        for block in model.blocks:
            x = block(x, mask)
        expected = model.lm_head(model.ln_f(x)).data
        cache = enable_kv_cache(model, batch_size=2, window=window)
        np.testing.assert_allclose(token_by_token(model, ids, prompt), expected, atol=1e-4)
    assert cache.get_memory_usage()["bytes"] == 2 * 3 * 2 * 48 * window * 4
    assert cache.get(0)[0].shape == (2, 4, window, 12)
    with pytest.raises(ValueError, match="has overwritten"):
        cache.rewind(7)


# Enabling


def test_disabling_restores_the_model():
    model, ids = gpt(), tokens()
    with tt.no_grad():
        expected = model(ids).data
        positions = model(ids[:, :4], start_pos=3).data
        enable_kv_cache(model)
        disable_kv_cache(model)
        disable_kv_cache(model)
        np.testing.assert_array_equal(model(ids).data, expected)
        np.testing.assert_array_equal(model(ids[:, :4], start_pos=3).data, positions)


def test_a_second_enable_is_harmless():
    model, ids = gpt(), tokens()
    cache = enable_kv_cache(model)
    with tt.no_grad():
        model(ids[:, :6])
    assert enable_kv_cache(model) is cache
    assert cache.length == 6
    assert enable_kv_cache(model, dtype="int8") is not cache


def test_weights_stay_live():
    model, ids = gpt(), tokens()
    enable_kv_cache(model)
    model.lm_head.bias.data[...] += 1
    model.blocks[1].mlp.linear1.weight.data[...] *= 0.5
    with tt.no_grad():
        found = token_by_token(model, ids)
        disable_kv_cache(model)
        np.testing.assert_allclose(found, model(ids).data, atol=1e-4)


def test_gradients_do_not_pass_through_the_cache():
    model, ids = gpt(), tokens()
    cache = enable_kv_cache(model)
    model(ids).sum().backward()
    assert cache.length == 0
    assert np.abs(model.blocks[0].attention.k_proj.weight.grad).max() > 0


def test_a_model_with_a_cache_can_be_saved_and_forgotten(tmp_path):
    model, ids = gpt(), tokens()
    cache = enable_kv_cache(model)
    tt.save_model(model, tmp_path / "model")
    loaded = tt.load_model(tmp_path / "model")
    with tt.no_grad():
        np.testing.assert_array_equal(loaded(ids).data, gpt()(ids).data)
    assert inference.cached(loaded) is None
    gone = weakref.ref(model)
    del model, cache
    gc.collect()
    assert gone() is None


def test_generation_starts_anew_with_any_batch():
    model = gpt()
    cache = enable_kv_cache(model)
    for batch in (1, 4, 2):
        ids = tokens(batch, 3)
        found = model.generate(ids, 4, temperature=0)
        np.testing.assert_array_equal(found, slow_generation(gpt(), ids, 4))
        assert cache.batch_size == batch


class Same(tt.GPT):
    """A GPT in all that it computes."""

    def __init__(self):
        super().__init__(50, 48, 2, 4, max_seq_len=CAPACITY, rng=np.random.default_rng(0))
        self.eval()

    def generate(self, prompt, max_new_tokens, temperature=0.0, **options):
        return super().generate(prompt, max_new_tokens, temperature, **options)

    def __repr__(self):
        return "mine"


class Shifted(Same):
    def forward(self, tokens, start_pos=0):
        return super().forward((np.asarray(tokens) + 1) % 50, start_pos)


class Inherited(Shifted):
    pass


class Equal(Same):
    __hash__ = tt.GPT.__hash__

    def __eq__(self, other):
        return isinstance(other, Equal)


def test_a_subclass_that_computes_what_gpt_does_has_its_steps_and_a_cache():
    model, ids = Same(), tokens(1, 3)
    assert inference.steps_of(model) is not None
    expected = slow_generation(model, ids, 5)
    np.testing.assert_array_equal(model.generate(ids, 5), expected)
    cache = enable_kv_cache(model)
    np.testing.assert_array_equal(model.generate(ids, 5), expected)
    assert cache.length == 7
    model.forward = lambda tokens, start_pos=0: tt.GPT.forward(model, tokens, start_pos)
    assert inference.steps_of(model) is None


@pytest.mark.parametrize(
    ("kind", "said"),
    [(Shifted, "Shifted.forward"), (Inherited, "Shifted.forward"), (Equal, "Equal.__(eq|hash)__")],
)
def test_a_model_of_ones_own_generates_without_fused_steps_and_the_refusal_names_its_method(kind, said):
    model, ids = kind(), tokens(1, 3)
    assert inference.steps_of(model) is None
    np.testing.assert_array_equal(model.generate(ids, 5), slow_generation(model, ids, 5))
    with pytest.raises(ValueError, match=f"to compute what GPT does, got one with a {said} of its own: such"):
        enable_kv_cache(model)


def test_a_model_that_is_no_gpt_is_refused():
    with pytest.raises(ValueError, match="must be a GPT, got Linear"):
        enable_kv_cache(tt.Linear(2, 2))


# Refusals


def test_what_does_not_fit_is_refused_and_loses_nothing():
    model, ids = gpt(), tokens(2)
    cache = enable_kv_cache(model, max_seq_len=10)
    with tt.no_grad():
        with pytest.raises(ValueError, match="do not fit into a cache of 10"):
            model(ids[:, :11])
        model(ids[:, :9])
        with pytest.raises(ValueError, match="do not fit into a cache of 10"):
            model(ids[:, 9:11], start_pos=9)
        with pytest.raises(ValueError, match="holds a batch of 2, got 1 sequences"):
            model(ids[:1, 9:10], start_pos=9)
        with pytest.raises(ValueError, match=r"`start_pos` \(=10\) is beyond the 9"):
            model(ids[:, 10:11], start_pos=10)
        assert cache.length == 9
        model(ids[:, 9:10], start_pos=9)
    assert cache.length == 10
    with pytest.raises(ValueError, match="do not fit into a cache of 10"):
        model.generate(ids[:, :8], 5)
    with pytest.raises(ValueError, match="longer than `max_seq_len`"):
        model.generate(ids, 1)
    with pytest.raises(ValueError, match="beyond that of the model, 24"):
        enable_kv_cache(model, max_seq_len=25)


def test_dropout_and_a_cache_do_not_go_together():
    model, ids = gpt(dropout_prob=0.5), tokens()
    enable_kv_cache(model)
    model.train()
    with tt.no_grad(), pytest.raises(ValueError, match=r"call model\.eval"):
        model(ids)
    assert model.generate(ids[:, :3], 2).shape == (1, 5)


# The cache itself


def filled(steps=3, **options):
    cache, rng = KVCache(2, 6, 2, 3, 4, **options), np.random.default_rng(0)
    k, v = rng.standard_normal((2, 2, 3, steps, 4), np.float32)
    for t in range(steps):
        for layer in range(2):
            cache.update(layer, k[:, :, t : t + 1] + layer, v[:, :, t : t + 1] - layer)
        cache.advance()
    return cache, k, v


def test_a_cache_returns_what_was_advanced_over():
    cache, k, v = filled()
    for layer in range(2):
        keys, values = cache.get(layer)
        np.testing.assert_array_equal(keys.data, k + layer)
        np.testing.assert_array_equal(values.data, v - layer)
    cache.update(0, k, v)
    assert cache.get(0)[0].shape == (2, 3, 3, 4)
    cache.advance(3)
    np.testing.assert_array_equal(cache.get(0)[0].data, np.concatenate([k, k], axis=2))
    with pytest.raises(ValueError, match="layer 1 holds 3 of 6 positions"):
        cache.get(1)


def test_a_window_keeps_the_latest_in_order():
    cache, k, _ = filled(5, window=3)
    np.testing.assert_array_equal(cache.get(0)[0].data, k[:, :, 2:])
    cache.begin(2)
    cache.update(0, k, k)
    cache.advance(5)
    np.testing.assert_array_equal(cache.get(0)[0].data, k[:, :, 2:])


@pytest.mark.parametrize(
    ("batch", "length", "layers", "heads", "width"), [(1, 8, 2, 3, 5), (4, 100, 6, 8, 64)]
)
def test_memory_is_exactly_that_of_keys_and_values(batch, length, layers, heads, width):
    cache = KVCache(batch, length, layers, heads, width)
    assert cache.get_memory_usage()["bytes"] == 2 * layers * heads * width * length * batch * 4
    assert sum(a.nbytes for a in (*cache.keys, *cache.values)) == cache.get_memory_usage()["bytes"]


def test_an_int8_cache_is_within_half_a_step():
    cache, k, _ = filled(dtype="int8")
    step = np.abs(k).max(axis=-1, keepdims=True) / 127
    assert (np.abs(cache.get(0)[0].data - k) <= 0.5001 * step).all()


def test_a_cache_refuses_what_is_wrong():
    cache, k, v = filled()
    with pytest.raises(ValueError, match="the cache is full: it holds 3 of 6"):
        cache.update(0, np.zeros((2, 3, 4, 4)), np.zeros((2, 3, 4, 4)))
    with pytest.raises(ValueError, match="the cache is full"):
        cache.advance(4)
    for shape in ((1, 3, 1, 4), (2, 2, 1, 4), (2, 3, 1, 5), (2, 3, 4)):
        with pytest.raises(ValueError, match="`k` must have shape"):
            cache.update(0, np.zeros(shape), np.zeros(shape))
    with pytest.raises(ValueError, match="`v` must have shape"):
        cache.update(0, k[:, :, :1], v[:, :, :2])
    for layer in (2, -1):
        with pytest.raises(ValueError, match="`layer` must be"):
            cache.update(layer, k[:, :, :1], v[:, :, :1])
    cache.reset()
    with pytest.raises(ValueError, match="the cache is empty"):
        cache.get(0)
    for bad in ({"dtype": "int4"}, {"window": 0}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            KVCache(1, 8, 1, 1, 4, **bad)
    with pytest.raises(ValueError, match="`num_heads` must be a positive"):
        KVCache(1, 8, 1, 0, 4)


# Attention that is handed a cache


@pytest.mark.parametrize("prompt", [1, 4, 9])
def test_attention_with_a_cache_equals_attention_without(prompt):
    attention = CachedMultiHeadAttention(24, 3, rng=np.random.default_rng(0))
    x = np.random.default_rng(1).standard_normal((2, 9, 24)).astype(np.float32)
    expected = attention(x).data
    plain = tt.MultiHeadAttention(24, 3)
    plain.load_state_dict(attention.state_dict())
    np.testing.assert_allclose(plain(x, tt.causal_mask(9)).data, expected, atol=1e-6)
    cache = KVCache(2, 9, 2, 3, 8)
    found = [attention(x[:, :prompt], cache, layer_idx=1).data]
    cache.advance(prompt)
    for t in range(prompt, 9):
        found.append(attention(x[:, t : t + 1], cache=cache, layer_idx=1).data)
        cache.advance()
    np.testing.assert_allclose(np.concatenate(found, axis=1), expected, atol=1e-5)
    with pytest.raises(ValueError, match="the cache is full"):
        attention(x[:, :1], cache, layer_idx=1)
    with pytest.raises(ValueError, match="`k` must have shape"):
        attention(x[:1, :1], KVCache(2, 9, 2, 3, 8))
    with pytest.raises(ValueError, match=r"expects shape \(B, T, 24\)"):
        attention(x[:, :, :5])
    with pytest.raises(ValueError, match=r"at least one position, got \(2, 0, 24\)"):
        attention(x[:, :0])
    with pytest.raises(ValueError, match="`cache` must be a KVCache or None, got int"):
        attention(x, cache=5)


# Kernels


@given(
    batch=st.integers(1, 3), heads=st.integers(1, 3), width=st.integers(1, 40), capacity=st.integers(1, 40),
    place=st.tuples(st.floats(0, 1), st.floats(0, 1)), kind=st.sampled_from([np.float32, np.int8]),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_attention_kernels_equal_their_reference(batch, heads, width, capacity, place, kind):
    rng = np.random.default_rng(width)
    valid = 1 + int(place[0] * (capacity - 1))
    slot = int(place[1] * (valid - 1))
    rows = tuple(rng.standard_normal((batch, heads * width), np.float32) for _ in range(3))
    biases = tuple(rng.standard_normal(heads * width, np.float32) for _ in range(3))
    shape = (batch, heads, capacity, width)
    stored = [(20 * rng.standard_normal(shape)).astype(kind) for _ in range(2)]
    scales = rng.random((2, *shape[:3]) if kind is np.int8 else (0, 0, 0, 0), np.float32) / 20
    mine, theirs = ([a.copy() for a in (*stored, scales)] for _ in range(2))
    found = decoding.attend(rows, biases, *mine, slot, valid)
    expected = decoding.attend_reference(rows, biases, *theirs, slot, valid)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=2e-2 if kind is np.int8 else 1e-3)


def test_attention_over_something_that_is_not_a_number_is_not_a_number():
    rng = np.random.default_rng(0)
    rows = tuple(rng.standard_normal((1, 8), np.float32) for _ in range(3))
    biases = (np.zeros(8, np.float32),) * 3
    for which in range(3):
        keys, values = (rng.standard_normal((1, 1, 4, 8)).astype(np.float32) for _ in range(2))
        bad = [row.copy() for row in rows]
        bad[which][0, 3] = np.nan
        out = decoding.attend(tuple(bad), biases, keys, values, np.zeros((0, 0, 0, 0), np.float32), 2, 3)
        assert np.isnan(out).any()


def test_positions_beyond_the_cache_are_refused():
    rows, biases = (np.zeros((1, 8), np.float32),) * 3, (np.zeros(8, np.float32),) * 3
    keys = np.zeros((1, 2, 4, 4), np.float32)
    for slot, valid in ((4, 5), (3, 3), (-1, 2)):
        with pytest.raises(ValueError, match="do not fit into a cache of 4"):
            decoding.attend(rows, biases, keys, keys.copy(), np.zeros((0, 0, 0, 0), np.float32), slot, valid)
    with pytest.raises(ValueError, match="`rows` must have shape"):
        decoding.attend(rows, biases, keys[:, :1], keys[:, :1], np.zeros((0, 0, 0, 0), np.float32), 0, 1)
