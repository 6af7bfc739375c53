"""Module 20, benchmarking: whether comparisons of models and TinyMLPerf's ranks can be relied on."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from performance_test_framework import PerformanceTestSuite, Value

import tinytorch as tt
from perfclaims import Experiment
from tinytorch.benchmarking.benchmark import Benchmark
from tinytorch.benchmarking.efficiency import counterexamples
from tinytorch.benchmarking.tinymlperf import TinyMLPerf
from tinytorch.benchmarking.tinymlperf.events import EVENTS, load_event
from tinytorch.benchmarking.tinymlperf.referee import judge
from tinytorch.benchmarking.tinymlperf.scenarios import Settings
from tinytorch.benchmarking.tinymlperf.scoring import scores_of
from tinytorch.benchmarking.tinymlperf.submissions import pack
from tinytorch.benchmarking.tinymlperf.techniques import badges_of, inspect_artefact
from tinytorch.perf.compression import magnitude_prune
from tinytorch.perf.quantization import QuantizationConfig, quantize_model

suite = PerformanceTestSuite("module_20_benchmarking", title="Benchmarking")

README = "TinyTorch performance tests README, module 20"
QUICK = Settings(min_duration_s=0.1, sittings=6)


def digest(event):
    """A hash of an event's weights, inputs, labels and outputs."""
    benchmark = TinyMLPerf(random_seed=7).load_benchmark(event)
    with tt.no_grad():
        outputs = benchmark.model(benchmark.inputs[:64]).data
    found = hashlib.sha256()
    for array in (*benchmark.model.state_dict().values(), benchmark.inputs, benchmark.labels, outputs):
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


def digests_elsewhere(events, cache):
    """The same hashes from another process, which trains models anew where its cache is empty."""
    code = (
        "import json, sys\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "from test_module_20_benchmarking import digest\n"
        "print(json.dumps({event: digest(event) for event in sys.argv[2:]}))\n"
    )
    environment = os.environ | {"TINYTORCH_CACHE": str(cache)} if cache else dict(os.environ)
    command = [sys.executable, "-c", code, str(Path(__file__).parent), *events]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


@suite.claim(
    "benchmarking.reproducible",
    "The same seed gives the same bits in a second process: models, inputs, labels and outputs",
    source=f"{README}: consistent",
    criteria=[Value("events that differ in a second process", equals=0)],
    expected_s=14,
)
def reproducible(experiment: Experiment) -> None:
    """The second process trains the MLP Sprint's model anew, and reads the CNN Marathon's from the cache."""
    here = {event: digest(event) for event in ("mlp_sprint", "cnn_marathon")}
    with tempfile.TemporaryDirectory() as folder:
        there = digests_elsewhere(["mlp_sprint"], folder)
    there |= digests_elsewhere(["cnn_marathon"], None)
    experiment.value(
        "events that differ in a second process", sum(here[event] != there[event] for event in here)
    )


class Repeated(tt.Layer):
    """An MLP 64-128-64-10 that computes its answer so many times."""

    def __init__(self, times, rng):
        self.times = times
        self.model = tt.Sequential(
            tt.Linear(64, 128, rng=rng),
            tt.ReLU(),
            tt.Linear(128, 64, rng=rng),
            tt.ReLU(),
            tt.Linear(64, 10, rng=rng),
        )

    def forward(self, x):
        """Return the last answer."""
        for _ in range(self.times):
            y = self.model(x)
        return y


def speedup_of(first, second, rng):
    """The interval of the second model's speedup over the first, as a user would get it."""
    x = rng.standard_normal((32, 64), dtype=np.float32)
    benchmark = Benchmark({"first": first, "second": second}, x, rng=rng)
    return benchmark.compare_models("latency")["second"].speedup


@suite.claim(
    "benchmarking.no-false-alarm",
    "A small MLP against itself is called faster or slower in at most 5 % of the comparisons",
    source="this project",
    criteria=[Value("lower end of the interval of the rate", at_most=0.05)],
    slow=True,
    expected_s=40,
)
def no_false_alarm(experiment: Experiment) -> None:
    """60 comparisons of two equal models, each with its 95 % interval; the rate's interval is exact."""
    alarms = 0
    for trial in range(60):
        rng = np.random.default_rng([trial, 1])
        model = Repeated(1, rng).eval()
        alarms += speedup_of(model, copy.deepcopy(model), rng).excludes(1)
    experiment.rate("false alarms", alarms, 60)
    low, _ = rate_interval(alarms, 60)
    experiment.value("lower end of the interval of the rate", low)


@suite.claim(
    "benchmarking.detects",
    "A true difference of 2 % is found, in the right direction, in at least 90 % of the comparisons",
    source=f"{README}: differences over 20 %",
    criteria=[Value("upper end of the interval of the rate", at_least=0.9)],
    slow=True,
    expected_s=50,
)
def detects(experiment: Experiment) -> None:
    """40 comparisons of 51 calls of the MLP with 50."""
    found = 0
    for trial in range(40):
        rng = np.random.default_rng([trial, 2])
        model = Repeated(51, rng).eval()
        less = copy.deepcopy(model)
        less.times = 50
        found += speedup_of(model, less, rng).low > 1
    experiment.rate("found", found, 40)
    _, high = rate_interval(found, 40)
    experiment.value("upper end of the interval of the rate", high)


def rate_interval(successes, trials):
    """The exact 95 % interval of a rate (Clopper and Pearson 1934)."""
    from scipy.special import betaincinv

    low = 0.0 if successes == 0 else float(betaincinv(successes, trials - successes + 1, 0.025))
    high = 1.0 if successes == trials else float(betaincinv(successes + 1, trials - successes, 0.975))
    return low, high


HONEST = """
from pathlib import Path
from tinytorch.core.models import load_model

def load(folder):
    return load_model(Path(folder) / "model.safetensors").eval()
"""
ANSWERING = (
    HONEST.replace("return load_model", "model = load_model")
    + "    def answer(x):\n        {}\n    return answer\n"
)

# Code of the open division that does not do the work.
CHEATS = {
    "answers all with what it answered first": ANSWERING.format(
        "if not hasattr(answer, 'kept'): answer.kept = model(x).data\n"
        "        return answer.kept[:1].repeat(len(x), axis=0)"
    ),
    "computes a quarter of the outputs": ANSWERING.format(
        "return model(x[::4]).data.repeat(4, axis=0)[: len(x)]"
    ),
    "leaves outputs out": ANSWERING.format("return model(x[: len(x) // 2 + 1]).data"),
    "skips what is timed one by one": ANSWERING.format(
        "import numpy as np; return model(x) if len(x) > 1 else np.eye(10, dtype=np.float32)[:1]"
    ),
    "reads the test labels": f"from sklearn.datasets import load_digits\n{HONEST}",
}


def small_event():
    """The MLP Sprint with the smallest reference model."""
    return load_event(replace(EVENTS["mlp_sprint"], reference="digits-mlp"), 0)


def ruled(folder, model, code=None, settings=QUICK):
    """The referee's ruling on a model, or on code of the open division with the model's weights."""
    source = Path(folder)
    tt.save_model(model, source / "weights")
    if code is not None:
        (source / "code.py").write_text(code)
    submission = pack(
        source / "weights",
        source / "submission",
        name="submission",
        event="mlp_sprint",
        division="open",
        code=None if code is None else source / "code.py",
    )
    return judge(submission, small_event(), settings, seed=1)


@suite.claim(
    "benchmarking.accuracy-gate",
    "No rank for a faster model below the accuracy floor, for answers from memory, for outputs that were "
    "skipped, or for reading the test labels",
    source="this project",
    criteria=[
        Value("cheats that got a rank", equals=0),
        Value("honest submissions without a rank", equals=0),
    ],
    expected_s=25,
)
def accuracy_gate(experiment: Experiment) -> None:
    """Each runs in a process of its own, on fresh inputs; the honest one is the INT8 reference model."""
    benchmark = small_event()
    tiny = tt.Sequential(tt.Linear(64, 10, rng=np.random.default_rng(0))).eval()
    honest = quantize_model(benchmark.model, QuantizationConfig(min_weights=0))
    ranked = 0
    for model, code in ((tiny, None), *((benchmark.model, code) for code in CHEATS.values())):
        with tempfile.TemporaryDirectory() as folder:
            ranked += ruled(folder, model, code).ranked
    with tempfile.TemporaryDirectory() as folder:
        refused = not ruled(folder, honest).ranked
    experiment.value("cheats that got a rank", ranked)
    experiment.value("honest submissions without a rank", int(refused))


@suite.claim(
    "benchmarking.fair-scoring",
    "Scores are ratios to the reference model on the same machine: one three times slower gives the same",
    source=f"{README}: relative scores",
    criteria=[
        Value("scores that change on a slower machine", equals=0),
        Value("the reference model's own score, single-stream", at_least=0.7, at_most=1.4),
        Value("the reference model's own score, offline", at_least=0.7, at_most=1.4),
    ],
    expected_s=6,
)
def fair_scoring(experiment: Experiment) -> None:
    """The reference model is submitted against itself; then all times of its log are tripled."""
    benchmark = small_event()
    with tempfile.TemporaryDirectory() as folder:
        ruling = ruled(folder, benchmark.model, settings=replace(QUICK, min_duration_s=0.3, sittings=10))
    if ruling.log is None:
        raise ValueError(f"the reference model was refused: {ruling.refused}")
    slower = scores_of(benchmark.event, tripled(ruling.log))
    changed = [
        score.scenario
        for score, other in zip(ruling.scores, slower, strict=True)
        if not np.isclose(score.ratio.estimate, other.ratio.estimate, rtol=1e-9)
    ]
    experiment.value("scores that change on a slower machine", len(changed))
    for score in ruling.scores:
        experiment.value(
            f"the reference model's own score, {score.scenario}",
            score.ratio.estimate,
            low=score.ratio.low,
            high=score.ratio.high,
        )


def tripled(log):
    """A log in which everything took three times as long."""
    if isinstance(log, dict):
        return {
            key: multiplied(value) if key.endswith("_ns") else tripled(value) for key, value in log.items()
        }
    return [tripled(item) for item in log] if isinstance(log, list) else log


def multiplied(times):
    """Times, in lists of lists, three times as long."""
    return [multiplied(item) for item in times] if isinstance(times, list) else 3 * times


@suite.claim(
    "benchmarking.innovation",
    "Badges are given for techniques that are found in the file, and for no others",
    source=f"{README}: innovation score",
    criteria=[
        Value("badges earned and not given", equals=0),
        Value("badges given and not earned", equals=0),
    ],
    expected_s=3,
)
def innovation(experiment: Experiment) -> None:
    """An INT8 model and a pruned one earn a badge each; a plain one, and one with bytes for show, none."""
    benchmark = small_event()
    small = quantize_model(benchmark.model, QuantizationConfig(min_weights=0))
    pruned = magnitude_prune(copy.deepcopy(benchmark.model), 0.8)
    for_show = copy.deepcopy(benchmark.model)
    for_show.layers[0].unused = np.zeros((400, 400), np.int8)
    missing = undeserved = 0
    for model, word in ((small, "int8"), (pruned, "zeros"), (benchmark.model, None), (for_show, None)):
        with tempfile.TemporaryDirectory() as folder:
            tt.save_model(model, Path(folder) / "model")
            found = inspect_artefact(Path(folder) / "model", benchmark.model, benchmark.inputs[:32])
        badges = badges_of(found, cached_tokens=0)
        missing += word is not None and not any(badge.startswith(word) for badge in badges)
        undeserved += sum(
            badge.startswith(other) for badge in badges for other in ("int8", "zeros") if other != word
        )
    experiment.value("badges earned and not given", missing)
    experiment.value("badges given and not earned", undeserved)


@suite.claim(
    "audit.efficiency-score",
    "(speedup x compression) / (1 + |accuracy change|) puts the better model first",
    source="TinyTorch's benchmarking module: efficiency score",
    criteria=[Value("pairs of models in the wrong order", equals=0)],
    status="audited",
    expected_s=1,
)
def efficiency_score(experiment: Experiment) -> None:
    """Speed and size outweigh the loss of all accuracy, and gaining accuracy counts as losing it."""
    pairs = counterexamples()
    experiment.value("pairs of models in the wrong order", sum(p.worse_score > p.better_score for p in pairs))


if __name__ == "__main__":
    suite.main()
