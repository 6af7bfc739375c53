"""Models as files: what they are built of, and their parameters."""

from __future__ import annotations

import os
from typing import Any

import tinytorch
from tinytorch.core.checkpoints import read_arrays, write_arrays
from tinytorch.core.layers import Layer, Sequential


def save_model(model: Layer, path: str | os.PathLike[str]) -> None:
    """Write a model to exactly `path`.

    Raises:
        ValueError: `model` is no Layer.
        OSError: the file cannot be written; an older one is still there.
    """
    if not isinstance(model, Layer):
        raise ValueError(f"`model` must be a Layer, got {type(model).__name__}")
    write_arrays(path, model.state_dict(), {"kind": "model", "model": _described(model)})


def load_model(path: str | os.PathLike[str], model: Layer | None = None) -> Layer:
    """Return the model that `save_model` wrote; its outputs are the same bits.

    Args:
        path: of the file.
        model: where to load it into. A model that is made of this package's layers alone needs none.

    Raises:
        ValueError: the file is damaged or no model, a class in it is not of this package and `model` is
            missing, or `model` is made otherwise; then it was not changed.
        OSError: the file cannot be read.
    """
    arrays, about = read_arrays(path)
    if about.get("kind") != "model":
        raise ValueError(f"'{path}' holds no model, but a {about.get('kind')}")
    target = _built(about["model"], path) if model is None else model
    try:
        target.load_state_dict(arrays)
    except ValueError as error:
        raise ValueError(f"'{path}' holds another model than {target!r}: {error}") from error
    return target


def _described(layer: Any) -> dict[str, Any]:
    name = type(layer).__name__
    if type(layer) is Sequential:
        return {"class": name, "layers": [_described(item) for item in layer]}
    known = isinstance(layer, Layer) and _known(name) is type(layer)
    return {"class": name, "config": layer.config() if known else None}


def _built(description: dict[str, Any], path: Any) -> Layer:
    name = description["class"]
    if name == "Sequential":
        return Sequential(*[_built(item, path) for item in description["layers"]])
    kind = _known(name)
    if kind is None or description["config"] is None:
        raise ValueError(
            f"'{path}' holds a layer of the class {name!r}, which is not of this package: make the model "
            "yourself and pass it as `model`"
        )
    arguments = {k: tuple(v) if isinstance(v, list) else v for k, v in description["config"].items()}
    built: Layer = kind(**arguments)
    return built


def _known(name: str) -> Any:
    """Return the layer class of this package with that name, or None; nothing else is ever imported."""
    kind = getattr(tinytorch, name) if name in tinytorch.__all__ else None
    return kind if isinstance(kind, type) and issubclass(kind, Layer) else None
