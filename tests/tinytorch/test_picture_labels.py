"""Names beside points lie neither over each other nor past the border of the picture."""

from itertools import combinations

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tinytorch.perf.profiling.labels import place_labels

CASES = {
    "one place": [(1.0, 1.0)] * 6,
    "along the right border": [(2.0, y / 10) for y in range(8)],
    "corners": [(0.0, 0.0), (2.0, 2.0), (0.0, 2.0), (2.0, 0.0)],
}


@pytest.mark.parametrize("places", CASES.values(), ids=CASES)
def test_labels_keep_clear_of_each_other_and_of_the_border(places):
    figure = Figure(figsize=(6, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set(xlim=(0, 2), ylim=(0, 2))
    names = [f"quantized_linear_{index}" for index in range(len(places))]
    place_labels(axes, names, places)
    figure.canvas.draw()
    assert [text.get_text() for text in axes.texts] == names
    boxes = [text.get_window_extent() for text in axes.texts]
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
    border = axes.get_window_extent()
    assert all(border.x0 <= box.x0 and box.x1 <= border.x1 for box in boxes)
    assert all(border.y0 <= box.y0 and box.y1 <= border.y1 for box in boxes)
