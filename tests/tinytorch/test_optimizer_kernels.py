"""The compiled updates against their NumPy references, and both against float64."""

import numpy as np
import pytest

from tinytorch.kernels import numba_available, optimizers

needs_numba = pytest.mark.skipif(not numba_available(), reason="numba is missing")


def drawn(n):
    rng = np.random.default_rng(n)
    return [rng.standard_normal(n, np.float32) for _ in range(3)]


@needs_numba
@pytest.mark.parametrize("n", [1, 17, 1000, 70_000])
@pytest.mark.parametrize(("momentum", "decay"), [(None, 0.0), (None, 0.1), (0.9, 0.0), (0.9, 0.1)])
def test_sgd_compiled_and_in_numpy_agree_with_float64(n, momentum, decay):
    start, gradient, velocity = drawn(n)
    moving = momentum is not None
    wide = gradient.astype(float) + decay * start + (momentum * velocity if moving else 0)
    kernel = optimizers._sgd_kernel()
    runs = {
        "chosen": lambda p, v: optimizers.sgd(p, gradient, v if moving else None, 0.1, momentum or 0, decay),
        "compiled": lambda p, v: kernel(p, gradient, v, 0.1, momentum or 0, decay, moving),
        "reference": lambda p, v: optimizers.sgd_reference(
            p, gradient, v if moving else None, 0.1, momentum or 0, decay
        ),
    }
    for run in runs.values():
        found, moved = start.copy(), velocity.copy()
        run(found, moved)
        np.testing.assert_allclose(found, start - 0.1 * wide, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(moved, wide if moving else velocity, rtol=1e-5, atol=1e-6)


@needs_numba
@pytest.mark.parametrize("n", [1, 17, 1000])
def test_adam_compiled_and_in_numpy_agree(n):
    start, gradient, mean = drawn(n)
    square = np.abs(drawn(n + 1)[0][:n])
    options = (0.01, 0.3, 0.9, 0.999, 1e-8, 0.001)
    results = []
    for kernel in (optimizers._adam_kernel(), optimizers.adam_reference):
        arrays = [start.copy(), gradient.copy(), mean.copy(), square.copy()]
        kernel(*arrays, *options)
        results.append(arrays)
    for compiled, reference in zip(*results, strict=True):
        np.testing.assert_allclose(compiled, reference, rtol=1e-5, atol=1e-6)


def test_strided_and_float64_parameters_are_updated_by_the_reference():
    start, gradient, _ = drawn(70_000)
    strided = np.zeros((70_000, 2), np.float32)[:, 0]
    strided[:] = start
    optimizers.sgd(strided, gradient, None, 0.1, 0.0, 0.0)
    np.testing.assert_allclose(strided, start - np.float32(0.1) * gradient, rtol=1e-6, atol=1e-7)
    wide = start.astype(float)
    optimizers.sgd(wide, gradient.astype(float), None, 0.1, 0.0, 0.0)
    np.testing.assert_allclose(wide, start - 0.1 * gradient.astype(float), rtol=1e-12)
