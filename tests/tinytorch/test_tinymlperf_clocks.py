"""Times that players report, held to the referee's clock: what is left out is added again, or refused."""

import numpy as np
import pytest
from tinymlperf_stand_ins import log_of, phase

from tinytorch.benchmarking.tinymlperf.clocks import check_clock, counted_times
from tinytorch.benchmarking.tinymlperf.events import EVENTS
from tinytorch.benchmarking.tinymlperf.processes import Refused
from tinytorch.benchmarking.tinymlperf.scoring import scores_of

MLP = EVENTS["mlp_sprint"]
WAY_NS = 50_000
TRUE_NS = 20_000


def played(hidden_ns, *, way_ns=WAY_NS, rounds=5, queries=32, true_ns=TRUE_NS, rng=None):
    """A phase of two players that both take `true_ns`; the submission leaves out `hidden_ns` of it.

    `hidden_ns` is one number, or one for each query of each round.
    """
    rng = rng or np.random.default_rng(0)
    true = np.broadcast_to(np.asarray(true_ns), (rounds, queries))
    hidden = np.minimum(np.broadcast_to(np.asarray(hidden_ns), (rounds, queries)), true - 1)

    def way(middle):
        return (middle + rng.integers(-2000, 2000, (rounds, queries))).astype(int)

    return {
        "submission_ns": (true - hidden).tolist(),
        "reference_ns": true.tolist(),
        "submission_wall_ns": (true + way(way_ns)).tolist(),
        "reference_wall_ns": (true + way(WAY_NS)).tolist(),
        "examples": 1,
        "duration_s": 1.0,
        "losses": {"submission": [0.0], "reference": [0.0]},
    }


def busy(phase, rng):
    """The phase on a machine that makes one way of 20 up to a millisecond longer."""
    for side in ("submission", "reference"):
        walls = np.array(phase[f"{side}_wall_ns"])
        late = rng.random(walls.shape) < 0.05
        phase[f"{side}_wall_ns"] = (walls + late * rng.integers(0, 10**6, walls.shape)).tolist()
    return phase


def ratios(phases, share=0.9):
    """The ratio of each sitting, by the 90th percentile of all its queries."""
    return [
        float(np.quantile(times.reference, share) / np.quantile(times.submission, share))
        for times in counted_times(phases)
    ]


class TestCountedTimes:
    @pytest.mark.parametrize("hidden_ns", [3_000, 10_000, 19_000, 10**9])
    def test_time_that_is_left_out_everywhere_is_added_again(self, hidden_ns):
        found = ratios([played(hidden_ns, rng=np.random.default_rng(seed)) for seed in range(8)])
        assert max(found) < 1.25
        assert min(found) > 0.75

    def test_what_is_left_out_in_five_of_eight_sittings_gains_nothing(self):
        log = log_of([1.0] * 8)
        for number, sitting in enumerate(log["sittings"]):
            for name in sitting:
                sitting[name] = played(
                    10**9 if number < 5 else 0, true_ns=19_000, rng=np.random.default_rng(number)
                )
        for score in scores_of(MLP, log):
            assert score.ratio.estimate < 1.25
            assert score.ratio.low < 1 < score.ratio.high * 1.25

    def test_what_is_left_out_in_fewer_sittings_is_bounded_and_the_interval_says_so(self):
        log = log_of([1.0] * 8)
        for number, sitting in enumerate(log["sittings"]):
            for name in sitting:
                sitting[name] = played(10**9 if number < 4 else 0, rng=np.random.default_rng(number))
        for score in scores_of(MLP, log):
            assert score.ratio.estimate < 3
            assert score.ratio.low < 1.05
            assert score.ratio.high < 6

    @pytest.mark.parametrize("share", [0.3, 0.5, 0.7])
    def test_lying_in_some_rounds_only_gains_nothing(self, share):
        lies = np.where(np.arange(10) < round(share * 10), 19_000, 0)[:, None]
        phases = [played(lies, rounds=10, rng=np.random.default_rng(seed)) for seed in range(6)]
        for times in counted_times(phases):
            rounds = np.quantile(times.submission, 0.9, axis=1)
            assert np.median(rounds) > 0.8 * TRUE_NS

    def test_hiding_only_the_slow_queries_gains_nothing(self):
        """Twelve of 32 queries take ten times as long, and their player says that they did not."""
        true = np.where(np.arange(32) < 12, 10 * TRUE_NS, TRUE_NS)
        lies = np.where(np.arange(32) < 12, 9 * TRUE_NS, 0)
        phases = [played(lies, true_ns=true, rounds=10, rng=np.random.default_rng(seed)) for seed in range(6)]
        for times in counted_times(phases):
            assert np.quantile(times.submission, 0.9) > 8 * TRUE_NS

    def test_no_time_counts_for_less_than_a_tenth_of_the_way(self):
        """A player whose own way is as much shorter as it leaves out cannot be told from an honest one."""
        phases = [played(10**9, way_ns=WAY_NS - TRUE_NS) for _ in range(6)]
        for times in counted_times(phases):
            assert times.submission.min() == pytest.approx(WAY_NS / 10, rel=0.05)

    def test_an_honest_player_keeps_its_times(self):
        phases = [played(0, rng=np.random.default_rng(seed)) for seed in range(6)]
        for times, given in zip(counted_times(phases), phases, strict=True):
            assert (times.submission == given["submission_ns"]).all()
            assert (times.reference == given["reference_ns"]).all()

    def test_an_honest_player_whose_process_is_a_slow_one_at_times_keeps_them_too(self):
        ways = [1.29 * WAY_NS] * 3 + [WAY_NS] * 3
        phases = [played(0, way_ns=way, rng=np.random.default_rng(i)) for i, way in enumerate(ways)]
        for times, given in zip(counted_times(phases), phases, strict=True):
            assert np.median(times.submission - given["submission_ns"]) == 0

    def test_a_busy_machine_that_makes_a_few_ways_long_changes_little(self):
        rng = np.random.default_rng(0)
        phases = [busy(played(0, rng=rng), rng) for _ in range(6)]
        assert ratios(phases) == pytest.approx([1] * 6, abs=0.05)

    def test_nor_does_a_busy_machine_hide_what_is_left_out_in_a_few_sittings(self):
        rng = np.random.default_rng(0)
        lies = [80_000] * 3 + [0] * 5
        phases = [busy(played(lie, true_ns=100_000, rng=rng), rng) for lie in lies]
        assert max(ratios(phases)) < 1.25

    def test_a_machine_three_times_slower_gives_three_times_the_times(self):
        phases = [played(5_000, rng=np.random.default_rng(seed)) for seed in range(6)]
        slower = [
            {k: (3 * np.array(v)).tolist() if k.endswith("_ns") else v for k, v in p.items()} for p in phases
        ]
        for times, others in zip(counted_times(phases), counted_times(slower), strict=True):
            assert np.allclose(3 * times.submission, others.submission)


class TestLogsThatLackTimes:
    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            ({"submission_ns": []}, "lacks times of some queries"),
            ({"submission_wall_ns": [[1]]}, "lacks times of some queries"),
            ({"reference_ns": [[1] * 10] * 2}, "lacks times of some queries"),
            ({"reference_wall_ns": [[1] * 9] * 3}, "lacks times of some queries"),
            ({"reference_wall_ns": [[1] * 9, [1] * 10]}, "no rounds of equally many queries"),
            ({"submission_ns": [[10**400] * 10] * 3}, "no rounds of equally many queries"),
            ({"submission_ns": [[float("nan")] * 10] * 3}, "times that are no numbers"),
        ],
    )
    def test_they_are_refused_with_the_reason(self, changes, reason):
        log = log_of([1.0] * 6)
        log["sittings"][2]["offline"] |= changes
        with pytest.raises(Refused, match=reason):
            scores_of(MLP, log)

    def test_all_of_them_empty_is_no_log_either(self):
        log = log_of([1.0] * 6)
        for sitting in log["sittings"]:
            sitting["offline"] |= {key: [] for key in sitting["offline"] if key.endswith("_ns")}
        with pytest.raises(Refused, match="lacks times of some queries"):
            scores_of(MLP, log)


class TestClock:
    def check(self, hidden):
        check_clock([phase([[100_000] * 10] * 3, [[100_000] * 10] * 3, hidden_ns=ns) for ns in hidden])

    def test_the_way_there_and_back_is_no_fraud(self):
        self.check([0] * 6)
        self.check([10_000] * 6)

    def test_time_that_a_player_does_not_report_is(self):
        with pytest.raises(Refused, match="it reports 100 us for a query, and the referee waits 60 us more"):
            self.check([60_000] * 6)

    def test_a_machine_that_was_busy_for_some_sittings_accuses_nobody(self):
        self.check([500_000, 500_000, 500_000, 0, 0, 0])

    def test_honesty_in_one_sitting_hides_nothing(self):
        with pytest.raises(Refused, match="its clock is wrong"):
            self.check([0, *[500_000] * 5])

    def test_long_ways_of_some_queries_only_are_looked_at_too(self):
        lies = np.where(np.arange(32) < 12, 190_000, 0)
        true = np.where(np.arange(32) < 12, 200_000, 20_000)
        phases = [played(lies, true_ns=true, rng=np.random.default_rng(seed)) for seed in range(6)]
        with pytest.raises(Refused, match="its clock is wrong"):
            check_clock(phases)
