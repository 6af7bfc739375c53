"""Badges: techniques that are found in what was submitted, never in what is said of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tinytorch.benchmarking.tinymlperf.events import outputs_of
from tinytorch.benchmarking.tinymlperf.fresh import Array
from tinytorch.core.checkpoints import read_arrays
from tinytorch.core.layers import Layer
from tinytorch.core.models import load_model
from tinytorch.core.tensor import Tensor

#: the share of the numbers of a model's weights from which on a technique is called used
_MOST_OF_IT = 0.5


@dataclass(frozen=True, slots=True)
class Artefact:
    """What was measured in a model's file.

    Attributes:
        int8_share: of the numbers in weights (two axes or more) that are stored as int8.
        half_share: of those that are stored in half precision.
        zero_share: of those that are stored and zero.
        held_share: the file's numbers that are not zero, as a share of the reference model's.
        size_ratio: bytes of the reference model's arrays divided by the file's.
    """

    int8_share: float
    half_share: float
    zero_share: float
    held_share: float
    size_ratio: float


def inspect_artefact(weights: Path, reference: Layer, inputs: Array) -> Artefact:
    """Measure a model's file.

    Weights count if outputs depend on them: arrays that lie in the file for show earn nothing.

    Args:
        weights: what `save_model` wrote.
        reference: the reference model.
        inputs: some for the model.

    Raises:
        ValueError: the file cannot be read.
    """
    arrays, _ = read_arrays(weights)
    stored = _used(load_model(weights).eval(), inputs)
    total = max(sum(array.size for array in stored), 1)
    numbers = [array for array in arrays.values() if array.dtype.kind == "f" or array.dtype == np.int8]
    given = list(reference.state_dict().values())
    return Artefact(
        int8_share=sum(array.size for array in stored if array.dtype == np.int8) / total,
        half_share=sum(array.size for array in stored if array.dtype == np.float16) / total,
        zero_share=sum(array.size - np.count_nonzero(array) for array in stored) / total,
        held_share=sum(np.count_nonzero(a) for a in numbers) / sum(np.count_nonzero(a) for a in given),
        size_ratio=sum(a.nbytes for a in given) / max(sum(a.nbytes for a in arrays.values()), 1),
    )


def _used(model: Layer, inputs: Array) -> list[Array]:
    """Return the arrays of two axes or more without which the outputs are others."""
    expected = outputs_of(model, inputs)
    found: dict[int, Array] = {}
    for _, layer in model.named_layers():
        for value in vars(layer).values():
            array = value.data if isinstance(value, Tensor) else value
            if not isinstance(array, np.ndarray) or array.ndim < 2 or array.dtype.kind not in "if":
                continue
            kept = array.copy()
            array[...] = 0
            if not np.array_equal(outputs_of(model, inputs), expected):
                found[id(array)] = array
            array[...] = kept
    return list(found.values())


def badges_of(artefact: Artefact, cached_tokens: int) -> tuple[str, ...]:
    """Return the badges that an artefact has earned, each with the figure that earned it.

    Args:
        artefact: what was measured in the file.
        cached_tokens: how many tokens the KV cache held after a text was continued; 0 where none did.
    """
    found = []
    if artefact.int8_share >= _MOST_OF_IT:
        found.append(f"int8 ({artefact.int8_share:.0%} of the weights)")
    if artefact.half_share >= _MOST_OF_IT:
        found.append(f"half precision ({artefact.half_share:.0%} of the weights)")
    if artefact.zero_share >= _MOST_OF_IT:
        found.append(f"zeros ({artefact.zero_share:.0%} of the weights)")
    if artefact.held_share <= 1 - _MOST_OF_IT:
        found.append(f"fewer numbers ({artefact.held_share:.0%} of the reference's)")
    if artefact.size_ratio >= 2:
        found.append(f"smaller ({artefact.size_ratio:.1f} times)")
    if cached_tokens:
        found.append(f"KV cache ({cached_tokens} tokens)")
    return tuple(found)
