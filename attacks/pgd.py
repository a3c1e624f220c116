"""Projected gradient descent, Madry et al. 2018, https://arxiv.org/abs/1706.06083."""

from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from attacks.balls import Ball, Linf, pixels
from attacks.base import Attack, Best, Log, Trace
from attacks.goal import Goal
from attacks.losses import CrossEntropy, Loss
from attacks.shown import Shown, input_gradient


@dataclass(frozen=True)
class PGD(Attack):
    """`steps` steps of steepest ascent, each projected back into the ball; the last iterate.

    The papers' training and evaluation attack (EEPD section 4) is PGD(Linf(0.031), step_size=0.01, steps=7).

    Args:
        ball: the allowed images.
        step_size: length of a step in the ball's norm, in pixel units.
        steps: number of gradient steps, each one forward and one backward pass; 0 returns the start.
        random_start: begin at a uniform draw from the ball instead of at x.
        restarts: how often to begin anew; an image keeps the end that breaks it, or else that of the largest loss.
            Needs random starts (or a random model) to find anything new.
        momentum: decay mu of the accumulated gradient, 0 for none (Dong et al. 2018, https://arxiv.org/abs/1710.06081).
        loss: what grows.
    """

    ball: Ball = field(default_factory=Linf)
    step_size: float = 2 / 255
    steps: int = 10
    random_start: bool = True
    restarts: int = 1
    momentum: float = 0.0
    loss: Loss = CrossEntropy()

    def __post_init__(self) -> None:
        if self.steps < 0 or not 0 <= self.step_size < float("inf"):
            raise ValueError(f"PGD takes steps >= 0 and step_size >= 0, got {self.steps} and {self.step_size}")
        if self.restarts < 1 or not 0 <= self.momentum < float("inf"):
            raise ValueError(f"PGD takes restarts >= 1 and momentum >= 0, got {self.restarts} and {self.momentum}")

    def __str__(self) -> str:
        norm, eps = type(self.ball).__name__, pixels(self.ball.eps)
        restarts = f" x {self.restarts}" if self.restarts > 1 else ""
        momentum = f", momentum {self.momentum:g}" if self.momentum else ""
        return f"PGD-{self.steps}{restarts} ({norm}, eps {eps}, step {pixels(self.step_size)}{momentum})"

    def search(self, model: Shown, x: Tensor, goal: Goal) -> Trace:
        """See `Attack.run`."""
        return self._search(model, x, goal, None)

    def search_each(self, model: Shown, x: Tensor, goal: Goal, eps: Tensor) -> Trace:
        """`search` with a radius > 0 for each image, [B]; steps keep their ratio to it (the ball's own is > 0, too)."""
        return self._search(model, x, goal, eps.to(x).view(-1, 1, 1, 1))

    def _search(self, model: Shown, x: Tensor, goal: Goal, radius: Tensor | None) -> Trace:
        log = Log(self.steps * self.restarts, x, goal)
        rows = torch.arange(len(x), device=x.device)
        if self.restarts == 1:
            return log.trace(self._climb(model, x, self._start(x, radius), goal, radius, rows, log, 0))
        best = Best(x, goal, self.loss)
        for restart in range(self.restarts):
            if not len(rows):
                break
            start = self._start(x, radius)[rows]  # drawn for the whole batch: nobody's start depends on who has left
            radii, first = None if radius is None else radius[rows], restart * self.steps
            x_adv = self._climb(model, x[rows], start, goal[rows], radii, rows, log, first)
            best.offer(x_adv, log.asked(model.answers(x_adv), rows), rows)
            rows = best.unbroken() if goal.first_success else rows
        return log.trace(best.x_adv)

    def _start(self, x: Tensor, radius: Tensor | None) -> Tensor:
        return self.ball.sample(x, radius) if self.random_start else x

    def _climb(
        self,
        model: Shown,
        x: Tensor,
        x_adv: Tensor,
        goal: Goal,
        radius: Tensor | None,
        rows: Tensor,
        log: Log,
        first: int,
    ) -> Tensor:
        found, place = x_adv.clone(), torch.arange(len(x), device=x.device)
        velocity = torch.zeros_like(x) if self.momentum else None
        for step in range(self.steps):
            answer = input_gradient(model, x_adv, partial(self.loss, goal=goal))
            log.step(first + step, answer, rows[place])
            direction = answer.gradient
            if velocity is not None:
                velocity = direction = self.momentum * velocity + _at_mean_1(direction)
            direction = self.ball.ascent(direction, x_adv)
            if radius is not None:
                direction = direction * (radius / self.ball.eps)
            moved = self.ball.project(torch.add(x_adv, direction, alpha=self.step_size), x, radius)
            if goal.first_success and (broken := goal.broken(answer.logits)).any():
                found[place[broken]] = x_adv[broken]
                x, moved, place, goal = x[~broken], moved[~broken], place[~broken], goal[~broken]
                radius = None if radius is None else radius[~broken]
                velocity = None if velocity is None else velocity[~broken]
            x_adv = moved
            if not len(place):
                break
        found[place] = x_adv
        return found


def _at_mean_1(gradient: Tensor) -> Tensor:
    """Divided by its L1 norm per image, as the momentum paper does (up to the number of pixels)."""
    size = gradient.abs().mean((1, 2, 3), keepdim=True)
    return gradient / size.clamp_min(torch.finfo(gradient.dtype).tiny)
