"""Fast minimum-norm attack (FMN), Pintor et al. 2021, https://arxiv.org/abs/2102.12827."""

from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from attacks.balls import L2
from attacks.base import Attack, Log, Trace
from attacks.goal import Goal
from attacks.losses import Loss, Margin
from attacks.nearest import Nearest, falling
from attacks.shown import Gradient, Shown, input_gradient

ORDERS = {"L2": 2.0, "Linf": float("inf"), "L1": 1.0}
_DUALS = {"L2": 2.0, "Linf": 1.0, "L1": float("inf")}


@dataclass(frozen=True)
class FMN(Attack):
    """The smallest perturbation: steps along the gradient, projected into a ball that follows the boundary.

    As long as nothing is broken the ball reaches as far as the boundary seems to be; then it shrinks where the model
    errs and grows where it does not, by less and less. The nearest of all broken images on the way. An image that is
    wrong already, or for which nothing was found, comes back as it is. On random models: as `DDN`.

    Args:
        norm: whose norm is small: "L2", "Linf" or "L1".
        steps: K, each one forward and one backward pass; the last image is asked for once more, without a gradient.
        alpha: length of the first step, L2 in pixels of [0, 1] whatever the norm; it falls along a cosine to 1 %.
        gamma: share by which the radius grows or shrinks at first, in (0, 1); it falls along a cosine ...
        gamma_final: ... to this.
        loss: what grows. Of a margin (of logits), the first radius is a good guess.
    """

    norm: Literal["L2", "Linf", "L1"] = "L2"
    steps: int = 100
    alpha: float = 1.0
    gamma: float = 0.05
    gamma_final: float = 0.001
    loss: Loss = field(default_factory=Margin)

    def __post_init__(self) -> None:
        if self.norm not in ORDERS:
            raise ValueError(f"FMN takes the norm L2, Linf or L1, got {self.norm}")
        if self.steps < 0 or not 0 < self.alpha < float("inf"):
            raise ValueError(f"FMN takes steps >= 0 and alpha > 0, got {self.steps} and {self.alpha}")
        if not 0 < self.gamma_final <= self.gamma < 1:
            raise ValueError(f"FMN takes 0 < gamma_final <= gamma < 1, got {self.gamma_final} and {self.gamma}")

    def __str__(self) -> str:
        return f"FMN-{self.steps} ({self.norm}, alpha {self.alpha:g}, gamma {self.gamma:g})"

    def search(self, model: Shown, x: Tensor, goal: Goal) -> Trace:
        """See `Attack.run`."""
        log = Log(self.steps, x, goal)
        nearest = Nearest(model, x, goal, log, ORDERS[self.norm])
        rows = nearest.wanted()
        x_k, epsilon = x, torch.full_like(nearest.norm, float("inf"))
        for k in range(self.steps):
            answer = input_gradient(model, x_k, partial(self.loss, goal=goal[rows]))
            log.step(k, answer, rows)
            broken = nearest.offer(x_k, answer.logits, rows)
            gamma = falling(self.gamma, self.gamma_final, k / self.steps)
            epsilon = self._radius(epsilon, gamma, answer, broken, x_k - x[rows], nearest.norm[rows])
            x_k = x_k + falling(self.alpha, self.alpha / 100, k / self.steps) * L2().ascent(answer.gradient)
            if len(left := nearest.wanted()) < len(rows):
                stays = torch.isin(rows, left)
                x_k, epsilon, rows = x_k[stays], epsilon[stays], left
                if not len(rows):
                    break
            x_k = (x[rows] + projected(x_k - x[rows], epsilon, self.norm)).clamp(0, 1)
        if len(rows) and self.steps:
            nearest.offer(x_k, log.asked(model.answers(x_k), rows), rows)
        return log.trace(nearest.x_adv)

    def _radius(
        self, epsilon: Tensor, gamma: float, answer: Gradient, broken: Tensor, delta: Tensor, best: Tensor
    ) -> Tensor:
        size = delta.flatten(1).norm(ORDERS[self.norm], dim=1)
        slope = answer.gradient.flatten(1).norm(_DUALS[self.norm], dim=1)
        gap = (-answer.loss).clamp_min(0) / slope.clamp_min(torch.finfo(slope.dtype).tiny)
        # Most draws may be wrong and the image still not be broken: then the boundary is no guide, but farther is.
        ahead = torch.maximum(size + gap, (1 + gamma) * size)
        ahead = torch.where(ahead > 0, ahead, float("inf"))
        shrunk = torch.minimum((1 - gamma) * epsilon, best)
        return torch.where(broken, shrunk, torch.where(best == float("inf"), ahead, (1 + gamma) * epsilon))


def projected(delta: Tensor, epsilon: Tensor, norm: str) -> Tensor:
    """The point nearest to `delta` (in L2) in a ball of each image's own radius; exact.

    Args:
        delta: [B, C, H, W].
        epsilon: [B], >= 0, infinity for no ball.
        norm: L2, Linf or L1.
    """
    if norm == "Linf":
        return torch.minimum(torch.maximum(delta, -_wide(epsilon)), _wide(epsilon))
    size = delta.abs()
    if norm == "L2":
        length = size.flatten(1).norm(dim=1).clamp_min(torch.finfo(delta.dtype).tiny)
        return delta * _wide((epsilon / length).clamp_max(1))
    # What every size loses (Duchi et al. 2008): the k largest alone would have to lose (their sum - epsilon) / k.
    largest = size.flatten(1).sort(dim=1, descending=True).values.cumsum(1) - epsilon.unsqueeze(1)
    cut = (largest / torch.arange(1, largest.shape[1] + 1, device=delta.device)).amax(1).clamp_min(0)
    return delta.sign() * (size - _wide(cut)).clamp_min(0)


def _wide(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)
