"""Callbacks and loggers of a run: progress, metrics file, checkpoints, W&B."""

from callbacks.adaptive_evaluation import AdaptiveEvaluation
from callbacks.checkpoints import CONFIG_KEY, ConfigInCheckpoint, LastCheckpoint, StopOnNaN
from callbacks.metrics_file import MetricsFile
from callbacks.noise_levels import NoiseLevels
from callbacks.panels import Panel, panel
from callbacks.progress import EpochLines, on_terminal, progress_display
from callbacks.requeue import Requeue
from callbacks.sigterm import EndOnSigterm
from callbacks.suites import at_radii, at_radius, read_suite

__all__ = [
    "CONFIG_KEY",
    "AdaptiveEvaluation",
    "ConfigInCheckpoint",
    "EndOnSigterm",
    "EpochLines",
    "LastCheckpoint",
    "MetricsFile",
    "NoiseLevels",
    "Panel",
    "Requeue",
    "StopOnNaN",
    "at_radii",
    "at_radius",
    "on_terminal",
    "panel",
    "progress_display",
    "read_suite",
]
