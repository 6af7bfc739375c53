"""The main job: audits every claim in tests/performance and archives the samples in validation_results."""

import shlex
import sys
from pathlib import Path

from perfclaims.cli import main

ROOT = Path(__file__).resolve().parent

if __name__ == "__main__":
    sys.exit(
        main(
            program=f"python {shlex.quote(sys.argv[0])}",
            paths=[ROOT / "tests" / "performance"],
            output_dir=ROOT / "validation_results",
        )
    )
