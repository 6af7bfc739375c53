"""Compression: pruning, storage without zeros, low-rank factors, distillation, and the pipeline of them."""

from __future__ import annotations

from tinytorch.perf.compression.distillation import KnowledgeDistillation, distillation_loss
from tinytorch.perf.compression.lowrank import low_rank, low_rank_linear
from tinytorch.perf.compression.pipeline import ModelCompressor
from tinytorch.perf.compression.pruning import MagnitudePruner, magnitude_prune, measure_sparsity
from tinytorch.perf.compression.report import CompressionReport, LayerStorage, model_bytes
from tinytorch.perf.compression.sensitivity import GradualSchedule, Sensitivity, sensitivity_scan
from tinytorch.perf.compression.sparse import SparseConv2d, SparseLinear, sparsify
from tinytorch.perf.compression.structured import structured_prune

__all__ = [
    "CompressionReport",
    "GradualSchedule",
    "KnowledgeDistillation",
    "LayerStorage",
    "MagnitudePruner",
    "ModelCompressor",
    "Sensitivity",
    "SparseConv2d",
    "SparseLinear",
    "distillation_loss",
    "low_rank",
    "low_rank_linear",
    "magnitude_prune",
    "measure_sparsity",
    "model_bytes",
    "sensitivity_scan",
    "sparsify",
    "structured_prune",
]
