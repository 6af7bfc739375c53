"""`python -m perfclaims`."""

import sys

from perfclaims.cli import main

if __name__ == "__main__":
    sys.exit(main())
