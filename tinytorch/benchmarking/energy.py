"""Energy from the counters of the processor, where this process may read them; it is never estimated."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tinytorch.benchmarking.conditions import collect_if_piled_up, collector_paused, single_threaded
from tinytorch.benchmarking.contenders import Contender
from tinytorch.benchmarking.data import Data
from tinytorch.benchmarking.latency import check_untraced, one_pass, refusing
from tinytorch.benchmarking.limits import time_limit

_POWERCAP = Path("/sys/class/powercap")
_MICROJOULE = 1e-6
# The counters move once in a millisecond.
_BLOCK_S = 0.1

#: what stands in place of numbers that were not measured
UNAVAILABLE = "unavailable"


@dataclass(frozen=True, slots=True)
class EnergyCounter:
    """The running average power limit counters of all processor packages.

    They count what the whole package uses, so other programs too.

    Attributes:
        packages: the folders of their counters.
        ranges_uj: the microjoules after which each counter begins again at zero.
    """

    packages: tuple[Path, ...]
    ranges_uj: tuple[int, ...]

    @classmethod
    def find(cls, root: Path | None = None) -> EnergyCounter | str:
        """Return the counter of this machine, or in a few words why there is none."""
        root = _POWERCAP if root is None else root
        # Packages are called intel-rapl:0; with a second number it is a part of one, counted already.
        packages = sorted(path for path in root.glob("intel-rapl:*") if path.name.count(":") == 1)
        if not packages:
            return f"there are no energy counters under {root}"
        try:
            ranges = tuple(_number(package / "max_energy_range_uj") for package in packages)
            counter = cls(tuple(packages), ranges)
            counter._read()
        except PermissionError:
            return "the energy counters may be read by the administrator alone"
        except (OSError, ValueError) as error:
            return f"the energy counters cannot be read: {error}"
        return counter

    def joules(
        self, call: Callable[[], object], guard: AbstractContextManager[object] | None = None
    ) -> tuple[float, int]:
        """Call for a tenth of a second, and return the energy used meanwhile and the number of calls.

        Args:
            call: what uses the energy.
            guard: is entered around all calls, but not around reading the counters.
        """
        before, calls = self._read(), 0
        with guard or nullcontext():
            stop = time.perf_counter() + _BLOCK_S
            while calls == 0 or time.perf_counter() < stop:
                call()
                calls += 1
        after = self._read()
        used = sum((b - a) % (size + 1) for a, b, size in zip(before, after, self.ranges_uj, strict=True))
        return used * _MICROJOULE, calls

    def _read(self) -> list[int]:
        return [_number(package / "energy_uj") for package in self.packages]


def joules_of(
    counter: EnergyCounter,
    contenders: Sequence[Contender],
    datasets: Sequence[Data],
    runs: int,
    rng: np.random.Generator,
    time_limit_s: float,
) -> dict[str, list[float]]:
    """Return joules of a pass over all data for each model and run; models take turns in random order.

    Raises:
        RefusedModel: a model raises, or takes longer than `time_limit_s` for a data set.
        RuntimeError: memory is being traced.
    """
    check_untraced()
    passes = [one_pass(c.call, [c.prepared(data.inputs) for data in datasets]) for c in contenders]
    joules: dict[str, list[float]] = {c.name: [] for c in contenders}
    with single_threaded(), collector_paused():
        limit_s = time_limit_s * len(datasets)
        for contender, call in zip(contenders, passes, strict=True):
            with _guarded(contender, limit_s):
                call()
        for _ in range(runs):
            for index in rng.permutation(len(passes)).tolist():
                # The last call may begin just before the end of the block.
                guard = _guarded(contenders[index], _BLOCK_S + limit_s)
                used, calls = counter.joules(passes[index], guard)
                joules[contenders[index].name].append(used / calls)
            collect_if_piled_up()
    return joules


@contextmanager
def _guarded(contender: Contender, limit_s: float) -> Iterator[None]:
    with refusing(contender, "its energy was measured"), time_limit(limit_s):
        yield


def _number(path: Path) -> int:
    return int(path.read_text())
