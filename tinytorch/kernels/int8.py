"""INT8 layers: packing, ranges, and products of bytes that add up exactly, in int32.

Weights are signed and symmetric, one scale for each output. Activations are unsigned with a zero point, of
the range of each row ("dynamic") or of one range that was calibrated ("fixed"): x is about
(byte - zero) * scale. The product of the bytes is an integer, and is corrected by zero times the sum of
the weights of an output; both fit into int32, which packing makes sure of.

A compiled kernel runs where the processor has instructions for it, each after it has agreed with the NumPy
reference here. TINYTORCH_INT8 names one of them, or "reference".
"""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tinytorch.kernels import FloatArray, compiled, numba_problem
from tinytorch.kernels.choice import REORDERED, enabled, switched_off

Bytes = NDArray[np.int8]
Unsigned = NDArray[np.uint8]
Integers = NDArray[np.int32]
Kernel = Callable[..., None]

#: outputs whose weights lie together, and inputs that one instruction multiplies
PANEL, GROUP = 16, 4
_TINY, _HUGE = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)
_LARGEST_SUM = 2**31 - 1
_FLOAT32 = np.dtype(np.float32)
# Without integer instructions weights are turned into floats as they are read, which pays while reading
# them takes longest: up to four rows.
_FEW_ROWS = 4
_DYNAMIC, _STATIC, _GIVEN = 0, 1, 2  # as in `int8_compiled`
_NO_INTEGERS, _NO_BYTES = np.empty((0, 0), np.int32), np.empty((0, 0), np.uint8)
_NO_ROWS = np.empty((0, 0), np.float32)


class Range(NamedTuple):
    """What a byte stands for: (byte - zero) * scale."""

    scale: float
    zero: int


class Packed(NamedTuple):
    """The weights of a linear layer, in the order in which kernels read them; all padded to whole panels.

    Attributes:
        panels: int8, shape (panels, inputs / 4, 16, 4).
        scales: float32, of each output.
        sums: int32, of the weights of each output.
        bias: float32, of each output.
    """

    panels: Bytes
    scales: FloatArray
    sums: Integers
    bias: FloatArray


def pack(q: Bytes, scales: FloatArray, bias: FloatArray | None) -> Packed:
    """Pack quantized weights of shape (inputs, outputs), and what belongs to each output.

    Raises:
        ValueError: sums of this many products could leave int32, a weight is -128, or there are not as many
            scales and biases as outputs.
    """
    inputs, outputs = q.shape
    check_sums(q, 0)
    check_lengths(outputs, scales, bias)
    rows, columns = -(-inputs // GROUP) * GROUP, -(-outputs // PANEL) * PANEL
    padded = np.zeros((rows, columns), np.int8)
    padded[:inputs, :outputs] = q
    panels = padded.reshape(rows // GROUP, GROUP, columns // PANEL, PANEL).transpose(2, 0, 3, 1)
    return Packed(
        np.ascontiguousarray(panels),
        _padded(scales, columns),
        padded.sum(axis=0, dtype=np.int32),
        _padded(np.zeros(outputs, np.float32) if bias is None else bias, columns),
    )


def unpack(panels: Bytes, inputs: int, outputs: int) -> Bytes:
    """Return the weights of shape (inputs, outputs) out of their panels."""
    count, groups = panels.shape[:2]
    weights = panels.transpose(1, 3, 0, 2).reshape(groups * GROUP, count * PANEL)
    return np.ascontiguousarray(weights[:inputs, :outputs])


def check_sums(q: Bytes, axis: int | tuple[int, ...]) -> None:
    """Refuse weights whose products with any bytes, added up over `axis`, could leave int32.

    -128 is refused as well: some instructions saturate at twice the product of two such bytes.
    """
    if q.min(initial=0) < -127:
        raise ValueError("`weight` must be -127 to 127 as int8, got -128: quantize it symmetrically")
    largest = 255 * int(np.abs(q.astype(np.int16)).sum(axis=axis, dtype=np.int64).max(initial=0))
    if largest > _LARGEST_SUM:
        raise ValueError(
            f"`weight` is too long for sums in int32: they could reach {largest}, beyond {_LARGEST_SUM}; "
            "leave this layer in FP32"
        )


def check_lengths(outputs: int, scales: FloatArray, bias: FloatArray | None) -> None:
    """Refuse scales and biases that are not one number for each output."""
    for name, values in (("scales", scales), ("bias", bias)):
        if values is not None and values.shape != (outputs,):
            raise ValueError(f"`{name}` must have shape ({outputs},), got {values.shape}")


def linear(x: FloatArray, packed: Packed, outputs: int, fixed: Range | None) -> FloatArray:
    """Return the layer's outputs, shape (rows, outputs).

    Args:
        x: contiguous float32, shape (rows, inputs). A row that holds NaN or infinity becomes NaN.
        packed: of as many inputs.
        outputs: how many, without padding.
        fixed: range of the activations; that of each row unless given.

    Raises:
        ValueError: the arrays do not fit each other, or no byte can have this range.
    """
    _check(x, packed, outputs)
    check_range(fixed)
    name, kernel = integer_kernel()
    out = np.empty((len(x), outputs), np.float32)
    if kernel is not None:
        _run(kernel, x, packed, outputs, fixed, out)
        return out
    if name == "weight-only":
        return _in_floats(x, packed, outputs, fixed)
    return linear_reference(x, packed, outputs, fixed)


def linear_reference(x: FloatArray, packed: Packed, outputs: int, fixed: Range | None) -> FloatArray:
    """The same in NumPy."""
    quantized, scales, zeros = quantized_rows(x, fixed)
    weights = unpack(packed.panels, x.shape[1], outputs)
    exact = products_reference(quantized, weights) - zeros[:, None] * packed.sums[:outputs]
    total = exact.astype(np.float32) * (packed.scales[:outputs] * scales[:, None])
    return np.asarray(total + packed.bias[:outputs], np.float32)


def products(quantized: Unsigned, packed: Packed, outputs: int) -> Integers:
    """Return the exact products of bytes (rows, inputs) with the weights, by the loops that `linear` runs.

    Raises:
        ValueError: `quantized` holds no bytes, or does not fit the weights.
    """
    groups, columns = packed.panels.shape[1], packed.panels.shape[0] * PANEL
    if quantized.ndim != 2 or quantized.dtype != np.uint8 or groups != -(-quantized.shape[1] // GROUP):
        raise ValueError(
            f"`quantized` must be uint8 of up to {groups * GROUP} inputs, got {quantized.dtype} of shape "
            f"{quantized.shape}"
        )
    if not columns - PANEL < outputs <= columns:
        raise ValueError(f"`outputs` must be as many as were packed, at most {columns}, got {outputs}")
    kernel = integer_kernel()[1]
    if kernel is None:
        return products_reference(quantized, unpack(packed.panels, quantized.shape[1], outputs))
    out = np.empty((len(quantized), outputs), np.int32)
    _run_given(kernel, quantized, packed, outputs, out)
    return out


def products_reference(quantized: Unsigned, weights: Bytes) -> Integers:
    """The same in NumPy: float64 holds these sums exactly, and BLAS multiplies it; integers have no BLAS."""
    return np.asarray(quantized.astype(np.float64) @ weights.astype(np.float64), np.int32)


def quantized_rows(x: FloatArray, fixed: Range | None) -> tuple[Unsigned, FloatArray, Integers]:
    """Return bytes, and scale and zero of each row; the scale of a row that is not finite is NaN."""
    finite = np.asarray(np.isfinite(x).all(axis=1))
    rows = np.where(finite[:, None], x, np.float32(0))
    if fixed is None:
        scales, zeros = dynamic_ranges(rows)
    else:
        scales = np.full(len(x), fixed.scale, np.float32)
        zeros = np.full(len(x), fixed.zero, np.int32)
    low, high = -zeros[:, None].astype(np.float32), (255 - zeros)[:, None].astype(np.float32)
    with np.errstate(over="ignore"):
        inverse = np.float32(1) / scales
        steps = np.rint(np.clip(rows * inverse[:, None], low, high)).astype(np.int32)
    scales[~finite] = np.nan
    zeros = np.where(finite, zeros, 0).astype(np.int32) if fixed is None else zeros
    return (steps + zeros[:, None]).astype(np.uint8), scales, zeros


def dynamic_ranges(rows: FloatArray) -> tuple[FloatArray, Integers]:
    """Return scale and zero of each row, for its smallest and largest number, and zero."""
    top = np.maximum(rows.max(axis=1, initial=0), 0).astype(np.float64)
    bottom = np.minimum(rows.min(axis=1, initial=0), 0).astype(np.float64)
    scales = np.maximum((top - bottom) / 255, _TINY).astype(np.float32)
    scales[top == bottom] = 1
    return scales, np.rint(-bottom / scales).astype(np.int32)


def describe() -> str:
    """Say which INT8 kernel runs here, and why."""
    name, kernel = integer_kernel()
    if kernel is not None:
        return f"{name}: integer products in vector instructions"
    if name == "weight-only":
        return (
            "weight-only: this processor has no instructions for products of bytes that are known here; "
            f"products are in FP32, of up to {_FEW_ROWS} rows with weights read as INT8, of more with a copy "
            "of them in FP32, and activations are rounded where their range is fixed"
        )
    return f"reference: NumPy, because {_no_kernel_because()}; correct, and slower than FP32"


def _no_kernel_because() -> str:
    """Say why no compiled kernel runs."""
    if problem := numba_problem():
        return f"numba is missing ({problem})"
    if switched_off():
        return "TINYTORCH_KERNELS=reference asks for it"
    asked = os.environ.get("TINYTORCH_INT8", "auto")
    if asked == "reference":
        return "TINYTORCH_INT8=reference asks for it"
    from tinytorch.kernels.dots import VARIANTS, runs_here

    if any(variant.name == asked and not runs_here(variant) for variant in VARIANTS):
        return f"TINYTORCH_INT8 asks for {asked}, whose instructions this processor lacks"
    return f"{'no compiled kernel' if asked == 'auto' else asked} agreed with it"


@functools.cache
def integer_kernel() -> tuple[str, Kernel | None]:
    """Return name and loops of the first variant that this processor has and that agrees with NumPy."""
    way = chosen_way()
    if isinstance(way, str):
        return way, None
    from tinytorch.kernels.dots import VARIANTS

    return VARIANTS[way].name, linear_kernel(way)


@functools.cache
def chosen_way() -> int | str:
    """Return the index of the variant that runs, or "weight-only" or "reference".

    Raises:
        ValueError: TINYTORCH_INT8 names nothing there is.
    """
    asked = os.environ.get("TINYTORCH_INT8", "auto")
    if not enabled():
        return "reference"
    from tinytorch.kernels.dots import VARIANTS, runs_here

    names = [variant.name for variant in VARIANTS]
    if asked not in {"auto", "reference", "weight-only", *names}:
        raise ValueError(
            f"TINYTORCH_INT8 must be auto, {', '.join(names)}, weight-only or reference, got {asked!r}"
        )
    if asked in {"reference", "weight-only"}:
        return asked
    for way, variant in enumerate(VARIANTS):
        if asked not in {"auto", variant.name}:
            continue
        if not runs_here(variant):
            if asked == variant.name:
                warnings.warn(
                    f"TINYTORCH_INT8 asks for {asked}, whose instructions this processor lacks; the NumPy "
                    "reference runs",
                    RuntimeWarning,
                    stacklevel=2,
                )
            continue
        if linear_kernel(way) is not None:
            return way
    return "weight-only" if asked == "auto" and _weight_only_kernel() is not None else "reference"


@functools.cache
def linear_kernel(way: int) -> Kernel | None:
    """Return the compiled loops of a variant; None where they disagree with NumPy, which is warned of."""
    from tinytorch.kernels.int8_compiled import linear_body

    one, two = "float32[::1]", "float32[:,::1]"
    signature = (
        f"void({two}, uint8[:,::1], int8[:,:,:,::1], {one}, int32[::1], {one}, intp, float32, int32, "
        f"int32[:,::1], {two})"
    )
    return agreed(compiled(linear_body(way), signature), _linear_agrees, "int8_linear", way)


@functools.cache
def _weight_only_kernel() -> Kernel | None:
    from tinytorch.kernels.int8_compiled import weight_only

    one, two = "float32[::1]", "float32[:,::1]"
    kernel = compiled(weight_only, f"void({two}, int8[:,:,:,::1], {one}, {one}, {one}, {two})", REORDERED)
    return agreed(kernel, _weight_only_agrees, "weight_only", None)


def agreed(kernel: Kernel, agrees: Callable[[Kernel], bool], name: str, way: int | None) -> Kernel | None:
    """Return the kernel if it agrees with its reference; otherwise warn, and return None."""
    if agrees(kernel):
        return kernel
    warnings.warn(
        f"the compiled kernel {name}{'' if way is None else f' of variant {way}'} differs from its NumPy "
        "reference on this machine and is not used",
        RuntimeWarning,
        stacklevel=3,
    )
    return None


def _in_floats(x: FloatArray, packed: Packed, outputs: int, fixed: Range | None) -> FloatArray:
    """Return the layer's outputs without products of bytes."""
    rows = x
    if fixed is not None:
        with np.errstate(over="ignore", invalid="ignore"):
            steps = np.rint(x / np.float32(fixed.scale))
            rows = np.clip(steps, -fixed.zero, 255 - fixed.zero) * np.float32(fixed.scale)
        rows = np.where(np.isfinite(x), rows, np.float32(np.nan)).astype(np.float32, copy=False)
    if len(x) <= _FEW_ROWS:
        return _weight_only(rows, packed, outputs)
    known = np.asarray(np.isfinite(rows).all(axis=1))
    weights = unpack(packed.panels, x.shape[1], outputs) * packed.scales[:outputs]
    out: FloatArray = np.where(known[:, None], rows, np.float32(0)) @ weights
    out += packed.bias[:outputs]
    out[~known] = np.nan
    return out


def _weight_only(x: FloatArray, packed: Packed, outputs: int, kernel: Kernel | None = None) -> FloatArray:
    kernel = kernel or _weight_only_kernel()
    assert kernel is not None  # or another way would have been chosen
    out = np.empty((len(x), outputs), np.float32)
    spread = packed.panels.shape[1] * GROUP
    rows = x
    if spread > x.shape[1]:
        rows = np.zeros((len(x), spread), np.float32)
        rows[:, : x.shape[1]] = x
    sums = np.empty(PANEL, np.float32)
    called(kernel, rows, packed.panels, packed.scales[:outputs], packed.bias, sums, out)
    out[~np.isfinite(x).all(axis=1)] = np.nan
    return out


def check_range(fixed: Range | None) -> None:
    """Refuse a range that bytes cannot have: what lies outside of float32 becomes no number, or any."""
    if fixed is not None and not (_TINY <= fixed.scale <= _HUGE and 0 <= fixed.zero <= 255):
        raise ValueError(
            f"`fixed` must have a scale of {_TINY:.1e} to {_HUGE:.1e} and a zero of 0 to 255, got {fixed}"
        )


def _check(x: FloatArray, packed: Packed, outputs: int) -> None:
    """Refuse what compiled code would misread, as it goes by addresses.

    That arrays are contiguous and of the right types the kernel checks by itself.
    """
    panels, scales, sums, bias = packed
    given, shape = x.shape, panels.shape
    if len(given) != 2 or x.dtype != _FLOAT32 or len(shape) != 4 or shape[2:] != (PANEL, GROUP):
        raise ValueError(f"`x` must be float32 of shape (rows, inputs), got {x.dtype} {given}")
    count = shape[0] * PANEL
    if shape[1] != -(-given[1] // GROUP) or not count - PANEL < outputs <= count:
        raise ValueError(
            f"`packed` must hold weights of {x.shape[1]} inputs and {outputs} outputs, got {panels.shape}"
        )
    if not scales.size == sums.size == bias.size == count:
        raise ValueError(f"`packed` must hold {count} scales, sums and biases")


def _run(
    kernel: Kernel, x: FloatArray, packed: Packed, outputs: int, fixed: Range | None, out: FloatArray
) -> None:
    panels, scales, sums, bias = packed
    mode, scale, zero = (_DYNAMIC, 1.0, 0) if fixed is None else (_STATIC, *fixed)
    called(kernel, x, _NO_BYTES, panels, scales[:outputs], sums, bias, mode, scale, zero, _NO_INTEGERS, out)


def _run_given(kernel: Kernel, quantized: Unsigned, packed: Packed, outputs: int, out: Integers) -> None:
    panels, scales, sums, bias = packed
    given = np.zeros((len(quantized), panels.shape[1] * GROUP), np.uint8)
    given[:, : quantized.shape[1]] = quantized
    called(kernel, _NO_ROWS, given, panels, scales[:outputs], sums, bias, _GIVEN, 1.0, 0, out, _NO_ROWS)


def called(kernel: Kernel, *arguments: Any) -> None:
    """Run compiled loops; where arrays are not writable or not aligned, which numba refuses, on copies.

    Raises:
        ValueError: an array is not contiguous, or of another type.
    """
    try:
        kernel(*arguments)
    except TypeError as error:
        arrays = [a for a in arguments if isinstance(a, np.ndarray)]
        if all(a.flags.behaved for a in arrays):
            kinds = ", ".join(f"{a.dtype} {a.strides}" for a in arrays)
            raise ValueError(
                f"`x` and `packed` must be contiguous arrays of their types, got, with strides, {kinds}"
            ) from error
        copied = (a.copy() if isinstance(a, np.ndarray) and not a.flags.behaved else a for a in arguments)
        called(kernel, *copied)


def _padded(values: Any, length: int) -> FloatArray:
    padded = np.zeros(length, np.float32)
    padded[: len(values)] = values
    return padded


def _case() -> tuple[FloatArray, Packed, int]:
    """Return rows of every kind, and weights that take whole tiles and parts of them."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((11, 23), np.float32)
    x[1], x[2], x[3, 5], x[4, 1], x[5] = 0, np.abs(x[2]), np.nan, -np.inf, 1e-38 * x[5]
    q = rng.integers(-127, 128, (23, 83)).astype(np.int8)
    q[:, 0], q[:, 82] = 127, -127
    scales, bias = rng.random(83, np.float32), rng.standard_normal(83, np.float32)
    return x, pack(q, scales, bias), 83


def _linear_agrees(kernel: Kernel) -> bool:
    x, packed, outputs = _case()
    weights = unpack(packed.panels, x.shape[1], outputs)
    for fixed in (None, Range(0.02, 100)):
        expected = linear_reference(x, packed, outputs, fixed)
        out = np.empty((len(x), outputs), np.float32)
        _run(kernel, x, packed, outputs, fixed, out)
        if not np.allclose(out, expected, rtol=1e-5, atol=1e-5, equal_nan=True):
            return False
    extreme = np.random.default_rng(1).integers(0, 256, (11, 23)).astype(np.uint8)
    extreme[0], extreme[1] = 255, 128
    integers = np.empty((11, outputs), np.int32)
    _run_given(kernel, extreme, packed, outputs, integers)
    return np.array_equal(integers, extreme.astype(np.int64) @ weights.astype(np.int64))


def _weight_only_agrees(kernel: Kernel) -> bool:
    x, packed, outputs = _case()
    weights = unpack(packed.panels, x.shape[1], outputs) * packed.scales[:outputs]
    with np.errstate(invalid="ignore"):
        expected = x @ weights + packed.bias[:outputs]
    expected[~np.isfinite(x).all(axis=1)] = np.nan
    found = _weight_only(x, packed, outputs, kernel)
    return np.allclose(found, expected, rtol=1e-4, atol=1e-3, equal_nan=True)
