"""Callbacks and loggers of a run: progress, metrics file, checkpoints, W&B."""

from callbacks.checkpoints import CONFIG_KEY, ConfigInCheckpoint, LastCheckpoint, StopOnNaN
from callbacks.metrics_file import MetricsFile
from callbacks.progress import EpochLines, on_terminal, progress_display
from callbacks.requeue import Requeue
from callbacks.sigterm import EndOnSigterm

__all__ = [
    "CONFIG_KEY",
    "ConfigInCheckpoint",
    "EndOnSigterm",
    "EpochLines",
    "LastCheckpoint",
    "MetricsFile",
    "Requeue",
    "StopOnNaN",
    "on_terminal",
    "progress_display",
]
