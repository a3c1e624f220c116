"""Pictures, tables and curves to whatever loggers a run has: each by the name under which that logger takes them."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from callbacks.panels import Panel
from evaluation.curves import Curve
from evaluation.records import write_atomically


def show_panel(trainer: pl.Trainer, key: str, panel: Panel) -> None:
    """A picture to every logger that takes one (W&B, TensorBoard), else to `panels/` in the run's folder; on rank 0.

    Args:
        trainer: whose loggers.
        key: such as `adaptive/pgd20/images`.
        panel: the picture.
    """
    if not trainer.is_global_zero:
        return
    step, taken = _step(trainer), False
    for logger in trainer.loggers:
        if hasattr(logger, "log_image"):
            logger.log_image(key, [panel.image()], step=step, caption=[panel.caption])
            taken = True
        elif hasattr(board := getattr(logger, "experiment", None), "add_image"):
            board.add_image(key, panel.grid, step, dataformats="HWC")  # type: ignore[union-attr]
            taken = True
    if not taken:
        folder = Path(trainer.default_root_dir) / "panels"
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / f"{re.sub('[^A-Za-z0-9._-]', '_', key)}_{step:06d}.png", panel.png())


def show_table(trainer: pl.Trainer, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A table to every logger that takes one; on rank 0."""
    for logger in trainer.loggers if trainer.is_global_zero else []:
        if hasattr(logger, "log_table"):
            logger.log_table(key, list(columns), [list(row) for row in rows], step=_step(trainer))


def show_curves(trainer: pl.Trainer, prefix: str, curves: Callable[[], Mapping[str, Sequence[Curve]]]) -> None:
    """Curves by what they are over to every logger that draws them (`WandbRun`), each under `PREFIX/over_X`.

    On rank 0; without such a logger nothing is computed.
    """
    takers = [logger for logger in trainer.loggers if hasattr(logger, "log_curves")] if trainer.is_global_zero else []
    for x_name, found in curves().items() if takers else ():
        for logger in takers if found else ():
            logger.log_curves(f"{prefix}/over_{x_name}", found, x_name, step=_step(trainer))


def _step(trainer: pl.Trainer) -> int:
    """Where Lightning draws what was logged in the validation after the last step."""
    return max(trainer.global_step - 1, 0)
