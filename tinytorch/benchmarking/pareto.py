"""Which models nobody beats at everything, as far as the intervals tell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from tinytorch.benchmarking.statistics import Interval

#: "front": no estimate is better in both. "undecided": one is, but the intervals overlap. "dominated": one
#: is, and no interval overlaps.
Place = Literal["front", "undecided", "dominated"]


@dataclass(frozen=True, slots=True)
class Point:
    """A model by two metrics, and whether another one is better.

    Attributes:
        x, y: of which less is better in `x`, and more in `y`, unless the front was made otherwise.
        beaten_by: the models that are better for sure.
    """

    name: str
    x: Interval
    y: Interval
    place: Place
    beaten_by: tuple[str, ...]


def pareto_front(
    x: Mapping[str, Interval],
    y: Mapping[str, Interval],
    *,
    more_x_is_better: bool = False,
    more_y_is_better: bool = True,
) -> tuple[Point, ...]:
    """Place every model by two metrics.

    A model is called dominated only where another one is at least as good in both and better in one, with
    intervals that do not overlap; where they do, the measurement does not tell.

    Raises:
        ValueError: there are no models, or the metrics are not of the same ones.
    """
    if not x or set(x) != set(y):
        raise ValueError(f"`x` and `y` must be of the same models, at least one, got {list(x)} and {list(y)}")
    gains = {name: (_gain(x[name], more_x_is_better), _gain(y[name], more_y_is_better)) for name in x}
    points = []
    for name in x:
        others = [other for other in x if other != name]
        sure = tuple(other for other in others if _surely_beats(gains[other], gains[name]))
        seems = any(_seems_to_beat(gains[other], gains[name]) for other in others)
        place: Place = "dominated" if sure else "undecided" if seems else "front"
        points.append(Point(name, x[name], y[name], place, sure))
    return tuple(points)


_Gains = tuple[Interval, Interval]


def _gain(interval: Interval, more_is_better: bool) -> Interval:
    if more_is_better:
        return interval
    return Interval(-interval.estimate, -interval.high, -interval.low, interval.confidence)


def _surely_beats(one: _Gains, other: _Gains) -> bool:
    at_least = all(a.low >= b.high for a, b in zip(one, other, strict=True))
    return at_least and any(a.low > b.high for a, b in zip(one, other, strict=True))


def _seems_to_beat(one: _Gains, other: _Gains) -> bool:
    at_least = all(a.estimate >= b.estimate for a, b in zip(one, other, strict=True))
    return at_least and any(a.estimate > b.estimate for a, b in zip(one, other, strict=True))
