"""Randomised interleaved pairs over rebuilt instances: from two implementations to raw paired samples."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

from perfclaims import plan as planning
from perfclaims.calibration import call_durations
from perfclaims.conditions import collect_if_piled_up
from perfclaims.evidence import PairingPlan
from perfclaims.last_round import LastRound
from perfclaims.outputs import Tolerance
from perfclaims.pairing_run import PairingRun
from perfclaims.ratio import decided
from perfclaims.sides import Instance, Side, Source
from perfclaims.tally import OutputTally
from perfclaims.time_allowance import MARGIN, TimeAllowance

# Samples this short are preceded by an untimed one on each visit, because the instances visited in between
# have pushed their data out of the caches.
_WARM_BELOW_NS = 3_000_000
# A slow first call this many times slower than the second is no sample of what a call takes.
_COLD = 1.5
# A pass that takes this many times what was calibrated was disturbed: on a quiet machine it is 1.0 to 1.3.
_DISTURBED = 1.5

_SIDES = ("baseline", "optimized")


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
        on_pass: called after every complete pass with the run so far, and after every pair of a slow first
            pass; never while timing.
        setting_up: entered around building, and around the first calls ever.
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
        setting_up: Callable[[], AbstractContextManager[None]] = nullcontext,
        clock: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        self._source = source
        self._budget_s = budget_s
        self._confidence = confidence
        self._thresholds = thresholds
        self._tallies = [OutputTally(tolerance) for tolerance in tolerances]
        self._random = random.Random(f"pairs {seed}")  # noqa: S311 - coins of an experiment, not secrets
        self._time = TimeAllowance(time_left)
        self._on_pass = on_pass
        self._setting_up = setting_up
        self._clock = clock
        self._instances: list[Instance] = []
        self._position = 0
        self._remedy = "raise the time limit"
        self._last_calls = (1, 1)
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

    def _start(self) -> None:
        """Build the first instance, check it, and calibrate on it."""
        with self._setting_up():
            first = self._source.build(0)
            self._instances.append(first)
            first.batch(1, 1, planning.INSTANCES)
            first_ns, _, changed = self._check(first)
        # On other arguments than the first: an answer that is remembered would look like a quick call.
        optimized_first, *second_ns = self._pair(first.baseline, first.optimized, 1)
        both_ns = list(zip(first_ns, second_ns, strict=True))
        self._time.slow = max(map(min, both_ns)) > planning.SLOW_CALL_NS
        self._time.check_counts = self._time.slow and all(one < _COLD * two for one, two in both_ns)
        call_ns = call_durations(first, [min(ns) for ns in both_ns], self._random)
        calls = planning.calls_per_sample(*call_ns)
        pair_ns = calls[0] * call_ns[0] + calls[1] * call_ns[1]
        self._time.warm = pair_ns / 2 < _WARM_BELOW_NS
        self._run = PairingRun(self._plan(calls, pair_ns), self._tallies, first_ns)
        self._last_calls = planning.calls_in_last_round(calls, call_ns)
        self._run.note_changed(changed)
        self._batch(first)
        if self._time.check_counts:
            self._keep_checked(0, optimized_first, second_ns)

    def _plan(self, calls: tuple[int, int], pair_ns: float, most_instances: int | None = None) -> PairingPlan:
        return planning.make_plan(
            calls,
            pair_ns,
            budget_s=self._budget_s,
            rebuilt=self._source.rebuilt,
            confidence=self._confidence,
            thresholds=self._thresholds,
            affordable_pairs=self._time.instances(pair_ns),
            most_instances=most_instances,
        )

    def _build_others(self) -> None:
        plan = self._run.plan
        for index in range(1, plan.instances):
            scarce = None
            if not self._source.has_room():
                scarce, self._remedy = "memory", "free memory, or use smaller data"
            elif not self._time.another_instance(plan, index):
                scarce = "time"
            if scarce:
                calls, wanted = (plan.baseline_calls, plan.optimized_calls), plan.instances
                self._run.plan = self._plan(calls, plan.pair_ns, most_instances=index)
                self._run.warn(
                    f"there is {scarce} for {index} instances only, in place of {wanted}; {self._remedy}"
                )
                break
            self._build_another(index)

    def _build_another(self, index: int) -> None:
        start = self._clock()
        with self._setting_up():
            instance = self._source.build(index)
        self._instances.append(instance)
        self._batch(instance)
        durations, optimized_first, changed = self._check(instance)
        self._run.note_changed(changed)
        if self._time.check_counts:
            self._keep_checked(index, optimized_first, durations)
            self._on_pass(self._run)
        self._time.set_up_ns = self._clock() - start

    def _batch(self, instance: Instance) -> None:
        """Lay an instance out as planned; about as long takes it later to draw anew."""
        plan, start = self._run.plan, self._clock()
        self._run.warn(*instance.batch(plan.baseline_calls, plan.optimized_calls, planning.INSTANCES))
        self._time.renewing_ns += self._clock() - start

    def _keep_checked(self, index: int, optimized_first: bool, durations: Sequence[int]) -> None:
        """Slow calls are too dear to be made for an output check alone: they are an instance's first pair.

        A side whose samples are batches of calls is quick: it gets a sample of its own.
        """
        plan, instance = self._run.plan, self._instances[index]
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
            if changed is None and instance.arguments_changed(first_only=True):
                who = "baseline" if name == "baseline" else "optimised"
                changed = f"the {who} implementation changed its arguments"
        for tally in self._tallies:
            tally.add(outputs["baseline"], outputs["optimized"], after=False)
        return (durations["baseline"], durations["optimized"]), optimized_first, changed

    def _passes(self) -> None:
        """Complete passes over all instances until a look decides or the budget is used."""
        run, plan = self._run, self._run.plan
        done = 1 if self._time.check_counts else 0
        groups = planning.first_pass_groups(plan) - done
        if not plan.rebuilt:
            spare = self._time.for_passes_ns(plan) / (plan.group_size * plan.pair_ns)
            groups = max(1 - done, int(min(groups, spare)))
        while True:
            if groups:
                self._pass(groups)
                done += groups
            if self._look():
                run.stop_reason = "decided early"
                break
            groups = planning.next_pass_groups(plan, done, run.looks_taken, self._groups_left(done))
            if groups == 0:
                run.stop_reason = self._ending(done)
                break
            self._between_passes()
        self._on_pass(run)

    def _pass(self, groups: int) -> None:
        start, plan = self._clock(), self._run.plan
        order = self._random.sample(range(len(self._instances)), len(self._instances))
        for index in order:
            instance = self._instances[index]
            if self._time.warm and plan.rebuilt:
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
        """One sample of each side in the order of a coin: a fixed order can fall in step with a scheduler."""
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
        """Groups per instance that fit into what is left of budget and time.

        While other programs slow the machine down the clock runs on; a comparison then gets up to twice its
        budget, so that being disturbed does not also leave it with too few pairs to see through the noise.
        """
        run, plan = self._run, self._run.plan
        group_ns = max(run.pairing_ns, 1) / done
        undisturbed_ns = _DISTURBED * plan.instances * plan.group_size * plan.pair_ns
        budget_ns = self._budget_s * 1e9
        by_budget = budget_ns / min(group_ns, undisturbed_ns) - done
        by_clock = (2 * budget_ns - run.pairing_ns) / group_ns
        return min(by_budget, by_clock, self._time.for_passes_ns(plan) / group_ns)

    def _ending(self, done: int) -> str:
        plan = self._run.plan
        units = plan.instances if plan.rebuilt else done
        needed = planning.fewest_groups(plan)
        if units < needed:
            pairs = needed * (1 if plan.rebuilt else plan.group_size)
            self._run.warn(
                f"{units} {'pair is' if units == 1 else 'pairs are'} too few for an interval: {needed} are "
                f"needed, about {MARGIN * pairs * plan.pair_ns / 1e9:.2g} s beside the set-up; {self._remedy}"
            )
            return "too few pairs"
        return "enough pairs" if done >= planning.most_groups(plan) else "budget used"

    def _between_passes(self) -> None:
        """Untimed: notice changed arguments, draw new ones, collect garbage, tell the caller."""
        start = self._clock()
        for instance in self._instances:
            self._renew(instance)
        collect_if_piled_up()
        self._time.renewing_ns = self._clock() - start
        self._on_pass(self._run)

    def _renew(self, instance: Instance) -> None:
        if instance.arguments_changed():
            self._run.note_changed("an implementation changed its arguments while it was timed")
        self._run.warn(*instance.redraw())

    def _last_round(self) -> None:
        LastRound(
            self._run,
            self._last_calls,
            self._instances,
            fresh_arguments=self._source.fresh_arguments,
            warm=self._time.warm,
            slow=self._time.slow,
            coins=self._random,
            clock=self._clock,
            stop=self._clock() + self._time.left_ns(),
        ).measure()
