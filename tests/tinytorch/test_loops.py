"""Compiled loops against exact integers, float64 error bounds and, bit for bit, their NumPy reference."""

import functools
import importlib.util
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tinytorch import kernels
from tinytorch.kernels import choice, loops

KERNELS = {
    "ijk": loops.matmul_ijk,
    "ikj": loops.matmul_ikj,
    "blocked": loops.matmul_blocked,
    "reference": loops.matmul_reference,
}
repeatable = settings(derandomize=True, database=None, deadline=None, max_examples=100)
sizes = st.integers(0, 70)
every_kernel = pytest.mark.parametrize("multiply", KERNELS.values(), ids=KERNELS)


@pytest.fixture(autouse=True)
def switched_on(monkeypatch):
    """Compiled loops run here whatever the environment of the tests says."""
    monkeypatch.setattr(loops, "switched_off", lambda: False)


def whole(shape, seed):
    """Small whole numbers, whose products and sums float32 holds exactly."""
    return np.random.default_rng(seed).integers(-9, 10, shape).astype(np.float32)


@every_kernel
@given(m=sizes, k=sizes, n=sizes, seed=st.integers(0, 1000))
@example(m=65, k=65, n=65, seed=0)
@example(m=1, k=130, n=1, seed=0)
@example(m=130, k=1, n=130, seed=0)
@example(m=3, k=0, n=4, seed=0)
@repeatable
def test_products_of_whole_numbers_are_exact_for_every_shape(multiply, m, k, n, seed):
    a, b = whole((m, k), seed), whole((k, n), seed + 1)
    product = multiply(a, b)
    assert product.dtype == np.float32
    assert product.flags.carray
    np.testing.assert_array_equal(product, a.astype(int) @ b.astype(int))


@given(
    m=sizes, k=sizes, n=sizes, block_size=st.one_of(st.integers(1, 80), st.just(np.int32(7)), st.just(10**30))
)
@repeatable
def test_blocked_products_are_exact_for_every_block_size(m, k, n, block_size):
    a, b = whole((m, k), m), whole((k, n), n)
    np.testing.assert_array_equal(loops.matmul_blocked(a, b, block_size), a.astype(int) @ b.astype(int))


@every_kernel
def test_rounding_stays_within_the_bound_for_a_sum_of_k_float32_products(multiply):
    rng = np.random.default_rng(1)
    k = 300
    a, b = rng.standard_normal((37, k), np.float32), rng.standard_normal((k, 41), np.float32)
    error = np.abs(multiply(a, b) - a.astype(float) @ b)
    # Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., section 3.5.
    unit = k * np.finfo(np.float32).eps / 2
    assert (error <= unit / (1 - unit) * (np.abs(a).astype(float) @ np.abs(b))).all()


@pytest.mark.parametrize("name", ["ijk", "ikj", "blocked"])
def test_the_order_of_the_loops_does_not_change_one_bit(name):
    rng = np.random.default_rng(2)
    a, b = rng.standard_normal((67, 131), np.float32), rng.standard_normal((131, 70), np.float32)
    assert KERNELS[name](a, b).tobytes() == loops.matmul_reference(a, b).tobytes()


@every_kernel
def test_infinities_nans_and_the_smallest_numbers_are_kept(multiply):
    tiny = np.finfo(np.float32).smallest_subnormal
    a = np.array([[np.inf, 1], [0, np.nan], [1, 0]], np.float32)
    b = np.array([[0, 2, tiny], [1, -np.inf, 0]], np.float32)
    with np.errstate(invalid="ignore"):
        product = multiply(a, b)
    expected = np.array([[np.nan, np.nan, np.inf], [np.nan] * 3, [0, np.nan, tiny]], np.float32)
    np.testing.assert_array_equal(product, expected)


def unaligned(array):
    raw = np.zeros(array.nbytes + 1, np.uint8)
    odd = raw[1:].view(np.float32).reshape(array.shape)
    odd[...] = array
    return odd


@every_kernel
@pytest.mark.parametrize(
    "kind",
    {
        "lists": np.ndarray.tolist,
        "float64": lambda x: x.astype(float),
        "int8": lambda x: x.astype(np.int8),
        "big endian": lambda x: x.astype(">f4"),
        "columns first": np.asfortranarray,
        "every second": lambda x: np.repeat(np.repeat(x, 2, 0), 2, 1)[::2, ::2],
        "backwards": lambda x: x[::-1, ::-1].copy()[::-1, ::-1],
        "broadcast": lambda x: np.broadcast_to(x[:1], x.shape),
        "unaligned": unaligned,
    }.items(),
    ids=lambda kind: kind[0],
)
def test_any_kind_of_matrix_is_taken_and_left_unchanged(multiply, kind):
    a, b = kind[1](whole((5, 6), 3)), kind[1](whole((6, 4), 4))
    if isinstance(a, np.ndarray):
        a.flags.writeable = b.flags.writeable = False
    before = np.array(a).tobytes(), np.array(b).tobytes()
    np.testing.assert_array_equal(multiply(a, b), np.array(a, dtype=int) @ np.array(b, dtype=int))
    assert (np.array(a).tobytes(), np.array(b).tobytes()) == before


@every_kernel
@pytest.mark.parametrize(
    ("a", "b", "said"),
    [
        (
            np.ones((2, 3)),
            np.ones((4, 5)),
            r"cannot multiply \(2, 3\) by \(4, 5\): the inner sizes 3 and 4 differ",
        ),
        (np.ones((2, 3)), np.ones((2, 3)), "the inner sizes 3 and 2 differ"),
        (np.ones(3), np.ones((3, 2)), r"`a` must be a matrix, got shape \(3,\)"),
        (np.ones((2, 3)), np.ones((1, 3, 2)), r"`b` must be a matrix, got shape \(1, 3, 2\)"),
        (np.ones((2, 3)), [["x"]] * 3, "`b` must hold real numbers"),
        ([[1], [1, 2]], np.ones((2, 2)), "`a` must be rectangular"),
    ],
)
def test_bad_arguments_are_refused_before_compiled_code_sees_them(monkeypatch, multiply, a, b, said):
    monkeypatch.setattr(loops, "_ready", lambda body: pytest.fail("compiled code was asked for"))
    with pytest.raises(ValueError, match=said):
        multiply(a, b)


@pytest.mark.parametrize("block_size", [0, -1, 2.0, "64", None])
def test_a_block_size_that_is_no_positive_whole_number_is_refused(block_size):
    with pytest.raises(ValueError, match="`block_size` must be a positive whole number, got"):
        loops.matmul_blocked(np.ones((2, 2)), np.ones((2, 2)), block_size)


class Watched:
    """A matrix that notes where it is read."""

    def __init__(self, array):
        self.array, self.shape, self.reads = array, array.shape, []

    def __getitem__(self, key):
        self.reads.append((key[0], key[1].start) if isinstance(key[1], slice) else key)
        return self.array[key]


@pytest.mark.parametrize(
    ("body", "further", "first_reads_of_b"),
    [
        (loops._ijk, (), [(0, 0), (1, 0), (2, 0), (3, 0), (0, 1)]),
        (loops._ikj, (), [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0)]),
        # By rows of a tile: two rows of the left one, for two rows of `a`, then the tile to its right.
        (loops._blocked, (2,), [(0, 0), (1, 0), (0, 0), (1, 0), (0, 2)]),
    ],
    ids=["ijk", "ikj", "blocked"],
)
def test_each_kernel_visits_the_second_matrix_in_the_order_it_is_named_for(body, further, first_reads_of_b):
    b = Watched(whole((4, 4), 5))
    body(whole((4, 4), 6), b, np.zeros((4, 4), np.float32), *further)
    assert b.reads[:5] == first_reads_of_b


@pytest.mark.parametrize(
    ("name", "further", "body", "handed_over"),
    [
        ("ijk", (), loops._ijk, ()),
        ("ikj", (), loops._ikj, ()),
        ("blocked", (), loops._blocked, (64,)),
        ("blocked", (5,), loops._blocked, (5,)),
    ],
)
def test_each_function_runs_the_kernel_it_is_named_for_and_hands_it_the_block_size(
    monkeypatch, name, further, body, handed_over
):
    ran = []
    monkeypatch.setattr(loops, "_ready", lambda body: lambda a, b, out, *rest: ran.append((body, rest)))
    KERNELS[name](np.ones((2, 2)), np.ones((2, 2)), *further)
    assert ran == [(body, handed_over)]


def test_without_numba_the_kernels_say_what_to_install_and_the_reference_still_works(monkeypatch):
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.setattr(
        loops, "_ready", loops._ready.__wrapped__
    )  # as in a process that has compiled nothing
    assert not kernels.numba_available()
    for name in ("ijk", "ikj", "blocked"):
        with pytest.raises(ImportError, match=r"compiled kernels need numba, .* `pip install numba`"):
            KERNELS[name](np.ones((2, 2)), np.ones((2, 2)))
    with pytest.raises(ImportError, match="numba"):
        loops.compile_all()
    assert loops.matmul_reference([[2]], [[3]]).tolist() == [[6]]


def test_with_numba_the_kernels_are_available():
    assert kernels.numba_available()
    assert kernels.numba_problem() is None


@pytest.mark.parametrize("body", list(loops._KERNELS), ids=lambda body: body.__name__)
def test_a_compiled_kernel_that_differs_from_its_reference_in_one_bit_is_refused(monkeypatch, body):
    def compiled_wrong(body, signature):
        def kernel(a, b, out, *further):
            body(a, b, out, *further)
            out[2, 3] = np.nextafter(out[2, 3], np.float32(np.inf))

        return kernel

    monkeypatch.setattr(loops, "compiled", compiled_wrong)
    fresh = functools.cache(loops._ready.__wrapped__)
    monkeypatch.setattr(loops, "_ready", fresh)
    order, said = body.__name__.removeprefix("_"), f"{body.__name__} differs from its NumPy reference"
    a, b = np.random.default_rng(0).standard_normal((2, 9, 9), np.float32)
    with pytest.warns(RuntimeWarning, match=said):
        product = KERNELS[order](a, b)
    assert product.tobytes() == KERNELS[order](a, b).tobytes() == loops.matmul_reference(a, b).tobytes()
    assert "differs from its NumPy reference" in loops.problem(order)


def test_switched_off_the_reference_runs_and_nothing_is_compiled(monkeypatch):
    monkeypatch.setattr(loops, "switched_off", lambda: True)
    monkeypatch.setattr(loops, "compiled", lambda *_: pytest.fail("a kernel was compiled"))
    monkeypatch.setattr(loops, "_ready", loops._ready.__wrapped__)
    for order in ("ijk", "ikj", "blocked"):
        assert KERNELS[order]([[2]], [[3]]).tolist() == [[6]]
        assert loops.problem(order) == "TINYTORCH_KERNELS=reference switches compiled kernels off"
    loops.compile_all()


@pytest.mark.parametrize(("asked", "off"), [(None, False), ("auto", False), ("reference", True)])
def test_one_variable_of_the_environment_switches_kernels_off(monkeypatch, asked, off):
    if asked is None:
        monkeypatch.delenv("TINYTORCH_KERNELS", raising=False)
    else:
        monkeypatch.setenv("TINYTORCH_KERNELS", asked)
    assert choice.switched_off.__wrapped__() is off


def test_a_value_of_the_variable_that_means_nothing_is_refused(monkeypatch):
    monkeypatch.setenv("TINYTORCH_KERNELS", "numpy")
    with pytest.raises(ValueError, match="TINYTORCH_KERNELS must be auto or reference, got 'numpy'"):
        choice.switched_off.__wrapped__()


def test_after_compiling_all_kernels_no_compiling_is_expected(monkeypatch):
    loops.compile_all()
    assert not loops.compiling_expected()
    monkeypatch.setattr(loops, "in_cache", lambda body: pytest.fail("kernels that are loaded need no cache"))
    assert not loops.compiling_expected()


def test_compiling_is_expected_while_a_kernel_is_neither_loaded_nor_in_the_cache(monkeypatch):
    loops._ready.cache_clear()
    loops._ready(loops._ikj)
    monkeypatch.setattr(loops, "in_cache", lambda body: body is not loops._blocked)
    assert loops.compiling_expected()
    monkeypatch.setattr(loops, "in_cache", lambda body: True)
    assert not loops.compiling_expected()


@pytest.fixture
def double(tmp_path):
    """A kernel in a file of its own, which nothing has compiled yet."""
    path = tmp_path / "doubling.py"
    path.write_text("def double(out):\n    for i in range(out.size):\n        out[i] *= 2\n")
    spec = importlib.util.spec_from_file_location("doubling", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.double


def test_a_kernel_is_in_the_cache_from_when_it_is_compiled_until_its_source_changes(double):
    assert not kernels.in_cache(double)
    out = np.ones(3, np.float32)
    kernels.compiled(double, "void(float32[::1])")(out)
    assert out.tolist() == [2, 2, 2]
    assert kernels.in_cache(double)
    source = double.__code__.co_filename
    later = Path(source).stat().st_mtime + 60
    os.utime(source, (later, later))
    assert not kernels.in_cache(double)


def test_where_nothing_can_be_cached_a_kernel_is_compiled_all_the_same():
    namespace = {}
    exec("def triple(out):\n    for i in range(out.size):\n        out[i] *= 3\n", namespace)  # has no file
    out = np.ones(3, np.float32)
    kernels.compiled(namespace["triple"], "void(float32[::1])")(out)
    assert out.tolist() == [3, 3, 3]
    assert not kernels.in_cache(namespace["triple"])
