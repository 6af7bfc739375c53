"""Every way to multiply gives the true product, and the backend runs what it says it ran."""

import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import mutually_broadcastable_shapes

import tinytorch
from tinytorch.core.tensor import Parameter, Tensor
from tinytorch.perf import acceleration
from tinytorch.perf.acceleration import (
    OptimizedBackend,
    active_backend,
    blocked_matmul,
    matmul,
    naive_matmul,
    vectorized_matmul,
)

FORCED = ["naive", "loops", "blocked", "vectorized"]
WAYS = {
    "naive_matmul": naive_matmul,
    "blocked_matmul": blocked_matmul,
    "blocks of 3": lambda a, b: blocked_matmul(a, b, block_size=3),
    "vectorized_matmul": vectorized_matmul,
    **{name: OptimizedBackend(name).matmul for name in ["auto", *FORCED]},
}
every_way = pytest.mark.parametrize("multiply", WAYS.values(), ids=WAYS)
repeatable = settings(derandomize=True, database=None, deadline=None, max_examples=50)


@pytest.fixture(autouse=True)
def switched_on(monkeypatch):
    """Compiled loops run here whatever the environment of the tests says."""
    monkeypatch.setattr(acceleration.loops, "switched_off", lambda: False)


def whole(shape, seed):
    """Small whole numbers, whose products and sums float32 holds exactly."""
    return np.random.default_rng(seed).integers(-9, 10, shape).astype(np.float32)


@every_way
@given(
    shapes=mutually_broadcastable_shapes(signature="(m,k),(k,n)->(m,n)", min_side=0, max_side=9, max_dims=2),
    seed=st.integers(0, 1000),
)
@repeatable
def test_products_of_matrices_and_batches_are_exact_for_whole_numbers(multiply, shapes, seed):
    a, b = (whole(shape, seed + i) for i, shape in enumerate(shapes.input_shapes))
    product = multiply(a, b)
    assert type(product) is np.ndarray
    assert product.dtype == np.float32
    np.testing.assert_array_equal(product, a.astype(int) @ b.astype(int))


@every_way
@pytest.mark.parametrize(("m", "k", "n"), [(70, 65, 66), (1, 200, 1), (40, 1, 50), (1, 1, 100), (100, 1, 2)])
def test_products_larger_than_a_block_and_outer_products_are_exact(multiply, m, k, n):
    a, b = whole((m, k), 0), whole((k, n), 1)
    np.testing.assert_array_equal(multiply(a, b), a.astype(int) @ b.astype(int))


@every_way
def test_a_tensor_gives_a_tensor_and_everything_else_an_array_of_float32(multiply):
    a, b = whole((2, 3), 2), whole((3, 2), 3)
    for left, right in ((Tensor(a), Tensor(b)), (Tensor(a), b), (a, Parameter(b))):
        product = multiply(left, right)
        assert type(product) is Tensor
        np.testing.assert_array_equal(product.data, a @ b)
    for left, right in (
        (a, b),
        (a.tolist(), b.tolist()),
        (a.astype(int), b.astype(float)),
        (a, b.astype(">f4")),
    ):
        product = multiply(left, right)
        assert type(product) is np.ndarray
        assert product.dtype == np.float32
        np.testing.assert_array_equal(product, a @ b)


@every_way
def test_arguments_that_are_read_only_or_not_contiguous_are_taken_and_left_unchanged(multiply):
    a, b = whole((8, 6), 4)[::2].T, whole((4, 10), 5)[:, ::-2]
    a.flags.writeable = b.flags.writeable = False
    before = a.tolist(), b.tolist()
    np.testing.assert_array_equal(multiply(a, b), a.astype(int) @ b.astype(int))
    assert (a.tolist(), b.tolist()) == before


@every_way
@pytest.mark.parametrize(
    ("left", "right", "said"),
    [
        ((2, 3), (4, 5), r"cannot multiply \(2, 3\) by \(4, 5\): the inner sizes 3 and 4 differ"),
        ((2, 4), (3, 5), r"cannot multiply \(2, 4\) by \(3, 5\): the inner sizes 4 and 3 differ"),
        ((2, 1), (3, 20), "the inner sizes 1 and 3 differ"),
        ((2, 2, 3), (3, 3, 4), r"the batch shapes \(2,\) and \(3,\) do not broadcast"),
        ((3,), (3, 2), r"two axes or more, got shapes \(3,\) and \(3, 2\)"),
        ((2, 3), (3,), r"two axes or more, got shapes \(2, 3\) and \(3,\)"),
    ],
)
def test_shapes_without_a_product_are_both_named(multiply, left, right, said):
    for kind in (np.asarray, Tensor):
        with pytest.raises(ValueError, match=said):
            multiply(kind(np.ones(left, np.float32)), kind(np.ones(right, np.float32)))


@every_way
def test_arguments_that_hold_no_numbers_are_named(multiply):
    with pytest.raises(ValueError, match="`b` must hold real numbers, got <U1 data"):
        multiply(np.ones((1, 1), np.float32), [["x"]])


@pytest.mark.parametrize("block_size", [0, -3, 1.5])
def test_a_block_size_that_is_no_positive_whole_number_is_refused(block_size):
    with pytest.raises(ValueError, match="`block_size` must be a positive whole number"):
        blocked_matmul(np.ones((2, 2)), np.ones((2, 2)), block_size)


def test_the_block_size_reaches_the_compiled_loops(monkeypatch):
    seen = []
    monkeypatch.setattr(
        acceleration.loops, "matmul_blocked", lambda a, b, size: (seen.append(size), a @ b)[1]
    )
    a = np.ones((2, 2), np.float32)
    blocked_matmul(a, a)
    blocked_matmul(a, a, block_size=5)
    assert seen == [64, 5]


def test_naive_loops_add_in_python_and_blocked_loops_in_float32():
    # 1e8 + 1 is 1e8 in float32, so only sums of Python numbers keep the 1.
    a, b = np.array([[1e8, 1, -1e8]], np.float32), np.ones((3, 1), np.float32)
    assert naive_matmul(a, b) == 1
    assert blocked_matmul(a, b) == 0


@pytest.mark.parametrize("name", FORCED)
@pytest.mark.parametrize(
    "shape", [((3, 4), (4, 5)), ((20, 1), (1, 20)), ((2, 3, 4), (4, 5))], ids=["matrix", "outer", "batch"]
)
def test_a_forced_kernel_is_the_one_that_runs_and_is_recorded_whatever_the_shapes(monkeypatch, name, shape):
    ran = []
    for kernel, function in list(acceleration._KERNELS.items()):
        monkeypatch.setitem(
            acceleration._KERNELS, kernel, lambda a, b, k=kernel, f=function: (ran.append(k), f(a, b))[1]
        )
    backend = OptimizedBackend(name)
    backend.matmul(whole(shape[0], 0), whole(shape[1], 1))
    assert ran == [name]
    assert backend.last_kernel == name


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("naive", acceleration._naive),
        ("loops", acceleration.loops.matmul_ikj),
        ("blocked", acceleration.loops.matmul_blocked),
        ("vectorized", np.matmul),
    ],
)
def test_each_name_stands_for_its_own_function(name, function):
    a = np.random.default_rng(0).standard_normal((37, 37), np.float32)
    assert OptimizedBackend(name).matmul(a, a).tobytes() == function(a, a).tobytes()
    kernel = acceleration._KERNELS[name]
    assert kernel is function or function in [cell.cell_contents for cell in kernel.__closure__]


@pytest.mark.parametrize(
    ("left", "right", "kernel"),
    [
        ((2, 2), (2, 2), "vectorized"),
        ((128, 128), (128, 128), "vectorized"),
        ((1, 64), (64, 1), "vectorized"),
        ((5, 1), (1, 15), "vectorized"),
        ((5, 1), (1, 16), "outer"),
        ((5, 2), (2, 16), "vectorized"),
        ((3, 5, 1), (1, 16), "outer"),
        ((5, 0), (0, 16), "vectorized"),
    ],
)
def test_the_automatic_choice_is_blas_but_for_outer_products_of_16_columns_or_more(left, right, kernel):
    backend = OptimizedBackend()
    backend.matmul(np.ones(left, np.float32), np.ones(right, np.float32))
    assert backend.last_kernel == kernel


def test_an_outer_product_keeps_the_nan_of_zero_times_infinity():
    b = np.full((1, 16), np.inf, np.float32)
    with np.errstate(invalid="ignore"):
        assert np.isnan(OptimizedBackend().matmul(np.zeros((1, 1), np.float32), b)).all()


def test_a_backend_counts_what_ran_and_not_what_was_refused():
    backend = OptimizedBackend()
    assert backend.last_kernel is None
    square, column, row = np.ones((2, 2)), np.ones((3, 1)), np.ones((1, 16))
    backend.matmul(square, square)
    backend.matmul(Tensor(square), Tensor(square))
    with pytest.raises(ValueError, match="cannot multiply"):
        backend.matmul(column, square)
    backend.matmul(column, row)
    assert backend.calls == {"vectorized": 2, "outer": 1}
    assert backend.calls["naive"] == 0
    assert backend.last_kernel == "outer"
    assert OptimizedBackend().calls == {}


def test_an_unknown_kernel_is_refused_with_the_names_that_exist():
    with pytest.raises(ValueError, match="one of auto, naive, loops, blocked, vectorized, got 'fast'"):
        OptimizedBackend("fast")


def test_the_innermost_block_decides_and_the_outer_ones_come_back():
    a = np.ones((2, 2), np.float32)
    outside = active_backend()
    assert outside.kernel == "auto"
    with OptimizedBackend("naive") as naive:
        matmul(a, a)
        with OptimizedBackend("loops") as compiled, naive:
            matmul(a, a)
            assert active_backend() is naive
        assert active_backend() is naive
    assert active_backend() is outside
    assert (naive.calls, compiled.calls) == ({"naive": 2}, {})


def test_an_exception_leaves_no_backend_behind():
    outside = active_backend()
    with pytest.raises(ValueError, match="cannot multiply"), OptimizedBackend("naive"):
        matmul(np.ones((2, 3)), np.ones((2, 3)))
    assert active_backend() is outside


def test_another_thread_has_its_own_active_backend():
    inside, leave, seen = threading.Event(), threading.Event(), []

    def work():
        seen.append(active_backend().kernel)
        with OptimizedBackend("blocked"):
            inside.set()
            leave.wait(timeout=30)
            seen.append(active_backend().kernel)

    with OptimizedBackend("naive") as naive:
        thread = threading.Thread(target=work)
        thread.start()
        assert inside.wait(timeout=30)
        assert active_backend() is naive
        leave.set()
        thread.join()
        assert active_backend() is naive
    assert seen == ["auto", "blocked"]


@pytest.fixture
def no_numba(monkeypatch):
    monkeypatch.setitem(sys.modules, "numba", None)


@pytest.mark.parametrize("name", ["loops", "blocked"])
def test_without_numba_a_forced_compiled_kernel_gives_way_to_its_reference_and_says_so(no_numba, name):
    backend = OptimizedBackend(name)
    a, b = whole((5, 6), 0), whole((2, 6, 3), 1)
    np.testing.assert_array_equal(backend.matmul(a, b), a.astype(int) @ b.astype(int))
    assert backend.calls == {"reference": 1}
    assert f"{name}: forced, but numba is missing" in backend.describe()
    np.testing.assert_array_equal(blocked_matmul(a, b, block_size=2), a.astype(int) @ b.astype(int))


OFF = """
import sys, numpy as np
from tinytorch.perf.acceleration import OptimizedBackend, blocked_matmul
a = np.ones((3, 3), np.float32)
for name in ("loops", "blocked"):
    backend = OptimizedBackend(name)
    backend.matmul(a, a)
    print(dict(backend.calls), backend.describe())
blocked_matmul(a, a)
print("numba" in sys.modules)
"""


def test_switched_off_by_the_environment_forced_kernels_give_way_to_their_reference_and_say_so():
    environment = {**os.environ, "TINYTORCH_KERNELS": "reference"}
    found = subprocess.run(
        [sys.executable, "-c", OFF], capture_output=True, text=True, check=True, env=environment
    )
    *ran, imported = found.stdout.splitlines()
    for name, line in zip(("loops", "blocked"), ran, strict=True):
        assert line.startswith(f"{{'reference': 1}} {name}: forced, but TINYTORCH_KERNELS=reference switches")
    assert imported == "False"


@pytest.mark.parametrize("name", ["auto", "naive", "vectorized"])
def test_the_other_kernels_do_not_need_numba(no_numba, name):
    backend = OptimizedBackend(name)
    np.testing.assert_array_equal(backend.matmul(np.ones((3, 1)), np.ones((1, 20))), np.ones((3, 20)))
    assert "missing" not in backend.describe()


def test_the_description_names_the_rule_with_its_threshold_or_the_forced_kernel():
    said = OptimizedBackend().describe()
    assert "outer (np.multiply) for an inner size of 1 and 16 columns or more" in said
    assert "vectorized (np.matmul, so BLAS) for everything else" in said
    assert OptimizedBackend("blocked").describe() == "blocked: forced, multiplies everything"
    assert repr(OptimizedBackend("loops")) == "OptimizedBackend('loops')"


def test_a_model_inside_a_block_multiplies_with_the_backend_of_the_block():
    rng = np.random.default_rng(0)
    first, second = tinytorch.Linear(8, 5, rng=rng), tinytorch.Linear(5, 3, rng=rng)
    model = tinytorch.Sequential(first, tinytorch.ReLU(), second)
    x = rng.standard_normal((4, 8), np.float32)
    expected = model(x).data
    with OptimizedBackend("naive") as outer:
        naive = model(x).data
        with OptimizedBackend("blocked") as inner:
            model(x)
        (Tensor(x) @ model[0].weight).sum().backward()
    model(x)
    np.testing.assert_allclose(naive, expected, rtol=1e-5, atol=1e-6)
    assert (outer.calls["naive"], sum(inner.calls.values())) == (3, 2)
