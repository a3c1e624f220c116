"""What attacks make grow: losses of logits [*draws, B, classes], averaged over the draws.

Losses are averaged, not logits: the mean loss is what an attacker expects of a draw that it has not seen.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from attacks.goal import Goal


@dataclass(frozen=True)
class Loss(ABC):
    """Logits [*draws, B, classes] -> [B]; larger is better for the attack, whether there is a target or not."""

    def __call__(self, logits: Tensor, goal: Goal) -> Tensor:
        """The loss of each image, averaged over the draws."""
        return self.per_draw(logits, goal).view(-1, len(goal)).mean(0)

    @abstractmethod
    def per_draw(self, logits: Tensor, goal: Goal) -> Tensor:
        """The loss of each answer: [*draws, B, classes] -> [*draws, B]."""


@dataclass(frozen=True)
class CrossEntropy(Loss):
    """Cross entropy with the label, or minus that with the target."""

    def per_draw(self, logits: Tensor, goal: Goal) -> Tensor:
        """See `Loss`."""
        classes = goal.classes.expand(logits.shape[:-1])
        loss = F.cross_entropy(logits.flatten(0, -2), classes.reshape(-1), reduction="none")
        return goal.sign * loss.view(logits.shape[:-1])


@dataclass(frozen=True)
class Margin(Loss):
    """The largest other logit minus the label's, or the target's minus the largest other (Carlini & Wagner 2017).

    Args:
        confidence: kappa; an answer that exceeds it has no gradient any more. Infinity: never.
    """

    confidence: float = float("inf")

    def per_draw(self, logits: Tensor, goal: Goal) -> Tensor:
        """See `Loss`."""
        return (-goal.margin(logits)).clamp_max(self.confidence)


@dataclass(frozen=True)
class DLR(Loss):
    """Difference of logits ratio, which no shift and no scale of the logits changes (Croce & Hein 2020, section 5.3).

    With z sorted downwards, pi: -(z_y - max other) / (z_pi1 - z_pi3), or with a target t
    -(z_y - z_t) / (z_pi1 - (z_pi3 + z_pi4) / 2).
    """

    def per_draw(self, logits: Tensor, goal: Goal) -> Tensor:
        """See `Loss`.

        Raises:
            ValueError: fewer than 3 classes, or fewer than 4 with a target.
        """
        least = 3 if goal.target is None else 4
        if logits.shape[-1] < least:
            raise ValueError(f"DLR needs at least {least} classes here, the model has {logits.shape[-1]}")
        top = logits.topk(least, dim=-1).values
        tiny = 1e-12  # equal logits: no ratio, but no NaN either
        if goal.target is None:
            return -goal.margin(logits) / (top[..., 0] - top[..., 2] + tiny)
        both = torch.stack([goal.label, goal.target], 1).expand(*logits.shape[:-1], 2)
        lead = logits.gather(-1, both).diff(dim=-1).squeeze(-1)  # target minus label
        return lead / (top[..., 0] - (top[..., 2] + top[..., 3]) / 2 + tiny)
