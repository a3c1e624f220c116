"""Fast gradient sign method, Goodfellow et al. 2015, https://arxiv.org/abs/1412.6572, section 4."""

from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from attacks.balls import Ball, Linf, pixels
from attacks.base import Attack, Log, Trace
from attacks.goal import Goal
from attacks.losses import CrossEntropy, Loss
from attacks.pgd import PGD
from attacks.shown import Shown, input_gradient

_AT_ONCE = 10  # radii of an image that are asked about before it is looked at: fewer, larger passes


@dataclass(frozen=True)
class FGSM(Attack):
    """x + eps sign(gradient): PGD with one step as long as the radius, from x.

    Args:
        ball: the allowed images; L2 and L1 step in their own steepest direction.
        loss: what grows.
    """

    ball: Ball = field(default_factory=Linf)
    loss: Loss = CrossEntropy()

    def __str__(self) -> str:
        return f"FGSM ({type(self.ball).__name__}, eps {pixels(self.ball.eps)})"

    def search(self, model: Shown, x: Tensor, goal: Goal) -> Trace:
        """See `Attack.run`."""
        return PGD(self.ball, self.ball.eps, 1, random_start=False, loss=self.loss).search(model, x, goal)


@dataclass(frozen=True)
class GrowingFGSM(Attack):
    """The smallest eps at which the sign of one gradient breaks an image: the papers' FGSM, which is of minimal norm.

    EEPD's tables use Foolbox's: eps grows in equal steps, the first success wins. It then looks again below a success
    among the first 20; here everyone is refined, within the last step, which is never coarser. An image that is wrong
    already, or that no eps breaks, comes back as it is.

    Args:
        max_eps: largest radius, Linf in pixels of [0, 1].
        steps: how many radii, equally spaced up to `max_eps`; 0 returns x.
        refine: into how many parts the last step is divided; 1 for no refinement.
        loss: what grows along the direction.
    """

    max_eps: float = 1.0
    steps: int = 1000
    refine: int = 20
    loss: Loss = CrossEntropy()

    def __post_init__(self) -> None:
        if not 0 <= self.max_eps <= 1:
            raise ValueError(f"max_eps must be an Linf radius in [0, 1], got {self.max_eps}")
        if self.steps < 0 or self.refine < 1:
            raise ValueError(f"GrowingFGSM takes steps >= 0 and refine >= 1, got {self.steps} and {self.refine}")

    def __str__(self) -> str:
        return f"GrowingFGSM ({self.steps} eps up to {pixels(self.max_eps)}, refined by {self.refine})"

    def search(self, model: Shown, x: Tensor, goal: Goal) -> Trace:
        """See `Attack.run`; the trace's loss is that of x."""
        log = Log(1 if self.steps else 0, x, goal)
        if not self.steps:
            return log.trace(x.clone())
        answer = input_gradient(model, x, partial(self.loss, goal=goal))
        log.step(0, answer)
        ray = _Ray(model, x, answer.gradient.sign(), goal, log)
        rows = (~goal.broken(answer.logits)).nonzero().squeeze(1)
        step = self.max_eps / self.steps
        eps = x.new_zeros(len(x))
        # The last radius is max_eps itself, not a multiple that was rounded.
        radii = torch.linspace(step, self.max_eps, self.steps, dtype=x.dtype, device=x.device)
        eps[rows] = ray.first_success(rows, radii.expand(len(rows), -1))
        rows = rows[eps[rows] > 0]
        if self.refine > 1 and len(rows) and not goal.first_success:
            parts = torch.arange(1 - self.refine, 0, dtype=x.dtype, device=x.device) * (step / self.refine)
            finer = ray.first_success(rows, eps[rows, None] + parts)
            eps[rows] = torch.where(finer > 0, finer, eps[rows])
        return log.trace((x + eps.view(-1, 1, 1, 1) * ray.direction).clamp(0, 1))


@dataclass(frozen=True, eq=False)
class _Ray:
    """Images along one direction each."""

    model: Shown
    x: Tensor
    direction: Tensor
    goal: Goal
    log: Log

    def at(self, rows: Tensor, eps: Tensor) -> Tensor:
        """Images at eps [len(rows), n]: all rows at the first, then all at the second, ..."""
        x, direction = self.x[rows], self.direction[rows]
        return torch.cat([(x + e.view(-1, 1, 1, 1) * direction).clamp(0, 1) for e in eps.unbind(1)])

    def first_success(self, rows: Tensor, eps: Tensor) -> Tensor:
        """The first of growing eps [len(rows), n] that breaks each row; 0 where none does: [len(rows)]."""
        found = torch.zeros_like(eps[:, 0])
        waiting = torch.arange(len(rows), device=rows.device)
        for some in torch.split(eps, _AT_ONCE, 1):
            if not len(waiting):
                break
            broken = self._broken(rows[waiting], some[waiting])
            won = broken.any(1)
            found[waiting[won]] = some[waiting[won], broken[won].int().argmax(1)]
            waiting = waiting[~won]
        return found

    def _broken(self, rows: Tensor, eps: Tensor) -> Tensor:
        # No pass is larger than the batch was.
        passes = torch.split(self.at(rows, eps), len(self.x))
        logits = torch.cat([self.model.answers(images) for images in passes], dim=-2)
        each = torch.unflatten(logits, -2, (eps.shape[1], len(rows))).unbind(-3)
        return torch.stack([self.goal[rows].broken(self.log.asked(answer, rows)) for answer in each], 1)
