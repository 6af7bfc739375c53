"""The procedure on a made-up machine: known speeds, drift, bursts of interruptions, and no clock."""

from collections import Counter
from contextlib import contextmanager

import numpy as np
import pytest
from scipy.stats import binom, chisquare
from simulated import MS, SECOND, Machine, Source, as_timing, measured, simulated

from perfclaims.outputs import Tolerance
from perfclaims.ratio import analyse


def most_errors(trials, probability=0.05):
    """More errors than this have a chance below one in a thousand when each has the given probability."""
    return int(binom.isf(1e-3, trials, probability))


@pytest.mark.parametrize("speedup", [0.5, 1.0, 1.02, 3.0, 40.0])
def test_the_interval_covers_a_known_speedup_as_often_as_it_says(speedup):
    found = [simulated(speedup, seed)[1] for seed in range(120)]
    missed = sum(ratio.speedup.excludes(speedup) for ratio in found)
    assert missed <= most_errors(120)
    # And it says something: instances differ by 1 % a side, ten of them are known to about 1 %.
    assert np.median([ratio.half_width for ratio in found]) < 0.025


def test_equal_sides_are_called_different_in_at_most_five_of_a_hundred_comparisons():
    for layout in (0.0, 0.03):
        found = [simulated(1.0, seed, layout=layout)[1] for seed in range(200)]
        assert sum(ratio.speedup.excludes(1.0) for ratio in found) <= most_errors(200)


def test_the_interval_of_the_last_round_covers_too():
    for speedup in (1.0, 5.0):
        found = [simulated(speedup, seed)[1] for seed in range(120)]
        missed = sum(ratio.on_new_arguments.excludes(speedup) for ratio in found)
        assert missed <= most_errors(120)


@pytest.mark.parametrize("speedup", [1.02, 2.0])
def test_early_stopping_at_the_boundary_decides_wrongly_in_at_most_five_of_a_hundred(speedup):
    """Whatever is decided about a threshold that is exactly the truth is an error."""
    runs = [simulated(speedup, seed, thresholds=(speedup,)) for seed in range(200)]
    assert sum(ratio.speedup.excludes(speedup) for _, ratio in runs) <= most_errors(200)
    early = sum(run.decided_early for run, _ in runs)
    assert early <= most_errors(200, 0.01)
    assert all(run.looks_taken <= run.plan.looks == 5 for run, _ in runs)


def test_an_early_decision_keeps_what_the_interval_says():
    for truth, threshold in ((1.03, 1.0), (2.06, 2.0)):
        runs = [simulated(truth, seed, thresholds=(threshold,)) for seed in range(150)]
        assert sum(ratio.speedup.excludes(truth) for _, ratio in runs) <= most_errors(150)
        assert sum(ratio.speedup.high < threshold for _, ratio in runs) <= most_errors(150, 0.01)
        # The power that looking is for: most are decided before the budget is used.
        assert sum(run.decided_early for run, _ in runs) > 50


def test_three_times_faster_against_a_claim_of_two_is_decided_in_the_first_pass():
    passes = Counter()
    for seed in range(100):
        seen = []
        run, ratio = simulated(3.0, seed, thresholds=(1.1, 2.0), on_pass=seen.append)
        assert run.decided_early
        assert ratio.speedup.low > 2
        passes[len(seen)] += 1
    assert passes[1] >= 95


def test_a_look_decides_only_when_it_is_clear_of_every_threshold():
    """3x is clear of 2 at once, of 3 never: a look that asked about the first only would stop too soon."""
    runs = [simulated(3.0, seed, thresholds=(2.0, 3.0))[0] for seed in range(20)]
    assert sum(run.decided_early for run in runs) <= 1
    assert all(run.stop_reason == "budget used" for run in runs if not run.decided_early)


def test_every_pass_measures_every_instance_equally_and_in_an_order_of_its_own():
    passes = []

    def keep(run):
        counts = np.bincount(run.samples.instance, minlength=10)
        assert len(set(counts)) == 1
        passes.append(len(run.rows))

    run, _ = simulated(1.0, 3, thresholds=(1.0,), on_pass=keep)
    assert len(passes) >= 4
    orders = []
    for start, stop in zip([0, *passes], passes, strict=False):
        visited = run.samples.instance[start:stop]
        order = visited[np.flatnonzero(np.diff(visited, prepend=-1))]
        assert sorted(order) == list(range(10)), "each instance is visited once in a pass"
        orders.append(tuple(order))
    assert len(set(orders)) == len(orders)


def test_instances_are_visited_in_random_order():
    first = [simulated(3.0, seed, thresholds=(2.0,))[0].samples.instance[0] for seed in range(300)]
    assert chisquare(np.bincount(first, minlength=10)).pvalue > 1e-3


def test_the_coin_of_every_pair_is_fair_and_independent_of_the_one_before():
    coins = np.concatenate([simulated(1.0, seed)[0].samples.optimized_first for seed in range(30)])
    assert len(coins) > 5000
    assert binom.sf(abs(coins.sum() - len(coins) / 2) + len(coins) / 2, len(coins), 0.5) > 5e-4
    signs = 2.0 * coins - 1
    for lag in range(1, 12):
        assert abs(np.mean(signs[lag:] * signs[:-lag])) < 3.5 / np.sqrt(len(coins)), lag


def test_the_coin_is_tossed_for_the_last_round_too():
    coins = [coin for seed in range(40) for _, coin, _, _ in simulated(1.0, seed)[0].last_rows]
    assert len(coins) >= 400
    assert 0.4 < np.mean(coins) < 0.6


def test_another_seed_gives_another_order_and_the_same_seed_the_same():
    rows = [simulated(1.0, seed)[0].rows for seed in (1, 1, 2)]
    assert rows[0] == rows[1] != rows[2]


def test_every_pair_uses_the_next_arguments_on_both_sides():
    machine = Machine(noisy=False)
    source = Source(machine, 5 * MS, 1.0)
    measured(source, machine, budget_s=2.0)
    for instance in source.built[1:]:  # on the first one more was tried out
        assert instance.baseline.sampled == instance.optimized.sampled
        assert len(set(instance.baseline.sampled)) == len(instance.baseline.sampled) > 10


def test_no_sample_is_dropped():
    """One call in a hundred takes 200 times as long: the median does not see it, the mean does."""
    machine = Machine(noisy=False)
    source = Source(machine, 0.3 * MS, 1.0)
    quick, calls = machine.work, []

    def work(ns):
        calls.append(ns)
        return quick(ns * (200 if len(calls) % 101 == 0 else 1))

    machine.work = work
    run = measured(source, machine)
    longest = max(max(row[2:]) for row in run.rows)
    assert longest == pytest.approx(60 * MS, rel=0.1)
    assert analyse(as_timing(run)).baseline_mean_ms > 1.2 * analyse(as_timing(run)).baseline_ms


@pytest.mark.parametrize("call_ns", [200.0, 3_000.0, 40_000.0, 0.5 * MS, 2.4 * MS, 9 * MS, 15 * MS])
@pytest.mark.parametrize("budget_s", [0.25, 1.0])
def test_a_budget_is_used_and_kept(call_ns, budget_s):
    machine = Machine(noisy=False)
    run = measured(Source(machine, call_ns, 1.0), machine, budget_s=budget_s)
    fit = budget_s * SECOND / run.plan.pair_ns
    if fit >= 6:
        # Warm-up calls count, incomplete passes are not made.
        assert (
            0.45 * budget_s < run.pairing_ns / SECOND <= 1.02 * budget_s or len(run.rows) > 9_000 * budget_s
        )
    assert analyse(as_timing(run)).speedup.exists
    assert len(run.rows) <= 10_000 * max(1.0, budget_s)


def test_other_programs_that_slow_the_machine_down_are_given_twice_the_budget_and_no_more():
    machine = Machine(noisy=False)
    source = Source(machine, 0.2 * MS, 1.0)
    quick, calls = machine.work, []

    def work(ns):
        calls.append(ns)
        return quick(ns * (4 if len(calls) > 60 else 1))

    machine.work = work
    run = measured(source, machine)
    assert 0.4 < run.pairing_ns / SECOND <= 0.55


@pytest.mark.parametrize(
    ("call_ms", "budget_s", "instances", "each"),
    [(110, 0.25, 6, 1), (300, 1.0, 6, 1), (110, 1.7, 7, 1), (110, 2.3, 10, 1), (110, 7.0, 10, 3)],
)
def test_slow_calls_get_six_pairs_or_ten_times_three_where_they_fit(call_ms, budget_s, instances, each):
    machine = Machine(noisy=False)
    source = Source(machine, call_ms * MS, 1.0)
    run = measured(source, machine, budget_s=budget_s)
    assert np.bincount(run.samples.instance).tolist() == [each] * instances
    assert len(source.built) == instances
    assert analyse(as_timing(run)).speedup.exists


def test_the_first_pair_of_a_slow_instance_is_its_check_and_the_last_round_is_one_pair():
    machine = Machine(noisy=False)
    start = machine.now
    run = measured(Source(machine, 200 * MS, 1.0), machine, tolerances=(Tolerance(),))
    # One call of each side more than the six pairs, to calibrate, and the last round.
    assert (machine.now - start) / MS == pytest.approx(2 * 200 * (6 + 1 + 1), rel=0.01)
    assert len(run.rows) == 6
    assert len(run.last_rows) == 1
    assert run.tallies[0].check().matched


def test_a_slow_baseline_with_a_quick_replacement_times_the_replacement_in_batches():
    machine = Machine(noisy=False)
    source = Source(machine, 150 * MS, 1e4)
    run = measured(source, machine)
    assert run.plan.baseline_calls == 1
    assert run.plan.optimized_calls * 15_000 == pytest.approx(1 * MS, rel=0.1)
    assert analyse(as_timing(run)).speedup.estimate == pytest.approx(1e4, rel=0.03)
    assert (machine.now - 1e9) / SECOND < 0.15 * (6 + 4)


def test_a_first_call_that_compiles_is_not_taken_for_a_slow_one():
    """Every instance compiles for half a second in its first call, and takes 1 ms afterwards."""
    machine = Machine(noisy=False)
    source = Source(machine, 1 * MS, 2.0)
    compiled = compiling_first(source, machine, 500 * MS)
    run = measured(source, machine)
    assert compiled == list(range(10))
    assert not any(max(row[2:]) > 5 * MS for row in run.rows)
    assert analyse(as_timing(run)).speedup.estimate == pytest.approx(2.0, rel=0.05)


def test_where_slow_first_calls_are_colder_still_they_are_no_samples():
    machine = Machine(noisy=False)
    source = Source(machine, 150 * MS, 1.0)
    compiling_first(source, machine, 500 * MS)
    run = measured(source, machine)
    assert len(run.rows) == 6
    assert max(max(row[2:]) for row in run.rows) < 200 * MS


def compiling_first(source, machine, ns):
    """Make the first call of each instance's sides so much longer."""
    compiled = []
    build = source.build

    def build_cold(index):
        instance = build(index)
        compiled.append(index)
        for side in (instance.baseline, instance.optimized):
            call = side.call

            def cold(call=call):
                took, output = call()
                return took + machine.work(ns), output

            side.call = cold
        return instance

    source.build = build_cold
    return compiled


@pytest.mark.parametrize(
    ("call_ns", "late_ns", "late_samples"),
    [
        (60.0, 12_000, 1),
        (60.0, 12_000, 4),
        (1_500.0, 12_000, 4),
        (15_000.0, 12_000, 4),
        (0.4 * MS, 2 * MS, 2),
    ],
)
def test_a_side_that_is_cold_while_calibrating_gets_no_smaller_batches(call_ns, late_ns, late_samples):
    """Batches of unequal length made equal sides differ by 4 %, each with a narrow interval."""
    machine = Machine(noisy=False)
    source = Source(machine, call_ns, 1.0)
    build = source.build

    def build_cold(index):
        instance = build(index)
        if index == 0:
            late = [late_ns] * late_samples
            for side in (instance.baseline, instance.optimized):
                mine = late if side is instance.optimized else []
                side.call, side.sample = late_by(mine, side.call), late_by(mine, side.sample)
        return instance

    def late_by(late, timed):
        """The clock takes 70 ns of every sample, and cold caches what is left in `late`."""

        def call(*position):
            found = timed(*position)
            more = machine.work(70 + (late.pop() if late else 0))
            return (found[0] + more, found[1]) if isinstance(found, tuple) else found + more

        return call

    source.build = build_cold
    plan = measured(source, machine).plan
    assert plan.baseline_calls == plan.optimized_calls
    assert plan.baseline_calls == pytest.approx(max(1, round(20_000 / call_ns)), rel=0.02)


def test_instances_get_three_pairs_in_the_last_round_within_a_second():
    machine = Machine(noisy=False)
    run = measured(Source(machine, 2 * MS, 1.0), machine)
    assert np.bincount([row[0] for row in run.last_rows]).tolist() == [3] * 10
    assert run.last_round_ns / SECOND > 0.25 * run.plan.budget_s
    slower = measured(Source(machine, 90 * MS, 1.0), machine)
    assert len(slower.last_rows) == slower.plan.instances


def test_equal_sides_get_equal_batches_on_a_noisy_machine():
    for call_ns in (800.0, 7_000.0, 30_000.0):
        for seed in range(60):
            run, _ = simulated(1.0, seed, baseline_ns=call_ns, layout=0.0, budget_s=0.001)
            assert run.plan.baseline_calls == run.plan.optimized_calls


def test_one_slow_sample_while_calibrating_does_not_make_calls_slow():
    machine = Machine(noisy=False)
    source = Source(machine, 0.2 * MS, 2.0)
    build = source.build

    def build_with_hiccup(index):
        instance = build(index)
        if index == 0:
            sample = instance.baseline.sample
            hiccups = [400 * MS]
            instance.baseline.sample = lambda position: (
                sample(position) + machine.work(hiccups.pop() if hiccups else 1)
            )
        return instance

    source.build = build_with_hiccup
    run = measured(source, machine)
    assert run.plan.pair_ns < 1 * MS
    assert len(run.rows) > 300


@pytest.mark.parametrize("call_ms", [5, 60, 300, 900])
@pytest.mark.parametrize("limit_s", [0.5, 2.0, 8.0])
@pytest.mark.parametrize("rebuilt", [True, False])
def test_a_time_limit_is_kept_and_too_few_pairs_are_no_interval(call_ms, limit_s, rebuilt):
    machine = Machine(noisy=False)
    start = machine.now
    source = Source(machine, call_ms * MS, 2.0, rebuilt=rebuilt)
    run = measured(source, machine, budget_s=5.0, limit_s=limit_s)
    # At the least it is checked, calibrated, timed once, and asked again on new arguments.
    assert (machine.now - start) / SECOND <= max(limit_s, 5 * 1.5 * call_ms / 1e3)
    interval = analyse(as_timing(run)).speedup
    enough = (run.plan.instances if rebuilt else len(run.rows) // run.plan.group_size) >= 6
    assert interval.exists == enough
    if not enough:
        assert run.stop_reason == "too few pairs"
        (warning,) = [w for w in run.warnings if "too few" in w]
        assert "6 are needed" in warning
        assert "raise the time limit" in warning


def test_the_time_that_would_be_needed_is_told():
    machine = Machine(noisy=False)
    run = measured(Source(machine, 1 * SECOND, 1.0), machine, limit_s=6.0)
    (warning,) = [w for w in run.warnings if "too few" in w]
    assert (
        "6 are needed, about 18 s" in warning
    )  # six pairs of 2 s, and half as much for what cannot be foreseen


def test_slow_building_leaves_fewer_instances_in_place_of_running_out_of_time():
    machine = Machine(noisy=False)
    start = machine.now
    source = Source(machine, 1 * MS, 2.0, building_ns=5 * SECOND)
    run = measured(source, machine, limit_s=50.0)
    assert (machine.now - start) / SECOND <= 50
    assert 6 <= run.plan.instances == len(source.built) < 10
    assert analyse(as_timing(run)).speedup.exists
    assert any("there is time for" in warning for warning in run.warnings)


def test_slow_drawing_ends_the_passes_in_time():
    machine = Machine(noisy=False)
    start = machine.now
    source = Source(machine, 1 * MS, 1.0, drawing_ns=0.5 * SECOND)
    run = measured(source, machine, budget_s=5.0, thresholds=(1.0,), limit_s=25.0)
    assert (machine.now - start) / SECOND <= 25
    assert run.stop_reason == "budget used"


@pytest.mark.parametrize("room_for", [1, 5, 8])
def test_scarce_memory_leaves_fewer_instances_and_says_so(room_for):
    machine = Machine(noisy=False)
    source = Source(machine, 1 * MS, 2.0, room_for=room_for)
    run = measured(source, machine, thresholds=(1.5,))
    assert len(source.built) == run.plan.instances == room_for
    said = f"there is memory for {room_for} instances only, in place of 10; free memory, or use smaller data"
    assert said in run.warnings
    assert not any("time limit" in warning for warning in run.warnings)
    assert analyse(as_timing(run)).speedup.exists == (room_for >= 6)
    # Fewer instances agree by chance more often: a look must cost more, or there is none.
    assert run.plan.look_alpha == 2.0 ** (1 - room_for)
    assert run.plan.looks == {1: 0, 5: 0, 8: 1}[room_for]
    assert run.plan.group_size == 2


def test_a_single_instance_is_covered_too_and_its_early_looks_are_paid_for():
    runs = [simulated(2.0, seed, rebuilt=False, layout=0.0, thresholds=(2.0,)) for seed in range(150)]
    assert sum(ratio.speedup.excludes(2.0) for _, ratio in runs) <= most_errors(150)
    assert all(run.plan.instances == 1 for run, _ in runs)
    assert all(len(run.last_rows) == 8 for run, _ in runs)
    easy = [simulated(3.0, seed, rebuilt=False, thresholds=(2.0,))[0] for seed in range(20)]
    assert all(run.decided_early for run in easy)


def test_progress_is_told_after_every_pass_and_in_a_slow_first_pass_after_every_pair():
    pairs = []
    simulated(1.0, 1, thresholds=(1.0,), on_pass=lambda run: pairs.append(len(run.rows)))
    assert pairs == sorted(pairs)
    assert len(pairs) >= 4
    slow = []
    machine = Machine(noisy=False)
    measured(Source(machine, 200 * MS, 1.0), machine, on_pass=lambda run: slow.append(len(run.rows)))
    assert slow == [2, 3, 4, 5, 6, 6]


def test_building_and_the_first_calls_happen_while_setting_up_and_timing_does_not():
    machine = Machine(noisy=False)
    source = Source(machine, 0.5 * MS, 1.0)
    setting_up, log = [], []

    @contextmanager
    def enter():
        setting_up.append(None)
        try:
            yield
        finally:
            setting_up.pop()

    def spy(what, original):
        def call(*args, **kwargs):
            log.append((what, bool(setting_up)))
            return original(*args, **kwargs)

        return call

    build = source.build

    def build_spied(index):
        log.append(("build", bool(setting_up)))
        instance = build(index)
        for side in (instance.baseline, instance.optimized):
            side.call = spy("call", side.call)
            side.sample = spy("sample", side.sample)
        return instance

    source.build = build_spied
    measured(source, machine, setting_up=enter)
    assert {(what, up) for what, up in log if what != "call"} == {("build", True), ("sample", False)}
    assert [up for what, up in log if what == "call"] == [True, True] + [False] * 18


class PlantedError(Exception):
    pass


def test_an_exception_goes_through():
    machine = Machine(noisy=False)
    source = Source(machine, 0.5 * MS, 1.0)
    work, calls = machine.work, []

    def failing(ns):
        calls.append(ns)
        if len(calls) == 60:
            raise PlantedError
        return work(ns)

    machine.work = failing
    with pytest.raises(PlantedError):
        measured(source, machine)


@pytest.mark.parametrize(
    "when", ["at the check", "between passes", "after the last pass", "last round", "last pair"]
)
def test_changed_arguments_end_the_measurement_and_are_told(when):
    machine = Machine(noisy=False)
    source = Source(machine, 0.5 * MS, 1.0)
    build = source.build
    phase = Counter()

    def build_watched(index):
        instance = build(index)

        def changed(*, first_only=False):
            phase["checks" if first_only else "asked"] += 1
            reached = {
                "at the check": phase["checks"] >= 1,
                "between passes": phase["asked"] >= 1,
                "after the last pass": phase["last"] >= 1,
                "last round": phase["last"] >= 1 and phase["asked after"] > 15,
                "last pair": phase["last"] >= 1 and phase["asked after"] >= 30,
            }
            phase["asked after"] += phase["last"]
            return reached[when]

        def lay_out_last(*calls):
            phase["last"] = 1
            return calls

        instance.arguments_changed, instance.lay_out_last = changed, lay_out_last
        return instance

    source.build = build_watched
    run = measured(source, machine)
    said = {
        "at the check": "implementation changed its arguments",
        "between passes": "an implementation changed its arguments while it was timed",
        "after the last pass": "an implementation changed its arguments while it was timed",
        "last round": "an implementation changed its arguments in the last round",
        "last pair": "an implementation changed its arguments in the last round",
    }
    assert run.arguments_changed.endswith(said[when])
    if when in ("at the check", "between passes"):
        assert run.stop_reason == "arguments changed"
        assert not run.last_rows
    if when == "at the check":
        assert not run.rows


def test_outputs_are_compared_for_every_instance_before_and_after():
    machine = Machine(noisy=False)
    source = Source(machine, 0.5 * MS, 1.0)
    run = measured(source, machine, tolerances=(Tolerance(), Tolerance(rtol=0.5)))
    assert len(run.tallies) == 2
    for tally in run.tallies:
        check = tally.check()
        assert check.matched
        assert check.before.elements == 10
        assert check.after.elements == 30


@pytest.mark.parametrize("wrong", ["first", "later"])
def test_one_wrong_output_of_one_instance_is_noticed(wrong):
    machine = Machine(noisy=False)
    source = Source(machine, 0.5 * MS, 1.0)
    build = source.build

    def build_wrong(index):
        instance = build(index)
        if index == 7:
            if wrong == "first":
                instance.optimized.call = lambda: (500_000, 2.0)
            else:
                instance.optimized.last_sample = lambda position: (500_000, 2.0)
        return instance

    source.build = build_wrong
    check = measured(source, machine, tolerances=(Tolerance(),)).tallies[0].check()
    assert not check.matched
    assert check.before.matched == (wrong == "later")
    assert check.after.matched == (wrong == "first")


def test_without_tolerances_nothing_is_compared():
    machine = Machine(noisy=False)
    assert measured(Source(machine, 0.5 * MS, 1.0), machine).tallies == []


def last_round_log(call_ns):
    """What happens to a single instance in the last round, in order."""
    machine = Machine(noisy=False)
    source = Source(machine, call_ns, 2.0, rebuilt=False)
    build, log = source.build, []

    def build_logged(index):
        instance = build(index)

        def logged(what, original, name):
            def call(*args):
                log.append((what, name, *args))
                return original(*args)

            return call

        for name in ("baseline", "optimized"):
            side = getattr(instance, name)
            for what in ("sample", "last_sample", "last_output"):
                setattr(side, what, logged(what, getattr(side, what), name))
        instance.redraw = logged("redraw", instance.redraw, "")
        instance.prepare_last = logged("prepare", instance.prepare_last, "")
        instance.write_last = logged("write", instance.write_last, "")
        instance.lay_out_last = logged("lay out", instance.lay_out_last, "")
        return instance

    source.build = build_logged
    measured(source, machine, tolerances=(Tolerance(),))
    start = next(i for i, entry in enumerate(log) if entry[0] == "lay out")
    return log[start + 1 :]


def test_a_pair_of_the_last_round_is_on_arguments_that_neither_side_has_seen():
    log = last_round_log(0.5 * MS)
    rounds = [i for i, entry in enumerate(log) if entry[0] == "prepare"]
    assert len(rounds) == 8  # as many pairs as an interval of one instance needs
    for start in rounds:
        kinds = [entry[:2] for entry in log[start : start + 7]]
        assert kinds[0] == ("prepare", "")
        # Warmed up on other content, then written, then timed at once, each side on its own half.
        assert sorted(kinds[1:3]) == [("sample", "baseline"), ("sample", "optimized")]
        assert kinds[3] == ("write", "")
        timed = {name: position for what, name, position in log[start + 4 : start + 6]}
        assert sorted(timed.values()) == [0, 1]
        # The baseline is asked for what the second call of the optimised side was timed on.
        assert log[start + 6] == ("last_output", "baseline", timed["optimized"], 1)


def test_all_outputs_of_a_batch_are_compared_once_and_those_timed_always():
    log = last_round_log(4_000.0)
    calls = 10  # of 2 us each
    asked = [entry[2:] for entry in log if entry[:2] == ("last_output", "baseline")]
    by_round = Counter(which for _, which in asked)
    assert by_round[calls - 1] == 8
    assert sorted(by_round) == list(range(calls))
    assert all(by_round[which] == 1 for which in range(calls - 1))


def test_a_slow_pair_of_the_last_round_costs_no_further_call():
    kinds = [entry[0] for entry in last_round_log(150 * MS)]
    assert kinds == ["redraw", "last_sample", "last_sample"]


def test_calls_of_some_milliseconds_need_no_warm_up():
    kinds = [entry[0] for entry in last_round_log(8 * MS)]
    assert kinds == ["redraw", "last_sample", "last_sample", "last_output"] * 8


def test_slow_drawing_ends_the_last_round_with_the_instances_it_has_reached():
    machine = Machine(noisy=False)
    source = Source(machine, 1 * MS, 2.0, drawing_ns=3 * SECOND)
    run = measured(source, machine)
    assert run.last_round_ns / SECOND < 15
    assert 0 < len({row[0] for row in run.last_rows}) < 10
