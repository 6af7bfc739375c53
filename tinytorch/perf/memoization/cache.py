"""The keys and values of earlier positions."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinytorch.core.checks import positive_int, whole
from tinytorch.core.tensor import Tensor, array_of, wrap
from tinytorch.kernels.decoding import as_bytes

Array = NDArray[np.float32]
_DTYPES = ("float32", "int8")


class KVCache:
    """Keys and values of all layers, heads and positions, in memory that is allocated once.

    A step puts keys and values of the new positions into every layer with `update`, and then calls
    `advance` once: only then do they count, so a step that failed half-way leaves nothing behind.

    Args:
        batch_size: number of sequences.
        max_seq_len: how many positions there is room for.
        num_layers: of the model.
        num_heads: in each layer.
        head_dim: width of a head.
        dtype: "float32", or "int8" with a scale for each vector: a quarter of the memory, and not exact.
        window: if given, only so many positions are kept, the latest, and older ones are overwritten; there
            is then no end to how many there may be.

    Attributes:
        length: number of positions that were advanced over.
        capacity: number of positions that are kept at most.

    Raises:
        ValueError: a size is not a positive whole number, `window` is larger than `max_seq_len`, or `dtype`
            is another.
    """

    def __init__(
        self, batch_size: int, max_seq_len: int, num_layers: int, num_heads: int, head_dim: int,
        *, dtype: str = "float32", window: int | None = None,
    ) -> None:  # fmt: skip
        if dtype not in _DTYPES:
            raise ValueError(f"`dtype` must be one of {', '.join(_DTYPES)}, got {dtype!r}")
        self.max_seq_len = positive_int(max_seq_len, "max_seq_len")
        self.num_layers = positive_int(num_layers, "num_layers")
        self.num_heads = positive_int(num_heads, "num_heads")
        self.head_dim = positive_int(head_dim, "head_dim")
        self.window = None if window is None else positive_int(window, "window")
        if self.window is not None and self.window > self.max_seq_len:
            raise ValueError(
                f"`window` (={window}) must be at most `max_seq_len` (={max_seq_len}), the room there is"
            )
        self.dtype = dtype
        self.capacity = self.max_seq_len if self.window is None else min(self.window, self.max_seq_len)
        self._allocate(positive_int(batch_size, "batch_size"))

    def _allocate(self, batch_size: int) -> None:
        self.batch_size = batch_size
        shape = (batch_size, self.num_heads, self.capacity, self.head_dim)
        self.keys, self.values = (
            [np.zeros(shape, self.dtype) for _ in range(self.num_layers)] for _ in range(2)
        )
        scaled = (2, *shape[:3]) if self.dtype == "int8" else (0, 0, 0, 0)
        self.scales = [np.zeros(scaled, np.float32) for _ in range(self.num_layers)]
        self.reset()

    def reset(self) -> None:
        """Forget everything; the memory stays allocated."""
        self.length = 0
        self._written = [0] * self.num_layers
        self._reached = [0] * self.num_layers  # by `update`, also where fewer were written after that

    def begin(self, batch_size: int) -> None:
        """Forget everything, and make room for another number of sequences if it differs.

        Raises:
            ValueError: `batch_size` is not a positive whole number.
        """
        if batch_size != self.batch_size:
            self._allocate(positive_int(batch_size, "batch_size"))
        self.reset()

    def rewind(self, length: int) -> None:
        """Forget the positions from `length` on.

        Raises:
            ValueError: there are fewer positions, or those before have been overwritten within the window.
        """
        if not 0 <= whole(length, "length") <= self.length:
            raise ValueError(f"cannot go back to {length} positions: the cache holds {self.length}")
        # More than `length` where a step failed half-way; without a window nothing is overwritten.
        reached = 0 if self.window is None else max(*self._written, *self._reached)
        if (length < self.length and self.length > self.capacity) or reached > max(self.capacity, length + 1):
            raise ValueError(
                f"cannot go back from {reached} to {length} positions: a window of {self.capacity} "
                "has overwritten what lies before; reset() forgets everything"
            )
        self.length = length
        if reached <= self.capacity:
            self._written = [length] * self.num_layers

    def update(self, layer: int, k: Any, v: Any) -> None:
        """Put keys and values of new positions into a layer, after those that were advanced over.

        Args:
            layer: its index.
            k, v: shape (batch_size, num_heads, T, head_dim).

        Raises:
            ValueError: there is no such layer, no room, or the shapes differ.
        """
        keys, values = array_of(k, "k"), array_of(v, "v")
        self._check(layer, keys, values)
        count = keys.shape[2]
        self._check_room(count)
        kept = min(count, self.capacity)  # of more, within a window, only the last remain
        slots = np.arange(self.length + count - kept, self.length + count) % self.capacity
        for which, (new, stored) in enumerate(((keys, self.keys[layer]), (values, self.values[layer]))):
            recent = new[:, :, count - kept :]
            if self.dtype == "int8":
                stored[:, :, slots], self.scales[layer][which][:, :, slots] = as_bytes(recent)
            else:
                stored[:, :, slots] = recent
        self._written[layer] = self.length + count
        self._reached[layer] = max(self._reached[layer], self.length + count)

    def advance(self, n: int = 1) -> None:
        """Count the `n` positions that were put in.

        Raises:
            ValueError: there is no room for them.
        """
        count = positive_int(n, "n")
        self._check_room(count)
        self.length += count

    def get(self, layer: int) -> tuple[Tensor, Tensor]:
        """Return keys and values of a layer, in order, each (batch_size, num_heads, length, head_dim).

        Within a window they are those of the last positions. They are copies.

        Raises:
            ValueError: as for `ordered`.
        """
        keys, values = self.ordered(layer)
        return wrap(keys), wrap(values)

    def ordered(self, layer: int) -> tuple[Array, Array]:
        """Return copies of what is kept, as float32, from the earliest position on.

        Raises:
            ValueError: the cache is empty, there is no such layer, it lacks positions that were counted, or
                within a window some of those were overwritten by others that are not counted yet.
        """
        self._check_layer(layer)
        if self.length == 0:
            raise ValueError("the cache is empty: call update() and advance(), after reset() too")
        written = self._written[layer]
        if written < self.length:
            raise ValueError(f"layer {layer} holds {written} of {self.length} positions: update() it too")
        reached = max(written, self._reached[layer])
        if reached > max(self.length, self.capacity):
            raise ValueError(
                f"layer {layer} was given {reached} positions, of which {self.length} are counted, in a "
                f"window of {self.capacity}: the earliest were overwritten; call advance() first, or reset()"
            )
        start = max(0, self.length - self.capacity)
        slots = np.arange(start, self.length) % self.capacity
        found = []
        for which, stored in enumerate((self.keys[layer], self.values[layer])):
            kept = stored[:, :, slots].astype(np.float32)
            if self.dtype == "int8":
                kept *= self.scales[layer][which][:, :, slots][..., None]
            found.append(kept)
        return found[0], found[1]

    def get_memory_usage(self) -> dict[str, float]:
        """Return the bytes of all that is allocated, in megabytes (1e6) too, and of each part."""
        n_bytes = sum(array.nbytes for arrays in (self.keys, self.values) for array in arrays)
        scale_bytes = sum(array.nbytes for array in self.scales)
        total = n_bytes + scale_bytes
        return {
            "bytes": total,
            "total_mb": total / 1e6,
            "keys_and_values_bytes": n_bytes,
            "scales_bytes": scale_bytes,
            "bytes_per_position": total / self.capacity,
        }

    def room(self, start: int, count: int) -> None:
        """Check that `count` positions from `start` on, of those held or right after them, fit.

        Raises:
            ValueError: they do not.
        """
        if start > self.length:
            raise ValueError(
                f"`start_pos` (={start}) is beyond the {self.length} positions that the cache holds"
            )
        if self.window is None and start + count > self.max_seq_len:
            raise ValueError(
                f"{start + count} positions do not fit into a cache of {self.max_seq_len}: enable it with a "
                "larger `max_seq_len`, or with a `window`"
            )

    def _check(self, layer: int, k: Array, v: Array) -> None:
        self._check_layer(layer)
        expected = (self.batch_size, self.num_heads, self.head_dim)
        for name, array in (("k", k), ("v", v)):
            if array.ndim != 4 or (*array.shape[:2], array.shape[3]) != expected or array.shape != k.shape:
                raise ValueError(
                    f"`{name}` must have shape ({self.batch_size}, {self.num_heads}, T, {self.head_dim}), "
                    f"the same T for both, got {array.shape}"
                )
        if k.shape[2] == 0:
            raise ValueError("`k` and `v` must hold a position, got none")

    def _check_layer(self, layer: int) -> None:
        if not 0 <= whole(layer, "layer") < self.num_layers:
            raise ValueError(f"`layer` must be 0 to {self.num_layers - 1}, got {layer}")

    def _check_room(self, count: int) -> None:
        if self.window is None and self.length + count > self.max_seq_len:
            raise ValueError(
                f"the cache is full: it holds {self.length} of {self.max_seq_len} positions, {count} more "
                "do not fit; reset() forgets them"
            )

    def __repr__(self) -> str:
        sizes = (self.batch_size, self.max_seq_len, self.num_layers, self.num_heads, self.head_dim)
        return f"KVCache({', '.join(map(str, sizes))}, dtype={self.dtype!r}, length={self.length})"
