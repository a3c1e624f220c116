"""What train.py runs: a recipe, a data set, a folder for the run, and training in it."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.names import Invocation, UsageError, exported, recipes, resolve
from cli.runs import checkpoint_in, folder_of, last_run, new_run_folder

if TYPE_CHECKING:
    import pytorch_lightning as pl

    from cli.parser import ConfiguredCLI

HELP = """\
usage: python train.py --model RECIPE [--data NAME] [options]

Train a network that shall withstand adversarial examples. Everything ends up in runs/RECIPE/TIME/.

recipes  {recipes}
data     {data}

examples
  python train.py --model robustnet_adv
      the papers' best model: ResNet-20 on CIFAR-10, 160 epochs
  python train.py --model robustnet_adv --data Digits --trainer.max_epochs 10
      a few minutes on a laptop, real images without a download
  python train.py --model pni_w_adv --data SVHN --data.root /data/svhn --data.flip true
  python train.py --model robustnet_adv --model.attack.steps 20 --model.attack.ball.eps 8/255
  python train.py --model robustnet_adv --model.network.init.std 0.2 --model.network.inner.std 0.2
  python train.py --model robustnet_adv --trainer.devices 2 --trainer.strategy ddp
  python train.py --model robustnet_adv --ckpt_path last
      goes on where the last run of the recipe stopped

options, in any order; `--a b` or `--a=b`
  --model NAME          a recipe (configs/models), a YAML file, or the class path of a LightningModule
  --data NAME           a data set, or the class path of a LightningDataModule
  --data.root DIR       where the official files are (default: data)
  --seed N              of weights, order, augmentation and all noise (default: 0)
  --ckpt_path PATH      go on from a checkpoint or run folder; `last`: the recipe's newest run
  --logger VALUE        wandb (default; offline without an account) or false
  --run_dir DIR         where runs are kept (default: runs)
  --config FILE         more settings, in the form of the config.yaml of a run
  --model.X --data.X --trainer.X --checkpoint.X
                        any argument of the recipe's class, the data set, Lightning's Trainer, ModelCheckpoint
  --help_all            all of them (takes some seconds)
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run train.py; returns its exit code: 0 done, 2 wrong input, 1 stopped by a failure, 130 interrupted."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    return guarded(lambda: _main(words))


def guarded(command: Any) -> int:
    """Run a command; what the user can mend ends in one line and not in a traceback."""
    try:
        command()
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except FileNotFoundError as error:
        print(f"error: {_text(error)}", file=sys.stderr)
        return 2
    except (FloatingPointError, OSError) as error:
        print(f"error: {_text(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


def _text(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror.lower()}" if error.filename else error.strerror
    return " ".join(str(error).split())


def _main(words: list[str]) -> None:
    if not words or {"-h", "--help"} & set(words):
        print(HELP.format(recipes=", ".join(recipes()), data=", ".join(exported("datamodules")[:-1])), end="")
        return
    invocation = resolve(words, take=("--ckpt_path", "--logger", "--run_dir"))
    if "--help_all" in words:
        invocation.options = ["--help"]
    elif invocation.recipe is None:
        raise UsageError(f"--model is missing; recipes: {', '.join(recipes())}")
    train(invocation)


def train(invocation: Invocation) -> None:
    """Train what an invocation describes.

    Raises:
        UsageError: something in it is wrong.
    """
    assert invocation.recipe is not None or invocation.options == ["--help"]
    root = Path(invocation.taken.get("--run_dir", "runs"))
    resumed = _checkpoint_to_resume(invocation.taken.get("--ckpt_path"), root, invocation.recipe or "")
    folder = folder_of(resumed) if resumed else new_run_folder(root, invocation.recipe or "")
    logger = invocation.taken.get("--logger", "wandb")
    if logger.lower() not in ("wandb", "false"):
        raise UsageError(f"--logger takes wandb or false, got '{logger}'")
    _make_writable(folder)

    from cli.parser import ConfiguredCLI, read_settings

    # A run that goes on starts from its own settings, not from a recipe that may have changed since.
    saved = folder / "config.yaml"
    cli = ConfiguredCLI(invocation, [read_settings(saved)] if resumed and saved.is_file() else [])
    trainer = _trainer(cli, folder, invocation.recipe or "", logger)
    if trainer.is_global_zero:
        saved.write_text(cli.config_text())
        print(f"run folder: {folder}", flush=True)
    trainer.fit(cli.model, datamodule=cli.datamodule, ckpt_path=str(resumed) if resumed else None, weights_only=True)
    if trainer.is_global_zero:
        _report(trainer, folder)


def _checkpoint_to_resume(given: str | None, root: Path, recipe: str) -> Path | None:
    if given is None:
        return None
    return checkpoint_in(last_run(root, recipe) if given == "last" else Path(given), prefer="last")


def _make_writable(folder: Path) -> None:
    try:
        (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--run_dir: cannot write to {folder} ({(error.strerror or str(error)).lower()})") from None
    if not os.access(folder, os.W_OK):
        raise UsageError(f"--run_dir: cannot write to {folder} (permission denied)")


def _trainer(cli: "ConfiguredCLI", folder: Path, recipe: str, logger: str) -> "pl.Trainer":
    """The Trainer of the config with what every run has: its metrics file, its checkpoints, its display."""
    import pytorch_lightning as pl
    from pytorch_lightning.callbacks import ModelCheckpoint

    from callbacks import ConfigInCheckpoint, LastCheckpoint, MetricsFile, StopOnNaN, on_terminal, progress_display

    settings = dict(cli.config_init.trainer)
    checkpoints = folder / "checkpoints"
    best = ModelCheckpoint(**{**cli.config.checkpoint.as_dict(), "dirpath": checkpoints})
    settings["callbacks"] = [
        *(settings["callbacks"] or []),
        progress_display(),
        ConfigInCheckpoint({"recipe": recipe, "yaml": cli.config_text()}),
        StopOnNaN(),
        *([best] if getattr(cli.datamodule, "val_images", 1) else []),
        LastCheckpoint(checkpoints),
    ]
    settings["logger"] = [MetricsFile(folder), *_wandb(folder, recipe, logger, cli)]
    settings["default_root_dir"] = str(folder)
    settings["enable_checkpointing"] = True
    settings["enable_progress_bar"] = on_terminal()
    return pl.Trainer(**settings)


def _wandb(folder: Path, recipe: str, logger: str, cli: "ConfiguredCLI") -> list[Any]:
    if logger.lower() == "false":
        return []
    import yaml

    from callbacks.wandb_run import WandbRun

    run = WandbRun(folder, recipe)
    run.log_hyperparams(yaml.safe_load(cli.config_text()))
    return [run]


def _report(trainer: "pl.Trainer", folder: Path) -> None:
    logged = trainer.callback_metrics
    values = [f"{name} {float(logged[name]):.4f}" for name in ("val/clean", "val/robust") if name in logged]
    print(f"done: {trainer.global_step} steps  {'  '.join(values)}")
    written = ["config.yaml", "metrics.jsonl", *sorted(f"checkpoints/{p.name}" for p in folder.glob("checkpoints/*"))]
    print(f"wrote {folder}/: {', '.join(written)}")
    print(f"next: python evaluate.py {folder}")
