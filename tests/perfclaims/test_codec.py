"""Frozen dataclasses become strict JSON and come back equal; other data is refused with its place."""

import json
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar, Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from perfclaims.codec import NOT_RECORDED, DecodeError, decode, encode


class Colour(StrEnum):
    RED = "red"


@dataclass(frozen=True)
class Inner:
    number: float
    whole: int = 0

    def __post_init__(self):
        if self.number < 0:
            raise ValueError(f"`number` must not be negative, got {self.number}")


@dataclass(frozen=True)
class Circle:
    kind: ClassVar[str] = "circle"
    radius: float


@dataclass(frozen=True)
class Text:
    kind: ClassVar[str] = "text"
    content: str


@dataclass(frozen=True, eq=False)
class Everything:
    flag: bool
    colour: Colour
    inner: Inner | None
    shapes: tuple[Circle | Text, ...]
    both: tuple[int, float]
    threads: int | Literal["all"]
    times: NDArray[np.int64]
    right: NDArray[np.bool_]
    maybe: str | None = None


GOOD = Everything(
    True,
    Colour.RED,
    Inner(1.5, 2),
    (Circle(2.0), Text("x")),
    (1, 2.5),
    "all",
    np.array([1, 2, 300]),
    np.array([True, False]),
)


def written():
    return json.loads(json.dumps(encode(GOOD), allow_nan=False))


def test_all_of_it_comes_back():
    again = decode(Everything, written())
    assert (again.flag, again.colour, again.inner) == (True, Colour.RED, Inner(1.5, 2))
    assert again.shapes == (Circle(2.0), Text("x"))
    assert (again.both, again.threads, again.maybe) == ((1, 2.5), "all", None)
    assert again.times.tolist() == [1, 2, 300]
    assert again.right.tolist() == [True, False]
    assert encode(again) == encode(GOOD)


def test_only_members_of_unions_carry_their_kind():
    assert encode(GOOD)["shapes"] == [{"kind": "circle", "radius": 2.0}, {"kind": "text", "content": "x"}]
    assert encode(Inner(1.0)) == {"number": 1.0, "whole": 0}


def test_numpy_scalars_become_plain_numbers_and_keys_text():
    assert encode({1: np.float32(0.5), "b": np.int64(3), "c": np.True_}) == {"1": 0.5, "b": 3, "c": True}
    assert type(encode(np.int64(3))) is int


def test_whole_numbers_of_json_are_floats_where_floats_are_wanted():
    number = decode(float, 3)
    assert (number, type(number)) == (3.0, float)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("flag", 1, "flag: expected bool, got 1"),
        ("flag", None, "flag: expected bool, got None"),
        ("colour", "blue", "colour: expected Colour, got 'blue'"),
        ("colour", ["red"], "colour: expected Colour, got "),
        ("inner", [], r"inner: expected an object for Inner, got \[\]"),
        ("inner", {"whole": 1}, r"inner: expected the field 'number' of Inner, got \['whole'\]"),
        ("inner", {"number": "1", "whole": 1}, "inner.number: expected float, got '1'"),
        ("inner", {"number": True, "whole": 1}, "inner.number: expected float, got True"),
        ("inner", {"number": 10**400, "whole": 1}, "inner.number: expected a number, got 1000"),
        ("inner", {"number": 1, "whole": 1.0}, "inner.whole: expected int, got 1.0"),
        ("inner", {"number": -1, "whole": 1}, "inner: `number` must not be negative, got -1.0"),
        ("shapes", {}, "shapes: expected a list, got {}"),
        ("shapes", [{"kind": "square"}], r"shapes\[0\]: expected a kind among circle, text, got 'square'"),
        ("shapes", [{"kind": ["text"]}], r"shapes\[0\]: expected a kind among circle, text, got \['text'\]"),
        ("shapes", [3], r"shapes\[0\]: expected a kind among circle, text, got 3"),
        ("shapes", [{"radius": 1.0}], r"shapes\[0\]: expected a kind among circle, text, got None"),
        ("shapes", [{"kind": "circle", "radius": None}], r"shapes\[0\].radius: expected float, got None"),
        ("both", [1], "both: expected 2 items, got"),
        ("both", [1.5, 2.5], r"both\[0\]: expected int, got 1.5"),
        ("threads", "some", r"threads: expected one of \('all',\), got 'some'"),
        ("threads", True, r"threads: expected one of \('all',\), got True"),
        ("times", [1, 2, 3], "times: samples need `type`"),
        ("times", encode(np.array([True])), "times: expected values of type int64, got 'bool'"),
        ("right", encode(np.array([1])), "right: expected values of type bool, got 'int64'"),
        ("maybe", 3, "maybe: expected str, got 3"),
    ],
)
def test_data_of_another_shape_is_refused_with_its_place(field, value, said):
    data = {**written(), field: value}
    with pytest.raises(DecodeError, match=f"^{said}"):
        decode(Everything, data)


def test_a_missing_field_is_named_and_the_place_stands_in_front():
    data = written()
    del data["inner"]["whole"]
    with pytest.raises(DecodeError, match=r"^claim 'a': evidence.inner: expected the field 'whole' of Inner"):
        decode(Everything, data, "claim 'a': evidence")


def test_a_long_value_is_cut_in_the_message():
    with pytest.raises(DecodeError) as caught:
        decode(int, "x" * 10_000)
    assert len(str(caught.value)) < 150


@dataclass(frozen=True)
class Derived:
    number: int
    twice: int = field(default=0, metadata=NOT_RECORDED)


def test_what_follows_from_the_rest_stays_out_of_files():
    assert encode(Derived(2, 4)) == {"number": 2}
    assert decode(Derived, {"number": 2}) == Derived(2)
