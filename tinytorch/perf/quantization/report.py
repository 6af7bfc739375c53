"""What quantizing did to each layer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LayerReport:
    """What became of one layer.

    Attributes:
        name: in the model, "" for the model itself.
        kind: class of the original layer.
        quantized: whether it is int8 now.
        reason: why it is not, or what to know of how it is.
        n_bytes: of all arrays that are kept.
        fp32_bytes: of the original layer.
        weight_sqnr_db: signal to quantization noise of the weights, in decibels; None where it stayed FP32,
            infinite where nothing was rounded.
        output_sqnr_db: the same of the outputs for the calibration data; None without.
        clipped: share of the calibration data beyond the range of the activations; None without.
    """

    name: str
    kind: str
    quantized: bool
    reason: str
    n_bytes: int
    fp32_bytes: int
    weight_sqnr_db: float | None = None
    output_sqnr_db: float | None = None
    clipped: float | None = None


@dataclass(frozen=True, slots=True)
class QuantizationReport:
    """What became of every layer that could be quantized; prints as a table.

    It is the attribute `quantization_report` of what `quantize_model` returns, and of nothing else: saved
    models are without it.

    Attributes:
        layers: in the order of the model.
        kernel: which INT8 kernel runs on this machine.
    """

    layers: tuple[LayerReport, ...]
    kernel: str

    @property
    def ratio(self) -> float:
        """Bytes of these layers in FP32 over those that are kept."""
        return sum(row.fp32_bytes for row in self.layers) / sum(row.n_bytes for row in self.layers)

    def __iter__(self) -> Iterator[LayerReport]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)

    def __getitem__(self, name: str) -> LayerReport:
        for row in self.layers:
            if row.name == name:
                return row
        raise KeyError(f"no layer is called {name!r}: there are {[row.name for row in self.layers]}")

    def __str__(self) -> str:
        from tabulate import tabulate

        heads = (
            "layer",
            "kind",
            "stored as",
            "bytes",
            "smaller",
            "weights dB",
            "outputs dB",
            "clipped",
            "note",
        )
        rows = [
            (
                row.name or "(model)",
                row.kind,
                "int8" if row.quantized else "float32",
                row.n_bytes,
                f"{row.fp32_bytes / row.n_bytes:.2f}x",
                _decibels(row.weight_sqnr_db),
                _decibels(row.output_sqnr_db),
                "" if row.clipped is None else f"{row.clipped:.3%}",
                row.reason,
            )
            for row in self.layers
        ]
        table = tabulate(
            rows, heads, tablefmt="simple", disable_numparse=True, maxcolwidths=[None] * 8 + [44]
        )
        return f"{table}\n{self.ratio:.2f}x smaller in all; kernel: {self.kernel}"


def _decibels(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"
