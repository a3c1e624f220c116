"""What analyze.py runs: one question about a trained network, which is named as for evaluate.py."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cli.certify import CERTIFY_OPTIONS, Settings, certify_run
from cli.names import UsageError, number_in, recipes, resolve, unknown
from cli.processes import device_of
from cli.quiet import hush
from cli.targets import Target, refusing, target_of
from cli.train import guarded

HELP = """\
usage: python analyze.py certify RUN_OR_CHECKPOINT [options]
       python analyze.py noise-guide RUN_OR_CHECKPOINT [options]
       python analyze.py noise-levels RUN
       with --weights FILE --model RECIPE in the place of the run or checkpoint

certify      the L2 radius within which the smoothed network's answer provably stays the same, image by image
             (randomized smoothing, Cohen et al. 2019); goes on where it stopped when the same command is typed again
noise-guide  how large the tensors are that noise is added to, layer by layer, beside the noise
noise-levels what became of learned noise in training, layer by layer: table and figure (noise_levels.svg in the run)

recipes  {recipes}

examples
  python analyze.py certify runs/gauss_augmented/2026-01-31_12-00-00
  python analyze.py certify runs/plain/2026-01-31_12-00-00 --std 0.25 --samples 10000 --images 500
  python analyze.py certify --weights published.safetensors --model plain --std 0.12 --data.root /data
  python analyze.py noise-guide runs/robustnet/2026-01-31_12-00-00 --images 1000

options of certify, in any order; `--a b` or `--a=b`
  --std S               of the noise in pixels of [0, 1] (default: that of the network's own Gauss channel,
                        whose place it takes)
  --n0 N                samples that select the class (default: 100)
  --samples N           samples that estimate its probability; more give larger radii (default: 1000)
  --alpha A             probability that a certificate is wrong (default: 0.001)
  --batch_size N        noisy copies in one pass; not part of the result (default: 250)
  --out DIR             where the rows, table and figure go (default: RUN/evaluations/certify_...)

options of both
  --images N            the first N images (default: 500, or all if there are fewer)
  --split NAME          test, val or train (default: test)
  --seed N              of the noise (default: 0)
  --weights FILE        .safetensors or .pth in our layout, torchvision's or the papers' authors'
  --model NAME          the recipe that the weights belong to
  --model.X --data.X --trainer.X
                        any argument of network, data set or Trainer, such as --data.root; one device is used
"""
_TAKEN = ("--weights", "--images", "--split", "--seed")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run analyze.py; returns its exit code: 0 done, 2 wrong input, 1 stopped by a failure, 130 interrupted."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    return guarded(lambda: _main(words))


def _main(words: list[str]) -> None:
    if not words or {"-h", "--help"} & set(words):
        print(HELP.format(recipes=", ".join(recipes())), end="")
        return
    hush()
    kind, *rest = words
    if kind not in _ANALYSES:
        raise UsageError(unknown("analysis", kind, _ANALYSES, "the first word"))
    _ANALYSES[kind](rest)


def _certify(words: list[str]) -> None:
    invocation = resolve(words, take=(*_TAKEN, *CERTIFY_OPTIONS))
    settings, images = Settings.of(words, invocation.taken), Images.of(invocation.taken)
    target = target_of(invocation)
    split, n = images.in_target(target)
    certify_run(target, settings, images.split, split, n)


def _noise_guide(words: list[str]) -> None:
    invocation = resolve(words, take=_TAKEN)
    images = Images.of(invocation.taken)
    target = target_of(invocation)
    split, n = images.in_target(target)

    from analysis.noise_guide import noise_guide, table
    from datamodules.pixels import unit_range

    device, (pixels, _) = device_of(target.cli.config_init.trainer, "noise-guide"), split[list(range(n))]
    rows = noise_guide(target.network.to(device), unit_range(pixels.to(device)))
    data = target.cli.config.data.class_path.rsplit(".", 1)[-1]
    print(f"\n{target.recipe} ({target.source}), {data} {images.split}, n = {n}\n{table(rows)}")


def _noise_levels(words: list[str]) -> None:
    if len(words) != 1 or words[0].startswith("--"):
        raise UsageError(f"noise-levels takes one run folder of train.py and no option, got '{' '.join(words)}'")
    from analysis.noise_levels import curves, figure, table
    from evaluation import aligned

    run = Path(words[0])
    layers = refusing(curves, run)
    figure(layers, f"{run}: learned noise").savefig(run / "noise_levels.svg")
    print(f"\n{run}\n{aligned(table(layers))}\nwrote {run / 'noise_levels.svg'}")


_ANALYSES: dict[str, Callable[[list[str]], None]] = {
    "certify": _certify,
    "noise-guide": _noise_guide,
    "noise-levels": _noise_levels,
}


@dataclass(frozen=True)
class Images:
    """Which images: the first `n` of a split, None for a number that suits."""

    split: str
    n: int | None

    @classmethod
    def of(cls, taken: dict[str, str]) -> "Images":
        """Read the options.

        Raises:
            UsageError: a value is of the wrong kind.
        """
        split = taken.get("--split", "test")
        if split not in ("test", "val", "train"):
            raise UsageError(f"--split takes test, val or train, got '{split}'")
        return cls(split, number_in(taken, "--images", int, 1))

    def in_target(self, target: Target) -> tuple[Any, int]:
        """The split, and how many of its images.

        Raises:
            UsageError: it has not so many.
        """
        split = refusing(target.cli.datamodule.split, self.split)
        if self.n is not None and self.n > len(split):
            raise UsageError(f"--images {self.n}: the {self.split} split has {len(split)} images")
        return split, self.n or min(500, len(split))
