"""Clean training of any network, deterministic or random, with robust accuracy on the validation images."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD
from torch.optim.lr_scheduler import MultiStepLR

from attacks import PGD, Attack, Linf
from defenses import Noise, Stream, drawing_from, silenced
from lightning_modules.metrics import CountedAccuracy

# EEPD section 4 and protocols of its figure 4: literals 0.031 and 0.01, not 8/255 and 2/255.
PAPER_PGD7 = PGD(Linf(0.031), step_size=0.01, steps=7)


@dataclass(frozen=True)
class Schedule:
    """SGD as in the papers' ResNet-20 runs; all epochs are those of a full run and shrink with a shorter one.

    Asked for 6 epochs instead of 160, the learning rate drops after 3 and 4.5 epochs instead of 80 and 120.

    Args:
        lr: learning rate at the start.
        momentum: of Nesterov's kind.
        weight_decay: on all parameters but the learned strengths of noise (PNI's alphas).
        epochs: length of a full run, which the other numbers refer to.
        milestones: epochs after which the learning rate is multiplied by gamma.
        gamma: that factor.
    """

    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 3e-4
    epochs: int = 160
    milestones: tuple[float, ...] = (80, 120)
    gamma: float = 0.1

    def __post_init__(self) -> None:
        if self.lr <= 0 or self.epochs <= 0:
            raise ValueError(f"a schedule takes lr > 0 and epochs > 0, got {self.lr} and {self.epochs}")


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

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """What a training step descends on; the one method that defines a way of training."""
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
                loss = self.loss(x, y)
            else:
                with silenced():
                    loss = self.loss(x, y)
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
        """SGD with Nesterov momentum, the learning rate dropping at the milestones in proportion."""
        groups = parameter_groups(self.network, self.schedule.weight_decay)
        optimizer = SGD(groups, lr=self.schedule.lr, momentum=self.schedule.momentum, nesterov=True)
        milestones = [self.step_of_epoch(epoch) for epoch in self.schedule.milestones]
        scheduler = MultiStepLR(optimizer, milestones, gamma=self.schedule.gamma)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def step_of_epoch(self, epoch: float) -> int:
        """The optimiser step of this run that stands for `epoch` epochs of a full run."""
        steps = self.trainer.estimated_stepping_batches
        if steps == float("inf"):
            raise ValueError("the schedule needs an end: give --trainer.max_epochs or --trainer.max_steps")
        return round(steps * epoch / self.schedule.epochs)

    def _val_batch_size(self) -> int:
        data: Any = getattr(self.trainer, "datamodule", None)
        if hasattr(data, "val_batch_size"):
            return int(data.val_batch_size)
        loader: Any = self.trainer.val_dataloaders
        return int(loader.batch_size)


def parameter_groups(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """All parameters, those that belong to noise without weight decay (PNI's alphas would only be shrunk to 0)."""
    of_noise = {id(p) for part in network.modules() if isinstance(part, Noise) for p in part.parameters()}
    parameters: Iterable[nn.Parameter] = list(network.parameters())
    return [
        {"params": [p for p in parameters if id(p) not in of_noise], "weight_decay": weight_decay},
        {"params": [p for p in parameters if id(p) in of_noise], "weight_decay": 0.0},
    ]
