"""Projected gradient descent, Madry et al. 2018, https://arxiv.org/abs/1706.06083."""

from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from attacks.balls import Ball, Linf, pixels
from attacks.base import Attack, Model, Trace, cross_entropy, input_gradient


@dataclass(frozen=True)
class PGD(Attack):
    """`steps` steps of steepest ascent on the cross entropy, each projected back into the ball; the last iterate.

    The papers' training and evaluation attack (EEPD section 4) is PGD(Linf(0.031), step_size=0.01, steps=7).

    Args:
        ball: the allowed images.
        step_size: length of a step in the ball's norm, in pixel units.
        steps: number of gradient steps, each one forward and one backward pass; 0 returns the start.
        random_start: begin at a uniform draw from the ball instead of at x.
    """

    ball: Ball = field(default_factory=Linf)
    step_size: float = 2 / 255
    steps: int = 10
    random_start: bool = True

    def __post_init__(self) -> None:
        if self.steps < 0 or not 0 <= self.step_size < float("inf"):
            raise ValueError(f"PGD takes steps >= 0 and step_size >= 0, got {self.steps} and {self.step_size}")

    def __str__(self) -> str:
        norm, eps = type(self.ball).__name__, pixels(self.ball.eps)
        return f"PGD-{self.steps} ({norm}, eps {eps}, step {pixels(self.step_size)})"

    def attack(self, model: Model, x: Tensor, y: Tensor, target: Tensor | None) -> Trace:
        """See `Attack.run`."""
        loss_of = partial(cross_entropy, labels=y if target is None else target)
        towards = 1.0 if target is None else -1.0
        x_adv = self.ball.sample(x) if self.random_start else x
        losses = torch.zeros(self.steps, len(x), device=x.device)
        zero = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        for step in range(self.steps):
            losses[step], gradient = input_gradient(model, x_adv, loss_of, towards)
            zero |= gradient.flatten(1).abs().amax(1) == 0
            x_adv = self.ball.project(x_adv + self.step_size * self.ball.ascent(gradient), x)
        return Trace(x_adv.detach(), torch.full_like(y, self.steps), losses, zero)
