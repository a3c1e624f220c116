"""One of several processes: who speaks, and that none of them outlives a failure."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from cli.names import UsageError

if TYPE_CHECKING:
    import pytorch_lightning as pl

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
