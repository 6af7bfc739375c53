"""How each reference model is made: everything that its weights depend on, but the data itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import tinytorch as tt


@dataclass(frozen=True, slots=True)
class Recipe:
    """One model and its training.

    Attributes:
        name: of the model.
        what: in words.
        kind: "mlp", "cnn" or "gpt".
        sizes: widths of the perceptron; channels and hidden width of the network of convolutions; or
            (width, layers, heads, positions) of the transformer.
        side: of the digits' images; 0 for text.
        epochs: how often the training data is seen; for text, how many steps are made.
        batch_size: examples, or pieces of text, for each step.
        lr: the learning rate at first, from which it falls to zero along a cosine.
        weight_decay: that of AdamW.
        shift: pixels by which training images are moved at random.
        seed: of weights, orders and shifts.
        expected_s: seconds that training takes on one core of a 2.6 GHz Xeon.
        version: goes up when training itself changes.
    """

    name: str
    what: str
    kind: str
    sizes: tuple[int, ...]
    side: int
    epochs: int
    batch_size: int
    lr: float
    expected_s: float
    weight_decay: float = 0.01
    shift: int = 0
    seed: int = 0
    version: int = 1

    def build(self, vocab_size: int = 0) -> tt.Layer:
        """Return the model with its first weights; only the transformer asks for the size of a vocabulary."""
        rng = np.random.default_rng(self.seed)
        return _BUILDERS[self.kind](self, rng, vocab_size)


def _mlp(recipe: Recipe, rng: np.random.Generator, _vocab_size: int) -> tt.Layer:
    layers: list[Any] = []
    for inputs, outputs in zip(recipe.sizes[:-1], recipe.sizes[1:], strict=True):
        layers += [tt.Linear(inputs, outputs, rng=rng), tt.ReLU()]
    return tt.Sequential(*layers[:-1])


def _cnn(recipe: Recipe, rng: np.random.Generator, _vocab_size: int) -> tt.Layer:
    *channels, hidden = recipe.sizes
    layers: list[Any] = []
    side, inputs = recipe.side, 1
    for index, outputs in enumerate(channels):
        layers += [tt.Conv2d(inputs, outputs, 3, padding=1, rng=rng), tt.ReLU()]
        if index < 2:
            layers.append(tt.MaxPool2d(2))
            side //= 2
        inputs = outputs
    layers += [
        tt.Flatten(),
        tt.Linear(inputs * side * side, hidden, rng=rng),
        tt.ReLU(),
        tt.Dropout(0.2, rng=rng),
    ]
    return tt.Sequential(*layers, tt.Linear(hidden, 10, rng=rng))


def _gpt(recipe: Recipe, rng: np.random.Generator, vocab_size: int) -> tt.Layer:
    width, layers, heads, positions = recipe.sizes
    return tt.GPT(vocab_size, width, layers, heads, positions, rng=rng)


_BUILDERS: dict[str, Callable[[Recipe, np.random.Generator, int], tt.Layer]] = {
    "mlp": _mlp,
    "cnn": _cnn,
    "gpt": _gpt,
}

_ALL = (
    Recipe(
        name="digits-mlp",
        what="MLP 64-128-64-10 on digits",
        kind="mlp",
        sizes=(64, 128, 64, 10),
        side=8,
        epochs=30,
        batch_size=32,
        lr=3e-3,
        expected_s=1,
    ),
    Recipe(
        name="digits-mlp-784",
        what="MLP 784-512-256-10 on digits",
        kind="mlp",
        sizes=(784, 512, 256, 10),
        side=28,
        epochs=12,
        batch_size=64,
        lr=1e-3,
        expected_s=2,
    ),
    Recipe(
        name="digits-mlp-wide",
        what="MLP 64-512-256-10 on digits",
        kind="mlp",
        sizes=(64, 512, 256, 10),
        side=8,
        epochs=20,
        batch_size=32,
        lr=2e-3,
        expected_s=2,
    ),
    Recipe(
        name="digits-cnn",
        what="CNN of 16 and 32 channels on digits",
        kind="cnn",
        sizes=(16, 32, 64),
        side=8,
        epochs=30,
        batch_size=32,
        lr=3e-3,
        shift=1,
        expected_s=3,
    ),
    Recipe(
        name="digits-cnn-wide",
        what="CNN of 32, 64 and 64 channels on digits",
        kind="cnn",
        sizes=(32, 64, 64, 128),
        side=8,
        epochs=20,
        batch_size=32,
        lr=2e-3,
        shift=1,
        expected_s=6,
    ),
    Recipe(
        name="text-gpt",
        what="GPT of 4 layers on Python's topics",
        kind="gpt",
        sizes=(128, 4, 4, 64),
        side=0,
        epochs=1200,
        batch_size=16,
        lr=3e-3,
        expected_s=80,
    ),
)
RECIPES = {recipe.name: recipe for recipe in _ALL}
