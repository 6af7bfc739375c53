"""Whether two outputs are the same: in structure, shapes, kinds of numbers and values."""

from __future__ import annotations

import math
from dataclasses import dataclass

from perfclaims.output_differences import Finding, findings
from perfclaims.output_nodes import Node, PlainNode
from perfclaims.output_reading import needs_reading, read, share_storage
from perfclaims.output_tree import normal_form
from perfclaims.tolerance import Tolerance

__all__ = ["OutputComparison", "Tolerance", "compare", "needs_reading", "read", "share_storage", "snapshot"]


@dataclass(frozen=True, slots=True)
class OutputComparison:
    """How two outputs compare; every number in it is finite.

    `elements` counts the numbers and other values compared and `differing` those that break the tolerance;
    all of a part whose structure differs do. Under `relative_l2`, where no single element breaks it, the
    unequal elements of a refused array count. `largest_difference` is the largest |actual - expected|, of
    the worst array when something differs, and None when it is not a finite number. `where` is the path to
    that place, such as "['logits'][1][0, 5]"; None for a match and for the output as a whole. `relative_l2`
    is that of the worst array, None when it is not finite or there are no numbers.
    """

    matched: bool
    elements: int
    differing: int
    largest_difference: float | None
    where: str | None
    relative_l2: float | None
    returned_nothing: bool
    message: str


def snapshot(output: object, *, may_read: bool = True) -> object:
    """Return an independent copy of an output for `compare`, to be taken directly after the call.

    Args:
        output: what an implementation returned.
        may_read: whether `.numpy()` of objects inside may be called. Without it such an object never
            matches: pass False once `read` had its turn, so that no work is put off until after the clock.

    Raises:
        ValueError: the output is nested too deep or contains itself.
    """
    return normal_form(output, copy=True, may_read=may_read)


def compare(expected: object, actual: object, tolerance: Tolerance) -> OutputComparison:
    """Compare two outputs or snapshots of outputs.

    Arrays, NumPy scalars and numbers compare by shape, kind (float16, 32 and 64 are one) and value, under
    `tolerance`; integers are exact under rtol and atol, and Python integers adapt to any kind of integer.
    Rectangular lists of numbers are arrays; tuples and other lists match element by element, also along the
    first axis of an array; dictionaries and dataclasses by key; strings and sets by equality; enumeration
    members and classes by identity. Objects with `.numpy()` are read. Anything else never matches, because
    its `==` may be code of the audited side. NaN equals NaN. Every array must hold by itself. None instead
    of an output and outputs without a single value never match, because they prove nothing.

    Raises:
        ValueError: an output is nested too deep or contains itself.
    """
    left = normal_form(expected, copy=False, may_read=True)
    right = normal_form(actual, copy=False, may_read=True)
    missing = [name for name, node in (("expected", left), ("actual", right)) if _is_none(node)]
    if missing:
        sides = " and the ".join(missing)
        return _mismatch(f"nothing was returned: the {sides} output is None", nothing=True)
    return _summary(list(findings(left, right, tolerance)), tolerance)


def _is_none(node: Node) -> bool:
    return isinstance(node, PlainNode) and node.value is None


def _mismatch(message: str, *, nothing: bool = False) -> OutputComparison:
    return OutputComparison(False, 0, 0, None, None, None, nothing, message)


def _summary(found: list[Finding], tolerance: Tolerance) -> OutputComparison:
    elements, differing = sum(f.elements for f in found), sum(f.differing for f in found)
    if elements == 0:
        return _mismatch("nothing to compare: both outputs are empty")
    ratios = [f.relative_l2 for f in found if f.relative_l2 is not None]
    relative_l2 = max(ratios) if ratios and math.isfinite(max(ratios)) else None
    wrong = [f for f in found if f.differing]
    if not wrong:
        largest = max((f.largest for f in found if f.largest is not None), default=None)
        message = f"{_all(elements)} ({tolerance.describe()})"
        return OutputComparison(True, elements, 0, largest, None, relative_l2, False, message)
    worst = max(wrong, key=_severity)
    message = worst.structure or _values_differ(worst, differing, elements, tolerance)
    return OutputComparison(
        False, elements, differing, worst.largest, worst.where or None, relative_l2, False, message
    )


def _all(elements: int) -> str:
    return "the only element matches" if elements == 1 else f"all {elements} elements match"


def _severity(finding: Finding) -> tuple[bool, float]:
    largest = math.inf if finding.largest is None else finding.largest
    return bool(finding.structure), largest


def _values_differ(worst: Finding, differing: int, elements: int, tolerance: Tolerance) -> str:
    count = f"{differing} of {elements} elements {'differs' if differing == 1 else 'differ'}{worst.detail}"
    if tolerance.relative_l2 is None or worst.relative_l2 is None or worst.largest is None:
        return count
    error = f"{worst.relative_l2:.6g}" if math.isfinite(worst.relative_l2) else "is infinite"
    return f"relative L2 error {error} where {tolerance.relative_l2:g} is allowed: {count}"
