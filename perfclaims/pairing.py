"""Randomised interleaved pairs over rebuilt instances: from two implementations to raw paired samples."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from perfclaims import plan as planning
from perfclaims.conditions import collect_if_piled_up
from perfclaims.evidence import PairedSamples, PairingPlan
from perfclaims.instances import Instance, Side, Source
from perfclaims.outputs import Tolerance
from perfclaims.ratio import decided
from perfclaims.tally import OutputTally

# Calls this short are repeated to calibrate; samples this short are preceded by an untimed call on each visit,
# because the instances visited in between have pushed their data out of the caches.
_REPEAT_BELOW_NS = 20_000_000
_WARM_BELOW_NS = 3_000_000
# Untimed baseline calls that check a batched optimised side's other outputs, for this long per sample.
_EXTRA_CHECKS_NS = 20_000_000
# A single instance needs six pairs for an interval in the last round, too.
_LAST_PAIRS_SINGLE = 8
# Of the time that is left, a third is kept for what cannot be foreseen.
_TIME_MARGIN = 1.5

_SIDES = ("baseline", "optimized")

Row = tuple[int, bool, int, int]


@dataclass
class PairingRun:
    """What a measurement has produced so far; filled pass by pass."""

    plan: PairingPlan
    tallies: Sequence[OutputTally]
    first_call_ns: tuple[int, int]
    rows: list[Row] = field(default_factory=list)
    last_rows: list[Row] = field(default_factory=list)
    last_calls: tuple[int, int] = (1, 1)
    looks_taken: int = 0
    decided_early: bool = False
    stop_reason: str = "interrupted"
    arguments_changed: str | None = None
    warnings: list[str] = field(default_factory=list)
    pairing_ns: int = 0
    last_round_ns: int = 0

    @property
    def samples(self) -> PairedSamples:
        """The timed pairs so far, in execution order."""
        return as_samples(self.rows)

    def warn(self, *messages: str) -> None:
        """Keep each message once."""
        self.warnings.extend(message for message in messages if message not in self.warnings)


def as_samples(rows: Sequence[Row]) -> PairedSamples:
    """Columns of (instance, optimized_first, baseline_ns, optimized_ns) rows."""
    table = np.array(rows, dtype=np.int64).reshape(len(rows), 4)
    return PairedSamples(table[:, 0], table[:, 1].astype(bool), table[:, 2], table[:, 3])


class Pairing:
    """One comparison in the making.

    Args:
        source: builds the instances.
        budget_s: seconds of timing; set-up, output checks and the last round come on top.
        confidence: of the interval.
        thresholds: speedups that can change the verdict; without any there are no early looks.
        tolerances: under each of these the outputs are compared; none: they are not.
        seed: of order and coins.
        time_left: seconds until the caller must be done.
        on_pass: called after every complete pass with the run so far, never while timing.
        clock: nanoseconds, monotonic; tests replace it.
    """

    def __init__(
        self,
        source: Source,
        *,
        budget_s: float,
        confidence: float = 0.95,
        thresholds: Sequence[float] = (),
        tolerances: Sequence[Tolerance] = (),
        seed: int = 0,
        time_left: Callable[[], float] = lambda: math.inf,
        on_pass: Callable[[PairingRun], None] = lambda run: None,
        clock: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        self._source = source
        self._budget_s = budget_s
        self._confidence = confidence
        self._thresholds = thresholds
        self._tallies = [OutputTally(tolerance) for tolerance in tolerances]
        self._random = random.Random(f"pairs {seed}")  # noqa: S311 - coins of an experiment, not secrets
        self._time_left = time_left
        self._on_pass = on_pass
        self._clock = clock
        self._instances: list[Instance] = []
        self._position = 0
        self._slow = False
        self._run: PairingRun  # made when the first instance is calibrated

    def run(self) -> PairingRun:
        """Build, check, time in passes, and end with a round on new arguments.

        Raises whatever an implementation raises, with a note that names it.
        """
        self._start()
        for step in (self._build_others, self._passes, self._last_round):
            if self._run.arguments_changed:
                # From here on the two sides would not do the same work.
                self._run.stop_reason = "arguments changed"
                break
            step()
        return self._run

    # -- set-up ---------------------------------------------------------------------------------------------

    def _start(self) -> None:
        """Build the first instance, check it, calibrate on it, and lay out the rest."""
        first = self._source.build(0)
        self._instances.append(first)
        first_call_ns, _, changed = self._check(first)
        optimized_first, *durations = self._pair(first.baseline, first.optimized, 0)
        self._slow = max(durations) > planning.SLOW_CALL_NS
        call_ns = [self._calibrated(first, name, ns) for name, ns in zip(_SIDES, durations, strict=True)]
        calls = planning.calls_per_sample(*call_ns)
        pair_ns = calls[0] * call_ns[0] + calls[1] * call_ns[1]
        plan = planning.make_plan(
            calls,
            pair_ns,
            budget_s=self._budget_s,
            rebuilt=self._source.rebuilt,
            confidence=self._confidence,
            thresholds=self._thresholds,
            affordable_pairs=self._affordable_pairs(pair_ns),
        )
        self._run = PairingRun(plan, self._tallies, first_call_ns, arguments_changed=changed)
        self._run.warn(*first.batch(*calls, plan.instances))
        if self._slow:
            self._keep_checked(0, first, optimized_first, durations)

    def _calibrated(self, instance: Instance, name: str, single_ns: int) -> float:
        """Nanoseconds per call of one side: the least of three samples long enough for the clock."""
        if single_ns > _REPEAT_BELOW_NS:
            return single_ns
        side: Side = getattr(instance, name)
        least: float = min(single_ns, side.sample(0), side.sample(0))
        if least < planning.SAMPLE_NS / 2:
            # The clock itself takes part of so short a call: time many.
            calls = round(planning.SAMPLE_NS / max(least, 1))
            instance.batch(calls, calls, planning.INSTANCES)
            least = min(side.sample(position) for position in range(3)) / calls
        return max(least, 0.1)

    def _build_others(self) -> None:
        run = self._run
        for index in range(1, run.plan.instances):
            instance = self._source.build(index)
            self._instances.append(instance)
            run.warn(*instance.batch(run.plan.baseline_calls, run.plan.optimized_calls, run.plan.instances))
            durations, optimized_first, changed = self._check(instance)
            run.arguments_changed = run.arguments_changed or changed
            if self._slow:
                self._keep_checked(index, instance, optimized_first, durations)

    def _keep_checked(
        self, index: int, instance: Instance, optimized_first: bool, durations: Sequence[int]
    ) -> None:
        """Slow calls are too dear to be made for an output check alone: they are an instance's first pair.

        A side whose samples are batches of calls is quick: it gets a sample of its own.
        """
        plan = self._run.plan
        baseline_ns, optimized_ns = durations
        if plan.baseline_calls > 1:
            baseline_ns = instance.baseline.sample(1)
        if plan.optimized_calls > 1:
            optimized_ns = instance.optimized.sample(1)
        self._run.rows.append((index, optimized_first, baseline_ns, optimized_ns))
        self._run.pairing_ns += baseline_ns + optimized_ns

    def _check(self, instance: Instance) -> tuple[tuple[int, int], bool, str | None]:
        """Call both sides in random order and compare: durations, who was first, who changed arguments."""
        optimized_first = bool(self._random.getrandbits(1))
        durations, outputs, changed = {}, {}, None
        for name in reversed(_SIDES) if optimized_first else _SIDES:
            side: Side = getattr(instance, name)
            durations[name], outputs[name] = side.call()
            if changed is None and instance.arguments_changed():
                who = "baseline" if name == "baseline" else "optimised"
                changed = f"the {who} implementation changed its arguments"
        for tally in self._tallies:
            tally.add(outputs["baseline"], outputs["optimized"], after=False)
        return (durations["baseline"], durations["optimized"]), optimized_first, changed

    # -- timing ---------------------------------------------------------------------------------------------

    def _passes(self) -> None:
        """Complete passes over all instances until a look decides or the budget is used."""
        run, plan = self._run, self._run.plan
        done = 1 if self._slow else 0
        groups = 0 if self._slow else planning.first_pass_groups(plan)
        if not plan.rebuilt:
            affordable = self._affordable_pairs(plan.pair_ns) / plan.group_size
            groups = max(1 - done, int(min(groups or planning.fewest_groups(plan) - done, affordable)))
        while True:
            if groups:
                self._pass(groups)
                done += groups
            if self._look():
                run.stop_reason = "decided early"
                break
            left = self._groups_left(done)
            groups = planning.next_pass_groups(plan, done, run.looks_taken, left)
            if groups == 0:
                run.stop_reason = self._ending(done)
                break
            self._between_passes()
        self._on_pass(run)

    def _pass(self, groups: int) -> None:
        start = self._clock()
        plan = self._run.plan
        order = self._random.sample(range(len(self._instances)), len(self._instances))
        sample_ns = plan.pair_ns / 2
        warm = plan.rebuilt and (
            sample_ns < _WARM_BELOW_NS or (not self._run.rows and sample_ns < _REPEAT_BELOW_NS)
        )
        for index in order:
            instance = self._instances[index]
            if warm:
                for side in self._random.sample((instance.baseline, instance.optimized), 2):
                    side.sample(self._position)
            self._visit(index, instance.baseline, instance.optimized, groups * plan.group_size)
        self._run.pairing_ns += self._clock() - start

    def _visit(self, index: int, baseline: Side, optimized: Side, pairs: int) -> None:
        keep, pair, start = self._run.rows.append, self._pair, self._position + 1
        for position in range(start, start + pairs):
            keep((index, *pair(baseline, optimized, position)))
        self._position += pairs

    def _pair(self, baseline: Side, optimized: Side, position: int) -> tuple[bool, int, int]:
        """One sample of each side, in the order of a fresh coin: alternation can fall in step with a scheduler."""
        if self._random.getrandbits(1):
            optimized_ns = optimized.sample(position)
            return True, baseline.sample(position), optimized_ns
        return False, baseline.sample(position), optimized.sample(position)

    def _look(self) -> bool:
        """Spend one look after a complete pass; True when it decides."""
        run = self._run
        if run.looks_taken < run.plan.looks:
            run.looks_taken += 1
            run.decided_early = decided(run.samples, run.plan)
        return run.decided_early

    def _groups_left(self, done: int) -> float:
        """Groups per instance that fit into what is left of budget and time."""
        group_ns = max(self._run.pairing_ns, 1) / done
        budget_ns = self._budget_s * 1e9 - self._run.pairing_ns
        time_ns = self._time_left() * 1e9 / _TIME_MARGIN - self._run.plan.pair_ns
        return min(budget_ns, time_ns) / group_ns

    def _affordable_pairs(self, pair_ns: float) -> float:
        """Pairs that the time limit allows beside the one of the last round."""
        return max(1.0, self._time_left() * 1e9 / (_TIME_MARGIN * pair_ns) - 1)

    def _ending(self, done: int) -> str:
        plan = self._run.plan
        units = plan.instances if plan.rebuilt else done
        needed = planning.fewest_groups(plan)
        if units < needed:
            seconds = needed * plan.pair_ns / 1e9
            self._run.warn(
                f"{units} pairs are too few for an interval at {plan.confidence:.3g}: {needed} are needed, about "
                f"{seconds * _TIME_MARGIN:.3g} s; raise the time limit"
            )
            return "too few pairs"
        return "enough pairs" if done >= planning.most_groups(plan) else "budget used"

    def _between_passes(self) -> None:
        """Untimed: notice changed arguments, draw new ones, collect garbage, tell the caller."""
        for instance in self._instances:
            self._renew(instance)
        collect_if_piled_up()
        self._on_pass(self._run)

    def _renew(self, instance: Instance) -> None:
        if instance.arguments_changed():
            changed = "an implementation changed its arguments while it was timed"
            self._run.arguments_changed = self._run.arguments_changed or changed
        self._run.warn(*instance.redraw())

    # -- the last round -------------------------------------------------------------------------------------

    def _last_round(self) -> None:
        """Each set of arguments once, drawn anew and without warm-up; every output is compared."""
        run = self._run
        start = self._clock()
        run.last_calls = self._instances[0].last_calls()
        order = self._random.sample(range(len(self._instances)), len(self._instances))
        for index in order[:1] if self._slow else order:
            instance = self._instances[index]
            pairs = self._last_pairs(instance)
            while pairs > 0:
                self._renew(instance)
                for position in range(min(pairs, instance.positions())):
                    self._last_pair(index, instance, position)
                pairs -= instance.positions()
            if instance.arguments_changed():
                run.arguments_changed = "an implementation changed its arguments on the last round"
        run.last_round_ns = self._clock() - start

    def _last_pairs(self, instance: Instance) -> int:
        """Pairs of one instance: as many as its arguments last for, within a quarter of the budget."""
        plan = self._run.plan
        if self._slow or not self._source.fresh_arguments:
            return 1
        if not plan.rebuilt:
            return _LAST_PAIRS_SINGLE
        share = 0.25 * plan.budget_s * 1e9 / (plan.instances * plan.pair_ns)
        return max(1, min(instance.positions(), int(share)))

    def _last_pair(self, index: int, instance: Instance, position: int) -> None:
        optimized_first = bool(self._random.getrandbits(1))
        if optimized_first:
            optimized_ns, actual = instance.optimized.last_sample(position)
            baseline_ns, expected = instance.baseline.last_sample(position)
        else:
            baseline_ns, expected = instance.baseline.last_sample(position)
            optimized_ns, actual = instance.optimized.last_sample(position)
        self._run.last_rows.append((index, optimized_first, baseline_ns, optimized_ns))
        if not self._tallies:
            return
        for wanted, got in self._output_pairs(instance, position, expected, actual):
            for tally in self._tallies:
                tally.add(wanted, got, after=True)

    def _output_pairs(
        self, instance: Instance, position: int, expected: list[object], actual: list[object]
    ) -> list[tuple[object, object]]:
        """What each side made of the same arguments; a batched side's surplus as far as checking it is cheap."""
        pairs = list(zip(expected, actual, strict=False))
        surplus = list(range(len(expected), len(actual)))
        self._random.shuffle(surplus)
        stop = self._clock() + _EXTRA_CHECKS_NS
        for which in surplus:
            pairs.append((instance.baseline.output(position, which), actual[which]))
            if self._clock() > stop:
                break
        return pairs
