"""What train.py runs: a recipe, a data set, a folder for the run, and training in it."""

import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.initial import InitialWeights, comment_of
from cli.names import ROOT, Invocation, UsageError, data_sets, recipes, resolve
from cli.processes import no_survivors, slurm_job, speaks, trainer_of
from cli.quiet import hush
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
  python train.py --model bandlimited --weights plain.safetensors --trainer.max_epochs 2 --model.schedule.lr 0.01
      fine-tunes trained weights

options, in any order; `--a b` or `--a=b`
  --model NAME          a recipe (configs/models), a YAML file, or the class path of a LightningModule
  --data NAME           a data set, or the class path of a LightningDataModule
  --data.root DIR       where the official files are (default: data)
  --seed N              of weights, order, augmentation and all noise (default: 0)
  --ckpt_path PATH      go on from a checkpoint or run folder; `last`: the recipe's newest run
  --weights FILE        a new run that starts from these weights (.safetensors, a state dict, best.ckpt of a run)
  --logger VALUE        wandb (default; offline without an account) or false
  --run_dir DIR         where runs are kept (default: runs)
  --save_every N        batches between two writes of last.ckpt within an epoch (default: 200)
  --config FILE         more settings, in the form of the config.yaml of a run
  --model.X --data.X --trainer.X --checkpoint.X
                        any argument of the recipe's class, the data set, Lightning's Trainer, ModelCheckpoint
  --help_all            all of them (takes some seconds)
"""
_TAKEN = ("--ckpt_path", "--logger", "--run_dir", "--save_every", "--weights")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run train.py; returns its exit code: 0 done, 2 wrong input, 1 failure, 75 requeued, 130 interrupted."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    return guarded(lambda: _main(words))


def guarded(command: Any) -> int:
    """Run a command; what the user can mend ends in one line and not in a traceback."""
    sys.path.append("")  # classes of the user's own, in the current folder
    try:
        command()
    except KeyboardInterrupt:
        return _ended("interrupted", 130)
    except (UsageError, FileNotFoundError) as error:
        return _ended(f"error: {_text(error)}", 2)
    except (FloatingPointError, OSError) as error:
        return _ended(f"error: {_text(error)}", 1)
    except ValueError as error:
        if not _refused_by_us(error):
            raise
        return _ended(f"error: {_text(error)}", 2)
    return 0


def _ended(message: str, code: int) -> int:
    if speaks():
        print(message, file=sys.stderr, flush=True)
    return code


def _refused_by_us(error: ValueError) -> bool:
    """Whether this project's own code refused a value, which it does in one line that is meant for the user."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    file = Path(frame.f_code.co_filename)
    return file.is_relative_to(ROOT) and not file.is_relative_to(sys.prefix)


def _text(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror.lower()}" if error.filename else error.strerror
    return " ".join(str(error).split())


def _main(words: list[str]) -> None:
    if not words or {"-h", "--help"} & set(words):
        print(HELP.format(recipes=", ".join(recipes()), data=", ".join(data_sets())), end="")
        return
    hush()
    invocation = resolve(words, take=_TAKEN)
    if strangers := [word for word in invocation.options if not word.startswith("-")]:
        raise UsageError(f"'{strangers[0]}' belongs to no option; options begin with --, see --help")
    if "--help_all" in words:
        invocation.options = ["--help"]
    elif invocation.recipe is None:
        raise UsageError(f"--model is missing; recipes: {', '.join(recipes())}")
    train(invocation)


def train(invocation: Invocation) -> Path:
    """Train what an invocation describes; returns the folder of the run.

    Raises:
        UsageError: something in it is wrong.
    """
    assert invocation.recipe is not None or invocation.options == ["--help"]
    root = Path(invocation.taken.get("--run_dir", "runs"))
    given = _checkpoint_to_resume(invocation.taken.get("--ckpt_path"), root, invocation.recipe or "")
    _check_own_options(invocation.taken)
    weights = InitialWeights(Path(invocation.taken["--weights"])) if "--weights" in invocation.taken else None
    if given and weights:
        raise UsageError("--weights starts a new run, --ckpt_path goes on with an old one: give one of them")

    from cli.parser import ConfiguredCLI, read_settings
    from evaluation.records import write_atomically

    # A run that goes on starts from its own settings, not from a recipe that may have changed since.
    before = folder_of(given) / "config.yaml" if given else None
    cli = ConfiguredCLI(invocation, [read_settings(before)] if before and before.is_file() else [])
    if weights:
        weights.copy_into(cli.model.network)
    folder = folder_of(given) if given else _new_folder(root, invocation.recipe or "")
    saved = folder / "config.yaml"
    settings = (weights.comment if weights else comment_of(before)) + cli.config_text()
    resumed = given or _left_by_the_same_job(folder, settings)
    if resumed:
        _check_checkpoint(resumed, cli, invocation.recipe or "")
    trainer = _trainer(cli, folder, invocation)
    if trainer.is_global_zero:
        write_atomically(saved, settings.encode())  # other ranks may be reading it
        print(f"run folder: {folder}", flush=True)
    with no_survivors(trainer):
        trainer.fit(
            cli.model, datamodule=cli.datamodule, ckpt_path=str(resumed) if resumed else None, weights_only=True
        )
    if trainer.is_global_zero:
        _report(trainer, folder)
    return folder


def _checkpoint_to_resume(given: str | None, root: Path, recipe: str) -> Path | None:
    if given is None:
        return None
    return checkpoint_in(last_run(root, recipe) if given == "last" else Path(given), prefer="last")


def _left_by_the_same_job(folder: Path, settings: str) -> Path | None:
    """The checkpoint in the folder of a SLURM job or a torchrun --rdzv-id that was started before."""
    checkpoint, saved = folder / "checkpoints" / "last.ckpt", folder / "config.yaml"
    if not (checkpoint.is_file() and saved.is_file()):
        return None
    if saved.read_text() != settings:
        raise UsageError(f"{folder} holds a run of this job with other settings; give this one another --run_dir")
    return checkpoint


def _check_own_options(taken: dict[str, str]) -> None:
    if (logger := taken.get("--logger", "wandb")).lower() not in ("wandb", "false"):
        raise UsageError(f"--logger takes wandb or false, got '{logger}'")
    if not (steps := taken.get("--save_every", "1")).isdecimal() or int(steps) < 1:
        raise UsageError(f"--save_every takes a whole number >= 1, got '{steps}'")


def _check_checkpoint(path: Path, cli: "ConfiguredCLI", recipe: str) -> None:
    """Refuse in one line what Lightning would refuse in a page, or take: damage, code, another recipe or network."""
    from callbacks import CONFIG_KEY
    from models import load_tensors, load_weights, network_tensors

    content = load_tensors(path)
    if not isinstance(content, dict) or not {"state_dict", "optimizer_states", "loops"} <= content.keys():
        raise UsageError(f"--ckpt_path {path}: no checkpoint of train.py")
    if (other := content.get(CONFIG_KEY, {}).get("recipe", recipe)) != recipe:
        raise UsageError(f"--ckpt_path {path}: a run of --model {other}, not {recipe}")
    load_weights(cli.model.network, network_tensors(content["state_dict"]), str(path))


def _new_folder(root: Path, recipe: str) -> Path:
    try:
        folder = new_run_folder(root, recipe)
        (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--run_dir: cannot write to {root} ({(error.strerror or str(error)).lower()})") from None
    return folder


def _trainer(cli: "ConfiguredCLI", folder: Path, invocation: Invocation) -> "pl.Trainer":
    """The Trainer of the config with what every run has: its metrics file, its checkpoints, its display."""
    from pytorch_lightning.callbacks import ModelCheckpoint

    from callbacks import (
        ConfigInCheckpoint,
        EndOnSigterm,
        LastCheckpoint,
        MetricsFile,
        Requeue,
        StopOnNaN,
        on_terminal,
        progress_display,
    )

    settings, recipe, taken = dict(cli.config_init.trainer), invocation.recipe or "", invocation.taken
    checkpoints = folder / "checkpoints"
    best = ModelCheckpoint(**{**cli.config.checkpoint.as_dict(), "dirpath": checkpoints})
    settings["callbacks"] = [
        *(settings["callbacks"] or []),
        progress_display(),
        ConfigInCheckpoint({"recipe": recipe, "yaml": cli.config_text()}),
        StopOnNaN(),
        *([best] if getattr(cli.datamodule, "val_images", 1) else []),
        LastCheckpoint(checkpoints, int(taken.get("--save_every", "200"))),
        Requeue(checkpoints / "last.ckpt") if slurm_job() else EndOnSigterm(),
    ]
    settings["logger"] = [MetricsFile(folder), *_wandb(folder, recipe, taken.get("--logger", "wandb"), cli)]
    settings["default_root_dir"] = str(folder)
    settings["enable_checkpointing"] = True
    settings["enable_progress_bar"] = on_terminal()
    return trainer_of(settings)


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
    if not logged:
        print(f"nothing left to train: --trainer.max_epochs {trainer.max_epochs} was reached before; give a larger one")
    print("  ".join([f"done: {trainer.global_step} steps", *values]))
    checkpoints = sorted(f"checkpoints/{path.name}" for path in folder.glob("checkpoints/*"))
    written = [name for name in ("config.yaml", "metrics.jsonl", *checkpoints) if (folder / name).exists()]
    print(f"wrote {folder}/: {', '.join(written)}")
    # Eight pixels a side hold few details: the papers' radius is no test for them.
    suite = " --suite digits" if type(trainer.datamodule).__name__ == "Digits" else ""  # type: ignore[attr-defined]
    print(f"next: python evaluate.py {folder}{suite}")
