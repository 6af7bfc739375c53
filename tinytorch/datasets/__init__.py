"""Data that every machine has, and small models trained on it.

python -m tinytorch.datasets list          what there is, and what is in the cache
python -m tinytorch.datasets train         train every reference model that is missing
"""

from __future__ import annotations

from tinytorch.datasets.digits import Digits, Split, load_digits
from tinytorch.datasets.recipes import RECIPES, Recipe
from tinytorch.datasets.reference import Trained, out_of_fold, reference_model
from tinytorch.datasets.text import Text, load_text

__all__ = [
    "RECIPES",
    "Digits",
    "Recipe",
    "Split",
    "Text",
    "Trained",
    "load_digits",
    "load_text",
    "out_of_fold",
    "reference_model",
]
