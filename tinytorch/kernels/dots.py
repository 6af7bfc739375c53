"""Register tiles of integer dot products: four bytes by four bytes, added to an int32, written for LLVM.

One operand of every product is unsigned (activations), the other signed (weights). A tile is a grid of
sums, each a vector of int32, that stays in registers while a loop adds to it. What adds depends on the
processor: `VARIANTS` names the ways, and all compute the same integers up to `Variant.offset`.

Addresses are plain integers and nothing is checked here; whoever calls has to. This module imports numba,
so import it only where a kernel is compiled.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from llvmlite import binding, ir
from numba import types
from numba.core.registry import cpu_target

from tinytorch.kernels.llvm import (
    BYTE,
    FLOAT,
    INT,
    LONG,
    SHORT,
    cg,
    function,
    intrinsic,
    load,
    multiply_add,
    splat,
    store,
)

Prepared = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Variant:
    """A way to add up products of bytes.

    Attributes:
        name: as in TINYTORCH_INT8.
        features: LLVM's names of what the processor must have; one of the groups is enough.
        lanes: int32 in a vector.
        rows, columns: the largest tile for matrices: rows of activations, vectors of outputs.
        image_rows, image_columns: the tile for images: output channels, vectors of positions.
        offset: what is taken from every unsigned byte before it is multiplied, 0 or 128.
    """

    name: str
    features: tuple[tuple[str, ...], ...]
    lanes: int
    rows: int
    columns: int
    image_rows: int
    image_columns: int
    offset: int


# Tiles leave room for the operands: 32 registers with AVX-512 and NEON, 16 otherwise.
VARIANTS = (
    Variant("vnni512", (("avx512f", "avx512bw", "avx512vnni"),), 16, 6, 4, 8, 3, 0),
    Variant("vnni256", (("avxvnni",), ("avx512vl", "avx512vnni")), 8, 3, 4, 4, 3, 0),
    Variant("avx2", (("avx2",),), 8, 4, 2, 4, 2, 128),
    Variant("neon", (("dotprod",),), 4, 6, 4, 4, 4, 128),
)
#: outputs whose weights lie together, one after the other for every four inputs
PANEL = 16


@functools.cache
def target_features() -> frozenset[str]:
    """Return LLVM's names of what the processor has that numba compiles for, and the system lets one use.

    Usually that is this one; environment variables of numba may say otherwise, and LLVM ends the process
    where it is asked for an instruction that its target lacks.
    """
    features: str = cpu_target.target_context.codegen().magic_tuple()[2]
    return frozenset(name[1:] for name in features.split(",") if name.startswith("+"))


def runs_here(variant: Variant) -> bool:
    """Return whether the processor has the instructions."""
    return any(target_features().issuperset(group) for group in variant.features)


@intrinsic(prefer_literal=True)  # type: ignore[untyped-decorator]
def dot_tile(
    _: Any, way: Any, rows: Any, columns: Any, bytes_in: Any, pitch: Any, panels: Any, panel_bytes: Any,
    count: Any, out: Any, step: Any,
) -> Any:  # fmt: skip
    """out[r, j] = sum over k of in[r, 4k:4k+4] . panel[k, j], for `rows` r and `columns` vectors of j.

    `way`, `rows` and `columns` are constants. `bytes_in`, `panels` and `out` are addresses; `pitch` and
    `panel_bytes` are the bytes in a row and in a panel, `step` the numbers in a row of `out`.
    """

    def generate(target: Any, b: ir.IRBuilder, _: Any, arguments: Any) -> Any:
        bytes_in, pitch, panels, panel_bytes, count, out, step = arguments[3:]
        variant, n_rows, n_columns = VARIANTS[way.literal_value], rows.literal_value, columns.literal_value
        in_panel = PANEL // variant.lanes
        starts = [b.add(bytes_in, b.mul(pitch, LONG(r))) for r in range(n_rows)]
        sources = [b.add(panels, b.mul(panel_bytes, LONG(p))) for p in range(-(-n_columns // in_panel))]
        sums = _sums(b, variant, n_rows, n_columns)
        with cg.for_range(b, count) as loop:
            here, there = b.mul(loop.index, LONG(4)), b.mul(loop.index, LONG(4 * PANEL))
            weights = [
                _vector(b, variant, sources[c // in_panel], there, (c % in_panel) * variant.lanes * 4)
                for c in range(n_columns)
            ]
            for row, start in zip(sums, starts, strict=True):
                unsigned = _prepared(b, variant, _everywhere(b, variant, b.add(start, here)))
                for total, weight in zip(row, weights, strict=True):
                    b.store(_added(b, variant, b.load(total), unsigned, weight), total)
        _store_all(b, variant, sums, out, step)
        return target.get_dummy_value()

    address = types.int64
    return types.void(way, rows, columns, *[address] * 7), generate


@intrinsic(prefer_literal=True)  # type: ignore[untyped-decorator]
def shifted_dots(
    _: Any, way: Any, line: Any, offsets: Any, weights: Any, row_bytes: Any, count: Any, out: Any, step: Any
) -> Any:
    """out[r, p] = sum over k of weights[k, r] . line[offsets[k] + p], four bytes each, for a tile of r and p.

    `way` is a constant. `line`, `offsets` (int64, in groups of four bytes), `weights` and `out` are
    addresses; `row_bytes` are those of the weights for one k, `step` the numbers in a row of `out`.
    """

    def generate(target: Any, b: ir.IRBuilder, _: Any, arguments: Any) -> Any:
        line, offsets, weights, row_bytes, count, out, step = arguments[1:]
        variant = VARIANTS[way.literal_value]
        sums = _sums(b, variant, variant.image_rows, variant.image_columns)
        with cg.for_range(b, count) as loop:
            shift = load(b, LONG, b.add(offsets, b.mul(loop.index, LONG(8))), 8)
            start, row = b.mul(shift, LONG(4)), b.add(weights, b.mul(row_bytes, loop.index))
            seen = [
                _prepared(b, variant, _vector(b, variant, line, start, c * variant.lanes * 4))
                for c in range(variant.image_columns)
            ]
            for r, totals in enumerate(sums):
                weight = _everywhere(b, variant, b.add(row, LONG(4 * r)))
                for total, unsigned in zip(totals, seen, strict=True):
                    b.store(_added(b, variant, b.load(total), unsigned, weight), total)
        _store_all(b, variant, sums, out, step)
        return target.get_dummy_value()

    return types.void(way, *[types.int64] * 7), generate


@intrinsic  # type: ignore[untyped-decorator]
def dequantized_panels(
    _: Any, totals: Any, sums: Any, scales: Any, bias: Any, zero: Any, scale: Any, count: Any, out: Any
) -> Any:
    """out[j] = (totals[j] - zero * sums[j]) * (scales[j] * scale) + bias[j], for `count` panels of j.

    All arguments are addresses but `zero`, an int32, `scale`, a float32, and `count`.
    """

    def generate(target: Any, b: ir.IRBuilder, _: Any, arguments: Any) -> Any:
        *addresses, zero, scale, count, out = arguments
        ints, floats = ir.VectorType(INT, PANEL), ir.VectorType(FLOAT, PANEL)
        fused = multiply_add(b, floats)
        zeros, factor = splat(b, ints, zero), splat(b, floats, scale)
        with cg.for_range(b, count) as loop:
            offset = b.mul(loop.index, LONG(4 * PANEL))
            total, taken, scales, bias = (
                load(b, kind, b.add(address, offset), 4)
                for kind, address in zip((ints, ints, floats, floats), addresses, strict=True)
            )
            exact = b.sitofp(b.sub(total, b.mul(zeros, taken)), floats)
            store(b, fused(exact, b.fmul(scales, factor), bias), b.add(out, offset))
        return target.get_dummy_value()

    address = types.int64
    return types.void(*[address] * 4, types.int32, types.float32, address, address), generate


@intrinsic(prefer_literal=True)  # type: ignore[untyped-decorator]
def dequantized_row(
    _: Any, lanes: Any, totals: Any, taken: Any, factor: Any, added: Any, count: Any, out: Any
) -> Any:
    """out[j] = (totals[j] - taken) * factor + added, for `count` j, at least `lanes`, which is a constant."""

    def generate(target: Any, b: ir.IRBuilder, _: Any, arguments: Any) -> Any:
        totals, taken, factor, added, count, out = arguments[1:]
        ints, floats = (ir.VectorType(kind, lanes.literal_value) for kind in (INT, FLOAT))
        fused = multiply_add(b, floats)
        minus, times, plus = splat(b, ints, taken), splat(b, floats, factor), splat(b, floats, added)

        def step(offset: Any) -> None:
            total = b.sitofp(b.sub(load(b, ints, b.add(totals, offset), 4), minus), floats)
            store(b, fused(total, times, plus), b.add(out, offset))

        _over_row(b, lanes.literal_value, count, step)
        return target.get_dummy_value()

    numbers = (types.int64, types.int32, types.float32, types.float32, types.int64, types.int64)
    return types.void(lanes, *numbers), generate


@intrinsic(prefer_literal=True)  # type: ignore[untyped-decorator]
def quantized_row(
    _: Any, lanes: Any, first: Any, second: Any, third: Any, fourth: Any, inverse: Any, zero: Any, count: Any,
    out: Any,
) -> Any:  # fmt: skip
    """out[j] = the bytes of four rows at j, for `count` j, at least `lanes`, which is a constant.

    A byte is the nearest whole number to row[j] * inverse + zero, within 0 and 255.
    """

    def generate(target: Any, b: ir.IRBuilder, _: Any, arguments: Any) -> Any:
        *rows, inverse, zero, count, out = arguments[1:]
        ints, floats = (ir.VectorType(kind, lanes.literal_value) for kind in (INT, FLOAT))
        rint = function(b, f"llvm.rint.v{lanes.literal_value}f32", floats, [floats])
        times, zeros = splat(b, floats, inverse), splat(b, ints, zero)
        low = splat(b, floats, b.sitofp(b.neg(zero), FLOAT))
        high = splat(b, floats, b.sitofp(b.sub(INT(255), zero), FLOAT))

        def step(offset: Any) -> None:
            together = ir.Constant(ints, None)
            for i, row in enumerate(rows):
                value = b.fmul(load(b, floats, b.add(row, offset), 4), times)
                value = b.select(b.fcmp_ordered(">", value, low), value, low)
                value = b.select(b.fcmp_ordered("<", value, high), value, high)
                byte = b.add(b.fptosi(b.call(rint, [value]), ints), zeros)
                shift = ir.Constant(ints, [8 * i] * lanes.literal_value)
                together = b.or_(together, b.shl(byte, shift))
            store(b, together, b.add(out, offset))

        _over_row(b, lanes.literal_value, count, step)
        return target.get_dummy_value()

    address = types.int64
    return types.void(lanes, *[address] * 4, types.float32, types.int32, address, address), generate


def _over_row(b: ir.IRBuilder, lanes: int, count: Any, step: Callable[[Any], None]) -> None:
    """Call `step` with the byte offset of every vector of a row; the last one may overlap the one before."""
    with cg.for_range(b, b.udiv(count, LONG(lanes))) as loop:
        step(b.mul(loop.index, LONG(4 * lanes)))
    step(b.mul(b.sub(count, LONG(lanes)), LONG(4)))


@intrinsic  # type: ignore[untyped-decorator]
def weighted_panel(_: Any, numbers: Any, panel: Any, count: Any, out: Any) -> Any:
    """out[j] = sum over k of numbers[k] * panel[k // 4, j, k % 4], float32, for the outputs j of a panel.

    All arguments are addresses but `count`, the number of groups of four.
    """

    def generate(target: Any, b: ir.IRBuilder, _: Any, arguments: Any) -> Any:
        numbers, panel, count, out = arguments
        floats, narrow = ir.VectorType(FLOAT, PANEL), ir.VectorType(BYTE, 4 * PANEL)
        fused = multiply_add(b, floats)
        sums = [cg.alloca_once(b, floats) for _ in range(4)]
        for total in sums:
            b.store(ir.Constant(floats, None), total)
        with cg.for_range(b, count) as loop:
            group = load(b, narrow, b.add(panel, b.mul(loop.index, LONG(4 * PANEL))), 1)
            at = b.add(numbers, b.mul(loop.index, LONG(16)))
            for t, total in enumerate(sums):
                lanes = ir.Constant(ir.VectorType(INT, PANEL), [4 * j + t for j in range(PANEL)])
                one = b.shuffle_vector(group, ir.Constant(narrow, ir.Undefined), lanes)
                weights = b.sitofp(b.sext(one, ir.VectorType(INT, PANEL)), floats)
                number = splat(b, floats, load(b, FLOAT, b.add(at, LONG(4 * t)), 4))
                b.store(fused(number, weights, b.load(total)), total)
        first, second, third, fourth = (b.load(total) for total in sums)
        store(b, b.fadd(b.fadd(first, second), b.fadd(third, fourth)), out)
        return target.get_dummy_value()

    return types.void(numbers, panel, count, out), generate


def _prepared(b: ir.IRBuilder, variant: Variant, unsigned: Any) -> Prepared:
    """Return what `_added` takes of unsigned bytes, computed once for all products with them."""
    if not variant.offset:
        return (unsigned,)
    kind = unsigned.type
    signed = b.xor(unsigned, ir.Constant(kind, [0x80] * kind.count))
    if variant.name == "neon":
        return (signed,)
    absolute = function(b, f"llvm.abs.v{kind.count}i8", kind, [kind, ir.IntType(1)])
    return signed, b.call(absolute, [signed, ir.IntType(1)(0)])


def _added(b: ir.IRBuilder, variant: Variant, total: Any, unsigned: Prepared, weight: Any) -> Any:
    """Return `total` plus the products of four neighbours in each lane."""
    bytes_, ints = weight.type, total.type
    if variant.name == "avx2":
        # The instruction for unsigned by signed saturates at 16 bits, unless the unsigned side is at most
        # 128: 2 * 128 * 127 fits. So the sign of the activation moves to the weight.
        signed, absolute = unsigned
        shorts = ir.VectorType(SHORT, 16)
        turned = b.call(function(b, "llvm.x86.avx2.psign.b", bytes_, [bytes_] * 2), [weight, signed])
        pairs = b.call(function(b, "llvm.x86.avx2.pmadd.ub.sw", shorts, [bytes_] * 2), [absolute, turned])
        ones = ir.Constant(shorts, [1] * 16)
        fours = b.call(function(b, "llvm.x86.avx2.pmadd.wd", ints, [shorts] * 2), [pairs, ones])
        return b.add(total, fours)
    if variant.name == "neon":
        dot = function(b, "llvm.aarch64.neon.sdot.v4i32.v16i8", ints, [ints, bytes_, bytes_])
        return b.call(dot, [total, unsigned[0], weight])
    operands, kind = [unsigned[0], weight], bytes_
    if binding.llvm_version_info[0] < 22:  # until then the bytes had to be called int32
        operands, kind = [b.bitcast(operand, ints) for operand in operands], ints
    name = f"llvm.x86.avx512.vpdpbusd.{32 * variant.lanes}"
    return b.call(function(b, name, ints, [ints, kind, kind]), [total, *operands])


def _sums(b: ir.IRBuilder, variant: Variant, rows: int, columns: int) -> list[list[Any]]:
    """Return a grid of variables at zero; LLVM keeps them in registers."""
    kind = ir.VectorType(INT, variant.lanes)
    grid: list[list[Any]] = [[cg.alloca_once(b, kind) for _ in range(columns)] for _ in range(rows)]
    for row in grid:
        for total in row:
            b.store(ir.Constant(kind, None), total)
    return grid


def _store_all(b: ir.IRBuilder, variant: Variant, sums: list[list[Any]], out: Any, step: Any) -> None:
    for r, row in enumerate(sums):
        place = b.add(out, b.mul(step, LONG(4 * r)))
        for c, total in enumerate(row):
            store(b, b.load(total), b.add(place, LONG(c * variant.lanes * 4)))


def _vector(b: ir.IRBuilder, variant: Variant, base: Any, offset: Any, constant: int) -> Any:
    """Load a vector of bytes."""
    kind = ir.VectorType(BYTE, 4 * variant.lanes)
    return load(b, kind, b.add(b.add(base, offset), LONG(constant)), 1)


def _everywhere(b: ir.IRBuilder, variant: Variant, address: Any) -> Any:
    """Load four bytes into every lane."""
    ints = ir.VectorType(INT, variant.lanes)
    four = splat(b, ints, load(b, INT, address, 1))
    return b.bitcast(four, ir.VectorType(BYTE, 4 * variant.lanes))
