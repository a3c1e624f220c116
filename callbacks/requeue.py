"""SLURM's warning before the time limit: save, put the job back into the queue, stop."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

TEMPORARY_FAILURE = 75  # of sysexits.h: a script that goes on after success only does not go on


class Requeue(Callback):
    """Answers SIGUSR1 (`#SBATCH --signal=SIGUSR1@90`) after the step in flight, on all ranks after the same one.

    Lightning's own answer saves inside the signal handler: amid a step, each rank amid another collective, and training
    goes on while the job is put back into the queue. It leaves a signal alone that has a handler already.

    Args:
        path: last.ckpt, which the same command goes on from; None in an evaluation, which keeps what it has done.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._warned = False

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Listen for the signal."""

        def note(signum: int, frame: Any) -> None:
            self._warned = True
            if self.path is None:
                _put_back(trainer)

        self._before = signal.signal(signal.SIGUSR1, note)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Stop listening."""
        signal.signal(signal.SIGUSR1, self._before)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop here if any rank was warned; after the last batch of an epoch its validation still runs."""
        if not trainer.is_last_batch:
            self._stop_if_warned(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop between two epochs."""
        self._stop_if_warned(trainer)

    def _stop_if_warned(self, trainer: pl.Trainer) -> None:
        if trainer.strategy.reduce_boolean_decision(self._warned, all=False):
            assert self.path is not None
            trainer.save_checkpoint(self.path, weights_only=False)
            _put_back(trainer)
            raise SystemExit(TEMPORARY_FAILURE)


def _put_back(trainer: pl.Trainer) -> None:
    """Asks SLURM, once per job, to start it again."""
    if not trainer.is_global_zero:
        return
    job = os.environ["SLURM_JOB_ID"]
    try:
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, check=False)
        failure = done.stderr.strip() if done.returncode else None
    except OSError as error:
        failure = str(error)
    outcome = f"could not requeue job {job}: {failure}" if failure is not None else f"job {job} is requeued"
    print(f"SIGUSR1 at step {trainer.global_step}: {outcome}", file=sys.stderr, flush=True)
