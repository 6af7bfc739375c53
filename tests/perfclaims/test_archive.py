"""Run files: created once, replaced whole or not at all, and judged again to the same verdicts."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from evidence_factory import claim, document, module, number, result, sizes, timing
from gallery import gallery, modules

from perfclaims.archive import ArchiveError, RunFile, rejudge
from perfclaims.codes import Verdict
from perfclaims.criteria import OutputsMatch, SizeRatio, Speedup, Value
from perfclaims.evidence import Trouble
from perfclaims.packing import pack, unpack

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SAME = OutputsMatch()


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def plain(content):
    """As it would be read from a file."""
    return json.loads(json.dumps(content, allow_nan=False))


def write(folder, content):
    file = RunFile(folder, NOW)
    file.write(content)
    return file.path


class TestCreating:
    def test_the_file_is_named_for_the_second_in_utc_and_a_second_run_gets_a_number(self, tmp_path):
        files = [RunFile(tmp_path / "runs", NOW) for _ in range(3)]
        assert [file.path.name for file in files] == [
            "validation_20260102T030405Z.json",
            "validation_20260102T030405Z_2.json",
            "validation_20260102T030405Z_3.json",
        ]
        assert [f"validation_{file.run_id}.json" for file in files] == [file.path.name for file in files]

    def test_nothing_is_ever_overwritten(self, tmp_path):
        earlier = tmp_path / "validation_20260102T030405Z.json"
        earlier.write_text("somebody's")
        (tmp_path / "validation_20260102T030405Z_2.json").symlink_to(tmp_path / "nowhere")
        file = RunFile(tmp_path, NOW)
        file.write({"a": 1})
        assert file.path.name == "validation_20260102T030405Z_3.json"
        assert earlier.read_text() == "somebody's"
        assert not (tmp_path / "nowhere").exists()

    def test_processes_that_start_in_the_same_second_get_files_of_their_own(self, tmp_path):
        program = (
            "import sys; from datetime import UTC, datetime; from pathlib import Path\n"
            "from perfclaims.archive import RunFile\n"
            "now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)\n"
            "for _ in range(20): print(RunFile(Path(sys.argv[1]), now).path.name)"
        )
        command = [sys.executable, "-c", program, str(tmp_path)]
        started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        names = [name for process in started for name in process.communicate()[0].split()]
        assert len(names) == len(set(names)) == 40
        assert sorted(names) == names_in(tmp_path)

    def test_a_folder_that_cannot_be_written_to_is_named_with_what_to_do(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(
            ArchiveError, match=r"run files to '.*file/runs': Not a directory; choose another"
        ):
            RunFile(tmp_path / "file" / "runs", NOW)

    def test_a_second_can_be_full(self, tmp_path, monkeypatch):
        monkeypatch.setattr("perfclaims.archive._MOST_IN_A_SECOND", 3)
        RunFile(tmp_path, NOW)
        RunFile(tmp_path, NOW)
        with pytest.raises(ArchiveError, match="holds 2 runs of this second; wait a moment"):
            RunFile(tmp_path, NOW)

    def test_a_run_that_measured_nothing_leaves_no_file(self, tmp_path):
        file = RunFile(tmp_path, NOW)
        file.discard()
        file.discard()
        assert names_in(tmp_path) == []


def full_disk(*_):
    raise OSError(28, "No space left on device")


class TestWriting:
    def test_the_content_is_replaced_whole_as_one_line_of_utf_8(self, tmp_path):
        path = write(tmp_path, {"statement": "größer als 2 µs"})
        assert path.read_bytes() == '{"statement":"größer als 2 µs"}\n'.encode()
        assert names_in(tmp_path) == [path.name]

    @pytest.mark.parametrize("step", ["fsync", "open", "replace"])
    def test_a_full_disk_keeps_what_was_written_before_and_nothing_else(self, tmp_path, monkeypatch, step):
        file = RunFile(tmp_path, NOW)
        file.write({"claims": 1})
        owner = os if step == "fsync" else Path
        monkeypatch.setattr(owner, step, full_disk)
        with pytest.raises(ArchiveError, match=r"'.*Z.json': No space left on device; it holds what was"):
            file.write({"claims": 2})
        monkeypatch.undo()
        assert json.loads(file.path.read_text()) == {"claims": 1}
        assert names_in(tmp_path) == [file.path.name]
        file.write({"claims": 3})
        assert json.loads(file.path.read_text()) == {"claims": 3}

    @pytest.mark.skipif(sys.platform == "win32", reason="no such limit")
    def test_a_write_that_breaks_off_half_way_leaves_the_file_whole(self, tmp_path):
        """A real limit on file sizes in a process of its own: the write fails after 8 kB of 100."""
        program = (
            "import os, resource, sys; from pathlib import Path\n"
            "from perfclaims.archive import ArchiveError, RunFile\n"
            "file = RunFile(Path(sys.argv[1])); file.write({'claims': 1})\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))\n"
            "try: file.write({'text': 'x' * 100_000})\n"
            "except ArchiveError as error: print(error)"
        )
        done = subprocess.run(
            [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True
        )
        (name,) = names_in(tmp_path)
        assert f"{name}': File too large; it holds what was written before" in done.stdout
        assert json.loads((tmp_path / name).read_text()) == {"claims": 1}

    @pytest.mark.parametrize(
        ("content", "said"),
        [({"a": float("nan")}, "Out of range float values"), ({"a": {1, 2}}, "set is not JSON serializable")],
    )
    def test_what_strict_json_cannot_hold_is_refused_and_the_file_stays(self, tmp_path, content, said):
        file = RunFile(tmp_path, NOW)
        file.write({"claims": 1})
        with pytest.raises(ArchiveError, match=f"cannot write .*{said}.*; it holds what was written before"):
            file.write(content)
        assert json.loads(file.path.read_text()) == {"claims": 1}

    def test_temporary_files_do_not_look_like_run_files(self, tmp_path, monkeypatch):
        file = RunFile(tmp_path, NOW)
        seen = []
        monkeypatch.setattr(os, "fsync", lambda descriptor: seen.extend(names_in(tmp_path)))
        file.write({"claims": 1})
        assert [name for name in seen if name.endswith(".json")] == [file.path.name]
        assert len(seen) == 2

    def test_an_interrupt_while_writing_keeps_the_file_and_leaves_nothing(self, tmp_path, monkeypatch):
        file = RunFile(tmp_path, NOW)
        file.write({"claims": 1})

        def interrupt(_):
            raise KeyboardInterrupt

        monkeypatch.setattr(os, "fsync", interrupt)
        with pytest.raises(KeyboardInterrupt):
            file.write({"claims": 2})
        assert names_in(tmp_path) == [file.path.name]
        assert json.loads(file.path.read_text()) == {"claims": 1}

    def test_file_names_that_are_no_utf_8_do_not_stop_the_archive(self, tmp_path):
        """Python hands them on as lone surrogates, which reach error messages."""
        name = os.fsdecode(b"caf\xe9.npy")
        trouble = Trouble("raised", f"FileNotFoundError: {name}")
        path = write(tmp_path, document(module(result(claim(SAME), trouble=trouble))))
        assert rejudge(path).modules[0].claims[0].summary == f"FileNotFoundError: {name}."


class TestRejudging:
    def test_every_kind_of_evidence_gives_the_same_verdicts_again(self, tmp_path):
        made = modules()
        found = rejudge(write(tmp_path, document(*made)))
        assert found.differences == ()
        assert not found.interrupted
        for before, after in zip(made, found.modules, strict=True):
            assert (after.module, after.title, after.error, after.duration_s) == (
                before.module,
                before.title,
                before.error,
                before.duration_s,
            )
            assert after.verdict == before.verdict
            for old, new in zip(before.claims, after.claims, strict=True):
                assert (new.id, new.verdict, new.reasons, new.summary) == (
                    old.id,
                    old.verdict,
                    old.reasons,
                    old.summary,
                )
                assert new.duration_s == old.duration_s
                assert [r.findings for r in new.criteria] == [r.findings for r in old.criteria]
                assert (new.claim.statement, new.claim.source, new.claim.status, new.claim.threads) == (
                    old.claim.statement,
                    old.claim.source,
                    old.claim.status,
                    old.claim.threads,
                )

    def test_the_gallery_has_every_verdict_kind_of_evidence_and_reason(self):
        results = gallery().values()
        assert {r.verdict for r in results} == set(Verdict)
        kinds = {piece.kind for r in results for piece in r.evidence.pieces}
        assert kinds == {"timing", "outputs", "sizes", "outcomes", "scaling", "value", "missing"}
        criteria = {c.kind for r in results for c in r.claim.criteria}
        assert len(criteria) == 7

    def test_samples_survive_in_execution_order(self, tmp_path):
        measured = timing(2.0, fresh=2.1)
        found = rejudge(write(tmp_path, document(module(result(claim(SAME, Speedup(2)), measured)))))
        (again,) = found.modules[0].claims[0].evidence.pieces
        for before, after in ((measured.samples, again.samples), (measured.last_round, again.last_round)):
            for name in ("instance", "optimized_first", "baseline_ns", "optimized_ns"):
                assert np.array_equal(getattr(before, name), getattr(after, name))
                assert getattr(before, name).dtype == getattr(after, name).dtype

    def test_requirements_are_kept_by_name(self, tmp_path):
        path = write(tmp_path, document(*modules()))
        found = {c.id: c for m in rejudge(path).modules for c in m.claims}
        assert found["none.applicable"].claim.requires == ("avx2", "needs_numba")

    def test_an_interrupted_run_tells_and_what_it_finished_is_judged(self, tmp_path):
        found = rejudge(write(tmp_path, document(*modules(), interrupted=True)))
        assert found.interrupted
        assert found.differences == ()
        assert len(found.modules[0].claims) == 14

    def test_a_run_without_claims_is_judged_to_nothing(self, tmp_path):
        assert rejudge(write(tmp_path, document())).differences == ()

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (lambda c: c.update(verdict="PASS"), "fail.slower: the file says PASS, its evidence says FAIL"),
            (
                lambda c: c.update(reasons=[]),
                "fail.slower: the file says for no reason, its evidence says for the reasons no-benefit",
            ),
            (
                lambda c: c["criteria"][1].update(outcome="confirmed"),
                "fail.slower, Speedup: the file says outcome confirmed, its evidence says outcome refuted",
            ),
            (
                lambda c: c["criteria"][1].update(low=None),
                "fail.slower, Speedup: the file says low none, its evidence says low 0.49",
            ),
            (
                lambda c: c["criteria"][1].update(estimate=3.0),
                "fail.slower, Speedup: the file says estimate 3.0, its evidence says estimate 0.4999",
            ),
            (
                lambda c: c["criteria"][1]["findings"].clear(),
                "fail.slower, Speedup: the file lists other findings than its evidence gives",
            ),
            # The threshold is lowered after the fact: what was judged against it no longer fits.
            (
                lambda c: c["criteria"][1]["thresholds"].update(at_least=0.4),
                "fail.slower: the file says FAIL, its evidence says PASS",
            ),
        ],
    )
    def test_what_was_tampered_with_is_named(self, tmp_path, change, said):
        content = plain(document(*modules()))
        (record,) = [c for m in content["modules"] for c in m["claims"] if c["id"] == "fail.slower"]
        change(record)
        assert rejudge(write(tmp_path, content)).differences[0].startswith(said)

    def test_tampered_samples_give_other_numbers(self, tmp_path):
        content = plain(document(module(result(claim(SAME, Speedup(2), id="a"), timing(1.5)))))
        samples = content["modules"][0]["claims"][0]["evidence"]["pieces"][0]["samples"]
        samples["optimized_ns"] = pack(unpack(samples["optimized_ns"]) // 2)
        differences = rejudge(write(tmp_path, content)).differences
        assert "a: the file says PARTIAL, its evidence says PASS" in differences
        assert any(d.startswith("a, Speedup: the file says estimate 1.") for d in differences)

    def test_a_tampered_count_changes_the_interval_of_a_rate(self, tmp_path):
        content = plain(document(*modules()))
        (record,) = [c for m in content["modules"] for c in m["claims"] if c["id"] == "pass.rate"]
        record["evidence"]["pieces"][0].update(successes=40, number=40 / 60)
        assert any(d.startswith("pass.rate: ") for d in rejudge(write(tmp_path, content)).differences)

    def test_verdicts_of_modules_and_of_the_run_are_checked_too(self, tmp_path):
        content = plain(document(module(result(claim(SAME, Speedup(2)), timing(0.5)))))
        content["verdict"] = content["modules"][0]["verdict"] = "PASS"
        assert rejudge(write(tmp_path, content)).differences == (
            "module study: the file says PASS, its evidence says FAIL",
            "the run: the file says PASS, its evidence says FAIL",
        )
        content["interrupted"], content["verdict"], content["finished_at"] = True, None, None
        assert rejudge(write(tmp_path, content)).differences == (
            "module study: the file says PASS, its evidence says FAIL",
        )

    def test_rounding_in_the_last_place_is_no_difference(self, tmp_path):
        content = plain(document(module(result(claim(SAME, Speedup(2)), timing(3.0)))))
        criterion = content["modules"][0]["claims"][0]["criteria"][1]
        estimate = criterion["estimate"]
        criterion["estimate"] = estimate * (1 + 1e-13)
        assert rejudge(write(tmp_path, content)).differences == ()
        criterion["estimate"] = estimate * (1 + 1e-11)
        assert len(rejudge(write(tmp_path, content)).differences) == 1

    def test_numpy_thresholds_and_values_are_judged_again_to_the_same(self, tmp_path):
        criteria = [
            SAME,
            Speedup(np.float32(1.1), worthwhile=np.float16(1.05)),
            SizeRatio(np.int64(2)),
            Value("x", at_least=np.float32(0.1)),
        ]
        evidence = [timing(1.3), sizes(9, 2), number("x", float(np.float32(0.1)))]
        made = result(claim(*criteria), *evidence)
        assert made.verdict == "PASS"
        assert rejudge(write(tmp_path, document(module(made)))).differences == ()
