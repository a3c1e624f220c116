"""Evaluate a defense: `python evaluate.py RUN`; `python evaluate.py --help` shows more."""

import sys

from cli.evaluate import main

if __name__ == "__main__":
    sys.exit(main())
