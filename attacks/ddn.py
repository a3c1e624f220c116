"""Decoupled direction and norm (DDN), Rony et al. 2019, https://arxiv.org/abs/1811.09600."""

from dataclasses import dataclass, field
from functools import partial
from math import cos, pi

import torch
from torch import Tensor

from attacks.balls import L2
from attacks.base import Attack, Log, Trace
from attacks.goal import Goal, draws_of
from attacks.losses import CrossEntropy, Loss
from attacks.shown import Shown, input_gradient
from defenses.randomness import is_random

# Share of its margin at x by which a deterministic answer has to be wrong.
_SLACK = 1e-4


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
        log = Log(self.steps, x)
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


class Nearest:
    """The nearest broken image for each row of a batch; x itself, at norm infinity, if there is none.

    Args:
        model: what is attacked; a random one is asked again.
        x: the whole batch.
        goal: of the whole batch.
        log: where it is written down that the model was asked.
        order: of the norm, 2 for L2.
    """

    def __init__(self, model: Shown, x: Tensor, goal: Goal, log: Log, order: float = 2.0) -> None:
        self.model, self.x, self.goal, self.log, self.order = model, x, goal, log, order
        self.x_adv = x.clone()
        self.norm = torch.full((len(x),), float("inf"), dtype=x.dtype, device=x.device)
        self.slack = torch.zeros_like(self.norm)
        self.random = is_random(model.model)

    def offer(self, x_adv: Tensor, logits: Tensor, rows: Tensor) -> Tensor:
        """Take over what is nearer: images of some rows, and the model's answers to them. Returns which are broken.

        Of a deterministic model, what lies on the boundary itself is not: rounding decides there, and another batch
        size, layout or BatchNorm that is not folded rounds otherwise. The first offer, x itself, says what is much.
        Of a random model, what the draws of one of many steps call broken was often luck: other draws confirm it.
        """
        goal = self.goal[rows]
        broken = goal.broken(logits)
        norm = (x_adv - self.x[rows]).flatten(1).norm(self.order, dim=1)
        chance = self.random or draws_of(logits) > 1
        if not chance:
            margin = goal.margin(logits).view(-1).to(norm)
            self.slack[rows] = torch.where(norm == 0, _SLACK * margin, self.slack[rows])
            broken &= margin <= -self.slack[rows]
        better = broken & (norm < self.norm[rows])
        if chance and better.any():
            lucky = better.nonzero().squeeze(1)
            again = self.log.asked(self.model.answers(x_adv[lucky]), rows[lucky])
            lucky = lucky[~self.goal[rows[lucky]].broken(again)]
            broken[lucky] = better[lucky] = False
        taken = rows[better]
        self.x_adv[taken], self.norm[taken] = x_adv[better], norm[better]
        return broken

    def wanted(self) -> Tensor:
        """Rows that can be better: all that were right at first, or those without a success if one is enough."""
        return (self.norm == float("inf") if self.goal.first_success else self.norm > 0).nonzero().squeeze(1)


def falling(first: float, last: float, share: float) -> float:
    """Between `first` and `last` along half a cosine; `share` of the way in [0, 1]."""
    return last + (first - last) * (1 + cos(pi * share)) / 2
