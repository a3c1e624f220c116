"""What the user sees while training: a bar on a terminal, one line per epoch elsewhere (SLURM logs, pipes)."""

import sys
import time
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, TQDMProgressBar

_SHOWN = ("loss_epoch", "clean", "robust")


def progress_display() -> Callback:
    """A progress bar if standard error is a terminal, else lines."""
    return Bar() if on_terminal() else EpochLines()


def on_terminal() -> bool:
    """Whether someone watches: Lightning's bar fills a log file with thousands of half lines."""
    return sys.stderr.isatty()


class Bar(TQDMProgressBar):
    """Lightning's bar with loss, clean and robust accuracy; without the version number of the logger."""

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        """The logged values by their short names."""
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        return {name.removesuffix("_step"): value for name, value in metrics.items() if not name.endswith("_epoch")}

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the epoch's values, which all ranks count together; Lightning asks for them on rank 0 only."""
        _ = trainer.progress_bar_metrics
        super().on_train_epoch_end(trainer, pl_module)


class EpochLines(Callback):
    """One line per epoch, on rank 0, flushed at once."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Lightning announces no epoch that is entered in the middle."""
        self.on_train_epoch_start(trainer, pl_module)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note the time and where the epoch begins (not at batch 0 after a resume)."""
        self._started = time.monotonic()
        self._first_step = trainer.global_step

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print the line."""
        logged = trainer.callback_metrics  # on all ranks: they count together, and one alone would wait for ever
        if not trainer.is_global_zero:
            return
        seconds = time.monotonic() - self._started
        steps = max(trainer.global_step - self._first_step, 1)
        names = [f"{phase}/{name}" for phase in ("train", "val") for name in _SHOWN]
        values = [f"{name.removesuffix('_epoch')} {float(logged[name]):.4f}" for name in names if name in logged]
        lr = trainer.optimizers[0].param_groups[0]["lr"]
        head = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
        print(f"{head}  {'  '.join(values)}  lr {lr:g}  {seconds / steps:.2f} s/step", flush=True)
