"""Several minimal-norm attacks, the nearest image of all: each ends in a minimum of its own."""

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from attacks.base import Attack, Trace
from attacks.ddn import DDN
from attacks.fmn import FMN, ORDERS
from attacks.goal import Goal
from attacks.shown import Shown


@dataclass(frozen=True)
class Closest(Attack):
    """What is nearest to each image among the results of some attacks.

    On an adversarially trained ResNet-20 the default, two attacks of 50 steps, comes nearer than each of them does in
    100: where it ends is decided early, and the two are led elsewhere.

    Args:
        attacks: those that return x itself where they found nothing, and for images that are wrong already.
        norm: which distance is meant: "L2", "Linf" or "L1".
    """

    attacks: tuple[Attack, ...] = field(default_factory=lambda: (FMN(steps=50), DDN(steps=50)))
    norm: Literal["L2", "Linf", "L1"] = "L2"

    def __post_init__(self) -> None:
        object.__setattr__(self, "attacks", tuple(self.attacks))  # from YAML it is a list
        if not self.attacks or self.norm not in ORDERS:
            raise ValueError(f"Closest takes attacks and the norm L2, Linf or L1, got {self.attacks} and {self.norm}")

    def __str__(self) -> str:
        return f"closest of {' and '.join(map(str, self.attacks))}"

    def search(self, model: Shown, x: Tensor, goal: Goal) -> Trace:
        """See `Attack.run`; the trace's losses follow each other."""
        traces = [attack.search(model, x, goal) for attack in self.attacks]
        x_adv, nearest = x, torch.full_like(x[:, 0, 0, 0], float("inf"))
        for trace in traces:
            norm = (trace.x_adv - x).flatten(1).norm(ORDERS[self.norm], dim=1)
            better = (norm > 0) & (norm < nearest)
            x_adv = torch.where(better.view(-1, 1, 1, 1), trace.x_adv, x_adv)
            nearest = torch.where(better, norm, nearest)
        return Trace(
            x_adv,
            torch.stack([trace.queries for trace in traces]).sum(0),
            torch.cat([trace.loss for trace in traces]),
            torch.stack([trace.zero_gradient for trace in traces]).any(0),
            torch.stack([trace.erred for trace in traces]).any(0),
        )
