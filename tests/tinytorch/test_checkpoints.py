"""Resuming gives the same bits; damaged, half-written and foreign files change nothing."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from tinytorch import (
    GELU,
    GPT,
    SGD,
    Adam,
    BatchNorm2d,
    Conv2d,
    CrossEntropyLoss,
    Dropout,
    Flatten,
    Layer,
    LayerNorm,
    Linear,
    MaxPool2d,
    PositionalEncoding,
    ReLU,
    Sequential,
    manual_seed,
)
from tinytorch.core.checkpoints import read_arrays, write_arrays
from tinytorch.core.dataloader import DataLoader, TensorDataset
from tinytorch.core.models import load_model, save_model
from tinytorch.core.random import generator
from tinytorch.core.training import CosineSchedule, Trainer
from tinytorch.perf.compression import low_rank_linear, sparsify
from tinytorch.perf.quantization import QuantizationConfig, quantize_model

#: every layer becomes int8, however small
ALL = QuantizationConfig(min_weights=0)


def small(width=5, seed=0):
    rng = np.random.default_rng(seed)
    return Sequential(Linear(3, width, rng=rng), ReLU(), Dropout(0.3, rng=rng), Linear(width, 2, rng=rng))


def data(n=23):
    rng = np.random.default_rng(1)
    x = rng.standard_normal((n, 3)).astype(np.float32)
    return TensorDataset(x, (x.sum(axis=1) > 0).astype(int))


def loader():
    return DataLoader(data(), 5, shuffle=True, seed=4)


def trainer(model=None, optimizer=None):
    model = small() if model is None else model
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9) if optimizer is None else optimizer(model)
    return Trainer(model, optimizer, CrossEntropyLoss(), CosineSchedule(0.1, 0.01, 5), grad_clip_norm=1.0)


def everything(t):
    return {
        **{n: a.tobytes() for n, a in t.model.state_dict().items()},
        **{f"o.{n}": np.asarray(a).tobytes() for n, a in t.optimizer.state_dict().items()},
        "counters": (t.epoch, t.step, t.optimizer.lr, repr(t.history)),
        "random": repr([x.rng.bit_generator.state for _, x in t.model.named_layers() if hasattr(x, "rng")]),
        "default": repr(generator().bit_generator.state),
    }


@pytest.mark.parametrize("optimizer", [None, lambda m: Adam(m.parameters(), lr=0.01)])
def test_resumed_training_gives_the_bits_of_training_that_never_stopped(tmp_path, optimizer):
    manual_seed(3)
    straight = trainer(optimizer=optimizer)
    batches = loader()
    for epoch in range(4):
        if epoch == 2:
            straight.save_checkpoint(tmp_path / "two.anything")
        straight.train_epoch(batches)
    expected = everything(straight)
    assert [p.name for p in tmp_path.iterdir()] == ["two.anything"]
    manual_seed(99)
    resumed = trainer(small(seed=8), optimizer)
    resumed.load_checkpoint(tmp_path / "two.anything")
    for _ in range(2):
        resumed.train_epoch(loader())
    assert everything(resumed) == expected


def test_running_statistics_are_part_of_a_checkpoint(tmp_path):
    model = Sequential(BatchNorm2d(2), Flatten(), Linear(8, 2))
    first = Trainer(model, SGD(model.parameters()), CrossEntropyLoss())
    first.train_epoch([(np.random.default_rng(0).standard_normal((6, 2, 2, 2)), np.zeros(6))])
    first.save_checkpoint(tmp_path / "c")
    other = Sequential(BatchNorm2d(2), Flatten(), Linear(8, 2))
    second = Trainer(other, SGD(other.parameters()), CrossEntropyLoss())
    second.load_checkpoint(tmp_path / "c")
    assert everything(second) == everything(first)
    assert other[0].running_mean.any()


def test_any_flipped_byte_is_refused_and_changes_nothing(tmp_path):
    first = trainer(small(2))
    first.train_epoch(loader())
    first.save_checkpoint(tmp_path / "good")
    content = (tmp_path / "good").read_bytes()
    second = trainer(small(2, seed=5))
    before = everything(second)
    for index in range(len(content)):
        damaged = bytearray(content)
        damaged[index] ^= 0x20 if index % 2 else 0xFF
        (tmp_path / "bad").write_bytes(damaged)
        with pytest.raises(ValueError, match="damaged"):
            second.load_checkpoint(tmp_path / "bad")
    assert everything(second) == before
    second.load_checkpoint(tmp_path / "good")


@pytest.mark.parametrize(
    "change", [lambda c: b"", lambda c: c[:7], lambda c: c[:-1], lambda c: c + b"\0", lambda c: b"{}" * 90]
)
def test_files_of_another_length_are_refused(tmp_path, change):
    write_arrays(tmp_path / "f", {"a": np.arange(3)}, {"kind": "model"})
    (tmp_path / "f").write_bytes(change((tmp_path / "f").read_bytes()))
    with pytest.raises(ValueError, match="damaged"):
        read_arrays(tmp_path / "f")


@pytest.mark.parametrize("broken", ["replace", "fsync"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, broken):
    path = tmp_path / "c.ckpt"
    t = trainer()
    t.save_checkpoint(path)
    before = path.read_bytes()
    t.train_epoch(loader())

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(*((Path, "replace") if broken == "replace" else (os, "fsync")), full)
    with pytest.raises(OSError, match="No space"):
        t.save_checkpoint(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (lambda: trainer(small(6)), r"layers.0.weight has shape \(3, 5\) in the file and \(3, 6\)"),
        (lambda: trainer(Sequential(Linear(3, 2))), "layers.3.weight is missing in the model"),
        (lambda: trainer(optimizer=lambda m: Adam(m.parameters())), "written with SGD, the trainer has Adam"),
        (lambda: trainer(optimizer=lambda m: SGD(m.parameters())), "momentum.0"),
        (lambda: trainer(Sequential(Linear(3, 5), ReLU(), ReLU(), Linear(5, 2))), "random states"),
    ],
)
def test_a_checkpoint_of_something_else_says_what_differs_and_changes_nothing(tmp_path, other, said):
    first = trainer()
    first.train_epoch(loader())
    first.save_checkpoint(tmp_path / "c")
    second = other()
    before = everything(second)
    with pytest.raises(ValueError, match=said):
        second.load_checkpoint(tmp_path / "c")
    assert everything(second) == before


def test_arrays_and_metadata_come_back_as_they_were(tmp_path):
    arrays = {
        "a": np.arange(6, dtype=np.int8).reshape(2, 3).T,
        "number": np.float32(2.5) * np.ones(()),
        "none": np.zeros((0, 2)),
        "b": np.array([True]),
    }
    write_arrays(tmp_path / "f", arrays, {"text": '"sha256":"' + "0" * 64 + '"', "n": 2**100})
    found, metadata = read_arrays(tmp_path / "f")
    assert metadata == {"text": '"sha256":"' + "0" * 64 + '"', "n": 2**100}
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        assert np.array_equal(found[name], array)
        assert found[name].shape == array.shape


IMAGES = np.random.default_rng(0).standard_normal((2, 1, 6, 6)).astype(np.float32)


@pytest.mark.parametrize(
    ("model", "x"),
    [
        (small(), np.ones((2, 3), np.float32)),
        (Sequential(Conv2d(1, 2, 3), BatchNorm2d(2), ReLU(), MaxPool2d(2), Flatten(), Linear(8, 3)), IMAGES),
        (Sequential(PositionalEncoding(6, 6), Linear(6, 2, bias=False)), IMAGES),
        (GPT(11, 8, 2, 2, max_seq_len=9, dropout_prob=0.1), [[1, 2, 3]]),
    ],
)
def test_a_saved_model_is_rebuilt_with_the_same_bits(tmp_path, model, x):
    model(x)
    save_model(model, tmp_path / "m.x")
    found = load_model(tmp_path / "m.x")
    assert type(found) is type(model)
    assert [n for n, _ in found.named_parameters()] == [n for n, _ in model.named_parameters()]
    for _ in range(2):  # with dropout, then without
        assert found(x).data.tobytes() == model(x).data.tobytes()
        model.eval(), found.eval()


class Own(Layer):
    def __init__(self, width=4):
        self.inner = Linear(3, width)
        self.tied = self.inner
        self.function = np.tanh
        self.scale = 2.0

    def forward(self, x):
        return self.inner(x) * self.scale


def test_own_classes_need_a_skeleton_which_is_filled_in_place(tmp_path):
    model, skeleton = Own(), Own()
    model.scale = 3.0
    save_model(model, tmp_path / "m")
    with pytest.raises(ValueError, match="holds Own at model, which is not of tinytorch: pass `model`"):
        load_model(tmp_path / "m")
    weight = skeleton.inner.weight
    assert load_model(tmp_path / "m", skeleton) is skeleton
    assert skeleton.inner.weight is weight
    assert skeleton.tied is skeleton.inner
    x = np.ones((2, 3))
    assert skeleton(x).data.tobytes() == model(x).data.tobytes()


def test_a_skeleton_that_does_not_fit_is_left_alone(tmp_path):
    save_model(Own(), tmp_path / "m")
    other = Own(5)
    before = other.state_dict()
    with pytest.raises(ValueError, match=r"shape \(3, 4\) in the file and \(3, 5\) in the model"):
        load_model(tmp_path / "m", other)
    assert all(np.array_equal(before[n], a) for n, a in other.state_dict().items())


def test_shared_parameters_stay_shared(tmp_path):
    model = Sequential(Linear(3, 3), Linear(3, 3))
    model[1].weight = model[0].weight
    save_model(model, tmp_path / "m")
    found = load_model(tmp_path / "m")
    assert found[1].weight is found[0].weight


def test_a_layer_of_the_skeleton_that_was_of_another_class_is_replaced(tmp_path):
    model, skeleton = Own(), Own()
    model.inner = model.tied = Sequential(Linear(3, 4))
    save_model(model, tmp_path / "m")
    load_model(tmp_path / "m", skeleton)
    x = np.ones((2, 3))
    assert skeleton(x).data.tobytes() == model(x).data.tobytes()


def test_plain_arrays_of_the_skeleton_are_replaced_and_keep_the_type_of_the_file(tmp_path):
    model, skeleton = Own(), Own()
    model.table, skeleton.table = np.float32([0.5, -1.25]), np.int8([3, 4])
    save_model(model, tmp_path / "m")
    before = skeleton.table
    load_model(tmp_path / "m", skeleton)
    assert skeleton.table.dtype == np.float32
    assert skeleton.table.tolist() == [0.5, -1.25]
    assert before.tolist() == [3, 4]
    skeleton.table[0] = 1  # writable


def test_a_parameter_that_is_read_only_gets_new_memory(tmp_path):
    model, skeleton = Own(), Own()
    save_model(model, tmp_path / "m")
    frozen = np.zeros((3, 4), np.float32)
    frozen.flags.writeable = False
    skeleton.inner.weight.data = frozen
    load_model(tmp_path / "m", skeleton)
    np.testing.assert_array_equal(skeleton.inner.weight.data, model.inner.weight.data)
    assert not frozen.any()


@pytest.mark.parametrize("shared", ["layer", "weight"])
def test_what_only_the_skeleton_shares_is_separate_afterwards(tmp_path, shared):
    model, skeleton = Sequential(Linear(3, 3), Linear(3, 3)), Sequential(Linear(3, 3), Linear(3, 3))
    save_model(model, tmp_path / "m")
    if shared == "layer":
        skeleton.layers[1] = skeleton[0]
    else:
        skeleton[1].weight = skeleton[0].weight
    load_model(tmp_path / "m", skeleton)
    x = np.ones((2, 3))
    assert skeleton(x).data.tobytes() == model(x).data.tobytes()


def test_a_missing_folder_is_named_and_so_is_the_file_that_was_asked_for(tmp_path):
    path = tmp_path / "missing" / "m"
    for write in (lambda: save_model(small(), path), lambda: trainer().save_checkpoint(path)):
        with pytest.raises(
            FileNotFoundError, match=r"the folder '.*missing' does not exist: make it"
        ) as info:
            write()
        assert info.value.filename == str(path)
        assert info.value.errno == errno.ENOENT
    assert list(tmp_path.iterdir()) == []


def test_files_of_the_other_kind_are_told_apart(tmp_path):
    save_model(small(), tmp_path / "m")
    trainer().save_checkpoint(tmp_path / "c")
    with pytest.raises(ValueError, match=r"load_model\(\) reads"):
        trainer().load_checkpoint(tmp_path / "m")
    with pytest.raises(ValueError, match="load_checkpoint"):
        load_model(tmp_path / "c")
    with pytest.raises(ValueError, match="`model` must be a Layer, got int"):
        save_model(3, tmp_path / "x")


def mlp():
    return Sequential(Linear(8, 6), ReLU(), Linear(6, 2))


def images():
    return Sequential(Conv2d(1, 2, 3), ReLU(), MaxPool2d(2), Flatten(), Linear(2, 2))


def bits_of(model):
    return {name: array.tobytes() for name, array in model.state_dict().items()}


class Blocks(Layer):
    def __init__(self, *blocks, norm=None):
        self.blocks = list(blocks)
        self.norm = norm


@pytest.mark.parametrize(
    ("saved", "skeleton", "difference"),
    [
        (images, mlp, r"model.layers.0 is Conv2d\(1, 2, 3\) in the file and Linear\(8, 6\) in the model"),
        (mlp, images, r"model.layers.0 is Linear\(8, 6\) in the file and Conv2d\(1, 2, 3\) in the model"),
        (
            mlp,
            lambda: Sequential(Linear(8, 6), GELU(), Linear(6, 2)),
            r"model.layers.1 is ReLU\(\) in the file and GELU\(\) in the model",
        ),
        (
            mlp,
            lambda: Sequential(Linear(8, 6), ReLU()),
            "model.layers has 3 entries in the file and 2 in the model",
        ),
        (
            mlp,
            lambda: Sequential(*mlp().layers, ReLU()),
            "model.layers has 3 entries in the file and 4 in the model",
        ),
        (mlp, lambda: Linear(8, 2), r"model is Sequential in the file and Linear\(8, 2\) in the model"),
        (mlp, lambda: Blocks(Linear(8, 6)), "model is Sequential in the file and Blocks in the model"),
        (
            lambda: Blocks(Linear(8, 6)),
            mlp,
            "model is Blocks in the file and Sequential in the model",
        ),
        (
            lambda: Linear(8, 6, bias=False),
            lambda: Linear(8, 6),
            "it lacks model.bias",
        ),
        (
            lambda: Linear(8, 6),
            lambda: Linear(8, 6, bias=False),
            "it holds model.bias, which the model lacks",
        ),
        (
            lambda: Blocks(norm=LayerNorm(3)),
            Blocks,
            "it holds model.norm, which the model lacks",
        ),
        (Blocks, lambda: Blocks(norm=LayerNorm(3)), "it lacks model.norm"),
        (Blocks, lambda: Blocks(ReLU()), "model.blocks has 0 entries in the file and 1 in the model"),
        (
            lambda: quantize_model(Linear(8, 6), ALL),
            lambda: Linear(8, 7),
            r"model is QuantizedLinear\(8, 6\) in the file and Linear\(8, 7\) in the model",
        ),
        (
            lambda: quantize_model(Linear(6, 6), ALL),
            lambda: quantize_model(Linear(8, 6), ALL),
            "model.in_features is 6 in the file and 8 in the model",
        ),
        (
            lambda: quantize_model(mlp(), ALL),
            images,
            r"model.layers.0 is QuantizedLinear\(8, 6\) in the file and Conv2d\(1, 2, 3\) in the model",
        ),
    ],
)
def test_a_skeleton_of_other_layers_is_refused_with_the_first_difference_and_left_alone(
    tmp_path, saved, skeleton, difference
):
    save_model(saved(), tmp_path / "m")
    model = skeleton()
    before = repr(model), list(model.named_layers()), bits_of(model)
    with pytest.raises(ValueError, match=f"does not fit `model`: {difference}; pass one made like the model"):
        load_model(tmp_path / "m", model)
    assert (repr(model), list(model.named_layers()), bits_of(model)) == before


@pytest.mark.parametrize("both_ways", [False, True])
@pytest.mark.parametrize(
    "changed",
    [
        lambda model: quantize_model(model, ALL),
        sparsify,
        lambda model: Sequential(low_rank_linear(model[0], 3), *model.layers[1:]),
    ],
    ids=["quantized", "sparse", "low rank"],
)
def test_layers_whose_weights_have_another_form_take_the_place_of_plain_ones_and_give_it_back(
    tmp_path, changed, both_ways
):
    saved, skeleton = changed(mlp()), mlp()
    if both_ways:
        saved, skeleton = skeleton, saved
    save_model(saved, tmp_path / "m")
    assert load_model(tmp_path / "m", skeleton) is skeleton
    x = np.random.default_rng(0).standard_normal((4, 8))
    np.testing.assert_array_equal(skeleton.eval()(x).data, saved.eval()(x).data)


def test_what_is_no_layer_is_no_skeleton(tmp_path):
    save_model(mlp(), tmp_path / "m")
    with pytest.raises(ValueError, match="`model` must be a Layer made like the saved one, got type"):
        load_model(tmp_path / "m", Sequential)
