"""Clean training of any network, deterministic or random, with robust accuracy on the validation images."""

from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn import functional as F

from attacks import PGD, Attack, Linf
from defenses import Stream, drawing_from, silenced
from lightning_modules.metrics import CountedAccuracy
from lightning_modules.schedule import Schedule

# EEPD section 4 and protocols of its figure 4: literals 0.031 and 0.01, not 8/255 and 2/255.
PAPER_PGD7 = PGD(Linf(0.031), step_size=0.01, steps=7)


class Classifier(pl.LightningModule):
    """Learns from clean images; subclasses override `loss` to learn from others.

    Args:
        network: images [B, C, H, W] in [0, 1] -> logits [B, classes]; normalisation and noise are part of it.
        schedule: optimiser and learning rate.
        validation_attack: what `val/robust` is measured with, on one fresh draw of a random network.
        robust_images: how many validation images, from the first on, are attacked after an epoch.
        noise_in_training: False trains in silence and lets the noise only be there afterwards (ParamNet "test only").
        seed: of all draws in training and validation.
    """

    def __init__(
        self,
        network: nn.Module,
        schedule: Schedule = Schedule(),
        validation_attack: Attack = PAPER_PGD7,
        robust_images: int = 1000,
        noise_in_training: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__()
        # oneDNN and cuDNN run these convolutions faster with the channels last.
        self.network = network.to(memory_format=torch.channels_last)
        self.schedule = schedule
        self.validation_attack = validation_attack
        self.robust_images = robust_images
        self.noise_in_training = noise_in_training
        self.seed = seed
        self.train_clean = CountedAccuracy()
        self.val_clean = CountedAccuracy()
        self.val_robust = CountedAccuracy()

    def forward(self, x: Tensor) -> Tensor:
        """Images [B, C, H, W] in [0, 1] -> logits [B, classes]."""
        logits: Tensor = self.network(x.contiguous(memory_format=torch.channels_last))
        return logits

    def learn(self, x: Tensor, y: Tensor) -> Tensor:
        """What a training step does: here a loss, on which Lightning takes one step afterwards."""
        return self.loss(x, y)

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """What a training step descends on; the one method that defines most ways of training."""
        logits = self(x)
        self.count("train/clean", self.train_clean, logits, y)
        return F.cross_entropy(logits, y)

    def count(self, name: str, accuracy: CountedAccuracy, logits: Tensor, y: Tensor) -> None:
        """Add a training batch to an accuracy that is logged at the end of the epoch."""
        accuracy.update(logits.detach(), y)
        self.log(name, accuracy, prog_bar=True, on_step=False, on_epoch=True)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """One step on a batch, with draws of its own for every (seed, step, rank)."""
        x, y = batch
        # Lightning gives all ranks the same seed and stores no random state: without this, ranks would share their
        # noise, and a resumed run would differ from one that was never stopped.
        step = self.trainer.fit_loop.total_batch_idx * self.trainer.world_size + self.global_rank
        torch.manual_seed(Stream.named(self.seed, "other layers", index=step).seed)
        with drawing_from(Stream.named(self.seed, "train", index=step)):
            if self.noise_in_training:
                loss = self.learn(x, y)
            else:
                with silenced():
                    loss = self.learn(x, y)
        self.log("train/loss", loss, prog_bar=True, on_step=True, on_epoch=True, sync_dist=True, batch_size=len(y))
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Clean accuracy on all validation images, robust accuracy on the first `robust_images`."""
        x, y = batch
        index = batch_idx * self.trainer.world_size + self.global_rank  # whole batches are dealt round robin
        with drawing_from(Stream.named(self.seed, "validation", index=index)):
            self.val_clean.update(self(x), y)
            left = self.robust_images - index * self._val_batch_size()
            if left > 0:
                x, y = x[:left].contiguous(memory_format=torch.channels_last), y[:left]
                self.val_robust.update(self(self.validation_attack(self.network, x, y)), y)
        self.log("val/clean", self.val_clean, prog_bar=True)
        if self.robust_images:
            self.log("val/robust", self.val_robust, prog_bar=True)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimiser of the schedule, its learning rate in proportion to the length of this run."""
        optimizer = self.schedule.optimizer(self.network)
        scheduler = self.schedule.scheduler(optimizer, self.total_steps())
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def total_steps(self) -> int:
        """How many optimiser steps this run will take.

        Raises:
            ValueError: the run has no end.
        """
        steps = self.trainer.estimated_stepping_batches
        if steps == float("inf"):
            raise ValueError("the schedule needs an end: give --trainer.max_epochs or --trainer.max_steps")
        return int(steps)

    def step_of_epoch(self, epoch: float) -> int:
        """The optimiser step of this run that stands for `epoch` epochs of a full run."""
        return round(self.total_steps() * epoch / self.schedule.epochs)

    def _val_batch_size(self) -> int:
        data: Any = getattr(self.trainer, "datamodule", None)
        if hasattr(data, "val_batch_size"):
            return int(data.val_batch_size)
        loader: Any = self.trainer.val_dataloaders
        return int(loader.batch_size)
