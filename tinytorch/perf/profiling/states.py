"""Leaving a model as it was found, and checks of what profiling is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from tinytorch.core.autograd import no_grad
from tinytorch.core.checks import positive_int
from tinytorch.core.inference import set_aside
from tinytorch.core.layers import Layer
from tinytorch.core.tensor import Tensor
from tinytorch.perf.profiling.formulas import Shape


@contextmanager
def preserved(model: Any) -> Iterator[None]:
    """Run the block; then put modes, gradients, buffers, random states and caches of the model back.

    Caches are set aside: each run starts anew, and would empty them. A model that is no Layer has none of
    these that are known of.
    """
    undo = [undo for _, layer in _layers(model) for undo in undoing(layer)]
    gradients = [(parameter, parameter.grad) for parameter in parameters_of(model)]
    try:
        with set_aside(model):
            yield
    finally:
        for restore in undo:
            restore()
        for parameter, gradient in gradients:
            parameter.grad = gradient


@contextmanager
def inference(model: Any) -> Iterator[None]:
    """Run the block with the model in evaluation mode and without recording gradients; then put it back."""
    with preserved(model), no_grad():
        if isinstance(model, Layer):
            model.eval()
        yield


def parameters_of(model: Any) -> list[Tensor]:
    """Return the parameters of a model; none of a function."""
    return list(model.parameters()) if hasattr(model, "parameters") else []


def check_model(model: Any) -> None:
    """Raise ValueError unless `model` can be called."""
    if not callable(model):
        raise ValueError(f"`model` must be a Layer, or something else to call, got {type(model).__name__}")


def checked_shape(shape: Any) -> Shape:
    """Return the shape of an input as a tuple, the batch first.

    Raises:
        ValueError: it is no tuple of positive whole numbers, or empty.
    """
    if not isinstance(shape, tuple | list) or not shape:
        raise ValueError(
            f"`input_shape` must be a tuple of positive whole numbers, the batch first, got {shape!r}"
        )
    return tuple(positive_int(length, "input_shape") for length in shape)


@contextmanager
def taking(shape: Any) -> Iterator[None]:
    """Run a model on zeros of a shape: where it refuses these, the error is about `input_shape`.

    Raises:
        ValueError: the model raised one; it says which shape the model was given.
    """
    try:
        yield
    except ValueError as error:
        raise ValueError(
            f"`input_shape` must be one that the model takes, starting with the batch, such as "
            f"(1, *shape of a sample), got {tuple(shape)}: {error}"
        ) from error


def zeros(shape: Shape) -> Tensor:
    """Return an input that any model takes: zeros are whole numbers too, so they may be tokens."""
    return Tensor(np.zeros(shape, np.float32))


def as_input(value: Any) -> Any:
    """Return what a model is called with: an ndarray or nested lists as they are wanted by its first layer.

    Raises:
        ValueError: `value` is empty.
    """
    found = value if isinstance(value, Tensor) else np.asarray(value)
    if found.size == 0:
        raise ValueError("`input_tensor` must hold at least one number, got none")
    return value


def _layers(model: Any) -> Iterator[tuple[str, Layer]]:
    if isinstance(model, Layer):
        yield from model.named_layers()


def undoing(layer: Layer) -> Iterator[Callable[[], None]]:
    """Yield functions that bring back what running a layer may change: its mode, buffers and generators."""
    training = layer.training

    def mode() -> None:
        layer.training = training

    yield mode
    for name in layer.buffers:
        yield _copying_back(getattr(layer, name))
    for value in vars(layer).values():
        if isinstance(value, np.random.Generator):
            yield _drawing_again(value)


def _copying_back(array: Any) -> Callable[[], None]:
    kept = array.copy()
    return lambda: np.copyto(array, kept)


def _drawing_again(generator: np.random.Generator) -> Callable[[], None]:
    kept = generator.bit_generator.state

    def restore() -> None:
        generator.bit_generator.state = kept

    return restore
