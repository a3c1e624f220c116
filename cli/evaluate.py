"""What evaluate.py runs: one evaluation, or a look at several that are finished."""

import sys
from collections.abc import Callable, Sequence

from cli.names import recipes, resolve, suites
from cli.quiet import hush
from cli.settings import OPTIONS, Settings
from cli.targets import target_at, target_of
from cli.train import guarded

HELP = """\
usage: python evaluate.py RUN_OR_CHECKPOINT [options]
       python evaluate.py --weights FILE --model RECIPE [options]
       python evaluate.py compare EVALUATION EVALUATION ... [--out FILE.html]
       python evaluate.py report EVALUATION ...
       python evaluate.py transfer NETWORK NETWORK ... [options]
       python evaluate.py paper NAME [--scale smoke|laptop|paper] [--weights DIR] [--data.root DIR] [--imagenet DIR]

Say how robust a network is: each image attacked, then judged on fresh draws. Model, data and recipe come from the run.
A killed evaluation goes on where it stopped when the same command is typed again.

compare  several evaluations side by side, with paired differences on common images
report   write report.html of finished evaluations, or transfers, again
paper    a table or figure of the papers, ours beside theirs (configs/papers)
transfer attacks made on each network, shown to all: a matrix; NETWORK is a run, or RECIPE=WEIGHTS_FILE. Of the options
         below it takes --suite, --eps (one radius), --n (default: 500), --draws, --split, --batch_size, --seed, --out
         (default: runs/transfer/...), --model.X, --data.X and --trainer.X (one device), for all networks alike

suites   {suites}
recipes  {recipes}

examples
  python evaluate.py runs/robustnet_adv/2026-01-31_12-00-00
  python evaluate.py runs/robustnet_adv/2026-01-31_12-00-00 --suite adaptive --budget 30m
  python evaluate.py runs/robustnet_adv/2026-01-31_12-00-00 --suite quick --eps 2/255,4/255,8/255 --n 1000
  python evaluate.py runs/robustnet_adv/2026-01-31_12-00-00/checkpoints/last.ckpt --suite pgd --draws 100
  python evaluate.py --weights published.safetensors --model robustnet_adv --data.root /data
  python evaluate.py RUN --trainer.devices 2 --trainer.strategy ddp

options, in any order; `--a b` or `--a=b`
  --suite NAME          attacks: a file of configs/suites or a YAML file; none: clean images only (default: pgd)
  --eps R               radius of all attacks in pixels of [0, 1], such as 8/255 (default: the suite's);
                        several, with commas between them, give a curve
  --n N                 the first N images (default: all)
  --budget TIME         begin no batch after 90s, 30m or 2h, of which at most a third is kept for the checks;
                        the same command goes on from there
  --draws N             passes of the judge per image (default: 100 for a random network, 1 for another)
  --votes K             passes that the deployed model votes over, for the accuracy of a vote (default: 1)
  --checks KIND         how much the evaluation doubts itself: quick, full or none (default: quick)
  --surrogate NETWORK   another network for the same images and classes, from which the checks transfer attacks:
                        a run, or RECIPE=WEIGHTS_FILE
  --split NAME          test, val or train (default: test)
  --batch_size N        images per unit of work (default: 100, on a GPU 500, with --budget 20)
  --seed N              of attacks and judge (default: 0)
  --early_exit BOOL     a network without noise: stop attacking an image once it is misclassified (default: true)
  --keep N              keep what every adversary made of the first N images (default: 8, for the report)
  --wandb BOOL          show the finished evaluation in W&B, too (default: false)
  --out DIR             where everything goes (default: RUN/evaluations/...)
  --weights FILE        .safetensors or .pth in our layout, torchvision's or the papers' authors'
  --model NAME          the recipe that the weights belong to
  --model.X --data.X --trainer.X
                        any argument of network, data set or Lightning's Trainer, such as --data.root, --trainer.devices
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run evaluate.py; returns its exit code: 0 done, 2 wrong input, 1 stopped by a failure, 130 interrupted."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    return guarded(lambda: _main(words))


def _main(words: list[str]) -> None:
    if not words or {"-h", "--help"} & set(words):
        print(HELP.format(suites=", ".join(suites()), recipes=", ".join(recipes())), end="")
        return
    hush()
    if words[0] in _COMMANDS:
        _COMMANDS[words[0]](words[1:])
    else:
        _evaluate(words)


def _evaluate(words: list[str]) -> None:
    invocation = resolve(words, take=OPTIONS)
    settings = Settings.of(words, invocation.taken)
    target = target_of(invocation)
    from cli.evaluation import evaluate

    words = [word for word in invocation.options if word.startswith("--data")]
    surrogate = None if settings.surrogate is None else target_at(settings.surrogate, words)
    evaluate(target, settings, surrogate)


def _compare(words: list[str]) -> None:
    from cli.compare import main as compare

    compare(words)


def _report(words: list[str]) -> None:
    from cli.report import main as report

    report(words)


def _transfer(words: list[str]) -> None:
    from cli.transfer import main as transfer

    transfer(words)


def _paper(words: list[str]) -> None:
    from cli.paper import main as paper

    paper(words)


_COMMANDS: dict[str, Callable[[list[str]], None]] = {
    "compare": _compare,
    "paper": _paper,
    "report": _report,
    "transfer": _transfer,
}
