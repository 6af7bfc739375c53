"""The kernels of a decoded step: against references, and with arrays that compiled code does not take."""

import os

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import tinytorch as tt
from tinytorch.kernels import decoding, numba_available
from tinytorch.kernels.decoding import BlockWeights
from tinytorch.perf.memoization import disable_kv_cache, enable_kv_cache

repeatable = settings(derandomize=True, database=None, deadline=None, max_examples=60)
COMPILED = numba_available() and os.environ.get("TINYTORCH_KERNELS") != "reference"
needs_numba = pytest.mark.skipif(not COMPILED, reason="there are no compiled kernels")
SEEDS = st.integers(0, 99)
NO_SCALES = np.empty((0, 0, 0, 0), np.float32)


def normal(rng, *shape):
    return rng.standard_normal(shape, np.float32)


def read_only(array):
    kept = array.copy()
    kept.setflags(write=False)
    return kept


def misaligned(array):
    room = np.zeros(array.nbytes + 1, np.uint8)
    moved = room[1:].view(array.dtype).reshape(array.shape)
    moved[...] = array
    assert not moved.flags.aligned
    return moved


def strided(array):
    wide = np.zeros((*array.shape[:-1], 2 * array.shape[-1]), array.dtype)
    wide[..., ::2] = array
    return wide[..., ::2]


STRANGE = {"read-only": read_only, "column-major": np.asfortranarray, "strided": strided, "odd": misaligned}
strange = pytest.mark.parametrize("change", STRANGE.values(), ids=STRANGE.keys())


# Against references in float64


@needs_numba
@given(rows=st.integers(0, 9), d=st.integers(1, 90), added=st.booleans(), seed=SEEDS)
@repeatable
def test_adding_and_normalising_equals_the_reference(rows, d, added, seed):
    rng = np.random.default_rng(seed)
    x, more = 3 + normal(rng, rows, d), normal(rng, rows, d) if added else None
    bias, gamma, beta = (normal(rng, d) for _ in range(3))
    wide = [None if a is None else a.astype(float) for a in (x, more, bias, gamma, beta)]
    expected = decoding.add_normalized_reference(*wide, 1e-5)
    found = decoding.add_normalized(x, more, bias, gamma, beta, 1e-5)
    np.testing.assert_allclose(x, wide[0], rtol=1e-6, atol=1e-6)
    # A width of 1 or 2 can leave hardly any variance, which makes rounding large.
    largest = 1 / np.sqrt(wide[0].var(axis=1) + 1e-5) if rows else np.ones(1)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=2e-5 * max(1, largest.max()))


@needs_numba
@given(rows=st.integers(0, 5), d=st.integers(0, 90), scale=st.sampled_from([0.1, 3, 1e4, 1e37]), seed=SEEDS)
@repeatable
def test_biased_gelu_equals_the_reference(rows, d, scale, seed):
    rng = np.random.default_rng(seed)
    x, bias = np.float32(scale) * normal(rng, rows, d), normal(rng, d)
    expected = decoding.biased_gelu_reference(x.astype(float), bias.astype(float))
    assert decoding.biased_gelu(x, bias) is x
    np.testing.assert_allclose(x, expected, rtol=1e-5, atol=2e-6)


@needs_numba
@given(
    heads=st.integers(1, 4), width=st.integers(1, 20), hidden=st.integers(1, 70),
    capacity=st.integers(1, 20), place=st.tuples(st.floats(0, 1), st.floats(0, 1)), seed=SEEDS,
)  # fmt: skip
@example(heads=2, width=16, hidden=64, capacity=1, place=(0.0, 0.0), seed=0)
@repeatable
def test_a_block_equals_the_reference(heads, width, hidden, capacity, place, seed):
    rng = np.random.default_rng(seed)
    d = heads * width
    weights = block_weights(rng, d, hidden)
    x, cache = normal(rng, 1, d), [normal(rng, 1, heads, capacity, width) for _ in range(2)]
    valid = 1 + int(place[0] * (capacity - 1))
    slot = int(place[1] * (valid - 1))
    exact, stored = x.astype(float), [a.astype(float) for a in cache]
    wide = BlockWeights(*(w.astype(float) if isinstance(w, np.ndarray) else w for w in weights))
    decoding.block_reference(exact, wide, (*stored, NO_SCALES), slot, valid)
    assert decoding.block_step(x, weights, (*cache, NO_SCALES), slot, valid)
    tolerance = (
        1e-3 if d > 2 else 1e-1
    )  # two numbers, normalised, are signs, and a difference of nearly nothing
    for found, expected in zip((x, *cache), (exact, *stored), strict=True):
        np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


def block_weights(rng, d, hidden):
    def some(*shape):
        return normal(rng, *shape) / np.float32(np.sqrt(shape[0]))

    return BlockWeights(
        some(d), some(d), 1e-2, some(d, d), some(d, d), some(d, d), some(d), some(d), some(d), some(d, d),
        some(d), some(d), some(d), 1e-2, some(d, hidden), some(hidden), some(hidden, d), some(d),
    )  # fmt: skip


# What the loops cannot hold


@needs_numba
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_block_with_something_that_is_not_a_number_is_no_plausible_block(bad):
    for which in range(2):
        rng = np.random.default_rng(0)
        weights, x = block_weights(rng, 12, 20), normal(rng, 1, 12)
        cache = [normal(rng, 1, 3, 5, 4) for _ in range(2)]
        if which == 0:
            x[0, 3] = bad
        else:
            cache[1][0, 1, 2, 3] = bad
        decoding.block_step(x, weights, (*cache, NO_SCALES), 3, 4)
        assert not np.isfinite(x).any()


@needs_numba
@pytest.mark.parametrize("number", [-1e9, -1e30, -3e38])
def test_gelu_of_the_most_negative_numbers_is_nothing(number):
    x = np.full((1, 40), number, np.float32)
    with np.errstate(over="ignore"):
        assert np.abs(decoding.biased_gelu(x, np.zeros(40, np.float32))).max() == 0


@needs_numba
def test_a_score_of_minus_infinity_has_no_share():
    rng = np.random.default_rng(0)
    rows = tuple(np.ones((1, 8), np.float32) for _ in range(3))
    biases = tuple(np.zeros(8, np.float32) for _ in range(3))
    keys, values = normal(rng, 1, 1, 4, 8), normal(rng, 1, 1, 4, 8)
    keys[0, 0, 1, 2] = -np.inf
    found = decoding.attend(rows, biases, keys, values, NO_SCALES, 3, 4)
    expected = decoding.attend_reference(rows, biases, keys, values, NO_SCALES, 3, 4)
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("which", [1, 2])
def test_int8_keys_and_values_that_are_not_finite_are_not_a_number_when_they_are_read(
    which, bad, compiled, monkeypatch
):
    if not compiled:
        monkeypatch.setattr(decoding, "_attend_kernel", lambda _: None)
    rng = np.random.default_rng(0)
    rows, biases = [normal(rng, 2, 24) for _ in range(3)], [normal(rng, 24) for _ in range(3)]
    shape = (2, 3, 5, 8)
    keys, values = (rng.integers(-127, 128, shape).astype(np.int8) for _ in range(2))
    scales = rng.random((2, *shape[:3]), np.float32)
    rows[which][1, 9] = bad  # second sequence, second head
    with np.errstate(invalid="ignore"):
        out = decoding.attend(tuple(rows), tuple(biases), keys, values, scales, 2, 3)
        later = decoding.attend(
            tuple(normal(rng, 2, 24) for _ in range(3)), tuple(biases), keys, values, scales, 3, 4
        )
    for found in (out, later):
        spoiled = np.isnan(found.reshape(2, 3, 8))
        assert spoiled[1, 1].all()
        assert spoiled.sum() == 8
    assert np.isnan(scales[which - 1, 1, 1, 2])
    assert np.isnan(scales).sum() == 1


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_vector_that_is_not_finite_has_no_scale(bad):
    vectors = np.ones((3, 4), np.float32)
    vectors[1, 2] = bad
    with np.errstate(invalid="ignore"):
        steps, scales = decoding.as_bytes(vectors)
    assert np.isnan(scales).tolist() == [False, True, False]
    assert np.isnan(decoding.byte_scales(vectors)).tolist() == [False, True, False]
    assert steps.tolist() == [[127] * 4, [0] * 4, [127] * 4]


@pytest.mark.parametrize("size", [0, 1e-45, 1e-40, 1e-30, 1, 1e30, 3.4e38])
def test_vectors_of_any_size_are_within_half_a_step(size):
    vectors = np.float32(size) * np.linspace(-1, 1, 16, dtype=np.float32).reshape(2, 8)
    steps, scales = decoding.as_bytes(vectors)
    assert (np.abs(steps * scales[:, None] - vectors.astype(float)) <= 0.5001 * scales[:, None]).all()
    assert (scales <= max(size / 127 * 1.0001, 1.2e-38)).all()


# Arrays that compiled code does not take


@needs_numba
@strange
@pytest.mark.parametrize("which", range(5))
def test_normalising_takes_any_array(which, change):
    rng = np.random.default_rng(0)
    given = [normal(rng, 7, 20), normal(rng, 7, 20), *(normal(rng, 20) for _ in range(3))]
    expected = decoding.add_normalized(*(a.copy() for a in given), 1e-5)
    given[which] = change(given[which])
    if which == 0 and change is read_only:
        with pytest.raises(ValueError, match="read-only"):  # it is to be changed
            decoding.add_normalized(*given, 1e-5)
        return
    found = decoding.add_normalized(*given, 1e-5)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert found.flags.c_contiguous


@needs_numba
@strange
@pytest.mark.parametrize("which", range(2))
def test_gelu_takes_any_array(which, change):
    rng = np.random.default_rng(0)
    given = [normal(rng, 7, 20), normal(rng, 20)]
    expected = decoding.biased_gelu(*(a.copy() for a in given))
    given[which] = change(given[which])
    if which == 0 and change is read_only:
        return
    np.testing.assert_allclose(decoding.biased_gelu(*given), expected, rtol=1e-5, atol=1e-6)


@needs_numba
@strange
@pytest.mark.parametrize("kind", [np.float32, np.int8])
@pytest.mark.parametrize("which", range(8))
def test_attention_takes_any_array(which, kind, change):
    rng = np.random.default_rng(0)
    rows, biases = [normal(rng, 2, 24) for _ in range(3)], [normal(rng, 24) for _ in range(3)]
    stored = [(20 * normal(rng, 2, 3, 9, 8)).astype(kind) for _ in range(2)]
    scales = rng.random((2, 2, 3, 9), np.float32) / 20 if kind is np.int8 else NO_SCALES
    kept = [a.copy() for a in stored]
    expected = decoding.attend(tuple(rows), tuple(biases), *kept, scales.copy(), 4, 7)
    if change is misaligned and which > 5 and kind is np.int8:
        return  # bytes have no alignment
    target, at = ((rows, which), (biases, which - 3), (stored, which - 6))[which // 3]
    target[at] = change(target[at])
    if which > 5 and change is read_only:
        with pytest.raises(ValueError, match="read-only"):  # they are to be changed
            decoding.attend(tuple(rows), tuple(biases), *stored, scales, 4, 7)
        return
    found = decoding.attend(tuple(rows), tuple(biases), *stored, scales, 4, 7)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)
    for mine, theirs in zip(stored, kept, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1 if kind is np.int8 else 1e-6)


def gpt():
    rng = np.random.default_rng(0)
    model = tt.GPT(50, 48, 3, 4, max_seq_len=24, rng=rng).eval()
    for parameter in model.parameters():
        parameter.data[...] += rng.normal(0, 0.1, parameter.shape)
    return model


ids = np.random.default_rng(1).integers(0, 50, (1, 12))


def step_by_step(model):
    with tt.no_grad():
        return np.concatenate([model(ids[:, i : i + 1], start_pos=i).data for i in range(12)], axis=1)


@strange
@pytest.mark.parametrize(
    "name",
    ["token_embedding", "position_embedding", "blocks.0.ln1", "blocks.1.attention.k_proj", "blocks.1.ln2",
     "blocks.2.mlp.linear1", "blocks.2.mlp.linear2", "ln_f", "lm_head"],
)  # fmt: skip
def test_a_cache_works_with_any_weights_and_holds_the_same(name, change):
    """Blocks before the one with strange weights have changed the step already when it comes to it."""
    usual, model = gpt(), gpt()
    layer = model
    for part in name.split("."):
        layer = layer[int(part)] if part.isdigit() else getattr(layer, part)
    for parameter in layer.parameters():
        parameter.data = change(parameter.data)
    expected_cache, cache = enable_kv_cache(usual), enable_kv_cache(model)
    np.testing.assert_allclose(step_by_step(model), step_by_step(usual), atol=1e-4)
    assert cache.length == expected_cache.length == 12
    for index in range(3):
        for found, expected in zip(cache.get(index), expected_cache.get(index), strict=True):
            np.testing.assert_allclose(found.data, expected.data, atol=1e-4)
    np.testing.assert_array_equal(model.generate(ids[:, :3], 9, 0), usual.generate(ids[:, :3], 9, 0))
    disable_kv_cache(model)
    np.testing.assert_array_equal(model.generate(ids[:, :3], 9, 0), usual.generate(ids[:, :3], 9, 0))


# Arrays that do not fit each other


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda z: decoding.add_normalized(z(2, 8), z(2, 7), z(8), z(8), z(8), 1e-5), "does not fit"),
        (lambda z: decoding.add_normalized(z(2, 8), None, z(8), z(7), z(8), 1e-5), "does not fit"),
        (
            lambda z: decoding.add_normalized(z(2, 8), None, z(8), z(8, 1), z(8), 1e-5),
            r"one axis, got shape \(8, 1\)",
        ),
        (lambda z: decoding.biased_gelu(z(2, 8), z(9)), "`bias` must have 8 elements, got 9"),
        (lambda z: decoding.biased_gelu(z(2, 8), z(1)), "`bias` must have 8 elements, got 1"),
        (
            lambda z: decoding.attend(
                (z(1, 8),) * 3, (z(8),) * 3, z(1, 2, 4, 4), z(1, 2, 4, 4).astype(np.int8), NO_SCALES, 0, 1
            ),
            "`values` must have the type of `keys`, float32, got int8",
        ),
        (lambda z: decoding.biased_gelu(z(8, 8), z(8, 1)), r"one axis, got shape \(8, 1\)"),
        (
            lambda z: decoding.attend(
                (z(1, 8),) * 3, (z(8), z(8, 1), z(8)), z(1, 2, 4, 4), z(1, 2, 4, 4), NO_SCALES, 0, 1
            ),
            r"one axis, got shape \(8, 1\)",
        ),
        (
            lambda z: decoding.attend(
                (z(1, 8),) * 3, (z(8), z(1), z(8)), z(1, 2, 4, 4), z(1, 2, 4, 4), NO_SCALES, 0, 1
            ),
            r"`biases` \(8,\)",
        ),
    ],
)
@pytest.mark.parametrize("compiled", [True, False])
def test_shapes_that_do_not_fit_are_refused(call, message, compiled, monkeypatch):
    if not compiled:
        for name in ("_normalize_kernel", "_gelu_kernel", "_attend_kernel"):
            monkeypatch.setattr(decoding, name, lambda *_: None)
    with pytest.raises(ValueError, match=message):
        call(lambda *shape: np.ones(shape, np.float32))


@needs_numba
@pytest.mark.parametrize("which", [name for name in BlockWeights._fields if not name.endswith("eps")])
def test_a_block_whose_weights_do_not_fit_is_refused(which):
    weights, x = block_weights(np.random.default_rng(0), 8, 12), np.ones((1, 8), np.float32)
    cache = np.zeros((1, 2, 4, 4), np.float32), np.zeros((1, 2, 4, 4), np.float32), NO_SCALES
    short = weights._replace(**{which: getattr(weights, which)[..., :-1].copy()})
    with pytest.raises(ValueError, match="the weights of a block do not fit 8 numbers"):
        decoding.block_step(x, short, cache, 0, 1)
    tall = weights._replace(**{which: getattr(weights, which).reshape(-1, 1)})
    with pytest.raises(ValueError, match=r"fit 8 numbers|one axis, got shape"):
        decoding.block_step(x, tall, cache, 0, 1)
    bytes_ = tuple(a.astype(np.int8) for a in cache[:2])
    with pytest.raises(ValueError, match="a cache without scales must hold float32, got int8"):
        decoding.block_step(x, weights, (*bytes_, NO_SCALES), 0, 1)
    assert (x == 1).all()
    assert not cache[0].any()
