"""Data that models are measured on: inputs, and the right answers where they are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinytorch.benchmarking.copies import relocated_array
from tinytorch.core.checks import whole_numbers
from tinytorch.core.dataloader import TensorDataset
from tinytorch.core.tensor import Tensor, wrap

Array = NDArray[Any]
Labels = NDArray[np.intp]

# Arrays of these kinds hold numbers: booleans, whole numbers with and without sign, and floats.
_NUMBERS = "biuf"


@dataclass(frozen=True, slots=True, eq=False)
class Data:
    """Inputs of models, and the right answers where they are known.

    Attributes:
        inputs: a Tensor or an array of numbers, shape (n, ...).
        labels: class indices, shape (n,), or (n, T) for one answer at each position; None without answers.
    """

    name: str
    inputs: Tensor | Array
    labels: Labels | None

    def copied_inputs(self) -> Tensor | Array:
        """Return a copy of the inputs."""
        return Tensor(self.inputs) if isinstance(self.inputs, Tensor) else self.inputs.copy()

    def moved_inputs(self, rng: np.random.Generator) -> Tensor | Array:
        """Return a copy of the inputs at a place in memory that is drawn anew."""
        if isinstance(self.inputs, Tensor):
            return wrap(relocated_array(self.inputs.data, rng))
        return relocated_array(self.inputs, rng)


def data_sets(datasets: Any) -> list[Data]:
    """Return the data sets, each with a name.

    Args:
        datasets: one data set, a list of them or a dictionary from names to them. Each is a Tensor or an
            array of inputs, a tuple (inputs, labels), or a TensorDataset.

    Raises:
        ValueError: there are none, they hold no numbers, labels are not whole numbers or not as many as
            inputs.
    """
    if isinstance(datasets, Mapping):
        named = [(str(name), item) for name, item in datasets.items()]
    elif isinstance(datasets, list):
        named = [(f"dataset_{index}", item) for index, item in enumerate(datasets)]
    else:
        named = [("dataset", datasets)]
    if not named:
        raise ValueError("`datasets` must hold at least one data set, got none")
    return [_data(name, item) for name, item in named]


def check_labelled(datasets: Sequence[Data]) -> None:
    """Refuse data sets without labels: accuracy is then not known, and never invented."""
    for data in datasets:
        if data.labels is None:
            raise ValueError(
                f"`datasets` must have labels where accuracy is asked for, and {data.name!r} has none: give "
                "it as a tuple (inputs, labels)"
            )


def _data(name: str, item: Any) -> Data:
    if isinstance(item, TensorDataset):
        item = item.tensors if len(item.tensors) > 1 else item.tensors[0]
    labels = None
    if isinstance(item, tuple):
        if len(item) != 2:
            raise ValueError(
                f"`datasets` must hold inputs or tuples (inputs, labels), got a tuple of {len(item)} for "
                f"{name!r}"
            )
        item, labels = item
    inputs = _inputs(name, item)
    return Data(name, inputs, None if labels is None else _labels(name, labels, inputs))


def _inputs(name: str, item: Any) -> Tensor | Array:
    try:
        inputs = item if isinstance(item, Tensor) else np.asarray(item)
    except ValueError:
        raise ValueError(
            f"`datasets` must hold rectangular inputs, got rows of different lengths for {name!r}"
        ) from None
    if inputs.dtype.kind not in _NUMBERS:
        raise ValueError(
            f"`datasets` must hold inputs that are numbers, got {_described(item, inputs)} for {name!r}: "
            "give an array, a tuple (inputs, labels) or a TensorDataset"
        )
    if inputs.ndim == 0 or inputs.size == 0:
        raise ValueError(f"`datasets` must hold at least one example, got shape {inputs.shape} for {name!r}")
    if not np.isfinite(inputs.data if isinstance(inputs, Tensor) else inputs).all():
        raise ValueError(f"`datasets` must hold finite inputs, got NaN or infinity in {name!r}")
    return inputs


def _described(item: Any, inputs: Tensor | Array) -> str:
    return f"{inputs.dtype} data" if isinstance(item, np.ndarray | list) else type(item).__name__


def _labels(name: str, given: Any, inputs: Tensor | Array) -> Labels:
    labels = whole_numbers(given, f"labels of {name}")
    if labels.ndim == 0 or len(labels) != len(inputs):
        raise ValueError(
            f"`labels of {name}` must be one for each of {len(inputs)} inputs, got shape {labels.shape}"
        )
    if labels.min() < 0:
        raise ValueError(f"`labels of {name}` must be class indices of zero or more, got {labels.min()}")
    return labels
