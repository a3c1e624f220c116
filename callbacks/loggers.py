"""Pictures, tables, curves and files to the loggers of a run: each by the name under which a logger takes them.

What no logger takes (or W&B, after it was given up) becomes a file in `panels/` in the run's folder. All of it happens
on rank 0.
"""

import csv
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from callbacks.panels import Panel
from evaluation.curves import Curve
from evaluation.records import write_atomically


def show_panel(trainer: pl.Trainer, key: str, panel: Panel) -> None:
    """A picture to every logger that takes one (W&B, TensorBoard), else a PNG file.

    Args:
        trainer: whose loggers.
        key: such as `adaptive/pgd20/images`.
        panel: the picture.
    """
    if trainer.is_global_zero:
        _show_picture(trainer, list(trainer.loggers), key, panel)


def show_table(trainer: pl.Trainer, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A table to every logger that takes one (W&B), else a CSV file."""
    if not trainer.is_global_zero:
        return
    taken = False
    for logger in _able(trainer.loggers, "log_table"):
        logger.log_table(key, list(columns), [list(row) for row in rows], step=_step(trainer))
        taken |= not _given_up(logger)
    if not taken:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([columns, *rows])
        _write(trainer, key, "csv", text.getvalue().encode())


def show_curves(trainer: pl.Trainer, prefix: str, curves: Callable[[], Mapping[str, Sequence[Curve]]]) -> None:
    """Curves by what they are over, each under `PREFIX/over_X`.

    Loggers that draw (`WandbRun`) get the points, the others a picture as in `show_panel`.
    """
    for x_name, found in curves().items() if trainer.is_global_zero else ():
        if found:
            _show_chart(trainer, f"{prefix}/over_{x_name}", found, x_name)


def keep_file(trainer: pl.Trainer, name: str, path: Path) -> None:
    """A file of an evaluation as the artifact `RECIPE-NAME` to every logger that keeps files (`WandbRun`)."""
    for logger in _able(trainer.loggers, "log_files") if trainer.is_global_zero else ():
        logger.log_files(f"{logger.recipe}-{name}", "evaluation", [path])


def _show_chart(trainer: pl.Trainer, key: str, curves: Sequence[Curve], x_name: str) -> None:
    drawn = list(_able(trainer.loggers, "log_curves"))
    for logger in drawn:
        logger.log_curves(key, curves, x_name, step=_step(trainer))
    others = [logger for logger in trainer.loggers if logger not in drawn]
    if any(map(_takes_pictures, others)) or all(map(_given_up, drawn)):
        from callbacks.charts import chart  # matplotlib, which most runs never need

        _show_picture(trainer, others, key, chart(curves, x_name))


def _show_picture(trainer: pl.Trainer, loggers: Sequence[Any], key: str, panel: Panel) -> None:
    step, taken = _step(trainer), False
    for logger in filter(_takes_pictures, loggers):
        if hasattr(logger, "log_image"):
            logger.log_image(key, [panel.image()], step=step, caption=[panel.caption])
        else:
            logger.experiment.add_image(key, panel.grid, step, dataformats="HWC")
        taken |= not _given_up(logger)
    if not taken:
        _write(trainer, key, "png", panel.png())


def _able(loggers: Sequence[Any], method: str) -> Iterator[Any]:
    return (logger for logger in loggers if hasattr(logger, method))


def _takes_pictures(logger: Any) -> bool:
    return hasattr(logger, "log_image") or hasattr(getattr(logger, "experiment", None), "add_image")


def _given_up(logger: Any) -> bool:
    """Whether a `WandbRun` takes everything and keeps nothing (Lightning's dummy has every attribute)."""
    return getattr(logger, "failed", False) is True


def _write(trainer: pl.Trainer, key: str, kind: str, content: bytes) -> None:
    folder = Path(trainer.default_root_dir) / "panels"
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / f"{re.sub('[^A-Za-z0-9._-]', '_', key)}_{_step(trainer):06d}.{kind}", content)


def _step(trainer: pl.Trainer) -> int:
    """Where Lightning draws what was logged in the validation after the last step."""
    return max(trainer.global_step - 1, 0)
