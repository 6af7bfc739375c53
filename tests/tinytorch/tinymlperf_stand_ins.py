"""A small event and quick settings, for tests of the referee."""

import functools
from dataclasses import replace

import numpy as np

import tinytorch as tt
from tinytorch.benchmarking.tinymlperf.events import EVENTS, LoadedBenchmark, load_event
from tinytorch.benchmarking.tinymlperf.scenarios import Settings
from tinytorch.benchmarking.tinymlperf.submissions import pack
from tinytorch.core.models import save_model

QUICK = Settings(min_duration_s=0.06, sittings=6, call_limit_s=20.0)

HONEST = """
from pathlib import Path
from tinytorch.core.models import load_model

def load(folder):
    return load_model(Path(folder) / "model.safetensors").eval()
"""


@functools.cache
def small_benchmark():
    """The MLP Sprint with the smallest reference model."""
    return load_event(replace(EVENTS["mlp_sprint"], reference="digits-mlp"), 0)


@functools.cache
def text_benchmark():
    """The Transformer Decathlon with a tiny model that was never trained, and a text of random characters."""
    rng = np.random.default_rng(0)
    model = tt.GPT(11, 16, 2, 2, 48, rng=rng).eval()
    text = rng.integers(0, 11, 2000)
    starts = rng.integers(0, 1900, 8)[:, None] + np.arange(48)
    event = EVENTS["transformer_decathlon"]
    return LoadedBenchmark(event, model, text[starts], text[starts + 1], text[starts], "0" * 64, text)


def phase(submission_ns, reference_ns, *, hidden_ns=0, losses=((0.0,), (0.0,)), examples=1):
    """A phase of a log; `submission_ns` and `reference_ns` are lists of rounds."""
    walls = [
        [[t + way for t in times] for times in rounds]
        for rounds, way in ((submission_ns, 50_000 + hidden_ns), (reference_ns, 50_000))
    ]
    return {
        "examples": examples,
        "duration_s": 1.0,
        "losses": {"submission": list(losses[0]), "reference": list(losses[1])},
        "submission_ns": submission_ns,
        "reference_ns": reference_ns,
        "submission_wall_ns": walls[0],
        "reference_wall_ns": walls[1],
    }


def log_of(ratios, *, accuracy=((0.0,), (0.0,)), **options):
    """A log whose sittings have these ratios in both scenarios."""
    return {
        "seed": 0,
        "data": "0" * 64,
        "accuracy": {"submission": list(accuracy[0]), "reference": list(accuracy[1])},
        "sittings": [
            {
                name: phase([[100_000] * 10] * 3, [[round(100_000 * ratio)] * 10] * 3, **options)
                for name in ("single-stream", "offline")
            }
            for ratio in ratios
        ],
    }


def packed(
    folder,
    *,
    model=None,
    code=None,
    name="a model",
    division=None,
    kv_cache=False,
    weights=None,
    event="mlp_sprint",
):
    """Pack a submission; with code it is one to the open division."""
    source = folder.parent / f"{folder.name}-source"
    source.mkdir(parents=True)
    path = source / "weights"
    if weights is not None:
        path.write_bytes(weights)
    else:
        save_model(model or small_benchmark().model, path)
    if code is not None:
        (source / "code.py").write_text(code)
    return pack(
        path,
        folder,
        name=name,
        event=event,
        division=division or ("open" if code is not None else "closed"),
        code=source / "code.py" if code is not None else None,
        kv_cache=kv_cache,
    )
