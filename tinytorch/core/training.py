"""Training: the loop over batches, evaluation, learning rates over time and clipping of gradients."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from tinytorch.core.autograd import no_grad
from tinytorch.core.checks import positive, positive_int
from tinytorch.core.layers import Layer
from tinytorch.core.optimizers import Optimizer, gradient_array
from tinytorch.core.tensor import Tensor, array_of, as_tensor

Batch = tuple[Any, ...]


class CosineSchedule:
    """A learning rate that falls from `max_lr` to `min_lr` along half a cosine (Loshchilov and Hutter 2017).

    Args:
        max_lr: at epoch 0.
        min_lr: from epoch `total_epochs` on; zero or more.
        total_epochs: how long it falls.

    Raises:
        ValueError: a number is not positive, or `min_lr` is above `max_lr`.
    """

    def __init__(self, max_lr: float = 0.1, min_lr: float = 0.01, total_epochs: int = 100) -> None:
        self.max_lr = positive(max_lr, "max_lr")
        self.min_lr = 0.0 if min_lr == 0 else positive(min_lr, "min_lr")
        self.total_epochs = positive_int(total_epochs, "total_epochs")
        if self.min_lr > self.max_lr:
            raise ValueError(f"`min_lr` must not be above `max_lr` (={max_lr}), got {min_lr}")

    def get_lr(self, epoch: float) -> float:
        """Return the learning rate of an epoch, counted from 0.

        Raises:
            ValueError: `epoch` is negative.
        """
        if not epoch >= 0:
            raise ValueError(f"`epoch` must be zero or more, got {epoch}")
        share = min(epoch / self.total_epochs, 1.0)
        return self.min_lr + (self.max_lr - self.min_lr) * (1 + math.cos(math.pi * share)) / 2


def clip_grad_norm(parameters: Iterable[Tensor] | Tensor, max_norm: float = 1.0) -> float:
    """Scale all gradients together so that their common Euclidean norm is at most `max_norm`.

    Gradients whose norm is NaN or infinite are left as they are: no factor would make them right.

    Args:
        parameters: those without a gradient do not count.
        max_norm: the bound, positive.

    Returns:
        The norm before clipping.

    Raises:
        ValueError: `max_norm` is not positive, or a gradient has another shape than its parameter.
    """
    bound = positive(max_norm, "max_norm")
    found = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    pairs = [(p, gradient_array(p, f"parameter {i}")) for i, p in enumerate(found)]
    gradients = [(p, g) for p, g in pairs if g is not None]
    norm = math.sqrt(sum(_squares(g) for _, g in gradients))
    if bound < norm < math.inf:
        for parameter, gradient in gradients:
            parameter.grad = (gradient * (bound / norm)).astype(np.float32, copy=False)
    return norm


class Trainer:
    """Trains a model on batches whose last tensor is the target and whose others the model takes.

    Args:
        model: what is trained.
        optimizer: of its parameters.
        loss_fn: of output and target, a mean over examples.
        scheduler: `get_lr(epoch)` sets the learning rate before each epoch.
        grad_clip_norm: bound of the gradients' norm; see `clip_grad_norm`.
        progress: show a bar on standard error; None shows it where that is a terminal.
        after_update: called without arguments after each update, as `MagnitudePruner.apply_masks` has to be.

    Attributes:
        epoch: how many epochs were finished.
        step: how many updates were made.
        history: a dictionary for each finished epoch: epoch, loss, lr.
    """

    def __init__(
        self,
        model: Layer,
        optimizer: Optimizer,
        loss_fn: Any,
        scheduler: Any = None,
        grad_clip_norm: float | None = None,
        *,
        progress: bool | None = None,
        after_update: Callable[[], object] | None = None,
    ) -> None:
        if not isinstance(model, Layer):
            raise ValueError(f"`model` must be a Layer, got {type(model).__name__}")
        if not isinstance(optimizer, Optimizer):
            raise ValueError(f"`optimizer` must be an Optimizer, got {type(optimizer).__name__}")
        if not callable(loss_fn):
            raise ValueError(f"`loss_fn` must be callable, got {loss_fn!r}")
        if scheduler is not None and not hasattr(scheduler, "get_lr"):
            raise ValueError(f"`scheduler` must have get_lr(epoch), got {scheduler!r}")
        if after_update is not None and not callable(after_update):
            raise ValueError(f"`after_update` must be callable, got {after_update!r}")
        self.model = model
        self.optimizer = optimizer
        self.loss_fn = loss_fn
        self.scheduler = scheduler
        self.grad_clip_norm = None if grad_clip_norm is None else positive(grad_clip_norm, "grad_clip_norm")
        self.progress = progress
        self.after_update = after_update
        self.epoch = 0
        self.step = 0
        self.history: list[dict[str, float]] = []

    def train_epoch(self, loader: Iterable[Batch], accumulation_steps: int = 1) -> float:
        """Go through the data once, and return the mean loss of an example.

        Args:
            loader: batches; its attribute `epoch`, where it has one, is set to that of the trainer.
            accumulation_steps: how many batches one update takes; their gradients are those of one batch
                of all their examples.

        Raises:
            ValueError: there are no batches, or a batch is no tuple of inputs and target.
            FloatingPointError: a loss or the norm of gradients is not finite; that update was not made.
        """
        size = positive_int(accumulation_steps, "accumulation_steps")
        if self.scheduler is not None:
            self.optimizer.lr = self.scheduler.get_lr(self.epoch)
        if hasattr(loader, "epoch"):
            loader.epoch = self.epoch
        self.model.train()
        total, count = 0.0, 0
        try:
            for group in _groups(self._shown(loader, f"epoch {self.epoch + 1}"), size):
                examples = sum(_examples(batch) for batch in group)
                total += self._update(group, examples)
                count += examples
        finally:
            self.optimizer.zero_grad()  # what was interrupted leaves nothing behind
        mean = total / _some(count)
        self.history.append({"epoch": self.epoch, "loss": mean, "lr": self.optimizer.lr})
        self.epoch += 1
        return mean

    def evaluate(self, loader: Iterable[Batch]) -> tuple[float, float | None]:
        """Return the mean loss of an example and the accuracy, without dropout; modes are restored after.

        Returns:
            The accuracy is None unless targets are class indices: outputs (..., classes), targets (...).

        Raises:
            ValueError: there are no batches.
        """
        total, count, right, labels = 0.0, 0, 0, 0
        classes = True
        with evaluating(self.model):
            for batch in self._shown(loader, "evaluation"):
                examples = _examples(batch)
                output = as_tensor(self.model(*batch[:-1]), "output")
                total += self.loss_fn(output, batch[-1]).item() * examples
                count += examples
                hits = _hits(output, batch[-1])
                classes = classes and hits is not None
                if hits is not None:
                    right, labels = right + int(hits.sum()), labels + hits.size
        return total / _some(count), right / labels if classes and labels else None

    def save_checkpoint(self, path: str | Path) -> None:
        """Write all that training needs to go on; see `checkpoints.save_checkpoint`."""
        from tinytorch.core import checkpoints

        checkpoints.save_checkpoint(self, path)

    def load_checkpoint(self, path: str | Path) -> None:
        """Go on where `save_checkpoint` was called, with the same bits; see `checkpoints.load_checkpoint`."""
        from tinytorch.core import checkpoints

        checkpoints.load_checkpoint(self, path)

    def _update(self, group: list[Batch], examples: int) -> float:
        """Make one step, and return the summed loss of its examples."""
        self.optimizer.zero_grad()
        total = 0.0
        for batch in group:
            loss = self.loss_fn(self.model(*batch[:-1]), batch[-1])
            value, count = loss.item(), _examples(batch)
            self._check_finite(value, "loss")
            loss.backward(np.full(loss.shape, count / examples, np.float32))
            total += value * count
        if self.grad_clip_norm is not None:
            norm = clip_grad_norm(self.optimizer.params, self.grad_clip_norm)
            self._check_finite(norm, "norm of the gradients")
        self.optimizer.step()
        self.step += 1
        if self.after_update is not None:
            self.after_update()
        return total

    def _check_finite(self, value: float, name: str) -> None:
        if not math.isfinite(value):
            raise FloatingPointError(
                f"the {name} is {value} at step {self.step + 1} (epoch {self.epoch + 1}), and the step was "
                "not made: lower the learning rate, clip gradients or look for NaN in the data"
            )

    def _shown(self, loader: Iterable[Batch], title: str) -> Iterator[Batch]:
        wanted = sys.stderr.isatty() if self.progress is None else self.progress
        if not wanted:
            yield from loader
            return
        from rich.console import Console
        from rich.progress import track

        length = len(loader) if isinstance(loader, Sized) else None
        yield from track(loader, title, total=length, console=Console(stderr=True))


@contextmanager
def evaluating(model: Layer) -> Iterator[None]:
    """Put a model into evaluation mode, record nothing, and give every layer its own mode back."""
    modes = [(layer, layer.training) for _, layer in model.named_layers()]
    model.eval()
    try:
        with no_grad():
            yield
    finally:
        for layer, training in modes:
            layer.training = training


def _groups(batches: Iterable[Batch], size: int) -> Iterator[list[Batch]]:
    group: list[Batch] = []
    for batch in batches:
        group.append(batch)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def _examples(batch: Any) -> int:
    if not isinstance(batch, tuple | list) or len(batch) < 2:
        raise ValueError("a batch must be a tuple of inputs and target, at least two tensors")
    if not np.ndim(array_of(batch[0], "batch")) or not len(batch[0]):
        raise ValueError("a batch must hold at least one example")
    return len(batch[0])


def _some(count: int) -> int:
    if not count:
        raise ValueError("`loader` must give at least one batch, got none")
    return count


def _hits(output: Tensor, target: Any) -> np.ndarray[Any, np.dtype[np.bool_]] | None:
    labels = array_of(target, "target")
    if output.ndim < 2 or labels.shape != output.shape[:-1] or (labels != np.trunc(labels)).any():
        return None
    found: np.ndarray[Any, np.dtype[np.bool_]] = output.data.argmax(axis=-1) == labels
    return found


def _squares(gradient: Any) -> float:
    flat = gradient.reshape(-1)
    with np.errstate(over="ignore", invalid="ignore"):
        total = float(np.dot(flat, flat))
    if math.isfinite(total):
        return total
    wide = flat.astype(float)  # squares of large numbers overflow in float32
    return float(np.dot(wide, wide))
