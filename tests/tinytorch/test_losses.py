"""Losses against closed forms in float64, at their extremes, and with arguments that do not fit."""

import numpy as np
import pytest
import scipy.special
from gradients import check_rule
from hypothesis import given, settings
from hypothesis import strategies as st

import tinytorch as tt
from tinytorch.core import losses

repeatable = settings(derandomize=True, database=None, deadline=None, max_examples=40)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def test_mean_squared_error():
    a, b = normal(4, 5), normal(4, 5, seed=1)
    assert tt.MSELoss()(a, b).item() == pytest.approx(np.mean((a - b) ** 2), rel=1e-6)
    check_rule(losses.mean_squared_error, a, b)


@given(
    rows=st.integers(1, 6),
    classes=st.integers(1, 7),
    scale=st.sampled_from([0.1, 1, 30]),
    seed=st.integers(0, 9),
)
@repeatable
def test_cross_entropy_is_the_mean_of_minus_log_softmax_at_the_labels(rows, classes, scale, seed):
    logits = scale * normal(rows, classes, seed=seed)
    labels = np.random.default_rng(seed).integers(0, classes, rows)
    expected = -scipy.special.log_softmax(logits, axis=1)[np.arange(rows), labels].mean()
    assert tt.CrossEntropyLoss()(logits, labels).item() == pytest.approx(expected, rel=1e-4, abs=1e-6)
    if scale < 30:
        check_rule(losses.cross_entropy, logits, labels)


def test_cross_entropy_of_sequences_is_that_of_all_positions():
    logits, labels = normal(2, 3, 5), np.random.default_rng(0).integers(0, 5, (2, 3))
    loss = tt.CrossEntropyLoss()
    flat = loss(logits.reshape(6, 5), labels.reshape(6)).item()
    assert loss(logits, labels).item() == pytest.approx(flat, rel=1e-6)
    check_rule(losses.cross_entropy, logits, labels)


def test_the_gradient_of_cross_entropy_is_the_softmax_less_the_labels_over_the_number_of_rows():
    logits, labels = tt.Tensor(normal(8, 5), requires_grad=True), np.arange(8) % 5
    tt.CrossEntropyLoss()(logits, labels).backward()
    expected = (scipy.special.softmax(logits.data, axis=1) - np.eye(5)[labels]) / 8
    np.testing.assert_allclose(logits.grad, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    "labels", [[0, 1], (0, 1), np.array([0, 1]), tt.Tensor([0.0, 1.0]), np.array([0, 1], np.uint8)]
)
def test_labels_are_whole_numbers_of_any_kind(labels):
    assert tt.CrossEntropyLoss()([[0.0, 0.0], [0.0, 0.0]], labels).item() == pytest.approx(np.log(2))


def test_cross_entropy_of_huge_logits_is_exact():
    loss = tt.CrossEntropyLoss()
    assert loss([[1000.0, 0.0], [0.0, -1000.0]], [0, 0]).item() == 0
    assert loss([[1000.0, 0.0]], [1]).item() == 1000
    logits = tt.Tensor([[1e4, -1e4]], requires_grad=True)
    loss(logits, [1]).backward()
    assert logits.grad.tolist() == [[1, -1]]


def test_binary_cross_entropy():
    p, t = np.random.default_rng(0).uniform(0.05, 0.95, (2, 4, 5))
    expected = -np.mean(t * np.log(p) + (1 - t) * np.log(1 - p))
    assert tt.BinaryCrossEntropyLoss()(p, t).item() == pytest.approx(expected, rel=1e-5)
    check_rule(losses.binary_cross_entropy, p, t)


def test_binary_cross_entropy_of_certainty_is_bounded_and_its_gradient_finite():
    p = tt.Tensor([0.0, 1.0, 0.0, 1.0], requires_grad=True)
    loss = tt.BinaryCrossEntropyLoss()(p, [0.0, 1.0, 1.0, 0.0])
    assert loss.item() == 50  # two right ones cost nothing, two wrong ones 100
    loss.backward()
    assert np.isfinite(p.grad).all()


@pytest.mark.parametrize("make", [
    lambda: tt.MSELoss()([np.nan, 1.0], [0.0, 0.0]),
    lambda: tt.CrossEntropyLoss()([[np.nan, 1.0]], [0]),
    lambda: tt.BinaryCrossEntropyLoss()([np.nan, 0.5], [0.0, 1.0]),
])  # fmt: skip
def test_nan_is_not_hidden(make):
    assert np.isnan(make().item())


MSE, CE, BCE = tt.MSELoss(), tt.CrossEntropyLoss(), tt.BinaryCrossEntropyLoss()
TWO_ROWS = np.ones((2, 3))


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: MSE(np.ones((2, 1)), np.ones(2)), r"one shape, got \(2, 1\) and \(2,\)"),
        (lambda: MSE([], []), r"at least one prediction, got shape \(0,\)"),
        (lambda: BCE([0.5], [[1.0]]), r"one shape, got \(1,\) and \(1, 1\)"),
        (lambda: BCE([1.5], [1.0]), r"`predictions` must lie between 0 and 1, got 1.5"),
        (lambda: BCE([0.5], [-1.0]), r"`targets` must lie between 0 and 1, got -1.0"),
        (lambda: CE(TWO_ROWS, [0, 3]), r"`labels` must lie in 0 to 2 .*, got 3"),
        (lambda: CE(TWO_ROWS, [0, -1]), r"`labels` must lie in 0 to 2 .*, got -1"),
        (lambda: CE(TWO_ROWS, [0, 0.5]), r"`labels` must hold whole numbers, got 0.5"),
        (lambda: CE(TWO_ROWS, [[0, 1]]), r"labels of shape \(2,\) .*, got \(1, 2\)"),
        (lambda: CE(TWO_ROWS, [0]), r"labels of shape \(2,\) .*, got \(1,\)"),
        (lambda: CE(np.ones((0, 3)), []), r"not empty, got \(0, 3\)"),
        (lambda: CE(np.ones(3), 1), r"shape \(..., classes\), not empty, got \(3,\)"),
    ],
)
def test_arguments_that_do_not_fit_are_named_and_never_broadcast(call, said):
    with pytest.raises(ValueError, match=said):
        call()


def test_a_label_outside_the_classes_is_an_index_error_too():
    with pytest.raises(IndexError):
        tt.CrossEntropyLoss()(np.ones((1, 3)), [3])
