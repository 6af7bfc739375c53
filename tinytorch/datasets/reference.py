"""The reference models: trained once on a machine, then read from its cache."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import tinytorch as tt
from tinytorch.core.checkpoints import read_arrays, write_arrays
from tinytorch.datasets import digits
from tinytorch.datasets.cache import cached_path
from tinytorch.datasets.recipes import RECIPES, Recipe
from tinytorch.datasets.text import Text, bigram_bits, load_text, windows

Announce = Callable[[str], None]
#: told how far training is, from 0 to 1
Progress = Callable[[float], None]
# Seconds between lines that say how far training is: most models are trained before the first of them.
_LINE_EVERY_S = 15.0


@dataclass(frozen=True, slots=True)
class Trained:
    """A trained model, in evaluation mode.

    Attributes:
        model: the model.
        recipe: how it was made.
        score: share of the held-out digits that is classified right, or bits per character of held-out text.
        yardstick: for text, the bits per character of a table of pairs; for digits None.
        data_hash: SHA-256 of the data.
        duration_s: seconds that training took.
        path: the file in the cache.
    """

    model: Any
    recipe: Recipe
    score: float
    yardstick: float | None
    data_hash: str
    duration_s: float
    path: Path


def reference_model(
    name: str,
    *,
    split: str = "shuffled",
    fold: tuple[int, int] | None = None,
    announce: Announce | None = None,
    progress: Progress | None = None,
) -> Trained:
    """Return a reference model, from the cache, or trained now where it is missing or damaged.

    Args:
        name: one of `RECIPES`.
        split: of the digits: "shuffled" or "file-order".
        fold: (i, k): train without the i-th of k parts of the digits.
        announce: is told before training starts what will be trained and how long it takes; by default
            standard error is.
        progress: is told how far training is; by default, unless `announce` takes what is said, standard
            error shows it: a bar on a terminal, elsewhere a line every 15 seconds.

    Raises:
        ValueError: there is no such model, split or fold.
    """
    if name not in RECIPES:
        raise ValueError(f"`name` must be one of {', '.join(RECIPES)}, got {name!r}")
    recipe = RECIPES[name]
    data_hash = load_text().sha256 if recipe.kind == "gpt" else digits.data_hash()
    path = cached_path(recipe, data_hash, fold, split)
    found = _read(path, recipe)
    if found is None:
        (announce or _to_stderr)(
            f"training {recipe.what}: about {recipe.expected_s:.0f} s, once on this machine"
        )
        silent = announce is not None or progress is not None
        with contextlib.nullcontext(progress or _ignore) if silent else _shown(name) as told:
            found = _train(recipe, path, data_hash, split, fold, told)
    return found


def out_of_fold(
    name: str, folds: int = 5, announce: Announce | None = None
) -> list[tuple[Trained, digits.Digits]]:
    """Return one model of digits for each fold, with the images that it was not trained on.

    Together these are all 1797 images, each once.
    """
    side, flat = RECIPES[name].side, RECIPES[name].kind == "mlp"
    return [
        (
            reference_model(name, fold=(index, folds), announce=announce),
            digits.load_digits(fold=(index, folds), side=side, flat=flat).test,
        )
        for index in range(folds)
    ]


def is_cached(name: str) -> Path | None:
    """Return the file of a reference model that is in the cache and whole, or None."""
    recipe = RECIPES[name]
    data_hash = load_text().sha256 if recipe.kind == "gpt" else digits.data_hash()
    path = cached_path(recipe, data_hash, None, "shuffled")
    return path if _read(path, recipe) is not None else None


def vocabulary() -> tt.CharTokenizer:
    """Return the tokenizer of the reference GPT: the characters of its text."""
    return tt.CharTokenizer().build_vocab(load_text().whole)


def bits_per_token(model: Any, tokens: NDArray[np.intp], length: int) -> float:
    """Return the mean of -log2 of the share that the model gives to each next token.

    Args:
        model: a GPT.
        tokens: shape (n,); it is read in pieces of `length`, each from its own beginning.
        length: of a piece.
    """
    pieces = (len(tokens) - 1) // length
    x = tokens[: pieces * length].reshape(pieces, length)
    y = tokens[1 : pieces * length + 1].reshape(pieces, length)
    loss_of, total = tt.CrossEntropyLoss(), 0.0
    with tt.no_grad():
        for start in range(0, pieces, 32):
            part = slice(start, start + 32)
            total += loss_of(model(x[part]), y[part]).item() * len(x[part])
    return total / pieces / float(np.log(2))


def _train(
    recipe: Recipe,
    path: Path,
    data_hash: str,
    split: str,
    fold: tuple[int, int] | None,
    progress: Progress,
) -> Trained:
    start = time.perf_counter()
    yardstick = None
    if recipe.kind == "gpt":
        model, score, yardstick = _train_text(recipe, load_text(), progress)
    else:
        flat = recipe.kind == "mlp"
        data = digits.load_digits(split, side=recipe.side, flat=flat, fold=fold)
        model, score = train_digits(recipe, data, progress)
    trained = Trained(model.eval(), recipe, score, yardstick, data_hash, time.perf_counter() - start, path)
    _write(trained)
    return trained


def train_digits(recipe: Recipe, data: digits.Split, progress: Progress) -> tuple[Any, float]:
    """Train a model of digits, and return it with the share of the test images that it classifies right."""
    model = recipe.build()
    trainer = tt.Trainer(
        model,
        tt.AdamW(model.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay),
        tt.CrossEntropyLoss(),
        tt.CosineSchedule(recipe.lr, 0.0, recipe.epochs),
        progress=False,  # a bar for each epoch would be drawn into that of the whole
    )
    shift = tt.RandomShift(recipe.shift) if recipe.shift else None
    loader = tt.DataLoader(
        tt.TensorDataset(data.train.images, data.train.labels),
        recipe.batch_size,
        shuffle=True,
        seed=recipe.seed,
        transform=shift,
    )
    for epoch in range(recipe.epochs):
        trainer.train_epoch(loader)
        progress((epoch + 1) / recipe.epochs)
    _, accuracy = trainer.evaluate(tt.DataLoader(tt.TensorDataset(data.test.images, data.test.labels), 256))
    assert accuracy is not None, "digits have class indices as labels"
    return model, accuracy


def _train_text(recipe: Recipe, text: Text, progress: Progress) -> tuple[Any, float, float]:
    tokenizer = vocabulary()
    train, held_out = (np.array(tokenizer.encode(part), np.intp) for part in (text.train, text.held_out))
    model, length = recipe.build(tokenizer.vocab_size), recipe.sizes[-1]
    optimizer = tt.AdamW(
        model.parameters(), lr=recipe.lr, betas=(0.9, 0.99), weight_decay=recipe.weight_decay
    )
    schedule, loss_of = tt.CosineSchedule(recipe.lr, recipe.lr / 20, recipe.epochs), tt.CrossEntropyLoss()
    rng = np.random.default_rng(recipe.seed)
    for step in range(recipe.epochs):
        # The first hundredth of the steps grows from nothing: Adam's averages know little then.
        optimizer.lr = schedule.get_lr(step) * min(1.0, (step + 1) / (recipe.epochs / 100))
        optimizer.zero_grad()
        x, y = windows(train, length, recipe.batch_size, rng)
        loss_of(model(x), y).backward()
        tt.clip_grad_norm(model.parameters(), 1.0)
        optimizer.step()
        progress((step + 1) / recipe.epochs)
    model.eval()
    return model, bits_per_token(model, held_out, length), bigram_bits(train, held_out, tokenizer.vocab_size)


def _read(path: Path, recipe: Recipe) -> Trained | None:
    """Return what the cache holds; None where there is nothing, or it is damaged."""
    try:
        arrays, about = read_arrays(path)
        model = recipe.build(about["vocab_size"])
        model.load_state_dict(arrays)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Trained(
        model.eval(),
        recipe,
        about["score"],
        about["yardstick"],
        about["data_hash"],
        about["duration_s"],
        path,
    )


def _write(trained: Trained) -> None:
    about = {
        "recipe": trained.recipe.name,
        "score": trained.score,
        "yardstick": trained.yardstick,
        "data_hash": trained.data_hash,
        "duration_s": trained.duration_s,
        "vocab_size": getattr(trained.model, "vocab_size", 0),
    }
    # Without a cache the model is as good; it will have to be trained again.
    with contextlib.suppress(OSError):
        trained.path.parent.mkdir(parents=True, exist_ok=True)
        write_arrays(trained.path, trained.model.state_dict(), about)


def _to_stderr(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - the caller may be told otherwise, see `announce`


@contextlib.contextmanager
def _shown(name: str) -> Iterator[Progress]:
    """Show on standard error how far training is: a bar on a terminal, elsewhere a line each so often."""
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield _lines(name)
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(name, total=1.0)
        yield lambda share: bar.update(task, completed=share)


def _lines(name: str) -> Progress:
    start = last = time.monotonic()

    def told(share: float) -> None:
        nonlocal last
        now = time.monotonic()
        if share < 1 and now - last >= _LINE_EVERY_S:
            last = now
            left_s = (now - start) * (1 - share) / share
            with contextlib.suppress(OSError):  # training does not hang on who reads of it
                _to_stderr(f"{name}: {share:.0%} trained, about {left_s:.0f} s left")

    return told


def _ignore(_share: float) -> None:
    pass
