"""Events: bit for bit the same from a seed, and inputs that are new without being different."""

import hashlib
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from tinymlperf_stand_ins import small_benchmark, text_benchmark

import tinytorch as tt
from tinytorch.benchmarking.tinymlperf import TinyMLPerf, events
from tinytorch.benchmarking.tinymlperf.events import EVENTS, load_event, outputs_of
from tinytorch.benchmarking.tinymlperf.fresh import altered
from tinytorch.datasets import RECIPES, load_text

NAMES = ["mlp_sprint", "cnn_marathon", "transformer_decathlon"]


class TestTinyMLPerf:
    def test_there_are_three_events(self):
        assert TinyMLPerf(random_seed=42).get_available_events() == NAMES
        assert TinyMLPerf(7).random_seed == 7

    def test_an_event_that_does_not_exist_is_named(self):
        for event in (["mlp_sprint"], {}, None, 1):
            with pytest.raises(ValueError, match=r"`event` must be one of mlp_sprint, .*, got"):
                TinyMLPerf().load_benchmark(event)
        with pytest.raises(ValueError, match=r"`event` must be one of mlp_sprint, .*, got 'marathon'"):
            TinyMLPerf().load_benchmark("marathon")

    @pytest.mark.parametrize("seed", [-1, 1.5, "7", True, None])
    def test_a_seed_is_a_whole_number(self, seed):
        with pytest.raises(ValueError, match="`random_seed` must be a whole number of zero or more"):
            TinyMLPerf(seed)

    def test_the_reference_model_fits_its_inputs_and_meets_its_floor(self):
        benchmark = TinyMLPerf().load_benchmark("mlp_sprint")
        assert benchmark.inputs.shape == (450, 784)
        assert benchmark.labels.shape == (450,)
        outputs = outputs_of(benchmark.model, benchmark.inputs)
        accuracy = (outputs.argmax(axis=1) == benchmark.labels).mean()
        assert accuracy > 0.95
        assert benchmark.floor == pytest.approx(0.99 * accuracy)

    def test_an_event_knows_the_hash_of_its_data_before_its_model_is_there(self):
        assert small_benchmark().event.data_hash == small_benchmark().data_hash
        text = EVENTS["transformer_decathlon"].data_hash
        assert text == load_text().sha256 != small_benchmark().data_hash

    def test_calibration_data_is_not_test_data(self):
        benchmark = TinyMLPerf().load_benchmark("mlp_sprint")
        test = {row.tobytes() for row in benchmark.inputs}
        assert len(benchmark.calibration) == 128
        assert not any(row.tobytes() in test for row in benchmark.calibration)

    def test_only_a_layer_is_run(self):
        with pytest.raises(ValueError, match="`model` must be a Layer, got function"):
            TinyMLPerf().run_standard_benchmark(lambda x: x, "mlp_sprint")


DIGEST = """
import hashlib, sys
import numpy as np
from tinytorch.benchmarking.tinymlperf.events import EVENTS, load_event, outputs_of
from tinytorch.benchmarking.tinymlperf import TinyMLPerf
b = TinyMLPerf(int(sys.argv[1])).load_benchmark("mlp_sprint")
arrays = [b.inputs, b.labels, b.calibration, outputs_of(b.model, b.inputs), *b.model.state_dict().values()]
arrays += b.fresh(10, np.random.default_rng(3))
sys.stdout.write(hashlib.sha256(b"".join(np.ascontiguousarray(a).tobytes() for a in arrays)).hexdigest())
"""


def digest(seed):
    done = subprocess.run(
        [sys.executable, "-c", DIGEST, str(seed)], check=True, capture_output=True, text=True
    )
    return done.stdout


def test_models_inputs_and_outputs_have_the_same_bits_in_another_process():
    first, second = digest(42), digest(42)
    assert len(first) == 64
    assert first == second


class TestFreshImages:
    def test_no_input_ever_comes_back(self):
        benchmark, rng = small_benchmark(), np.random.default_rng(0)
        seen = {row.tobytes() for row in benchmark.inputs}
        for _ in range(3):
            inputs, _ = benchmark.fresh(500, rng)
            seen |= {row.tobytes() for row in inputs}
        assert len(seen) == len(np.unique(benchmark.inputs, axis=0)) + 3 * 500

    def test_rounding_does_not_give_the_originals_back(self):
        benchmark = small_benchmark()
        originals = {np.round(row * 16).astype(int).tobytes() for row in benchmark.inputs}
        inputs, _ = benchmark.fresh(450, np.random.default_rng(0))
        found = sum(np.round(row * 16).astype(int).tobytes() in originals for row in inputs)
        assert found <= 2

    def test_a_search_for_the_nearest_original_gives_the_labels_away_which_is_documented(self):
        benchmark = TinyMLPerf().load_benchmark("mlp_sprint")
        inputs, labels = benchmark.fresh(450, np.random.default_rng(0))
        originals = benchmark.inputs
        nearest = ((originals**2).sum(axis=1) - 2 * inputs @ originals.T).argmin(axis=1)
        assert (benchmark.labels[nearest] == labels).all()
        assert "looks for what is most alike, knows the labels" in " ".join(benchmark.fresh.__doc__.split())

    def test_every_image_comes_once_before_one_comes_again_and_keeps_its_label(self):
        benchmark = small_benchmark()
        inputs, labels = benchmark.fresh(450, np.random.default_rng(0))
        # The nearest original of an altered image is nearly always itself.
        distance = ((inputs[:, None] - benchmark.inputs[None]) ** 2).sum(axis=2)
        nearest = distance.argmin(axis=1)
        assert len(set(nearest.tolist())) > 440
        assert (benchmark.labels[nearest] == labels).mean() > 0.99
        assert np.bincount(labels).tolist() == np.bincount(benchmark.labels).tolist()

    def test_a_model_reads_them_as_before(self):
        benchmark, rng = small_benchmark(), np.random.default_rng(0)
        before = 1 - benchmark.losses(outputs_of(benchmark.model, benchmark.inputs), benchmark.labels).mean()
        inputs, labels = benchmark.fresh(1800, rng)
        after = 1 - benchmark.losses(outputs_of(benchmark.model, inputs), labels).mean()
        assert abs(after - before) < 0.02

    def test_the_originals_stay_as_they_are(self):
        benchmark = small_benchmark()
        before = hashlib.sha256(benchmark.inputs.tobytes()).digest()
        benchmark.fresh(100, np.random.default_rng(0))
        assert hashlib.sha256(benchmark.inputs.tobytes()).digest() == before

    @pytest.mark.parametrize("shape", [(5, 64), (5, 1, 8, 8), (5, 784), (5, 1, 28, 28)])
    def test_shape_and_type_are_kept(self, shape):
        images = np.random.default_rng(0).random(shape, dtype=np.float32)
        result = altered(images, np.random.default_rng(1))
        assert result.shape == shape
        assert result.dtype == np.float32

    def test_alterations_are_small_movements_light_and_noise(self):
        # A ramp moves by `by` pixels as its values change by `by` times the slope, away from the border.
        ramp = np.broadcast_to(np.arange(8.0), (2000, 1, 8, 8)).astype(np.float32) / 8
        result = altered(ramp, np.random.default_rng(0))[:, 0, 1:-1, 1:-1].astype(float)
        slope = (result[:, :, -1] - result[:, :, 0]).mean(axis=1) / 5
        light = slope * 8
        # Uniform numbers within r deviate by r over the root of 3; noise adds a little to each.
        assert abs(light.mean() - 1) < 0.005
        assert 0.055 < light.std() < 0.066
        by = result.mean(axis=(1, 2)) / slope - 3.5
        assert abs(by.mean()) < 0.02
        assert 0.14 < by.std() < 0.18

    def test_noise_is_a_third_of_a_grey_level(self):
        flat = np.full((500, 64), 0.5, np.float32)
        result = altered(flat, np.random.default_rng(0))
        assert result.std(axis=1).mean() == pytest.approx(0.02, rel=0.03)
        assert len(np.unique(result)) > 20_000


@pytest.fixture
def untrained(monkeypatch):
    """A reference model for the real text that takes no training."""
    trained = SimpleNamespace(model=None, recipe=RECIPES["text-gpt"], data_hash="0" * 64)
    monkeypatch.setattr(events, "reference_model", lambda _name: trained)


class TestText:
    @pytest.mark.usefixtures("untrained")
    def test_labels_are_the_next_characters(self):
        benchmark = TinyMLPerf().load_benchmark("transformer_decathlon")
        assert (benchmark.inputs[:, 1:] == benchmark.labels[:, :-1]).all()
        assert benchmark.inputs.shape == benchmark.labels.shape == (64, 64)

    @pytest.mark.usefixtures("untrained")
    def test_the_seed_says_where_texts_are_cut(self):
        one, same, other = (TinyMLPerf(seed).load_benchmark("transformer_decathlon") for seed in (1, 1, 2))
        assert one.inputs.tobytes() == same.inputs.tobytes()
        assert one.labels.tobytes() == same.labels.tobytes()
        assert (one.inputs != other.inputs).any()

    def test_prompts_are_pieces_of_the_text(self):
        benchmark = text_benchmark()
        text = bytes(benchmark.source.astype(np.uint8))
        prompts = benchmark.prompts(20, 16, np.random.default_rng(0))
        assert prompts.shape == (20, 16)
        assert all(bytes(row.astype(np.uint8)) in text for row in prompts)

    def test_losses_are_bits_per_character(self):
        benchmark = text_benchmark()
        labels = np.array([[1, 2, 3]])
        assert benchmark.losses(np.zeros((1, 3, 8)), labels) == pytest.approx([3])
        scores = np.zeros((1, 3, 2))
        scores[..., 1] = np.log(3)  # a share of 3/4
        assert benchmark.losses(scores, np.ones((1, 3), int)) == pytest.approx([np.log2(4 / 3)])
        assert benchmark.losses(scores + 1e4, np.ones((1, 3), int)) == pytest.approx([np.log2(4 / 3)])

    def test_losses_agree_with_the_framework(self):
        benchmark = text_benchmark()
        outputs = outputs_of(benchmark.model, benchmark.inputs)
        expected = tt.CrossEntropyLoss()(tt.Tensor(outputs), benchmark.labels).item() / np.log(2)
        assert benchmark.losses(outputs, benchmark.labels).mean() == pytest.approx(expected, rel=1e-5)


class TestFloors:
    def test_more_accuracy_and_fewer_bits_are_better(self):
        images, text = EVENTS["mlp_sprint"], EVENTS["transformer_decathlon"]
        assert images.floor(0.9) == pytest.approx(0.891)
        assert images.meets(0.9, 0.891)
        assert not images.meets(0.89, 0.891)
        assert text.floor(1.98) == pytest.approx(2.0)
        assert text.meets(1.9, 2.0)
        assert not text.meets(2.1, 2.0)

    def test_what_is_not_a_number_meets_no_floor(self):
        assert not any(EVENTS[name].meets(float("nan"), 1.0) for name in NAMES)

    def test_losses_of_images_count_what_is_wrong(self):
        scores = np.eye(10)[[1, 2, 3, 4]]
        assert small_benchmark().losses(scores, np.array([1, 2, 0, 4])).tolist() == [0, 0, 1, 0]

    def test_the_seed_orders_the_inputs_and_changes_nothing_else(self):
        event = small_benchmark().event
        one, other = load_event(event, 1), load_event(event, 2)
        assert (one.inputs != other.inputs).any()
        assert sorted(map(bytes, one.inputs)) == sorted(map(bytes, other.inputs))
        assert one.floor == other.floor
