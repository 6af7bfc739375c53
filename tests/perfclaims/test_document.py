"""What is no run file, or a damaged one, is refused in one sentence that names the file."""

import contextlib
import copy
import json
import random

import pytest
from evidence_factory import claim, document, module, result, timing
from gallery import modules

from perfclaims.archive import rejudge
from perfclaims.codec import encode
from perfclaims.codes import Outcome, Reason, Verdict
from perfclaims.criteria import KINDS, OutputsMatch, Speedup
from perfclaims.document import SCHEMA, ArchiveError, read_run, schema, schema_problem
from perfclaims.packing import MOST_VALUES


def plain(content):
    """As it would be read from a file."""
    return json.loads(json.dumps(content, allow_nan=False))


def small():
    return plain(document(module(result(claim(OutputsMatch(), Speedup(2)), timing(3.0)))))


def refusal(path):
    """The sentence with which a file is refused."""
    with pytest.raises(ArchiveError) as caught:
        rejudge(path)
    said = str(caught.value)
    assert str(path) in said or repr(str(path)) in said
    assert "\n" not in said
    assert len(said) < len(str(path)) + 400
    return said


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is no run file: it is empty"),
        (b" \n", "is no run file: it is empty"),
        (b"\x00\xff\x80", "byte 1 is not UTF-8"),
        (b"\xef\xbb\xbf{}", "is no run file, or damaged: Unexpected UTF-8 BOM"),
        (b"hello", "is no run file, or damaged: Expecting value"),
        (b"[]", "is not of the format 'perfclaims/run/1': its schema is none"),
        (b"3", "is not of the format"),
        (b"null", "is not of the format"),
        (b"{}", "is not of the format 'perfclaims/run/1': its schema is None"),
        (b'{"schema": "perfclaims/run/2"}', "its schema is 'perfclaims/run/2'"),
        (b'{"schema": ["perfclaims/run/1"]}', "its schema is ['perfclaims/run/1']"),
        (b'{"schema": "perfclaims/run/1"}', "is damaged: the document: 'run_id' is a required property"),
        (b'{"schema": NaN}', "NaN is not a JSON number"),
        (b'{"schema": -Infinity}', "-Infinity is not a JSON number"),
        (b'{"schema": 1e999}', "1e999 is beyond every float"),
        (b'{"schema": -1' + b"0" * 400 + b"}", "0000 is beyond every float"),
        (b'{"a": 1, "b": 2, "a": 3}', "an object has 'a' twice"),
        (b"[" * 100_000, "it is nested too deep"),
        (b'{"schema": ' + b"9" * 5000 + b"}", "is no run file, or damaged: Exceeds the limit"),
    ],
    ids=lambda value: value[:20] if isinstance(value, bytes) else "",
)
def test_other_files_are_refused(tmp_path, content, said):
    path = tmp_path / "run.json"
    path.write_bytes(content)
    assert said in refusal(path)


def test_files_that_cannot_be_read_are_refused(tmp_path):
    assert "cannot read" in refusal(tmp_path / "none.json")
    assert "No such file" in refusal(tmp_path / "none.json")
    assert "Is a directory" in refusal(tmp_path)
    with pytest.raises(ArchiveError, match=r"cannot read .*null"):
        read_run(tmp_path / "a\0b")


def test_a_file_of_absurd_size_is_not_read_to_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr("perfclaims.document._MOST_BYTES", 1 << 20)
    path = tmp_path / "run.json"
    path.write_bytes(b" " * (2 << 20) + b"{}")
    assert "is no run file: it is" in refusal(path)
    path.write_bytes(b"[" + b" " * (2 << 20))
    assert "is no run file: it is larger than 1 MB" in refusal(path)


def test_more_samples_than_any_run_makes_are_refused_before_they_are_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr("perfclaims.document._MOST_SAMPLES", 100)
    path = tmp_path / "run.json"
    path.write_text(json.dumps(small()))
    # 30 pairs and 10 of the last round, four columns each.
    assert "is damaged: 160 samples are more than any run makes" in refusal(path)


def test_a_file_cut_anywhere_is_refused(tmp_path):
    whole = json.dumps(small()).encode() + b"\n"
    path = tmp_path / "run.json"
    path.write_bytes(whole)
    assert rejudge(path).differences == ()
    for length in [*range(1, len(whole) - 1, 211), len(whole) - 2]:
        path.write_bytes(whole[:length])
        assert "is no run file, or damaged" in refusal(path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda piece: piece.update(kind="guess"), "pieces[0].kind: 'guess' is not one of"),
        (lambda piece: piece.update(kind=["timing"]), "pieces[0]"),
        (
            lambda piece: piece["plan"].update(instances=3),
            "evidence.pieces[0]: `instance` must lie between 0 and 2",
        ),
        (lambda piece: piece["plan"].update(looks=99), "evidence.pieces[0].plan: 99 looks at"),
        (lambda piece: piece["plan"].update(instances=10**9), "plan.instances: 1000000000 is greater than"),
        (lambda piece: piece["plan"].update(instances=True), "plan.instances: True is not of type"),
        (lambda piece: piece["plan"].update(group_size=2.0), "plan.group_size: expected int, got 2.0"),
        (
            lambda piece: piece["samples"].pop("optimized_ns"),
            "samples: 'optimized_ns' is a required property",
        ),
        (
            lambda piece: piece["samples"].update(instance=encode(timing([2.0] * 6).samples.instance)),
            "samples: `instance`, `optimized_first`, `baseline_ns`, `optimized_ns` must have one shape",
        ),
        (
            lambda piece: piece["samples"]["baseline_ns"].update(length=MOST_VALUES + 1),
            f"length: {MOST_VALUES + 1} is greater than the maximum of {MOST_VALUES}",
        ),
        (
            lambda piece: piece["samples"]["baseline_ns"].update(length=29),
            "samples.baseline_ns: samples are damaged (not the 116 bytes",
        ),
        (
            lambda piece: piece["samples"]["baseline_ns"].update(data="AAAA"),
            "evidence.pieces[0].samples.baseline_ns: samples are damaged (",
        ),
        (
            lambda piece: piece["samples"].update(instance=piece["samples"]["optimized_first"]),
            "samples.instance.type: 'int' was expected",
        ),
        (lambda piece: piece.update(decided_early=True), "`decided_early` needs a plan with looks"),
        (lambda piece: piece.update(threads="some"), "pieces[0].threads"),
        (lambda piece: piece.update(verdict="PASS"), "Additional properties are not allowed ('verdict' was"),
    ],
)
def test_damage_deep_inside_is_refused_with_its_place(tmp_path, change, said):
    content = small()
    change(content["modules"][0]["claims"][0]["evidence"]["pieces"][0])
    path = tmp_path / "run.json"
    path.write_text(json.dumps(content))
    sentence = refusal(path)
    assert "is damaged: " in sentence
    assert said in sentence


def test_a_threshold_that_makes_no_sense_is_refused_with_its_claim(tmp_path):
    content = small()
    content["modules"][0]["claims"][0]["criteria"][1]["kind"] = "SizeRatio"
    path = tmp_path / "run.json"
    path.write_text(json.dumps(content))
    assert "criteria[1].thresholds" in refusal(path)
    content = small()
    content["modules"][0]["claims"][0]["criteria"][0]["gate"] = False
    path.write_text(json.dumps(content))
    assert "is damaged: claim 'study.claim' cannot be read: OutputsMatch is always a gate" in refusal(path)


def first(content):
    """The first claim of a document."""
    return content["modules"][0]["claims"][0]


class TestSchema:
    def test_it_accepts_every_kind_of_claim_finished_or_not(self):
        assert schema_problem(plain(document(*modules()))) is None
        assert schema_problem(plain(document(*modules(), interrupted=True))) is None
        assert schema_problem(plain(document())) is None

    def test_its_words_are_those_of_the_code(self):
        definitions = schema()["$defs"]
        assert definitions["verdict"]["enum"] == list(Verdict)
        assert definitions["outcome"]["enum"] == list(Outcome)
        assert definitions["reason"]["enum"] == list(Reason)
        assert definitions["criterion"]["properties"]["kind"]["enum"] == list(KINDS)
        assert definitions["packed"]["properties"]["length"]["maximum"] == MOST_VALUES
        assert schema()["properties"]["schema"]["const"] == SCHEMA

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (
                lambda d: d.update(interrupted=True, verdict=None),
                "finished_at: '2026-01-02T03:04:09Z' is not",
            ),
            (lambda d: d.update(interrupted=True, finished_at=None), "verdict: 'PASS' is not of type 'null'"),
            (lambda d: d.update(finished_at=None), "finished_at"),
            (lambda d: d.update(verdict="NOT_RUN"), "verdict: 'NOT_RUN' is not one of"),
            (lambda d: d.update(started_at="yesterday"), "started_at: 'yesterday' does not match"),
            (lambda d: d.update(run_id="1"), "run_id: '1' does not match"),
            (lambda d: d.update(code={"commit": "abc", "dirty": False}), "code.commit: 'abc' does not match"),
            (lambda d: d.update(duration_s=-1), "duration_s: -1 is less than the minimum of 0"),
            (lambda d: d.update(comment="fine"), "Additional properties are not allowed"),
            (lambda d: d["configuration"].pop("seed"), "configuration: 'seed' is a required property"),
            (lambda d: d["configuration"].update(confidence=1), "confidence: 1 is greater than or equal to"),
            (lambda d: d["environment"].pop("cpu"), "environment: 'cpu' is a required property"),
            (lambda d: first(d).update(id="two words"), "claims[0].id: 'two words' does not match"),
            (lambda d: first(d).update(criteria=[]), "claims[0].criteria: [] should be non-empty"),
            (lambda d: first(d)["reasons"].append("tired"), "'tired' is not one of"),
        ],
    )
    def test_it_refuses_other_documents(self, change, said):
        content = small()
        change(content)
        assert said in schema_problem(content)

    def test_configuration_and_environment_may_say_more(self):
        content = small()
        content["configuration"]["note"] = "fine"
        content["environment"]["container"] = True
        content["environment"]["cpu"]["cache"] = None
        assert schema_problem(content) is None


def places(part, at=()):
    """Paths to everything inside a document."""
    if isinstance(part, dict | list):
        for key, inside in part.items() if isinstance(part, dict) else enumerate(part):
            yield (*at, key)
            yield from places(inside, (*at, key))


def at(content, path):
    for key in path:
        content = content[key]
    return content


def alone():
    """A document for each claim of the gallery."""
    for made in modules()[:2]:
        for judged in made.claims:
            yield plain(document(module(judged)))


def test_everything_in_a_claim_is_required():
    """Whatever key is lost, the schema notices; only what the system did meanwhile may say less."""
    seen = set()
    for content in alone():
        for path in list(places(content["modules"])):
            owner = at(content["modules"], path[:-1])
            kind = owner.get("kind") if isinstance(owner, dict) else None
            key = (tuple(p for p in path if isinstance(p, str)), kind)
            if isinstance(path[-1], int) or "activity" in path[:-1] or key in seen:
                continue
            seen.add(key)
            kept = owner.pop(path[-1])
            assert schema_problem(content) is not None, path
            owner[path[-1]] = kept
    assert len(seen) > 150


def test_whatever_is_changed_is_judged_or_refused_and_never_breaks(tmp_path):
    rng = random.Random(7)
    numbers = [-1, 0, 1, 2.5, 1e300, -1e-300, 10**400, 2**62]
    wrong = [None, True, *numbers, "", "x", [], [1], {}, {"kind": "timing"}]
    path = tmp_path / "run.json"
    for content in alone():
        everywhere = list(places(content["modules"]))
        for place in rng.sample(everywhere, 15):
            damaged = copy.deepcopy(content)
            at(damaged["modules"], place[:-1])[place[-1]] = rng.choice(wrong)
            path.write_text(json.dumps(damaged))
            with contextlib.suppress(ArchiveError):
                rejudge(path)
