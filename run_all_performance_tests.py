"""The main job: audits every claim in tests/performance and archives the samples in validation_results."""

import sys
from pathlib import Path

from perfclaims.cli import main

ROOT = Path(__file__).resolve().parent

if __name__ == "__main__":
    sys.exit(
        main(
            program="python run_all_performance_tests.py",
            paths=[ROOT / "tests" / "performance"],
            output_dir=ROOT / "validation_results",
        )
    )
