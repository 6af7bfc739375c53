"""The pipeline and its report, low-rank factors, and distillation."""

import dataclasses

import numpy as np
import pytest

import tinytorch as tt
from tinytorch.perf import compression
from tinytorch.perf.compression import (
    KnowledgeDistillation,
    ModelCompressor,
    SparseLinear,
    distillation_loss,
    low_rank,
    low_rank_linear,
    measure_sparsity,
    model_bytes,
    sparsify,
)
from tinytorch.perf.memoization import enable_kv_cache
from tinytorch.perf.quantization import quantize_model


def perceptron(seed=0):
    rng = np.random.default_rng(seed)
    return tt.Sequential(tt.Linear(64, 128, rng=rng), tt.ReLU(), tt.Linear(128, 10, rng=rng)).eval()


def inputs(rows=8):
    return np.random.default_rng(1).standard_normal((rows, 64)).astype(np.float32)


def test_the_old_model_stays_and_the_new_one_is_sparse_and_int8():
    model = perceptron()
    before = model.state_dict()
    small, report = ModelCompressor(sparsity=0.9).compress(model, inputs())
    assert all(np.array_equal(model.state_dict()[name], array) for name, array in before.items())
    assert [type(layer) for layer in small] == [SparseLinear, tt.ReLU, SparseLinear]
    assert all(layer.values.dtype == np.int8 for layer in (small[0], small[2]))
    assert report.sparsity == measure_sparsity(small) >= 0.9
    assert not small.training


def test_the_report_says_what_can_be_measured_again(tmp_path):
    model = perceptron()
    small, report = ModelCompressor(0.9, quantize=False, evaluate=lambda m: m(inputs()).data.mean()).compress(
        model, inputs()
    )
    for of, size, file_size in (
        (model, report.dense_bytes, report.dense_file_bytes),
        (small, report.stored_bytes, report.file_bytes),
    ):
        tt.save_model(of, tmp_path / "model")
        assert (tmp_path / "model").stat().st_size == file_size
        assert model_bytes(of) == size
    assert report.dense_bytes == 4 * (64 * 128 + 128 + 128 * 10 + 10)
    assert report.stored_bytes == small[0].stored_bytes + small[2].stored_bytes
    assert report.ratio == report.dense_bytes / report.stored_bytes > 5
    assert report.file_ratio == report.dense_file_bytes / report.file_bytes
    assert report.dense_accuracy == pytest.approx(float(model(inputs()).data.mean()))
    assert report.accuracy == pytest.approx(float(small(inputs()).data.mean()))
    expected, found = model(inputs()).data, small(inputs()).data
    assert report.output_error == pytest.approx(np.linalg.norm(found - expected) / np.linalg.norm(expected))
    assert report.latency_ms > 0
    assert report.dense_latency_ms > 0
    first, second = report.layers
    assert (first.name, first.layer, first.values) == ("layers.0", "SparseLinear", "float32")
    assert (first.dense_bytes, first.stored_bytes) == (4 * (64 * 128 + 128), small[0].stored_bytes)
    assert (second.name, second.format) == ("layers.2", small[2].format)


def test_the_report_reads_as_a_table_with_both_sides():
    _, report = ModelCompressor(0.9).compress(perceptron())
    text = str(report)
    assert "dense" in text
    assert "compressed" in text
    assert f"{report.dense_bytes}" in text
    assert f"{report.file_bytes}" in text
    assert report.accuracy is None
    assert report.latency_ms is None
    assert report.latency_inputs is None
    assert report.output_error is None
    assert report.notes == ()


@pytest.mark.parametrize(("data", "said"), [(inputs(8), "8 inputs"), ([inputs(1), inputs(5)], "1 input")])
def test_the_report_says_for_how_many_inputs_the_latency_is(data, said):
    _, report = ModelCompressor(0.9).compress(perceptron(), data)
    assert f"latency of {said}, ms" in str(report)


def test_the_report_says_below_what_went_wrong_and_what_to_do():
    _, report = ModelCompressor(0.9).compress(perceptron())
    measured = {"dense_accuracy": 0.982, "accuracy": 0.224, "dense_latency_ms": 0.1, "latency_ms": 0.131}
    bad = dataclasses.replace(report, latency_inputs=32, **measured)
    slower, lost = str(bad).splitlines()[-2:]
    assert slower.startswith("slower than dense, 1.31 times the latency: ")
    assert lost == "accuracy fell by 75.8 points: prune less, or fine-tune"
    measured = {"dense_accuracy": 0.982, "accuracy": 0.934, "dense_latency_ms": 0.1, "latency_ms": 0.104}
    fine = dataclasses.replace(report, latency_inputs=32, **measured)
    assert fine.notes == ()
    assert str(fine).splitlines()[-1].startswith("latency of 32 inputs, ms")


def test_layers_that_have_no_sparse_form_are_reported_as_dense():
    model = tt.Sequential(tt.Conv2d(1, 4, 3), tt.BatchNorm2d(4), tt.Flatten(), tt.Linear(144, 3)).eval()
    small, report = ModelCompressor(0.9).compress(model)
    assert [(layer.layer, layer.format) for layer in report.layers] == [
        ("SparseConv2d", small[0].format),
        ("BatchNorm2d", "dense"),
        ("SparseLinear", small[3].format),
    ]
    assert report.layers[0].dense_bytes == 4 * (36 + 4)
    assert report.layers[0].stored_bytes == small[0].stored_bytes
    assert report.layers[1].dense_bytes == report.layers[1].stored_bytes == 4 * 4 * 4


def test_a_network_of_convolutions_is_compressed_as_a_whole():
    rng = np.random.default_rng(0)
    layers = [
        tt.Conv2d(3, 32, 3, padding=1, rng=rng),
        tt.ReLU(),
        tt.MaxPool2d(2),
        tt.Conv2d(32, 32, 3, rng=rng),
    ]
    model = tt.Sequential(*layers, tt.Flatten(), tt.Linear(32 * 36, 10, rng=rng)).eval()
    x = rng.standard_normal((4, 3, 16, 16)).astype(np.float32)
    small, report = ModelCompressor(0.9, quantize=False).compress(model, x)
    pruned = compression.magnitude_prune(model, 0.9, "layer")  # what the copy inside was made to
    np.testing.assert_allclose(small(x).data, pruned(x).data, rtol=1e-3, atol=1e-4)
    assert report.ratio > 6


def test_a_model_in_training_is_measured_in_evaluation_and_stays_in_training():
    rng = np.random.default_rng(0)
    model = tt.Sequential(
        tt.Conv2d(1, 4, 3, rng=rng), tt.BatchNorm2d(4), tt.Flatten(), tt.Dropout(0.5, rng=rng)
    )
    model = tt.Sequential(model, tt.Linear(144, 3, rng=rng))
    before, x = model.state_dict(), rng.standard_normal((4, 1, 8, 8)) + 3
    small, report = ModelCompressor(0, quantize=False, evaluate=lambda m: m(x).data.sum()).compress(model, x)
    assert report.output_error < 1e-5
    assert report.accuracy == pytest.approx(report.dense_accuracy, rel=1e-4)
    for of in (model, small):
        assert all(layer.training for _, layer in of.named_layers())
        np.testing.assert_array_equal(of.state_dict()["layers.0.layers.1.running_mean"], np.zeros(4))
    assert all(np.array_equal(model.state_dict()[name], array) for name, array in before.items())


@pytest.mark.parametrize("nested", [False, True])
def test_a_language_model_keeps_what_its_cache_holds_and_is_measured_without_it(nested):
    model = tt.GPT(30, 32, 1, 2, max_seq_len=16, rng=np.random.default_rng(0)).eval()
    cache, ids = enable_kv_cache(model, max_seq_len=8), np.arange(24).reshape(2, 12)
    with tt.no_grad():
        model(ids[:1, :5])
    keys, seen = cache.get(0)[0].data, []
    compressor = ModelCompressor(0.5, quantize=False, evaluate=lambda m: seen.append(m(ids)) or 1)
    given = tt.Sequential(model) if nested else model
    small, report = compressor.compress(given, ids)  # more than the cache has room for
    assert (cache.batch_size, cache.length) == (1, 5)
    np.testing.assert_array_equal(cache.get(0)[0].data, keys)
    expected, found = model(ids).data, small(ids).data
    np.testing.assert_array_equal(seen[0].data, expected)
    assert report.output_error == pytest.approx(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def test_gradients_of_the_old_model_do_not_come_along():
    model = tt.Sequential(
        tt.Linear(4, 4), tt.LayerNorm(4), tt.ReLU(), tt.Linear(4, 4), tt.ReLU(), tt.Linear(4, 2)
    )
    model(np.ones((1, 4))).backward(np.ones((1, 2)))
    with pytest.warns(UserWarning, match="left whole are layers.0 "):
        smaller = compression.structured_prune(model, 0.5)
    for new in (compression.sparsify(model), smaller):
        assert new.parameters()
        assert all(p.grad is None for p in new.parameters())
    assert all(p.grad is not None for p in model.parameters())


def test_sparsity_0_without_rounding_changes_nothing_but_the_form():
    model = perceptron()
    small, report = ModelCompressor(0, quantize=False).compress(model, inputs())
    np.testing.assert_allclose(small(inputs()).data, model(inputs()).data, rtol=1e-5, atol=1e-5)
    assert report.sparsity == 0
    assert report.stored_bytes == report.dense_bytes


def test_everything_can_be_pruned_away_but_the_biases():
    model = perceptron()
    model[2].bias.data[...] = np.arange(10)
    small, report = ModelCompressor(1).compress(model, inputs())
    np.testing.assert_array_equal(small(inputs()).data, np.tile(np.arange(10), (8, 1)))
    assert report.sparsity == 1


def test_fine_tuning_follows_the_schedule_and_its_zeros_are_held():
    seen = []

    def fine_tune(model, pruner):
        assert model is pruner.model
        seen.append((pruner.sparsity, measure_sparsity(model)))
        for parameter in model.parameters():
            parameter.data[...] += 1

    small, report = ModelCompressor(0.8, quantize=False, steps=3).compress(perceptron(), fine_tune=fine_tune)
    expected = compression.GradualSchedule(0.8, 3).sparsities
    assert [s for s, _ in seen] == list(expected)
    assert [found for _, found in seen] == pytest.approx(expected, abs=1e-3)
    assert report.sparsity == measure_sparsity(small) == pytest.approx(0.8, abs=1e-4)
    assert small[2].bias.tolist() == [3] * 10


def test_fine_tuning_may_take_the_model_alone_and_leaves_modes_as_they_were():
    calls = []
    model = perceptron()
    small, _ = ModelCompressor(0.5, steps=2).compress(model, fine_tune=lambda m: calls.append(m.train()))
    assert len(calls) == 2
    assert calls[0] is not model
    assert not model.training
    assert not any(layer.training for _, layer in small.named_layers())


class Tuned:
    """Notes what it is called with."""

    def __init__(self):
        self.seen = []

    def by_name(self, model, epochs=1, *, pruner=None):
        self.seen.append((epochs, pruner))

    def with_defaults(self, model, epochs=3, rate=0.1):
        self.seen.append((epochs, rate))

    def required(self, model, p, epochs=2):
        self.seen.append((p, epochs))

    def positional(self, model, pruner=None, /):
        self.seen.append((pruner,))

    def several(self, *arguments):
        self.seen.append(arguments[1:])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("by_name", lambda p: p[0] == 1 and isinstance(p[1], compression.MagnitudePruner)),
        ("with_defaults", lambda p: p == (3, 0.1)),
        ("required", lambda p: isinstance(p[0], compression.MagnitudePruner) and p[1] == 2),
        ("positional", lambda p: isinstance(p[0], compression.MagnitudePruner)),
        ("several", lambda p: len(p) == 1 and isinstance(p[0], compression.MagnitudePruner)),
    ],
)
def test_fine_tuning_gets_the_pruner_only_where_it_asks_for_it(name, expected):
    tuned = Tuned()
    ModelCompressor(0.5, steps=1).compress(perceptron(), fine_tune=getattr(tuned, name))
    assert len(tuned.seen) == 1
    assert expected(tuned.seen[0])


@pytest.mark.parametrize("rows", [1, 5])
def test_calibration_data_may_be_a_list_of_batches(rows):
    batches = [inputs(rows), tt.Tensor(inputs(3))]
    _, report = ModelCompressor(0.5).compress(perceptron(), batches)
    assert 0 < report.output_error < 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ModelCompressor(1.2), "`sparsity` must be a share from 0 to 1"),
        (lambda: ModelCompressor(evaluate=0.9), "`evaluate` must be a function of the model, got float"),
        (lambda: ModelCompressor(steps=0), "`steps` must be a positive whole number"),
        (lambda: ModelCompressor(scope="row"), "`scope` must be 'global' or 'layer'"),
        (
            lambda: ModelCompressor().compress(tt.Sequential(tt.ReLU())),
            "`model` must hold a Linear or a Conv2d",
        ),
        (lambda: ModelCompressor().compress("model"), "`model` must be a Layer, got str"),
        (
            lambda: ModelCompressor().compress(perceptron(), fine_tune=3),
            "`fine_tune` must be a function of the model, got int",
        ),
        (
            lambda: ModelCompressor().compress(quantize_model(perceptron())),
            "got neither: it is INT8 already; compress the FP32 model, of which `quantize=True` stores INT8",
        ),
        (
            lambda: ModelCompressor().compress(sparsify(perceptron())),
            "got neither: it is compressed already; compress the model that it was made of",
        ),
        (
            lambda: ModelCompressor().compress(
                perceptron(), tt.DataLoader(tt.TensorDataset(inputs(), np.zeros(8)), 2)
            ),
            "object data in a DataLoader: pass a Tensor, an array or a list of them",
        ),
        (lambda: ModelCompressor().compress(perceptron(), []), "`calibration_data` must hold at least one"),
        (lambda: ModelCompressor().compress(perceptron(), np.empty((0, 64))), "`calibration_data` must hold"),
        (
            lambda: ModelCompressor().compress(perceptron(), inputs() * np.nan),
            "`calibration_data` must be fin",
        ),
        (
            lambda: ModelCompressor().compress(perceptron(), np.ones((2, 63))),
            r"`calibration_data` does not fit the model: .* expects shape \(\.\.\., 64\)",
        ),
        (lambda: low_rank(np.ones(3)), r"`weight` must be a matrix that is not empty, got shape \(3,\)"),
        (lambda: low_rank(np.full((2, 2), np.inf)), "`weight` must be finite"),
        (lambda: low_rank(np.ones((2, 2)), 0), "`rank_ratio` must be above 0 and at most 1, got 0"),
        (lambda: low_rank_linear(tt.ReLU(), 2), "`linear` must be a Linear, got ReLU"),
        (lambda: low_rank_linear(tt.Linear(3, 5), 4), r"`rank` must be at most min\(in, out\) \(=3\), got 4"),
        (lambda: distillation_loss(np.ones((2, 3)), np.ones((2, 4)), [0, 1]), "`teacher_logits` must have"),
        (
            lambda: distillation_loss(np.ones((2, 3)), np.ones((2, 3)), [0, 1], 0),
            "`temperature` must be a pos",
        ),
        (
            lambda: distillation_loss(np.ones((2, 3)), np.ones((2, 3)), [0, 1], 1, 2),
            "`alpha` must be a share",
        ),
    ],
)
def test_wrong_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_calibration_data_is_checked_before_anything_is_trained():
    def never(_):
        raise AssertionError("trained first")

    with pytest.raises(ValueError, match="`calibration_data` must be finite"):
        ModelCompressor().compress(perceptron(), inputs() * np.inf, never)
    with pytest.raises(ValueError, match=r"expects shape \(\.\.\., 64\)"):
        ModelCompressor().compress(perceptron(), inputs()[:, 1:], never)


def test_low_rank_factors_are_the_best_of_their_rank():
    rng = np.random.default_rng(0)
    u, v = (np.linalg.qr(rng.standard_normal((n, 5)))[0] for n in (12, 9))
    matrix = (u * [9, 7, 3, 2, 1]) @ v.T
    for ratio, rank in ((0.1, 1), (0.2, 2), (0.34, 3), (5 / 9, 5)):
        a, s, b = low_rank(matrix, ratio)
        assert (a.shape, s.shape, b.shape) == ((12, rank), (rank,), (rank, 9))
        np.testing.assert_allclose(s, [9, 7, 3, 2, 1][:rank], rtol=1e-5)
        error = np.linalg.norm(matrix - (a * s) @ b)
        assert error == pytest.approx(np.linalg.norm([9, 7, 3, 2, 1][rank:]), abs=1e-5)


@pytest.mark.parametrize("bias", [True, False])
def test_two_thin_layers_of_full_rank_equal_the_one(bias):
    linear = tt.Linear(6, 9, bias=bias, rng=np.random.default_rng(0))
    if bias:
        linear.bias.data[...] = np.arange(9)
    factored = low_rank_linear(linear, 6)
    x = np.random.default_rng(1).standard_normal((4, 6))
    np.testing.assert_allclose(factored(x).data, linear(x).data, rtol=1e-4, atol=1e-5)
    assert [p.shape for p in low_rank_linear(linear, 2).parameters()] == [(6, 2), (2, 9)] + [(9,)] * bias


def by_hand(student, teacher, labels, t, alpha):
    def log_softmax(z):
        return z - np.log(np.exp(z).sum(axis=1, keepdims=True))

    p, q = log_softmax(teacher / t), log_softmax(student / t)
    soft = (np.exp(p) * (p - q)).sum(axis=1).mean()
    hard = -log_softmax(student)[np.arange(len(labels)), labels].mean()
    return alpha * t * t * soft + (1 - alpha) * hard


@pytest.mark.parametrize(("t", "alpha"), [(3.0, 0.7), (1.0, 1), (5.0, 0), (2.0, 0.5)])
def test_the_distillation_loss_and_its_gradient_are_those_of_the_formula(t, alpha):
    rng = np.random.default_rng(0)
    student, teacher, labels = rng.standard_normal((4, 5)), 2 * rng.standard_normal((4, 5)), [0, 4, 2, 2]
    logits = tt.Tensor(student, requires_grad=True)
    loss = distillation_loss(logits, teacher, labels, t, alpha)
    assert loss.item() == pytest.approx(by_hand(student, teacher, labels, t, alpha), rel=1e-5)
    loss.backward()
    for i, j in ((0, 0), (1, 4), (3, 2)):
        step = np.zeros_like(student)
        step[i, j] = 1e-5
        slope = by_hand(student + step, teacher, labels, t, alpha) - by_hand(
            student - step, teacher, labels, t, alpha
        )
        assert logits.grad[i, j] == pytest.approx(slope / 2e-5, abs=1e-5)


def test_a_student_of_its_teachers_mind_loses_nothing_to_it_even_when_sure():
    logits = np.array([[200.0, -200, 0], [1, 2, 3]])
    assert distillation_loss(logits, logits, [0, 2], alpha=1).item() == pytest.approx(0, abs=1e-5)


def test_the_teacher_is_asked_without_dropout_and_gets_no_gradient():
    rng = np.random.default_rng(0)
    teacher = tt.Sequential(tt.Linear(64, 10, rng=rng), tt.Dropout(0.5, rng=rng))
    student = perceptron().train()
    distillation = KnowledgeDistillation(teacher, student)
    labels = np.arange(8)
    losses = {distillation.loss(inputs(), labels).item() for _ in range(3)}
    assert len(losses) == 1
    assert losses == {distillation.distillation_loss(student(inputs()), teacher[0](inputs()), labels).item()}
    distillation.loss(inputs(), labels).backward()
    assert all(p.grad is None for p in teacher.parameters())
    assert all(p.grad is not None for p in student.parameters())
    assert teacher.training


def test_the_public_module_names_what_it_offers():
    assert all(hasattr(compression, name) for name in compression.__all__)
