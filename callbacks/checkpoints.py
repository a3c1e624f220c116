"""Checkpoints that carry what is needed to use them, the newest one for going on, and a stop when training diverged."""

import math
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, Checkpoint
from torch import Tensor

CONFIG_KEY = "config"  # where a checkpoint holds the recipe's name and the resolved config, as text


class ConfigInCheckpoint(Callback):
    """Puts the resolved config into every checkpoint, so that one file is enough to evaluate or to go on.

    Args:
        config: plain values (text, numbers), which `torch.load(weights_only=True)` accepts.
    """

    def __init__(self, config: dict[str, str]) -> None:
        self.config = config

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the config."""
        checkpoint[CONFIG_KEY] = dict(self.config)


class LastCheckpoint(Checkpoint):
    """Keeps last.ckpt, replaced every so many steps and after every epoch; a kill loses what came after it.

    Args:
        folder: where last.ckpt lies.
        every_n_steps: batches between two writes within an epoch.
    """

    def __init__(self, folder: Path, every_n_steps: int = 200) -> None:
        self.path = folder / "last.ckpt"
        self.every_n_steps = every_n_steps

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save in the middle of an epoch."""
        if (batch_idx + 1) % self.every_n_steps == 0 and not trainer.is_last_batch:
            trainer.save_checkpoint(self.path, weights_only=False)  # optimiser and loops too

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save after the validation of an epoch."""
        trainer.save_checkpoint(self.path, weights_only=False)  # optimiser and loops too


class StopOnNaN(Callback):
    """Ends a run that diverged, before its checkpoints are overwritten."""

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Check the weights: the step after a finite loss can spoil them, and only the next loss would tell.

        Raises:
            FloatingPointError: a weight is NaN or infinite.
        """
        spoilt = [name for name, value in checkpoint["state_dict"].items() if not value.isfinite().all()]
        if spoilt:
            raise FloatingPointError(_diverged(trainer, f"{spoilt[0]} holds NaN or infinity"))

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Check the loss of all ranks, so that all of them stop.

        Raises:
            FloatingPointError: the loss is NaN or infinite.
        """
        loss = outputs["loss"] if isinstance(outputs, dict) else outputs
        if not isinstance(loss, Tensor):
            return
        mean = float(trainer.strategy.reduce(loss.detach().clone(), reduce_op="mean"))
        if not math.isfinite(mean):
            raise FloatingPointError(_diverged(trainer, f"the training loss became {mean}"))


def _diverged(trainer: pl.Trainer, what: str) -> str:
    when = f"in epoch {trainer.current_epoch + 1}, step {trainer.global_step}"
    return f"{what} {when}; the checkpoints written before are kept; try a smaller --model.schedule.lr"
