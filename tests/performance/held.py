"""What a model takes: the memory that it keeps alive, its file, and what comes back from the file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import tinytorch as tt
from perfclaims.memory import peak_memory, stored_bytes

# A model is also Python objects, 4 kB of them for those measured here, and no place for weights.
OBJECTS_BYTES = 16_384
Made = TypeVar("Made")


def made_and_held(make: Callable[[], Made]) -> tuple[Made, int, int]:
    """Make a model, or what belongs to one, and count what it keeps.

    Returns:
        What was made; the bytes of all arrays that can be reached from it, also through views, slots,
        containers and closures; and those that making it left allocated beside them, wherever that is.
    """
    make()  # imports and compiles
    made: list[Made] = []
    kept = peak_memory(lambda: made.append(make())).retained_bytes
    held = held_bytes(made[0])
    return made[0], held, max(0, kept - held)


def held_bytes(model: object) -> int:
    """Bytes of all arrays that can be reached from a model, or from what belongs to one."""
    return stored_bytes(model)


def saved_and_loaded(model: tt.Layer) -> tuple[int, tt.Layer]:
    """Size of a model's file, and the model that it holds."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        tt.save_model(model, path)
        return path.stat().st_size, tt.load_model(path)
