"""Submissions as folders: packed, read, and refused where they are not what they say."""

import json
import os
import subprocess

import numpy as np
import pytest
from tinymlperf_stand_ins import HONEST, log_of, packed, small_benchmark

import tinytorch as tt
from tinytorch.benchmarking.tinymlperf.machine import describe_system, machine_kind, revision_of
from tinytorch.benchmarking.tinymlperf.submissions import (
    MANIFEST,
    SubmissionError,
    hash_of,
    pack,
    read_submission,
    with_log,
)


@pytest.fixture
def folder(tmp_path):
    """A submission's folder."""
    return packed(tmp_path / "s").folder


def edited(folder, **changes):
    """Change submission.json."""
    document = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(document | changes))
    return folder


class TestPacking:
    def test_what_is_packed_is_read_again(self, tmp_path):
        submission = packed(tmp_path / "s", name="mine", code=HONEST)
        again = read_submission(tmp_path / "s")
        assert again == submission
        assert (again.name, again.event, again.division) == ("mine", "mlp_sprint", "open")
        assert again.document["weights"]["sha256"] == hash_of(again.weights)
        assert again.document["log"] is None
        assert again.code.read_text() == HONEST
        assert not again.kv_cache

    def test_a_model_is_saved(self, tmp_path):
        model = tt.Linear(3, 2)
        pack(model, tmp_path / "s", name="x", event="cnn_marathon", division="open")
        x = np.ones((1, 3), np.float32)
        loaded = tt.load_model(tmp_path / "s" / "model.safetensors")
        assert (loaded(x).data == model(x).data).all()

    def test_a_folder_with_files_is_left_alone(self, folder):
        before = (folder / MANIFEST).read_bytes()
        with pytest.raises(
            SubmissionError, match=r"`folder` must be new or empty, got '.*', which holds files"
        ):
            pack(tt.Linear(1, 1), folder, name="x", event="mlp_sprint")
        assert (folder / MANIFEST).read_bytes() == before

    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            ({"event": "marathon"}, "event: 'marathon' is not one of"),
            ({"division": "ajar"}, "division: 'ajar' is not one of"),
            ({"name": ""}, "name: "),
            ({"name": "two\nlines"}, "name: "),
            ({"name": "x" * 81}, "name: "),
        ],
    )
    def test_wrong_words_are_refused(self, tmp_path, changes, reason):
        given = {"name": "x", "event": "mlp_sprint", "division": "open"} | changes
        with pytest.raises(SubmissionError, match=reason):
            pack(tt.Linear(1, 1), tmp_path / "s", **given)

    @pytest.mark.parametrize("exists", [True, False])
    def test_a_refusal_leaves_nothing_behind(self, tmp_path, exists):
        target, given = tmp_path / "deep" / "s", {"name": "x", "event": "mlp_sprint"}
        if exists:
            target.mkdir(parents=True)
        too_large = tmp_path / "large"
        with too_large.open("wb") as file:
            file.truncate((1 << 28) + 1)
        os.mkfifo(tmp_path / "pipe")
        for model, changes in (
            (tt.Linear(1, 1), {"event": "marathon"}),
            (tt.Linear(1, 1), {"code": tmp_path / "nothing"}),
            (tt.Linear(1, 1), {"code": __file__}),  # in the closed division
            (tt.Linear(1, 1), {"name": "\ud800"}),
            (tmp_path / "nothing", {}),
            (tmp_path, {}),
            (too_large, {}),
            (tmp_path / "pipe", {}),
            ("a\0b", {}),
            (None, {}),
            (len, {}),
            (123456, {}),
        ):
            with pytest.raises(SubmissionError):
                pack(model, target, **given | changes)
            assert target.exists() == exists
            assert target.parent.exists() == exists
            assert not exists or not list(target.iterdir())
        assert pack(tt.Linear(1, 1), target, **given).name == "x"

    def test_a_model_that_cannot_be_saved_leaves_nothing_behind(self, tmp_path, monkeypatch):
        def fails(model, path):
            path.write_text("half")
            raise KeyboardInterrupt

        monkeypatch.setattr("tinytorch.core.models.save_model", fails)
        with pytest.raises(KeyboardInterrupt):
            pack(tt.Linear(1, 1), tmp_path / "deep" / "s", name="x", event="mlp_sprint")
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize(
        ("given", "said"),
        [
            ({"model": None}, "`model` must be a Layer, or a file of a model, got NoneType"),
            ({"model": len}, "`model` must be a Layer, or a file of a model, got builtin_function_or_method"),
            ({"model": 123456}, "`model` must be a Layer, or a file of a model, got int"),
            (
                {"model": "nothing"},
                "^cannot pack 'nothing': No such file .*; `model` must be a Layer",
            ),
            ({"code": 3}, "`code` must be a file of code, got int"),
            ({"folder": 3}, "`folder` must be a path, got int"),
            ({"name": "\ud800"}, "text that is none, with half of a surrogate pair"),
            ({"kv_cache": True}, r"`kv_cache` .* texts \(transformer_decathlon\), got it for mlp_sprint"),
            ({"name": 3}, "name: 3 is not of type 'string'"),
            ({"kv_cache": "yes"}, "kv_cache: 'yes' is not of type 'boolean'"),
        ],
    )
    def test_wrong_arguments_are_named(self, tmp_path, given, said):
        arguments = {"model": tt.Linear(1, 1), "folder": tmp_path / "s", "name": "x", "event": "mlp_sprint"}
        with pytest.raises(SubmissionError, match=said):
            pack(**arguments | {"division": "open"} | given)

    def test_the_closed_division_takes_no_code(self, tmp_path):
        with pytest.raises(SubmissionError, match="brings code, which the closed division excludes"):
            packed(tmp_path / "s", code=HONEST, division="closed")

    def test_a_file_that_is_missing_is_named(self, tmp_path):
        with pytest.raises(SubmissionError, match=r"cannot pack '.*': No such file"):
            pack(tmp_path / "nothing", tmp_path / "s", name="x", event="mlp_sprint")

    def test_the_same_files_are_the_same_submission_whenever_packed(self, tmp_path):
        one = packed(tmp_path / "1")
        saved = one.weights.read_bytes()
        two = packed(tmp_path / "2", weights=saved)
        other = packed(tmp_path / "3", model=tt.Linear(2, 2))
        assert one.submission_id == two.submission_id != other.submission_id
        renamed = packed(tmp_path / "4", weights=saved, name="another name")
        assert renamed.submission_id != one.submission_id


class TestReading:
    def test_a_folder_without_one_is_no_submission(self, tmp_path):
        with pytest.raises(SubmissionError, match=r"cannot read '.*submission.json': No such file"):
            read_submission(tmp_path)

    @pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '{"x": NaN}', "\xff"])
    def test_what_is_no_json_is_refused(self, folder, text):
        (folder / MANIFEST).write_bytes(text.encode("latin-1"))
        with pytest.raises(SubmissionError, match=r"'.*submission.json' is no (JSON|submission)"):
            read_submission(folder)

    @pytest.mark.timeout(20)
    @pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
    def test_what_is_no_regular_file_is_not_read(self, folder, kind):
        (folder / MANIFEST).unlink()
        if kind == "pipe":
            os.mkfifo(folder / MANIFEST)
        elif kind == "device":
            (folder / MANIFEST).symlink_to("/dev/zero")
        else:
            (folder / MANIFEST).mkdir()
        with pytest.raises(SubmissionError, match=r"submission.json' must be a regular file"):
            read_submission(folder)

    def test_no_more_is_read_than_a_log_can_be(self, folder, monkeypatch):
        monkeypatch.setattr("tinytorch.benchmarking.tinymlperf.files.MOST_BYTES", 100)
        with pytest.raises(SubmissionError, match="is larger than 256 MB, which no log is"):
            read_submission(folder)

    @pytest.mark.parametrize("name", ["schema", "name", "event", "weights", "system", "revision", "log"])
    def test_every_part_is_required(self, folder, name):
        document = json.loads((folder / MANIFEST).read_text())
        del document[name]
        (folder / MANIFEST).write_text(json.dumps(document))
        with pytest.raises(SubmissionError, match=f"the whole: '{name}' is a required property"):
            read_submission(folder)

    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            ({"schema": "tinytorch/submission/2"}, "schema: 'tinytorch/submission/1' was expected"),
            ({"rank": 1}, "the whole: Additional properties are not allowed .'rank' was unexpected."),
            ({"kv_cache": "yes"}, "kv_cache: 'yes' is not of type 'boolean'"),
            ({"revision": {"commit": "main", "dirty": False}}, "revision"),
            ({"system": {}}, "system: '.*' is a required property"),
            ({"log": {"ratio": 100}}, "log"),
            ({"name": "half a \ud800"}, "text that is none, with half of a surrogate pair"),
        ],
    )
    def test_what_the_schema_does_not_know_is_refused(self, folder, changes, reason):
        with pytest.raises(SubmissionError, match=reason):
            read_submission(edited(folder, **changes))

    def test_a_changed_file_is_noticed(self, folder):
        weights = folder / "model.safetensors"
        content = bytearray(weights.read_bytes())
        content[-1] ^= 1
        weights.write_bytes(content)
        with pytest.raises(SubmissionError, match="is not the file that was submitted: its SHA-256 differs"):
            read_submission(folder)

    @pytest.mark.parametrize("absolute", [True, False])
    def test_a_path_outside_of_the_folder_is_refused(self, folder, absolute):
        secret = folder.parent / "secret"
        secret.write_text("labels")
        named = str(secret) if absolute else "../secret"
        weights = {"file": named, "sha256": hash_of(secret)}
        with pytest.raises(SubmissionError, match="secret', which lies outside of the submission's folder"):
            read_submission(edited(folder, weights=weights))

    def test_a_link_to_the_outside_is_refused(self, folder):
        secret = folder.parent / "secret"
        secret.write_text("labels")
        (folder / "link").symlink_to(secret)
        weights = {"file": "link", "sha256": hash_of(secret)}
        with pytest.raises(SubmissionError, match="'link', which lies outside of the submission's folder"):
            read_submission(edited(folder, weights=weights))

    @pytest.mark.parametrize("name", ["nothing", "a\0b", "x" * 5000, "loop"])
    def test_a_path_that_leads_nowhere_is_refused(self, folder, name):
        (folder / "loop").symlink_to("loop")
        with pytest.raises(SubmissionError, match="which does not exist"):
            read_submission(edited(folder, weights={"file": name, "sha256": "0" * 64}))

    def test_a_folder_or_a_pipe_is_no_file(self, folder):
        (folder / "sub").mkdir()
        os.mkfifo(folder / "pipe")
        for name in ("sub", "pipe", "."):
            with pytest.raises(SubmissionError, match="must be a file of at most 256 MB"):
                read_submission(edited(folder, weights={"file": name, "sha256": "0" * 64}))


class TestLogs:
    def test_a_log_is_written_and_nothing_else_changes(self, folder):
        before = read_submission(folder)
        after = with_log(before, log_of([1.5] * 6))
        assert after.document["log"] == log_of([1.5] * 6)
        assert after.submission_id == before.submission_id
        assert {**after.document, "log": None} == {**before.document, "log": None}
        assert sorted(path.name for path in folder.iterdir()) == ["model.safetensors", MANIFEST]

    def test_a_log_that_does_not_fit_is_refused_and_the_file_stays(self, folder):
        before = (folder / MANIFEST).read_bytes()
        log = log_of([1.5] * 6)
        log["sittings"][0]["offline"]["submission_ns"] = [[-1]]
        with pytest.raises(SubmissionError, match="is no submission of tinytorch/submission/1: log"):
            with_log(read_submission(folder), log)
        assert (folder / MANIFEST).read_bytes() == before


class TestMachine:
    def test_the_system_is_described_without_naming_anyone(self):
        system = describe_system()
        assert system["cores"] >= 1
        assert system["memory_gb"] > 0
        assert os.uname().nodename not in json.dumps(system)
        assert machine_kind(system) == f"{system['cpu']}, {system['os']}"

    def test_the_kind_of_machine_is_its_processor_and_system(self):
        one = {"cpu": "A", "os": "Linux x86_64", "cores": 2, "memory_gb": 4.0}
        assert machine_kind(one) == machine_kind(one | {"cores": 64, "memory_gb": 512.0})
        assert machine_kind(one) != machine_kind(one | {"cpu": "B"})
        assert machine_kind(one) != machine_kind(one | {"os": "Darwin arm64"})

    def test_a_revision_is_that_of_the_repository(self, tmp_path):
        assert revision_of(tmp_path) is None
        git = ["git", "-C", str(tmp_path), "-c", "user.name=x", "-c", "user.email=x@x"]
        subprocess.run([*git, "init", "-q"], check=True)
        (tmp_path / "f").write_text("1")
        subprocess.run([*git, "add", "f"], check=True)
        subprocess.run([*git, "commit", "-q", "-m", "x"], check=True)
        clean = revision_of(tmp_path)
        assert len(clean["commit"]) == 40
        assert clean["dirty"] is False
        (tmp_path / "f").write_text("2")
        assert revision_of(tmp_path) == clean | {"dirty": True}


def test_the_stand_in_is_the_smallest_model():
    assert small_benchmark().inputs.shape == (450, 64)
