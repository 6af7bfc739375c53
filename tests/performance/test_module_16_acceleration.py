"""Module 16, acceleration: what loops cost, what order and blocking buy, and what dispatching adds."""

from __future__ import annotations

import numpy as np
from performance_test_framework import (
    Implementation,
    OutputsMatch,
    Overhead,
    PerformanceTestSuite,
    Speedup,
)

import tinytorch as tt
from perfclaims import Experiment
from tinytorch.kernels import loops, numba_problem
from tinytorch.perf.acceleration import OptimizedBackend, naive_matmul, vectorized_matmul

suite = PerformanceTestSuite("module_16_acceleration", title="Acceleration")

README = "TinyTorch performance tests README, module 16"
# Sums of n float32 products differ by rounding in the order of their additions.
CLOSE = OutputsMatch(rtol=1e-4, atol=1e-3)


def product(name, func):
    """An implementation that multiplies what it is given; it has no data of its own."""
    return Implementation(name, lambda rng: func)


def matrices(size):
    """Arguments: two float32 matrices of shape (size, size)."""

    def inputs(rng):
        return tuple(rng.standard_normal((size, size), dtype=np.float32) for _ in range(2))

    return inputs


def needs_numba():
    """The reason why compiled loops cannot run here, or None."""
    problem = numba_problem()
    return None if problem is None else f"needs numba, which cannot be imported ({problem})"


def compile_loops(experiment: Experiment) -> None:
    """Compile before anything is timed, and say so where it takes a while."""
    if loops.compiling_expected():
        experiment.announce("compiling the loop kernels: about 3 s, once on this machine")
    loops.compile_all()


@suite.claim(
    "acceleration.numpy-vs-loops",
    "One NumPy product is at least 1000 times faster than triple loops on Python lists at n=128",
    source=f"{README}: 10-100x, 100-1000x and 2987x",
    criteria=[CLOSE, Speedup(at_least=1000)],
    expected_s=6,
)
def numpy_vs_loops(experiment: Experiment) -> None:
    """Both sides take arrays; the loops convert them to lists inside the timed call."""
    experiment.time(
        baseline=product("Python loops on lists", naive_matmul),
        optimized=product("NumPy", vectorized_matmul),
        inputs=matrices(128),
        label="n=128",
    )


@suite.claim(
    "acceleration.loop-order",
    "Compiled loops in i-k-j order are at least 3 times faster than in i-j-k order at n=512",
    source="this project",
    criteria=[CLOSE, Speedup(at_least=3)],
    requires=[needs_numba],
    expected_s=6,
)
def loop_order(experiment: Experiment) -> None:
    """The same additions in the same order for every element; only the walk through memory differs."""
    compile_loops(experiment)
    experiment.time(
        baseline=product("i-j-k", loops.matmul_ijk),
        optimized=product("i-k-j", loops.matmul_ikj),
        inputs=matrices(512),
        label="n=512",
    )


# 256 x 256 float32 are 256 kB: a tile stays in the L2 cache of one core, and its rows are long enough to
# vectorise well. Tiles of 64 gain a tenth less at n=1024 and lose a quarter at n=512.
TILE = 256


def matmul_tiled(a, b):
    """Compiled loops over tiles."""
    return loops.matmul_blocked(a, b, TILE)


@suite.claim(
    "acceleration.blocked-vs-naive",
    "Tiling makes compiled i-k-j loops at least 1.2 times faster at n=1024, beyond the L2 cache",
    source=f"{README}: blocking is 20-50 % better",
    criteria=[CLOSE, Speedup(at_least=1.2, label="n=1024")],
    requires=[needs_numba],
    expected_s=10,
)
def blocked_vs_naive(experiment: Experiment) -> None:
    """Plain three-level tiling without packing or BLAS; n=512 fits the cache as it is, and is reported."""
    compile_loops(experiment)
    for size in (512, 1024):
        experiment.time(
            baseline=product("i-k-j", loops.matmul_ikj),
            optimized=product(f"i-k-j in tiles of {TILE}", matmul_tiled),
            inputs=matrices(size),
            label=f"n={size}",
        )


@suite.claim(
    "acceleration.blas-vs-blocked",
    "BLAS is at least twice as fast as compiled blocked loops at n=256 and n=512",
    source=f"{README}: NumPy at least 2x over blocked loops",
    criteria=[CLOSE, Speedup(at_least=2)],
    requires=[needs_numba],
    expected_s=3,
)
def blas_vs_blocked(experiment: Experiment) -> None:
    """What packing, registers and prefetching add to tiling."""
    compile_loops(experiment)
    for size in (256, 512):
        experiment.time(
            baseline=product(f"i-k-j in tiles of {TILE}", matmul_tiled),
            optimized=product("BLAS", vectorized_matmul),
            inputs=matrices(size),
            label=f"n={size}",
        )


@suite.claim(
    "acceleration.dispatch-overhead",
    "Choosing a kernel by shape adds at most 5 % and 2 us to a product at n=128",
    source=f"{README}: dispatch costs 5-20 %",
    criteria=[CLOSE, Overhead(at_most=0.05), Overhead(at_most_us=2.0)],
    expected_s=3,
)
def dispatch_overhead(experiment: Experiment) -> None:
    """The backend against the NumPy call that it ends in."""
    experiment.time(
        baseline=product("np.matmul", np.matmul),
        optimized=Implementation("OptimizedBackend", lambda rng: OptimizedBackend().matmul),
        inputs=matrices(128),
        label="n=128",
    )


def mlp_with(backend):
    """An MLP of seeded weights whose products a backend makes."""

    def build(rng):
        first, second, last = (tt.Linear(i, o, rng=rng) for i, o in ((64, 128), (128, 64), (64, 10)))
        model = tt.Sequential(first, tt.ReLU(), second, tt.ReLU(), last).eval()

        def forward(x):
            with tt.no_grad(), OptimizedBackend(backend):
                return model(x).data

        return forward

    return Implementation(f"{backend} backend", build)


@suite.claim(
    "acceleration.mlp",
    "An MLP 64-128-64-10 is at least 100 times faster at batch 32 on the fast backend than on Python loops",
    source=f"{README}: the accelerated model is faster",
    criteria=[CLOSE, Speedup(at_least=100)],
    expected_s=4,
)
def mlp(experiment: Experiment) -> None:
    """The same layers, weights and inputs; only the function that multiplies differs."""
    experiment.time(
        baseline=mlp_with("naive"),
        optimized=mlp_with("auto"),
        inputs=lambda rng: (rng.standard_normal((32, 64), dtype=np.float32),),
        label="batch 32",
    )


@suite.claim(
    "acceleration.scaling",
    "NumPy is at least 200 times faster than Python loops at n=32, 500 times at n=64 and 1000 times at n=128",
    source=f"{README}: the benefit grows with size",
    criteria=[
        CLOSE,
        Speedup(at_least=200, label="n=32"),
        Speedup(at_least=500, label="n=64"),
        Speedup(at_least=1000, label="n=128"),
    ],
    expected_s=9,
)
def scaling(experiment: Experiment) -> None:
    """Speedups with their intervals at three sizes, and at n=256 in rigorous runs."""
    for size in (32, 64, 128, *([256] if experiment.preset == "rigorous" else [])):
        experiment.time(
            baseline=product("Python loops on lists", naive_matmul),
            optimized=product("NumPy", vectorized_matmul),
            inputs=matrices(size),
            label=f"n={size}",
        )


def matmul_by_indexing(a, b):
    """Triple loops that read single elements of arrays, as the claimed baseline did."""
    (rows, inner), columns = a.shape, b.shape[1]
    out = np.zeros((rows, columns), np.float32)
    for i in range(rows):
        for j in range(columns):
            for k in range(inner):
                out[i, j] += a[i, k] * b[k, j]
    return out


@suite.claim(
    "audit.matmul-2987x",
    "Vectorised matrix products are 2987 times faster than loops at n=100",
    source=f"{README}: 2987x speedup",
    criteria=[
        CLOSE,
        Speedup(at_least=2987, label="over indexing arrays"),
        Speedup(at_least=2987, label="over Python lists"),
    ],
    status="audited",
    expected_s=9,
)
def matmul_2987x(experiment: Experiment) -> None:
    """The figure depends on which loops it is taken over; both are shown."""
    experiment.time(
        baseline=product("loops that index arrays", matmul_by_indexing),
        optimized=product("NumPy", vectorized_matmul),
        inputs=matrices(100),
        label="over indexing arrays",
    )
    experiment.time(
        baseline=product("Python loops on lists", naive_matmul),
        optimized=product("NumPy", vectorized_matmul),
        inputs=matrices(100),
        label="over Python lists",
    )


def matmul_in_numpy_blocks(a, b, size=64):
    """The product of blocks, each multiplied by NumPy."""
    out = np.zeros((a.shape[0], b.shape[1]), np.float32)
    for i in range(0, a.shape[0], size):
        for j in range(0, b.shape[1], size):
            for k in range(0, a.shape[1], size):
                out[i : i + size, j : j + size] += (
                    a[i : i + size, k : k + size] @ b[k : k + size, j : j + size]
                )
    return out


@suite.claim(
    "audit.blocking-numpy",
    "Cache-friendly blocking makes a NumPy product 20 % faster at n=512",
    source=f"{README}: blocking is 20-50 % better",
    criteria=[CLOSE, Speedup(at_least=1.2)],
    status="audited",
    expected_s=3,
)
def blocking_numpy(experiment: Experiment) -> None:
    """BLAS blocks by itself; blocks around it add calls and copies."""
    experiment.time(
        baseline=product("one product", vectorized_matmul),
        optimized=product("products of blocks of 64", matmul_in_numpy_blocks),
        inputs=matrices(512),
        label="n=512",
    )


if __name__ == "__main__":
    suite.main()
