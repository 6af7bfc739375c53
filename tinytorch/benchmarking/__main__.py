"""`python -m tinytorch.benchmarking`: TinyMLPerf from a terminal."""

import sys

from tinytorch.benchmarking.tinymlperf.command import main_in_a_pipe

if __name__ == "__main__":
    sys.exit(main_in_a_pipe())
