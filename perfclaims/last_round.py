"""The round after the last pass: each pair on arguments that nobody has seen, and every output compared.

An answer remembered by the address of its arguments is wrong here, and one remembered by their content slow.
The two sides of a pair get different sets, so that neither finds what the other left behind, and there is one
pair to a drawing, so that no call can do the work of the next.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from perfclaims.pairing_run import PairingRun
from perfclaims.sides import Instance

# Pairs of each instance: three, so that one interruption decides nothing; fewer where they take longer.
_PAIRS = 3
_SHARE_OF_BUDGET = 0.25
_USUAL_NS = 1_000_000_000
_USUAL_BUDGETS = 2.0  # so that a fast run stays fast
# A single instance needs six pairs for an interval.
PAIRS_OF_SINGLE = 8
# Of each instance's first pair, the outputs of all calls are asked for again, for this long; of the others
# only that of the last call is compared.
_ALL_OUTPUTS_NS = 10_000_000
# Arguments that are huge or slow to draw must not keep the reader waiting: then it ends early.
_LONGEST_NS = 10_000_000_000
_IN_LAST_ROUND = "in the last round"


class LastRound:
    """Measures the pairs of the last round and compares their outputs.

    Args:
        run: what was measured so far; gets the rows and the comparisons.
        instances: those of the passes.
        calls: of each side in a sample.
        fresh_arguments: whether there are any.
        warm: whether to call both sides, untimed, before their arguments are overwritten: the code and its
            other data are then in the caches, as in the passes.
        slow: calls are so slow that a single pair must do.
        clock: nanoseconds, monotonic.
        stop: moment on that clock after which no further pair starts.
    """

    def __init__(
        self,
        run: PairingRun,
        calls: tuple[int, int],
        instances: Sequence[Instance],
        *,
        fresh_arguments: bool,
        warm: bool,
        slow: bool,
        coins: random.Random,
        clock: Callable[[], int],
        stop: float,
    ) -> None:
        self._run = run
        self._calls = calls
        self._instances = instances
        self._fresh = fresh_arguments
        self._slow = slow
        self._warm = warm
        self._random = coins
        self._clock = clock
        self._stop = stop

    def measure(self) -> None:
        """Visit all instances in random order, as many times over as there is time for."""
        run = self._run
        start = self._clock()
        budget_ns = run.plan.budget_s * 1e9
        usual = start + max(min(_USUAL_NS, _USUAL_BUDGETS * budget_ns), _SHARE_OF_BUDGET * budget_ns)
        for instance in self._instances:
            run.last_calls = instance.lay_out_last(*self._calls)
        fewest, most = self._rounds()
        for done in range(most):
            if done >= fewest and self._clock() > usual:
                break
            if not self._round(first=done == 0, stop=min(self._stop, start + _LONGEST_NS)):
                break
        self._note_changed(_IN_LAST_ROUND, *self._instances)
        run.last_round_ns = self._clock() - start

    def _round(self, *, first: bool, stop: float) -> bool:
        """One pair of every instance; False when there was no time for all of them."""
        order = self._random.sample(range(len(self._instances)), len(self._instances))
        for index in order[:1] if self._slow else order:
            if self._run.last_rows and self._clock() > stop:
                return False
            instance = self._instances[index]
            self._note_changed("while it was timed" if first else _IN_LAST_ROUND, instance)
            self._renew(instance)
            self._pair(index, all_outputs=first)
        return True

    def _note_changed(self, when: str, *instances: Instance) -> None:
        if any(instance.arguments_changed() for instance in instances):
            self._run.note_changed(f"an implementation changed its arguments {when}")

    def _rounds(self) -> tuple[int, int]:
        if self._slow or not self._fresh:
            return 1, 1
        return (1, _PAIRS) if self._run.plan.rebuilt else (PAIRS_OF_SINGLE, PAIRS_OF_SINGLE)

    def _renew(self, instance: Instance) -> None:
        run = self._run
        if not self._warm:
            run.warn(*instance.redraw())
            return
        run.warn(*instance.prepare_last())
        for side in self._random.sample((instance.baseline, instance.optimized), 2):
            side.sample(0)
        run.warn(*instance.write_last())

    def _pair(self, index: int, *, all_outputs: bool) -> None:
        instance = self._instances[index]
        # Slow calls share a set, because another call for the comparison is dear.
        apart = self._fresh and not self._slow
        positions = self._random.sample((0, 1), 2) if apart else [0, 0]
        optimized_first = bool(self._random.getrandbits(1))
        if optimized_first:
            optimized_ns, actual = instance.optimized.last_sample(positions[1])
            baseline_ns, expected = instance.baseline.last_sample(positions[0])
        else:
            baseline_ns, expected = instance.baseline.last_sample(positions[0])
            optimized_ns, actual = instance.optimized.last_sample(positions[1])
        self._run.last_rows.append((index, optimized_first, baseline_ns, optimized_ns))
        if not self._run.tallies:
            return
        baseline_calls, optimized_calls = self._run.last_calls
        if self._fresh and (apart or baseline_calls != optimized_calls):
            stop = self._clock() + (_ALL_OUTPUTS_NS if all_outputs else 0)
            position, last = positions[1], optimized_calls - 1
            self._compare(instance.baseline.last_output(position, last), actual)
            for which in self._random.sample(range(last), last):
                if self._clock() > stop:
                    break
                self._compare(
                    instance.baseline.last_output(position, which),
                    instance.optimized.last_output(position, which),
                )
        else:
            self._compare(expected, actual)

    def _compare(self, expected: object, actual: object) -> None:
        for tally in self._run.tallies:
            tally.add(expected, actual, after=True)
