"""A small NumPy deep-learning framework whose optimisations are real and can be audited.

Names are imported when they are first used, so `import tinytorch` itself loads nothing else.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tinytorch.core.activations import GELU as GELU
    from tinytorch.core.activations import LogSoftmax as LogSoftmax
    from tinytorch.core.activations import ReLU as ReLU
    from tinytorch.core.activations import Sigmoid as Sigmoid
    from tinytorch.core.activations import Softmax as Softmax
    from tinytorch.core.activations import Tanh as Tanh
    from tinytorch.core.attention import MultiHeadAttention as MultiHeadAttention
    from tinytorch.core.attention import causal_mask as causal_mask
    from tinytorch.core.attention import scaled_dot_product_attention as scaled_dot_product_attention
    from tinytorch.core.autograd import no_grad as no_grad
    from tinytorch.core.dataloader import Compose as Compose
    from tinytorch.core.dataloader import DataLoader as DataLoader
    from tinytorch.core.dataloader import Dataset as Dataset
    from tinytorch.core.dataloader import RandomCrop as RandomCrop
    from tinytorch.core.dataloader import RandomHorizontalFlip as RandomHorizontalFlip
    from tinytorch.core.dataloader import RandomShift as RandomShift
    from tinytorch.core.dataloader import TensorDataset as TensorDataset
    from tinytorch.core.embeddings import Embedding as Embedding
    from tinytorch.core.embeddings import PositionalEncoding as PositionalEncoding
    from tinytorch.core.layers import Dropout as Dropout
    from tinytorch.core.layers import Flatten as Flatten
    from tinytorch.core.layers import Layer as Layer
    from tinytorch.core.layers import LayerNorm as LayerNorm
    from tinytorch.core.layers import Linear as Linear
    from tinytorch.core.layers import Sequential as Sequential
    from tinytorch.core.losses import BinaryCrossEntropyLoss as BinaryCrossEntropyLoss
    from tinytorch.core.losses import CrossEntropyLoss as CrossEntropyLoss
    from tinytorch.core.losses import MSELoss as MSELoss
    from tinytorch.core.models import load_model as load_model
    from tinytorch.core.models import save_model as save_model
    from tinytorch.core.optimizers import SGD as SGD
    from tinytorch.core.optimizers import Adam as Adam
    from tinytorch.core.optimizers import AdamW as AdamW
    from tinytorch.core.random import manual_seed as manual_seed
    from tinytorch.core.spatial import AvgPool2d as AvgPool2d
    from tinytorch.core.spatial import BatchNorm2d as BatchNorm2d
    from tinytorch.core.spatial import Conv2d as Conv2d
    from tinytorch.core.spatial import MaxPool2d as MaxPool2d
    from tinytorch.core.tensor import Parameter as Parameter
    from tinytorch.core.tensor import Tensor as Tensor
    from tinytorch.core.tensor import Variable as Variable
    from tinytorch.core.tensor import concatenate as concatenate
    from tinytorch.core.tokenization import BPETokenizer as BPETokenizer
    from tinytorch.core.tokenization import CharTokenizer as CharTokenizer
    from tinytorch.core.training import CosineSchedule as CosineSchedule
    from tinytorch.core.training import Trainer as Trainer
    from tinytorch.core.training import clip_grad_norm as clip_grad_norm
    from tinytorch.core.transformers import GPT as GPT
    from tinytorch.core.transformers import MLP as MLP
    from tinytorch.core.transformers import TransformerBlock as TransformerBlock

    __version__: str

_NAMES: dict[str, tuple[str, ...]] = {
    "autograd": ("no_grad",),
    "tensor": ("Parameter", "Tensor", "Variable", "concatenate"),
    "random": ("manual_seed",),
    "layers": ("Dropout", "Flatten", "Layer", "LayerNorm", "Linear", "Sequential"),
    "activations": ("GELU", "LogSoftmax", "ReLU", "Sigmoid", "Softmax", "Tanh"),
    "losses": ("BinaryCrossEntropyLoss", "CrossEntropyLoss", "MSELoss"),
    "optimizers": ("SGD", "Adam", "AdamW"),
    "spatial": ("AvgPool2d", "BatchNorm2d", "Conv2d", "MaxPool2d"),
    "embeddings": ("Embedding", "PositionalEncoding"),
    "attention": ("MultiHeadAttention", "causal_mask", "scaled_dot_product_attention"),
    "dataloader": (
        "Compose",
        "DataLoader",
        "Dataset",
        "RandomCrop",
        "RandomHorizontalFlip",
        "RandomShift",
        "TensorDataset",
    ),
    "training": ("CosineSchedule", "Trainer", "clip_grad_norm"),
    "models": ("load_model", "save_model"),
    "tokenization": ("BPETokenizer", "CharTokenizer"),
    "transformers": ("GPT", "MLP", "TransformerBlock"),
}
_HOMES = {name: f"tinytorch.core.{module}" for module, names in _NAMES.items() for name in names}

__all__ = [
    "GELU",
    "GPT",
    "MLP",
    "SGD",
    "Adam",
    "AdamW",
    "AvgPool2d",
    "BPETokenizer",
    "BatchNorm2d",
    "BinaryCrossEntropyLoss",
    "CharTokenizer",
    "Compose",
    "Conv2d",
    "CosineSchedule",
    "CrossEntropyLoss",
    "DataLoader",
    "Dataset",
    "Dropout",
    "Embedding",
    "Flatten",
    "Layer",
    "LayerNorm",
    "Linear",
    "LogSoftmax",
    "MSELoss",
    "MaxPool2d",
    "MultiHeadAttention",
    "Parameter",
    "PositionalEncoding",
    "RandomCrop",
    "RandomHorizontalFlip",
    "RandomShift",
    "ReLU",
    "Sequential",
    "Sigmoid",
    "Softmax",
    "Tanh",
    "Tensor",
    "TensorDataset",
    "Trainer",
    "TransformerBlock",
    "Variable",
    "__version__",
    "causal_mask",
    "clip_grad_norm",
    "concatenate",
    "load_model",
    "manual_seed",
    "no_grad",
    "save_model",
    "scaled_dot_product_attention",
]


def __getattr__(name: str) -> object:
    if name == "__version__":
        value: object = _version()
    elif name in _HOMES:
        value = getattr(import_module(_HOMES[name]), name)
    else:
        raise AttributeError(f"module 'tinytorch' has no attribute {name!r}")
    globals()[name] = value  # the next access does not come here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _version() -> str:
    from importlib import metadata

    try:
        return metadata.version("perfclaims")  # the distribution that holds both packages
    except metadata.PackageNotFoundError:
        return "0+unknown"
