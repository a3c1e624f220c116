"""MART, Wang et al. 2020, https://openreview.net/forum?id=rklOg6EFwS: what is misclassified anyway counts for more."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attacks import PGD, Attack, Linf
from lightning_modules.adversarial import AttackedClassifier
from lightning_modules.classifier import PAPER_PGD7
from lightning_modules.schedule import Schedule
from lightning_modules.trades import checked_beta, divergence

# The authors' code for ResNet-18, https://github.com/YisenWang/MART.
PAPER_PGD10 = PGD(Linf(0.031), step_size=0.007, steps=10)
PAPER_SCHEDULE = Schedule(lr=0.01, weight_decay=3.5e-3, epochs=120, milestones=(75, 90, 100))


def boosted_cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """-log p_y - log(1 - max of the other p_k), section 3: logits [B, classes], labels [B] -> [B].

    1 - p_k is the share of all classes but k, which stays exact where p_k is nearly 1: no small number is added.
    """
    own = F.one_hot(y, logits.shape[-1]).bool()
    rival = logits.masked_fill(own, float("-inf")).argmax(-1, keepdim=True)
    rest = logits.scatter(-1, rival, float("-inf"))
    against = logits.logsumexp(-1) - rest.logsumexp(-1)
    return F.cross_entropy(logits, y, reduction="none") + against


class MART(AttackedClassifier):
    """Descends on BCE(f(x'), y) + beta KL(f(x) || f(x')) (1 - f_y(x)), x' away from the label (section 3).

    The gradient passes through the weight 1 - f_y(x) as well, as in the authors' code.

    Args:
        network: see `Classifier`.
        attack: finds x'; PGD-10 with eps 0.031, step 0.007 and random start.
        beta: weight of the divergence, lambda of the paper, >= 0; 5 for its ResNet-18.
        warmup_epochs: epochs of a full run that learn from clean images only; none in the paper.
        schedule: see `Classifier`; that of the authors' code. At EEPD's lr of 0.1 training may end at one answer for
            all images, which the divergence holds fast.
        validation_attack: see `Classifier`.
        robust_images: see `Classifier`.
        noise_in_training: see `Classifier`.
        seed: see `Classifier`.
    """

    def __init__(
        self,
        network: nn.Module,
        attack: Attack = PAPER_PGD10,
        beta: float = 5.0,
        warmup_epochs: float = 0,
        schedule: Schedule = PAPER_SCHEDULE,
        validation_attack: Attack = PAPER_PGD7,
        robust_images: int = 1000,
        noise_in_training: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__(
            network, attack, warmup_epochs, schedule, validation_attack, robust_images, noise_in_training, seed
        )
        self.beta = checked_beta(beta)

    def attacked_loss(self, x: Tensor, y: Tensor) -> Tensor:
        """Boosted cross entropy and the divergence where the clean image is not sure to be right."""
        clean, adversarial = self.both(x, y)
        unsure = -torch.expm1(-F.cross_entropy(clean, y, reduction="none"))  # 1 - p_y
        loss = boosted_cross_entropy(adversarial, y) + self.beta * divergence(clean, adversarial) * unsure
        return loss.mean()
