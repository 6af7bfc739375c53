"""The training loop against single steps by hand, and what it does when something goes wrong."""

import math

import numpy as np
import pytest

from tinytorch import SGD, CrossEntropyLoss, Dropout, Linear, MSELoss, Parameter, ReLU, Sequential
from tinytorch.core.dataloader import DataLoader, TensorDataset
from tinytorch.core.training import CosineSchedule, Trainer, clip_grad_norm


def model(dropout=0.0):
    rng = np.random.default_rng(0)
    return Sequential(Linear(3, 8, rng=rng), ReLU(), Dropout(dropout, rng=rng), Linear(8, 2, rng=rng))


def data(n=22):
    rng = np.random.default_rng(1)
    x = rng.standard_normal((n, 3)).astype(np.float32)
    return x, (x.sum(axis=1) > 0).astype(int)


def trainer(net, lr=0.1, **options):
    return Trainer(net, SGD(net.parameters(), lr=lr), CrossEntropyLoss(), **options)


def weights(net):
    return np.concatenate([p.data.ravel() for p in net.parameters()])


def test_accumulated_gradients_are_those_of_one_big_batch_also_in_a_short_last_group():
    x, y = data()
    parts, whole = trainer(model()), trainer(model())
    batches = [(x[:5], y[:5]), (x[5:8], y[5:8]), (x[8:20], y[8:20]), (x[20:], y[20:]), (x[:1], y[:1])]
    big = [
        (np.concatenate([b[0] for b in g]), np.concatenate([b[1] for b in g]))
        for g in (batches[:3], batches[3:])
    ]
    losses = parts.train_epoch(batches, accumulation_steps=3), whole.train_epoch(big)
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert parts.step == whole.step == 2
    np.testing.assert_allclose(weights(parts.model), weights(whole.model), rtol=1e-5, atol=1e-7)


def test_the_loss_is_the_mean_over_examples_not_over_batches():
    x, y = data(9)
    frozen = trainer(model(), lr=1e-30)
    loss = frozen.train_epoch([(x[:8], y[:8]), (x[8:], y[8:])])
    expected = CrossEntropyLoss()(model()(x), y).item()
    assert loss == pytest.approx(expected, rel=1e-5)
    assert frozen.evaluate([(x[:8], y[:8]), (x[8:], y[8:])])[0] == pytest.approx(expected, rel=1e-5)
    assert frozen.history == [{"epoch": 0, "loss": loss, "lr": 1e-30}]


def test_training_learns():
    x, y = data(200)
    t = trainer(model(), lr=0.5)
    loader = DataLoader(TensorDataset(x, y), 20, shuffle=True, seed=0)
    losses = [t.train_epoch(loader) for _ in range(15)]
    assert losses[-1] < losses[0] / 3
    assert t.evaluate(loader)[1] > 0.95
    assert (t.epoch, t.step) == (15, 150)


def test_evaluation_is_without_dropout_changes_nothing_and_restores_each_mode():
    x, y = data()
    net = model(0.9)
    net[0].eval()
    t = trainer(net)
    before, state = weights(net), repr(net[2].rng.bit_generator.state)
    modes = [layer.training for _, layer in net.named_layers()]
    loss, accuracy = t.evaluate([(x, y)])
    output = model()(x)
    assert loss == pytest.approx(CrossEntropyLoss()(output, y).item(), rel=1e-6)
    assert accuracy == np.mean(output.data.argmax(axis=1) == y)
    assert [layer.training for _, layer in net.named_layers()] == modes
    assert np.array_equal(weights(net), before)
    assert repr(net[2].rng.bit_generator.state) == state
    assert all(p.grad is None for p in net.parameters())


def test_training_is_with_dropout():
    x, y = data()
    t = trainer(model(0.9))
    t.model.eval()
    assert t.train_epoch([(x, y)]) != pytest.approx(trainer(model()).train_epoch([(x, y)]), rel=1e-3)


def test_accuracy_is_none_where_targets_are_no_classes():
    net = Linear(3, 2)
    t = Trainer(net, SGD(net.parameters()), MSELoss())
    assert t.evaluate([(np.ones((4, 3)), np.ones((4, 2)))])[1] is None


def test_gradients_are_clipped_before_the_update():
    x, y = data()
    net = model()
    before = weights(net)
    trainer(net, lr=1.0, grad_clip_norm=0.001).train_epoch([(x, y)])
    assert np.linalg.norm(weights(net) - before) == pytest.approx(0.001, rel=1e-3)


def test_a_nan_loss_names_the_step_and_leaves_weights_and_checkpoint(tmp_path):
    x, y = data()
    t = trainer(model())
    t.train_epoch([(x, y)])
    t.save_checkpoint(tmp_path / "c")
    content = (tmp_path / "c").read_bytes()
    after_one = trainer(model())
    after_one.train_epoch([(x, y)])
    after_one.train_epoch([(x, y)])
    with pytest.raises(FloatingPointError, match=r"loss is nan at step 3 \(epoch 2\)"):
        t.train_epoch([(x, y), (x * np.nan, y), (x, y)])
    np.testing.assert_array_equal(weights(t.model), weights(after_one.model))
    assert all(p.grad is None for p in t.model.parameters())
    assert (tmp_path / "c").read_bytes() == content
    t.load_checkpoint(tmp_path / "c")
    assert math.isfinite(t.train_epoch([(x, y)]))


class InfiniteGradient(Linear):
    def forward(self, x):
        out = super().forward(x)
        self.weight.grad = np.full(self.weight.shape, np.inf, np.float32)
        return out


def test_an_infinite_norm_stops_before_the_update():
    net = InfiniteGradient(3, 2)
    before = weights(net)
    x, y = data()
    with pytest.raises(FloatingPointError, match="norm of the gradients is inf at step 1"):
        trainer(net, grad_clip_norm=1.0).train_epoch([(x, y)])
    assert np.array_equal(weights(net), before)


def test_an_interrupt_leaves_a_trainer_that_goes_on():
    x, y = data()

    def interrupted():
        yield x, y
        raise KeyboardInterrupt

    t = trainer(model())
    with pytest.raises(KeyboardInterrupt):
        t.train_epoch(interrupted(), accumulation_steps=2)
    assert (t.epoch, t.history) == (0, [])
    assert all(p.grad is None for p in t.model.parameters())
    fresh = trainer(model())
    assert t.train_epoch([(x, y)]) == fresh.train_epoch([(x, y)])


def test_the_schedule_sets_the_rate_before_each_epoch():
    x, y = data()
    t = trainer(model(), scheduler=CosineSchedule(0.2, 0.1, 2))
    for _ in range(3):
        t.train_epoch([(x, y)])
    assert [row["lr"] for row in t.history] == pytest.approx([0.2, 0.15, 0.1])


@pytest.mark.parametrize(
    ("epoch", "lr"),
    [(0, 0.1), (25, 0.01 + 0.09 * (1 + math.sqrt(0.5)) / 2), (50, 0.055), (100, 0.01), (900, 0.01)],
)
def test_the_cosine_falls_from_the_largest_to_the_smallest_rate(epoch, lr):
    assert CosineSchedule().get_lr(epoch) == pytest.approx(lr)


def test_clipping_scales_all_gradients_together_and_returns_the_norm_before():
    a, b, unused = Parameter(np.zeros(2)), Parameter(np.zeros((1, 1))), Parameter([0.0])
    a.grad, b.grad = [3.0, 0.0], memoryview(np.array([[4.0]]))
    assert clip_grad_norm([a, b, unused], 1.0) == pytest.approx(5)
    np.testing.assert_allclose([*a.grad, *b.grad[0]], [0.6, 0, 0.8], rtol=1e-6)
    assert unused.grad is None
    assert clip_grad_norm([a, b], 2.0) == pytest.approx(1, rel=1e-6)
    np.testing.assert_allclose(a.grad, [0.6, 0], rtol=1e-6)


@pytest.mark.parametrize(("value", "norm"), [(1e30, 1e30), (np.inf, np.inf), (np.nan, np.nan), (0.0, 0.0)])
def test_extreme_norms_are_returned_and_only_finite_gradients_scaled(value, norm):
    p = Parameter([0.0])
    p.grad = np.array([value], np.float32)
    assert clip_grad_norm([p], 1.0) == pytest.approx(norm, rel=1e-6, nan_ok=True)
    expected = min(value, 1.0) if np.isfinite(value) else value
    np.testing.assert_allclose(p.grad, [expected], rtol=1e-6)


def test_progress_is_silent_unless_wanted(capsys):
    x, y = data()
    t = trainer(model())
    t.train_epoch([(x, y)])
    assert capsys.readouterr() == ("", "")
    t.progress = True
    t.train_epoch([(x, y)])
    assert "epoch 2" in capsys.readouterr().err


NET = model()


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (lambda: trainer(NET).train_epoch([]), "`loader` must give at least one batch, got none"),
        (lambda: trainer(NET).evaluate([]), "`loader` must give at least one batch, got none"),
        (lambda: trainer(NET).train_epoch([np.ones((2, 3))]), "a batch must be a tuple"),
        (lambda: trainer(NET).train_epoch([(np.ones((0, 3)), [])]), "at least one example"),
        (lambda: trainer(NET).train_epoch([], 0), "`accumulation_steps`"),
        (lambda: Trainer(3, None, None), "`model` must be a Layer, got int"),
        (lambda: Trainer(NET, None, None), "`optimizer` must be an Optimizer, got NoneType"),
        (lambda: Trainer(NET, SGD(NET.parameters()), None), "`loss_fn` must be callable"),
        (lambda: trainer(NET, scheduler=3), "`scheduler` must have get_lr"),
        (lambda: trainer(NET, grad_clip_norm=0), "`grad_clip_norm` must be a positive"),
        (lambda: clip_grad_norm(NET.parameters(), 0), "`max_norm` must be a positive"),
        (lambda: CosineSchedule(0.1, 0.2), "`min_lr` must not be above `max_lr`"),
        (lambda: CosineSchedule().get_lr(-1), "`epoch` must be zero or more, got -1"),
    ],
)
def test_bad_arguments_are_named(act, said):
    with pytest.raises(ValueError, match=said):
        act()
