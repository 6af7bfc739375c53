"""Evidence with a planted truth, made without a clock, for the tests of judging, keeping and showing."""

import numpy as np

from perfclaims.claims import Claim
from perfclaims.evidence import (
    Evidence,
    Number,
    Outcomes,
    OutputCheck,
    Outputs,
    PairedSamples,
    PairingPlan,
    Scaling,
    Sizes,
    Timing,
)
from perfclaims.outputs import OutputComparison, Tolerance
from perfclaims.records import module_record
from perfclaims.results import ClaimResult, ModuleResult, run_verdict

STRICT = Tolerance()


def around(speedup, spread=0.002, instances=10):
    """Speedups of instances, spread evenly by +-`spread` on the log scale; their centre is `speedup`."""
    return speedup * np.exp(np.linspace(-spread, spread, instances))


def pairs(speedups, *, per_instance=3, baseline_ns=1_000_000, calls=(1, 1)):
    """Pairs of instances that are exactly so much faster, visited round robin; `baseline_ns` is one call."""
    rows = [
        (i, (i + k) % 2, round(baseline_ns * calls[0]), round(baseline_ns / speedup * calls[1]))
        for k in range(per_instance)
        for i, speedup in enumerate(speedups)
    ]
    table = np.array(rows, dtype=np.int64).reshape(-1, 4)
    return PairedSamples(table[:, 0], table[:, 1].astype(bool), table[:, 2], table[:, 3])


def plan(**changes):
    """A plan of ten rebuilt instances without early looks."""
    fields = {
        "baseline_calls": 1,
        "optimized_calls": 1,
        "group_size": 1,
        "instances": 10,
        "rebuilt": True,
        "confidence": 0.95,
        "thresholds": (),
        "looks": 0,
        "look_alpha": 2.0**-9,
        "budget_s": 1.0,
        "pair_ns": 1_500_000.0,
    }
    return PairingPlan(**{**fields, **changes})


def matching(tolerance=STRICT, *, elements=64, relative_l2=1e-7):
    """A check whose outputs agree before and after."""
    same = OutputComparison(
        True, elements, 0, 1e-7, None, relative_l2, False, f"all {elements} elements match"
    )
    return OutputCheck(tolerance, same, same)


def differing(tolerance=STRICT, *, on_new=False, nothing=False):
    """A check whose outputs differ from the start, or only on the arguments of the last round."""
    message = "nothing was returned" if nothing else "3 of 64 elements differ"
    wrong = OutputComparison(False, 64, 3, 0.5, "[1]", 0.25, nothing, message)
    good = matching(tolerance).before
    return OutputCheck(tolerance, good, wrong) if on_new else OutputCheck(tolerance, wrong, wrong)


def timing(speedups=2.0, *, label=None, fresh=None, checks=None, single=False, **changes):
    """A finished comparison.

    Args:
        speedups: of each instance; a single number is spread a little over ten.
        fresh: the same for the last round; None: the callables take no arguments.
        checks: of outputs; None: they match under the strict tolerance.
        single: one instance, whose pairs have the speedups given.
        changes: fields of the plan, or of the Timing.
    """
    speedups = around(speedups) if np.ndim(speedups) == 0 else np.asarray(speedups, dtype=float)
    last = speedups if fresh is None else around(fresh) if np.ndim(fresh) == 0 else np.asarray(fresh)
    of_plan = {name: changes.pop(name) for name in list(changes) if name in PairingPlan.__slots__}
    of_pairs = {name: changes.pop(name) for name in ("per_instance", "baseline_ns") if name in changes}
    made = plan(**{"instances": 1 if single else len(speedups), "rebuilt": not single, **of_plan})
    calls = (made.baseline_calls, made.optimized_calls)

    def samples(values, per_instance):
        made_pairs = pairs(values, **{"per_instance": per_instance, "calls": calls, **of_pairs})
        if not single:
            return made_pairs
        one = np.zeros_like(made_pairs.instance)
        return PairedSamples(one, made_pairs.optimized_first, made_pairs.baseline_ns, made_pairs.optimized_ns)

    fields = {
        "label": label,
        "baseline": "loops",
        "optimized": "arrays",
        "plan": made,
        "samples": samples(speedups, 1 if single else 3),
        "last_round": samples(last, 1),
        "last_calls": calls,
        "fresh_arguments": fresh is not None,
        "decided_early": False,
        "looks_taken": 0,
        "stop_reason": "enough pairs",
        "outputs": (matching(),) if checks is None else tuple(checks),
        "arguments_changed": None,
        "first_call_ns": (1_200_000, 900_000),
        "setup_s": 0.01,
        "pairing_s": 0.05,
        "last_round_s": 0.002,
        "elapsed_s": 0.062,
        "threads": 1,
        "cpu": 1,
        "seed": 12,
    }
    return Timing(**{**fields, **changes})


def outputs(*checks, label=None):
    """Outputs compared without timing."""
    return Outputs(label, checks or (matching(),))


def sizes(baseline, optimized, label=None):
    """Bytes of both sides."""
    return Sizes(label, baseline, optimized)


def outcomes(lost, gained, n, label=None):
    """Answers on n examples, of which the optimised side loses and gains so many."""
    baseline = np.ones(n, dtype=bool)
    baseline[lost : lost + gained] = False
    optimized = np.ones(n, dtype=bool)
    optimized[:lost] = False
    return Outcomes(label, baseline, optimized)


def scaling(exponents=2.0, *, label=None, sizes=(64, 128, 256, 512), samples=3, **changes):
    """Times that grow exactly as size to these exponents, one for each instance."""
    exponents = np.linspace(-0.01, 0.01, 10) + exponents if np.ndim(exponents) == 0 else exponents
    rows = [
        (i, k, round(1e6 * (size / sizes[0]) ** exponent))
        for i, exponent in enumerate(exponents)
        for _ in range(samples)
        for k, size in enumerate(sizes)
    ]
    table = np.array(rows, dtype=np.int64).reshape(-1, 3)
    fields = {
        "label": label,
        "sizes": tuple(float(size) for size in sizes),
        "calls": (1,) * len(sizes),
        "instances": len(exponents),
        "confidence": 0.95,
        "instance": table[:, 0],
        "size_index": table[:, 1],
        "duration_ns": table[:, 2],
        "threads": 1,
        "cpu": None,
        "elapsed_s": 0.2,
    }
    return Scaling(**{**fields, **changes})


def number(name, value, low=None, high=None, label=None, **changes):
    """A named number."""
    return Number(label, name, value, low=low, high=high, **changes)


def rate(name, successes, trials, label=None):
    """A named share of trials; its stored interval is left open, because it follows from the counts."""
    return Number(label, name, successes / trials, None, 0.0, 1.0, successes, trials)


def claim(*criteria, id="study.claim", **changes):  # noqa: A002 - the field's name
    """A claim with these criteria."""
    return Claim(id, "It is as good as they say", "a paper", criteria, **changes)


def result(declared, *pieces, **rest):
    """A claim judged on these pieces."""
    return ClaimResult.of(declared, Evidence(pieces, **rest), 0.25)


def module(*results, name="study", error=None):
    """A module of these results."""
    return ModuleResult(name, name.capitalize(), results, 1.5, error)


def document(*modules, interrupted=False):
    """A run file's content, as the recorder writes it."""
    return {
        "schema": "perfclaims/run/1",
        "run_id": "20260102T030405Z",
        "started_at": "2026-01-02T03:04:05Z",
        "finished_at": None if interrupted else "2026-01-02T03:04:09Z",
        "duration_s": 4.25,
        "interrupted": interrupted,
        "configuration": {
            "budget": "normal",
            "budget_s": 1.0,
            "time_limit_s": 180.0,
            "confidence": 0.95,
            "seed": 0,
        },
        "environment": {
            "python": "CPython 3.11.7",
            "numpy": "2.0.0",
            "blas": [],
            "threads": {"blas": 2},
            "cpu": {"model": None, "flags": None, "cores": {"logical": 2}},
            "memory": {"total_bytes": None},
            "os": {"system": "Linux"},
            "load": {"average": None},
        },
        "code": None,
        "verdict": None if interrupted else run_verdict(modules),
        "modules": [module_record(m, finished=not interrupted) for m in modules],
    }
