"""The benchmark of optimisations: which kernels it starts, and what both sides of a comparison get."""

import importlib
import importlib.util
import logging
import pkgutil
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import tinytorch.kernels

FILE = Path(__file__).parents[1] / "benchmarks" / "optimisations.py"


@pytest.fixture(scope="module")
def optimisations():
    spec = importlib.util.spec_from_file_location("optimisations", FILE)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(importlib.sys.modules, "optimisations", module)  # dataclasses look their module up
        spec.loader.exec_module(module)
        yield module


def kernels_of_the_package():
    """Module and name of every function that returns a compiled kernel."""
    pytest.importorskip("numba")
    for _, name, _ in pkgutil.iter_modules(tinytorch.kernels.__path__):
        module = importlib.import_module(f"tinytorch.kernels.{name}")
        for function, value in vars(module).items():
            if function.endswith("_kernel") and getattr(value, "__module__", "") == module.__name__:
                yield name, function


def test_the_first_use_of_every_kernel_is_timed(optimisations):
    timed = set()
    for entry in optimisations._FIRST_USE.values():
        module, call = entry.split(": ")
        timed |= {(module, function) for function in re.findall(r"\b(\w+)\(", call)}
    # The first of the INT8 loops that this processor can run is found by trying them.
    tried = {("int8", "linear_kernel")} if ("int8", "integer_kernel") in timed else set()
    assert set(kernels_of_the_package()) <= timed | tried


def test_both_sides_of_a_convolution_get_the_same_images_in_their_own_layout(optimisations):
    images, channels_last = optimisations.two_layouts(2, 3, 5)(np.random.default_rng(0))
    assert images.flags.c_contiguous
    assert channels_last.flags.c_contiguous
    np.testing.assert_array_equal(channels_last.transpose(0, 3, 1, 2), images)


def test_torch_converts_no_layout_while_it_is_timed(optimisations):
    torch = pytest.importorskip("torch")
    inputs = optimisations.two_layouts(2, 16, 8)(np.random.default_rng(0))
    expected = optimisations.fused(16, 8, np.random.default_rng(1))(*inputs)
    found = optimisations.in_torch(16, 8, np.random.default_rng(1))(*inputs)
    assert torch.from_numpy(found).is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


def test_int8_convolution_is_compared_with_the_im2col_of_the_suites(optimisations):
    run = optimisations.im2col(1, 16, 8, 8)(np.random.default_rng(0))
    assert run.__module__ == "convolutions"


@pytest.mark.parametrize("budget", ["0", "-1", "nan", "inf"])
def test_a_budget_that_is_no_time_is_refused_before_anything_runs(optimisations, monkeypatch, capsys, budget):
    ran = []
    monkeypatch.setattr(optimisations, "TABLES", {"sizes": ran.append})
    monkeypatch.setattr(sys, "argv", ["optimisations.py", f"--budget={budget}"])
    with pytest.raises(SystemExit) as refused:
        optimisations.main()
    assert (refused.value.code, ran) == (2, [])
    assert f"--budget must be a positive number of seconds, got {budget}" in capsys.readouterr().err


def test_the_level_of_the_root_logger_comes_back_whatever_happens(optimisations):
    def fail():
        with optimisations.only_errors_logged():
            raise KeyError(logging.getLogger().level)

    before = logging.getLogger().level
    with pytest.raises(KeyError, match=str(logging.ERROR)):
        fail()
    assert logging.getLogger().level == before


def test_onnx_runtime_computes_nearly_the_layer_and_leaves_logging_alone(optimisations):
    pytest.importorskip("onnxruntime")
    before, x = logging.getLogger().level, np.random.default_rng(0).standard_normal((3, 64), np.float32)
    found = optimisations.onnx_dynamic(64, np.random.default_rng(1))(x)
    expected = x @ optimisations.linear(64, np.random.default_rng(1)).weight.data
    assert np.linalg.norm(found - expected) < 0.03 * np.linalg.norm(expected)
    assert logging.getLogger().level == before
