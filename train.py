"""Train a defense: `python train.py --model robustnet_adv`; `python train.py --help` shows more."""

import sys

from cli.train import main

if __name__ == "__main__":
    sys.exit(main())
