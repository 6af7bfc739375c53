"""A score that others quote, and what is wrong with it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Counterexample:
    """Two models that the efficiency score puts in the wrong order.

    Attributes:
        better, worse: speedup, compression and accuracy change of each.
        better_score, worse_score: what the score says of them.
        why: what is wrong.
    """

    better: tuple[float, float, float]
    worse: tuple[float, float, float]
    better_score: float
    worse_score: float
    why: str

    @classmethod
    def of(
        cls, better: tuple[float, float, float], worse: tuple[float, float, float], why: str
    ) -> Counterexample:
        """Return the two models with their scores."""
        return cls(better, worse, efficiency_score(*better), efficiency_score(*worse), why)


def efficiency_score(speedup: float, compression: float, accuracy_change: float) -> float:
    """Return TinyTorch's score, (speedup x compression) / (1 + |accuracy change|), as it is defined there.

    It is shown because others quote it, and nothing here is ranked by it: see `counterexamples`.

    Args:
        speedup: baseline time over optimised time.
        compression: baseline bytes over optimised bytes.
        accuracy_change: as a fraction, 0.01 for one point.
    """
    return speedup * compression / (1 + abs(accuracy_change))


def counterexamples() -> tuple[Counterexample, ...]:
    """Return models of which the worse one has the higher efficiency score."""
    return (
        Counterexample.of(
            (4.0, 4.0, 0.0),
            (6.0, 6.0, -0.88),
            "of ten classes 98 % were right and now 10 %, as by guessing: all accuracy is lost, the score "
            "divides by no more than 2, and speed and size outweigh it",
        ),
        Counterexample.of(
            (2.0, 2.0, 0.03),
            (2.0, 2.0, 0.0),
            "equally fast and equally small, one is more accurate: the absolute value punishes the gain",
        ),
        Counterexample.of(
            (2.0, 2.0, 0.03),
            (2.0, 2.0, -0.02),
            "equally fast and equally small, one gained accuracy and one lost it: the one that lost wins",
        ),
    )
