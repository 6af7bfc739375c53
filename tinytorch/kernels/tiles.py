"""Register tiles: the innermost loops of fused products, written for LLVM directly.

A tile is a grid of ROWS x COLUMNS sums, each a vector of LANES numbers, that stays in the processor's
registers while a loop adds products to it. NumPy-style loops cannot ask for that. The vectors are LLVM's
generic ones: a processor without registers of that width gets several narrower instructions, never an
unknown one. Addresses are plain integers and nothing is checked here; whoever calls has to.

This module imports numba, so import it only where a kernel is compiled.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from typing import Any

from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_BYTES = 4  # of a float32
# Numba has no types for these, and a wrong one for its decorator.
_cg: Any = cgutils
_intrinsic: Any = intrinsic


def _shape() -> tuple[int, int]:
    """Return lanes and rows: full registers, and as many sums as leave room for the operands."""
    try:
        features = dict(binding.get_host_cpu_features())
    except RuntimeError:  # LLVM does not know this processor
        features = {}
    if features.get("avx512f"):
        return 16, 8  # 32 registers of 16
    if features.get("avx"):
        return 8, 4  # 16 registers of 8
    return 4, 8 if platform.machine().lower() in {"arm64", "aarch64"} else 4  # 32 or 16 registers of 4


LANES, ROWS = _shape()
COLUMNS = 3

_FLOAT, _INT = ir.FloatType(), ir.IntType(64)
_VECTOR = ir.VectorType(_FLOAT, LANES)

Operands = Callable[[Any], tuple[list[Any], list[Any]]]


@_intrinsic  # type: ignore[untyped-decorator]
def sums_of_shifted(_: Any, line: Any, offsets: Any, weights: Any, count: Any, out: Any, pitch: Any) -> Any:
    """out[r, p] = sum over k of weights[k, r] * line[offsets[k] + p], for ROWS r and COLUMNS * LANES p.

    All arguments are addresses but `count`, the number of k, and `pitch`, the numbers in a row of `out`.
    """

    def generate(target: Any, b: ir.IRBuilder, _: Any, arguments: Any) -> Any:
        line, offsets, weights, count, out, pitch = arguments

        def operands(k: Any) -> tuple[list[Any], list[Any]]:
            start = _plus(b, line, b.mul(_load(b, _INT, offsets, b.mul(k, _INT(8))), _INT(_BYTES)))
            column = _plus(b, weights, b.mul(k, _INT(ROWS * _BYTES)))
            return (
                [_everywhere(b, _load(b, _FLOAT, column, _INT(r * _BYTES))) for r in range(ROWS)],
                [_load(b, _VECTOR, start, _INT(c * LANES * _BYTES)) for c in range(COLUMNS)],
            )

        sums = _sums(b)
        _accumulate(b, sums, count, operands)
        for r, row in enumerate(sums):
            for c, total in enumerate(row):
                place = _plus(b, out, b.mul(pitch, _INT(r * _BYTES)))
                _store(b, b.load(total), place, _INT(c * LANES * _BYTES))
        return target.get_dummy_value()

    return types.void(line, offsets, weights, count, out, pitch), generate


@_intrinsic  # type: ignore[untyped-decorator]
def add_products(
    _: Any, left: Any, pitch: Any, line: Any, offsets: Any, count: Any, sums: Any, step: Any
) -> Any:
    """sums[r, c] += sum over i of left[r, i] * line[offsets[c] + i], for ROWS r and COLUMNS c.

    Each sum is kept as LANES partial ones. `left`, `line`, `offsets` and `sums` are addresses; `pitch`
    and `step` are the numbers in a row of `left` and of `sums`; `count` is that of i, over LANES.
    """

    def generate(target: Any, b: ir.IRBuilder, _: Any, arguments: Any) -> Any:
        left, pitch, line, offsets, count, sums, step = arguments
        rows = [_plus(b, left, b.mul(pitch, _INT(r * _BYTES))) for r in range(ROWS)]
        columns = [
            _plus(b, line, b.mul(_load(b, _INT, offsets, _INT(c * 8)), _INT(_BYTES))) for c in range(COLUMNS)
        ]

        def operands(i: Any) -> tuple[list[Any], list[Any]]:
            here = b.mul(i, _INT(LANES * _BYTES))
            return [_load(b, _VECTOR, row, here) for row in rows], [
                _load(b, _VECTOR, column, here) for column in columns
            ]

        totals = _sums(b)
        _accumulate(b, totals, count, operands)
        for r, row in enumerate(totals):
            place = _plus(b, sums, b.mul(step, _INT(r * _BYTES)))
            for c, total in enumerate(row):
                at = _INT(c * LANES * _BYTES)
                _store(b, b.fadd(_load(b, _VECTOR, place, at), b.load(total)), place, at)
        return target.get_dummy_value()

    return types.void(left, pitch, line, offsets, count, sums, step), generate


def _sums(b: ir.IRBuilder) -> list[list[Any]]:
    """Return a grid of variables at zero; LLVM keeps them in registers."""
    grid: list[list[Any]] = [[_cg.alloca_once(b, _VECTOR) for _ in range(COLUMNS)] for _ in range(ROWS)]
    for row in grid:
        for total in row:
            b.store(ir.Constant(_VECTOR, None), total)
    return grid


def _accumulate(b: ir.IRBuilder, sums: list[list[Any]], count: Any, operands: Operands) -> None:
    """Loop `count` times, adding the products of all row operands with all column operands."""
    # Fused where the processor can, otherwise a product and a sum: `llvm.fma` would call a slow function.
    fused = _cg.get_or_insert_function(
        b.module, ir.FunctionType(_VECTOR, [_VECTOR] * 3), f"llvm.fmuladd.v{LANES}f32"
    )
    with _cg.for_range(b, count) as loop:
        rows, columns = operands(loop.index)
        for row, totals in zip(rows, sums, strict=True):
            for column, total in zip(columns, totals, strict=True):
                b.store(b.call(fused, [row, column, b.load(total)]), total)


def _plus(b: ir.IRBuilder, address: Any, offset: Any) -> Any:
    return b.add(address, offset)


def _load(b: ir.IRBuilder, kind: ir.Type, address: Any, offset: Any) -> Any:
    value = b.load(b.inttoptr(_plus(b, address, offset), kind.as_pointer()))
    value.align = 8 if kind is _INT else _BYTES
    return value


def _store(b: ir.IRBuilder, value: Any, address: Any, offset: Any) -> None:
    b.store(value, b.inttoptr(_plus(b, address, offset), _VECTOR.as_pointer())).align = _BYTES


def _everywhere(b: ir.IRBuilder, number: Any) -> Any:
    """Return a vector that holds `number` in every lane."""
    undefined = ir.Constant(_VECTOR, ir.Undefined)
    one = b.insert_element(undefined, number, ir.Constant(ir.IntType(32), 0))
    return b.shuffle_vector(one, undefined, ir.Constant(ir.VectorType(ir.IntType(32), LANES), None))
