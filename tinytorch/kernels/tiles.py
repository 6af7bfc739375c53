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

_FLOAT, _INT, _INT32 = ir.FloatType(), ir.IntType(64), ir.IntType(32)
_VECTOR, _MASK = ir.VectorType(_FLOAT, LANES), ir.VectorType(ir.IntType(1), LANES)
_NUMBERS = ir.Constant(ir.VectorType(_INT32, LANES), list(range(LANES)))

Operands = Callable[[Any], tuple[list[Any], list[Any]]]


def _shifted(columns: int) -> Any:
    """Return an intrinsic for a tile of so many columns, each a vector of positions of its own."""

    @_intrinsic  # type: ignore[untyped-decorator]
    def sums_of_shifted(
        _: Any, line: Any, shifts: Any, weights: Any, count: Any, places: Any, bias: Any, rows: Any,
        targets: Any, lanes: Any,
    ) -> Any:  # fmt: skip
        """rows[r][targets[c] + p] = bias[r] + sum over k of weights[k, r] * line[shifts[k] + places[c] + p].

        For ROWS r, the columns c and p below `lanes`, at most LANES. All arguments are addresses but that and
        `count`, the number of k; at `rows` stand the addresses of ROWS results. `shifts`, `places` and
        `targets` count numbers.
        """

        def generate(target: Any, b: ir.IRBuilder, _: Any, arguments: Any) -> Any:
            line, shifts, weights, count, places, bias, rows, targets, lanes = arguments

            def at(table: Any, index: int) -> Any:
                return b.mul(_load(b, _INT, table, _INT(8 * index)), _INT(_BYTES))

            starts = [_plus(b, line, at(places, c)) for c in range(columns)]

            def operands(k: Any) -> tuple[list[Any], list[Any]]:
                shift = b.mul(_load(b, _INT, shifts, b.mul(k, _INT(8))), _INT(_BYTES))
                column = _plus(b, weights, b.mul(k, _INT(ROWS * _BYTES)))
                return (
                    [_everywhere(b, _load(b, _FLOAT, column, _INT(r * _BYTES))) for r in range(ROWS)],
                    [_load(b, _VECTOR, start, shift) for start in starts],
                )

            sums = _sums(b, columns)
            for r, row in enumerate(sums):
                first = _everywhere(b, _load(b, _FLOAT, bias, _INT(r * _BYTES)))
                for total in row:
                    b.store(first, total)
            _accumulate(b, sums, count, operands)
            mask = _below(b, lanes)
            for r, row in enumerate(sums):
                result = _load(b, _INT, rows, _INT(8 * r))
                for c, total in enumerate(row):
                    _store_some(b, b.load(total), _plus(b, result, at(targets, c)), mask)
            return target.get_dummy_value()

        return types.void(line, shifts, weights, count, places, bias, rows, targets, lanes), generate

    return sums_of_shifted


sums_of_shifted = _shifted(COLUMNS)
sums_of_one_shifted = _shifted(1)


@_intrinsic  # type: ignore[untyped-decorator]
def copy_numbers(_: Any, source: Any, target: Any, count: Any) -> Any:
    """target[i] = source[i] for i below `count`; both are addresses. Short rows take a few cycles each."""

    def generate(context: Any, b: ir.IRBuilder, _: Any, arguments: Any) -> Any:
        source, target, count = arguments
        with _cg.for_range(b, b.udiv(count, _INT(LANES))) as loop:
            here = b.mul(loop.index, _INT(LANES * _BYTES))
            _store(b, _load(b, _VECTOR, source, here), target, here)
        rest = b.urem(count, _INT(LANES))
        done = b.mul(b.sub(count, rest), _INT(_BYTES))
        load = _cg.get_or_insert_function(
            b.module,
            ir.FunctionType(_VECTOR, [_VECTOR.as_pointer(), _INT32, _MASK, _VECTOR]),
            f"llvm.masked.load.v{LANES}f32.p0",
        )
        mask, nothing = _below(b, rest), ir.Constant(_VECTOR, None)
        start = b.inttoptr(_plus(b, source, done), _VECTOR.as_pointer())
        last = b.call(load, [start, _INT32(_BYTES), mask, nothing])
        _store_some(b, last, _plus(b, target, done), mask)
        return context.get_dummy_value()

    return types.void(source, target, count), generate


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


def _sums(b: ir.IRBuilder, columns: int = COLUMNS) -> list[list[Any]]:
    """Return a grid of variables at zero; LLVM keeps them in registers."""
    grid: list[list[Any]] = [[_cg.alloca_once(b, _VECTOR) for _ in range(columns)] for _ in range(ROWS)]
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


def _below(b: ir.IRBuilder, count: Any) -> Any:
    """Return which lanes have a number below `count`."""
    return b.icmp_unsigned("<", _NUMBERS, _everywhere(b, b.trunc(count, _INT32), _NUMBERS.type))


def _store_some(b: ir.IRBuilder, value: Any, address: Any, mask: Any) -> None:
    """Store the lanes of `mask`, and leave what is behind the others untouched."""
    store = _cg.get_or_insert_function(
        b.module,
        ir.FunctionType(ir.VoidType(), [_VECTOR, _VECTOR.as_pointer(), _INT32, _MASK]),
        f"llvm.masked.store.v{LANES}f32.p0",
    )
    b.call(store, [value, b.inttoptr(address, _VECTOR.as_pointer()), _INT32(_BYTES), mask])


def _everywhere(b: ir.IRBuilder, number: Any, kind: Any = _VECTOR) -> Any:
    """Return a vector that holds `number` in every lane."""
    undefined = ir.Constant(kind, ir.Undefined)
    one = b.insert_element(undefined, number, ir.Constant(_INT32, 0))
    return b.shuffle_vector(one, undefined, ir.Constant(ir.VectorType(_INT32, LANES), None))
