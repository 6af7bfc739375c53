"""Data: sets of examples, batches of them in a seeded order, and random changes to images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tinytorch.core.checks import positive_int, whole
from tinytorch.core.random import generator
from tinytorch.core.tensor import Tensor, array_of, as_tensor, wrap
from tinytorch.kernels import FloatArray

Transform = Callable[[Any, np.random.Generator], Any]


class Dataset(ABC):
    """A number of examples; each is a tuple of tensors, or a single one."""

    @abstractmethod
    def __len__(self) -> int:
        """Return how many examples there are."""

    @abstractmethod
    def __getitem__(self, index: int) -> Any:
        """Return one example."""


class TensorDataset(Dataset):
    """Examples that lie along the first axis of tensors.

    Args:
        tensors: at least one, all with the same number of examples.

    Raises:
        ValueError: there are no tensors, one is a single number, or their lengths differ.
    """

    def __init__(self, *tensors: Any) -> None:
        self.tensors = tuple(as_tensor(tensor, "tensors") for tensor in tensors)
        if not self.tensors or any(tensor.ndim == 0 for tensor in self.tensors):
            raise ValueError("`tensors` must be one or more tensors of at least one axis")
        lengths = [len(tensor) for tensor in self.tensors]
        if len(set(lengths)) > 1:
            raise ValueError(f"`tensors` must hold equally many examples, got {lengths}")

    def __len__(self) -> int:
        return len(self.tensors[0])

    def __getitem__(self, index: Any) -> tuple[Tensor, ...]:
        return tuple(wrap(tensor.data[index]) for tensor in self.tensors)


class DataLoader:
    """Batches of a dataset, each a tuple of Tensors; the last one may be short.

    The order depends on `seed` and `epoch` alone, so training that stopped can go on with a new loader.

    Args:
        dataset: anything with a length and numbered examples.
        batch_size: how many examples a batch has.
        shuffle: draw a new order for each epoch.
        seed: of the order and of the transform; drawn from the default generator unless given.
        transform: changes the first tensor of each batch, `transform(array, rng)`.

    Attributes:
        epoch: how many times batches were asked for; it may be assigned.

    Raises:
        ValueError: `batch_size` is not positive, or `seed` is not a whole number of zero or more.
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int,
        shuffle: bool = False,
        seed: int | None = None,
        *,
        transform: Transform | None = None,
    ) -> None:
        if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
            raise ValueError(
                f"`dataset` must have a length and numbered examples, got {type(dataset).__name__}"
            )
        if transform is not None and not callable(transform):
            raise ValueError(f"`transform` must be callable, got {transform!r}")
        self.dataset = dataset
        self.batch_size = positive_int(batch_size, "batch_size")
        self.shuffle = shuffle
        self.seed = int(generator().integers(2**63)) if seed is None else whole(seed, "seed")
        self.transform = transform
        self.epoch = 0

    def __len__(self) -> int:
        """Return the number of batches."""
        return (len(self.dataset) + self.batch_size - 1) // self.batch_size

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        epoch, self.epoch = self.epoch, self.epoch + 1  # an epoch that is left early counts too
        return self._batches(epoch)

    def _batches(self, epoch: int) -> Iterator[tuple[Tensor, ...]]:
        size = len(self.dataset)
        order = np.arange(size)
        if self.shuffle:
            order = np.random.default_rng([self.seed, epoch, 0]).permutation(size)
        rng = np.random.default_rng([self.seed, epoch, 1])
        for start in range(0, size, self.batch_size):
            batch = self._batch(order[start : start + self.batch_size])
            if self.transform is not None:
                batch = (as_tensor(self.transform(batch[0].data, rng), "transform"), *batch[1:])
            yield batch

    def _batch(self, chosen: Any) -> tuple[Tensor, ...]:
        if isinstance(self.dataset, TensorDataset):
            return self.dataset[chosen]
        examples = [self.dataset[int(index)] for index in chosen]
        rows = [example if isinstance(example, tuple | list) else (example,) for example in examples]
        if len({len(row) for row in rows}) > 1:
            raise ValueError("`dataset` must have equally many tensors in each example")
        columns = [[array_of(item, "example") for item in column] for column in zip(*rows, strict=True)]
        for arrays in columns:
            if len(shapes := {array.shape for array in arrays}) > 1:
                raise ValueError(f"examples of a batch must have one shape, got {sorted(shapes)}")
        return tuple(wrap(np.stack(arrays)) for arrays in columns)


def as_inputs(data: Any, name: str) -> Tensor:
    """Return one batch of inputs as a Tensor, where several may be given in a list.

    Raises:
        ValueError: `data` is neither a Tensor nor an array of real numbers; the message names the argument.
    """
    try:
        return as_tensor(data, name)
    except ValueError as error:
        what = type(data).__name__
        raise ValueError(
            f"{error} in a {what}: pass a Tensor, an array or a list of them, such as [x for x, _ in loader]"
        ) from error


class _Random:
    """A change to a batch of images, shape (N, ..., H, W), drawn for each image by itself."""

    def __init__(self, rng: np.random.Generator | int | None) -> None:
        self.rng = np.random.default_rng(whole(rng, "rng")) if isinstance(rng, int) else rng

    def __call__(self, images: Any, rng: np.random.Generator | None = None) -> Tensor:
        """Return changed images of the same type, in a new tensor; `rng` goes before the own generator.

        Raises:
            ValueError: `images` has fewer than three axes.
        """
        array = array_of(images, "images")
        if array.ndim < 3:
            raise ValueError(f"`images` must have shape (N, ..., H, W), got {array.shape}")
        return wrap(self.changed(array, generator(self.rng if rng is None else rng)))

    def changed(self, images: FloatArray, rng: np.random.Generator) -> FloatArray:
        """Return changed images."""
        raise NotImplementedError(f"{type(self).__name__} must define changed()")


class RandomHorizontalFlip(_Random):
    """Mirrors left and right.

    Args:
        p: how likely for each image, 0 to 1.
        rng: a generator or a seed; the default generator unless given.
    """

    def __init__(self, p: float = 0.5, *, rng: np.random.Generator | int | None = None) -> None:
        if isinstance(p, bool) or not isinstance(p, int | float | np.number) or not 0 <= float(p) <= 1:
            raise ValueError(f"`p` must lie between 0 and 1, got {p!r}")
        super().__init__(rng)
        self.p = float(p)

    def changed(self, images: FloatArray, rng: np.random.Generator) -> FloatArray:
        """Return images of the same shape."""
        mirrored = rng.random(len(images)) < self.p
        out = images.copy()
        out[mirrored] = images[mirrored][..., ::-1]
        return out


class RandomCrop(_Random):
    """Pads with zeros and cuts out a square (He et al. 2016, section 4.2).

    Args:
        size: height and width of the result.
        padding: zeros put on every side first.
        rng: a generator or a seed; the default generator unless given.
    """

    def __init__(self, size: int, padding: int = 0, *, rng: np.random.Generator | int | None = None) -> None:
        super().__init__(rng)
        self.size = positive_int(size, "size")
        self.padding = whole(padding, "padding")

    def changed(self, images: FloatArray, rng: np.random.Generator) -> FloatArray:
        """Return images of shape (N, ..., size, size).

        Raises:
            ValueError: the padded images are smaller than `size`.
        """
        return _cropped(images, self.size, self.size, self.padding, rng)


class RandomShift(_Random):
    """Moves images up, down, left or right, and fills with zeros.

    Args:
        pixels: the most it moves along each axis.
        rng: a generator or a seed; the default generator unless given.
    """

    def __init__(self, pixels: int = 1, *, rng: np.random.Generator | int | None = None) -> None:
        super().__init__(rng)
        self.pixels = whole(pixels, "pixels")

    def changed(self, images: FloatArray, rng: np.random.Generator) -> FloatArray:
        """Return images of the same shape."""
        return _cropped(images, images.shape[-2], images.shape[-1], self.pixels, rng)


class Compose:
    """Applies transforms one after the other.

    Args:
        transforms: at least one.
    """

    def __init__(self, *transforms: Any) -> None:
        single = len(transforms) == 1 and isinstance(transforms[0], list | tuple)
        self.transforms = list(transforms[0] if single else transforms)
        if not self.transforms or not all(map(callable, self.transforms)):
            raise ValueError(f"`transforms` must be one or more callables, got {self.transforms!r}")

    def __call__(self, images: Any, rng: np.random.Generator | None = None) -> Any:
        """Return the images after all transforms."""
        for transform in self.transforms:
            images = transform(images, rng)
        return images


def _cropped(
    images: FloatArray, height: int, width: int, padding: int, rng: np.random.Generator
) -> FloatArray:
    edges = [(0, 0)] * (images.ndim - 2) + [(padding, padding)] * 2
    padded = np.pad(images, edges)
    rows, columns = padded.shape[-2] - height, padded.shape[-1] - width
    if rows < 0 or columns < 0:
        raise ValueError(
            f"`size` must not exceed the padded images, {padded.shape[-2:]}, got ({height}, {width})"
        )
    windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(-2, -1))
    top, left = rng.integers(rows + 1, size=len(images)), rng.integers(columns + 1, size=len(images))
    windows = np.moveaxis(windows, (-4, -3), (1, 2))  # (N, rows, columns, ..., height, width)
    return np.ascontiguousarray(windows[np.arange(len(images)), top, left])
