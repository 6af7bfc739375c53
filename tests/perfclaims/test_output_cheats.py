"""Outputs made to be taken for the right answer: none may match what was really computed."""

import enum
from collections import namedtuple
from dataclasses import dataclass

import numpy as np
import pytest

from perfclaims import output_nodes
from perfclaims.outputs import Tolerance, compare, snapshot

DEFAULT = Tolerance()
RIGHT = np.array([1.0, 2.0, 3.0])


class EqualsAll:
    def __eq__(self, other):
        return True

    def __ne__(self, other):
        return False

    def __hash__(self):
        return hash("key")

    def __repr__(self):
        return "array([1., 2., 3.])"


class EqualArray(np.ndarray):
    __eq__ = EqualsAll.__eq__
    __hash__ = EqualsAll.__hash__
    shape = property(lambda self: (3,))
    dtype = property(lambda self: np.dtype(float))

    def __array_ufunc__(self, *args, **kwargs):
        return np.array(True)

    def __array_function__(self, *args, **kwargs):
        return True

    def __array__(self, *args, **kwargs):
        return RIGHT


class RightRecords(np.ndarray):
    def __getitem__(self, key):
        return RIGHT


class EqualString(str):
    __eq__ = EqualsAll.__eq__
    __ne__ = EqualsAll.__ne__
    __hash__ = EqualsAll.__hash__
    __slots__ = ()

    def __str__(self):
        return "right"


class EqualBytes(bytes):
    __eq__ = EqualsAll.__eq__
    __hash__ = EqualsAll.__hash__

    def __bytes__(self):
        return b"right"


class RightWhenAsked(float):
    __eq__ = EqualsAll.__eq__
    __hash__ = EqualsAll.__hash__

    def __float__(self):
        return 7.0


class RightIntWhenAsked(int):
    __eq__ = EqualsAll.__eq__
    __hash__ = EqualsAll.__hash__

    def __int__(self):
        return 7

    __index__ = __int__

    def __float__(self):
        return 7.0


class RightScalarWhenAsked(np.float64):
    __float__ = item = RightWhenAsked.__float__

    def __array__(self, *args, **kwargs):
        return np.array(7.0)


class ListDoneLater(list):
    __eq__ = EqualsAll.__eq__
    __hash__ = None
    __array__ = EqualArray.__array__

    def __iter__(self):
        return iter([1.0, 2.0, 3.0])

    def __len__(self):
        return 3

    def __getitem__(self, index):
        return [1.0, 2.0, 3.0][index]


class TupleDoneLater(tuple):
    __slots__ = ()
    __iter__ = ListDoneLater.__iter__
    __len__ = ListDoneLater.__len__
    __getitem__ = ListDoneLater.__getitem__


class DictDoneLater(dict):
    def items(self):
        return {"a": RIGHT}.items()

    def __iter__(self):
        return iter(["a"])

    def keys(self):
        return {"a": RIGHT}.keys()

    def __getitem__(self, key):
        return RIGHT

    def __missing__(self, key):
        return RIGHT

    def __len__(self):
        return 1


class ClaimsToBeAList:
    __class__ = property(lambda self: list)

    def __iter__(self):
        return iter([1.0, 2.0, 3.0])

    def __len__(self):
        return 3


class HasArrayProtocol:
    def __array__(self, *args, **kwargs):
        return RIGHT


@dataclass
class FieldDoneLater:
    logits: object

    def __getattribute__(self, name):
        return RIGHT if name == "logits" else object.__getattribute__(self, name)


@dataclass
class PropertyDoneLater:
    logits: object = None


PropertyDoneLater.logits = property(lambda self: RIGHT)
PropertyDoneLater.__init__ = lambda self: None


@dataclass
class Logits:
    logits: object


class Stealthy(enum.Enum):
    A = 1
    B = 2
    __eq__ = EqualsAll.__eq__
    __hash__ = EqualsAll.__hash__


class Honest(enum.Enum):
    A = 1


def zeros_as(kind):
    return np.zeros(3).view(kind)


@pytest.mark.parametrize(
    ("expected", "actual"),
    [
        (RIGHT, zeros_as(EqualArray)),
        (RIGHT, np.zeros(7).view(EqualArray)),
        (RIGHT, EqualsAll()),
        ("right", EqualsAll()),
        ("right", EqualString("wrong")),
        ("right", [EqualString("wrong")]),
        (["right"], [EqualString("wrong")]),
        (b"right", EqualBytes(b"wrong")),
        (7.0, RightWhenAsked(0)),
        ([7.0], [RightWhenAsked(0)]),
        (7, RightIntWhenAsked(0)),
        ([7, 7], [RightIntWhenAsked(0), 7]),
        (7.0, RightScalarWhenAsked(0)),
        ([7.0], [RightScalarWhenAsked(0)]),
        ([1.0, 2.0, 3.0], ListDoneLater()),
        ([[1.0, 2.0, 3.0]], [ListDoneLater()]),
        ([[1.0, 2.0, 3.0]] * 2, [[1.0, 2.0, 3.0], ListDoneLater()]),
        ([[1.0, 2.0, 3.0]], [ListDoneLater([0.0, 0.0, 0.0])]),
        ((1.0, 2.0, 3.0), TupleDoneLater()),
        ({"a": RIGHT}, DictDoneLater()),
        ({"a": RIGHT}, DictDoneLater(a=np.zeros(3))),
        ({"key": 1.0}, {EqualString("other"): 1.0}),
        ({"key": 1.0}, {EqualsAll(): 1.0}),
        ({"key"}, {EqualsAll()}),
        ({"key"}, {EqualString("other")}),
        ([1.0, 2.0, 3.0], ClaimsToBeAList()),
        (RIGHT, ClaimsToBeAList()),
        (RIGHT, HasArrayProtocol()),
        ([RIGHT, RIGHT], [HasArrayProtocol(), RIGHT]),
        (Logits(RIGHT), FieldDoneLater(np.zeros(3))),
        (Logits(RIGHT), PropertyDoneLater()),
        (Honest.A, Stealthy.A),
        (Stealthy.A, Stealthy.B),
        ("right", Stealthy.A),
        ({"key": "right"}, {"key": Stealthy.A}),
        (np.array([1.0, "x"], dtype=object), np.array([EqualsAll(), "x"], dtype=object)),
        (np.array([(1.0,)], dtype=[("a", "O")]), np.array([(EqualsAll(),)], dtype=[("a", "O")])),
        (np.ma.array([1.0, "x"], dtype=object), np.ma.array([EqualsAll(), "x"], dtype=object)),
        (np.array([(1.0,), (2.0,), (3.0,)], [("a", "f8")]), np.zeros(3, [("a", "f8")]).view(RightRecords)),
        (RIGHT, (x for x in RIGHT)),
        (RIGHT, lambda: RIGHT),
        (RIGHT, memoryview(RIGHT)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_disguised_output_does_not_match_the_right_answer(expected, actual):
    for left, right in ((expected, actual), (actual, expected)):
        assert not compare(left, right, DEFAULT).matched
        assert not compare(snapshot(left), snapshot(right), DEFAULT).matched
        assert not compare(left, right, Tolerance(relative_l2=0.9)).matched


@pytest.mark.parametrize(
    "make",
    [
        EqualsAll,
        lambda: FieldDoneLater(EqualsAll()),
        lambda: {"a": EqualsAll()},
        lambda: {EqualsAll(): 1.0},
        lambda: {EqualsAll()},
        object,
    ],
)
def test_objects_that_judge_themselves_never_match_not_even_one_another(make):
    same = make()
    assert not compare(make(), make(), DEFAULT).matched
    assert not compare(same, same, DEFAULT).matched


@pytest.mark.parametrize(
    "forged",
    [
        output_nodes.ArrayNode(zeros_as(EqualArray)),
        output_nodes.ArrayNode(HasArrayProtocol()),
        output_nodes.ArrayNode(np.array([EqualsAll()] * 3, dtype=object)),
        output_nodes.PlainNode(EqualsAll()),
        output_nodes.PlainNode(EqualString("wrong")),
        output_nodes.SequenceNode(TupleDoneLater()),
        output_nodes.SequenceNode((EqualsAll(),) * 3),
        output_nodes.MappingNode(DictDoneLater()),
    ],
    ids=lambda forged: type(forged).__name__,
)
def test_a_forged_normal_form_is_read_like_everything_else(forged):
    for expected in (RIGHT, [1.0, 2.0, 3.0], (1.0, 2.0, 3.0), {"a": RIGHT}, "right"):
        assert not compare(expected, forged, DEFAULT).matched
        assert not compare(expected, snapshot(forged), DEFAULT).matched


def test_a_named_tuple_of_the_right_values_still_matches():
    pair = namedtuple("pair", "a b")
    assert compare(pair(RIGHT, 2.0), (RIGHT.copy(), 2.0), DEFAULT).matched
