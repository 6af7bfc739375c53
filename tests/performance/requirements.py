"""What claims need of this machine, beside flags of the processor."""

from __future__ import annotations

from tinytorch.kernels import numba_problem
from tinytorch.kernels.choice import switched_off


def needs_numba() -> str | None:
    """Return the reason why compiled kernels cannot run here, or None."""
    if switched_off():
        return "needs compiled kernels, which TINYTORCH_KERNELS=reference switches off"
    problem = numba_problem()
    return None if problem is None else f"needs numba, which cannot be imported ({problem})"
