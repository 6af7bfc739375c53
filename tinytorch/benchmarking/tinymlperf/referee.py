"""The referee: measures a submission beside the reference model, and says what it is worth.

What it cannot see: that a model of the open division was trained with the test data, which everybody has; see
also `clocks` for how much own code may hide, and `confinement` for what it may do.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tinytorch.benchmarking.tinymlperf.confinement import can_confine
from tinytorch.benchmarking.tinymlperf.divisions import check_closed
from tinytorch.benchmarking.tinymlperf.events import LoadedBenchmark
from tinytorch.benchmarking.tinymlperf.files import hash_of
from tinytorch.benchmarking.tinymlperf.frames import Frame
from tinytorch.benchmarking.tinymlperf.machine import machine_kind
from tinytorch.benchmarking.tinymlperf.playing import Pair, accuracy_run, performance_run
from tinytorch.benchmarking.tinymlperf.processes import Entrant, PlayerProcess, Refused
from tinytorch.benchmarking.tinymlperf.scenarios import Settings
from tinytorch.benchmarking.tinymlperf.scoring import (
    Quality,
    Score,
    check_outputs,
    figure,
    quality_of,
    scores_of,
)
from tinytorch.benchmarking.tinymlperf.submissions import CODE, WEIGHTS, Submission
from tinytorch.benchmarking.tinymlperf.techniques import badges_of, inspect_artefact
from tinytorch.benchmarking.tinymlperf.turns import on_one_cpu
from tinytorch.core.models import load_model, save_model

Announce = Callable[[str], None]


@dataclass(frozen=True)
class Ruling:
    """What the referee found.

    Attributes:
        submission: what was judged.
        machine: the kind of machine.
        refused: why it gets no rank, in one sentence; None where it gets one.
        quality: None where it did not come to an accuracy run.
        scores: empty where it was refused.
        badges: see `techniques`; none for own code, in which nothing can be verified.
        confinement: what its process was confined by.
        log: every raw sample, as in submission.json; None where nothing was measured to the end.
    """

    submission: Submission
    machine: str
    refused: str | None
    quality: Quality | None = None
    scores: tuple[Score, ...] = ()
    badges: tuple[str, ...] = ()
    confinement: str = "none needed"
    log: Mapping[str, Any] | None = None

    @property
    def ranked(self) -> bool:
        """Whether it gets a rank."""
        return self.refused is None


def judge(
    submission: Submission,
    benchmark: LoadedBenchmark,
    settings: Settings,
    seed: int | None = None,
    announce: Announce | None = None,
) -> Ruling:
    """Measure a submission beside the reference model, each in its own process, and rule on it.

    Nothing that a submission does raises here: it is refused, and the ruling says why.

    Args:
        submission: what is judged; its files are copied first, so that they cannot change meanwhile.
        benchmark: the event's model and data.
        settings: for how long, and within which limits.
        seed: of the fresh inputs; by default a new one, which the log then names.
        announce: is told of progress.
    """
    chosen = seed if seed is not None else int(np.random.SeedSequence().generate_state(1)[0])
    with tempfile.TemporaryDirectory(prefix="tinymlperf-") as scratch:
        return _Referee(submission, benchmark, settings, Path(scratch), announce or _silent).rule(chosen)


class _Referee:
    def __init__(
        self,
        submission: Submission,
        benchmark: LoadedBenchmark,
        settings: Settings,
        scratch: Path,
        announce: Announce,
    ) -> None:
        self.submission = submission
        self.benchmark = benchmark
        self.settings = settings
        self.announce = announce
        self.folder = scratch / "submission"
        self.reference = scratch / "reference.safetensors"
        self.confinement = "none needed"
        self.cached_tokens = 0
        self.quality: Quality | None = None

    def rule(self, seed: int) -> Ruling:
        log: dict[str, Any] = {"seed": seed, "data": self.benchmark.data_hash, "accuracy": {}, "sittings": []}
        try:
            entrant = self._entrant()
            if self.submission.division == "closed":
                self._check_closed()
            rng = np.random.default_rng(seed)
            for number in range(self.settings.sittings):
                self.announce(f"sitting {number + 1} of {self.settings.sittings}")
                self._sitting(entrant, log, rng)
            scores = scores_of(self.benchmark.event, log)
            badges = self._badges()
        except Refused as error:
            return Ruling(
                self.submission, machine_kind(), str(error), self.quality, confinement=self.confinement
            )
        return Ruling(
            self.submission, machine_kind(), None, self.quality, scores, badges, self.confinement, log
        )

    def _entrant(self) -> Entrant:
        """Copy the submission's files, and check that they are still what was submitted."""
        self.folder.mkdir()
        document, code = self.submission.document, self.submission.code
        if code is not None and not can_confine():
            raise Refused(
                f"{self.submission.name} brings code, which runs only where it can be confined: on Linux 6.2 "
                "or later with Landlock"
            )
        weights = self.folder / WEIGHTS
        try:
            shutil.copyfile(self.submission.weights, weights)
            same = hash_of(weights) == document["weights"]["sha256"]
            if code is not None:
                shutil.copyfile(code, self.folder / CODE)
                same &= hash_of(self.folder / CODE) == document["code"]["sha256"]
        except OSError as error:
            raise Refused(f"the files of {self.submission.name} cannot be read: {error.strerror}") from None
        if not same:
            raise Refused(f"the files of {self.submission.name} changed since they were packed")
        save_model(self.benchmark.model, self.reference)
        name = self.submission.name
        if code is not None:
            return Entrant(name, self.folder, weights, self.folder / CODE)
        return Entrant(name, self.folder, weights, None, self.submission.kv_cache)

    def _check_closed(self) -> None:
        try:
            model = load_model(self.folder / WEIGHTS)
        except Exception as error:  # noqa: BLE001 - a file can be wrong in every way
            raise Refused(f"{self.submission.name} is not a model: {error}") from None
        check_closed(model, self.benchmark.model)

    def _sitting(self, entrant: Entrant, log: dict[str, Any], rng: np.random.Generator) -> None:
        """Play all scenarios in two fresh processes, the first time after an accuracy run."""
        benchmark, limit = self.benchmark, self.settings.call_limit_s
        about = {
            "memory_mb": self.settings.memory_limit_mb,
            # The reference player too: whatever confining costs, it costs both.
            "confine": entrant.code is not None,
            "reference": str(self.reference),
        }
        setup = Frame(about, np.zeros_like(benchmark.inputs[:1]))
        reference = Entrant("the reference model", self.reference.parent, self.reference)
        with (
            on_one_cpu(rng),
            PlayerProcess(entrant, setup, limit) as own,
            PlayerProcess(reference, setup, limit) as other,
        ):
            other.load()
            self.confinement = own.load()
            pair = Pair(own, other)
            if not log["sittings"]:
                log["accuracy"] = accuracy_run(pair, benchmark, rng)
                self.quality = quality_of(benchmark.event, log)
                self._check_floor(self.quality)
            phases = {}
            for scenario in benchmark.event.scenarios:
                phase = performance_run(pair, benchmark, scenario, self.settings, rng).record()
                check_outputs(benchmark.event, scenario, [phase])
                phases[scenario.name] = phase
            log["sittings"].append(phases)
            if entrant.kv_cache:
                self.cached_tokens = int(own.describe()["cached_tokens"])

    def _check_floor(self, quality: Quality) -> None:
        if not quality.met:
            event = self.benchmark.event
            own, floor, given = (
                figure(each, event) for each in (quality.submission, quality.floor, quality.reference)
            )
            has = own if event.is_text else f"an accuracy of {own}"
            raise Refused(
                f"{self.submission.name} has {has} where the floor is {floor}: the reference model has "
                f"{given} on the same fresh inputs"
            )

    def _badges(self) -> tuple[str, ...]:
        if self.submission.code is not None:
            return ()  # what code does with a file cannot be verified
        with contextlib.suppress(Exception):  # what cannot be inspected is not verified
            path, benchmark = self.folder / WEIGHTS, self.benchmark
            artefact = inspect_artefact(path, benchmark.model, benchmark.inputs[:4])
            return badges_of(artefact, self.cached_tokens)
        return ()


def _silent(_text: str) -> None:
    pass
