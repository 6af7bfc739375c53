"""What happens in a sitting: two players get the same fresh inputs in turn, and their answers are kept."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinytorch.benchmarking.tinymlperf.events import LoadedBenchmark, outputs_of
from tinytorch.benchmarking.tinymlperf.fresh import Array
from tinytorch.benchmarking.tinymlperf.processes import Answer, PlayerProcess, Refused
from tinytorch.benchmarking.tinymlperf.scenarios import Scenario, Settings

#: an accuracy run on texts asks for so many pieces at once, on images for so many images
_ACCURACY_BATCH = {True: 16, False: 256}
# Processor time is counted in hundredths of a second, and the interpreter has some to itself.
_WORK_SHARE, _WORK_S = 1.2, 0.05
# A token that is less than half as likely as the model's own is the start of another text. Texts of the
# reference model are then wrong in 0.7 % of their tokens with INT8 weights, and in 8 % with a fifth of the
# weights pruned, which just keeps the floor. One space after the other is wrong in 86 %; by its own choices
# alone the model, which reads the spaces, would find 5 % wrong.
_ASTRAY = math.log(2)


@dataclass(frozen=True, slots=True)
class Pair:
    """The two players of a sitting."""

    submission: PlayerProcess
    reference: PlayerProcess


@dataclass(slots=True)
class Phase:
    """What a scenario of a sitting recorded; times are nanoseconds for each query of each round.

    Attributes:
        examples: in a query.
        submission_ns, reference_ns: by the players' clocks.
        submission_wall_ns, reference_wall_ns: by the referee's.
        submission_losses, reference_losses: for each example, see `LoadedBenchmark.losses`.
        duration_s: of all rounds.
    """

    examples: int
    submission_ns: list[list[int]] = field(default_factory=list)
    reference_ns: list[list[int]] = field(default_factory=list)
    submission_wall_ns: list[list[int]] = field(default_factory=list)
    reference_wall_ns: list[list[int]] = field(default_factory=list)
    submission_losses: list[float] = field(default_factory=list)
    reference_losses: list[float] = field(default_factory=list)
    duration_s: float = 0.0

    def record(self) -> dict[str, Any]:
        """Return the phase as the log of a submission has it."""
        return {
            "examples": self.examples,
            "duration_s": self.duration_s,
            "losses": {"submission": self.submission_losses, "reference": self.reference_losses},
            "submission_ns": self.submission_ns,
            "reference_ns": self.reference_ns,
            "submission_wall_ns": self.submission_wall_ns,
            "reference_wall_ns": self.reference_wall_ns,
        }


def accuracy_run(pair: Pair, benchmark: LoadedBenchmark, rng: np.random.Generator) -> dict[str, list[float]]:
    """Return the losses of both players on as many fresh inputs as the event has.

    The requests are those of the offline scenario: what is checked here is what is timed there.

    Raises:
        Refused: an answer is no answer.
    """
    inputs, labels = benchmark.fresh(benchmark.accuracy_count, rng)
    losses: dict[str, list[float]] = {"submission": [], "reference": []}
    batch = _ACCURACY_BATCH[benchmark.event.is_text]
    for start in range(0, len(inputs), batch):
        part = slice(start, start + batch)
        expected = pair.reference.ask("predict", inputs[part]).outputs
        given = checked(pair.submission.ask("predict", inputs[part]).outputs, expected, pair)
        losses["reference"] += benchmark.losses(expected, labels[part]).tolist()
        losses["submission"] += benchmark.losses(given, labels[part]).tolist()
    return losses


def performance_run(
    pair: Pair,
    benchmark: LoadedBenchmark,
    scenario: Scenario,
    settings: Settings,
    rng: np.random.Generator,
) -> Phase:
    """Ask both players in rounds, in an order drawn each time, until the sitting's share of time is over.

    Every query of every round is fresh, and both players get the same ones. Two rounds at the start count
    for nothing but their outputs' shapes.

    Raises:
        Refused: an answer is no answer.
    """
    phase = Phase(scenario.batch)
    play = _generate if scenario.task == "generate" else _predict
    for _ in range(2):
        play(pair, benchmark, scenario, Phase(scenario.batch), rng)
    share_s = settings.min_duration_s / settings.sittings
    start, worked = time.monotonic(), pair.submission.cpu_s()
    while len(phase.submission_ns) < settings.min_rounds or time.monotonic() - start < share_s:
        play(pair, benchmark, scenario, phase, rng)
    phase.duration_s = time.monotonic() - start
    check_work(pair.submission.cpu_s() - worked, phase, pair.submission)
    return phase


def check_work(cpu_s: float, phase: Phase, player: PlayerProcess) -> None:
    """Hold a player to one thread, and to work while it is asked: the reference model does no more.

    Raises:
        Refused: it used more processor time than its answers took.
    """
    asked_s = sum(map(sum, phase.submission_wall_ns)) / 1e9
    if cpu_s > _WORK_SHARE * asked_s + _WORK_S:
        raise Refused(
            f"{player.entrant.name} used {cpu_s:.2f} s of processor time for answers that took "
            f"{asked_s:.2f} s: every model has one thread, and works when it is asked"
        )


def _predict(
    pair: Pair, benchmark: LoadedBenchmark, scenario: Scenario, phase: Phase, rng: np.random.Generator
) -> None:
    inputs, labels = benchmark.fresh(scenario.queries * scenario.batch, rng)
    queries = inputs.reshape(scenario.queries, scenario.batch, *inputs.shape[1:])
    given, expected = play_round(pair, phase, lambda p: [p.ask("predict", query) for query in queries], rng)
    for answer, other, start in zip(given, expected, range(0, len(inputs), scenario.batch), strict=True):
        part = labels[start : start + scenario.batch]
        outputs = checked(answer.outputs, other.outputs, pair)
        phase.submission_losses += benchmark.losses(outputs, part).tolist()
        phase.reference_losses += benchmark.losses(other.outputs, part).tolist()


def _generate(
    pair: Pair, benchmark: LoadedBenchmark, scenario: Scenario, phase: Phase, rng: np.random.Generator
) -> None:
    texts = benchmark.prompts(scenario.queries * scenario.batch, scenario.prompt, rng)
    prompts = texts.reshape(scenario.queries, scenario.batch, scenario.prompt)
    new = scenario.new_tokens
    given, expected = play_round(
        pair, phase, lambda p: [p.ask("generate", prompt, new_tokens=new) for prompt in prompts], rng
    )
    for answer, other, prompt in zip(given, expected, prompts, strict=True):
        phase.submission_losses += _disagreements(answer.outputs, prompt, new, benchmark, pair)
        phase.reference_losses += _disagreements(other.outputs, prompt, new, benchmark, pair)


def play_round(
    pair: Pair, phase: Phase, play: Callable[[PlayerProcess], list[Answer]], rng: np.random.Generator
) -> tuple[list[Answer], list[Answer]]:
    """Let both players answer all queries of a round, the one or the other first."""
    if rng.random() < 0.5:
        given = _alone(pair.submission, pair.reference, play)
        expected = _alone(pair.reference, pair.submission, play)
    else:
        expected = _alone(pair.reference, pair.submission, play)
        given = _alone(pair.submission, pair.reference, play)
    phase.submission_ns.append([answer.duration_ns for answer in given])
    phase.reference_ns.append([answer.duration_ns for answer in expected])
    phase.submission_wall_ns.append([answer.wall_ns for answer in given])
    phase.reference_wall_ns.append([answer.wall_ns for answer in expected])
    return given, expected


def _alone(
    player: PlayerProcess, other: PlayerProcess, play: Callable[[PlayerProcess], list[Answer]]
) -> list[Answer]:
    """Let one player play while the other one is stopped."""
    other.pause()
    try:
        return play(player)
    finally:
        other.resume()


def checked(outputs: Array, expected: Array, pair: Pair) -> Array:
    """Return outputs that are all there and finite.

    Raises:
        Refused: they have another shape than the reference model's, are no floats, or NaN or infinite.
    """
    name = pair.submission.entrant.name
    if outputs.shape != expected.shape:
        raise Refused(
            f"{name} returned outputs of shape {outputs.shape} where {expected.shape} are due: none may be "
            "skipped"
        )
    if outputs.dtype.kind != "f":
        raise Refused(f"{name} returned {outputs.dtype} outputs where floats are due")
    missing = int(np.count_nonzero(~np.isfinite(outputs)))
    if missing:
        raise Refused(f"{name} returned {missing} outputs of {outputs.size} that are NaN or infinite")
    return outputs


def _disagreements(
    tokens: Array, prompt: Array, new: int, benchmark: LoadedBenchmark, pair: Pair
) -> list[float]:
    """Return for each text how much of what was written the reference model would not have written."""
    name, (count, length) = pair.submission.entrant.name, prompt.shape
    if tokens.shape != (count, length + new) or tokens.dtype.kind not in "iu":
        raise Refused(
            f"{name} returned {tokens.dtype} of shape {tokens.shape} where whole numbers of shape "
            f"{(count, length + new)} are due: the prompt and {new} new tokens"
        )
    if (tokens[:, :length] != prompt).any():
        raise Refused(f"{name} changed the prompt that it was to continue")
    if tokens.min() < 0 or tokens.max() >= benchmark.model.vocab_size:
        raise Refused(f"{name} returned tokens that do not exist")
    scores = outputs_of(benchmark.model, tokens[:, :-1].astype(np.intp))[:, length - 1 :]
    shares: list[float] = disagreement(scores, tokens[:, length:].astype(np.intp)).tolist()
    return shares


def disagreement(scores: Array, written: Array) -> NDArray[np.float64]:
    """Return for each text the share of its tokens that a model would not have written there.

    The model reads each text as it stands, so one other choice does not make all that follow wrong, unless
    it was less than half as likely as the model's own: whoever repeats one token for ever agrees with a
    model that has read the repetitions.

    Args:
        scores: of the model before each token that was written, shape (n, T, vocabulary).
        written: the tokens, shape (n, T).
    """
    chosen = np.take_along_axis(scores, written[..., None], -1)[..., 0]
    astray = scores.max(axis=-1) - chosen > _ASTRAY
    wrong = (scores.argmax(axis=-1) != written) | np.logical_or.accumulate(astray, axis=1)
    shares: NDArray[np.float64] = wrong.mean(axis=1)
    return shares
