"""Optimisations that only look like it, planted under the claims of the suites: none may pass.

What convicts them are outputs, bytes and counts, never the clock; without the cheat the same criteria hold.
"""

import copy
import importlib
import itertools
from pathlib import Path

import numpy as np
import pytest

from perfclaims import Verdict
from perfclaims.codes import Outcome
from tinytorch.core import inference
from tinytorch.datasets import RECIPES, load_digits, reference_model
from tinytorch.kernels import convolution, int8, int8_images
from tinytorch.perf.memoization import KVCache
from tinytorch.perf.quantization import layers, quantizer

SUITES = Path(__file__).parent / "performance"
# Seconds for each comparison: none of its times is looked at.
SHORT = 0.01


@pytest.fixture
def suite(monkeypatch):
    """Import a module of claims by its name."""
    monkeypatch.syspath_prepend(str(SUITES))
    return importlib.import_module


@pytest.fixture
def quantization(suite, monkeypatch):
    module = suite("test_module_17_quantization")
    monkeypatch.setattr(module, "MODELS", {"784-512-256-10": module.MLP})
    monkeypatch.setattr(module, "CHANNELS", (16,))
    return module


@pytest.fixture
def pruning(suite):
    return suite("test_module_18_pruning")


@pytest.fixture
def caching(suite):
    return suite("test_module_19_caching")


@pytest.fixture
def convolving(suite, monkeypatch):
    module = suite("test_module_16_acceleration")
    monkeypatch.setattr(module, "SHAPES", module.SHAPES[2:3])
    return module


def judged(module, claim):
    """The result of one claim; skips where this machine cannot tell."""
    (result,) = module.suite.run(SHORT, only=claim).claims
    if result.verdict is Verdict.NOT_APPLICABLE:
        pytest.skip(result.summary)
    assert result.verdict is not Verdict.ERROR, result.summary
    return result


def refuted(module, claim):
    """What convicts a claim: kinds and names of the criteria that are refuted, where it does not pass."""
    result = judged(module, claim)
    found = {
        getattr(c.criterion, "name", c.criterion.kind)
        for c in result.criteria
        if c.outcome is Outcome.REFUTED
    }
    assert not found or result.verdict is not Verdict.PASS
    return found


class Slotted:
    __slots__ = ("kept",)

    def __init__(self, kept):
        self.kept = kept


ELSEWHERE = []
# Where weights can be hidden so that neither the layers nor the file show them.
HIDING = {
    "an attribute": lambda weights: weights,
    "the memory behind a view": lambda weights: weights[:1, :1],
    "a list in a dictionary": lambda weights: {"notes": [(weights,)]},
    "slots": Slotted,
    "a closure": lambda weights: lambda: weights,
    "a default argument": lambda weights: lambda kept=weights: kept,
    "bytes": lambda weights: weights.tobytes(),
    "a list elsewhere": ELSEWHERE.append,
}
COUNTED = {"SizeRatio", "bytes kept beside the arrays of a model"}


def keeping_weights(genuine, hide):
    """Make of a model what `genuine` does, and hide its float weights where no layer reports them."""

    def make(model, *args, **kwargs):
        small = genuine(model, *args, **kwargs)
        # The one attribute that files leave out.
        small.quantization_report = [hide(p.data.copy()) for p in model.parameters() if p.ndim == 2]
        return small

    return make


@pytest.fixture
def _elsewhere():
    yield
    ELSEWHERE.clear()


def test_int8_models_and_their_files_pass_without_a_cheat(quantization):
    assert judged(quantization, "quantization.weights-4x").verdict is Verdict.PASS


@pytest.mark.usefixtures("_elsewhere")
@pytest.mark.parametrize("place", HIDING)
def test_a_quantized_model_that_keeps_its_float_weights_is_found_out(quantization, monkeypatch, place):
    monkeypatch.setattr(
        quantization, "quantize_model", keeping_weights(quantization.quantize_model, HIDING[place])
    )
    assert refuted(quantization, "quantization.weights-4x") & COUNTED


def test_a_quantized_model_that_lost_its_biases_is_found_out(quantization, monkeypatch):
    genuine = quantization.quantize_model

    def without_biases(model, *args):
        for layer in list(model)[::2]:
            layer.bias.data[...] = 1
        small = genuine(model, *args)
        for layer in list(small)[::2]:
            layer.padded_bias[...] = 0
        return small

    monkeypatch.setattr(quantization, "quantize_model", without_biases)
    assert refuted(quantization, "quantization.weights-4x") == {"OutputsMatch"}


def test_pruned_models_and_their_files_pass_without_a_cheat(pruning):
    assert judged(pruning, "pruning.stored-bytes").verdict is Verdict.PASS


def test_pruned_weights_that_stay_dense_are_found_out(pruning, monkeypatch):
    monkeypatch.setattr(pruning, "sparsify", lambda model, values: copy.deepcopy(model))
    assert "SizeRatio" in refuted(pruning, "pruning.stored-bytes")


@pytest.mark.parametrize("place", ["the memory behind a view", "a closure"])
def test_pruned_weights_that_stay_dense_beside_the_sparse_ones_are_found_out(pruning, monkeypatch, place):
    monkeypatch.setattr(pruning, "sparsify", keeping_weights(pruning.sparsify, HIDING[place]))
    assert "SizeRatio" in refuted(pruning, "pruning.stored-bytes")


def test_units_that_structured_pruning_did_not_remove_are_found_out(pruning, monkeypatch):
    monkeypatch.setattr(pruning, "structured_prune", lambda model, share: copy.deepcopy(model))
    pruning.two_layers.cache_clear()
    assert refuted(pruning, "pruning.structured") >= {"SizeRatio"}
    pruning.two_layers.cache_clear()


def test_sparse_weights_of_which_some_are_lost_are_found_out(pruning, monkeypatch):
    genuine = pruning.sparsify

    def losing(model, values):
        small = genuine(model, values=values)
        small[0].values[: len(small[0].values) // 10] = 0
        return small

    monkeypatch.setattr(pruning, "sparsify", losing)
    assert refuted(pruning, "pruning.stored-bytes") == {"OutputsMatch"}


ACCURATE = "pruning.accuracy"
STRAYS = "weights too many or too few"


@pytest.fixture
def one_fold(pruning, quantization, monkeypatch):
    """Judge accuracy by one of the folds: too little for its bounds, and enough for what is counted."""

    def first(name, announce):
        recipe = RECIPES[name]
        test = load_digits(fold=(0, 5), side=recipe.side, flat=recipe.kind == "mlp").test
        return [(reference_model(name, fold=(0, 5), announce=announce), test)]

    for module in (pruning, quantization):
        monkeypatch.setattr(module, "out_of_fold", first)


@pytest.mark.usefixtures("one_fold")
def test_the_models_whose_accuracy_is_judged_are_as_pruned_as_they_should_be(pruning):
    assert refuted(pruning, ACCURATE) == set()


@pytest.mark.usefixtures("one_fold")
def test_models_of_a_pruner_that_applies_no_masks_are_found_out(pruning, monkeypatch):
    monkeypatch.setattr(pruning.MagnitudePruner, "apply_masks", lambda self: None)
    assert refuted(pruning, ACCURATE) == {STRAYS}


@pytest.mark.usefixtures("one_fold")
def test_models_whose_zeros_are_not_held_in_training_are_found_out(pruning, monkeypatch):
    genuine = pruning.MagnitudePruner.prune

    def prune_and_let_go(self, sparsity):
        genuine(self, sparsity)
        self.masks = {}

    monkeypatch.setattr(pruning.MagnitudePruner, "prune", prune_and_let_go)
    assert refuted(pruning, ACCURATE) == {STRAYS}


@pytest.mark.usefixtures("one_fold")
def test_a_dense_model_that_reports_zeros_is_found_out(pruning, monkeypatch):
    monkeypatch.setattr(pruning, "gradually_pruned", lambda fold, trained: [trained.model] * 2)
    monkeypatch.setattr(pruning.SparseLinear, "sparsity", 0.95)
    assert refuted(pruning, ACCURATE) == {STRAYS}


# Of outputs (N, O, H, W): the quarter that is computed.
QUARTERS = {
    "images": lambda out: np.s_[: -(-len(out) // 4)],
    "channels": lambda out: np.s_[:, : out.shape[1] // 4],
    "positions": lambda out: np.s_[:, :, : out.shape[2] // 2, : out.shape[3] // 2],
}


def a_quarter(out, which):
    """The outputs of a convolution that leaves out three quarters of them."""
    some = np.zeros_like(out)
    some[QUARTERS[which](out)] = out[QUARTERS[which](out)]
    return some


def test_the_outputs_of_the_fused_convolution_match_without_a_cheat(convolving):
    assert "OutputsMatch" not in refuted(convolving, "acceleration.conv")


@pytest.mark.parametrize("which", QUARTERS)
def test_a_convolution_that_computes_a_quarter_of_its_outputs_is_found_out(convolving, monkeypatch, which):
    genuine = convolution.forward

    def cheat(*args):
        out, *saved = genuine(*args)
        return a_quarter(out, which), *saved

    monkeypatch.setattr(convolution, "forward", cheat)
    assert "OutputsMatch" in refuted(convolving, "acceleration.conv")


def test_a_convolution_that_computes_another_quarter_in_each_call_is_found_out(convolving, monkeypatch):
    genuine, known, turn = convolution.forward, {}, itertools.count()

    def cheat(*args):
        out, *saved = genuine(*args)
        if out.shape not in known:
            known[out.shape] = out.copy()
        quarter = np.s_[:, next(turn) % 4 :: 4]
        known[out.shape][quarter] = out[quarter]
        return known[out.shape], *saved

    monkeypatch.setattr(convolution, "forward", cheat)
    assert "OutputsMatch" in refuted(convolving, "acceleration.conv")


def test_the_outputs_of_the_int8_convolution_match_without_a_cheat(quantization):
    assert "OutputsMatch" not in refuted(quantization, "quantization.conv-speedup")


@pytest.mark.parametrize("claim", ["quantization.conv-speedup", "quantization.integer-arithmetic"])
def test_an_int8_convolution_that_computes_a_quarter_is_found_out(quantization, monkeypatch, claim):
    genuine = int8_images.forward
    monkeypatch.setattr(int8_images, "forward", lambda *args: a_quarter(genuine(*args), "positions"))
    assert refuted(quantization, claim) & {"OutputsMatch", "outputs that differ"}


STAYED = "layers that stayed FP32 beside the first convolutions"


@pytest.mark.usefixtures("one_fold")
def test_the_models_whose_accuracy_is_judged_are_quantized(quantization):
    assert refuted(quantization, "quantization.accuracy") == set()


@pytest.mark.usefixtures("one_fold")
def test_a_model_that_stayed_fp32_and_has_the_report_of_another_is_found_out(quantization, monkeypatch):
    genuine = quantization.quantize_model

    def reported(model, *args, **kwargs):
        same = copy.deepcopy(model)
        same.quantization_report = genuine(model, *args, **kwargs).quantization_report
        return same

    monkeypatch.setattr(quantization, "quantize_model", reported)
    assert refuted(quantization, "quantization.accuracy") == {STAYED, "SizeRatio"}


@pytest.mark.usefixtures("one_fold")
def test_quantized_layers_that_answer_by_their_float_weights_are_found_out(quantization, monkeypatch):
    genuine = quantization.quantize_model

    def beside(model, *args, **kwargs):
        small = genuine(model, *args, **kwargs)
        small.forward = copy.deepcopy(model).forward
        return small

    monkeypatch.setattr(quantization, "quantize_model", beside)
    assert refuted(quantization, "quantization.accuracy") == {"SizeRatio"}


ROUNDED = "quantization.roundtrip"
EXACT = "quantization.integer-arithmetic"
# Levels of a byte, over those of the cheat.
COARSER = 255 / 25


def coarse(scales):
    """A function that finds scales, with 26 levels in the place of 256."""

    def find(low, high):
        scale, zero_point = scales(low, high)
        return (scale * np.float32(COARSER)), np.asarray(
            np.rint((zero_point + 128) / COARSER) - 128, np.int32
        )

    return find


def of_26_levels(x):
    """Rows or images in steps of a twenty-fifth of their ranges."""
    rows = x.reshape(len(x), -1)
    low, high = rows.min(axis=1, keepdims=True), rows.max(axis=1, keepdims=True)
    step = np.maximum(high - low, np.float32(1e-30)) / np.float32(25)
    return (np.rint((rows - low) / step) * step + low).reshape(x.shape)


@pytest.mark.parametrize("claim", [ROUNDED, EXACT])
def test_rounding_and_integer_arithmetic_pass_without_a_cheat(quantization, claim):
    assert judged(quantization, claim).verdict is Verdict.PASS


@pytest.mark.parametrize("name", ["symmetric", "affine"])
def test_a_quantizer_of_26_levels_is_found_out(quantization, monkeypatch, name):
    monkeypatch.setattr(quantizer, name, coarse(getattr(quantizer, name)))
    assert "largest scale in steps" in refuted(quantization, ROUNDED)


@pytest.mark.parametrize("claim", [ROUNDED, EXACT])
def test_layers_whose_weights_have_26_levels_are_found_out(quantization, monkeypatch, claim):
    genuine = layers.symmetric
    monkeypatch.setattr(layers, "symmetric", lambda *ends: (genuine(*ends)[0] * np.float32(COARSER), 0))
    assert refuted(quantization, claim) & {"largest scale in steps", "outputs that differ"}


@pytest.mark.parametrize(("module", "name"), [(int8, "linear"), (int8_images, "forward")])
def test_an_int8_kernel_of_26_levels_is_found_out(quantization, monkeypatch, module, name):
    genuine = getattr(module, name)
    monkeypatch.setattr(module, name, lambda x, *args: genuine(of_26_levels(x), *args))
    assert refuted(quantization, EXACT) == {"outputs that differ"}


UNREAD = "keys and values that a step does not read"


def test_the_cache_passes_without_a_cheat(caching):
    assert judged(caching, "caching.exact").verdict is Verdict.PASS


def test_a_cache_that_is_written_and_never_read_is_found_out(caching, monkeypatch):
    genuine, seen = inference.Steps.logits, {}

    def anew(self, ids, start, cache, last_only):
        if cache is None:
            return genuine(self, ids, start, cache, last_only)
        genuine(self, ids, start, cache, last_only)
        seen[id(cache)] = np.concatenate([seen[id(cache)][:, :start], ids], axis=1) if start else ids
        scores = genuine(self, seen[id(cache)], 0, None, last_only)
        return scores if last_only else scores[:, start:]

    monkeypatch.setattr(inference.Steps, "logits", anew)
    assert refuted(caching, "caching.exact") == {UNREAD}


def test_a_cache_of_which_only_the_latest_positions_are_read_is_found_out(caching, monkeypatch):
    genuine = inference.Steps.logits

    def forgetful(self, ids, start, cache, last_only):
        if cache is not None and start > 40:
            cache.keys[0][:, :, : start - 40] = -1e4
        return genuine(self, ids, start, cache, last_only)

    monkeypatch.setattr(inference.Steps, "logits", forgetful)
    assert UNREAD in refuted(caching, "caching.exact")


BEYOND, BESIDE = "bytes beyond the formula", "bytes left elsewhere by the use of a cache"
# Where a cache can keep everything a second time.
TWICE = {
    "an attribute": (lambda cache, copies: setattr(cache, "extra", copies), BEYOND),
    "a list elsewhere": (lambda cache, copies: ELSEWHERE.append(copies), BESIDE),
}


def test_the_memory_of_the_cache_passes_without_a_cheat(caching):
    assert judged(caching, "caching.memory").verdict is Verdict.PASS


@pytest.mark.usefixtures("_elsewhere")
@pytest.mark.parametrize("place", TWICE)
def test_a_cache_that_keeps_everything_twice_once_it_is_used_is_found_out(caching, monkeypatch, place):
    genuine, (hide, convicted) = KVCache.begin, TWICE[place]

    def begin(self, batch_size):
        genuine(self, batch_size)
        hide(self, [array.copy() for array in (*self.keys, *self.values)])

    monkeypatch.setattr(KVCache, "begin", begin)
    assert refuted(caching, "caching.memory") == {convicted}


def test_a_cache_that_allocates_more_than_it_reports_is_found_out(caching, monkeypatch):
    genuine = KVCache._allocate

    def allocate(self, batch_size):
        genuine(self, batch_size)
        self.keys = [np.zeros((2, *keys.shape), np.float32)[0] for keys in self.keys]

    monkeypatch.setattr(KVCache, "_allocate", allocate)
    assert refuted(caching, "caching.memory") == {BEYOND}
