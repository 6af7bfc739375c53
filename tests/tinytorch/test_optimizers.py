"""Optimizers against the closed forms of their papers, written out in float64."""

import numpy as np
import pytest

from tinytorch import SGD, Adam, AdamW, Linear, Parameter, Sequential
from tinytorch.kernels import optimizers as kernels

SHAPES = [(3,), (2, 5), (64, 33)]  # the last one is large enough for the compiled update


def sgd(p, grads, lr, momentum=0.0, weight_decay=0.0):
    v = np.zeros_like(p)
    for g in grads:
        v = momentum * v + g + weight_decay * p
        p = p - lr * v
    return p


def adam(p, grads, lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, decoupled=False):
    m = v = np.zeros_like(p)
    for t, gradient in enumerate(grads, 1):
        g = gradient
        if decoupled:
            p = p - lr * weight_decay * p
        else:
            g = g + weight_decay * p
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g * g
        p = p - lr * (m / (1 - betas[0] ** t)) / (np.sqrt(v / (1 - betas[1] ** t)) + eps)
    return p


def adamw(p, grads, lr, weight_decay=0.01, **options):
    return adam(p, grads, lr, weight_decay=weight_decay, decoupled=True, **options)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("optimizer", "closed_form", "options"),
    [
        (SGD, sgd, {"lr": 0.1}),
        (SGD, sgd, {"lr": 0.1, "momentum": 0.9}),
        (SGD, sgd, {"lr": 0.1, "momentum": 0.5, "weight_decay": 0.3}),
        (Adam, adam, {"lr": 0.05}),
        (Adam, adam, {"lr": 0.05, "betas": (0.5, 0.8), "eps": 0.01, "weight_decay": 0.2}),
        (AdamW, adamw, {"lr": 0.05}),
        (AdamW, adamw, {"lr": 0.05, "weight_decay": 0.5, "betas": (0.7, 0.9)}),
    ],
)
def test_five_steps_are_those_of_the_paper(shape, optimizer, closed_form, options):
    rng = np.random.default_rng(0)
    start, grads = rng.standard_normal(shape), [rng.standard_normal(shape) for _ in range(5)]
    parameter = Parameter(start)
    array = parameter.data
    stepping = optimizer([parameter], **options)
    for gradient in grads:
        parameter.grad = gradient.astype(np.float32)
        stepping.step()
    assert parameter.data is array
    np.testing.assert_allclose(array, closed_form(start, grads, **options), rtol=2e-5, atol=2e-6)


def test_the_compiled_update_is_its_reference(monkeypatch):
    rng = np.random.default_rng(0)
    start, gradient = rng.standard_normal((2, 700), np.float32)
    found = []
    for compiled in (True, False):
        if not compiled:
            monkeypatch.setattr(kernels, "_adam_kernel", lambda: None)
        parameter = Parameter(start)
        optimizer = Adam([parameter], lr=0.1)
        for _ in range(3):
            parameter.grad = gradient
            optimizer.step()
        found.append(parameter.data)
    np.testing.assert_allclose(*found, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "gradient",
    [memoryview(np.array([1.0, 2.0])), [1, 2], np.array([1, 2], np.int8), np.array([9, 1, 9, 2.0])[1::2]],
)
@pytest.mark.parametrize("optimizer", [SGD, Adam, AdamW])
def test_gradients_may_be_any_buffer(gradient, optimizer):
    usual, other = Parameter([1.0, 2.0]), Parameter([1.0, 2.0])
    usual.grad, other.grad = np.array([1, 2], np.float32), gradient
    optimizer([usual]).step()
    optimizer([other]).step()
    assert np.array_equal(usual.data, other.data)
    assert usual.data[0] < 1


@pytest.mark.parametrize(
    ("gradient", "said"),
    [([1.0], r"must have its shape \(2,\), got \(1,\)"), (["a", "b"], "array of numbers")],
)
def test_a_wrong_gradient_changes_nothing(gradient, said):
    good, bad = Parameter([1.0, 2.0]), Parameter([1.0, 2.0])
    optimizer = Adam([good, bad])
    good.grad, bad.grad = np.ones(2, np.float32), gradient
    with pytest.raises(ValueError, match=f"parameter 1 .*{said}"):
        optimizer.step()
    assert good.data.tolist() == [1.0, 2.0]


def test_parameters_without_a_gradient_are_skipped_and_gradients_forgotten():
    used, unused = Parameter([1.0]), Parameter([1.0])
    optimizer = SGD([used, unused], lr=0.5, weight_decay=0.1)
    used.grad = np.ones(1, np.float32)
    optimizer.step()
    assert (used.data[0], unused.data[0]) == (pytest.approx(0.45), 1.0)
    optimizer.zero_grad()
    assert used.grad is None


def test_the_learning_rate_may_be_assigned():
    parameter = Parameter([1.0])
    optimizer = SGD([parameter], lr=0.5)
    optimizer.lr = 0.25
    parameter.grad = np.ones(1, np.float32)
    optimizer.step()
    assert parameter.data[0] == 0.75


@pytest.mark.parametrize("make", [lambda p: SGD(p, momentum=0.9), Adam, AdamW])
def test_state_moves_to_another_optimizer(make):
    first, second = Parameter(np.ones(3)), Parameter(np.ones(3))
    a, b = make([first]), make([second])
    for step in range(4):
        if step == 2:
            second.data[...] = first.data
            b.load_state_dict(a.state_dict())
        first.grad = second.grad = np.full(3, step + 1.0, np.float32)
        a.step()
        if step >= 2:
            b.step()
    assert first.data.tobytes() == second.data.tobytes()


def test_state_of_other_shapes_or_names_is_refused():
    optimizer = Adam([Parameter([1.0])])
    with pytest.raises(ValueError, match=r"`mean.0` must have shape \(1,\), got \(2,\)"):
        optimizer.load_state_dict(Adam([Parameter([1.0, 2.0])]).state_dict())
    with pytest.raises(ValueError, match=r"differs in mean\.0"):
        optimizer.load_state_dict(SGD([Parameter([1.0])]).state_dict())


P = Parameter([1.0])


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: SGD([]), "`params` must hold at least one parameter, got none: quantized and compressed"),
        (lambda: SGD([3]), r"`params` must hold tensors, got int: pass model.parameters\(\)"),
        (
            lambda: Adam(Sequential(Linear(2, 2))),
            r"must be a list of tensors, got Sequential: pass model.parameters\(\)",
        ),
        (lambda: Adam(Linear(2, 2)), r"a list of tensors, got Linear: pass model.parameters\(\)"),
        (lambda: Adam(P), r"a list of tensors, got Parameter: pass"),
        (lambda: Adam(3), "a list of tensors, got int"),
        (lambda: SGD([P, P]), "each parameter once"),
        (lambda: SGD([P], lr=0), "`lr` must be a positive number, got 0"),
        (lambda: SGD([P], momentum=1.0), "`momentum` must be at least 0 and below 1, got 1.0"),
        (lambda: SGD([P], weight_decay=-1), "`weight_decay` must be a number of zero or more, got -1"),
        (lambda: Adam([P], betas=(0.9, 1)), r"`betas\[1\]`"),
        (lambda: Adam([P], eps=0), "`eps` must be a positive"),
    ],
)
def test_bad_arguments_are_named(make, said):
    with pytest.raises(ValueError, match=said):
        make()
