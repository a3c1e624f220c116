"""What evaluate.py runs: a trained network, the images it has not learned from, and a suite of attacks."""

import hashlib
import json
import platform
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.names import UsageError, changed, number_in, recipes, resolve, suites, unknown
from cli.processes import no_survivors, slurm_job, trainer_of
from cli.quiet import hush
from cli.targets import Target, refusing, target_of
from cli.train import guarded

if TYPE_CHECKING:
    import pytorch_lightning as pl

    from attacks import Attack
    from evaluation import Records

HELP = """\
usage: python evaluate.py RUN_OR_CHECKPOINT [options]
       python evaluate.py --weights FILE --model RECIPE [options]

Say how robust a network is: each image attacked, then judged on fresh draws. Model, data and recipe come from the run.
A killed evaluation goes on where it stopped when the same command is typed again.

suites   {suites}
recipes  {recipes}

examples
  python evaluate.py runs/robustnet_adv/2026-01-31_12-00-00
  python evaluate.py runs/robustnet_adv/2026-01-31_12-00-00 --eps 8/255 --n 1000
  python evaluate.py runs/robustnet_adv/2026-01-31_12-00-00/checkpoints/last.ckpt --suite pgd --draws 100
  python evaluate.py --weights published.safetensors --model robustnet_adv --data.root /data
  python evaluate.py RUN --trainer.devices 2 --trainer.strategy ddp

options, in any order; `--a b` or `--a=b`
  --suite NAME          attacks: a file of configs/suites or a YAML file; none: clean images only (default: pgd)
  --eps R               radius of all attacks in pixels of [0, 1], such as 8/255 (default: the suite's)
  --n N                 the first N images (default: all)
  --draws N             passes of the judge per image (default: 20 for a random network, 1 for another)
  --split NAME          test, val or train (default: test)
  --batch_size N        images per unit of work (default: 250)
  --seed N              of attacks and judge (default: 0)
  --early_exit BOOL     a network without noise: stop attacking an image once it is misclassified (default: true)
  --out DIR             where the table goes (default: RUN/evaluations/...)
  --weights FILE        .safetensors or .pth in our layout, torchvision's or the papers' authors'
  --model NAME          the recipe that the weights belong to
  --model.X --data.X --trainer.X
                        any argument of network, data set or Lightning's Trainer, such as --data.root, --trainer.devices
"""
_KEPT = 8  # of so many images every adversary's version is kept: the report shows them
_TAKEN = (
    "--weights",
    "--suite",
    "--eps",
    "--n",
    "--draws",
    "--split",
    "--batch_size",
    "--seed",
    "--early_exit",
    "--out",
)


@dataclass(frozen=True)
class Settings:
    """How to evaluate, whatever is evaluated; `words` is the command line that said so."""

    words: tuple[str, ...]
    suite: Path | None
    eps: float | None
    n: int | None
    draws: int | None
    split: str
    batch_size: int
    seed: int
    early_exit: bool
    out: Path | None

    @classmethod
    def of(cls, words: Sequence[str], taken: dict[str, str]) -> "Settings":
        """Read the options that this program has of its own.

        Raises:
            UsageError: a value is of the wrong kind.
        """
        split = taken.get("--split", "test")
        early_exit = taken.get("--early_exit", "true").lower()
        if early_exit not in ("true", "false"):
            raise UsageError(f"--early_exit takes true or false, got '{taken['--early_exit']}'")
        if split not in ("test", "val", "train"):
            raise UsageError(f"--split takes test, val or train, got '{split}'")
        return cls(
            words=tuple(words),
            suite=_suite(taken.get("--suite", "pgd")),
            eps=number_in(taken, "--eps", float, 0),
            n=number_in(taken, "--n", int, 1),
            draws=number_in(taken, "--draws", int, 1),
            split=split,
            batch_size=number_in(taken, "--batch_size", int, 1) or 250,
            seed=number_in(taken, "--seed", int, 0) or 0,
            early_exit=early_exit == "true",
            out=Path(taken["--out"]) if "--out" in taken else None,
        )


def _suite(name: str) -> Path | None:
    if name in suites():
        return suites()[name]
    if Path(name).is_file():
        return Path(name)
    if name == "none":
        return None
    raise UsageError(unknown("suite", name, [*suites(), "none"], "see configs/suites"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run evaluate.py; returns its exit code: 0 done, 2 wrong input, 1 stopped by a failure, 130 interrupted."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    return guarded(lambda: _main(words))


def _main(words: list[str]) -> None:
    if not words or {"-h", "--help"} & set(words):
        print(HELP.format(suites=", ".join(suites()), recipes=", ".join(recipes())), end="")
        return
    hush()
    invocation = resolve(words, take=_TAKEN)
    settings = Settings.of(words, invocation.taken)
    target = target_of(invocation)
    evaluate(target, settings)


def evaluate(target: Target, settings: Settings) -> None:
    """Evaluate, on as many devices as asked for, and print the table."""
    import torch

    from callbacks import EndOnSigterm, Requeue, on_terminal
    from cli.evaluator import Evaluator
    from cli.parser import read_suite
    from defenses import is_random

    # A GPU would round the factors of convolutions to 10 bits (TF32); reported numbers are float32.
    torch.backends.fp32_precision = "ieee"  # type: ignore[attr-defined]
    attacks = read_suite(settings.suite, settings.eps) if settings.suite else {}
    split = refusing(target.cli.datamodule.split, settings.split)
    size = len(split)
    if settings.n is not None and settings.n > size:
        raise UsageError(f"--n {settings.n}: the {settings.split} split has {size} images")
    n = settings.n or size
    draws = settings.draws or (20 if is_random(target.network) else 1)
    records = _open_records(target, settings, attacks, n, draws)
    units = (n, settings.batch_size, settings.seed, draws, records.manifest["early_exit"], records.manifest["keep"])
    evaluator = Evaluator(target.network, split, attacks, records, *units)
    trainer = trainer_of(
        {
            **target.cli.config_init.trainer,
            "precision": "32-true",
            "logger": False,
            "callbacks": [Requeue(None) if slurm_job() else EndOnSigterm()],
            "enable_checkpointing": False,
            "enable_progress_bar": on_terminal(),
            "default_root_dir": str(records.folder),
        }
    )
    with no_survivors(trainer):
        trainer.test(evaluator, verbose=False)
        trainer.strategy.barrier()  # nobody reads the table before all have written
    if trainer.is_global_zero:
        _report(target, settings, records, attacks, trainer)


def _open_records(target: Target, settings: Settings, attacks: dict[str, "Attack"], n: int, draws: int) -> "Records":
    """The folder of this evaluation: the same command finds it again, another one gets another."""
    from defenses import is_random
    from evaluation import Records

    data = target.cli.config.data
    arguments = {k: v for k, v in data.init_args.as_dict().items() if k in ("val_images", "seed")}
    manifest = {
        "adversaries": ["clean", *attacks],
        "attacks": {name: repr(attack) for name, attack in attacks.items()},
        "batch_size": settings.batch_size,
        "data": {"class_path": data.class_path, **(arguments if settings.split != "test" else {})},
        "draws": draws,
        "early_exit": settings.early_exit and not is_random(target.network),
        "model": target.cli.config.model.init_args.network.as_dict(),
        "keep": min(n, _KEPT),
        "n": n,
        "recipe": target.recipe,
        "seed": settings.seed,
        "split": settings.split,
        "weights_sha256": hashlib.sha256(target.source.read_bytes()).hexdigest(),
    }
    digest = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()[:8]
    name = settings.suite.stem if settings.suite else "clean"
    folder = settings.out or target.folder / "evaluations" / f"{name}_{settings.split}{n}_{digest}"
    records: Records = refusing(Records, folder, manifest)
    for part in records.dropped:
        print(f"{folder / part}: was damaged and is done again", file=sys.stderr)
    return records


def _report(
    target: Target, settings: Settings, records: "Records", attacks: dict[str, "Attack"], trainer: "pl.Trainer"
) -> None:
    """Everything from the table: the printed numbers and results.json."""
    from defenses import is_random
    from evaluation import format_table, summarise, write_results

    records.check(records.manifest["n"])
    per_image = records.finish()
    random = is_random(target.network)
    summaries = summarise(records.table(), random=random, seed=settings.seed)
    results = write_results(records.folder, summaries, {**records.manifest, "environment": _environment(trainer)})
    print(format_table(summaries, _caption(target, settings, records, attacks)))
    print(f"wrote {per_image}\nwrote {results}")
    longer = random and records.manifest["draws"] < 100
    change = {"--draws": "100"} if longer else {"--seed": str(settings.seed + 1)}
    print(f"next: python evaluate.py {shlex.join(changed(settings.words, change))}")


def _caption(target: Target, settings: Settings, records: "Records", attacks: dict[str, "Attack"]) -> str:
    data = records.manifest["data"]["class_path"].rsplit(".", 1)[-1]
    draws = records.manifest["draws"]
    passes = f"{draws} judge draws per image" if draws > 1 else "1 pass per image"
    n = f"n = {records.manifest['n']}"
    head = f"{target.recipe} ({target.source}), {data} {settings.split}, {n}, {passes}, seed {settings.seed}"
    return "\n".join(["", head, *(f"{name}: {attack}" for name, attack in attacks.items())])


def _environment(trainer: "pl.Trainer") -> dict[str, Any]:
    import numpy
    import torch

    return {
        "date": date.today().isoformat(),
        "device": str(trainer.strategy.root_device),
        "devices": trainer.world_size,
        "machine": platform.machine(),
        "numpy": numpy.__version__,
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
