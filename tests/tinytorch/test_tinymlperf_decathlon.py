"""The Transformer Decathlon: looking ahead in the inputs gains nothing, nor do texts that end in a loop."""

import numpy as np
import pytest
from tinymlperf_stand_ins import HONEST, QUICK, packed, text_benchmark

from tinytorch.benchmarking.tinymlperf import TinyMLPerf
from tinytorch.benchmarking.tinymlperf.events import outputs_of
from tinytorch.benchmarking.tinymlperf.fresh import pieces, spliced
from tinytorch.benchmarking.tinymlperf.playing import disagreement
from tinytorch.benchmarking.tinymlperf.referee import judge

# A text in which every token says where it stands.
COUNTING = np.arange(1000)


def scores_for(tokens, vocabulary=11, sure=9.0):
    """Scores that are sure of these tokens, shape (n, T, vocabulary)."""
    return sure * np.eye(vocabulary)[tokens]


def looking_ahead(inputs):
    """Scores for the next token of each input, as it stands in the inputs."""
    return np.concatenate([scores_for(inputs[:, 1:]), np.zeros((len(inputs), 1, 11))], axis=1)


class TestSplicedTexts:
    def test_the_label_is_what_came_next_in_the_text_before_the_cut(self):
        inputs, labels = spliced(COUNTING, 500, 20, np.random.default_rng(0))
        for row, label in zip(inputs, labels, strict=True):
            (scored,) = np.flatnonzero(label >= 0)
            assert (np.diff(row[: scored + 1]) == 1).all()
            assert label[scored] == row[scored] + 1
            assert (np.diff(row[scored + 1 :]) == 1).all()

    def test_what_follows_in_the_input_is_as_likely_anything_else(self):
        text = np.random.default_rng(0).integers(0, 11, 3000)
        inputs, labels = spliced(text, 6000, 20, np.random.default_rng(1))
        rows, scored = np.nonzero(labels >= 0)
        rows, scored = rows[scored < 19], scored[scored < 19]
        told = (inputs[rows, scored + 1] == labels[rows, scored]).mean()
        assert told == pytest.approx(1 / 11, abs=0.015)

    def test_cuts_lie_anywhere_with_equal_chance(self):
        _, labels = spliced(COUNTING, 20_000, 20, np.random.default_rng(0))
        counts = (labels >= 0).sum(axis=0)
        # Binomial numbers of mean 1000 deviate by 31.
        assert (abs(counts - 1000) < 150).all()

    def test_the_same_generator_gives_the_same_texts(self):
        for one, other in zip(
            *(spliced(COUNTING, 5, 9, np.random.default_rng(4)) for _ in "ab"), strict=True
        ):
            assert one.shape == (5, 9)
            assert (one == other).all()


class TestLosses:
    def test_the_mean_is_that_of_whole_texts(self):
        # The loss of a position depends on the position alone, so both means are known: 2.5 bits.
        benchmark = text_benchmark()
        _, labels = benchmark.fresh(4000, np.random.default_rng(0))
        chance = 2.0 ** -np.linspace(1, 4, 48)
        scores = np.tile(np.log((1 - chance) / 10)[:, None], (4000, 1, 11))
        rows, scored = np.nonzero(labels >= 0)
        scores[rows, scored, labels[rows, scored]] = np.log(chance[scored])
        assert benchmark.losses(scores, labels).mean() == pytest.approx(2.5, abs=0.05)

    def test_outputs_where_nothing_is_asked_do_not_count(self):
        benchmark = text_benchmark()
        labels = np.array([[-1, 3, -1]])
        scores = np.random.default_rng(0).normal(size=(1, 3, 11))
        other = scores.copy()
        other[:, [0, 2]] *= 50
        assert benchmark.losses(scores, labels) == benchmark.losses(other, labels)
        assert benchmark.losses(np.zeros((1, 3, 11)), labels) == pytest.approx([np.log2(11)])

    def test_looking_ahead_pays_on_whole_texts_and_costs_on_fresh_ones(self):
        benchmark = text_benchmark()
        assert benchmark.losses(looking_ahead(benchmark.inputs), benchmark.labels).mean() < 0.2
        inputs, labels = benchmark.fresh(500, np.random.default_rng(0))
        guessing = np.log2(11)
        assert benchmark.losses(looking_ahead(inputs), labels).mean() > 2 * guessing
        slightly = outputs_of(benchmark.model, inputs) + looking_ahead(inputs) / 3
        assert benchmark.losses(slightly, labels).mean() > 1.1 * guessing


@pytest.mark.slow
def test_the_reference_model_has_the_figure_of_whole_texts_on_fresh_ones():
    benchmark = TinyMLPerf().load_benchmark("transformer_decathlon")
    rng = np.random.default_rng(0)
    spliced_losses, losses = (
        benchmark.losses(outputs_of(benchmark.model, inputs), labels)
        for inputs, labels in (benchmark.fresh(1024, rng), pieces(benchmark.source, 512, 64, rng))
    )
    error = np.hypot(spliced_losses.std() / np.sqrt(1024), losses.std() / np.sqrt(512))
    assert error < 0.1
    assert abs(spliced_losses.mean() - losses.mean()) < 3 * error


@pytest.mark.slow
def test_one_token_for_ever_is_no_text_of_the_reference_model():
    benchmark = TinyMLPerf().load_benchmark("transformer_decathlon")
    prompts = benchmark.prompts(32, 16, np.random.default_rng(0))
    own = np.asarray(benchmark.model.generate(prompts, 32, temperature=0.0))
    for token in range(benchmark.model.vocab_size):
        for kept in (0, 16):
            texts = own.copy()
            texts[:, 16 + kept :] = token
            scores = outputs_of(benchmark.model, texts[:, :-1])[:, 15:]
            assert disagreement(scores, texts[:, 16:]).mean() > 0.3
    assert disagreement(outputs_of(benchmark.model, own[:, :-1])[:, 15:], own[:, 16:]).mean() < 0.01


class TestContinuedTexts:
    """A model that is nearly sure that a 0 is followed by another, and t by t + 1."""

    def share(self, *written, start=5, second=0.0):
        before = np.array([[start, *written[:-1]]])
        scores = scores_for(np.where(before > 0, before + 1, 0)) + second * np.eye(11)[2]
        return disagreement(scores, np.array([written]))[0]

    def test_what_the_model_would_write_is_right(self):
        assert self.share(6, 7, 8, 9) == 0
        assert self.share(0, 0, 0, 0, start=0) == 0

    def test_one_token_for_ever_is_wrong_throughout(self):
        assert self.share(0, 0, 0, 0) == 1

    def test_from_where_the_work_stops_everything_is_wrong(self):
        assert self.share(6, 7, 0, 0) == 0.5
        assert self.share(6, 7, 8, 0) == 0.25

    def test_a_choice_that_is_nearly_as_good_is_wrong_alone(self):
        assert self.share(2, 3, 4, 5, second=8.5) == 0.25
        assert self.share(2, 3, 4, 5, second=8.0) == 1

    def test_each_text_counts_for_itself(self):
        scores = np.zeros((2, 3, 11))
        scores[..., 4] = 9
        assert disagreement(scores, np.array([[4, 4, 4], [4, 5, 4]])).tolist() == pytest.approx([0, 2 / 3])


class TestSubmissions:
    def ruled(self, tmp_path, answer, before=""):
        code = "import numpy as np\n" + HONEST.replace("return load_model", "model = load_model").rstrip()
        code += (
            "\n    class Player:\n"
            "        calls = 0\n"
            "        def generate(self, x, n, temperature): return model.generate(x, n, temperature)\n"
            "        def ahead(self, x):\n"
            "            scores = np.zeros((*x.shape, 11), np.float32)\n"
            "            scores[:, :-1] = 9 * np.eye(11, dtype=np.float32)[x[:, 1:]]\n"
            "            return scores\n"
            "        def __call__(self, x):\n"
            "            self.calls += 1\n"
            f"            return {answer}\n"
            "    return Player()\n"
        )
        benchmark = text_benchmark()
        submission = packed(tmp_path / "s", model=benchmark.model, code=code, event="transformer_decathlon")
        return judge(submission, benchmark, QUICK, seed=0)

    def test_one_that_copies_the_next_input_is_below_the_floor(self, tmp_path):
        ruling = self.ruled(tmp_path, "self.ahead(x)")
        assert not ruling.ranked
        assert "bits per character where the floor is" in ruling.refused
        assert ruling.quality.submission > 2 * ruling.quality.reference

    def test_one_that_copies_it_once_it_is_timed_is_refused(self, tmp_path):
        accuracy = text_benchmark().accuracy_count // 16
        ruling = self.ruled(tmp_path, f"self.ahead(x) if self.calls > {accuracy} else model(x)")
        assert not ruling.ranked
        assert ruling.quality.met
        assert "while it is timed (offline) are worse" in ruling.refused
