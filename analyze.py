"""Look into a trained network: `python analyze.py certify RUN`; `python analyze.py --help` shows more."""

import sys

from cli.analyze import main

if __name__ == "__main__":
    sys.exit(main())
