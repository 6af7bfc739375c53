"""The compiled loops of sparse products, and what tells them right: see `sparse_formats` for what they read.

This module imports numba, so import it only where a kernel is compiled.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.extending import register_jitable
from numpy.typing import NDArray

from tinytorch.kernels import in_cache
from tinytorch.kernels.choice import Kernel, compiled_or_none
from tinytorch.kernels.sparse_formats import PANEL, pack
from tinytorch.kernels.sparse_tiles import (
    LANES,
    add_rows_of_16,
    add_rows_of_32,
    can_gather,
    store_word,
    sum_of_codes,
    sum_of_floats,
    transpose,
)

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]

# Rows whose INT8 values become floats together: at most 64 kB, and the few that are left stay in L1.
_BLOCK = 64
_MOST_COLUMNS = 2 * LANES


def batch_product(
    x: Floats,
    counts: Any,
    indices: Bytes,
    floats: Floats,
    codes: Any,
    scale: Floats,
    bias: Floats,
    out: Floats,
) -> bool:
    """Write x @ matrix * scale + bias to `out`; False where the kernel cannot be had.

    Args:
        x: contiguous, shape (m, inputs), m at least 1.
        counts: entries of each panel and output, uint16 of shape (panels, outputs), whose sum is the length
            of `indices`.
        indices: the input of each entry inside its panel.
        floats: the values, or nothing where there are codes.
        codes: int8 values, or nothing.
        scale: of each output, or nothing.
        bias: of each output, or nothing.
        out: contiguous, shape (m, outputs).
    """
    kernel = _batch_kernel()
    if kernel is not None:
        _run_batch(kernel, x, counts, indices, floats, codes, scale, bias, out)
    return kernel is not None


def row_product(
    x: Floats,
    counts: Any,
    indices: Bytes,
    floats: Floats,
    codes: Any,
    scale: Floats,
    bias: Floats,
    out: Floats,
) -> bool:
    """As `batch_product`, row by row; False also where the processor cannot gather vectors."""
    kernel = _rows_kernel()
    if kernel is not None:
        _run_rows(kernel, x, counts, indices, floats, codes, scale, bias, out)
    return kernel is not None


def positions(mask: Bytes, inputs: int, counts: Any, indices: Bytes) -> bool:
    """Write the counts and indices that a mask stands for; False where the kernel cannot be had.

    `indices` has room for 8 more than there are bits in the mask.
    """
    kernel = _positions_kernel()
    if kernel is not None:
        kernel(mask, inputs, _WORDS, _LENGTHS, counts, indices)
    return kernel is not None


def compile_all() -> None:
    """Compile and test every kernel of this module, about 2 s, or load it from numba's cache."""
    for kernel in (_batch_kernel, _rows_kernel, _positions_kernel):
        kernel()


def compiling_expected() -> bool:
    """Return whether `compile_all` will probably have to compile rather than load."""
    return not all(in_cache(body) for body in (_batch, _positions))


def _run_batch(kernel: Kernel, x: Floats, *arrays: Any) -> None:
    codes, out = arrays[3], arrays[-1]
    panel, sums = _aligned(PANEL * _MOST_COLUMNS), _aligned(out.shape[1] * _MOST_COLUMNS)
    panel[:] = 0  # columns that are not used are computed as well, and denormals would be slow
    buffer = np.empty(_BLOCK * PANEL if codes.size else 0, np.float32)
    kernel(x, *arrays[:-1], panel, sums, buffer, out)


def _run_rows(kernel: Kernel, x: Floats, counts: Any, *arrays: Any) -> None:
    padded = np.zeros((len(x), counts.shape[0] * PANEL), np.float32)  # whatever an index is, it lies inside
    padded[:, : x.shape[1]] = x
    kernel(padded, counts, *arrays)


def _aligned(count: int) -> Floats:
    """Return room for numbers whose vectors never lie across two cache lines: 1.3 times as fast."""
    room = np.empty(count + LANES, np.float32)
    start = -room.__array_interface__["data"][0] // 4 % LANES
    return room[start : start + count]


def _batch(
    x: Floats, counts: Any, indices: Bytes, floats: Floats, codes: Any, scale: Floats, bias: Floats,
    panel: Floats, sums: Floats, buffer: Floats, out: Floats,
) -> None:  # fmt: skip
    batch, outputs = out.shape
    for start in range(0, batch, _MOST_COLUMNS):
        wide = batch - start > LANES
        columns = _MOST_COLUMNS if wide else LANES
        used = min(columns, batch - start)
        sums[: outputs * columns] = 0
        entry: Any = 0
        for p in range(counts.shape[0]):
            _lay_out(x, start, used, p * PANEL, columns, panel)
            for first in range(0, outputs, _BLOCK):
                last = min(first + _BLOCK, outputs)
                values: Any = floats.ctypes.data + 4 * entry
                if codes.size > 0:
                    _to_floats(codes, entry, counts[p, first:last], buffer)
                    values = buffer.ctypes.data + 0
                for r in range(first, last):
                    count = np.int64(counts[p, r])
                    target = sums.ctypes.data + 4 * columns * r
                    if wide:
                        add_rows_of_32(values, indices.ctypes.data + entry, count, panel.ctypes.data, target)
                    else:
                        add_rows_of_16(values, indices.ctypes.data + entry, count, panel.ctypes.data, target)
                    values += 4 * count
                    entry += count
        _write_out(sums, start, used, columns, scale, bias, out)


@register_jitable
def _to_floats(codes: Any, entry: int, counts: Any, buffer: Floats) -> None:
    """Write the values of some outputs, from `entry` on, as floats."""
    total: Any = 0
    for count in counts:
        total += np.int64(count)
    source, target = codes[entry : entry + total], buffer[:total]
    for k in range(target.size):
        target[k] = source[k]


@register_jitable
def _lay_out(x: Floats, start: int, used: int, first: int, columns: int, panel: Floats) -> None:
    """Write `used` rows of x, from input `first` on, as columns of the panel."""
    width = min(PANEL, x.shape[1] - first)
    panel[width * columns :] = 0  # no index should reach there
    tiled = width // LANES * LANES
    for c in range(0, used, LANES):
        rows = min(LANES, used - c)
        from_input = 0
        if rows == LANES:
            for i in range(0, tiled, LANES):
                source = x.ctypes.data + 4 * ((start + c) * x.shape[1] + first + i)
                transpose(source, 4 * x.shape[1], panel.ctypes.data + 4 * (i * columns + c), 4 * columns)
            from_input = tiled
        for r in range(rows):
            for i in range(from_input, width):
                panel[i * columns + c + r] = x[start + c + r, first + i]


@register_jitable
def _write_out(
    sums: Floats, start: int, used: int, columns: int, scale: Floats, bias: Floats, out: Floats
) -> None:
    """Write the columns of the sums as rows of the result."""
    outputs = out.shape[1]
    tiled = outputs // LANES * LANES
    for c in range(0, used, LANES):
        rows = min(LANES, used - c)
        from_output = 0
        if rows == LANES:
            for r in range(0, tiled, LANES):
                target = out.ctypes.data + 4 * ((start + c) * outputs + r)
                transpose(sums.ctypes.data + 4 * (r * columns + c), 4 * columns, target, 4 * outputs)
            from_output = tiled
        for m in range(rows):
            for r in range(from_output, outputs):
                out[start + c + m, r] = sums[r * columns + c + m]
    for m in range(start, start + used):
        _finish(out[m], scale, bias)


def _rows(
    x: Floats,
    counts: Any,
    indices: Bytes,
    floats: Floats,
    codes: Any,
    scale: Floats,
    bias: Floats,
    out: Floats,
) -> None:
    for m in range(out.shape[0]):
        row = out[m]
        row[:] = 0
        entry: Any = 0
        for p in range(counts.shape[0]):
            near = x[m, p * PANEL : (p + 1) * PANEL]
            for r in range(row.size):
                count = np.int64(counts[p, r])
                places = indices.ctypes.data + entry
                if entry + count + LANES > indices.size:  # vectors might reach beyond the last entry
                    total = np.float32(0)
                    for k in range(entry, entry + count):
                        value = np.float32(codes[k]) if codes.size > 0 else floats[k]
                        total += value * near[indices[k]]
                elif codes.size > 0:
                    total = sum_of_codes(codes.ctypes.data + entry, places, count, near.ctypes.data)
                else:
                    total = sum_of_floats(floats.ctypes.data + 4 * entry, places, count, near.ctypes.data)
                row[r] += total
                entry += count
        _finish(row, scale, bias)


@register_jitable
def _finish(row: Floats, scale: Floats, bias: Floats) -> None:
    """Scale the sums of a row, and add the bias, where there is one."""
    if scale.size > 0:
        for r in range(row.size):
            row[r] *= scale[r]
    if bias.size > 0:
        for r in range(row.size):
            row[r] += bias[r]


def _positions(mask: Bytes, inputs: int, places: Any, lengths: Bytes, counts: Any, indices: Bytes) -> None:
    at = 0
    target: Any = indices.ctypes.data + 0
    for p in range(counts.shape[0]):
        size = (min(PANEL, inputs - p * PANEL) + 7) // 8
        for r in range(counts.shape[1]):
            before, base = target, np.uint64(0)
            for byte in mask[at : at + size]:
                store_word(target, places[byte] + base)  # eight places; the next word overwrites the surplus
                target += np.int64(lengths[byte])
                base += _EIGHT_IN_EACH
            counts[p, r] = target - before
            at += size


def _bit_places() -> tuple[Any, Bytes]:
    """Return for each byte the places of its bits, as eight bytes of a word, and how many they are."""
    words, lengths = np.zeros((256, 8), np.uint8), np.zeros(256, np.uint8)
    for byte in range(256):
        found = [bit for bit in range(8) if byte >> bit & 1]
        words[byte, : len(found)] = found
        lengths[byte] = len(found)
    return words.view("<u8").reshape(-1).astype(np.uint64), lengths


_EIGHT_IN_EACH = np.uint64(0x0808080808080808)
_WORDS, _LENGTHS = _bit_places()
_ONE, _TWO = "float32[::1]", "float32[:, ::1]"
_ENTRIES = f"uint16[:, ::1], uint8[::1], {_ONE}, int8[::1], {_ONE}, {_ONE}"


def _batch_kernel() -> Kernel | None:
    signature = f"void({_TWO}, {_ENTRIES}, {_ONE}, {_ONE}, {_ONE}, {_TWO})"
    return compiled_or_none(_batch, signature, _batch_agrees)


def _rows_kernel() -> Kernel | None:
    if not can_gather():
        return None
    return compiled_or_none(_rows, f"void({_TWO}, {_ENTRIES}, {_TWO})", _rows_agrees)


def _positions_kernel() -> Kernel | None:
    signature = "void(uint8[::1], intp, uint64[::1], uint8[::1], uint16[:, ::1], uint8[::1])"
    return compiled_or_none(_positions, signature, _positions_agrees)


def _case(rows: int, inputs: int, outputs: int) -> tuple[Floats, Any, list[Any]]:
    """Return inputs and a matrix of small whole numbers, whose sums are exact, and its entries."""
    rng = np.random.default_rng(0)
    x = rng.integers(-9, 10, (rows, inputs)).astype(np.float32)
    weight = rng.integers(-9, 10, (inputs, outputs)) * (rng.random((inputs, outputs)) < rng.random(outputs))
    packed = pack(weight.astype(np.float32), "csr", "float32")
    return x, weight, [packed.counts, packed.indices, packed.values]


def _agrees(run: Any, x: Floats, weight: Any, entries: list[Any]) -> bool:
    """Try a kernel with floats and with codes."""
    *places, floats = entries
    outputs = weight.shape[1]
    nothing, scale = np.empty(0, np.float32), np.arange(outputs, dtype=np.float32)
    no_codes, codes = np.empty(0, np.int8), floats.astype(np.int8)
    found = [np.full((len(x), outputs), np.nan, np.float32) for _ in range(2)]
    run(x, *places, floats, no_codes, nothing, nothing, found[0])
    run(x, *places, nothing, codes, scale, -scale, found[1])
    return np.array_equal(found[0], x @ weight) and np.array_equal(found[1], (x @ weight) * scale - scale)


def _batch_agrees(kernel: Kernel) -> bool:
    return all(_agrees(lambda *a: _run_batch(kernel, *a), *_case(rows, 300, 83)) for rows in (3, 16, 50))


def _rows_agrees(kernel: Kernel) -> bool:
    return _agrees(lambda *a: _run_rows(kernel, *a), *_case(2, 300, 83))


def _positions_agrees(kernel: Kernel) -> bool:
    _, weight, (counts, indices, _) = _case(1, 300, 83)
    mask = pack(weight.astype(np.float32), "bitmask", "float32").mask
    found = np.zeros_like(counts), np.zeros(indices.size + 8, np.uint8)
    kernel(mask, 300, _WORDS, _LENGTHS, *found)
    return np.array_equal(found[0], counts) and np.array_equal(found[1][: indices.size], indices)
