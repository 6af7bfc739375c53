"""The two loops of attention over a cache, written for LLVM: heads are too narrow to vectorise well.

Keys and values are float32, or int8 that become floats in registers. This module imports numba, so import
it only where a kernel is compiled.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from tinytorch.kernels.llvm import (
    BYTE,
    FLOAT,
    INT,
    LONG,
    cg,
    function,
    intrinsic,
    load,
    multiply_add,
    splat,
    store,
)

_LANES = 16
_FLOATS = ir.VectorType(FLOAT, _LANES)
# Sums that run beside each other, so that none waits for the one before.
_BESIDE = 4


@intrinsic(prefer_literal=True)  # type: ignore[untyped-decorator]
def row_scores(_: Any, quantized: Any, asked: Any, keys: Any, count: Any, width: Any, out: Any) -> Any:
    """out[p] = asked . keys[p], for `count` rows of `width` numbers one after the other.

    `quantized` is a constant: 1 where the keys are int8. `asked`, `keys` and `out` are addresses.
    """

    def generate(target: Any, b: ir.IRBuilder, _: Any, arguments: Any) -> Any:
        asked, keys, count, width, out = arguments[1:]
        size = LONG(1 if quantized.literal_value else 4)
        fused = multiply_add(b, _FLOATS)
        reduce = function(b, f"llvm.vector.reduce.fadd.v{_LANES}f32", FLOAT, [FLOAT, _FLOATS])
        chunks = b.udiv(width, LONG(_LANES))
        done = b.mul(chunks, LONG(_LANES))
        total, single = cg.alloca_once(b, _FLOATS), cg.alloca_once(b, FLOAT)
        with cg.for_range(b, count) as row:
            start = b.add(keys, b.mul(b.mul(row.index, width), size))
            b.store(ir.Constant(_FLOATS, None), total)
            with cg.for_range(b, chunks) as chunk:
                at = b.mul(chunk.index, LONG(_LANES))
                key = _floats(b, quantized, b.add(start, b.mul(at, size)), _LANES)
                question = load(b, _FLOATS, b.add(asked, b.mul(at, LONG(4))))
                b.store(fused(question, key, b.load(total)), total)
            # In any order: one after the other would take sixteen additions.
            b.store(b.call(reduce, [FLOAT(-0.0), b.load(total)], fastmath=("reassoc",)), single)
            with cg.for_range(b, b.sub(width, done)) as rest:
                at = b.add(done, rest.index)
                key = _floats(b, quantized, b.add(start, b.mul(at, size)), 1)
                question = load(b, FLOAT, b.add(asked, b.mul(at, LONG(4))))
                b.store(b.fadd(b.load(single), b.fmul(question, key)), single)
            store(b, b.load(single), b.add(out, b.mul(row.index, LONG(4))))
        return target.get_dummy_value()

    return types.void(quantized, asked, keys, count, width, out), generate


@intrinsic(prefer_literal=True)  # type: ignore[untyped-decorator]
def weighted_rows(_: Any, quantized: Any, weights: Any, values: Any, count: Any, width: Any, out: Any) -> Any:
    """Out is the sum over p of weights[p] * values[p], for `count` rows of `width` numbers.

    `quantized` is a constant: 1 where the values are int8. `weights`, `values` and `out` are addresses.
    """

    def generate(target: Any, b: ir.IRBuilder, _: Any, arguments: Any) -> Any:
        weights, values, count, width, out = arguments[1:]
        chunks = b.udiv(width, LONG(_LANES))
        with cg.for_range(b, chunks) as chunk:
            at = b.mul(chunk.index, LONG(_LANES))
            _weighted(b, quantized, weights, values, count, width, at, out, _LANES)
        done = b.mul(chunks, LONG(_LANES))
        with cg.for_range(b, b.sub(width, done)) as rest:
            _weighted(b, quantized, weights, values, count, width, b.add(done, rest.index), out, 1)
        return target.get_dummy_value()

    return types.void(quantized, weights, values, count, width, out), generate


def _weighted(
    b: ir.IRBuilder, quantized: Any, weights: Any, values: Any, count: Any, width: Any, at: Any, out: Any,
    lanes: int,
) -> None:  # fmt: skip
    """Sum up `lanes` columns from `at` on."""
    size = LONG(1 if quantized.literal_value else 4)
    kind = _FLOATS if lanes > 1 else FLOAT
    zero = ir.Constant(kind, None) if lanes > 1 else FLOAT(0.0)
    sums = [cg.alloca_once(b, kind) for _ in range(_BESIDE)]
    for total in sums:
        b.store(zero, total)

    def add(row: Any, total: Any) -> None:
        number = load(b, FLOAT, b.add(weights, b.mul(row, LONG(4))))
        place = b.add(values, b.mul(b.add(b.mul(row, width), at), size))
        value = _floats(b, quantized, place, lanes)
        if lanes > 1:
            b.store(multiply_add(b, _FLOATS)(splat(b, _FLOATS, number), value, b.load(total)), total)
        else:
            b.store(b.fadd(b.fmul(number, value), b.load(total)), total)

    groups = b.udiv(count, LONG(_BESIDE))
    with cg.for_range(b, groups) as group:
        for i, total in enumerate(sums):
            add(b.add(b.mul(group.index, LONG(_BESIDE)), LONG(i)), total)
    first = b.mul(groups, LONG(_BESIDE))
    with cg.for_range(b, b.sub(count, first)) as rest:
        add(b.add(first, rest.index), sums[0])
    one, two, three, four = (b.load(total) for total in sums)
    store(b, b.fadd(b.fadd(one, two), b.fadd(three, four)), b.add(out, b.mul(at, LONG(4))))


def _floats(b: ir.IRBuilder, quantized: Any, address: Any, lanes: int) -> Any:
    """Load one number or a vector as floats."""
    kind = _FLOATS if lanes > 1 else FLOAT
    if not quantized.literal_value:
        return load(b, kind, address)
    narrow = ir.VectorType(BYTE, lanes) if lanes > 1 else BYTE
    wide = ir.VectorType(INT, lanes) if lanes > 1 else INT
    return b.sitofp(b.sext(load(b, narrow, address, 1), wide), kind)
