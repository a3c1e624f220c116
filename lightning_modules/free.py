"""Free adversarial training, Shafahi et al. 2019, https://arxiv.org/abs/1904.12843, algorithm 1."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attacks import Attack
from lightning_modules.classifier import PAPER_PGD7, Classifier
from lightning_modules.metrics import CountedAccuracy
from lightning_modules.schedule import Schedule


class FreeClassifier(Classifier):
    """Learns from each batch `replays` times; each gradient moves the weights down and the perturbation up, at once.

    The perturbation is Linf, one per place in the batch, and is carried from batch to batch. An epoch takes `replays`
    optimiser steps a batch: give 1 / replays of the epochs (the schedule knows). Lightning clips no gradients and
    accumulates none here, as the steps are taken by hand.

    Args:
        network: see `Classifier`.
        eps: radius and step length of the perturbation, in pixels of [0, 1].
        replays: steps on each batch, m of the paper; 8 there for CIFAR-10.
        schedule: see `Classifier`.
        validation_attack: see `Classifier`.
        robust_images: see `Classifier`.
        noise_in_training: see `Classifier`.
        seed: see `Classifier`.

    Attributes:
        perturbation: [B, C, H, W], of this process; no buffer, which DDP would replace by that of the first process.
    """

    def __init__(
        self,
        network: nn.Module,
        eps: float = 0.031,
        replays: int = 8,
        schedule: Schedule = Schedule(),
        validation_attack: Attack = PAPER_PGD7,
        robust_images: int = 1000,
        noise_in_training: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__(network, schedule, validation_attack, robust_images, noise_in_training, seed)
        if not 0 <= eps <= 1:
            raise ValueError(f"eps must be an Linf radius in [0, 1], got {eps}")
        if replays < 1:
            raise ValueError(f"replays must be a whole number >= 1, got {replays}")
        self.automatic_optimization = False
        self.eps = eps
        self.replays = replays
        self.train_robust = CountedAccuracy()
        self.perturbation: Tensor | None = None

    def learn(self, x: Tensor, y: Tensor) -> Tensor:
        """All steps on a batch; returns the mean of their losses."""
        x = x.contiguous(memory_format=torch.channels_last)
        carried = self._carried(x)
        delta, losses = carried[: len(x)], []
        for _ in range(self.replays):
            delta, loss = self._replay(x, y, delta)
            losses.append(loss)
        self.perturbation = torch.cat([delta, carried[len(x) :]])
        return torch.stack(losses).mean()

    def _replay(self, x: Tensor, y: Tensor, delta: Tensor) -> tuple[Tensor, Tensor]:
        optimizer: Any = self.optimizers()
        scheduler: Any = self.lr_schedulers()
        delta.requires_grad_()
        logits = self((x + delta).clamp(0, 1))
        self.count("train/robust", self.train_robust, logits, y)
        loss = F.cross_entropy(logits, y)
        optimizer.zero_grad()
        self.manual_backward(loss)
        assert delta.grad is not None
        moved = (delta.detach() + self.eps * delta.grad.sign()).clamp(-self.eps, self.eps)
        optimizer.step()
        scheduler.step()
        return moved, loss.detach()

    def _carried(self, x: Tensor) -> Tensor:
        """The perturbation as the batch before left it; 0 for images that a larger batch has more."""
        zeros = torch.zeros_like(x)
        if self.perturbation is None:
            return zeros
        kept = self.perturbation.to(x)
        return torch.cat([kept, zeros[len(kept) :]])

    def total_steps(self) -> int:
        """See `Classifier`; Lightning counts batches."""
        most, batches = self.trainer.max_steps, super().total_steps()
        return batches * self.replays if most == -1 else min(batches * self.replays, most)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the perturbations of all processes, so that a run goes on as if it had not been stopped."""
        if self.perturbation is not None:
            own = self.perturbation.contiguous()
            everyone = [own] if self.trainer.world_size == 1 else self._gathered(own)
            checkpoint["perturbations"] = torch.stack(everyone)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take this process's own; on another number of processes start from 0."""
        saved = checkpoint.get("perturbations", ())
        self.perturbation = saved[self.global_rank] if len(saved) == self.trainer.world_size else None

    def _gathered(self, own: Tensor) -> list[Tensor]:
        everyone = [torch.empty_like(own) for _ in range(self.trainer.world_size)]
        torch.distributed.all_gather(everyone, own)
        return everyone
