"""Module 20, benchmarking: whether comparisons of models and TinyMLPerf's ranks can be relied on."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import os
import re
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
from tinytorch.benchmarking.tinymlperf.confinement import can_confine
from tinytorch.benchmarking.tinymlperf.events import EVENTS, load_event
from tinytorch.benchmarking.tinymlperf.frames import Frame
from tinytorch.benchmarking.tinymlperf.processes import Entrant, PlayerProcess
from tinytorch.benchmarking.tinymlperf.referee import judge
from tinytorch.benchmarking.tinymlperf.scenarios import SINGLE_STREAM, Settings
from tinytorch.benchmarking.tinymlperf.scoring import scores_of
from tinytorch.benchmarking.tinymlperf.submissions import pack
from tinytorch.benchmarking.tinymlperf.techniques import badges_of, inspect_artefact
from tinytorch.datasets import RECIPES
from tinytorch.perf.compression import magnitude_prune
from tinytorch.perf.quantization import QuantizationConfig, quantize_model

suite = PerformanceTestSuite("module_20_benchmarking", title="Benchmarking")

README = "TinyTorch performance tests README, module 20"
QUICK = Settings(min_duration_s=0.1, sittings=6)
# Of six sittings the interval is all of their range, and of ten it still follows one accident among them.
STEADY = Settings(min_duration_s=0.25, sittings=12)
SUBMISSION, QUERIES = "submission", SINGLE_STREAM.queries

# Epochs, or steps for text, after which training ends: a few show as well whether bits repeat.
BRIEFLY = {"digits-cnn-wide": 1, "text-gpt": 10}
# Products of BLAS depend on how many threads share them.
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def digest(event):
    """A hash of an event's weights, inputs, labels and outputs."""
    benchmark = TinyMLPerf(random_seed=7).load_benchmark(event)
    with tt.no_grad():
        outputs = benchmark.model(benchmark.inputs[:64]).data
    found = hashlib.sha256()
    for array in (*benchmark.model.state_dict().values(), benchmark.inputs, benchmark.labels, outputs):
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


def digests():
    """The hashes of all events; called in a process of its own, because it changes how models are trained."""
    for name, epochs in BRIEFLY.items():
        RECIPES[name] = replace(RECIPES[name], epochs=epochs)
    return {event: digest(event) for event in EVENTS}


def digests_elsewhere(processes):
    """These hashes from new processes whose caches are empty, so that each trains all models."""
    code = (
        "import json, sys\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "from test_module_20_benchmarking import digests\n"
        "print(json.dumps(digests()))\n"
    )
    command = [sys.executable, "-c", code, str(Path(__file__).parent)]
    with contextlib.ExitStack() as folders:
        caches = [folders.enter_context(tempfile.TemporaryDirectory()) for _ in range(processes)]
        running = [
            subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                env=os.environ | ONE_THREAD | {"TINYTORCH_CACHE": cache},
            )
            for cache in caches
        ]
        printed = [process.communicate()[0] for process in running]
    if any(process.returncode for process in running):
        raise RuntimeError(f"`{code.splitlines()[-1]}` failed in a new process")
    return [json.loads(text.splitlines()[-1]) for text in printed]


@suite.claim(
    "benchmarking.reproducible",
    "The same seed gives the same bits in a second process, for all three events: models, inputs, labels and "
    "outputs; the CNN Marathon's model after {} epoch of its training, the Transformer Decathlon's after {} "
    "steps".format(*BRIEFLY.values()),
    source=f"{README}: consistent",
    criteria=[
        Value("events", equals=3),
        Value("events that differ in a second process", equals=0),
    ],
    expected_s=8,
)
def reproducible(experiment: Experiment) -> None:
    """Both processes train the models anew: what a cache holds may have been trained by more threads."""
    first, second = digests_elsewhere(2)
    experiment.value("events", len(first))
    experiment.value(
        "events that differ in a second process", sum(first[event] != second[event] for event in first)
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

BELOW = r"has an accuracy of .* where the floor is"
# Code of the open division that does not do the work, and the reason for which it is refused.
CHEATS = {
    "answers all with what it answered first": (
        ANSWERING.format(
            "if not hasattr(answer, 'kept'): answer.kept = model(x).data\n"
            "        return answer.kept[:1].repeat(len(x), axis=0)"
        ),
        BELOW,
    ),
    "computes a quarter of the outputs": (
        ANSWERING.format("return model(x[::4]).data.repeat(4, axis=0)[: len(x)]"),
        BELOW,
    ),
    "leaves outputs out": (
        ANSWERING.format("return model(x[: len(x) // 2 + 1]).data"),
        r"returned outputs of shape \(\d+, 10\) where \(\d+, 10\) are due",
    ),
    "skips what is timed one by one": (
        ANSWERING.format(
            "import numpy as np; return model(x) if len(x) > 1 else np.eye(10, dtype=np.float32)[:1]"
        ),
        r"outputs while it is timed \(single-stream\) are worse",
    ),
    "reads the test labels": (
        f"from sklearn.datasets import load_digits\n{HONEST}",
        "tried to import sklearn",
    ),
}


def needs_confinement():
    """The reason why own code cannot be judged here, or None."""
    return None if can_confine() else "needs a kernel that can confine own code: Linux 6.2 with Landlock"


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
        name=SUBMISSION,
        event="mlp_sprint",
        division="open",
        code=None if code is None else source / "code.py",
    )
    return judge(submission, small_event(), settings, seed=1)


RANKED, OTHERWISE, UNRANKED = (
    "cheats that got a rank",
    "cheats refused for another reason",
    "honest submissions without a rank",
)


@suite.claim(
    "benchmarking.accuracy-gate",
    "No rank for a faster model below the accuracy floor, for answers from memory, for outputs that were "
    "skipped, or for reading the test labels",
    source="this project",
    criteria=[
        Value(RANKED, equals=0),
        Value(OTHERWISE, equals=0),
        Value(UNRANKED, equals=0),
    ],
    requires=[needs_confinement],
    expected_s=7,
)
def accuracy_gate(experiment: Experiment) -> None:
    """Each runs in a process of its own, on fresh inputs, and is to be refused for what it does.

    The honest one is the INT8 reference model by code of its own: with a file alone, a referee that lets no
    code run would pass.
    """
    benchmark = small_event()
    tiny = tt.Sequential(tt.Linear(64, 10, rng=np.random.default_rng(0))).eval()
    small = quantize_model(benchmark.model, QuantizationConfig(min_weights=0))
    cheats = [(tiny, None, BELOW), *((benchmark.model, code, reason) for code, reason in CHEATS.values())]
    ranked = otherwise = 0
    for model, code, reason in cheats:
        with tempfile.TemporaryDirectory() as folder:
            ruling = ruled(folder, model, code)
        ranked += ruling.ranked
        otherwise += not ruling.ranked and re.search(reason, ruling.refused) is None
    with tempfile.TemporaryDirectory() as folder:
        unranked = not ruled(folder, small, HONEST).ranked
    experiment.value(RANKED, ranked)
    experiment.value(OTHERWISE, otherwise)
    experiment.value(UNRANKED, int(unranked))


SCENARIOS = ("single-stream", "offline")
CHANGED = "scores that change on a faster machine"
ONE_SIDED, FIRST = "rounds that do not ask both models alike", "share of rounds that ask the submission first"
TWICE = ANSWERING.format("model(x); return model(x)")


def own_score(scenario):
    """The name of the evidence of what the reference model scores against itself."""
    return f"the reference model's own score, {scenario}"


def raised_by(scenario):
    """The name of the evidence of what becomes of a score when only the reference model slows down."""
    return f"score with a reference model of three times the time, over that before, {scenario}"


def twice_the_work(scenario):
    """The name of the evidence of what a submission scores that works twice."""
    return f"score for twice the work, {scenario}"


@suite.claim(
    "benchmarking.fair-scoring",
    "Scores are ratios to the reference model run interleaved on the same machine: one three times faster "
    "gives the same, a reference model three times slower gives three times the score, and twice the work "
    "about half of it",
    source=f"{README}: relative scores",
    criteria=[
        Value(CHANGED, equals=0),
        *(Value(own_score(scenario), at_least=0.7, at_most=1.4) for scenario in SCENARIOS),
        *(Value(raised_by(scenario), at_least=2.9, at_most=3.1, gate=True) for scenario in SCENARIOS),
        Value(ONE_SIDED, equals=0),
        Value(FIRST, at_least=0.2, at_most=0.8, gate=True),
        *(
            # What comes before and after the work of a query counts once: 0.58 to 0.64.
            Value(twice_the_work(scenario), at_least=0.4, at_most=0.85, gate=True)
            for scenario in SCENARIOS
            if can_confine()
        ),
    ],
    expected_s=8,
)
def fair_scoring(experiment: Experiment) -> None:
    """The reference model is submitted against itself, and its log judged again with other times.

    Where own code can be judged, it is submitted once more with code that computes every answer twice.
    """
    benchmark = small_event()
    with watched() as turns:
        ruling = ranked_of(benchmark.model, settings=STEADY)
    before, faster, raised = (
        estimates(scores_of(benchmark.event, log))
        for log in (ruling.log, in_a_third(ruling.log), with_slower_reference(ruling.log))
    )
    experiment.value(CHANGED, sum(not np.isclose(faster[name], before[name], rtol=1e-9) for name in before))
    for scenario, estimate in before.items():
        experiment.value(raised_by(scenario), raised[scenario] / estimate)
    rounds = [turns[i : i + 2 * QUERIES] for i in range(0, len(turns), 2 * QUERIES)]
    experiment.value(ONE_SIDED, sum(asked.count(SUBMISSION) != QUERIES for asked in rounds))
    experiment.value(FIRST, float(np.mean([asked[0] == SUBMISSION for asked in rounds])))
    for score in ruling.scores:
        ratio = score.ratio
        experiment.value(own_score(score.scenario), ratio.estimate, low=ratio.low, high=ratio.high)
    if can_confine():
        # The estimate of few sittings: it is far from 1, and their interval would be all of their range.
        for scenario, estimate in estimates(ranked_of(benchmark.model, TWICE, settings=QUICK).scores).items():
            experiment.value(twice_the_work(scenario), estimate)


def estimates(scores):
    """The ratio of each scenario."""
    return {score.scenario: score.ratio.estimate for score in scores}


def ranked_of(*submitted, **settings):
    """The ruling on an honest submission."""
    with tempfile.TemporaryDirectory() as folder:
        ruling = ruled(folder, *submitted, **settings)
    if not ruling.ranked:
        raise ValueError(f"an honest submission was refused: {ruling.refused}")
    return ruling


@contextlib.contextmanager
def watched():
    """Note whom the referee asks, query by query, where these come one by one."""
    genuine, turns = PlayerProcess.ask, []

    def ask(self, task, inputs, **details):
        if len(inputs) == 1:
            turns.append(self.entrant.name)
        return genuine(self, task, inputs, **details)

    PlayerProcess.ask = ask
    try:
        yield turns
    finally:
        PlayerProcess.ask = genuine


def with_slower_reference(log):
    """A log in which the reference model took three times as long, and nothing else did."""
    log = copy.deepcopy(log)
    for phase in (phase for sitting in log["sittings"] for phase in sitting.values()):
        times, walls = (np.array(phase[name]) for name in ("reference_ns", "reference_wall_ns"))
        phase["reference_ns"], phase["reference_wall_ns"] = (3 * times).tolist(), (walls + 2 * times).tolist()
    return log


def in_a_third(log):
    """A log in which everything took a third of the time.

    Not three times as long: clocks of players may be off by 20 us and a share, and what is just within these
    would not be where all times but the 20 us are longer.
    """
    if isinstance(log, dict):
        return {
            key: divided(value) if key.endswith("_ns") else in_a_third(value) for key, value in log.items()
        }
    return [in_a_third(item) for item in log] if isinstance(log, list) else log


def divided(times):
    """Times, in lists of lists, divided by three."""
    return [divided(item) for item in times] if isinstance(times, list) else times / 3


def cached_tokens(folder, model, kv_cache):
    """How many tokens the cache holds after a player has continued a text, with a cache or without."""
    weights = Path(folder) / "model"
    setup = Frame({"memory_mb": 4096, "confine": False, "reference": str(weights)}, PROMPT)
    entrant = Entrant(SUBMISSION, Path(folder), weights, kv_cache=kv_cache)
    with PlayerProcess(entrant, setup, limit_s=20.0) as player:
        player.load()
        player.ask("generate", PROMPT, new_tokens=8)
        return player.describe()["cached_tokens"]


def badges(model, reference, inputs, kv_cache=None):
    """The kinds of badges that a model's file earns, for a GPT also with its cache, or without one."""
    with tempfile.TemporaryDirectory() as folder:
        tt.save_model(model, Path(folder) / "model")
        found = inspect_artefact(Path(folder) / "model", reference, inputs)
        tokens = 0 if kv_cache is None else cached_tokens(folder, model, kv_cache)
    return {badge.partition(" (")[0] for badge in badges_of(found, tokens)}


PROMPT = np.arange(16)[None] % 11
MISSED, UNDESERVED = "badges earned and not given", "badges given and not earned"


@suite.claim(
    "benchmarking.innovation",
    "Badges are given for techniques that are found in the file or in use, and for no others",
    source=f"{README}: innovation score",
    criteria=[Value(MISSED, equals=0), Value(UNDESERVED, equals=0)],
    expected_s=4,
)
def innovation(experiment: Experiment) -> None:
    """All badges of each model; plain ones, and one with bytes for show, are to earn none."""
    benchmark = small_event()
    model, inputs = benchmark.model, benchmark.inputs[:32]
    for_show = copy.deepcopy(model)
    for_show.layers[0].unused = np.zeros((400, 400), np.int8)
    gpt = tt.GPT(11, 16, 2, 2, 48, rng=np.random.default_rng(0)).eval()
    rows = (
        ({"int8", "smaller"}, quantize_model(model, QuantizationConfig(min_weights=0)), model, inputs),
        ({"zeros", "fewer numbers"}, magnitude_prune(copy.deepcopy(model), 0.8), model, inputs),
        ({"fewer numbers", "smaller"}, tt.Sequential(tt.Linear(64, 10)).eval(), model, inputs),
        (set(), model, model, inputs),
        (set(), for_show, model, inputs),
        ({"KV cache"}, gpt, gpt, PROMPT, True),
        (set(), gpt, gpt, PROMPT, False),
    )
    found = [(earned, badges(*asked)) for earned, *asked in rows]
    experiment.value(MISSED, sum(len(earned - given) for earned, given in found))
    experiment.value(UNDESERVED, sum(len(given - earned) for earned, given in found))


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
