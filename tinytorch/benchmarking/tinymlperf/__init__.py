"""TinyMLPerf: three events in which models are measured beside a reference model that does the same.

`contest` is the entrance, `events` say what is played, and `playing` how; `referee` starts each `player` in
its own confined process, `scoring` makes figures of what was logged, and `leaderboard` keeps them.

Names are imported when they are first used: a player must not load what it is not to see.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tinytorch.benchmarking.tinymlperf.contest import LoadedBenchmark as LoadedBenchmark
    from tinytorch.benchmarking.tinymlperf.contest import Ruling as Ruling
    from tinytorch.benchmarking.tinymlperf.contest import Settings as Settings
    from tinytorch.benchmarking.tinymlperf.contest import Submission as Submission
    from tinytorch.benchmarking.tinymlperf.contest import TinyMLPerf as TinyMLPerf

__all__ = ["LoadedBenchmark", "Ruling", "Settings", "Submission", "TinyMLPerf"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from tinytorch.benchmarking.tinymlperf import contest

    value: object = getattr(contest, name)
    globals()[name] = value  # the next access does not come here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
