"""Where random numbers come from when nobody passes a generator."""

from __future__ import annotations

import numpy as np

_DEFAULT = np.random.default_rng()


def manual_seed(seed: int) -> None:
    """Seed the default generator, which layers draw from when they are made without an `rng`.

    Raises:
        ValueError: `seed` is not a whole number of zero or more.
    """
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise ValueError(f"`seed` must be a whole number of zero or more, got {seed!r}")
    _DEFAULT.bit_generator.state = np.random.default_rng(int(seed)).bit_generator.state


def generator(rng: np.random.Generator | None = None) -> np.random.Generator:
    """Return `rng`, or the default generator.

    Raises:
        ValueError: `rng` is something else.
    """
    if rng is None:
        return _DEFAULT
    if not isinstance(rng, np.random.Generator):
        raise ValueError(
            f"`rng` must be a np.random.Generator, got {rng!r}: np.random.default_rng(seed) makes one"
        )
    return rng


def spawned(rng: np.random.Generator | None = None) -> np.random.Generator:
    """Return a new generator of its own, seeded from `rng` or the default generator."""
    return np.random.default_rng(generator(rng).integers(2**63))
