"""How much time a run may spend: presets by name, or seconds per comparison."""

from __future__ import annotations

from dataclasses import dataclass

from perfclaims.criteria import is_number


@dataclass(frozen=True, slots=True)
class Preset:
    """Seconds of timing per comparison, seconds per claim, and whether slow claims take part."""

    name: str
    budget_s: float
    time_limit_s: float
    runs_slow: bool


PRESETS = {
    preset.name: preset
    for preset in (
        Preset("fast", 0.25, 60.0, runs_slow=False),
        Preset("normal", 1.0, 180.0, runs_slow=True),
        Preset("rigorous", 5.0, 900.0, runs_slow=True),
    )
}


def as_preset(budget: str | float | Preset) -> Preset:
    """A preset by name, or the normal one with another number of seconds per comparison.

    Raises:
        ValueError: an unknown name, or seconds that are not a positive number.
    """
    if isinstance(budget, Preset):
        return budget
    if isinstance(budget, str) and budget in PRESETS:
        return PRESETS[budget]
    if not isinstance(budget, str) and is_number(budget) and budget > 0:
        limit = max(PRESETS["normal"].time_limit_s, 180.0 * float(budget))
        return Preset(f"{float(budget):g} s", float(budget), limit, runs_slow=True)
    names = ", ".join(map(repr, PRESETS))
    raise ValueError(f"`budget` must be one of {names} or a positive number of seconds, got {budget!r}")
