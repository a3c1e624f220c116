"""SIGTERM to one of several processes ends it at once, in mid-step, so that those around it can end, too."""

import signal
from typing import Any, NoReturn

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback


class EndOnSigterm(Callback):
    """Takes the place of the handler that Lightning 2.6 installs where processes work together.

    Lightning's broadcasts inside the signal handler, that is at any point of a step. If another collective is under way
    on the other rank, the two are taken for each other and both wait for ever. Nothing is lost here: what was written
    before the signal (last.ckpt, parts of an evaluation) was written whole.
    """

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Listen; Lightning's own handler has been installed by now."""
        self._listen(trainer)

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Listen."""
        self._listen(trainer)

    def _listen(self, trainer: pl.Trainer) -> None:
        if trainer.world_size > 1:
            signal.signal(signal.SIGTERM, _end)


def _end(signum: int, frame: Any) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not interrupt the end
    raise SystemExit(128 + signum)
