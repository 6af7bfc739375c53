"""The roofline: how fast operations can be on this machine, by arithmetic or by memory.

An operation of I FLOPs for each byte that it moves cannot do more than min(peak, I * bandwidth) FLOPs in a
second. Below the ridge, where both are equal, memory bounds it (Williams, Waterman and Patterson 2009).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from tinytorch.perf.profiling.labels import place_labels
from tinytorch.perf.profiling.machine import Machine, measure_machine
from tinytorch.perf.profiling.rows import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, slots=True)
class Point:
    """One operation under the roof.

    Attributes:
        name: of the operation.
        intensity: FLOPs for each byte that it reads or writes.
        gflops: 1e9 FLOPs that it did in a second.
        attainable_gflops: the roof over it.
        bound: "memory" below the ridge, else "arithmetic".
    """

    name: str
    intensity: float
    gflops: float
    attainable_gflops: float
    bound: Literal["memory", "arithmetic"]


@dataclass(frozen=True, slots=True)
class Roofline:
    """A machine, and operations that were recorded on it.

    Attributes:
        machine: what it can do.
        points: operations that have FLOPs, slowest first.
    """

    machine: Machine
    points: tuple[Point, ...]

    @property
    def memory_bound(self) -> tuple[str, ...]:
        """Names of the operations that memory bounds, slowest first."""
        return tuple(point.name for point in self.points if point.bound == "memory")

    def report(self) -> str:
        """Return the machine and the operations as text."""
        from tabulate import tabulate

        headers = ("name", "FLOP/byte", "GFLOP/s", "attainable", "share", "bound")
        lines = [
            (
                p.name,
                f"{p.intensity:.2f}",
                f"{p.gflops:.2f}",
                f"{p.attainable_gflops:.2f}",
                f"{p.gflops / p.attainable_gflops:.0%}",
                p.bound,
            )
            for p in self.points
        ]
        align = ("left", *["right"] * 4, "left")
        machine = self.machine
        head = (
            f"peak {machine.peak_gflops:.1f} GFLOP/s, memory {machine.bandwidth_gb_s:.1f} GB/s, "
            f"ridge at {machine.ridge:.1f} FLOP/byte\n\n"
        )
        if not lines:
            return head + "no operations with FLOPs were recorded\n"
        return head + tabulate(lines, headers=headers, colalign=align, disable_numparse=True) + "\n"

    def plot(self, path: str | Path) -> None:
        """Draw the roof and the operations into a file, whose suffix names the format (PNG, SVG, PDF).

        An operation above the roof took its numbers from a cache, which is quicker than memory.

        Raises:
            ValueError: the folder of `path` does not exist, or matplotlib does not know the suffix.
        """
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        target = Path(path)
        if not target.parent.is_dir():
            raise ValueError(f"`path` must lie in a folder that exists, got {str(target)!r}")
        figure = Figure(figsize=(8, 5), layout="constrained")
        known = FigureCanvasAgg(figure).get_supported_filetypes()
        if target.suffix[1:] not in known:
            raise ValueError(f"`path` must end in one of {', '.join(sorted(known))}, got {str(target)!r}")
        self._draw(figure.add_subplot())
        figure.savefig(target)

    def _draw(self, axes: Axes) -> None:
        machine = self.machine
        shown = [point.intensity for point in self.points]
        ends = (min([*shown, machine.ridge]) / 4, max([*shown, machine.ridge]) * 4)
        roof = np.geomspace(*ends, 200)
        axes.loglog(roof, [machine.attainable_gflops(float(x)) for x in roof], color="black")
        axes.axvline(machine.ridge, color="grey", linestyle=":")
        for bound, color in (("memory", "tab:blue"), ("arithmetic", "tab:red")):
            chosen = [point for point in self.points if point.bound == bound]
            axes.scatter([p.intensity for p in chosen], [p.gflops for p in chosen], color=color, label=bound)
        axes.set(
            xlabel="arithmetic intensity (FLOP/byte)",
            ylabel="GFLOP/s",
            title=f"{machine.peak_gflops:.0f} GFLOP/s, {machine.bandwidth_gb_s:.1f} GB/s",
        )
        axes.legend(title="bound by")
        places = [(point.intensity, point.gflops) for point in self.points]
        place_labels(axes, [point.name for point in self.points], places)


def roofline(rows: Sequence[Row], machine: Machine | None = None) -> Roofline:
    """Place the rows of `Profiler.by_operation()` that have FLOPs and bytes under the roof of the machine.

    Args:
        rows: of operations; bytes are those of their arrays, each read or written once.
        machine: measured now unless given.
    """
    found = measure_machine() if machine is None else machine
    return Roofline(
        found, tuple(_point(row, found) for row in rows if row.flops and row.bytes and row.self_ms)
    )


def _point(row: Row, machine: Machine) -> Point:
    intensity = row.flops / row.bytes
    return Point(
        name=row.name,
        intensity=intensity,
        gflops=row.flops / row.self_ms / 1e6,
        attainable_gflops=machine.attainable_gflops(intensity),
        bound="memory" if intensity < machine.ridge else "arithmetic",
    )
