"""Where a curve of measured speedups reaches 1 for good."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# A comparison without an interval has 0 and infinity as its ends.
_MOST = 1e9


def last_crossing(places: Sequence[float], speedups: Sequence[float], beyond: float) -> float:
    """The place from which all speedups are at least 1, straight between places in the speedups' logarithm.

    A curve that is never below gets the first place, which stands for "or less"; one that is below at the
    last place has not crossed where it was measured, and gets `beyond`.
    """
    logs = np.log(np.clip(speedups, 1 / _MOST, _MOST))
    below = np.flatnonzero(logs < 0)
    if len(below) == 0:
        return float(places[0])
    last = int(below[-1])
    if last == len(logs) - 1:
        return float(beyond)
    share = logs[last] / (logs[last] - logs[last + 1])
    return float(places[last] + share * (places[last + 1] - places[last]))
