"""Kernels that go by addresses touch nothing outside their arguments, whatever the sizes."""

import os

import numpy as np
import pytest
from guarded_memory import guarded, needs_guards
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tinytorch.kernels import convolution, decoding, int8, int8_images, numba_available, pooling
from tinytorch.kernels.convolution import Window
from tinytorch.kernels.int8 import Range

COMPILED = numba_available() and os.environ.get("TINYTORCH_KERNELS") != "reference"
pytestmark = [needs_guards, pytest.mark.skipif(not COMPILED, reason="there are no compiled kernels")]
repeatable = settings(derandomize=True, database=None, deadline=None, max_examples=40)
ranges = st.sampled_from([None, Range(0.05, 17)])


def pairs(low, high):
    return st.tuples(st.integers(low, high), st.integers(low, high))


def variants():
    """Indices of the variants that this processor can run."""
    if not COMPILED:
        return []
    from tinytorch.kernels.dots import VARIANTS, runs_here

    return [pytest.param(way, id=v.name) for way, v in enumerate(VARIANTS) if runs_here(v)]


def normal(rng, *shape):
    return rng.standard_normal(shape, np.float32)


@pytest.mark.parametrize("way", variants())
@given(
    rows=st.integers(0, 14), inputs=st.integers(0, 70), outputs=st.integers(0, 90), fixed=ranges,
    before=st.booleans(),
)  # fmt: skip
@example(rows=0, inputs=0, outputs=0, fixed=None, before=True)
@example(rows=1, inputs=1, outputs=1, fixed=None, before=False)
@repeatable
def test_int8_layers(way, rows, inputs, outputs, fixed, before):
    rng = np.random.default_rng(inputs)
    q = rng.integers(-127, 128, (inputs, outputs)).astype(np.int8)
    packed = int8.pack(q, rng.random(outputs, np.float32), normal(rng, outputs))
    held = int8.Packed(*(guarded(a, before) for a in packed))
    x, out = (
        guarded(normal(rng, rows, inputs), before),
        guarded(np.empty((rows, outputs), np.float32), before),
    )
    int8._run(int8.linear_kernel(way), x, held, outputs, fixed, out)
    expected = int8.linear_reference(x, packed, outputs, fixed)
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-4)
    bytes_ = rng.integers(0, 256, (rows, inputs)).astype(np.uint8)
    exact = guarded(np.empty((rows, outputs), np.int32), before)
    int8._run_given(int8.linear_kernel(way), bytes_, held, outputs, exact)
    np.testing.assert_array_equal(exact, bytes_.astype(int) @ q.astype(int))
    if outputs:
        alone = int8._weight_only(x, held, outputs)
        np.testing.assert_allclose(
            alone, x @ (q * packed.scales[:outputs]) + packed.bias[:outputs], atol=1e-2
        )


@pytest.mark.parametrize("way", variants())
@given(
    n=st.integers(0, 2), c=st.integers(1, 9), o=st.integers(1, 19), size=pairs(0, 20), kernel=pairs(1, 4),
    stride=pairs(1, 4), padding=pairs(0, 3), fixed=ranges, before=st.booleans(),
)  # fmt: skip
@example(
    n=1, c=3, o=2, size=(4, 0), kernel=(1, 2), stride=(1, 1), padding=(0, 1), fixed=None, before=True
)  # fmt: skip
@repeatable
def test_int8_convolutions(way, n, c, o, size, kernel, stride, padding, fixed, before):
    window = Window(kernel, stride, padding)
    if min(window.positions(*size)) < 1:
        return
    rng = np.random.default_rng(c)
    q = rng.integers(-127, 128, (o, c, *kernel)).astype(np.int8)
    packed = int8_images.pack(q, rng.random(o, np.float32), normal(rng, o))
    held = int8_images.PackedKernels(*(guarded(a, before) for a in packed))
    x = guarded(normal(rng, n, c, *size), before)
    found = int8_images._run(int8_images.image_kernel(way), x, held, window, fixed)
    if n:
        expected = int8_images.forward_reference(x, packed, c, window, fixed)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3)


@given(
    batch=st.integers(0, 3), heads=st.integers(1, 3), width=st.integers(1, 40), capacity=st.integers(1, 40),
    place=st.tuples(st.floats(0, 1), st.floats(0, 1)), kind=st.sampled_from([np.float32, np.int8]),
    before=st.booleans(),
)  # fmt: skip
@repeatable
def test_attention_over_a_cache(batch, heads, width, capacity, place, kind, before):
    rng = np.random.default_rng(width)
    valid = 1 + int(place[0] * (capacity - 1))
    slot = int(place[1] * (valid - 1))
    rows = tuple(guarded(normal(rng, batch, heads * width), before) for _ in range(3))
    biases = tuple(guarded(normal(rng, heads * width), before) for _ in range(3))
    shape = (batch, heads, capacity, width)
    stored = [(20 * normal(rng, *shape)).astype(kind) for _ in range(2)]
    scales = rng.random((2, *shape[:3]) if kind is np.int8 else (0, 0, 0, 0), np.float32) / 20
    mine, theirs = [guarded(a, before) for a in (*stored, scales)], [a.copy() for a in (*stored, scales)]
    assert decoding._attend_kernel(np.dtype(kind).name) is not None
    found = decoding.attend(rows, biases, *mine, slot, valid)
    expected = decoding.attend_reference(rows, biases, *theirs, slot, valid)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=2e-2 if kind is np.int8 else 1e-3)
    for a, b in zip(mine, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1 if kind is np.int8 else 1e-6)


@given(
    n=st.integers(1, 3), c=st.integers(1, 6), o=st.integers(1, 19), size=pairs(1, 30), kernel=pairs(1, 4),
    padding=pairs(0, 3), before=st.booleans(),
)  # fmt: skip
@repeatable
def test_convolutions_without_columns(n, c, o, size, kernel, padding, before):
    from tinytorch.kernels import implicit

    window = Window(kernel, (1, 1), padding)
    if min(window.positions(*size)) < 1:
        return
    rng = np.random.default_rng(c)
    x, weight = guarded(normal(rng, n, c, *size), before), guarded(normal(rng, o, c, *kernel), before)
    bias = guarded(normal(rng, o), before)
    patches = convolution.columns_reference(x, window).reshape(n, -1, np.prod(window.positions(*size)))
    expected = weight.reshape(o, -1) @ patches + bias[:, None]
    found = implicit.correlate(x, weight, bias, padding)
    np.testing.assert_allclose(found.reshape(expected.shape), expected, rtol=1e-4, atol=1e-4)
    g = guarded(normal(rng, *found.shape), before)
    expected = np.einsum("nop,nkp->ok", g.reshape(n, o, -1), patches)
    of_weight = implicit.of_weight(x, g, weight.shape, padding)
    np.testing.assert_allclose(of_weight.reshape(expected.shape), expected, rtol=1e-3, atol=1e-3)


@given(
    size=pairs(0, 30), kernel=pairs(1, 5), stride=pairs(1, 4), padding=pairs(0, 2), before=st.booleans()
)  # fmt: skip
@repeatable
def test_columns_and_pooling(size, kernel, stride, padding, before):
    window = Window(kernel, stride, padding)
    if min(window.positions(*size)) < 1:
        return
    rng = np.random.default_rng(size[0])
    x = guarded(normal(rng, 2, 3, *size), before)
    expected = convolution.columns_reference(x, window)
    out = guarded(np.full(expected.shape, np.nan, np.float32), before)
    convolution._columns_kernel()(x, out, *stride, *padding)
    np.testing.assert_array_equal(out, expected)
    back = guarded(np.zeros(x.shape, np.float32), before)
    convolution._folded_kernel()(out, back, *stride, *padding)
    np.testing.assert_allclose(back, convolution.folded_reference(out, x.shape, window), rtol=1e-4, atol=1e-5)
    if any(2 * pad > length for pad, length in zip(padding, kernel, strict=True)) or 0 in size:
        return
    largest, winners = pooling.largest_reference(x, window)
    best, which = guarded(np.empty_like(largest), before), guarded(np.empty_like(winners), before)
    pooling._largest_kernel()(x, best, which, *kernel, *stride, *padding)
    np.testing.assert_array_equal(best, largest)
    np.testing.assert_array_equal(which, winners)
    of_x = guarded(np.zeros(x.shape, np.float32), before)
    pooling._backward_kernel()(best, which, of_x, kernel[1], *stride, *padding)
    expected = pooling.largest_backward_reference(best, which, x.shape, window)
    np.testing.assert_allclose(of_x, expected, rtol=1e-5, atol=1e-5)
