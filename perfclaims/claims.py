"""A claim: a statement with a source and with criteria that were fixed before anything was measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from perfclaims.criteria import Criterion, is_number, plain
from perfclaims.evidence import Threads

Status = Literal["asserted", "audited"]
Requirement = str | Callable[[], str | None]


@dataclass(frozen=True)
class Claim:
    """One statement about performance and what would make it true.

    Args:
        id: unique name without spaces, such as "caching.generation-200".
        statement: the claim in a sentence.
        source: who says so, and where.
        criteria: one or more; all must be confirmed for a PASS.
        status: "asserted" (ours) or "audited" (a statement by others, measured as it was made).
        threads: 1, another number, or "all"; for BLAS and compiled code.
        time_limit_s: seconds after which the claim is an ERROR; None: the preset's limit.
        slow: left out of `--fast` runs.
        expected_s: usual duration with the normal budget, for progress and lists.
        requires: CPU flags, or callables that return None or the reason why the claim cannot apply.

    Raises:
        ValueError: a field that makes no sense, by name.
    """

    id: str
    statement: str
    source: str = ""
    criteria: tuple[Criterion, ...] | Sequence[Criterion] = ()
    status: Status = "asserted"
    threads: Threads = 1
    time_limit_s: float | None = None
    slow: bool = False
    expected_s: float | None = None
    requires: tuple[Requirement, ...] | Sequence[Requirement] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.id, str) or not self.id or any(c.isspace() for c in self.id):
            raise ValueError(f"`id` of a claim must be a non-empty string without spaces, got {self.id!r}")
        for name in ("statement", "source"):
            if not isinstance(getattr(self, name), str):
                raise ValueError(
                    f"`{name}` of claim {self.id!r} must be a string, got {getattr(self, name)!r}"
                )
        if not self.statement.strip():
            raise ValueError(f"`statement` of claim {self.id!r} is empty; say what is claimed")
        object.__setattr__(self, "criteria", self._checked_criteria())
        if not isinstance(self.slow, bool):
            raise ValueError(f"`slow` of claim {self.id!r} must be True or False, got {self.slow!r}")
        if self.status not in ("asserted", "audited"):
            raise ValueError(
                f"`status` of claim {self.id!r} must be 'asserted' or 'audited', got {self.status!r}"
            )
        check_threads(self.threads, f"claim {self.id!r}")
        for name in ("time_limit_s", "expected_s"):
            value = getattr(self, name)
            if value is not None and (not is_number(value) or value <= 0):
                raise ValueError(
                    f"`{name}` of claim {self.id!r} must be a positive number or None, got {value!r}"
                )
            object.__setattr__(self, name, plain(value))
        object.__setattr__(self, "requires", self._checked_requirements())

    def _checked_requirements(self) -> tuple[Requirement, ...]:
        given = self.requires
        listed = [given] if isinstance(given, str) or not isinstance(given, Iterable) else list(given)
        if isinstance(given, str) or not all(isinstance(r, str) or callable(r) for r in listed):
            raise ValueError(
                f"`requires` of claim {self.id!r} must be a tuple of CPU flags or callables, got {given!r}"
            )
        return tuple(listed)

    def _checked_criteria(self) -> tuple[Criterion, ...]:
        given: object = self.criteria
        criteria = tuple(given) if isinstance(given, Iterable) else (given,)
        if not criteria:
            raise ValueError(
                f"claim {self.id!r} has no criteria: say what would make it true, e.g. Speedup(at_least=2)"
            )
        for criterion in criteria:
            if not isinstance(criterion, Criterion):
                raise ValueError(
                    f"`criteria` of claim {self.id!r} must be criteria such as Speedup, got {criterion!r}"
                )
        return criteria


def check_threads(threads: object, owner: str) -> None:
    """Raise a ValueError unless `threads` is a positive integer or "all"."""
    if threads == "all" or (isinstance(threads, int) and not isinstance(threads, bool) and threads >= 1):
        return
    raise ValueError(f"`threads` of {owner} must be a positive integer or 'all', got {threads!r}")
