"""A small NumPy deep-learning framework whose optimisations are real and can be audited.

Names are imported when they are first used, so `import tinytorch` itself loads nothing else.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tinytorch.core.tensor import Tensor as Tensor

    __version__: str

__all__ = ["Tensor", "__version__"]

_HOMES = {"Tensor": "tinytorch.core.tensor"}


def __getattr__(name: str) -> object:
    if name == "__version__":
        value: object = _version()
    elif name in _HOMES:
        value = getattr(import_module(_HOMES[name]), name)
    else:
        raise AttributeError(f"module 'tinytorch' has no attribute {name!r}")
    globals()[name] = value  # the next access does not come here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _version() -> str:
    from importlib import metadata

    try:
        return metadata.version("perfclaims")  # the distribution that holds both packages
    except metadata.PackageNotFoundError:
        return "0+unknown"
