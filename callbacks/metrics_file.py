"""The run's own copy of all that is logged: one JSON object per line, only ever appended to."""

import json
import math
from argparse import Namespace
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only


class MetricsFile(Logger):
    """Appends `{"step": ..., name: value, ...}` to a file; Lightning's CSVLogger deletes its file on resume.

    Args:
        folder: folder of the run; the file is metrics.jsonl in it.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.path = folder / "metrics.jsonl"

    @property
    def name(self) -> str:
        """Lightning asks every logger for a name."""
        return "metrics"

    @property
    def version(self) -> str:
        """Lightning asks every logger for a version."""
        return ""

    @property
    def save_dir(self) -> str:
        """The folder of the run."""
        return str(self.path.parent)

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Append one line; NaN and infinity become null, which JSON lacks words for."""
        values = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Nothing: the settings are in config.yaml."""
