"""The Gaussian error linear unit in its tanh form, forward and backward.

`gelu(x) = x / 2 * (1 + tanh(u))` with `u = sqrt(2 / pi) * (x + 0.044715 x^3)` (Hendrycks and Gimpel 2016).
It differs from the form with the error function by at most 0.0005. Since (1 + tanh u) / 2 is the logistic
function of 2 u, that is computed, and kept for the gradient. The cube is made of products: `x**3` is
twenty times slower.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from tinytorch.kernels.choice import Kernel, compiled_or_none, fits

Array = NDArray[np.floating]

# 2 u = x (_LINEAR + _CUBIC x^2)
_LINEAR = 2 * math.sqrt(2 / math.pi)
_CUBIC = 0.044715 * _LINEAR

# NumPy's eight passes are as quick while all of it stays in the first-level cache.
_SMALLEST = 8192

# In the compiled loops exp is 2 to the power t = n + f with a whole n and |f| <= 1/2. The polynomial of f has
# the coefficients ln(2)^k / k! and is exact to 2e-8, below the rounding of float32; n becomes the exponent's
# bits.
_LOG2_E = np.float32(math.log2(math.e))
_C1, _C2, _C3, _C4, _C5, _C6 = (np.float32(math.log(2) ** k / math.factorial(k)) for k in range(1, 7))
# Below the one the power is no normal number and the logistic function 1; above the other it is infinite and
# the logistic function 0, so that no number however large is left of it.
_LOWEST, _HIGHEST = np.float32(-126), np.float32(128)
_FLOAT_LINEAR, _FLOAT_CUBIC, _FLOAT_SLOPE = np.float32(_LINEAR), np.float32(_CUBIC), np.float32(3 * _CUBIC)


def forward(x: Array) -> tuple[Array, Array]:
    """Return gelu(x), and the logistic function in it, which `backward` needs."""
    if fits(_SMALLEST, x) and (kernel := _forward_kernel()) is not None:
        out, logistic = np.empty_like(x), np.empty_like(x)
        kernel(x.reshape(-1), out.reshape(-1), logistic.reshape(-1))
        return out, logistic
    return forward_reference(x)


def backward(g: Array, x: Array, logistic: Array) -> Array:
    """Return the gradient with respect to x, from that of the result."""
    same = g.shape == x.shape == logistic.shape
    if same and fits(_SMALLEST, x, g, logistic) and (kernel := _backward_kernel()) is not None:
        of_x = np.empty_like(x)
        kernel(g.reshape(-1), x.reshape(-1), logistic.reshape(-1), of_x.reshape(-1))
        return of_x
    return backward_reference(g, x, logistic)


def forward_reference(x: Array) -> tuple[Array, Array]:
    """`forward` in NumPy; the logistic function by way of tanh, which is vectorised and never overflows."""
    number = x.dtype.type
    logistic = x * x
    logistic *= number(_CUBIC / 2)
    logistic += number(_LINEAR / 2)
    logistic *= x
    np.tanh(logistic, out=logistic)
    logistic += number(1)
    logistic *= number(0.5)
    return logistic * x, logistic


def backward_reference(g: Array, x: Array, logistic: Array) -> Array:
    """`backward` in NumPy: with s the logistic function, the derivative is s + x s (1 - s) (2 u)'."""
    number = x.dtype.type
    slope = x * x
    slope *= number(3 * _CUBIC)
    slope += number(_LINEAR)
    slope *= x
    rest = number(1) - logistic
    rest *= logistic
    slope *= rest
    slope += logistic
    slope *= g
    return slope


def _forward(x: Array, out: Array, logistic: Array) -> None:
    one, half = np.float32(1), np.float32(0.5)
    for i in range(x.size):
        v = x[i]
        t = -v * (_FLOAT_LINEAR + _FLOAT_CUBIC * v * v) * _LOG2_E
        t = min(max(t, _LOWEST), _HIGHEST)
        n = np.floor(t + half)
        f = t - n
        power = one + f * (_C1 + f * (_C2 + f * (_C3 + f * (_C4 + f * (_C5 + f * _C6)))))
        power *= np.int32((np.int32(n) + np.int32(127)) << np.int32(23)).view(np.float32)
        share = one / (one + power)
        # min and max let go of a NaN; the product with v has it again.
        logistic[i] = share
        out[i] = v * share


def _backward(g: Array, x: Array, logistic: Array, of_x: Array) -> None:
    one = np.float32(1)
    for i in range(x.size):
        v, share = x[i], logistic[i]
        of_x[i] = g[i] * (share + v * (_FLOAT_LINEAR + _FLOAT_SLOPE * v * v) * share * (one - share))


def _forward_kernel() -> Kernel | None:
    return compiled_or_none(_forward, f"void({', '.join(['float32[::1]'] * 3)})", _forward_agrees)


def _backward_kernel() -> Kernel | None:
    return compiled_or_none(_backward, f"void({', '.join(['float32[::1]'] * 4)})", _backward_agrees)


def _case() -> Array:
    return np.linspace(-12, 12, 333, dtype=np.float32)


def _forward_agrees(kernel: Kernel) -> bool:
    x = _case()
    out, logistic = np.empty_like(x), np.empty_like(x)
    kernel(x, out, logistic)
    expected = forward_reference(x)
    return np.allclose(out, expected[0], rtol=1e-5, atol=2e-6) and np.allclose(
        logistic, expected[1], atol=1e-6
    )


def _backward_agrees(kernel: Kernel) -> bool:
    x = _case()
    logistic, of_x = forward_reference(x)[1], np.empty_like(x)
    kernel(x[::-1].copy(), x, logistic, of_x)
    return np.allclose(of_x, backward_reference(x[::-1], x, logistic), rtol=1e-5, atol=1e-5)
