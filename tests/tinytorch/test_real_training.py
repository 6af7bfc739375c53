"""Models that are really trained reach what models of their kind reach; floors are below every seed tried."""

from dataclasses import replace

import numpy as np
import pytest

import tinytorch as tt
from tinytorch.datasets import RECIPES, load_digits, load_text, reference

SEEDS = range(3)


def accuracy(name, split):
    """Mean accuracy over three seeds, in percent."""
    recipe = RECIPES[name]
    data = load_digits(split, side=recipe.side, flat=recipe.kind == "mlp")
    scores = [
        reference.train_digits(replace(recipe, seed=seed), data, lambda share: None)[1] for seed in SEEDS
    ]
    return 100 * np.mean(scores)


@pytest.mark.parametrize(
    ("name", "split", "floor"),
    [
        ("digits-mlp", "shuffled", 97),
        ("digits-mlp", "file-order", 91),
        ("digits-mlp-784", "shuffled", 97),
        ("digits-mlp-wide", "shuffled", 97),
        ("digits-cnn", "shuffled", 97),
        ("digits-cnn", "file-order", 93),
    ],
)
def test_digits(name, split, floor):
    assert accuracy(name, split) >= floor


@pytest.mark.slow
@pytest.mark.parametrize(("split", "floor"), [("shuffled", 98), ("file-order", 93)])
def test_digits_with_a_wide_network_and_shifted_images(split, floor):
    assert accuracy("digits-cnn-wide", split) >= floor


@pytest.mark.slow
def test_a_language_model_learns_far_more_than_pairs_of_characters():
    model, bits, pairs = reference._train_text(
        replace(RECIPES["text-gpt"], epochs=800), load_text(), lambda share: None
    )
    assert bits <= 2.6
    assert bits <= pairs - 0.5
    tokenizer = reference.vocabulary()
    written = tokenizer.decode(model.generate([tokenizer.encode("The ")], 40, 0.0)[0])
    assert written.startswith("The ")
    assert len(set(written)) > 5


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("optimizer", [lambda p: tt.SGD(p, 0.5, momentum=0.9), lambda p: tt.Adam(p, 0.03)])
def test_exclusive_or(optimizer, seed):
    rng = np.random.default_rng(seed)
    model = tt.Sequential(tt.Linear(2, 8, rng=rng), tt.Tanh(), tt.Linear(8, 1, rng=rng), tt.Sigmoid())
    x, y = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32), np.array([[0], [1], [1], [0]], np.float32)
    adjust, loss_of = optimizer(model.parameters()), tt.BinaryCrossEntropyLoss()
    for _ in range(400):
        adjust.zero_grad()
        loss_of(model(x), y).backward()
        adjust.step()
    np.testing.assert_allclose(model(x).data, y, atol=0.1)


def test_overfitting_one_batch_brings_the_loss_of_a_transformer_to_nothing():
    rng = np.random.default_rng(0)
    model = tt.GPT(20, 32, 2, 4, 12, rng=rng)
    tokens = rng.integers(0, 20, (4, 13))
    tokens[:, 0] = range(4)  # sequences that begin alike could not be told apart at first
    adjust, loss_of = tt.Adam(model.parameters(), lr=3e-3), tt.CrossEntropyLoss()
    for _ in range(200):
        adjust.zero_grad()
        loss = loss_of(model(tokens[:, :-1]), tokens[:, 1:])
        loss.backward()
        adjust.step()
    assert loss.item() < 0.05
