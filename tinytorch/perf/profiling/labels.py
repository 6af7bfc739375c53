"""Names beside the points of a picture, where they can be read."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.transforms import Bbox

# Points of 1/72 inch up or down, the nearest first; a line of letters takes about 12.
_STEPS = (4, -12, 16, -24, 28, -36, 40, -48, 52, -60)
_SIDES: tuple[Literal["left", "right"], ...] = ("left", "right")


def place_labels(
    axes: Axes, names: Sequence[str], places: Sequence[tuple[float, float]], size: int = 8
) -> None:
    """Write names beside points, none over another one and none past the border, as far as there is room.

    Args:
        axes: with everything else drawn already: its limits and its layout stay as they are.
        names: of the points, shape (n,).
        places: of the points in data coordinates, shape (n, 2).
        size: of the letters, in points.
    """
    figure = axes.get_figure()
    assert figure is not None, "axes lie in a figure"
    figure.draw_without_rendering()  # type: ignore[union-attr]  # settles the layout
    border = axes.get_window_extent()
    taken: list[Bbox] = []
    for name, place in zip(names, places, strict=True):
        label = axes.annotate(name, place, xytext=(6, 4), textcoords="offset points", fontsize=size)
        label.set_in_layout(False)
        for up, side in product(_STEPS, _SIDES):
            label.set_horizontalalignment(side)
            label.set_position((6 if side == "left" else -6, up))
            box = label.get_window_extent()
            inside = border.contains(box.x0, box.y0) and border.contains(box.x1, box.y1)
            if inside and not any(box.overlaps(other) for other in taken):
                break
        taken.append(box)
