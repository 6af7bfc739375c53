"""`python -m tinytorch.datasets`: train the reference models, and list them."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from tinytorch.datasets.cache import cache_folder
from tinytorch.datasets.recipes import RECIPES
from tinytorch.datasets.reference import Trained, is_cached, reference_model


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command, and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tinytorch.datasets",
        description="Trains the reference models that claims measure, and keeps them in a cache.",
        epilog="The cache is a folder of files; it may be deleted. TINYTORCH_CACHE names another folder.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    train = commands.add_parser("train", help="train the models that are not in the cache")
    train.add_argument("names", nargs="*", metavar="NAME", help=f"any of {', '.join(RECIPES)} (default: all)")
    commands.add_parser("list", help="show all models, and which are in the cache")
    commands.add_parser("path", help="print the folder of the cache")
    options = parser.parse_args(arguments)
    if options.command == "path":
        sys.stdout.write(f"{cache_folder()}\n")
        return 0
    if options.command == "list":
        return _list()
    unknown = [name for name in options.names if name not in RECIPES]
    if unknown:
        parser.error(f"there is no model {', '.join(unknown)}; there are {', '.join(RECIPES)}")
    return _train(options.names or list(RECIPES))


def _list() -> int:
    for name, recipe in RECIPES.items():
        state = "in the cache" if is_cached(name) else f"about {recipe.expected_s:.0f} s to train"
        sys.stdout.write(f"{name:16} {recipe.what:40} {state}\n")
    return 0


def _train(names: Sequence[str]) -> int:
    try:
        for name in names:
            sys.stdout.write(f"{name:16} {_described(reference_model(name))}\n")
            sys.stdout.flush()
    except KeyboardInterrupt:
        sys.stderr.write("interrupted: models that were finished are in the cache\n")
        return 130
    return 0


def _described(trained: Trained) -> str:
    if trained.yardstick is None:
        return f"{trained.score:.1%} of the held-out digits right"
    return f"{trained.score:.2f} bits per held-out character (a table of pairs: {trained.yardstick:.2f})"


def _main_in_a_pipe() -> int:
    """Run `main`, and end quietly where the reader of its output has gone."""
    try:
        code = main()
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit
        return 141  # as a program that SIGPIPE ended
    return code


if __name__ == "__main__":
    sys.exit(_main_in_a_pipe())
