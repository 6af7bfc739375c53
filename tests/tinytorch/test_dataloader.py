"""Orders depend on seed and epoch alone; every example comes once; transforms only move pixels."""

import numpy as np
import pytest

from tinytorch import Tensor, manual_seed
from tinytorch.core.dataloader import (
    Compose,
    DataLoader,
    Dataset,
    RandomCrop,
    RandomHorizontalFlip,
    RandomShift,
    TensorDataset,
)

N = 23


class Plain(Dataset):
    def __len__(self):
        return N

    def __getitem__(self, index):
        return np.full(2, index), index


def arrays():
    return TensorDataset(np.repeat(np.arange(N), 2).reshape(N, 2), np.arange(N))


def order(loader):
    return [int(v) for _, labels in loader for v in labels.data]


@pytest.mark.parametrize("dataset", [Plain(), arrays()])
def test_batches_are_tuples_of_tensors_and_the_last_is_short(dataset):
    loader = DataLoader(dataset, 5)
    batches = list(loader)
    assert len(batches) == len(loader) == 5
    assert [b[0].shape for b in batches] == [(5, 2)] * 4 + [(3, 2)]
    assert all(type(b) is tuple and all(isinstance(t, Tensor) for t in b) for b in batches)
    assert order(loader) == list(range(N))


@pytest.mark.parametrize("dataset", [Plain(), arrays()])
def test_rows_stay_together_when_shuffled(dataset):
    for x, y in DataLoader(dataset, 4, shuffle=True, seed=1):
        assert np.array_equal(x.data, np.stack([y.data, y.data], axis=1))


def test_the_order_depends_on_seed_and_epoch_alone():
    first, second = (DataLoader(arrays(), 4, shuffle=True, seed=7) for _ in range(2))
    orders = [order(first) for _ in range(3)]
    assert [order(second) for _ in range(3)] == orders
    assert all(sorted(o) == list(range(N)) for o in orders)
    assert len({tuple(o) for o in orders}) == 3
    second.epoch = 1
    assert order(second) == orders[1]
    assert order(DataLoader(arrays(), 4, shuffle=True, seed=8)) != orders[0]
    assert first.epoch == 3


def test_without_a_seed_the_default_generator_gives_one():
    found = []
    for _ in range(2):
        manual_seed(5)
        found.append(order(DataLoader(arrays(), 4, shuffle=True)))
    assert found[0] == found[1]


def images(n=40):
    return np.arange(1, n * 12 + 1, dtype=np.float32).reshape(n, 1, 3, 4)


def test_a_flip_mirrors_a_share_of_the_images():
    x = images()
    out = RandomHorizontalFlip(0.5, rng=0)(x).data
    mirrored = [np.array_equal(o, i[..., ::-1]) for o, i in zip(out, x, strict=True)]
    assert all(m or np.array_equal(o, i) for m, o, i in zip(mirrored, out, x, strict=True))
    assert 5 < sum(mirrored) < 35
    assert np.array_equal(RandomHorizontalFlip(1.0)(x).data, x[..., ::-1])
    assert np.array_equal(RandomHorizontalFlip(0.0)(x).data, x)


def shifted(image, down, right):
    padded = np.pad(image, ((0, 0), (1, 1), (1, 1)))
    return padded[:, 1 - down : 4 - down, 1 - right : 5 - right]


def test_a_shift_moves_each_image_by_itself_and_fills_with_zeros():
    x = images(60)
    out = RandomShift(1, rng=0)(x).data
    moves = set()
    for before, after in zip(x, out, strict=True):
        fitting = [
            (d, r) for d in (-1, 0, 1) for r in (-1, 0, 1) if np.array_equal(after, shifted(before, d, r))
        ]
        assert len(fitting) == 1
        moves |= set(fitting)
    assert len(moves) == 9
    assert np.array_equal(RandomShift(0)(x).data, x)


def test_a_crop_has_its_size_and_comes_from_the_image():
    x = images()
    out = RandomCrop(2, rng=3)(x).data
    assert out.shape == (40, 1, 2, 2)
    for before, after in zip(x, out, strict=True):
        assert any(
            np.array_equal(after[0], before[0, i : i + 2, j : j + 2]) for i in range(2) for j in range(3)
        )
    assert RandomCrop(4, padding=2)(x).shape == (40, 1, 4, 4)


def test_transforms_change_the_inputs_the_same_way_for_the_same_seed_and_epoch():
    data = TensorDataset(images(), np.arange(40))
    change = Compose(RandomHorizontalFlip(), RandomShift(1))
    loaders = [DataLoader(data, 8, seed=3, transform=change) for _ in range(2)]
    epochs = [[np.concatenate([x.data for x, _ in loader]) for loader in loaders] for _ in range(2)]
    assert np.array_equal(*epochs[0])
    assert np.array_equal(*epochs[1])
    assert not np.array_equal(epochs[0][0], epochs[1][0])
    assert np.array_equal(data.tensors[0].data, images())


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (TensorDataset, "`tensors` must be one or more"),
        (lambda: TensorDataset(np.ones(3), np.ones(4)), r"equally many examples, got \[3, 4\]"),
        (lambda: DataLoader(arrays(), 0), "`batch_size` must be a positive whole number, got 0"),
        (lambda: DataLoader(arrays(), 2, seed=-1), "`seed` must be a whole number of zero or more, got -1"),
        (lambda: DataLoader(3, 2), "`dataset` must have a length"),
        (lambda: DataLoader(arrays(), 2, transform=1), "`transform` must be callable"),
        (lambda: RandomHorizontalFlip(1.5), "`p` must lie between 0 and 1, got 1.5"),
        (lambda: RandomCrop(0), "`size`"),
        (lambda: RandomCrop(9)(images()), "`size` must not exceed"),
        (lambda: RandomShift(-1), "`pixels`"),
        (lambda: RandomShift(1)(np.ones((3, 3))), r"`images` must have shape"),
        (Compose, "`transforms` must be one or more"),
    ],
)
def test_bad_arguments_are_named(make, said):
    with pytest.raises(ValueError, match=said):
        make()
