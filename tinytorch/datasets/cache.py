"""Where trained models are kept, and under which name."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any


def cache_folder() -> Path:
    """Return the folder of trained models: TINYTORCH_CACHE, or one in the platform's cache folder."""
    chosen = os.environ.get("TINYTORCH_CACHE")
    if chosen:
        return Path(chosen)
    if sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "tinytorch"


def cached_path(recipe: Any, data_hash: str, fold: tuple[int, int] | None, split: str) -> Path:
    """Return the file of a model, named by a hash of recipe and data: when either changes, so does it."""
    everything = {**asdict(recipe), "data": data_hash, "fold": fold, "split": split}
    del everything["expected_s"], everything["what"]  # what changes no weight
    key = hashlib.sha256(json.dumps(everything, sort_keys=True).encode()).hexdigest()
    return cache_folder() / f"{recipe.name}-{key[:16]}.safetensors"
