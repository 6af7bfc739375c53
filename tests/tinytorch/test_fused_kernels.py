"""Compiled kernels against their NumPy references, and life without them."""

import os
import subprocess
import sys
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinytorch.kernels import choice, cross_entropy, gelu, layernorm, memory, numba_available, softmax

repeatable = settings(derandomize=True, database=None, deadline=None, max_examples=60)
COMPILED = numba_available() and os.environ.get("TINYTORCH_KERNELS") != "reference"
needs_numba = pytest.mark.skipif(not COMPILED, reason="there are no compiled kernels")
SEEDS = st.integers(0, 99)
rows_and_width = given(rows=st.integers(1, 9), width=st.integers(1, 70), seed=st.integers(0, 99))


def normal(*shape, seed=0, scale=1.0):
    return (scale * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


def close(found, expected, rtol=1e-5, atol=1e-5):
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=atol)


@needs_numba
@rows_and_width
@repeatable
def test_gelu(rows, width, seed):
    x = normal(rows * width, seed=seed, scale=5)
    out, logistic, back = (np.empty_like(x) for _ in range(3))
    gelu._forward_kernel()(x, out, logistic)
    wide = gelu.forward_reference(x.astype(float))
    close(out, wide[0], rtol=2e-6, atol=1e-6)
    close(logistic, wide[1], rtol=0, atol=2e-7)
    g = normal(rows * width, seed=seed + 1)
    gelu._backward_kernel()(g, x, logistic, back)
    close(back, gelu.backward_reference(g.astype(float), x.astype(float), wide[1]), rtol=1e-5, atol=3e-6)


@needs_numba
def test_compiled_gelu_of_extremes():
    x = np.array([-1e4, -100, -30, -1e-30, 0, 1e-30, 30, 100, 1e4, np.inf, np.nan], np.float32)
    out, logistic = np.empty_like(x), np.empty_like(x)
    gelu._forward_kernel()(x, out, logistic)
    np.testing.assert_allclose(out[:9], [0, 0, 0, 0, 0, 0, 30, 100, 1e4], atol=1e-28)
    assert out[9] == np.inf
    assert np.isnan(out[10])


@needs_numba
@rows_and_width
@repeatable
def test_layer_norm(rows, width, seed):
    x, g = 3 + normal(rows, width, seed=seed, scale=2), normal(rows, width, seed=seed + 1)
    gamma, beta = normal(width, seed=seed + 2), normal(width, seed=seed + 3)
    out, normalized, inverse = np.empty_like(x), np.empty_like(x), np.empty(rows, np.float32)
    layernorm._forward_kernel()(x, gamma, beta, 1e-5, out, normalized, inverse)
    wide = layernorm.forward_reference(*(a.astype(float) for a in (x, gamma, beta)), 1e-5)
    # A width of 1 or 2 can leave hardly any variance, which makes rounding large.
    tolerance = {"rtol": 1e-3, "atol": 1e-3 * max(1.0, float(wide[2].max()) / 10)}
    close(out, wide[0], **tolerance)
    saved = normalized, inverse[:, None], gamma
    of_x, of_gamma, of_beta = np.empty_like(x), np.zeros_like(gamma), np.zeros_like(gamma)
    layernorm._backward_kernel()(g, normalized, inverse, gamma, of_x, of_gamma, of_beta)
    for found, expected in zip(
        (of_x, of_gamma, of_beta), layernorm.backward_reference(g, *saved), strict=True
    ):
        close(found, expected, rtol=1e-3, atol=1e-3 * max(1.0, float(inverse.max())))


@needs_numba
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 40)),
    keep=st.sampled_from([0.0, 0.3, 0.9, 1.0]),
    seed=st.integers(0, 99),
)
@repeatable
def test_masked_softmax(shape, keep, seed):
    scores = normal(*shape, seed=seed, scale=20)
    kept = np.random.default_rng(seed).random(shape[1:]) < keep
    out = np.full_like(scores, np.nan)
    softmax._masked_kernel()(scores, kept, 0.3, out)
    close(out, softmax.masked_softmax_reference(scores.astype(float), kept, 0.3), rtol=1e-5, atol=1e-7)
    assert not out[:, ~kept.any(axis=1)].any()


@needs_numba
@given(rows=st.integers(1, 9), classes=st.integers(1, 70), scale=st.sampled_from([0.1, 1, 50]), seed=SEEDS)
@repeatable
def test_cross_entropy(rows, classes, scale, seed):
    logits = normal(rows, classes, seed=seed, scale=scale)
    labels = np.random.default_rng(seed).integers(0, classes, rows).astype(np.intp)
    probabilities, losses = np.full_like(logits, np.nan), np.empty(rows, np.float32)
    cross_entropy._forward_kernel()(logits, labels, probabilities, losses)
    mean, expected = cross_entropy.forward_reference(logits.astype(float), labels)
    close(probabilities, expected, rtol=1e-4, atol=1e-7)
    close(losses.mean(), mean, rtol=1e-5, atol=1e-6)


@needs_numba
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_cross_entropy_of_nan_and_infinity_is_nan_in_their_row_alone(bad):
    logits = normal(3, 50)
    logits[1, 7] = bad
    probabilities, losses = np.empty_like(logits), np.empty(3, np.float32)
    cross_entropy._forward_kernel()(logits, np.array([0, 1, 2], np.intp), probabilities, losses)
    assert np.isnan(losses).tolist() == [False, True, False]
    assert np.isfinite(probabilities[[0, 2]]).all()


@needs_numba
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_row_with_nan_or_infinity_is_no_plausible_row(bad):
    scores = normal(1, 3, 50)
    scores[0, 1, 7] = bad
    out = np.empty_like(scores)
    softmax._masked_kernel()(scores, np.ones((3, 50), bool), 1.0, out)
    assert not np.isfinite(out[0, 1]).all()
    assert np.isfinite(out[0, [0, 2]]).all()


@pytest.mark.parametrize("size", [4, 400])
def test_what_is_not_contiguous_float32_goes_to_the_reference(size):
    x = normal(size, 2 * size)
    for strange in (x[:, ::2], x.T, x.astype(float)):
        np.testing.assert_allclose(
            gelu.forward(strange)[0], gelu.forward_reference(strange)[0], rtol=1e-5, atol=1e-6
        )
        plain = softmax.masked_softmax_reference(strange, None, 0.5)
        np.testing.assert_allclose(softmax.masked_softmax(strange, None, 0.5), plain, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (0,)])
def test_nothing_in_is_nothing_out(shape):
    assert gelu.forward(np.zeros(shape, np.float32))[0].shape == shape


@pytest.mark.parametrize(
    "function", [softmax.softmax, softmax.log_softmax, lambda x: softmax.masked_softmax(x, None, 1.0)]
)
def test_the_softmax_of_nothing_is_refused_and_no_rows_are_none(function):
    with pytest.raises(ValueError, match=r"a last axis that is not empty, got shape \(5, 0\)"):
        function(np.zeros((5, 0), np.float32))
    assert function(np.zeros((0, 5), np.float32)).shape == (0, 5)


@pytest.mark.parametrize("shape", [(5, 0), (0, 5), (200, 0)])
def test_the_loss_of_no_rows_or_no_classes_is_refused(shape):
    with pytest.raises(
        ValueError, match=rf"`logits` must have shape .*not empty, got \({shape[0]}, {shape[1]}\)"
    ):
        cross_entropy.forward(np.zeros(shape, np.float32), np.zeros(shape[0], np.intp))


@needs_numba
def test_a_kernel_that_disagrees_with_its_reference_is_refused_with_a_warning():
    def body(x):
        x[0] = 1

    with pytest.warns(RuntimeWarning, match="body differs from its NumPy reference on this machine"):
        assert choice.compiled_or_none(body, "void(float32[::1])", lambda kernel: False) is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert choice.compiled_or_none(body, "void(float32[::1])", lambda kernel: True) is not None


TRAIN = """
import sys
{before}
import numpy as np
import tinytorch as tt
rng = np.random.default_rng(0)
model = tt.GPT(30, 64, 1, 4, 32, rng=rng)
tokens = rng.integers(0, 30, (8, 33))
adjust = tt.AdamW(model.parameters(), lr=0.01)
for _ in range(3):
    adjust.zero_grad()
    loss = tt.CrossEntropyLoss()(model(tokens[:, :-1]), tokens[:, 1:])
    loss.backward()
    adjust.step()
images = tt.Sequential(tt.Conv2d(3, 8, 3), tt.MaxPool2d(2), tt.Flatten(), tt.Linear(8 * 13 * 13, 5, rng=rng))
images(np.ones((4, 3, 28, 28))).sum().backward()
print(f"{{loss.item():.5f}}", "numba" in sys.modules)
"""


def trained(before="", **environment):
    script = TRAIN.format(before=before)
    command = [sys.executable, "-W", "error::RuntimeWarning", "-c", script]
    found = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, **environment}
    )
    return found.stdout.split()


def test_without_numba_and_with_kernels_switched_off_training_gives_the_same():
    usual, _ = trained()
    missing, _ = trained(before="sys.modules['numba'] = None")
    off, imported = trained(TINYTORCH_KERNELS="reference")
    assert imported == "False"
    assert missing == off
    assert float(usual) == pytest.approx(float(off), abs=2e-4)


def test_importing_is_quick_because_nothing_heavy_is_imported():
    heavy = "numba", "scipy", "sklearn", "pandas", "safetensors", "rich", "matplotlib"
    use = "import sys, tinytorch; tinytorch.Linear(2, 2)([1.0, 2.0])"
    script = f"{use}; print([m for m in {heavy} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_keeping_memory_can_be_left_to_the_c_library():
    script = "from tinytorch.kernels.memory import keep_freed_memory; print(keep_freed_memory())"
    environment = {**os.environ, "TINYTORCH_MALLOC": "default"}
    command = [sys.executable, "-c", script]
    found = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert found.stdout.strip() == "False"
    assert memory.keep_freed_memory() in (True, False)
