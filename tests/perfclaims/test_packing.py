"""Columns of samples survive as text, exactly and small; damaged text is refused before it fills memory."""

import base64
import json
import tracemalloc
import zlib

import numpy as np
import pytest

from perfclaims.packing import MOST_VALUES, PackingError, pack, unpack


def through_json(values):
    return unpack(json.loads(json.dumps(pack(values), allow_nan=False)))


@pytest.mark.parametrize(
    "values",
    [
        np.array([], dtype=np.int64),
        np.array([0]),
        np.array([7] * 1000),
        np.arange(300),
        np.array([255, 256, 65535, 65536, 2**32 - 1, 2**32, 2**63 - 1]),
        np.array([3, 1, 2], dtype=np.uint16),
        np.arange(20)[::-3],
        np.array([True, False, True]),
        np.array([], dtype=bool),
        np.random.default_rng(0).integers(0, 2**40, 999),
    ],
    ids=lambda values: f"{values.dtype}-{len(values)}",
)
def test_integers_and_booleans_come_back_exactly(values):
    again = through_json(values)
    assert again.dtype == (np.bool_ if values.dtype == bool else np.int64)
    assert again.tolist() == values.tolist()


@pytest.mark.parametrize(
    ("values", "width"), [([], 1), ([255], 1), ([256], 2), ([65536], 4), ([2**32], 8), ([2**63 - 1], 8)]
)
def test_values_take_the_smallest_width_that_holds_them(values, width):
    assert pack(np.array(values, dtype=np.int64))["width"] == width


def test_the_layout_is_the_one_that_the_schema_describes():
    """Lowest bytes first, then all second bytes: read here without the package."""
    packed = pack(np.array([0x0102, 0x0304, 0x0506]))
    assert packed["type"] == "int"
    assert zlib.decompress(base64.b64decode(packed["data"])) == bytes([2, 4, 6, 1, 3, 5])


@pytest.mark.parametrize(
    "values", [np.array([1.5]), np.array([-1]), np.zeros((2, 2), dtype=int), np.array(["a"])]
)
def test_other_arrays_are_not_packed(values):
    with pytest.raises(ValueError, match="only flat arrays of integers of zero or more are packed"):
        pack(values)


def test_an_array_too_long_to_be_read_again_is_not_packed():
    with pytest.raises(ValueError, match=f"at most {MOST_VALUES} values are packed, got {MOST_VALUES + 1}"):
        pack(np.broadcast_to(np.int64(0), MOST_VALUES + 1))


@pytest.mark.parametrize("spread", [0.003, 0.02, 0.1])
def test_ten_thousand_realistic_durations_take_less_than_30_kilobytes(spread):
    """190 us with log-normal jitter and one preemption of milliseconds in two hundred samples."""
    rng = np.random.default_rng(1)
    durations = 190_000 * np.exp(rng.normal(0, spread, 10_000))
    durations[rng.integers(0, 10_000, 50)] += rng.uniform(1e6, 5e6, 50)
    packed = pack(durations.astype(np.int64))
    assert len(json.dumps(packed)) < 30_000
    assert unpack(packed).tolist() == durations.astype(np.int64).tolist()


GOOD = pack(np.arange(1000))


def text(raw):
    return base64.b64encode(zlib.compress(raw)).decode()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"width": 3}, "samples of 3 bytes, 1000 of them, are not of this format"),
        ({"width": 4}, r"samples are damaged \(not the 4000 bytes that they should be\)"),
        ({"length": 999}, r"samples are damaged \(not the 1998 bytes"),
        ({"length": 1001}, r"samples are damaged \(not the 2002 bytes"),
        ({"length": -1}, "samples of 2 bytes, -1 of them, are not of this format"),
        ({"length": MOST_VALUES + 1}, f"{MOST_VALUES + 1} of them, are not of this format"),
        ({"length": 1e3}, "samples need `type`, `width`, `length` and `data`"),
        ({"length": "1000"}, "samples need `type`"),
        ({"type": "float"}, "samples need `type`"),
        ({"type": "bool"}, "samples of type 'bool' hold 999"),
        ({"data": None}, "samples need `type`"),
        ({"data": "not base64!"}, r"samples are damaged \(.*base64"),
        ({"data": GOOD["data"][:-8]}, "samples are damaged"),
        ({"data": base64.b64encode(b"no zlib").decode()}, "samples are damaged"),
        ({"data": text(b"short")}, r"samples are damaged \(not the 2000 bytes"),
        ({"data": text(bytes(2001))}, r"samples are damaged \(not the 2000 bytes"),
        ({"data": base64.b64encode(zlib.compress(bytes(2000)) + b"more").decode()}, "samples are damaged"),
        ({"data": base64.b64encode(zlib.compress(bytes(2000))[:-4]).decode()}, "samples are damaged"),
    ],
)
def test_what_pack_did_not_write_is_refused(change, said):
    with pytest.raises(PackingError, match=said):
        unpack({**GOOD, **change})


@pytest.mark.parametrize("packed", [None, [], "text", 3, {}, {"type": "int"}])
def test_other_json_is_refused(packed):
    with pytest.raises(PackingError, match="samples need `type`, `width`, `length` and `data`"):
        unpack(packed)


def test_one_flipped_bit_is_noticed():
    raw = bytearray(base64.b64decode(GOOD["data"]))
    for place in range(0, len(raw), 97):
        raw[place] ^= 1
        damaged = {**GOOD, "data": base64.b64encode(raw).decode()}
        raw[place] ^= 1
        with pytest.raises(PackingError, match="samples are damaged"):
            unpack(damaged)


def test_text_that_unfolds_without_end_is_refused_for_the_price_of_what_it_claims():
    """32 MB of zeros behind a claim of ten values: nobody unfolds them to see."""
    bomb = {"type": "int", "width": 1, "length": 10, "data": text(bytes(32 << 20))}
    tracemalloc.start()
    with pytest.raises(PackingError, match="not the 10 bytes"):
        unpack(bomb)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20


def test_values_beyond_the_integers_of_numpy_are_refused():
    huge = {"type": "int", "width": 8, "length": 1, "data": text(b"\xff" * 8)}
    with pytest.raises(PackingError, match="samples of type 'int' hold 18446744073709551615"):
        unpack(huge)
