"""One of several processes: who speaks, and that none of them outlives a failure."""

import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from cli.names import UsageError

if TYPE_CHECKING:
    import pytorch_lightning as pl
    import torch

# As Lightning's launcher and torchrun, and as srun, tell a process its number on its machine.
_LOCAL_RANK = ("LOCAL_RANK", "SLURM_LOCALID")


def speaks() -> bool:
    """Whether this process is the first of its machine: the others meet the same mistakes and repeat the message."""
    return next((os.environ[name] for name in _LOCAL_RANK if name in os.environ), "0") == "0"


def slurm_job() -> str | None:
    """The id of the batch job; None outside SLURM and in an interactive allocation, where runs follow each other."""
    if os.environ.get("SLURM_JOB_NAME") in ("bash", "interactive"):
        return None
    return os.environ.get("SLURM_JOB_ID")


def trainer_of(settings: dict[str, Any]) -> "pl.Trainer":
    """Lightning's Trainer.

    Raises:
        UsageError: devices, nodes, strategy or another setting is not to be had.
    """
    import pytorch_lightning as pl
    from lightning_fabric.utilities.exceptions import MisconfigurationException

    try:
        trainer = pl.Trainer(**settings)
        if environment := getattr(trainer.strategy, "cluster_environment", None):
            environment.validate_settings(num_devices=trainer.num_devices, num_nodes=trainer.num_nodes)
    except (ValueError, TypeError, MisconfigurationException) as error:
        raise UsageError(f"--trainer: {' '.join(str(error).split())}") from error
    return trainer


def device_of(settings: Mapping[str, Any], command: str) -> "torch.device":
    """Where a command that runs in one process computes: the device that Lightning's settings mean, or the best.

    Raises:
        UsageError: they ask for several, or for one that is not to be had; the message names the command.
    """
    for option, allowed in (("devices", (None, "auto", 1, "1")), ("num_nodes", (None, 1))):
        if (given := settings.get(option)) not in allowed:
            raise UsageError(f"--trainer.{option} {given}: {command} runs on one device")
    quiet = {"logger": False, "callbacks": None, "enable_checkpointing": False, "enable_progress_bar": False}
    return trainer_of({**settings, **quiet, "devices": 1}).strategy.root_device


@contextmanager
def no_survivors(trainer: "pl.Trainer") -> Iterator[None]:
    """Around fit or test: whatever ends the first process early ends those that it started."""
    from lightning_fabric.utilities.exceptions import MisconfigurationException
    from pytorch_lightning.utilities.exceptions import SIGTERMException

    try:
        yield
    except BaseException as error:
        for child in getattr(trainer.strategy.launcher, "procs", []):
            child.kill()
        if isinstance(error, SIGTERMException):  # Lightning would end with 0
            raise SystemExit(128 + signal.SIGTERM) from None
        if isinstance(error, MisconfigurationException):  # --checkpoint.monitor, for instance
            raise UsageError(" ".join(str(error).split())) from error
        if isinstance(error, SystemExit) and error.code == 1:  # Lightning's answer to Ctrl-C
            raise KeyboardInterrupt from None
        raise
