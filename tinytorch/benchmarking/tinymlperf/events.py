"""The events of TinyMLPerf: what is asked of a model, and where fresh inputs for it come from."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinytorch.benchmarking.tinymlperf.fresh import Array, altered, pieces, spliced
from tinytorch.benchmarking.tinymlperf.scenarios import GENERATE, OFFLINE, SINGLE_STREAM, Scenario
from tinytorch.core.tensor import Tensor
from tinytorch.datasets import RECIPES, load_digits, load_text
from tinytorch.datasets.digits import data_hash as digits_hash
from tinytorch.datasets.reference import reference_model, vocabulary

_CALIBRATION = 128
# Each text of an accuracy run has one label. INT8 weights change its loss by 0.03 bits, one way or the other:
# over so many texts that is a twentieth of what the floor leaves. They take 1.3 s for each of the two models.
_TEXTS = 1024


@dataclass(frozen=True, slots=True)
class Event:
    """One discipline.

    Attributes:
        name: as users write it.
        title: as tables write it.
        reference: the reference model's name among `tinytorch.datasets.RECIPES`.
        scenarios: how speed is measured.
        unit: of its quality: "accuracy", where more is better, or "bits per character", where less is.
        share: of the reference model's quality that a submission must keep, on the same inputs.
    """

    name: str
    title: str
    reference: str
    scenarios: tuple[Scenario, ...]
    unit: str = "accuracy"
    share: float = 0.99

    @property
    def is_text(self) -> bool:
        """Whether inputs are characters rather than images."""
        return RECIPES[self.reference].kind == "gpt"

    @property
    def data_hash(self) -> str:
        """SHA-256 of its data set as this machine has it; nothing is trained for that."""
        return load_text().sha256 if self.is_text else digits_hash()

    def floor(self, reference_quality: float) -> float:
        """Return the worst quality that still gets a rank, from that of the reference model."""
        return reference_quality / self.share if self.is_text else reference_quality * self.share

    def meets(self, quality: float, floor: float) -> bool:
        """Return whether a quality is as good as the floor; NaN never is."""
        return quality <= floor if self.is_text else quality >= floor


EVENTS = {
    event.name: event
    for event in (
        Event("mlp_sprint", "MLP Sprint", "digits-mlp-784", (SINGLE_STREAM, OFFLINE)),
        Event("cnn_marathon", "CNN Marathon", "digits-cnn-wide", (SINGLE_STREAM, OFFLINE)),
        Event(
            "transformer_decathlon",
            "Transformer Decathlon",
            "text-gpt",
            (GENERATE, Scenario("offline", "predict", batch=16, queries=1)),
            unit="bits per character",
        ),
    )
}


@dataclass(frozen=True)
class LoadedBenchmark:
    """An event with its model and data.

    Attributes:
        event: what is asked.
        model: the reference model, in evaluation mode.
        inputs: images as the model takes them, before they are made fresh, or tokens of shape (n, T).
        labels: shape (n,) digits, or (n, T) next tokens.
        calibration: inputs that a closed submission may calibrate with; they are training data.
        data_hash: SHA-256 of the data set.
        source: where fresh texts are cut from; None for images.
    """

    event: Event
    model: Any
    inputs: Array
    labels: Array
    calibration: Array
    data_hash: str
    source: Array | None = field(default=None, repr=False)

    @property
    def accuracy_count(self) -> int:
        """How many fresh inputs an accuracy run takes."""
        return len(self.inputs) if self.source is None else _TEXTS

    def fresh(self, count: int, rng: np.random.Generator) -> tuple[Array, Array]:
        """Return inputs that did not exist before, and their labels, which do not stand in them.

        Test images are drawn without repetition, as far as they go, and altered; pieces of the held-out text
        start anywhere and are spliced, see `fresh.spliced`. Both are made of public data: a submission of the
        open division that keeps these, and looks for what is most alike, knows the labels.

        Args:
            count: how many.
            rng: for everything that is drawn.
        """
        if self.source is not None:
            return spliced(self.source, count, self.inputs.shape[1], rng)
        rounds = -(-count // len(self.inputs))
        chosen = np.concatenate([rng.permutation(len(self.inputs)) for _ in range(rounds)])[:count]
        return altered(self.inputs[chosen], rng), self.labels[chosen]

    def prompts(self, count: int, length: int, rng: np.random.Generator) -> Array:
        """Return beginnings of texts to be continued, shape (count, length)."""
        assert self.source is not None, "images are not continued"
        return pieces(self.source, count, length, rng)[0]

    def losses(self, outputs: Array, labels: Array) -> NDArray[np.float64]:
        """Return for each example 1 where it is wrong and 0 where right, or the bits per character.

        Args:
            outputs: scores, shape (n, classes), or (n, T, vocabulary).
            labels: shape (n,) or (n, T); where one of a text is below zero, its output does not count.
        """
        scores = outputs.astype(np.float64)
        if self.source is None:
            return np.asarray(scores.argmax(axis=1) != labels, np.float64)
        scores -= scores.max(axis=-1, keepdims=True)
        chosen = np.take_along_axis(scores, np.maximum(labels, 0)[..., None], -1)[..., 0]
        bits = (np.log(np.exp(scores).sum(axis=-1)) - chosen) / np.log(2)
        mean: NDArray[np.float64] = bits.mean(axis=1, where=labels >= 0)
        return mean

    def quality(self, losses: NDArray[np.float64]) -> float:
        """Return what the event calls quality, from the losses of its examples."""
        mean = float(losses.mean())
        return mean if self.event.is_text else 1 - mean

    @functools.cached_property
    def floor(self) -> float:
        """The floor on the inputs as they are; a submission is held to that of its own fresh inputs."""
        return self.event.floor(self.quality(self.losses(outputs_of(self.model, self.inputs), self.labels)))


def load_event(event: Event, seed: int) -> LoadedBenchmark:
    """Return an event's model and data; the seed says in which order, or where texts are cut.

    The reference model is trained first where the machine has not yet done so.
    """
    trained = reference_model(event.reference)
    rng = np.random.default_rng([seed, 20])
    if event.is_text:
        encode, text = vocabulary().encode, load_text()
        held_out, train = (np.array(encode(part), np.intp) for part in (text.held_out, text.train))
        length = trained.recipe.sizes[-1]
        inputs, labels = pieces(held_out, 64, length, rng)
        calibration, _ = pieces(train, 16, length, rng)
        return LoadedBenchmark(event, trained.model, inputs, labels, calibration, trained.data_hash, held_out)
    data = load_digits(side=trained.recipe.side, flat=trained.recipe.kind == "mlp")
    order = rng.permutation(len(data.test))
    calibration = data.train.images[rng.permutation(len(data.train))[:_CALIBRATION]]
    return LoadedBenchmark(
        event,
        trained.model,
        data.test.images[order],
        data.test.labels[order],
        calibration,
        trained.data_hash,
    )


def outputs_of(model: Any, inputs: Array) -> Array:
    """Return a model's outputs as an array, computed without gradients."""
    from tinytorch.core.autograd import no_grad

    with no_grad():
        result = model(inputs)
    return np.asarray(result.data if isinstance(result, Tensor) else result)
