"""Module 19, KV cache: exactness, memory, and what a cached token costs beside one that is recomputed."""

from __future__ import annotations

import numpy as np
from crossings import last_crossing
from held import OBJECTS_BYTES, made_and_held
from performance_test_framework import (
    Implementation,
    OutputsMatch,
    Overhead,
    PerformanceTestSuite,
    ScalingExponent,
    Speedup,
    Value,
)
from requirements import needs_numba
from textbook import textbook

import tinytorch as tt
from perfclaims import Experiment
from tinytorch.core import inference
from tinytorch.perf.memoization import disable_kv_cache, enable_kv_cache

suite = PerformanceTestSuite("module_19_caching", title="KV cache")

README = "TinyTorch performance tests README, module 19"
LOGITS = OutputsMatch(rtol=1e-4, atol=1e-4)
TOKENS = OutputsMatch(rtol=0, atol=0)

# Layers, width, heads, tokens there are.
MEDIUM = (4, 256, 8, 1024)
LARGE = (6, 384, 6, 4096)
TINY = (2, 64, 4, 256)


def language_model(rng, sizes, longest):
    """A GPT of seeded weights that expects a certain token after each, and does so clearly.

    Without that the best two scores can be as close as rounding, and identical tokens would be luck.
    """
    layers, width, heads, vocabulary = sizes
    model = tt.GPT(vocabulary, width, layers, heads, max_seq_len=longest, rng=rng).eval()
    after = rng.permutation(vocabulary)
    model.lm_head.weight.data[:, after] = model.token_embedding.weight.data.T
    return model


def text(rng, sizes, length):
    """Random tokens of shape (1, length)."""
    return rng.integers(0, sizes[3], (1, length))


def generating(name, sizes, longest, wanted, cached):
    """An implementation: greedy generation from one token."""

    def build(rng):
        model = language_model(rng, sizes, longest)
        if cached:
            enable_kv_cache(model)
        return lambda prompt: model.generate(prompt, wanted, temperature=0)

    return Implementation(name, build)


# Steps are timed several in a row, as they come in generation: after a pause, or after another model's work,
# the first one finds its weights gone from the processor's caches, and takes twice as long.
IN_A_ROW = 16


def stretches(starts, count):
    """The lengths of contexts after each token: so many of them from each start on."""
    return [[start + i for i in range(count)] for start in starts]


def recomputing(sizes, starts):
    """The fused pass over all positions that uncached generation makes for each token."""

    def build(rng):
        model = language_model(rng, sizes, max(starts) + IN_A_ROW)
        steps = inference.steps_of(model)

        def scores_after(ids):
            return steps.logits(ids, 0, None, last_only=True)[0, -1]

        return following(rng, sizes, starts, IN_A_ROW, scores_after, model)

    return Implementation("fused recompute", build)


def textbook_recomputing(sizes, starts, count):
    """The same model as it is written without any care, formula by formula, with scores for all positions."""

    def build(rng):
        model = language_model(rng, sizes, max(starts) + count)
        return following(rng, sizes, starts, count, lambda ids: textbook(model, ids[0])[-1], model)

    return Implementation("textbook recompute", build)


def textbook_generating(sizes, longest, wanted):
    """Greedy generation from one token by that model: scores anew for each token, from all before it."""

    def build(rng):
        model = language_model(rng, sizes, longest)

        def run(prompt):
            ids = prompt
            for _ in range(wanted):
                best = textbook(model, ids[0])[-1].argmax()
                ids = np.concatenate([ids, [[best]]], axis=1)
            return ids

        return run

    return Implementation("textbook recompute", build)


def following(rng, sizes, starts, count, scores_after, model):
    """Return what gives the scores after each token of each stretch, from all tokens before it."""
    context = text(rng, sizes, max(starts) + count)

    def run(tokens):
        scores = []
        with tt.no_grad():
            for row, lengths in zip(tokens, stretches(starts, count), strict=True):
                ids = context.copy()
                ids[0, lengths[0] - 1 : lengths[-1]] = row
                scores += [scores_after(ids[:, :length]) for length in lengths]
        return np.array(scores)

    run.model = model  # steps hold it weakly
    return run


def cached_steps(sizes, starts, count=IN_A_ROW):
    """One step for each token, after a cache was filled with those before the stretch."""

    def build(rng):
        longest = max(starts) + count
        model = language_model(rng, sizes, longest)
        context = text(rng, sizes, longest)
        cache = enable_kv_cache(model)
        with tt.no_grad():
            model(context)
        arrays = [array for layer in zip(cache.keys, cache.values, strict=True) for array in layer]
        places = [slice(lengths[0] - 1, lengths[-1]) for lengths in stretches(starts, count)]
        before = [[array[:, :, place].copy() for array in arrays] for place in places]

        def run(tokens):
            scores = []
            with tt.no_grad():
                for row, lengths, place, replaced in zip(
                    tokens, stretches(starts, count), places, before, strict=True
                ):
                    cache.length = lengths[0] - 1  # what lies beyond was filled when this was built
                    for token, length in zip(row, lengths, strict=True):
                        scores.append(model(np.array([[token]]), start_pos=length - 1).data[0, -1])
                    for array, old in zip(arrays, replaced, strict=True):
                        array[:, :, place] = old  # for the longer contexts, and the next call
            return np.array(scores)

        return run

    return Implementation("KV cache", build)


def next_tokens(sizes, starts, count=IN_A_ROW):
    """Arguments: the tokens of each stretch."""
    return lambda rng: (rng.integers(0, sizes[3], (len(starts), count)),)


def prompts(sizes, length=1):
    """Arguments: a prompt."""
    return lambda rng: (text(rng, sizes, length),)


@suite.claim(
    "caching.exact",
    "Cached logits equal uncached ones at every position, greedy tokens are identical, and overflow raises",
    source=f"{README}: correct",
    criteria=[
        LOGITS,
        Value("greedy tokens that differ", equals=0),
        Value("prompts too long that were not refused", equals=0),
        Value("keys and values that a step does not read", equals=0),
    ],
    expected_s=2,
)
def exact(experiment: Experiment) -> None:
    """Prompts of 1, 2, all but one and all positions, then token by token; batches of 1 and 3."""
    rng, capacity = experiment.rng, 48
    model = language_model(rng, TINY, capacity)
    for parameter in model.parameters():  # biases and scales too: leaving one out would show
        parameter.data[...] += rng.normal(0, 0.05, parameter.shape)
    wrong = accepted = 0
    for batch in (1, 3):
        ids = rng.integers(0, TINY[3], (batch, capacity))
        with tt.no_grad():
            expected = model(ids).data
        for prompt in (1, 2, capacity - 1, capacity):
            tokens = model.generate(ids[:, :prompt], capacity - prompt, temperature=0)
            enable_kv_cache(model)
            with tt.no_grad():
                parts = [model(ids[:, :prompt]).data]
                parts += [model(ids[:, i : i + 1], start_pos=i).data for i in range(prompt, capacity)]
            experiment.outputs(
                expected, np.concatenate(parts, axis=1), label=f"batch {batch}, prompt of {prompt}"
            )
            wrong += int((model.generate(ids[:, :prompt], capacity - prompt, temperature=0) != tokens).sum())
            accepted += not refused(model, ids)
            disable_kv_cache(model)
    experiment.value("greedy tokens that differ", wrong)
    experiment.value("prompts too long that were not refused", accepted)
    experiment.value("keys and values that a step does not read", unread(model, rng, capacity))


def refused(model, ids):
    """Whether one token more than there is room for raises ValueError."""
    with tt.no_grad():
        model(ids)
        try:
            model(ids[:, :1], start_pos=ids.shape[1])
        except ValueError:
            return True
    return False


def unread(model, rng, capacity):
    """How many of the keys and values in a cache can be others without any effect on the next token.

    A step that works them out anew, or looks at a part of them only, does not notice what became of them.
    """
    ids = text(rng, TINY, capacity)
    cache, missed = enable_kv_cache(model), 0

    def step():
        with tt.no_grad():
            return model(ids[:, -1:], start_pos=capacity - 1).data.copy()

    with tt.no_grad():
        model(ids)
    expected = step()
    for array in (*cache.keys, *cache.values):
        for position in range(capacity - 1):
            stored = array[:, :, position].copy()
            # Half as large and the other way round: another attention, and no more than a plausible one.
            array[:, :, position] *= -0.5
            missed += np.array_equal(step(), expected)
            array[:, :, position] = stored
    disable_kv_cache(model)
    return missed


# Where stretches start: sixteen tokens in the middle of each half of 200; in fast runs only four, in the
# middle of all, because those of the textbook take 30 ms each, and it is far from the threshold.
SAMPLED = (43, 143), IN_A_ROW
FEW = (99,), 4


@suite.claim(
    "caching.generation-200",
    "Generating 200 tokens is at least 10 times faster with the cache than with a fused recompute, and 12 "
    "times than without any care",
    source=f"{README}: 10.5x, elsewhere 12x at 200 tokens",
    criteria=[
        OutputsMatch(rtol=0, atol=0, label="200 tokens, fused recompute"),
        OutputsMatch(rtol=1e-4, atol=1e-3, label="textbook recompute"),
        Speedup(at_least=10, label="200 tokens, fused recompute"),
        Speedup(at_least=12, label="textbook recompute"),
    ],
    requires=[needs_numba],
    time_limit_s=600,  # where the machine is busy, a call of the baseline takes seconds
    expected_s=22,
)
def generation_200(experiment: Experiment) -> None:
    """4 layers, width 256, 8 heads, 1024 tokens.

    The fused recompute records nothing, has the same kernels as a cached step, and gives scores for the last
    position only. The textbook one is sampled around two lengths, in fast runs around one; in rigorous runs
    it generates all 200 tokens.
    """
    experiment.time(
        baseline=generating("fused recompute", MEDIUM, 201, 200, cached=False),
        optimized=generating("KV cache", MEDIUM, 201, 200, cached=True),
        inputs=prompts(MEDIUM),
        label="200 tokens, fused recompute",
    )
    if experiment.preset == "rigorous":
        sides = textbook_generating(MEDIUM, 201, 200), generating("KV cache", MEDIUM, 201, 200, cached=True)
        inputs = prompts(MEDIUM)
    else:
        where = FEW if experiment.preset == "fast" else SAMPLED
        sides = textbook_recomputing(MEDIUM, *where), cached_steps(MEDIUM, *where)
        inputs = next_tokens(MEDIUM, *where)
    experiment.time(*sides, inputs, label="textbook recompute")


@suite.claim(
    "caching.step-200",
    "The 200th token is at least 14 times faster with the cache than with a fused recompute",
    source="this project",
    criteria=[OutputsMatch(rtol=1e-4, atol=1e-3), Speedup(at_least=14)],
    requires=[needs_numba],
    expected_s=3,
)
def step_200(experiment: Experiment) -> None:
    """The same model and baseline as for generation; tokens 193 to 208, one after the other."""
    experiment.time(
        baseline=recomputing(MEDIUM, (193,)),
        optimized=cached_steps(MEDIUM, (193,)),
        inputs=next_tokens(MEDIUM, (193,)),
        label="token 200",
    )


LENGTHS = (64, 128, 256, 512)


@suite.claim(
    "caching.scaling",
    "A token costs at most the power 0.3 of the length with the cache, and at least 0.7 without",
    source=f"{README}: O(N^2) to O(N)",
    criteria=[
        ScalingExponent(at_most=0.3, label="with the cache"),
        ScalingExponent(at_least=0.7, label="without"),
    ],
    requires=[needs_numba],
    slow=True,
    expected_s=12,
)
def scaling(experiment: Experiment) -> None:
    """Sixteen tokens after 64 to 512 others, 4 layers of width 256."""

    def timed(way):
        def build(length, rng):
            steps = way(MEDIUM, (length,)).build(rng)
            tokens = rng.integers(0, MEDIUM[3], (1, IN_A_ROW))
            return lambda: steps(tokens)

        return build

    experiment.scaling(timed(cached_steps), LENGTHS, label="with the cache")
    experiment.scaling(timed(recomputing), LENGTHS, label="without")


BEYOND = "bytes beyond the formula"
BESIDE = "bytes left elsewhere by the use of a cache"


@suite.claim(
    "caching.memory",
    "The cache takes exactly 2 x layers x heads x head width x length x batch x 4 bytes",
    source=f"{README}: linear",
    criteria=[Value(BEYOND, equals=0), Value(BESIDE, at_most=2 * OBJECTS_BYTES, gate=True)],
    expected_s=2,
)
def memory(experiment: Experiment) -> None:
    """What a cache reports and what it holds once it has served, for several models, lengths and batches.

    Every array that can be reached from it counts, and what enabling and using it left elsewhere: the steps
    of the model, which are 18 kB of Python objects and no arrays.
    """
    beyond = beside = 0
    for layers, width, heads, vocabulary in (TINY, (3, 96, 6, 64)):
        for length in (16, 200):
            for batch in (1, 5):
                model = tt.GPT(vocabulary, width, layers, heads, max_seq_len=length).eval()
                cache, held, unseen = made_and_held(lambda m=model, b=batch: used_cache(m, b))
                formula = 2 * layers * heads * (width // heads) * length * batch * 4
                beyond += abs(held - formula) + abs(int(cache.get_memory_usage()["bytes"]) - formula)
                beside = max(beside, unseen)
    experiment.value(BEYOND, beyond)
    experiment.value(BESIDE, beside)


def used_cache(model, batch):
    """A new cache of a model, filled by generating up to its last position."""
    disable_kv_cache(model)
    cache = enable_kv_cache(model, batch_size=batch)
    model.generate(np.zeros((batch, model.max_seq_len - 4), int), 4, temperature=0)
    return cache


COUNTS = (1, 2, 4, 8, 16)


def crossing(speedups):
    """The number of tokens from which caching pays; twice the last of `COUNTS` stands for "more than it"."""
    exponents = [np.log2(count) for count in (*COUNTS, 2 * COUNTS[-1])]
    return float(2 ** last_crossing(exponents[:-1], speedups, beyond=exponents[-1]))


@suite.claim(
    "caching.breakeven",
    "Caching pays from 8 tokens on, and makes 25 tokens at least 1.2 times faster",
    source=f"{README}: 1.2x at 25 tokens",
    criteria=[
        TOKENS,
        Value("tokens from which caching pays", at_most=8),
        Speedup(at_least=1.2, label="25 tokens"),
    ],
    requires=[needs_numba],
    slow=True,
    expected_s=13,
)
def breakeven(experiment: Experiment) -> None:
    """Generation from one token, emptying the cache included, 4 layers of width 256.

    The baseline is the fused recompute. The interval is where those of the speedups cross 1 for good.
    """
    results = {
        count: experiment.time(
            baseline=generating("fused recompute", MEDIUM, 32, count, cached=False),
            optimized=generating("KV cache", MEDIUM, 32, count, cached=True),
            inputs=prompts(MEDIUM),
            label="1 token" if count == 1 else f"{count} tokens",
        )
        for count in (*COUNTS, 25)
    }
    found = [results[count] for count in COUNTS]
    experiment.value(
        "tokens from which caching pays",
        crossing([r.speedup for r in found]),
        low=crossing([r.speedup_high for r in found]),
        high=crossing([r.speedup_low for r in found]),
    )


def weight_products(sizes):
    """One row times every matrix of a model, for each token: what a step reads at the least."""

    def build(rng):
        model = language_model(rng, sizes, 200)
        layers = [layer for _, layer in model.named_layers() if isinstance(layer, tt.Linear)]
        weights = [layer.weight.data for layer in layers]
        rows = [rng.standard_normal((1, len(weight)), dtype=np.float32) for weight in weights]
        products = [np.empty((1, weight.shape[1]), np.float32) for weight in weights]

        def run(tokens):
            for _ in tokens[0]:
                for row, weight, out in zip(rows, weights, products, strict=True):
                    np.dot(row, weight, out=out)
            return products[-1][0, :1]

        return run

    return Implementation("products of the weights", build)


@suite.claim(
    "caching.bandwidth",
    "A cached step takes at most 1.5 times the time of its weight products alone",
    source="this project",
    criteria=[Overhead(at_most=0.5)],
    requires=[needs_numba],
    expected_s=8,
)
def bandwidth(experiment: Experiment) -> None:
    """6 layers, width 384, 4096 tokens, position 200. Both read every weight; outputs differ by intent."""
    experiment.time(
        baseline=weight_products(LARGE),
        optimized=cached_steps(LARGE, (193,)),
        inputs=next_tokens(LARGE, (193,)),
        label="token 200",
    )


def concatenating(rng):
    """Attention in plain NumPy, one head of width 64, whose cache grows by concatenation."""
    weights = rng.standard_normal((3, 64, 64), dtype=np.float32) / 8

    def run(tokens):
        keys, values, outputs = np.empty((0, 64), np.float32), np.empty((0, 64), np.float32), []
        for token in tokens:
            q, k, v = (token @ weight for weight in weights)
            keys, values = np.concatenate([keys, k[None]]), np.concatenate([values, v[None]])
            scores = np.exp(keys @ q / 8)
            outputs.append(scores @ values / scores.sum())
        return np.array(outputs)

    return run


def attending_anew(rng):
    """The same, with keys and values of all positions computed anew for every token."""
    weights = rng.standard_normal((3, 64, 64), dtype=np.float32) / 8

    def run(tokens):
        outputs = []
        for length in range(1, len(tokens) + 1):
            seen = tokens[:length]
            keys, values = seen @ weights[1], seen @ weights[2]
            scores = np.exp(keys @ (seen[-1] @ weights[0]) / 8)
            outputs.append(scores @ values / scores.sum())
        return np.array(outputs)

    return run


@suite.claim(
    "audit.kv-short",
    "Caching keys and values helps below 16 tokens",
    source="TinyTorch optimization report: caching at 8 tokens and more",
    criteria=[
        OutputsMatch(rtol=1e-3, atol=1e-4),
        Speedup(at_least=1.0, label="8 tokens"),
        Speedup(at_least=1.0, label="15 tokens"),
    ],
    status="audited",
    expected_s=2,
)
def kv_short(experiment: Experiment) -> None:
    """One attention layer in plain Python and NumPy, as it was measured: calls cost more than products."""
    for count in (8, 15):
        experiment.time(
            baseline=Implementation("all positions anew", attending_anew),
            optimized=Implementation("cache by concatenation", concatenating),
            inputs=lambda rng, n=count: (rng.standard_normal((n, 64), dtype=np.float32) / 2,),
            label=f"{count} tokens",
        )


if __name__ == "__main__":
    suite.main()
