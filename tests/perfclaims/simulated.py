"""A machine without a clock of its own: sides that take a known time, on a noisy computer that is made up."""

import math
import random
from dataclasses import dataclass, field

from perfclaims.evidence import Timing
from perfclaims.pairing import Pairing
from perfclaims.pairing_run import as_samples
from perfclaims.ratio import analyse

MS = 1e6
SECOND = 1e9


class Machine:
    """Time passes when work is done: jitter, regimes of speed, and bursts of heavy-tailed interruptions.

    Attributes:
        spent: every piece of work as (start, duration in ns).
    """

    def __init__(self, seed=0, noisy=True):
        self.now = 1e9
        self._random = random.Random(f"machine {seed}")
        self._noisy = noisy
        self._regime_ends = self._interrupted_at = self._burst_ends = 0.0
        self._factor, self._gap = 1.0, 5 * MS

    def clock(self):
        return int(self.now)

    def rest(self, ns):
        self.now += ns

    def work(self, ns):
        """How long so much work takes now."""
        took = ns * self._speed() if self._noisy else ns
        while self._noisy and self._interrupted_at < self.now + took:
            if self._interrupted_at > self.now:
                # Others run for 20 us or, rarely, for as long as 8 ms.
                took += min(8 * MS, 20_000 * self._random.paretovariate(1.1))
            self._interrupted_at = max(self.now, self._interrupted_at) + self._random.expovariate(
                1 / self._gap
            )
        took = max(1, round(took))
        self.now += took
        return took

    def _speed(self):
        if self.now > self._regime_ends:
            self._regime_ends = self.now + self._random.expovariate(1 / (40 * MS))
            self._factor = self._random.choice([1.0, 1.0, 1.02, 1.3])
        if self.now > self._burst_ends:
            self._burst_ends = self.now + self._random.expovariate(1 / (30 * MS))
            self._gap = self._random.choice([10 * MS, 10 * MS, 0.4 * MS])
        return self._factor * (1 + abs(self._random.gauss(0, 0.003)))


@dataclass
class Side:
    """Takes `call_ns` a call; what it answers is fixed."""

    machine: Machine
    call_ns: float
    output: object = 1.0
    calls: int = 1
    last_calls: int = 1
    sampled: list = field(default_factory=list)

    def call(self):
        return self.machine.work(self.call_ns), self.output

    def sample(self, position):
        self.machine.rest(250)
        self.sampled.append(position)
        return self.machine.work(self.call_ns * self.calls)

    def last_sample(self, position):
        return self.machine.work(self.call_ns * self.last_calls), self.output

    def last_output(self, position, which):
        self.machine.work(self.call_ns)
        return self.output


class Instance:
    def __init__(self, baseline, optimized, machine, drawing_ns):
        self.baseline, self.optimized = baseline, optimized
        self._machine = machine
        self._drawing_ns = drawing_ns

    def batch(self, baseline_calls, optimized_calls, instances):
        self._machine.rest(self._drawing_ns)
        self.baseline.calls, self.optimized.calls = baseline_calls, optimized_calls
        return []

    def lay_out_last(self, baseline_calls, optimized_calls):
        self.baseline.last_calls, self.optimized.last_calls = baseline_calls, optimized_calls
        return baseline_calls, optimized_calls

    def arguments_changed(self, *, first_only=False):
        return False

    def redraw(self):
        self._machine.rest(self._drawing_ns)
        return []

    def prepare_last(self):
        return []

    def write_last(self):
        self._machine.rest(self._drawing_ns)
        return []


class Source:
    """Instances of known speeds, with effects of memory layout that are symmetric in the logarithm."""

    def __init__(
        self,
        machine,
        baseline_ns,
        speedup,
        *,
        layout=0.01,
        seed=0,
        rebuilt=True,
        building_ns=0.0,
        drawing_ns=0.0,
        room_for=math.inf,
    ):
        self.rebuilt = rebuilt
        self.fresh_arguments = True
        self.built = []
        self._machine = machine
        self._call_ns = (baseline_ns, baseline_ns / speedup)
        self._layout = layout
        self._random = random.Random(f"layout {seed}")
        self._building_ns = building_ns
        self._drawing_ns = drawing_ns
        self._room_for = room_for

    def build(self, index):
        self._machine.rest(self._building_ns)
        sides = [
            Side(self._machine, ns * math.exp(self._random.gauss(0, self._layout))) for ns in self._call_ns
        ]
        self.built.append(Instance(*sides, self._machine, self._drawing_ns))
        return self.built[-1]

    def has_room(self):
        return len(self.built) < self._room_for


def measured(source, machine, *, budget_s=0.25, limit_s=math.inf, **options):
    """Run a whole comparison on the made-up machine."""
    deadline = machine.now + limit_s * SECOND
    pairing = Pairing(
        source,
        budget_s=budget_s,
        time_left=lambda: (deadline - machine.now) / SECOND,
        clock=machine.clock,
        **options,
    )
    return pairing.run()


def simulated(speedup, seed, *, baseline_ns=0.3 * MS, layout=0.01, rebuilt=True, **options):
    """Compare two sides of a known speedup: what was run, and its analysis."""
    machine = Machine(seed)
    source = Source(machine, baseline_ns, speedup, layout=layout, seed=seed, rebuilt=rebuilt)
    run = measured(source, machine, seed=seed, **options)
    return run, analyse(as_timing(run))


def as_timing(run):
    return Timing(
        label=None,
        baseline="a",
        optimized="b",
        plan=run.plan,
        samples=run.samples,
        last_round=as_samples(run.last_rows) if run.last_rows else None,
        last_calls=run.last_calls,
        fresh_arguments=True,
        decided_early=run.decided_early,
        looks_taken=run.looks_taken,
        stop_reason=run.stop_reason,
        outputs=(),
        arguments_changed=run.arguments_changed,
        first_call_ns=run.first_call_ns,
        setup_s=0.0,
        pairing_s=run.pairing_ns / 1e9,
        last_round_s=run.last_round_ns / 1e9,
        elapsed_s=0.0,
        threads=1,
        cpu=None,
        seed=0,
    )
