"""How long a claim is expected to take: its own word, then earlier runs with the same preset."""

import json

import pytest

from perfclaims.claims import Claim
from perfclaims.criteria import Speedup
from perfclaims.durations import Durations, recorded_durations
from perfclaims.presets import as_preset

NORMAL, FAST = as_preset("normal"), as_preset("fast")


def claim(expected_s=None, id="a.b"):  # noqa: A002
    return Claim(id, "s", criteria=[Speedup(at_least=2)], expected_s=expected_s)


def write(folder, stamp, durations, *, budget="normal", interrupted=False, verdict="PASS"):
    claims = [{"id": i, "duration_s": s, "verdict": verdict} for i, s in durations.items()]
    run = {
        "configuration": {"budget": budget},
        "interrupted": interrupted,
        "modules": [{"claims": claims[:1]}, {"claims": claims[1:]}],
    }
    (folder / f"validation_{stamp}.json").write_text(json.dumps(run))


def test_a_claims_own_word_comes_first_and_scales_with_the_preset():
    expected = [
        Durations(as_preset(p), {"a.b": 99.0}).expected_s(claim(12.0)) for p in ("fast", "normal", "rigorous")
    ]
    assert expected == pytest.approx([6.0, 12.0, 44.0])


def test_without_it_the_newest_run_that_measured_the_claim_counts_and_then_a_default(tmp_path):
    write(tmp_path, "20260101T000000Z", {"a.b": 1.0, "a.c": 2.0})
    write(tmp_path, "20260102T000000Z", {"a.b": 3.0})
    durations = recorded_durations(tmp_path, NORMAL)
    assert [durations.expected_s(claim(id=i)) for i in ("a.b", "a.c")] == [3.0, 2.0]
    assert durations.expected_s(claim(id="new")) == Durations(NORMAL).expected_s(claim()) > 0


@pytest.mark.parametrize(
    "change", [{"budget": "fast"}, {"interrupted": True}, {"verdict": "ERROR"}, {"verdict": "NOT_RUN"}]
)
def test_runs_that_say_nothing_about_this_one_are_passed_over(tmp_path, change):
    write(tmp_path, "20260102T000000Z", {"a.b": 3.0}, **change)
    assert recorded_durations(tmp_path, NORMAL).recorded == {}


def test_damaged_files_and_a_missing_folder_are_no_obstacle(tmp_path):
    write(tmp_path, "20260101T000000Z", {"a.b": 1.5}, budget="fast")
    for stamp, text in (("20260102T000000Z", "{"), ("20260103T000000Z", ""), ("20260104T000000Z", "[1]")):
        (tmp_path / f"validation_{stamp}.json").write_text(text)
    (tmp_path / "validation_20260105T000000Z.json").write_bytes(b"\xff\xfe")
    (tmp_path / "validation_20260106T000000Z.json").mkdir()
    (tmp_path / "validation_20260107T000000Z.json").write_text("[" * 100_000)
    assert recorded_durations(tmp_path, FAST).recorded == {"a.b": 1.5}
    assert recorded_durations(tmp_path / "none", FAST).recorded == {}


def test_only_the_newest_files_are_opened(tmp_path):
    write(tmp_path, "20250101T000000Z", {"old": 1.0})
    for day in range(10, 30):
        write(tmp_path, f"202601{day}T000000Z", {"a.b": float(day)})
    assert recorded_durations(tmp_path, NORMAL).recorded == {"a.b": 29.0}
