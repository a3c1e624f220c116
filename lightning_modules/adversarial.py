"""Adversarial training, Madry et al. 2018, as the papers run it (EEPD section 4, He et al. 2019)."""

from abc import abstractmethod
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attacks import Attack, evaluating
from lightning_modules.classifier import PAPER_PGD7, Classifier
from lightning_modules.metrics import CountedAccuracy
from lightning_modules.schedule import Schedule


class AttackedClassifier(Classifier):
    """What all learning from attacked images shares; subclasses say what they make of them in `attacked_loss`.

    The attack sees the network in eval mode and leaves no trace on it; losses are taken in train mode.

    Args:
        network: see `Classifier`.
        attack: made anew for every batch.
        warmup_epochs: epochs of a full run that learn from clean images only.
        schedule: see `Classifier`.
        validation_attack: see `Classifier`.
        robust_images: see `Classifier`.
        noise_in_training: see `Classifier`.
        seed: see `Classifier`.
    """

    def __init__(
        self,
        network: nn.Module,
        attack: Attack,
        warmup_epochs: float,
        schedule: Schedule,
        validation_attack: Attack,
        robust_images: int,
        noise_in_training: bool,
        seed: int,
    ) -> None:
        super().__init__(network, schedule, validation_attack, robust_images, noise_in_training, seed)
        self.attack = attack
        self.warmup_epochs = warmup_epochs
        self.train_robust = CountedAccuracy()

    def on_fit_start(self) -> None:
        """Translate the warm-up into steps once; asking for the number of steps is not free."""
        self.warmup_steps = self.step_of_epoch(self.warmup_epochs)

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """`attacked_loss`; that of clean training during the warm-up."""
        if self.global_step < self.warmup_steps:
            return super().loss(x, y)
        return self.attacked_loss(x.contiguous(memory_format=torch.channels_last), y)

    @abstractmethod
    def attacked_loss(self, x: Tensor, y: Tensor) -> Tensor:
        """The loss after the warm-up: images [B, C, H, W] in channels_last, labels [B]."""

    def attacked(self, x: Tensor, avoid: Tensor) -> Tensor:
        """Adversarial images that lead away from the classes `avoid` [B]."""
        try:
            return self.attack(self.network, x, avoid)
        except FloatingPointError:
            # The network answers NaN. So does its loss, by which a diverged training is noticed on all ranks.
            return x

    def both(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [B, classes] of the clean images and of those that lead away from the label, counted."""
        x_adv = self.attacked(x, y)
        clean, adversarial = self.precise(self(x)), self.precise(self(x_adv))
        self.count("train/clean", self.train_clean, clean, y)
        self.count("train/robust", self.train_robust, adversarial, y)
        return clean, adversarial

    @staticmethod
    def precise(logits: Tensor) -> Tensor:
        """Logits in float32 at least: a divergence near 0 is a small difference of large numbers."""
        return logits.to(torch.promote_types(logits.dtype, torch.float32))


class AdversarialClassifier(AttackedClassifier):
    """Learns from attacked images, alone or beside the clean ones.

    With `PGD(Linf(eps), step_size=1.25 * eps, steps=1)`, target "label" and clean_weight 0 this is fast adversarial
    training (Wong et al. 2020, https://arxiv.org/abs/2001.03994).

    Args:
        network: see `Classifier`.
        attack: made anew for every batch; the papers' PGD-7 (eps 0.031, step 0.01, random start).
        target: what the attack leads away from: the model's own prediction on the clean image (the papers; it keeps
            the label out of the adversarial image) or the label (Madry et al.).
        clean_weight: share w of the clean loss in w * clean + (1 - w) * adversarial; 0.5 in the papers, 0 learns
            from adversarial images only (Madry et al.).
        warmup_epochs: epochs of a full run that learn from clean images only; 5 of 160 in the papers.
        schedule: see `Classifier`.
        validation_attack: see `Classifier`.
        robust_images: see `Classifier`.
        noise_in_training: see `Classifier`.
        seed: see `Classifier`.
    """

    def __init__(
        self,
        network: nn.Module,
        attack: Attack = PAPER_PGD7,
        target: Literal["prediction", "label"] = "prediction",
        clean_weight: float = 0.5,
        warmup_epochs: float = 5,
        schedule: Schedule = Schedule(),
        validation_attack: Attack = PAPER_PGD7,
        robust_images: int = 1000,
        noise_in_training: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__(
            network, attack, warmup_epochs, schedule, validation_attack, robust_images, noise_in_training, seed
        )
        if not 0 <= clean_weight < 1:
            raise ValueError(f"clean_weight must lie in [0, 1), got {clean_weight}; Classifier trains on clean images")
        self.target = target
        self.clean_weight = clean_weight

    def attacked_loss(self, x: Tensor, y: Tensor) -> Tensor:
        """The mix of clean and adversarial cross entropy."""
        clean = self(x) if self.clean_weight else None
        avoid = y if self.target == "label" else self._predict(x, clean)
        logits = self(self.attacked(x, avoid))
        self.count("train/robust", self.train_robust, logits, y)
        adversarial = F.cross_entropy(logits, y)
        if clean is None:
            return adversarial
        self.count("train/clean", self.train_clean, clean, y)
        return torch.lerp(adversarial, F.cross_entropy(clean, y), self.clean_weight)

    def _predict(self, x: Tensor, clean: Tensor | None) -> Tensor:
        if clean is None:
            with torch.no_grad(), evaluating(self.network):
                clean = self(x)
        return clean.detach().argmax(1)
