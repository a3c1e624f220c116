"""What evaluate.py runs: a trained network, the images it has not learned from, and a suite of attacks."""

import hashlib
import json
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.names import Invocation, UsageError, number, recipes, resolve, suites, unknown
from cli.processes import no_survivors, slurm_job, trainer_of
from cli.quiet import hush
from cli.runs import checkpoint_in, folder_of
from cli.train import guarded

if TYPE_CHECKING:
    import pytorch_lightning as pl
    from torch import nn

    from attacks import Attack
    from cli.parser import ConfiguredCLI
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
  --out DIR             where the table goes (default: RUN/evaluations/...)
  --weights FILE        .safetensors or .pth in our layout, torchvision's or the papers' authors'
  --model NAME          the recipe that the weights belong to
  --model.X --data.X --trainer.X
                        any argument of network, data set or Lightning's Trainer, such as --data.root, --trainer.devices
"""
_TAKEN = ("--weights", "--suite", "--eps", "--n", "--draws", "--split", "--batch_size", "--seed", "--out")


@dataclass(frozen=True)
class Settings:
    """How to evaluate, whatever is evaluated."""

    suite: Path | None
    eps: float | None
    n: int | None
    draws: int | None
    split: str
    batch_size: int
    seed: int
    out: Path | None

    @classmethod
    def of(cls, taken: dict[str, str]) -> "Settings":
        """Read the options that this program has of its own.

        Raises:
            UsageError: a value is of the wrong kind.
        """
        split = taken.get("--split", "test")
        if split not in ("test", "val", "train"):
            raise UsageError(f"--split takes test, val or train, got '{split}'")
        return cls(
            suite=_suite(taken.get("--suite", "pgd")),
            eps=_number(taken, "--eps", float, 0),
            n=_number(taken, "--n", int, 1),
            draws=_number(taken, "--draws", int, 1),
            split=split,
            batch_size=_number(taken, "--batch_size", int, 1) or 250,
            seed=_number(taken, "--seed", int, 0) or 0,
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


def _number(taken: dict[str, str], option: str, kind: Any, least: int) -> Any:
    if option not in taken:
        return None
    given = taken[option]
    try:
        value = kind(number(given))
    except ValueError:
        value = None
    if value is None or not least <= value < float("inf"):
        what = "a whole number" if kind is int else "a number such as 0.031 or 8/255,"
        raise UsageError(f"{option} takes {what} >= {least}, got '{given}'")
    return value


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
    places = [word for word in invocation.options if not word.startswith("--")]
    invocation.options = [word for word in invocation.options if word.startswith("--")]
    settings = Settings.of(invocation.taken)
    weights = invocation.taken.get("--weights")
    if len(places) + (weights is not None) != 1:
        raise UsageError("give one run folder or checkpoint, or --weights FILE --model RECIPE; see --help")
    if weights is None:
        target = _from_run(checkpoint_in(Path(places[0]), prefer="best"), invocation)
    else:
        target = _from_weights(Path(weights), invocation)
    evaluate(target, settings)


@dataclass
class Target:
    """What is evaluated: the network and data of a configuration, with the weights of a file in it."""

    cli: "ConfiguredCLI"
    source: Path
    folder: Path
    recipe: str

    @property
    def network(self) -> "nn.Module":
        """Images in [0, 1] -> logits."""
        network: nn.Module = self.cli.model.network
        return network


def _from_run(checkpoint: Path, invocation: Invocation) -> Target:
    """A run's model and data as they were configured, with the weights of one of its checkpoints."""
    import yaml

    from callbacks import CONFIG_KEY
    from models import load_tensors

    content = _refusing(load_tensors, checkpoint)
    if not isinstance(content, dict) or "state_dict" not in content:
        raise UsageError(f"{checkpoint}: no checkpoint of train.py (for bare weights: --weights FILE --model RECIPE)")
    saved = content.get(CONFIG_KEY)
    if not saved and invocation.config is None:
        raise UsageError(f"{checkpoint}: holds no configuration; say which recipe it belongs to: --model RECIPE")
    settings = yaml.safe_load(saved["yaml"]) if saved and invocation.config is None else {}
    kept = {key: settings[key] for key in ("model", "data", "seed_everything") if key in settings}
    # Only the network's: the module around it also keeps what training needed.
    tensors = {
        key.removeprefix("network."): value
        for key, value in content["state_dict"].items()
        if key.startswith("network.")
    }
    recipe = invocation.recipe or str(saved["recipe"] if saved else "")
    return _loaded(invocation, [kept] if kept else [], tensors, checkpoint, folder_of(checkpoint), recipe)


def _from_weights(path: Path, invocation: Invocation) -> Target:
    """A recipe's network with published weights."""
    from models import read_weights

    if invocation.recipe is None:
        raise UsageError(f"--weights needs --model, the recipe they belong to; recipes: {', '.join(recipes())}")
    weights = _refusing(read_weights, path)
    folder = Path("runs") / "weights" / path.stem
    target = _loaded(invocation, [], weights.tensors, path, folder, invocation.recipe)
    _compare_noise(target, weights.metadata)
    return target


def _loaded(
    invocation: Invocation, configs: list[dict[str, Any]], tensors: Any, source: Path, folder: Path, recipe: str
) -> Target:
    from cli.parser import ConfiguredCLI
    from models import load_weights

    cli = ConfiguredCLI(invocation, configs)
    _refusing(load_weights, cli.model.network, tensors, str(source))
    return Target(cli, source, folder, recipe)


def _refusing(function: Any, *arguments: Any) -> Any:
    """Call something that judges the user's files: what it refuses is the user's to mend."""
    try:
        return function(*arguments)
    except ValueError as error:
        raise UsageError(str(error)) from None


def _compare_noise(target: Target, metadata: dict[str, str]) -> None:
    """Noise at another level than in training ruins an evaluation: refuse it where the file says its level."""
    from defenses import RobustNet

    network = target.network
    said = {level: float(metadata[f"noise_{level}"]) for level in ("init", "inner") if f"noise_{level}" in metadata}
    used = network.noise_levels if isinstance(network, RobustNet) else dict.fromkeys(said, 0.0)
    if wrong := [level for level in said if used[level] != said[level]]:
        texts = [f"{level} noise {said[level]:g} (the model: {used[level]:g})" for level in wrong]
        options = " ".join(f"--model.network.{level}.std {said[level]:g}" for level in wrong)
        raise UsageError(
            f"{target.source} was trained with {', '.join(texts)}; add {options}, or choose the recipe it belongs to"
        )


def evaluate(target: Target, settings: Settings) -> None:
    """Evaluate, on as many devices as asked for, and print the table."""
    import torch

    from callbacks import Requeue, on_terminal
    from cli.evaluator import Evaluator
    from cli.parser import read_suite
    from defenses import is_random

    # A GPU would round the factors of convolutions to 10 bits (TF32); reported numbers are float32.
    torch.backends.fp32_precision = "ieee"  # type: ignore[attr-defined]
    attacks = read_suite(settings.suite, settings.eps) if settings.suite else {}
    split = _refusing(target.cli.datamodule.split, settings.split)
    size = len(split)
    if settings.n is not None and settings.n > size:
        raise UsageError(f"--n {settings.n}: the {settings.split} split has {size} images")
    n = settings.n or size
    draws = settings.draws or (20 if is_random(target.network) else 1)
    records = _open_records(target, settings, attacks, n, draws)
    evaluator = Evaluator(target.network, split, attacks, records, n, settings.batch_size, settings.seed, draws)
    trainer = trainer_of(
        {
            **target.cli.config_init.trainer,
            "logger": False,
            "callbacks": [Requeue(None)] if slurm_job() else None,
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
    from evaluation import Records

    data = target.cli.config.data
    arguments = {k: v for k, v in data.init_args.as_dict().items() if k in ("val_images", "seed")}
    manifest = {
        "adversaries": ["clean", *attacks],
        "attacks": {name: repr(attack) for name, attack in attacks.items()},
        "batch_size": settings.batch_size,
        "data": {"class_path": data.class_path, **(arguments if settings.split != "test" else {})},
        "draws": draws,
        "model": target.cli.config.model.init_args.network.as_dict(),
        "n": n,
        "recipe": target.recipe,
        "seed": settings.seed,
        "split": settings.split,
        "weights_sha256": hashlib.sha256(target.source.read_bytes()).hexdigest(),
    }
    digest = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()[:8]
    name = settings.suite.stem if settings.suite else "clean"
    folder = settings.out or target.folder / "evaluations" / f"{name}_{settings.split}{n}_{digest}"
    records: Records = _refusing(Records, folder, manifest)
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
