"""Suite files whose claims take no time, and the command line run on them."""

import json
import os
import subprocess
import sys
from pathlib import Path

HEAD = """\
import ctypes, os, signal, sys, time
import numpy as np
from perfclaims import (
    AccuracyDrop, Implementation, OutputsMatch, Overhead, PerformanceTestSuite, ScalingExponent, SizeRatio,
    Speedup, Value,
)
"""
# Of what stands in a suite file before its suite is made.
LINE = HEAD.count("\n") + 1
# The suites of the fixture `study`.
M, N = "tests/test_module_16_m.py", "tests/test_module_17_n.py"


def claim(id, body="e.value('x', 2)", criteria="Value('x', at_least=1)", options=""):  # noqa: A002
    """Source of a claim; the value 2 passes and 0.5 fails."""
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    return f"@suite.claim({id!r}, 'says {id}', criteria=[{criteria}], {options})\ndef measure(e):\n{lines}\n"


def failing(id, options=""):  # noqa: A002
    """A claim that fails."""
    return claim(id, "e.value('x', 0.5)", options=options)


def suite(path, *claims, name=None, before=""):
    """Write a suite file, in a project of its own where there is none yet."""
    path.parent.mkdir(parents=True, exist_ok=True)
    name = name or path.stem.removeprefix("test_")
    made = f"suite = PerformanceTestSuite({name!r}, title='Title of {name}')\n\n"
    path.write_text(HEAD + before + "\n" + made + "\n".join(claims), encoding="utf-8")
    return path


def command(*arguments, **changes):
    """Arguments for subprocess that call the command line."""
    environment = {**os.environ, **changes.pop("env", {})}
    environment["PYTHONPATH"] = os.pathsep.join(
        [str(Path(__file__).resolve().parents[2]), environment.get("PYTHONPATH", "")]
    )
    return {
        "args": [sys.executable, "-m", "perfclaims", *map(str, arguments)],
        "env": environment,
        "text": True,
        **changes,
    }


def run(*arguments, **changes):
    """Run the command line in a process of its own."""
    made = command(*arguments, **changes)
    return subprocess.run(**made, capture_output=True, timeout=60, check=False)


def documents(folder):
    """The run files of a folder, oldest first."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def verdicts(document):
    """Verdicts of the claims in a run file, by id."""
    return {c["id"]: c["verdict"] for module in document["modules"] for c in module["claims"]}


def files(tmp_path):
    """Names of what the runs of a test left in its folder `out`."""
    out = tmp_path / "out"
    return sorted(path.name for path in out.iterdir()) if out.exists() else []
