"""Seeded inputs such as machine learning code meets, and such as it should survive."""

from __future__ import annotations

import math
from collections import Counter
from numbers import Integral, Real

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]

# Of the pixels of handwritten digits, about four in five are background (MNIST: 81 %).
_BACKGROUND = 0.8
# The standard deviation of the logarithm: the largest of a million values is a thousand times the median.
_SKEW = 1.5
# Biased exponents, from and to, of the magnitudes of extreme values: zeros, denormals, tiny, ordinary, huge.
_EXPONENTS = np.array([(0, 0), (0, 0), (1, 26), (117, 137), (227, 254)], dtype=np.uint32)
_ZERO = 0
_MANTISSA_BITS = 23


class WorkloadGenerator:
    """Draws inputs that depend on the seed, on the method, and on how often that method was called before.

    With one machine and version of NumPy, the n-th call of a method gives the same bits in every process,
    whichever other methods were called before, so that a new workload leaves those beside it as they were.
    Each call gives other data than the call before. A refused call does not count.

    Args:
        seed: a whole number of 0 or more.

    Raises:
        ValueError: from every method, for sizes that are not positive integers, before memory is allocated.
    """

    def __init__(self, seed: int = 0) -> None:
        if not _is_integer(seed) or seed < 0:
            raise ValueError(f"`seed` must be an integer of 0 or more, got {seed!r}")
        self._seed = int(seed)
        self._calls: Counter[str] = Counter()

    def matrix_multiply_workload(self, size: int) -> tuple[Float32, Float32]:
        """Draw two square matrices whose product has entries of unit variance at every size.

        Returns:
            A, standard normal, and B, normal with variance 1 / size; both float32 of shape (size, size).
        """
        _require_positive(size=size)
        rng = self._stream("matrix_multiply")
        a, b = _normal(rng, (size, size)), _normal(rng, (size, size))
        b /= np.float32(math.sqrt(size))
        return a, b

    def mlp_batch_workload(
        self, batch_size: int = 32, features: int = 784, classes: int = 10
    ) -> tuple[Float32, Int64]:
        """Draw flattened grey images, four in five pixels background, with random labels.

        Returns:
            images, float32 of shape (batch_size, features), from 0 to 1;
            labels, int64 of shape (batch_size,), each of the classes equally likely.
        """
        _require_positive(batch_size=batch_size, features=features, classes=classes)
        rng = self._stream("mlp_batch")
        images = rng.random((batch_size, features), dtype=np.float32)
        images *= rng.random((batch_size, features), dtype=np.float32) >= _BACKGROUND
        return images, rng.integers(classes, size=batch_size, dtype=np.int64)

    def image_batch_workload(self, batch_size: int, channels: int, height: int, width: int) -> Float32:
        """Draw images as they are after normalisation by channel: standard normal.

        Returns:
            float32 of shape (batch_size, channels, height, width).
        """
        _require_positive(batch_size=batch_size, channels=channels, height=height, width=width)
        return _normal(self._stream("image_batch"), (batch_size, channels, height, width))

    def token_sequence_workload(self, batch_size: int, length: int, vocab_size: int) -> Int64:
        """Draw token ids with the frequencies of words: id k is as likely as 1 / (k + 1) (Zipf's law).

        Returns:
            int64 of shape (batch_size, length), from 0 to vocab_size - 1.
        """
        _require_positive(batch_size=batch_size, length=length, vocab_size=vocab_size)
        rng = self._stream("token_sequence")
        cumulative = np.cumsum(1.0 / np.arange(1, vocab_size + 1))
        drawn = rng.random((batch_size, length)) * cumulative[-1]
        # A double below 1 times the last sum rounds to less than that sum: no id lies beyond the vocabulary.
        ids: Int64 = np.searchsorted(cumulative, drawn, side="right").astype(np.int64, copy=False)
        return ids

    def attention_workload(
        self, batch_size: int, heads: int, length: int, head_dim: int
    ) -> tuple[Float32, Float32, Float32]:
        """Draw queries, keys and values, standard normal: scores over sqrt(head_dim) have unit variance.

        Returns:
            q, k and v, each float32 of shape (batch_size, heads, length, head_dim).
        """
        _require_positive(batch_size=batch_size, heads=heads, length=length, head_dim=head_dim)
        rng = self._stream("attention")
        shape = (batch_size, heads, length, head_dim)
        return _normal(rng, shape), _normal(rng, shape), _normal(rng, shape)

    def skewed_workload(self, shape: int | tuple[int, ...]) -> Float32:
        """Draw values with heavy tails on both sides: log-normal magnitudes of median 1, with random signs.

        Returns:
            float32 of the shape.
        """
        shape = _checked_shape(shape)
        rng = self._stream("skewed")
        magnitudes: Float32 = np.exp(np.float32(_SKEW) * _normal(rng, shape))
        magnitudes *= _signs(rng, shape)
        return magnitudes

    def extreme_workload(self, shape: int | tuple[int, ...]) -> Float32:
        """Draw finite values at the ends of float32, in equal parts and in random order.

        The parts are zeros, denormals (below 1.2e-38), tiny (up to 8e-31), ordinary (1e-3 to 2e3) and huge
        (1.2e30 to the largest) magnitudes, each with both signs; ten elements or more hold all of them.

        Returns:
            float32 of the shape.
        """
        shape = _checked_shape(shape)
        rng = self._stream("extreme")
        part, negative = np.divmod(rng.permutation(math.prod(shape)) % (2 * len(_EXPONENTS)), 2)
        exponents = rng.integers(_EXPONENTS[part, 0], _EXPONENTS[part, 1], dtype=np.uint32, endpoint=True)
        mantissas = rng.integers(1, 1 << _MANTISSA_BITS, size=part.size, dtype=np.uint32)
        mantissas[part == _ZERO] = 0
        # Assembled from bits: arithmetic on denormals gives zeros in a process that flushes them.
        bits = negative.astype(np.uint32) << 31 | exponents << _MANTISSA_BITS | mantissas
        values: Float32 = bits.view(np.float32)
        return values.reshape(shape)

    def outlier_workload(self, shape: int | tuple[int, ...], fraction: float, scale: float) -> Float32:
        """Draw standard normal values of which some, at random places, are outliers.

        Args:
            shape: of the result.
            fraction: of the n elements, from 0 to 1; round(n * fraction) of them become outliers.
            scale: magnitude of every outlier, in standard deviations; its sign is random.

        Returns:
            float32 of the shape.
        """
        shape = _checked_shape(shape)
        if not isinstance(fraction, Real) or not 0 <= fraction <= 1:
            raise ValueError(f"`fraction` must be a number from 0 to 1, got {fraction!r}")
        limits = np.finfo(np.float32)
        if not isinstance(scale, Real) or not float(limits.tiny) <= scale <= float(limits.max):
            raise ValueError(f"`scale` must be a positive number within float32, got {scale!r}")
        rng = self._stream("outlier")
        values = _normal(rng, (math.prod(shape),))
        places = rng.choice(values.size, size=round(values.size * fraction), replace=False)
        values[places] = np.float32(scale) * _signs(rng, places.shape)
        return values.reshape(shape)

    def _stream(self, workload: str) -> np.random.Generator:
        """Start the stream of the next call: a function of seed, workload and number of earlier calls."""
        number = self._calls[workload]
        self._calls[workload] += 1
        key = (int.from_bytes(workload.encode(), "big"), number)
        return np.random.default_rng(np.random.SeedSequence(self._seed, spawn_key=key))


def _normal(rng: np.random.Generator, shape: tuple[int, ...]) -> Float32:
    return rng.standard_normal(shape, dtype=np.float32)


def _signs(rng: np.random.Generator, shape: tuple[int, ...]) -> Float32:
    return rng.choice(np.array([-1.0, 1.0], dtype=np.float32), size=shape)


def _is_integer(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _require_positive(**sizes: int) -> None:
    for name, size in sizes.items():
        if not _is_integer(size) or size < 1:
            raise ValueError(f"`{name}` must be a positive integer, got {size!r}")


def _checked_shape(shape: int | tuple[int, ...]) -> tuple[int, ...]:
    axes = shape if isinstance(shape, tuple | list) else (shape,)
    if not axes or not all(_is_integer(axis) and axis > 0 for axis in axes):
        raise ValueError(
            f"`shape` must be a positive integer or a tuple of such, with one axis or more, got {shape!r}"
        )
    return tuple(int(axis) for axis in axes)
