"""Module 18, magnitude pruning: what zeros save in bytes and in time, and what they cost in accuracy."""

from __future__ import annotations

import functools

import numpy as np
from crossings import last_crossing
from held import OBJECTS_BYTES, held_bytes, made_and_held, saved_and_loaded
from performance_test_framework import (
    AccuracyDrop,
    Implementation,
    OutputsMatch,
    PerformanceTestSuite,
    SizeRatio,
    Speedup,
    Value,
)
from requirements import needs_numba

import tinytorch as tt
from perfclaims import Experiment
from perfclaims.environment import cpu_flags
from tinytorch.datasets.digits import load_digits
from tinytorch.datasets.reference import out_of_fold
from tinytorch.perf.compression import (
    GradualSchedule,
    MagnitudePruner,
    SparseLinear,
    magnitude_prune,
    model_bytes,
    sparsify,
    structured_prune,
)

suite = PerformanceTestSuite("module_18_pruning", title="Magnitude pruning")

README = "TinyTorch performance tests README, module 18"
# Sums of n float32 products differ by rounding in the order of their additions.
CLOSE = OutputsMatch(rtol=1e-4, atol=1e-3)
WIDE = "avx512f" in (cpu_flags() or ())


def compile_products(experiment: Experiment) -> None:
    """Compile before anything is timed, and say so where it takes a while."""
    from tinytorch.kernels import sparse_compiled

    if sparse_compiled.compiling_expected():
        experiment.announce("compiling the sparse products: about 2 s, once on this machine")
    sparse_compiled.compile_all()


def layer_of(rng, sparsity=0.0, inputs=1024, outputs=1024):
    """A Linear with a bias, pruned to a sparsity."""
    layer = tt.Linear(inputs, outputs, rng=rng)
    layer.bias.data[...] = rng.standard_normal(outputs)
    return magnitude_prune(layer, sparsity)


def perceptron(rng):
    """The perceptron 784-512-256-10."""
    first, second, last = (tt.Linear(i, o, rng=rng) for i, o in ((784, 512), (512, 256), (256, 10)))
    return tt.Sequential(first, tt.ReLU(), second, tt.ReLU(), last).eval()


def forward(model):
    """The model as a function of arrays, without a tape."""

    def run(x):
        with tt.no_grad():
            return model(x).data

    return run


def rows(batch, width=1024):
    """Arguments: a float32 matrix of shape (batch, width)."""
    return lambda rng: (rng.standard_normal((batch, width), dtype=np.float32),)


STRAYS = "weights too many or too few"


@suite.claim(
    "pruning.exact-sparsity",
    "Pruning makes exactly round(n * sparsity) weights zero, ties included, and spares the classifier head",
    source=f"{README}: configurable sparsity",
    criteria=[Value(STRAYS, equals=0), Value("outputs of the head", equals=10)],
    expected_s=1,
)
def exact_sparsity(experiment: Experiment) -> None:
    """Over the whole model and layer by layer; rounded weights have many equal magnitudes."""
    wrong = 0
    for sparsity in (0, 0.5, 0.9, 0.95, 1):
        for steps in (None, 7):
            for scope in ("global", "layer"):
                model = perceptron(np.random.default_rng(0))
                weights = [p.data for p in model.parameters() if p.ndim == 2]
                for weight in weights if steps else []:
                    weight[...] = (np.rint(np.abs(weight) / weight.max() * steps) + 1) * np.sign(weight)
                magnitude_prune(model, sparsity, scope)
                zeros = [w.size - np.count_nonzero(w) for w in weights]
                if scope == "layer":
                    wrong += sum(
                        abs(z - round(w.size * sparsity)) for z, w in zip(zeros, weights, strict=True)
                    )
                else:
                    wrong += abs(sum(zeros) - round(sum(w.size for w in weights) * sparsity))
    experiment.value(STRAYS, wrong)
    smaller = structured_prune(perceptron(np.random.default_rng(0)), 0.9)
    experiment.value("outputs of the head", smaller(np.zeros((1, 784))).shape[1])


@suite.claim(
    "pruning.parameters-20x",
    "At 95 % a perceptron 784-512-256-10 has 20 times fewer weights that are not zero: a count, not bytes",
    source=f"{README}: 20x compression at 95 %",
    criteria=[Value("weights per weight that is not zero", at_least=20)],
    expected_s=1,
)
def parameters_20x(experiment: Experiment) -> None:
    """What it means for memory stands under pruning.stored-bytes, for time under pruning.speed."""
    model = magnitude_prune(perceptron(np.random.default_rng(0)), 0.95)
    experiment.value("weights per weight that is not zero", weights_per_kept_one(model))


def weights_per_kept_one(model):
    """All weights over those that are not zero."""
    weights = [p.data for p in model.parameters() if p.ndim == 2]
    return sum(w.size for w in weights) / sum(np.count_nonzero(w) for w in weights)


# Share of zeros, type of the values, and how many times smaller than a dense model in float32.
SMALLER = ((0.8, "float32", 4.2), (0.9, "float32", 7.6), (0.95, "float32", 14.5), (0.95, "int8", 29))
SIZED = {
    "1024 x 1024": lambda rng: tt.Sequential(tt.Linear(1024, 1024, rng=rng)),
    "784-512-256-10": perceptron,
}


KEPT_BESIDE = "bytes kept beside the arrays of a model"
STORED = [
    (f"{name}, {sparsity:.0%} {values}, {where}", values, least)
    for name in SIZED
    for sparsity, values, least in SMALLER
    for where in ("memory", "file")
]


@suite.claim(
    "pruning.stored-bytes",
    "Pruned models take 4.2, 7.6 and 14.5 times fewer bytes at 80, 90 and 95 %, with INT8 values 29 times",
    source=f"{README}: 20x; 7.8x at 87.2 %",
    criteria=[
        *(SizeRatio(at_least=least, label=label) for label, _, least in STORED),
        *(
            OutputsMatch(rtol=1e-4, atol=1e-3, label=label)
            if values == "float32"
            else OutputsMatch(relative_l2=0.03, label=label)
            for label, values, _ in STORED
        ),
        Value(KEPT_BESIDE, at_most=OBJECTS_BYTES, gate=True),
    ],
    expected_s=3,
)
def stored_bytes(experiment: Experiment) -> None:
    """Every array that can be reached from the model counts, wherever it is, and the whole file.

    Those are values, places, scales and biases. The outputs are those of the very model that was counted, and
    of the one that its file gives back.
    """
    beside = 0
    for name, build in SIZED.items():
        for sparsity, values, _ in SMALLER:
            dense = magnitude_prune(build(np.random.default_rng(0)), sparsity, "layer")
            small, held, unseen = made_and_held(lambda d=dense, v=values: sparsify(d, values=v))
            beside = max(beside, unseen)
            (dense_file, _), (small_file, loaded) = map(saved_and_loaded, (dense, small))
            (x,) = rows(64, dense[0].in_features)(experiment.rng)
            for where, sizes, kept in (
                ("memory", (model_bytes(dense), held), small),
                ("file", (dense_file, small_file), loaded),
            ):
                label = f"{name}, {sparsity:.0%} {values}, {where}"
                experiment.sizes(*sizes, label=label)
                experiment.outputs(forward(dense)(x), forward(kept)(x), label=label)
    experiment.value(KEPT_BESIDE, beside)


# A high rate lets the weights that are left find new places: at 2e-3, 95 % of zeros cost 1.5 points.
RATE = 1.2e-2


def fine_tune(pruner, train, rng, epochs, falling):
    """Train a pruned model with its zeros held, at a rate that stays or falls to nothing."""
    model = pruner.model.train()
    optimizer, loss_of = tt.AdamW(model.parameters(), lr=RATE), tt.CrossEntropyLoss()
    batches = -(-len(train) // 64)
    schedule = tt.CosineSchedule(RATE, RATE / 1000, epochs * batches)
    for epoch in range(epochs):
        order = rng.permutation(len(train))
        for i in range(batches):
            batch = train[order[64 * i : 64 * (i + 1)]]
            optimizer.lr = schedule.get_lr(epoch * batches + i) if falling else RATE
            optimizer.zero_grad()
            loss_of(model(batch.images), batch.labels).backward()
            optimizer.step()
            pruner.apply_masks()
    model.eval()


def is_right(model, test):
    """Which held-out digits a model classifies right."""
    return forward(model)(test.images).argmax(axis=1) == test.labels


def gradually_pruned(fold, trained):
    """The model of a fold at 90 and at 95 %, pruned a little more each time, and trained in between."""
    train = load_digits(fold=(fold, 5), flat=True).train
    pruner = MagnitudePruner(copy_of(trained), 0.95, scope="layer")
    rng = np.random.default_rng(fold)
    for sparsities in (GradualSchedule(0.9, 4).sparsities, GradualSchedule(0.95, 2, 0.9).sparsities):
        for sparsity in sparsities:
            pruner.prune(sparsity)
            last = sparsity == sparsities[-1]
            fine_tune(pruner, train, rng, epochs=12 if last else 3, falling=last)
        yield copy_of(trained, pruner.model.state_dict())


def stray_zeros(model, sparsity, more_allowed=False):
    """How many zeros the weights of a model lack, or have too many, layer by layer.

    What counts is what its layers do with the rows of an identity, not what they say of themselves.
    """
    strays = 0
    for layer in model:
        if isinstance(layer, tt.ReLU):
            continue
        run, n = forward(layer), layer.in_features
        # So large that what the bias takes from a weight by rounding is not all of it.
        weights = run(1024 * np.eye(n, dtype=np.float32)) - run(np.zeros((1, n), np.float32))
        due = round(weights.size * sparsity)
        zeros = weights.size - np.count_nonzero(weights)
        strays += max(due - zeros, 0) if more_allowed else abs(due - zeros)
    return strays


def copy_of(trained, state=None):
    """A model with the weights of a trained one, or with others."""
    model = trained.recipe.build()
    model.load_state_dict(trained.model.state_dict() if state is None else state)
    return model.eval()


@suite.claim(
    "pruning.accuracy",
    "A wide MLP loses at most 1 point of accuracy on digits at 90 % and 1.5 points at 95 %, also as INT8",
    source=f"{README}: 1.2 % loss at 95 %, 0 % at 90 %",
    criteria=[
        AccuracyDrop(at_most=0.01, label="90 %"),
        AccuracyDrop(at_most=0.015, label="95 %"),
        AccuracyDrop(at_most=0.015, label="95 %, INT8 values"),
        Value(STRAYS, equals=0),
    ],
    expected_s=8,
)
def accuracy(experiment: Experiment) -> None:
    """All 1797 digits, each by the model that was not trained on it; judged as they are stored.

    The zeros are counted in the very models that are judged. Rounding to INT8 may make more of them.
    """
    dense, pruned, strays = [], {"90 %": [], "95 %": [], "95 %, INT8 values": []}, 0
    for fold, (trained, test) in enumerate(out_of_fold("digits-mlp-wide", announce=experiment.announce)):
        dense.append(is_right(trained.model, test))
        at_90, at_95 = gradually_pruned(fold, trained)
        for label, sparsity, small in (
            ("90 %", 0.9, sparsify(at_90)),
            ("95 %", 0.95, sparsify(at_95)),
            ("95 %, INT8 values", 0.95, sparsify(at_95, values="int8")),
        ):
            pruned[label].append(is_right(small, test))
            strays += stray_zeros(small, sparsity, more_allowed="INT8" in label)
    for label, outcomes in pruned.items():
        experiment.outcomes(np.concatenate(dense), np.concatenate(outcomes), label=label)
    experiment.value(STRAYS, strays)


@functools.lru_cache(maxsize=1)
def pruned_layer(seed, sparsity):
    """A pruned layer, made once for the two sides of an instance: the sparse side packs copies of it."""
    return layer_of(np.random.default_rng(seed), sparsity)


def one_layer(rng, sparsity):
    """The pruned layer of an instance."""
    return pruned_layer(int(rng.integers(2**31)), sparsity)


def dense_layer(sparsity):
    """BLAS over all weights, zeros too."""
    return Implementation("dense BLAS", lambda rng: forward(one_layer(rng, sparsity)))


def sparse_layer(sparsity, form="csr"):
    """The same weights without the zeros."""

    def build(rng):
        return forward(SparseLinear.from_linear(one_layer(rng, sparsity), format=form))

    return Implementation(f"sparse, {form}", build)


# Batch, sparsity, how many times faster with AVX-512, and otherwise.
FASTER = (
    (32, 0.8, 2.0, 1.5),
    (32, 0.9, 4.0, 2.5),
    (32, 0.95, 6.0, 4.5),
    (128, 0.9, 3.0, 1.8),
    (128, 0.95, 4.0, 3.0),
)


def scipy_layer(sparsity):
    """SciPy's product of a matrix in CSR format, which takes and gives columns."""

    def build(rng):
        from scipy.sparse import csr_array

        layer = one_layer(rng, sparsity)
        matrix, bias = csr_array(layer.weight.data.T.copy()), layer.bias.data
        return lambda x: (matrix @ x.T).T + bias

    return Implementation("scipy.sparse", build)


@suite.claim(
    "pruning.speed",
    "With 90 % of zeros a 1024 x 1024 layer is {} and {} times faster than dense BLAS at batch 32 and 128, "
    "with 95 % {} and {} times".format(*((4, 3, 6, 4) if WIDE else (2.5, 1.8, 4.5, 3))),
    source=f"{README}: 2-10x",
    criteria=[
        CLOSE,
        *(
            Speedup(at_least=wide if WIDE else narrow, label=f"batch {batch}, {sparsity:.0%}")
            for batch, sparsity, wide, narrow in FASTER
        ),
        Speedup(at_least=2, label="batch 32, 90%, over scipy.sparse"),
    ],
    requires=[needs_numba],
    expected_s=8,
)
def speed(experiment: Experiment) -> None:
    """Both sides hold the same pruned weights and add the bias; rows come in and go out as they are.

    The format is CSR throughout. At 80 % a bitmask is a tenth smaller, and is what `sparsify` stores unless
    it is told otherwise: `pruning.stored-bytes` is about that, and this claim about the quicker one.
    """
    compile_products(experiment)
    for batch, sparsity, _, _ in FASTER:
        experiment.time(
            baseline=dense_layer(sparsity),
            optimized=sparse_layer(sparsity),
            inputs=rows(batch),
            label=f"batch {batch}, {sparsity:.0%}",
        )
    experiment.time(
        baseline=scipy_layer(0.9),
        optimized=sparse_layer(0.9),
        inputs=rows(32),
        label="batch 32, 90%, over scipy.sparse",
    )


@functools.lru_cache(maxsize=1)
def two_layers(seed):
    """Two layers whose first has lost 90 % of its units: as zeros in dense arrays, and physically."""
    rng = np.random.default_rng(seed)
    first, second = layer_of(rng), layer_of(rng, outputs=10)
    dense = tt.Sequential(first, tt.ReLU(), second).eval()
    smaller = structured_prune(dense, 0.9)
    norms = np.linalg.norm(first.weight.data.astype(float), axis=0)
    removed = np.argsort(norms, kind="stable")[: 1024 - smaller[0].out_features]
    first.weight.data[:, removed] = 0
    first.bias.data[removed] = 0
    return dense, smaller


@suite.claim(
    "pruning.structured",
    "With 90 % of its units removed a 1024 x 1024 layer is 6 times faster at batch 32 and 9 times smaller",
    source=f"{README}: structured against unstructured pruning",
    criteria=[CLOSE, Speedup(at_least=6, label="batch 32"), SizeRatio(at_least=9, label="layer")],
    expected_s=2,
)
def structured(experiment: Experiment) -> None:
    """The baseline has the same units at zero: both compute the same. A head of 10 outputs follows."""

    def side(which):
        return lambda rng: forward(two_layers(int(rng.integers(2**31)))[which])

    experiment.time(
        baseline=Implementation("dense, units at zero", side(0)),
        optimized=Implementation("units removed", side(1)),
        inputs=rows(32),
        label="batch 32",
    )
    dense, smaller = two_layers(0)
    experiment.sizes(model_bytes(dense[0]), held_bytes(smaller[0]), label="layer")


GRID = (0.05, 0.3, 0.5, 0.7) if WIDE else (0.05, 0.3, 0.5, 0.7, 0.85)
# Batch and the sparsity by which zeros pay.
BREAKEVEN = ((1, 0.65), (32, 0.4), (128, 0.65)) if WIDE else ((1, 0.85), (32, 0.5), (128, 0.6))


def crossing(speedups):
    """The sparsity from which zeros pay; the first of `GRID` stands for "or less", 1 for "at none"."""
    return last_crossing(GRID, speedups, beyond=1.0)


@suite.claim(
    "pruning.breakeven",
    "At n=1024 zeros pay from {:.0%} on for batch 1, {:.0%} for 32 and {:.0%} for 128".format(
        *(most for _, most in BREAKEVEN)
    ),
    source=f"{README}: breakeven analysis",
    criteria=[CLOSE, *(Value(f"breakeven, batch {batch}", at_most=most) for batch, most in BREAKEVEN)],
    requires=[needs_numba],
    slow=True,
    expected_s=24,
)
def breakeven(experiment: Experiment) -> None:
    """Where the speedups over dense BLAS, and the ends of their intervals, cross 1 for good.

    The format is CSR at all sparsities, so that one kernel is compared. Up to 80 % a bitmask is smaller, and
    is what `sparsify` stores: bytes are claimed for that.
    """
    compile_products(experiment)
    for batch, _ in BREAKEVEN:
        results = [
            experiment.time(
                baseline=dense_layer(sparsity),
                optimized=sparse_layer(sparsity),
                inputs=rows(batch),
                label=f"batch {batch}, {sparsity:.0%}",
            )
            for sparsity in GRID
        ]
        experiment.value(
            f"breakeven, batch {batch}",
            crossing([r.speedup for r in results]),
            unit="share of zeros",
            low=crossing([r.speedup_high for r in results]),
            high=crossing([r.speedup_low for r in results]),
        )


@suite.claim(
    "audit.pruned-dense",
    "With 95 % of its weights at zero a model in dense arrays is 20 times smaller and twice as fast",
    source=f"{README}: 20x compression, 2-10x speedup",
    criteria=[
        SizeRatio(at_least=20, label="bytes of the arrays"),
        Speedup(at_least=2, label="batch 32"),
    ],
    status="audited",
    expected_s=2,
)
def pruned_dense(experiment: Experiment) -> None:
    """True of the count of weights that are not zero only; BLAS multiplies by zeros as by other numbers.

    Outputs are not compared: the pruned layer computes something else, by intent.
    """
    before, after = (layer_of(np.random.default_rng(0), s) for s in (0, 0.95))
    experiment.sizes(model_bytes(before), held_bytes(after), label="bytes of the arrays")
    experiment.time(
        baseline=dense_layer(0),
        optimized=dense_layer(0.95),
        inputs=rows(32),
        label="batch 32",
    )
    experiment.value("weights per weight that is not zero", weights_per_kept_one(after))


@suite.claim(
    "audit.prune-one-shot-95",
    "Pruning 95 % of the weights at once, without fine-tuning, costs at most 2 points of accuracy",
    source="TinyTorch optimization report: accuracy loss 0.0-1.2 % up to 98 %",
    criteria=[
        AccuracyDrop(at_most=0.02, label="all weights compared"),
        AccuracyDrop(at_most=0.02, label="by layer"),
    ],
    status="audited",
    expected_s=1,
)
def prune_one_shot_95(experiment: Experiment) -> None:
    """It was measured on a network that had not learnt anything; pruning.accuracy has what makes it true."""
    folds = out_of_fold("digits-mlp-wide", announce=experiment.announce)
    dense = np.concatenate([is_right(trained.model, test) for trained, test in folds])
    for label, scope in (("all weights compared", "global"), ("by layer", "layer")):
        pruned = [is_right(magnitude_prune(copy_of(trained), 0.95, scope), test) for trained, test in folds]
        experiment.outcomes(dense, np.concatenate(pruned), label=label)


@suite.claim(
    "audit.combined-31x",
    "INT8 and pruning to 87.2 % together make a model 31.2 times smaller: 4 times 7.8",
    source="TinyTorch optimization report: 4x quantization times 7.8x pruning",
    criteria=[SizeRatio(at_least=31.2)],
    status="audited",
    expected_s=1,
)
def combined_31x(experiment: Experiment) -> None:
    """The product forgets that places have to be stored, and they do not shrink with the values."""
    for name, build in SIZED.items():
        dense = magnitude_prune(build(np.random.default_rng(0)), 0.872, "layer")
        experiment.sizes(model_bytes(dense), held_bytes(sparsify(dense, values="int8")), label=name)


if __name__ == "__main__":
    suite.main()
