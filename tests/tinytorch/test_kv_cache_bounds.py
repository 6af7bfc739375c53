"""What a cache gives out and takes back: only what was counted, is still there, and is a number."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinytorch as tt
from tinytorch.perf.memoization import CachedMultiHeadAttention, KVCache, enable_kv_cache

WINDOW = 4


def vectors(count, seed=0):
    return np.random.default_rng(seed).standard_normal((1, 2, count, 3)).astype(np.float32)


def filled(count, layers=1, **options):
    cache, k = KVCache(1, 8, layers, 2, 3, **options), vectors(count)
    for position in range(count):
        for layer in range(layers):
            cache.update(layer, k[:, :, position : position + 1], -k[:, :, position : position + 1])
        cache.advance()
    return cache, k


# Windows


def test_a_window_larger_than_the_room_is_refused():
    with pytest.raises(ValueError, match=r"`window` \(=9\) must be at most `max_seq_len` \(=8\)"):
        KVCache(1, 8, 1, 2, 3, window=9)
    assert KVCache(1, 8, 1, 2, 3, window=8).capacity == 8
    model = tt.GPT(20, 12, 1, 2, max_seq_len=16).eval()
    cache = enable_kv_cache(model)
    for sizes in ({"window": 17}, {"window": 7, "max_seq_len": 6}):
        with pytest.raises(ValueError, match="`window`"):
            enable_kv_cache(model, **sizes)
    assert enable_kv_cache(model) is cache  # what was refused took nothing away


@pytest.mark.parametrize("batch_size", [0, -1, 1.5])
def test_a_cache_begins_with_a_number_of_sequences(batch_size):
    cache, k = filled(2)
    with pytest.raises(ValueError, match="`batch_size` must be a positive"):
        cache.begin(batch_size)
    np.testing.assert_array_equal(cache.get(0)[0].data, k)


@pytest.mark.parametrize("count", [1, 2, WINDOW, WINDOW + 3])
def test_what_was_overwritten_but_not_counted_is_not_given_out(count):
    cache, _ = filled(WINDOW + 1, layers=2, window=WINDOW)
    before = cache.get(1)[0].data
    cache.update(0, vectors(count, 1), vectors(count, 1))
    for read in (cache.get, cache.ordered):
        with pytest.raises(ValueError, match=r"layer 0 was given .* the earliest were overwritten"):
            read(0)
        np.testing.assert_array_equal(np.asarray(read(1)[0]), before)  # the other layer is as it was
    cache.update(1, vectors(count, 1), vectors(count, 1))
    cache.advance(count)
    latest = np.concatenate([before, vectors(count, 1)], axis=2)[:, :, -WINDOW:]
    np.testing.assert_array_equal(cache.get(0)[0].data, latest)


def test_room_that_is_left_is_written_without_harm():
    cache, k = filled(2, window=WINDOW)
    cache.update(0, vectors(2, 1), vectors(2, 1))
    np.testing.assert_array_equal(cache.get(0)[0].data, k)


@given(steps=st.lists(st.tuples(st.integers(1, 2 * WINDOW), st.integers(0, 2 * WINDOW)), max_size=8))
@settings(max_examples=300, deadline=None)
def test_get_gives_the_latest_positions_or_refuses(steps):
    """In each step some positions are put in and never counted; then others are, from the same place on."""
    cache = KVCache(1, 2 * WINDOW, 1, 2, 3, window=WINDOW)
    everything, reached = vectors(1 + sum(count for count, _ in steps), 1), 0
    for count, lost in steps:
        if lost:
            cache.update(0, vectors(lost, 2), vectors(lost, 2))
            check_latest(cache, everything, reached := max(reached, cache.length + lost))
        new = everything[:, :, cache.length : cache.length + count]
        cache.update(0, new, new)
        cache.advance(count)
        check_latest(cache, everything, reached)


def check_latest(cache, everything, reached):
    start = max(0, cache.length - WINDOW)
    if cache.length == 0 or reached > max(cache.length, WINDOW):  # nothing there, or something overwritten
        with pytest.raises(ValueError, match=r"is empty|were overwritten"):
            cache.get(0)
    else:
        np.testing.assert_array_equal(cache.get(0)[0].data, everything[:, :, start : cache.length])


def test_going_on_after_a_step_that_failed_half_way_is_refused_where_something_is_lost():
    model = tt.GPT(20, 12, 2, 2, max_seq_len=32, rng=np.random.default_rng(0)).eval()
    ids = np.random.default_rng(1).integers(0, 20, (1, 20))
    expected = pieces(model, ids, [8, 1, 1, 3])
    for failing, refused in ((1, False), (3, True)):
        cache = enable_kv_cache(model, window=WINDOW)
        with tt.no_grad():
            model(ids[:, :8])
            for layer in range(2):
                if layer == 0:  # the second layer was never reached
                    cache.update(layer, *(np.ones((1, 2, failing, 6), np.float32),) * 2)
            if refused:
                with pytest.raises(ValueError, match=r"has overwritten what lies before; reset\(\)"):
                    model(ids[:, 8:9], start_pos=8)
                cache.reset()
                model(ids[:, :8])
            found = [model(ids[:, 8:9], start_pos=8).data, model(ids[:, 9:10], start_pos=9).data]
            found.append(model(ids[:, 10:13], start_pos=10).data)
        np.testing.assert_allclose(np.concatenate(found, axis=1), expected[:, 8:13], atol=1e-4)


def pieces(model, ids, sizes):
    enable_kv_cache(model, window=WINDOW)
    ends = np.cumsum(sizes)
    with tt.no_grad():
        return np.concatenate(
            [model(ids[:, e - n : e], start_pos=int(e - n)).data for n, e in zip(sizes, ends, strict=True)],
            axis=1,
        )


# Reading


def test_only_layers_that_there_are_and_that_were_written_are_read():
    cache, _ = filled(3, layers=2)
    for layer in (2, -1):
        for read in (cache.get, cache.ordered):
            with pytest.raises(ValueError, match="`layer` must be"):
                read(layer)
    cache.update(0, vectors(1, 1), vectors(1, 1))
    cache.advance()
    with pytest.raises(ValueError, match="layer 1 holds 3 of 4 positions"):
        cache.ordered(1)
    cache.reset()
    with pytest.raises(ValueError, match="the cache is empty"):
        cache.ordered(0)


def test_attention_refuses_a_layer_that_was_left_out():
    attention, x = CachedMultiHeadAttention(12, 2, rng=np.random.default_rng(0)), np.ones((1, 1, 12))
    cache = KVCache(1, 8, 2, 2, 6)
    attention(x, cache, layer_idx=0)
    cache.advance()
    with pytest.raises(ValueError, match="layer 1 holds 0 of 1 positions"):
        attention(x, cache, layer_idx=1)
    with pytest.raises(ValueError, match="`layer` must be 0 to 1, got 2"):
        attention(x, cache, layer_idx=2)


def test_attention_in_a_full_window_refuses_a_second_call_before_advance():
    attention = CachedMultiHeadAttention(12, 2, rng=np.random.default_rng(0))
    cache, x = KVCache(1, 8, 1, 2, 6, window=WINDOW), np.random.default_rng(1).standard_normal((1, 9, 12))
    for position in range(WINDOW):
        attention(x[:, position : position + 1], cache)
        cache.advance()
    attention(x[:, 4:5], cache)
    with pytest.raises(ValueError, match="call advance"):
        attention(x[:, 5:6], cache)
    cache.advance()
    attention(x[:, 5:6], cache)


# Numbers


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_vectors_that_are_not_finite_do_not_become_numbers_in_bytes(bad):
    cache, k = KVCache(1, 8, 1, 2, 3, dtype="int8"), vectors(4)
    k[0, 1, 2, 0] = bad
    cache.update(0, k, vectors(4))
    cache.advance(4)
    keys, values = (found.data for found in cache.get(0))
    assert np.isnan(keys[0, 1, 2]).all()
    assert np.isfinite(values).all()
    keys[0, 1, 2] = k[0, 1, 2] = 0
    np.testing.assert_allclose(keys, k, atol=0.02)
