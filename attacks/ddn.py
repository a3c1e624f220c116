"""Decoupled direction and norm (DDN), Rony et al. 2019, https://arxiv.org/abs/1811.09600."""

from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from attacks.balls import L2
from attacks.base import Attack, Log, Trace
from attacks.goal import Goal
from attacks.losses import CrossEntropy, Loss
from attacks.nearest import Nearest, falling
from attacks.shown import Shown, input_gradient


@dataclass(frozen=True)
class DDN(Attack):
    """The smallest L2 perturbation: steps along the gradient on a sphere that shrinks where the model errs, else grows.

    The nearest of all broken images on the way. An image that is wrong already, or for which nothing was found, comes
    back as it is. On random models a mean loss over several draws (`Adversary(DDN(), draws=16)`) is followed, and only
    what is broken with a margin counts.

    Args:
        steps: K, each one forward and one backward pass; the last image is asked for once more, without a gradient.
        gamma: share by which the radius grows or shrinks per step, in (0, 1).
        init_norm: radius of the first sphere, L2 in pixels of [0, 1].
        quantise: round every image on the way to multiples of 1/255, as the paper does: the result can be a PNG.
        step_size: length of the first step, L2 in pixels of [0, 1]; it falls along a cosine to 1 % of that.
        loss: what grows.
    """

    steps: int = 100
    gamma: float = 0.05
    init_norm: float = 1.0
    quantise: bool = False
    step_size: float = 1.0
    loss: Loss = field(default_factory=CrossEntropy)

    def __post_init__(self) -> None:
        if self.steps < 0 or not 0 < self.gamma < 1:
            raise ValueError(f"DDN takes steps >= 0 and gamma in (0, 1), got {self.steps} and {self.gamma}")
        if not (0 < self.init_norm < float("inf") and 0 < self.step_size < float("inf")):
            raise ValueError(f"DDN takes init_norm > 0 and step_size > 0, got {self.init_norm} and {self.step_size}")

    def __str__(self) -> str:
        return f"DDN-{self.steps} (L2, gamma {self.gamma:g}{', quantised' if self.quantise else ''})"

    def search(self, model: Shown, x: Tensor, goal: Goal) -> Trace:
        """See `Attack.run`."""
        log = Log(self.steps, x, goal)
        nearest = Nearest(model, x, goal, log)
        rows = nearest.wanted()
        x_k, epsilon = x, torch.full_like(x[:, :1, :1, :1], self.init_norm)
        for k in range(self.steps):
            answer = input_gradient(model, x_k, partial(self.loss, goal=goal[rows]))
            log.step(k, answer, rows)
            broken = nearest.offer(x_k, answer.logits, rows)
            x_k = x_k + falling(self.step_size, self.step_size / 100, k / self.steps) * L2().ascent(answer.gradient)
            epsilon = epsilon * torch.where(broken, 1 - self.gamma, 1 + self.gamma).view(-1, 1, 1, 1)
            if len(left := nearest.wanted()) < len(rows):
                stays = torch.isin(rows, left)
                x_k, epsilon, rows = x_k[stays], epsilon[stays], left
                if not len(rows):
                    break
            x_k = self._on_sphere(x_k, x[rows], epsilon)
        if len(rows) and self.steps:
            nearest.offer(x_k, log.asked(model.answers(x_k), rows), rows)
        return log.trace(nearest.x_adv)

    def _on_sphere(self, x_k: Tensor, x: Tensor, epsilon: Tensor) -> Tensor:
        x_k = (x + epsilon * L2().ascent(x_k - x)).clamp(0, 1)
        return (x_k * 255).round() / 255 if self.quantise else x_k
