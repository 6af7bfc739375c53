"""Data sets, and the cache of reference models; what they reach is in test_real_training."""

import hashlib
import re
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

import tinytorch as tt
from tinytorch.datasets import RECIPES, load_digits, load_text, out_of_fold, reference, reference_model
from tinytorch.datasets.__main__ import main
from tinytorch.datasets.cache import cache_folder, cached_path
from tinytorch.datasets.text import bigram_bits, windows


@pytest.fixture
def quick(monkeypatch, tmp_path):
    """A cache of its own, and recipes that take no time."""
    monkeypatch.setenv("TINYTORCH_CACHE", str(tmp_path / "cache"))
    for name, recipe in RECIPES.items():
        small = (8, 1, 2, 8) if recipe.kind == "gpt" else recipe.sizes
        monkeypatch.setitem(RECIPES, name, replace(recipe, epochs=1, sizes=small))
    return tmp_path / "cache"


class TestDigits:
    @pytest.mark.parametrize("split", ["shuffled", "file-order"])
    def test_every_image_is_in_one_part(self, split):
        data = load_digits(split)
        assert (len(data.train), len(data.test)) == (1347, 450)
        assert data.train.images.shape == (1347, 1, 8, 8)
        assert data.train.images.dtype == np.float32
        assert (data.train.images.min(), data.train.images.max()) == (0, 1)
        assert np.bincount(np.concatenate([data.train.labels, data.test.labels])).sum() == 1797

    def test_file_order_holds_out_the_last_and_shuffled_holds_out_each_class_alike(self):
        from sklearn.datasets import load_digits as original

        pixels, labels = original(return_X_y=True)
        held_out = load_digits("file-order", flat=True).test
        np.testing.assert_array_equal(held_out.images, (pixels[-450:] / 16).astype(np.float32))
        np.testing.assert_array_equal(held_out.labels, labels[-450:])
        share = np.bincount(load_digits("shuffled").test.labels) / np.bincount(labels)
        assert np.abs(share - 450 / 1797).max() < 0.01

    def test_the_splits_are_always_the_same(self):
        np.testing.assert_array_equal(load_digits().test.labels, load_digits().test.labels)

    def test_folds_hold_out_every_image_once(self):
        parts = [load_digits(fold=(i, 5), flat=True) for i in range(5)]
        assert sum(len(part.test) for part in parts) == 1797
        assert all(len(part.train) + len(part.test) == 1797 for part in parts)
        everything = load_digits(flat=True)
        held_out, whole = (
            np.concatenate([part.images for part in some])
            for some in ([part.test for part in parts], [everything.train, everything.test])
        )
        np.testing.assert_array_equal(np.sort(held_out @ np.arange(64)), np.sort(whole @ np.arange(64)))
        for part in parts:
            assert np.bincount(part.test.labels).min() >= 33

    def test_large_images_are_the_small_ones_pixel_by_pixel(self):
        small, large = load_digits().test.images, load_digits(side=28).test.images
        assert large.shape == (450, 1, 28, 28)
        np.testing.assert_array_equal(large[:, :, 2:26:3, 2:26:3], small)
        np.testing.assert_array_equal(large[:, :, 4:26:3, 4:26:3], small)
        assert not large[:, :, :2].any()
        assert load_digits(side=28, flat=True).test.images.shape == (450, 784)

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            ({"split": "random"}, "`split` must be 'shuffled' or 'file-order', got 'random'"),
            ({"side": 16}, "`side` must be 8 or 28, got 16"),
            ({"fold": (5, 5)}, r"`fold` must be \(i, k\) .* got \(5, 5\)"),
            ({"fold": (0, 1)}, r"`fold` must be \(i, k\) .* got \(0, 1\)"),
        ],
    )
    def test_what_is_not_there_is_named(self, arguments, said):
        with pytest.raises(ValueError, match=said):
            load_digits(**arguments)


class TestText:
    def test_it_is_the_documentation_of_this_python_and_says_which(self):
        text = load_text()
        assert len(text.whole) > 300_000
        assert len(text.held_out) / len(text.whole) == pytest.approx(0.1, abs=1e-4)
        assert text.sha256 == hashlib.sha256(text.whole.encode()).hexdigest()
        assert "assignment" in text.train

    def test_its_tokenizer_knows_every_character(self):
        tokenizer, text = reference.vocabulary(), load_text()
        assert tokenizer.decode(tokenizer.encode(text.held_out)) == text.held_out

    def test_windows_are_pieces_and_the_same_moved_by_one(self):
        x, y = windows(np.arange(50), 7, 20, np.random.default_rng(0))
        assert x.shape == (20, 7)
        np.testing.assert_array_equal(y, x + 1)
        np.testing.assert_array_equal(np.diff(x, axis=1), 1)
        assert x.min() >= 0
        assert y.max() <= 49
        assert len(np.unique(x[:, 0])) > 10

    def test_a_table_of_pairs_of_a_coin_needs_one_bit_and_of_a_cycle_none(self):
        coin = np.random.default_rng(0).integers(0, 2, 40_000)
        assert bigram_bits(coin[:30_000], coin[30_000:], 2) == pytest.approx(1, abs=0.001)
        cycle = np.arange(30_000) % 3
        assert bigram_bits(cycle, cycle, 3) == pytest.approx(0, abs=0.001)

    def test_bits_of_a_model_that_knows_nothing_are_those_of_the_vocabulary(self):
        model = tt.GPT(16, 8, 1, 2, 8)
        for parameter in model.parameters():
            parameter.data[...] = 0
        tokens = np.random.default_rng(0).integers(0, 16, 1000)
        assert reference.bits_per_token(model, tokens, 8) == pytest.approx(4)


class TestCache:
    def test_the_folder_is_that_of_the_platform_unless_named(self, monkeypatch, tmp_path):
        monkeypatch.delenv("TINYTORCH_CACHE", raising=False)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
        assert cache_folder().name == "tinytorch"
        monkeypatch.setenv("TINYTORCH_CACHE", str(tmp_path / "mine"))
        assert cache_folder() == tmp_path / "mine"

    def test_recipe_data_fold_and_split_each_make_another_file_and_words_do_not(self):
        recipe = RECIPES["digits-mlp"]
        base = cached_path(recipe, "a", None, "shuffled")
        others = [
            cached_path(replace(recipe, epochs=31), "a", None, "shuffled"),
            cached_path(replace(recipe, version=2), "a", None, "shuffled"),
            cached_path(recipe, "b", None, "shuffled"),
            cached_path(recipe, "a", (0, 5), "shuffled"),
            cached_path(recipe, "a", None, "file-order"),
        ]
        assert len({base, *others}) == 6
        assert cached_path(replace(recipe, what="other words", expected_s=9), "a", None, "shuffled") == base

    @pytest.mark.parametrize("name", RECIPES)
    def test_a_model_is_trained_once_announced_and_read_back_to_the_bit(self, quick, name):
        said, shares = [], []
        first = reference_model(name, announce=said.append, progress=shares.append)
        again = reference_model(name, announce=said.append)
        assert len(said) == 1
        assert RECIPES[name].what in said[0]
        assert shares[-1] == 1
        assert first.path.parent == quick
        for note in ("score", "yardstick", "data_hash", "duration_s"):
            assert getattr(again, note) == getattr(first, note)
        for (key, a), (other, b) in zip(
            first.model.state_dict().items(), again.model.state_dict().items(), strict=True
        ):
            assert key == other
            np.testing.assert_array_equal(a, b)
        assert not any(layer.training for _, layer in again.model.named_layers())

    def test_training_says_now_and_then_how_far_it_is(self, quick, monkeypatch, capsys):
        now = iter(range(0, 10_000, 10))
        monkeypatch.setattr(reference, "time", SimpleNamespace(monotonic=lambda: next(now)))
        told = reference._lines("decathlon")
        for share in (0.1, 0.2, 0.4, 0.8, 1.0):
            told(share)
        assert capsys.readouterr().err.splitlines() == [
            "decathlon: 20% trained, about 80 s left",
            "decathlon: 80% trained, about 10 s left",
        ]

    def test_progress_goes_to_standard_error_unless_somebody_else_is_told(self, quick, monkeypatch, capsys):
        monkeypatch.setattr(reference, "_LINE_EVERY_S", 0)
        monkeypatch.setitem(RECIPES, "digits-mlp", replace(RECIPES["digits-mlp"], epochs=2))
        reference_model("digits-mlp").path.unlink()
        said = capsys.readouterr().err.splitlines()
        assert len(said) == 2
        assert said[0].startswith("training MLP 64-128-64-10 on digits: about 1 s")
        assert said[1].startswith("digits-mlp: 50% trained, about ")
        reference_model("digits-mlp", announce=lambda _: None).path.unlink()
        reference_model("digits-mlp", announce=lambda _: None, progress=lambda _: None)
        assert capsys.readouterr() == ("", "")

    def test_a_terminal_gets_one_bar(self, quick, monkeypatch, capsys):
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
        monkeypatch.setattr(reference, "_LINE_EVERY_S", 0)
        reference_model("digits-mlp")
        shown = capsys.readouterr().err
        assert re.search("digits-mlp.*━", shown)
        assert "epoch" not in shown
        assert "trained, about" not in shown

    def test_training_is_the_same_to_the_bit(self, quick):
        first = reference_model("digits-cnn")
        first.path.unlink()
        second = reference_model("digits-cnn")
        for a, b in zip(first.model.parameters(), second.model.parameters(), strict=True):
            np.testing.assert_array_equal(a.data, b.data)

    @pytest.mark.parametrize("damage", [b"", b"nonsense", None])
    def test_a_damaged_file_is_trained_anew(self, quick, damage):
        first = reference_model("digits-mlp")
        content = first.path.read_bytes()
        first.path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]) if damage is None else damage)
        said = []
        reference_model("digits-mlp", announce=said.append)
        assert len(said) == 1
        assert first.path.read_bytes()[:8] == content[:8]

    def test_without_a_folder_to_write_to_the_model_is_there_all_the_same(self, quick):
        quick.write_text("a file where the folder should be")
        assert 0 < reference_model("digits-mlp").score <= 1

    def test_out_of_fold_models_never_saw_their_images(self, quick):
        found = out_of_fold("digits-mlp", folds=3)
        assert sum(len(held_out) for _, held_out in found) == 1797
        assert len({trained.path for trained, _ in found}) == 3

    def test_an_unknown_name_is_named_with_those_there_are(self):
        with pytest.raises(ValueError, match=r"`name` must be one of digits-mlp, .*, got 'digits'"):
            reference_model("digits")


class TestCommand:
    def test_it_trains_lists_and_says_where(self, quick, capsys):
        assert main(["list"]) == 0
        assert capsys.readouterr().out.count("to train") == len(RECIPES)
        assert main(["train", "digits-mlp"]) == 0
        shown = capsys.readouterr()
        assert "of the held-out digits right" in shown.out
        assert "training MLP 64-128-64-10" in shown.err
        assert main(["list"]) == 0
        assert "in the cache" in capsys.readouterr().out.splitlines()[0]
        assert main(["path"]) == 0
        assert capsys.readouterr().out.strip() == str(quick)

    def test_a_reader_that_goes_away_is_no_error(self, quick):
        command = [sys.executable, "-m", "tinytorch.datasets", "list"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            process.stdout.close()
            said = process.stderr.read()
        assert (process.returncode, said) == (141, b"")

    def test_ctrl_c_ends_with_130_and_one_line(self, quick, monkeypatch, capsys):
        def interrupted(*_args, **_kwargs):
            raise KeyboardInterrupt

        monkeypatch.setattr("tinytorch.datasets.__main__.reference_model", interrupted)
        assert main(["train"]) == 130
        assert "models that were finished are in the cache" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("arguments", "said"), [(["train", "mlp"], "there is no model mlp"), ([], "COMMAND")]
    )
    def test_wrong_usage_says_what_there_is(self, arguments, said):
        command = [sys.executable, "-m", "tinytorch.datasets", *arguments]
        found = subprocess.run(command, capture_output=True, text=True, check=False)
        assert found.returncode == 2
        assert said in found.stderr
