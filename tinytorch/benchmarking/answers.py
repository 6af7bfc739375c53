"""What models answer: whether they can be compared at all, and how many answers are right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinytorch.benchmarking.contenders import Contender, RefusedModel
from tinytorch.benchmarking.data import Array, Data
from tinytorch.benchmarking.limits import TooSlow, time_limit
from tinytorch.core.tensor import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """The outputs of one model, an array for each data set."""

    name: str
    outputs: tuple[Array, ...]


def answers(contenders: Sequence[Contender], datasets: Sequence[Data], time_limit_s: float) -> list[Answers]:
    """Call every model once on all data, and return what they answer, after checking it.

    Raises:
        RefusedModel: a model raises, takes longer than `time_limit_s` for a data set, changes its inputs,
            answers with anything but one array of numbers, with NaN, or with another shape or type than the
            first model.
    """
    given = [Answers(c.name, tuple(_answer(c, data, time_limit_s) for data in datasets)) for c in contenders]
    for other in given[1:]:
        _check_comparable(given[0], other, datasets)
    return given


def right_answers(given: Answers, datasets: Sequence[Data]) -> list[NDArray[np.bool_]]:
    """Return for each data set which of its labels the largest score stands at.

    Raises:
        RefusedModel: the outputs are no scores of classes, shape (..., classes), for these labels.
    """
    right = []
    for data, output in zip(datasets, given.outputs, strict=True):
        labels = data.labels
        assert labels is not None, "see `check_labelled`"
        if output.ndim == 2 and output.shape == labels.shape and _is_one_hot(labels):
            raise RefusedModel(
                f"{given.name!r} has no accuracy on {data.name!r}: labels are class numbers of shape "
                f"({len(labels)},), got one-hot rows of shape {labels.shape}: give `labels.argmax(axis=1)`"
            )
        if output.ndim < 2 or output.shape[:-1] != labels.shape or output.shape[-1] < 2:
            raise RefusedModel(
                f"{given.name!r} has no accuracy on {data.name!r}: labels of shape {labels.shape} need "
                f"scores of shape {(*labels.shape, 'classes')} for two classes or more, got {output.shape}"
            )
        if labels.max() >= output.shape[-1]:
            raise RefusedModel(
                f"{given.name!r} cannot answer {data.name!r}: the labels go up to {labels.max()}, and it has "
                f"{output.shape[-1]} classes"
            )
        right.append((output.argmax(axis=-1) == labels).reshape(-1))
    return right


def _is_one_hot(labels: NDArray[np.intp]) -> bool:
    return bool((labels >= 0).all() and (labels.max(axis=1) == 1).all() and (labels.sum(axis=1) == 1).all())


def _answer(contender: Contender, data: Data, time_limit_s: float) -> Array:
    inputs = contender.prepared(data.copied_inputs())
    before = np.array(inputs)
    try:
        with time_limit(time_limit_s):
            output = contender.call(inputs)
    except TooSlow:
        raise RefusedModel(
            f"{contender.name!r} took longer than {time_limit_s:g} s for {data.name!r}: give fewer inputs or "
            "a higher `time_limit_s`"
        ) from None
    except (Exception, SystemExit) as error:
        raise RefusedModel(
            f"{contender.name!r} raised {type(error).__name__} on {data.name!r}: {str(error).rstrip('.')} "
            f"(all models are given the same inputs, here of shape {before.shape})"
        ) from error
    array = _array(contender, data, output)
    if not np.array_equal(before, np.asarray(inputs)):
        raise RefusedModel(
            f"{contender.name!r} changes its inputs, which the other models are measured on too: let it copy "
            "them"
        )
    if array.dtype.kind == "f" and np.isnan(array).any():
        raise RefusedModel(
            f"{contender.name!r} answers NaN for {_rows_with_nan(array)} of {len(array)} examples of "
            f"{data.name!r}: such a model has neither speed nor accuracy"
        )
    return array


def _array(contender: Contender, data: Data, output: Any) -> Array:
    if isinstance(output, Tensor | np.ndarray):
        array = np.array(output)  # a copy: a model may write its next answer over this one
        if array.dtype.kind in "biuf" and array.size:
            return array
    raise RefusedModel(
        f"{contender.name!r} must answer with one Tensor or array of numbers on {data.name!r}, got "
        + (f"{output.dtype} of shape {output.shape}" if hasattr(output, "dtype") else type(output).__name__)
    )


def _rows_with_nan(array: Array) -> int:
    return int(np.isnan(array).reshape(len(array), -1).any(axis=1).sum()) if array.ndim else 1


def _check_comparable(first: Answers, other: Answers, datasets: Sequence[Data]) -> None:
    for data, a, b in zip(datasets, first.outputs, other.outputs, strict=True):
        if a.shape != b.shape:
            raise RefusedModel(
                f"{other.name!r} cannot be compared with {first.name!r}: on {data.name!r} its output has "
                f"shape {b.shape}, not {a.shape}"
            )
        if a.dtype != b.dtype:
            raise RefusedModel(
                f"{other.name!r} cannot be compared with {first.name!r}: on {data.name!r} its output is "
                f"{b.dtype}, not {a.dtype}"
            )
