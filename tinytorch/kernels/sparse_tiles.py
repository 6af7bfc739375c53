"""The innermost loops of sparse products, written for LLVM directly.

Vectors are LLVM's generic ones of 16 numbers: a processor without registers of that width gets several
narrower instructions. Addresses are plain integers and nothing is checked here; whoever calls has to.

This module imports numba, so import it only where a kernel is compiled.
"""

from __future__ import annotations

import functools
from typing import Any

from llvmlite import ir
from numba import types
from numba.core.registry import cpu_target

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

LANES = 16
# Sums that grow side by side: one alone would wait four cycles for every product before the next.
_SUMS = 4

_VECTOR, _WIDTH = ir.VectorType(FLOAT, LANES), 4 * LANES
_BYTES, _INTS, _FLAGS = (ir.VectorType(kind, LANES) for kind in (BYTE, INT, ir.IntType(1)))

# Where a stage of the transposition takes its numbers from: 0 to 15 are one row, 16 to 31 that which is
# `distance` rows on; and how far on in both the other half is.
_STAGES = (
    (1, [4 * q + i for q in range(4) for i in (0, 16, 1, 17)], 2),
    (2, [4 * q + i for q in range(4) for i in (0, 1, 16, 17)], 2),
    (4, [i + j for i in (0, 16, 8, 24) for j in range(4)], 4),
    (8, [i + j for i in (0, 16) for j in range(8)], 8),
)


@intrinsic  # type: ignore[untyped-decorator]
def transpose(_: Any, source: Any, source_pitch: Any, target: Any, target_pitch: Any) -> Any:
    """target[j, i] = source[i, j] for LANES rows and columns; pitches are the bytes of a row."""

    def generate(context: Any, b: ir.IRBuilder, _: Any, arguments: Any) -> Any:
        source, source_pitch, target, target_pitch = arguments
        rows = [load(b, _VECTOR, b.add(source, b.mul(source_pitch, LONG(i)))) for i in range(LANES)]
        for distance, chosen, half in _STAGES:
            mixed: list[Any] = [None] * LANES
            for i in range(LANES):
                if not i & distance:
                    pair = rows[i], rows[i + distance]
                    mixed[i] = _shuffled(b, *pair, chosen)
                    mixed[i + distance] = _shuffled(b, *pair, [index + half for index in chosen])
            rows = mixed
        for i, row in enumerate(rows):
            column = i & 12 | (i & 1) << 1 | (i & 2) >> 1  # the first two stages leave these swapped
            store(b, row, b.add(target, b.mul(target_pitch, LONG(column))))
        return context.get_dummy_value()

    return types.void(source, source_pitch, target, target_pitch), generate


def _add_rows(vectors: int) -> Any:
    """Return the loop over entries for rows of so many vectors."""

    @intrinsic  # type: ignore[untyped-decorator]
    def add_rows(_: Any, values: Any, indices: Any, count: Any, rows: Any, out: Any) -> Any:
        """Add the sum over k < count of values[k] * rows[indices[k]] to `out`.

        `values` are float32, `indices` bytes; `out` and each of the 256 `rows` are whole vectors.
        """

        def generate(context: Any, b: ir.IRBuilder, _: Any, arguments: Any) -> Any:
            values, indices, count, rows, out = arguments
            plus_product = multiply_add(b, _VECTOR)
            sums = [[cg.alloca_once(b, _VECTOR) for _ in range(vectors)] for _ in range(_SUMS)]
            for position, parts in enumerate(sums):
                for v, part in enumerate(parts):
                    before = load(b, _VECTOR, _at(b, out, v)) if position == 0 else ir.Constant(_VECTOR, None)
                    b.store(before, part)

            def add(k: Any, parts: list[Any]) -> None:
                index = b.zext(load(b, BYTE, b.add(indices, k), 1), LONG)
                row = b.add(rows, b.mul(index, LONG(vectors * _WIDTH)))
                value = splat(b, _VECTOR, load(b, FLOAT, b.add(values, b.mul(k, LONG(4)))))
                for v, part in enumerate(parts):
                    b.store(plus_product(value, load(b, _VECTOR, _at(b, row, v)), b.load(part)), part)

            groups = b.udiv(count, LONG(_SUMS))
            with cg.for_range(b, groups) as loop:
                for position, parts in enumerate(sums):
                    add(b.add(b.mul(loop.index, LONG(_SUMS)), LONG(position)), parts)
            done = b.mul(groups, LONG(_SUMS))
            with cg.for_range(b, b.sub(count, done)) as loop:
                add(b.add(done, loop.index), sums[0])
            for v in range(vectors):
                first, second, third, fourth = (b.load(parts[v]) for parts in sums)
                store(b, b.fadd(b.fadd(first, second), b.fadd(third, fourth)), _at(b, out, v))
            return context.get_dummy_value()

        return types.void(values, indices, count, rows, out), generate

    return add_rows


add_rows_of_16, add_rows_of_32 = _add_rows(1), _add_rows(2)


@functools.cache
def can_gather() -> bool:
    """Return whether numba compiles for a processor with the instruction behind `sum_of_floats`.

    Usually that is this one; environment variables of numba may say otherwise, and LLVM ends the process
    where it is asked for an instruction that its target lacks.
    """
    features: str = cpu_target.target_context.codegen().magic_tuple()[2]
    return "+avx512f" in features.split(",")


def _sum_of_products(coded: bool) -> Any:
    """Return the product of entries with the numbers they belong to, for int8 values or floats."""

    @intrinsic  # type: ignore[untyped-decorator]
    def sum_of_products(_: Any, values: Any, indices: Any, count: Any, numbers: Any) -> Any:
        """Sum over k < count of values[k] * numbers[indices[k]], with AVX-512 only.

        Up to 15 values and indices beyond `count` are read, and count for nothing.
        """

        def generate(_context: Any, b: ir.IRBuilder, _: Any, arguments: Any) -> Any:
            values, indices, count, numbers = arguments
            nothing, total = ir.Constant(_VECTOR, None), cg.alloca_once(b, _VECTOR)
            taken = [_VECTOR, BYTE.as_pointer(), _INTS, _FLAGS, INT]
            gather = function(b, "llvm.x86.avx512.mask.gather.dps.512", _VECTOR, taken)
            b.store(nothing, total)
            with cg.for_range(b, b.udiv(b.add(count, LONG(LANES - 1)), LONG(LANES))) as loop:
                k = b.mul(loop.index, LONG(LANES))
                left = splat(b, _INTS, b.trunc(b.sub(count, k), INT))
                used = b.icmp_unsigned("<", ir.Constant(_INTS, list(range(LANES))), left)
                places = b.zext(load(b, _BYTES, b.add(indices, k), 1), _INTS)
                seen = b.call(gather, [nothing, b.inttoptr(numbers, taken[1]), places, used, INT(4)])
                if coded:
                    factors = b.sitofp(load(b, _BYTES, b.add(values, k), 1), _VECTOR)
                else:
                    factors = load(b, _VECTOR, b.add(values, b.mul(k, LONG(4))))
                share = b.select(used, b.fmul(factors, seen), nothing)
                b.store(b.fadd(b.load(total), share), total)
            folded = b.load(total)
            for distance in (8, 4, 2, 1):
                turned = [(i + distance) % LANES for i in range(LANES)]
                folded = b.fadd(folded, _shuffled(b, folded, folded, turned))
            return b.extract_element(folded, INT(0))

        return types.float32(values, indices, count, numbers), generate

    return sum_of_products


sum_of_floats, sum_of_codes = _sum_of_products(coded=False), _sum_of_products(coded=True)


@intrinsic  # type: ignore[untyped-decorator]
def store_word(_: Any, address: Any, word: Any) -> Any:
    """Write eight bytes, the lowest of `word` first, wherever `address` points."""

    def generate(context: Any, b: ir.IRBuilder, _: Any, arguments: Any) -> Any:
        address, word = arguments
        b.store(word, b.inttoptr(address, LONG.as_pointer())).align = 1
        return context.get_dummy_value()

    return types.void(address, word), generate


def _at(b: ir.IRBuilder, address: Any, vector: int) -> Any:
    return b.add(address, LONG(vector * _WIDTH))


def _shuffled(b: ir.IRBuilder, first: Any, second: Any, chosen: list[int]) -> Any:
    return b.shuffle_vector(first, second, ir.Constant(_INTS, chosen))
