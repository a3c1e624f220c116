"""How fast a network learns: the papers' SGD, whose whole course shrinks or grows with the length of a run."""

from dataclasses import dataclass
from typing import Literal

from torch import nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, MultiStepLR

from defenses import Noise


@dataclass(frozen=True)
class Schedule:
    """SGD as in the papers' ResNet-20 runs; all epochs are those of a full run and shrink with a shorter one.

    Asked for 6 epochs instead of 160, the learning rate drops after 3 and 4.5 epochs instead of 80 and 120.

    Args:
        lr: learning rate at the start, or the highest one where it is cyclic.
        momentum: of Nesterov's kind.
        weight_decay: on all parameters but the learned strengths of noise (PNI's alphas).
        epochs: length of a full run, which the other numbers refer to.
        milestones: epochs after which the learning rate is multiplied by gamma.
        gamma: that factor.
        shape: "steps" drops at the milestones; "cyclic" has none: up from 0 to `lr` in the middle of the run and down
            again, along straight lines (Smith 2017, https://arxiv.org/abs/1506.01186, one cycle).
    """

    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 3e-4
    epochs: int = 160
    milestones: tuple[float, ...] = (80, 120)
    gamma: float = 0.1
    shape: Literal["steps", "cyclic"] = "steps"

    def __post_init__(self) -> None:
        if self.lr <= 0 or self.epochs <= 0:
            raise ValueError(f"a schedule takes lr > 0 and epochs > 0, got {self.lr} and {self.epochs}")
        if self.shape not in ("steps", "cyclic"):
            raise ValueError(f"shape must be steps or cyclic, got {self.shape}")

    def optimizer(self, network: nn.Module) -> Optimizer:
        """SGD with Nesterov momentum on all parameters of `network`."""
        groups = parameter_groups(network, self.weight_decay)
        return SGD(groups, lr=self.lr, momentum=self.momentum, nesterov=True)

    def scheduler(self, optimizer: Optimizer, steps: int) -> LRScheduler:
        """The learning rate of a run of `steps` optimiser steps, to be moved on after each of them."""
        if self.shape == "cyclic":
            return LambdaLR(optimizer, lambda step: triangle(step, steps))
        milestones = [round(steps * epoch / self.epochs) for epoch in self.milestones]
        return MultiStepLR(optimizer, milestones, gamma=self.gamma)


def triangle(step: int, steps: int) -> float:
    """The share of the highest learning rate at a step: 0 only before the first of `steps` and after the last."""
    return max(0.0, 1 - abs(2 * (step + 1) / (steps + 1) - 1))


def parameter_groups(network: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """All parameters, those that belong to noise without weight decay (PNI's alphas would only be shrunk to 0)."""
    of_noise = {id(p) for part in network.modules() if isinstance(part, Noise) for p in part.parameters()}
    parameters = list(network.parameters())
    return [
        {"params": [p for p in parameters if id(p) not in of_noise], "weight_decay": weight_decay},
        {"params": [p for p in parameters if id(p) in of_noise], "weight_decay": 0.0},
    ]
