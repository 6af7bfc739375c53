"""How long a claim usually takes: what it says itself, else what earlier runs took."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from perfclaims.claims import Claim
from perfclaims.presets import PRESETS, Preset

# Of a claim of which nothing is known, with the normal budget; a third of it does not depend on the budget.
_USUAL_S = 5.0
_FIXED_SHARE = 1 / 3
# Run files that are opened in search of a claim: the newest ones.
_MOST_FILES = 10


@dataclass(frozen=True)
class Durations:
    """Expected seconds of claims with one preset.

    Args:
        preset: of the run to come.
        recorded: seconds of earlier runs with this preset, by claim.
    """

    preset: Preset
    recorded: Mapping[str, float] = field(default_factory=dict)

    def expected_s(self, claim: Claim) -> float:
        """Seconds that a claim usually takes."""
        pace = _FIXED_SHARE + (1 - _FIXED_SHARE) * self.preset.budget_s / PRESETS["normal"].budget_s
        if claim.expected_s is not None:
            return pace * claim.expected_s
        return self.recorded.get(claim.id, pace * _USUAL_S)


def recorded_durations(folder: Path, preset: Preset) -> Durations:
    """Read what the newest finished run files of a folder took with a preset, each claim from the newest."""
    found: dict[str, float] = {}
    files = sorted(folder.glob("validation_*.json"), reverse=True) if folder.is_dir() else []
    for file in files[:_MOST_FILES]:
        for claim_id, duration_s in _finished(file, preset).items():
            found.setdefault(claim_id, duration_s)
    return Durations(preset, found)


def _finished(file: Path, preset: Preset) -> dict[str, float]:
    """Seconds of the claims in a finished run file; none where it is of another preset, or damaged."""
    try:
        run = json.loads(file.read_text(encoding="utf-8"))
        if run["interrupted"] or run["configuration"]["budget"] != preset.name:
            return {}
        claims = [claim for module in run["modules"] for claim in module["claims"]]
        return {
            str(claim["id"]): float(claim["duration_s"])
            for claim in claims
            if claim["verdict"] in ("PASS", "PARTIAL", "FAIL")
        }
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}
