"""Profilers and referees that only look like it, planted under the claims about them: none may pass.

What convicts them are counts, reasons and ratios; without the cheat the same criteria hold.
"""

import importlib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from perfclaims import Verdict
from perfclaims.codes import Outcome
from tinytorch.benchmarking.statistics import Interval
from tinytorch.benchmarking.tinymlperf import playing, referee, scoring
from tinytorch.benchmarking.tinymlperf.confinement import can_confine
from tinytorch.perf.profiling import Timer
from tinytorch.perf.profiling.recording import Recorder

SUITES = Path(__file__).parent / "performance"
# Seconds for each comparison: none of its times is looked at.
SHORT = 0.01

confined = pytest.mark.skipif(not can_confine(), reason="this kernel cannot confine own code")


@pytest.fixture
def profiling(monkeypatch):
    monkeypatch.syspath_prepend(str(SUITES))
    return importlib.import_module("test_module_15_profiling")


@pytest.fixture
def benchmarking(monkeypatch):
    monkeypatch.syspath_prepend(str(SUITES))
    module = importlib.import_module("test_module_20_benchmarking")
    for name in ("QUICK", "STEADY"):
        monkeypatch.setattr(module, name, replace(module.QUICK, min_duration_s=0.06))
    monkeypatch.setattr(scoring, "check_clock", lambda phases: None)  # which a busy machine can fail
    return module


def judged(module, claim):
    """The result of one claim."""
    (result,) = module.suite.run(SHORT, only=claim).claims
    assert result.verdict is not Verdict.ERROR, result.summary
    return result


def refuted(module, claim):
    """Names of the criteria that convict a claim, where it does not pass; those of times are left out."""
    result = judged(module, claim)
    found = {getattr(c.criterion, "name", None) for c in result.criteria if c.outcome is Outcome.REFUTED}
    assert not found or result.verdict in (Verdict.FAIL, Verdict.PARTIAL)
    return found - {None}


class TestProfiling:
    OVERHEAD, TRUTH = "profiling.overhead", "profiling.timer-truth"

    @pytest.fixture(autouse=True)
    def _fewer_ratios(self, profiling, monkeypatch):
        monkeypatch.setattr(profiling, "timed_ratio", lambda ratio, groups, rng: [0.0] * groups)

    def test_everything_is_recorded_without_a_cheat(self, profiling):
        assert refuted(profiling, self.OVERHEAD) == set()

    def test_a_recorder_that_only_runs_operations_is_found_out(self, profiling, monkeypatch):
        monkeypatch.setattr(
            Recorder, "operation", lambda self, rule, arrays, options: rule(*arrays, **options)
        )
        assert refuted(profiling, self.OVERHEAD) == {profiling.ADDITIONS, profiling.MISSING}

    def test_a_recorder_that_only_runs_layers_is_found_out(self, profiling, monkeypatch):
        monkeypatch.setattr(
            Recorder, "layer", lambda self, layer, args, kwargs: layer.forward(*args, **kwargs)
        )
        assert refuted(profiling, self.OVERHEAD) == {profiling.MISSING}

    def test_a_recorder_that_keeps_every_second_operation_is_found_out(self, profiling, monkeypatch):
        genuine, turn = Recorder.operation, [0]

        def every_second(self, rule, arrays, options):
            turn[0] += 1
            if turn[0] % 2:
                return rule(*arrays, **options)
            return genuine(self, rule, arrays, options)

        monkeypatch.setattr(Recorder, "operation", every_second)
        assert refuted(profiling, self.OVERHEAD) == {profiling.ADDITIONS, profiling.MISSING}

    def test_milliseconds_are_right_without_a_cheat(self, profiling):
        assert profiling.MILLISECONDS not in refuted(profiling, self.TRUTH)

    def test_a_timer_of_another_unit_is_found_out(self, profiling, monkeypatch):
        genuine = Timer.elapsed_ns.fget
        monkeypatch.setattr(Timer, "elapsed_ns", property(lambda self: genuine(self) // 7))
        assert profiling.MILLISECONDS in refuted(profiling, self.TRUTH)
        assert judged(profiling, self.TRUTH).verdict is Verdict.FAIL

    def test_a_timer_that_does_not_count_pauses_is_found_out(self, profiling, monkeypatch):
        from tinytorch.perf.profiling import timer

        monkeypatch.setattr(timer, "perf_counter_ns", profiling.time.process_time_ns)
        assert profiling.MILLISECONDS in refuted(profiling, self.TRUTH)


@confined
class TestAccuracyGate:
    CLAIM = "benchmarking.accuracy-gate"

    @pytest.fixture
    def one_cheat(self, benchmarking, monkeypatch):
        name, cheat = list(benchmarking.CHEATS.items())[-1]
        monkeypatch.setattr(benchmarking, "CHEATS", {name: cheat})

    @pytest.mark.usefixtures("one_cheat")
    def test_it_passes_without_a_cheat(self, benchmarking):
        assert judged(benchmarking, self.CLAIM).verdict is Verdict.PASS

    @pytest.mark.usefixtures("one_cheat")
    def test_a_referee_that_lets_no_code_run_is_found_out(self, benchmarking, monkeypatch):
        monkeypatch.setattr(referee, "can_confine", lambda: False)
        assert refuted(benchmarking, self.CLAIM) == {benchmarking.OTHERWISE, benchmarking.UNRANKED}

    def test_a_referee_that_ranks_whatever_it_is_given_is_found_out(self, benchmarking, monkeypatch):
        monkeypatch.setattr(benchmarking, "judge", lambda *args, **kwargs: SimpleNamespace(ranked=True))
        assert refuted(benchmarking, self.CLAIM) == {benchmarking.RANKED}

    def test_where_no_code_can_be_confined_it_does_not_apply(self, benchmarking, monkeypatch):
        monkeypatch.setattr(benchmarking, "can_confine", lambda: False)
        assert judged(benchmarking, self.CLAIM).verdict is Verdict.NOT_APPLICABLE


@confined
class TestFairScoring:
    CLAIM = "benchmarking.fair-scoring"

    @pytest.fixture
    def measured_once(self, benchmarking, monkeypatch):
        """Leave out the submission that works twice, which these cheats are not about."""
        genuine, rulings = benchmarking.ranked_of, []

        def once(model, *code, settings):
            if not code:
                rulings.append(genuine(model, settings=settings))
            return rulings[-1]

        monkeypatch.setattr(benchmarking, "ranked_of", once)

    def test_nothing_convicts_it_without_a_cheat(self, benchmarking):
        assert refuted(benchmarking, self.CLAIM) == set()

    def test_a_scorer_that_always_says_one_is_found_out(self, benchmarking, monkeypatch):
        genuine = scoring._score
        monkeypatch.setattr(
            scoring, "_score", lambda *args: replace(genuine(*args), ratio=Interval(1.0, 0.99, 1.01, 0.95))
        )
        assert refuted(benchmarking, self.CLAIM) == {
            name(scenario)
            for name in (benchmarking.raised_by, benchmarking.twice_the_work)
            for scenario in benchmarking.SCENARIOS
        }

    @pytest.mark.usefixtures("measured_once")
    def test_a_referee_that_always_asks_the_submission_first_is_found_out(self, benchmarking, monkeypatch):
        genuine = playing.play_round

        class First:
            random = staticmethod(lambda: 0.0)

        monkeypatch.setattr(
            playing, "play_round", lambda pair, phase, play, rng: genuine(pair, phase, play, First)
        )
        assert benchmarking.FIRST in refuted(benchmarking, self.CLAIM)

    @pytest.mark.usefixtures("measured_once")
    def test_a_referee_that_asks_the_reference_model_alone_is_found_out(self, benchmarking, monkeypatch):
        def alone(player, other, play):
            return play(other if player.entrant.name == benchmarking.SUBMISSION else player)

        monkeypatch.setattr(playing, "_alone", alone)
        assert benchmarking.ONE_SIDED in refuted(benchmarking, self.CLAIM)


# What a giver of badges can do wrong, and what convicts it.
BADGES = {
    "the KV cache for everybody": (lambda genuine: lambda a, n: genuine(a, 1), "UNDESERVED"),
    "the KV cache for nobody": (lambda genuine: lambda a, n: genuine(a, 0), "MISSED"),
    "half precision for everybody": (
        lambda genuine: lambda a, n: (*genuine(a, n), "half precision (1% of the weights)"),
        "UNDESERVED",
    ),
    "smaller for everybody": (
        lambda genuine: lambda a, n: genuine(replace(a, size_ratio=2), n),
        "UNDESERVED",
    ),
    "fewer numbers for nobody": (lambda genuine: lambda a, n: genuine(replace(a, held_share=1), n), "MISSED"),
}


class TestInnovation:
    CLAIM = "benchmarking.innovation"

    def test_it_passes_without_a_cheat(self, benchmarking):
        assert judged(benchmarking, self.CLAIM).verdict is Verdict.PASS

    @pytest.mark.parametrize("what", BADGES)
    def test_badges_that_are_not_earned_or_not_given_are_found_out(self, benchmarking, monkeypatch, what):
        cheat, convicted = BADGES[what]
        monkeypatch.setattr(benchmarking, "cached_tokens", lambda folder, model, kv_cache: 23 * kv_cache)
        monkeypatch.setattr(benchmarking, "badges_of", cheat(benchmarking.badges_of))
        assert refuted(benchmarking, self.CLAIM) == {getattr(benchmarking, convicted)}


# The genuine module, with shorter training, and a last event whose labels differ from process to process.
DIFFERING = """
import importlib.util
import os
import sys

sys.path.insert(0, SUITES)
spec = importlib.util.spec_from_file_location("genuine", SUITES + "/test_module_20_benchmarking.py")
genuine = importlib.util.module_from_spec(spec)
spec.loader.exec_module(genuine)
genuine.BRIEFLY = {"digits-mlp-784": 1, "digits-cnn-wide": 1, "text-gpt": 1}
loaded = genuine.TinyMLPerf.load_benchmark


def differing(self, event):
    benchmark = loaded(self, event)
    if event == "transformer_decathlon":
        benchmark.labels[0] = os.getpid()
    return benchmark


genuine.TinyMLPerf.load_benchmark = differing
digests = genuine.digests
"""


def test_an_event_that_differs_from_process_to_process_is_found_out(benchmarking, monkeypatch, tmp_path):
    stand_in = tmp_path / "test_module_20_benchmarking.py"
    stand_in.write_text(f"SUITES = {str(SUITES)!r}\n{DIFFERING}")
    monkeypatch.setattr(benchmarking, "__file__", str(stand_in))
    result = judged(benchmarking, "benchmarking.reproducible")
    assert result.verdict is Verdict.FAIL
    assert "events that differ in a second process is 1 against exactly 0" in result.summary
