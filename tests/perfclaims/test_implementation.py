"""What is compared: built as often as asked, refused in words."""

import numpy as np
import pytest

from perfclaims.implementation import Implementation, as_implementation


def test_build_gets_the_generator_and_gives_the_callable():
    def build(rng):
        value = rng.random()
        return lambda: value

    implementation = Implementation("draws", build)
    first, again, other = (implementation.instance(np.random.default_rng(seed))() for seed in (1, 1, 2))
    assert first == again != other
    assert implementation.rebuildable


def test_a_callable_becomes_an_implementation_of_a_single_instance():
    wrapped = Implementation.of("sorted", sorted)
    assert not wrapped.rebuildable
    assert wrapped.instance(np.random.default_rng(0)) is sorted
    assert as_implementation("baseline", wrapped, "another name") is wrapped


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Implementation("", lambda rng: sorted), "`name` of an Implementation .* got ''"),
        (lambda: Implementation(3, lambda rng: sorted), "`name` of an Implementation .* got 3"),
        (lambda: Implementation("x", None), "`build` of Implementation 'x' must be callable .* got None"),
        (lambda: Implementation.of("x", 5), r"`func` of Implementation.of\('x'\) must be callable, got 5"),
        (lambda: as_implementation("baseline", 5, "x"), "`baseline` must be an Implementation or a callable"),
        (
            lambda: Implementation("x", lambda rng: 5).instance(np.random.default_rng(0)),
            "`build` of Implementation 'x' must return the callable to be timed, got 5",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(make, said):
    with pytest.raises(ValueError, match=said):
        make()
