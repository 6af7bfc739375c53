"""How many calls, pairs and instances a comparison gets: pure arithmetic on calibrated durations."""

from __future__ import annotations

import math
from collections.abc import Sequence

from perfclaims.evidence import PairingPlan
from perfclaims.statistics import samples_needed

# Short enough that both sides of a pair see the same machine, long enough for the clock (70 ns steps here):
# batches of 3 ms in place of single calls cost a factor of 13 in resolution.
SAMPLE_NS = 20_000
# A side more than `EQUAL_UNTIL` times faster is batched to this at most, not to the length of the slower one.
FAST_SIDE_NS = 1_000_000
EQUAL_UNTIL = 3.0
# Beyond this a call is slow: its first pair is also its output check and the last round is one pair.
SLOW_CALL_NS = 100_000_000
# Rebuilt instances: intervals over fewer than 8 cover 82 to 83 % instead of 95, and more narrow them slowly.
INSTANCES = 10
LOOKS = 5
SHARE_OF_ALPHA = 0.2
# The sign interval of one instance has as many looks as it has alpha for.
SINGLE_LOOK_ALPHA = 0.002
FIRST_PASS_NS = 30_000_000
# Half of the pairs of a long budget resolve nothing more; they would only swell the run file.
PAIRS_PER_SECOND = 10_000


def calls_per_sample(baseline_ns: float, optimized_ns: float) -> tuple[int, int]:
    """Calls per sample of each side: equal durations while the speeds are within a factor of 3.

    Args:
        baseline_ns, optimized_ns: duration of one call.
    """
    slower = max(baseline_ns, optimized_ns)
    target = max(SAMPLE_NS, slower)
    ratio = slower / min(baseline_ns, optimized_ns)
    if ratio < 1.5:
        calls = max(1, round(target / slower))
        return calls, calls

    def calls_of(call_ns: float) -> int:
        limit = target if ratio <= EQUAL_UNTIL or call_ns == slower else min(target, FAST_SIDE_NS)
        return max(1, round(limit / call_ns))

    return calls_of(baseline_ns), calls_of(optimized_ns)


def calls_in_last_round(calls: tuple[int, int], call_ns: Sequence[float]) -> tuple[int, int]:
    """Calls per sample of each side on new arguments: as in the passes, but one where calls are long.

    The first of a batch finds colder caches than the others, so a batch must not be shorter than it was; of
    calls beyond `FAST_SIDE_NS` that does not count.

    Args:
        calls: calls per sample in the passes.
        call_ns: duration of one call of each side.
    """
    enough = [max(1, math.ceil(FAST_SIDE_NS / ns)) for ns in call_ns]
    return min(calls[0], enough[0]), min(calls[1], enough[1])


def make_plan(
    calls: tuple[int, int],
    pair_ns: float,
    *,
    budget_s: float,
    rebuilt: bool,
    confidence: float,
    thresholds: Sequence[float] = (),
    affordable_pairs: float = math.inf,
    most_instances: int | None = None,
) -> PairingPlan:
    """Lay out a comparison.

    Args:
        calls: calls per sample of each side.
        pair_ns: duration of one pair (one sample of each side).
        budget_s: seconds of timing asked for; exceeded where fewer pairs would give no interval.
        rebuilt: whether instances can be built anew.
        confidence: of the interval.
        thresholds: speedups that can change the verdict.
        affordable_pairs: pairs that the claim's time limit allows at most.
        most_instances: instances that there is room for; None: as many as are wanted.
    """
    needed = samples_needed(confidence)
    fit = budget_s * 1e9 / pair_ns
    pairs = min(max(fit, needed), affordable_pairs)
    wanted = max(INSTANCES, needed) if rebuilt else 1
    instances = max(1, min(wanted, int(pairs), most_instances or wanted)) if rebuilt else 1
    # Three pairs per instance are the knee (10 ms calls: 6.6 % resolved with one, 1.0 % with three); only
    # beyond them does the minimum of two pay.
    group_size = 2 if min(fit, affordable_pairs) >= 6 * wanted else 1
    look_alpha = 2.0 ** (1 - instances) if rebuilt else SINGLE_LOOK_ALPHA
    allowance = SHARE_OF_ALPHA * (1.0 - confidence)
    looks = min(LOOKS, int(allowance / look_alpha + 1e-9)) if thresholds else 0
    if rebuilt and min(fit, affordable_pairs) < 2 * instances * group_size:
        # After the only pass an early look would see what the final interval sees, and cost it some width.
        looks = 0
    return PairingPlan(
        baseline_calls=calls[0],
        optimized_calls=calls[1],
        group_size=group_size,
        instances=instances,
        rebuilt=rebuilt,
        confidence=confidence,
        thresholds=tuple(sorted(thresholds)),
        looks=looks,
        look_alpha=look_alpha,
        budget_s=budget_s,
        pair_ns=pair_ns,
    )


def most_groups(plan: PairingPlan) -> int:
    """Groups per instance that a comparison takes at most, whatever its budget leaves."""
    pairs = PAIRS_PER_SECOND * max(1.0, plan.budget_s)
    return max(1, int(pairs / (plan.instances * plan.group_size)))


def fewest_groups(plan: PairingPlan) -> int:
    """Instances, or groups of a single instance, without which there is no interval."""
    return samples_needed(1.0 - plan.final_alpha)


def first_pass_groups(plan: PairingPlan) -> int:
    """Groups per instance in the first pass: about 30 ms in all, so that easy claims are decided there."""
    per_group = plan.instances * plan.group_size * plan.pair_ns
    if plan.rebuilt:
        return max(1, min(5, int(FIRST_PASS_NS / per_group)))
    # The sign interval at the level of a look exists from here on; a slow call gets just the fewest groups.
    for_a_look = samples_needed(1 - SINGLE_LOOK_ALPHA) + 2
    return max(fewest_groups(plan), min(for_a_look, int(plan.budget_s * 1e9 / per_group)))


def next_pass_groups(plan: PairingPlan, done: int, looks_taken: int, left: float) -> int:
    """Groups per instance in the next pass, 0 when the measurement is complete.

    Passes grow so that the looks are spread evenly, on a logarithmic scale, over what the budget allows.

    Args:
        done: groups per instance so far.
        looks_taken: early looks spent.
        left: groups per instance that still fit in the budget.
    """
    left = min(left, most_groups(plan) - done)
    if left < 1:
        return 0
    looks_left = plan.looks - looks_taken
    if looks_left <= 0:
        return int(left)
    growth = max(2.0, ((done + left) / done) ** (1 / (looks_left + 1)))
    groups = max(1, int(done * (growth - 1)))
    return int(left) if left < 1.5 * groups else groups
