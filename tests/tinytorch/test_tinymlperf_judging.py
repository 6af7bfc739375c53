"""The referee on honest submissions: who gets a rank, which ratio, which badges, and what is closed."""

import copy
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tinymlperf_stand_ins import HONEST, QUICK, packed, small_benchmark, text_benchmark

import tinytorch as tt
from tinytorch.benchmarking.tinymlperf import player
from tinytorch.benchmarking.tinymlperf.confinement import can_confine
from tinytorch.benchmarking.tinymlperf.divisions import check_closed
from tinytorch.benchmarking.tinymlperf.frames import Frame, receive
from tinytorch.benchmarking.tinymlperf.playing import Pair, Phase, check_work, play_round
from tinytorch.benchmarking.tinymlperf.processes import Answer, Entrant, PlayerProcess, Refused
from tinytorch.benchmarking.tinymlperf.referee import judge
from tinytorch.benchmarking.tinymlperf.scoring import scores_of
from tinytorch.benchmarking.tinymlperf.submissions import with_log
from tinytorch.benchmarking.tinymlperf.techniques import Artefact, badges_of, inspect_artefact
from tinytorch.core.models import save_model
from tinytorch.perf.quantization import quantize_model

needs_confinement = pytest.mark.skipif(not can_confine(), reason="this kernel cannot confine own code")


@pytest.fixture(scope="module")
def itself(tmp_path_factory):
    """The ruling on the reference model against itself."""
    submission = packed(tmp_path_factory.mktemp("itself") / "s")
    return judge(submission, small_benchmark(), QUICK, seed=5)


class TestRatio:
    def test_a_model_against_itself_gets_a_rank_and_a_ratio_near_one(self, itself):
        assert itself.ranked, itself.refused
        assert [score.scenario for score in itself.scores] == ["single-stream", "offline"]
        assert all(0.5 < score.ratio.estimate < 2 for score in itself.scores)
        assert itself.quality.submission == itself.quality.reference
        assert itself.badges == ()

    def test_its_log_gives_the_scores_again_and_fits_the_schema(self, itself):
        assert scores_of(small_benchmark().event, json.loads(json.dumps(itself.log))) == itself.scores
        saved = with_log(itself.submission, itself.log)
        assert saved.document["log"]["seed"] == 5
        assert saved.submission_id == itself.submission.submission_id

    def test_the_log_holds_every_sitting_and_pairs_every_query(self, itself):
        assert len(itself.log["sittings"]) == QUICK.sittings
        for sitting in itself.log["sittings"]:
            for phase in sitting.values():
                sides = [np.shape(phase[f"{side}_ns"]) for side in ("submission", "reference")]
                assert sides[0] == sides[1]
                assert sides[0][0] >= QUICK.min_rounds
                assert len(phase["losses"]["submission"]) == np.prod(sides[0]) * phase["examples"]

    @needs_confinement
    def test_twice_the_work_takes_twice_the_time(self, tmp_path):
        model = "model = load_model(Path(folder) / 'model.safetensors').eval()\n    return "
        code = HONEST.replace('return load_model(Path(folder) / "model.safetensors").eval()', model)
        many = "lambda x: [model(x) for _ in range(8)][0]\n"
        ruling = judge(
            packed(tmp_path / "s", code=code.rstrip() + " " + many), small_benchmark(), QUICK, seed=0
        )
        assert ruling.ranked, ruling.refused
        for score in ruling.scores:
            assert 1 / 16 < score.ratio.estimate < 1 / 4

    @needs_confinement
    def test_own_code_is_confined_and_may_use_what_is_installed(self, tmp_path):
        code = (
            "import numba\n"
            "import scipy.sparse\n"
            "@numba.njit\n"
            "def twice(x): return 2 * x\n"
            "assert twice(3) == 6\n"
        )
        model = quantize_model(small_benchmark().model)
        once = replace(QUICK, sittings=1)
        ruling = judge(
            packed(tmp_path / "s", model=model, code=code + HONEST), small_benchmark(), once, seed=0
        )
        assert ruling.refused == "1 sittings have no interval at 95 %: measure at least 6"
        assert ruling.quality.met
        assert "audit hooks" in ruling.confinement

    @needs_confinement
    def test_own_code_has_a_rank_and_no_badge(self, tmp_path):
        zeros = copy.deepcopy(small_benchmark().model)
        for layer in zeros.layers[::2]:
            layer.weight.data[np.abs(layer.weight.data) < np.median(np.abs(layer.weight.data))] = 0
        benchmark = replace(small_benchmark(), event=replace(small_benchmark().event, share=0.5))
        for name, code, badges in (("code", HONEST, 0), ("file", None, 1)):
            submission = packed(tmp_path / name, model=zeros, code=code, division="open")
            ruling = judge(submission, benchmark, QUICK, seed=0)
            assert ruling.ranked, ruling.refused
            assert len(ruling.badges) == badges

    def test_a_player_stands_still_while_the_other_one_plays(self):
        said = []

        class Player:
            def __init__(self, name):
                self.name = name
                self.pause = lambda: said.append(f"pause {name}")
                self.resume = lambda: said.append(f"resume {name}")

        def play(player):
            said.append(f"play {player.name}")
            return [Answer(np.zeros(1), 1, 2)]

        pair = Pair(Player("submission"), Player("reference"))
        play_round(pair, Phase(1), play, np.random.default_rng(0))
        turns = [said[:3], said[3:]]
        assert sorted(turns) == [
            ["pause reference", "play submission", "resume reference"],
            ["pause submission", "play reference", "resume submission"],
        ]

    def test_a_paused_process_is_stopped_until_it_is_resumed(self, tmp_path):
        submission = packed(tmp_path / "s")
        entrant = Entrant("it", submission.folder, submission.weights)
        setup = Frame({"memory_mb": 4096, "confine": False, "reference": ""}, np.zeros((1, 64), np.float32))
        with PlayerProcess(entrant, setup, 10.0) as player:
            player.load()
            player.pause()
            player.limit_s = 0.5
            with pytest.raises(Refused, match=r"took longer than 0\.5 s for an answer"):
                player.ask("predict", np.zeros((1, 64), np.float32))
            player.resume()
            assert receive(player._answers, 20).array.shape == (1, 10)

    def test_more_processor_time_than_the_answers_took_is_refused(self):
        answers = Phase(1, submission_wall_ns=[[500_000_000] * 2])

        class Player:
            entrant = Entrant("it", Path(), Path())

        check_work(1.1, answers, Player())
        with pytest.raises(Refused, match=r"it used 1.90 s of processor time for answers that took 1.00 s"):
            check_work(1.9, answers, Player())

    def test_files_that_changed_since_they_were_packed_are_refused(self, tmp_path):
        submission = packed(tmp_path / "s")
        submission.weights.write_bytes(b"other")
        assert "changed since they were packed" in judge(submission, small_benchmark(), QUICK).refused

    def test_every_run_has_other_inputs(self, tmp_path, monkeypatch):
        seeds = set()
        monkeypatch.setattr(
            "tinytorch.benchmarking.tinymlperf.referee._Referee.rule", lambda _self, seed: seeds.add(seed)
        )
        submission = packed(tmp_path / "s")
        for _ in range(3):
            judge(submission, small_benchmark(), QUICK)
        assert len(seeds) == 3


class TestClosedDivision:
    def test_the_quantized_model_is_closed_and_earns_its_badges(self, tmp_path):
        benchmark = small_benchmark()
        model = quantize_model(benchmark.model, calibration_data=benchmark.calibration)
        ruling = judge(packed(tmp_path / "s", model=model), benchmark, QUICK, seed=0)
        assert ruling.ranked, ruling.refused
        assert [badge.split(" (")[0] for badge in ruling.badges] == ["int8", "smaller"]

    def test_another_model_is_refused_before_it_is_measured(self, tmp_path):
        submission = packed(tmp_path / "s", model=tt.Sequential(tt.Linear(64, 10)))
        ruling = judge(submission, small_benchmark(), QUICK, seed=0)
        assert "closed division keeps the layers" in ruling.refused
        assert ruling.quality is None

    def altered(self, change):
        model = copy.deepcopy(small_benchmark().model)
        change(model)
        return model

    def test_the_given_weights_pass_also_in_half_precision(self):
        reference = small_benchmark().model
        check_closed(reference, reference)

        def halve(model):
            for parameter in model.parameters():
                parameter.data[...] = parameter.data.astype(np.float16)

        check_closed(self.altered(halve), reference)

    @pytest.mark.parametrize("layer", [0, 2, 4])
    def test_one_other_weight_is_found(self, layer):
        def change(model):
            model.layers[layer].weight.data[1, 1] += 0.01

        with pytest.raises(Refused, match=rf"layers.{layer}.weight differs by more than rounding"):
            check_closed(self.altered(change), small_benchmark().model)

    def test_one_other_bias_is_found(self):
        def change(model):
            model.layers[2].bias.data[0] += 0.01

        with pytest.raises(Refused, match=r"layers.2.bias differs"):
            check_closed(self.altered(change), small_benchmark().model)

    def test_pruned_weights_are_for_the_open_division(self):
        def prune(model):
            weight = model.layers[0].weight.data
            weight[np.abs(weight) < np.quantile(np.abs(weight), 0.5)] = 0

        with pytest.raises(Refused, match="pruned models are for the open division"):
            check_closed(self.altered(prune), small_benchmark().model)

    def test_pruning_before_quantizing_is_found_too(self):
        def prune(model):
            weight = model.layers[0].weight.data
            weight[np.abs(weight) < np.quantile(np.abs(weight), 0.5)] = 0

        with pytest.raises(Refused, match=r"layers.0.weight differs"):
            check_closed(quantize_model(self.altered(prune)), small_benchmark().model)

    def test_a_step_that_is_too_coarse_would_prune(self):
        reference = tt.Sequential(tt.Linear(4, 4, rng=np.random.default_rng(0)))

        class QuantizedLinear(tt.Layer):
            def __init__(self, linear, scale):
                self.scale = np.float32(scale)
                self.q_weight = np.round(linear.weight.data / scale).astype(np.int8)
                self.bias = linear.bias.data
                self.in_features, self.out_features = linear.in_features, linear.out_features

        weight = np.abs(reference.layers[0].weight.data)
        fine = QuantizedLinear(reference.layers[0], weight.max() / 127)
        check_closed(tt.Sequential(fine), reference)
        fine.q_weight[1, 1] += 1
        with pytest.raises(Refused, match=r"layers\.0\.weight differs"):
            check_closed(tt.Sequential(fine), reference)
        coarse = QuantizedLinear(reference.layers[0], weight.max() / 8)
        with pytest.raises(Refused, match=r"layers.0.weight differs"):
            check_closed(tt.Sequential(coarse), reference)

    def test_another_layer_or_one_fewer_is_found(self):
        reference = small_benchmark().model
        layers = list(reference.layers)
        with pytest.raises(Refused, match=r"layers.1 is GELU in place of ReLU"):
            check_closed(tt.Sequential(layers[0], tt.GELU(), *layers[2:]), reference)
        with pytest.raises(Refused, match=r"keeps the layers of the reference model, but 'layers.4' differs"):
            check_closed(tt.Sequential(*layers[:-1]), reference)

    def test_other_settings_of_a_layer_are_found(self):
        rng = np.random.default_rng(0)
        reference = tt.Sequential(tt.MultiHeadAttention(8, 2, rng=rng))
        other = copy.deepcopy(reference)
        other.layers[0].num_heads = 4
        with pytest.raises(Refused, match=r"layers.0.num_heads is 4, not 2"):
            check_closed(other, reference)


class TestBadges:
    def artefact(self, tmp_path, model):
        save_model(model, tmp_path / "m")
        return inspect_artefact(tmp_path / "m", small_benchmark().model, small_benchmark().inputs[:4])

    def test_the_reference_model_earns_none(self, tmp_path):
        artefact = self.artefact(tmp_path, small_benchmark().model)
        assert artefact == Artefact(0, 0, pytest.approx(0, abs=0.01), 1.0, 1.0)
        assert badges_of(artefact, 0) == ()

    def test_zeros_are_counted_in_the_file(self, tmp_path):
        model = copy.deepcopy(small_benchmark().model)
        for layer in model.layers[::2]:
            layer.weight.data.reshape(-1)[: round(0.8 * layer.weight.data.size)] = 0
        artefact = self.artefact(tmp_path, model)
        assert artefact.zero_share == pytest.approx(0.8, abs=0.001)
        assert badges_of(artefact, 0)[0] == "zeros (80% of the weights)"

    def test_what_a_submission_says_of_itself_earns_nothing(self, tmp_path):
        submission = packed(tmp_path / "s", name="int8 quantized sparse pruned simd kv cache")
        ruling = judge(submission, small_benchmark(), QUICK, seed=0)
        assert ruling.ranked, ruling.refused
        assert ruling.badges == ()

    def test_int8_is_counted_in_bytes_and_types(self, tmp_path):
        artefact = self.artefact(tmp_path, quantize_model(small_benchmark().model))
        assert artefact.int8_share > 0.9
        assert artefact.size_ratio > 2

    def test_arrays_that_are_there_for_show_earn_nothing(self, tmp_path):
        model = copy.deepcopy(small_benchmark().model)
        model.spare = np.ones((400, 400), np.int8)
        model.layers[0].more = np.zeros((400, 400), np.float32)
        artefact = self.artefact(tmp_path, model)
        assert badges_of(artefact, 0) == ()
        assert artefact.size_ratio < 0.1

    def test_every_badge_carries_its_figure(self):
        assert badges_of(Artefact(0.75, 0.6, 0.5, 0.1, 3.25), 47) == (
            "int8 (75% of the weights)",
            "half precision (60% of the weights)",
            "zeros (50% of the weights)",
            "fewer numbers (10% of the reference's)",
            "smaller (3.2 times)",
            "KV cache (47 tokens)",
        )

    def test_less_than_half_earns_none(self):
        assert badges_of(Artefact(0.49, 0.49, 0.49, 0.51, 1.99), 0) == ()

    def test_a_cache_counts_by_the_tokens_in_it(self):
        class Cache:
            def get(self, _layer):
                return np.zeros((1, 2, 47, 8)), np.zeros((1, 2, 47, 8))

        answer = player.Player(None, Cache()).answer(Frame({"task": "describe"}))
        assert answer.text == {"cached_tokens": 47}
        assert player.Player(None).answer(Frame({"task": "describe"})).text == {"cached_tokens": 0}


class TestTexts:
    def ruled(self, tmp_path, code=None, kv_cache=False):
        benchmark = text_benchmark()
        submission = packed(
            tmp_path / "s",
            model=benchmark.model,
            code=code,
            event="transformer_decathlon",
            kv_cache=kv_cache,
        )
        return judge(submission, benchmark, QUICK, seed=0)

    def test_texts_are_continued_and_scored_and_a_cache_that_is_used_is_seen(self, tmp_path):
        ruling = self.ruled(tmp_path, kv_cache=True)
        assert ruling.ranked, ruling.refused
        assert [score.scenario for score in ruling.scores] == ["single-stream", "offline"]
        assert ruling.quality.submission == pytest.approx(ruling.quality.reference, rel=1e-5)
        assert ruling.quality.submission > 3
        # 16 of the prompt and 32 new ones; nothing follows the last, so it may be left out.
        assert ruling.badges in (("KV cache (47 tokens)",), ("KV cache (48 tokens)",))

    @needs_confinement
    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ("np.concatenate([prompt, np.zeros((1, n), int)], axis=1)", "are worse than"),
            ("prompt", r"int64 of shape \(1, 16\) where whole numbers of shape \(1, 48\) are due"),
            ("np.zeros((1, 16 + n), int)", "changed the prompt"),
            ("np.concatenate([prompt, np.full((1, n), 99)], axis=1)", "returned tokens that do not exist"),
            ("model.generate(prompt, n, 0.0).astype(float)", "float64 of shape"),
        ],
    )
    def test_texts_that_the_model_would_not_write_are_refused(self, tmp_path, text, reason):
        code = HONEST.replace("return load_model", "model = load_model").rstrip() + (
            "\n    class Writer:\n"
            "        def __call__(self, x): return model(x)\n"
            f"        def generate(self, prompt, n, temperature): return {text}\n"
            "    return Writer()\n"
        )
        ruling = self.ruled(tmp_path, "import numpy as np\n" + code)
        with pytest.raises(ValueError, match=reason):
            raise ValueError(ruling.refused)
