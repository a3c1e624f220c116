"""Basic iterative method, Kurakin et al. 2017, https://arxiv.org/abs/1607.02533; the smallest ball that suffices."""

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from attacks.balls import Ball, Linf, pixels
from attacks.base import Attack, Log, Trace
from attacks.goal import Goal, draws_of
from attacks.losses import CrossEntropy, Loss, Margin
from attacks.nearest import slack
from attacks.pgd import PGD
from attacks.shown import Shown
from defenses.randomness import is_random


@dataclass(frozen=True)
class BIM(Attack):
    """Repeated small steps of FGSM from x on, kept in the ball: PGD without a random start.

    EEPD's "BIM L1" is Foolbox's: eps 0.3 and step 0.05 there are means over the n pixels, here sums, so
    SmallestBall(BIM(L1(0.3 * n, density=1.0), 0.05 * n, 10)).

    Args:
        ball: the allowed images.
        step_size: length of a step in the ball's norm, in pixel units.
        steps: number of gradient steps; 0 returns x.
        loss: what grows.
    """

    ball: Ball = field(default_factory=Linf)
    step_size: float = 2 / 255
    steps: int = 10
    loss: Loss = CrossEntropy()

    def __post_init__(self) -> None:
        if self.steps < 0 or not 0 <= self.step_size < float("inf"):
            raise ValueError(f"BIM takes steps >= 0 and step_size >= 0, got {self.steps} and {self.step_size}")

    def __str__(self) -> str:
        norm, eps, step = type(self.ball).__name__, pixels(self.ball.eps), pixels(self.step_size)
        return f"BIM-{self.steps} ({norm}, eps {eps}, step {step})"

    def search(self, model: Shown, x: Tensor, goal: Goal) -> Trace:
        """See `Attack.run`."""
        return self._pgd().search(model, x, goal)

    def search_each(self, model: Shown, x: Tensor, goal: Goal, eps: Tensor) -> Trace:
        """See `PGD`."""
        return self._pgd().search_each(model, x, goal, eps)

    def _pgd(self) -> PGD:
        return PGD(self.ball, self.step_size, self.steps, random_start=False, loss=self.loss)


@dataclass(frozen=True)
class SmallestBall(Attack):
    """The smallest ball in which an attack succeeds: the papers' PGD and BIM, which are of (nearly) minimal norm.

    EEPD's are Foolbox's: the radius grows by half until a success, then it is bisected; the step keeps its ratio to the
    radius. Each image has a radius of its own. PGD and BIM take all images together; of other attacks only those of the
    same radius go together, so late bisections run in small groups. Who is attacked together shares a batch of draws
    (random starts, noise). An image that is wrong already comes back as it is, and so does one that no ball broke.

    Args:
        attack: any attack with a `ball`, whose `eps` is the first radius; its `step_size`, if it has one, scales along.
        growth: factor of the radius after a failure, > 1, up to the distance from black to white.
        growths: how often it grows at most.
        bisections: how often the interval between the last failure and the best success is halved at most.
        tolerance: an image is finished as soon as that interval is this share of its radius; 0 for all bisections.
    """

    attack: Attack = field(default_factory=BIM)
    growth: float = 1.5
    growths: int = 20
    bisections: int = 20
    tolerance: float = 0.001

    def __post_init__(self) -> None:
        if "ball" not in {setting.name for setting in fields(self.attack)}:  # type: ignore[arg-type]
            raise ValueError(f"SmallestBall takes an attack with a ball, got {self.attack}")
        if not 1 < self.growth < float("inf") or self.growths < 0 or self.bisections < 0 or not 0 <= self.tolerance < 1:
            given = f"{self.growth}, {self.growths}, {self.bisections} and {self.tolerance}"
            raise ValueError(
                f"SmallestBall takes growth > 1, growths and bisections >= 0 and tolerance in [0, 1), got {given}"
            )

    def __str__(self) -> str:
        return f"SmallestBall ({self.attack})"

    def search(self, model: Shown, x: Tensor, goal: Goal) -> Trace:
        """See `Attack.run`; the trace's loss is the margin after each attack."""
        log = Log(1 + self.growths + self.bisections, x, goal)
        logits = log.asked(model.answers(x))
        # Of many draws, or a random one, luck decides more than rounding does.
        rounding = None if is_random(model.model) or draws_of(logits) > 1 else slack(goal, logits)
        nearest, rows = _Bracket(x, goal, self.attack, rounding), (~goal.broken(logits)).nonzero().squeeze(1)
        for step in range(len(log.loss)):
            rows = rows[nearest.eps[rows] > 0]
            if not len(rows):
                break
            nearest.attempt(model, rows, log, step)
            rows = nearest.next(rows, self, step)
        return log.trace(nearest.x_adv)


class _Bracket:
    """The largest radius that failed, and the smallest that sufficed, for each row of a batch."""

    def __init__(self, x: Tensor, goal: Goal, attack: Any, rounding: Tensor | None) -> None:
        self.x, self.goal, self.attack, self.rounding = x, goal, attack, rounding
        self.x_adv = x.clone()
        self.low = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        self.high = torch.full_like(self.low, float("inf"))
        self.halved = torch.zeros_like(self.low)
        self.largest = float(attack.ball.norm(torch.ones_like(x[:1])))
        self.eps = torch.full_like(self.low, min(attack.ball.eps, self.largest))

    def attempt(self, model: Shown, rows: Tensor, log: Log, step: int) -> None:
        """Attack some rows, each with its radius."""
        if hasattr(self.attack, "search_each"):
            search = partial(self.attack.search_each, eps=self.eps[rows])
            self._attempt(model, search, rows, log, step)
            return
        for eps in torch.unique(self.eps[rows]).tolist():
            self._attempt(model, self._scaled(eps).search, rows[self.eps[rows] == eps], log, step)

    def _attempt(self, model: Shown, search: Callable[..., Trace], rows: Tensor, log: Log, step: int) -> None:
        x, goal, eps = self.x[rows], self.goal[rows], self.eps[rows]
        # The first iterate that breaks an image is good enough, and nearer than the last.
        hasty = Goal(goal.label, goal.target, first_success=not is_random(model.model))
        trace = search(model, x, hasty)
        log.queries[rows] += trace.queries
        log.zero_gradient[rows] |= trace.zero_gradient
        log.erred[rows] |= trace.erred
        logits = log.asked(model.answers(trace.x_adv), rows)
        log.loss[step, rows] = Margin()(logits, goal)
        norm = torch.minimum(self.attack.ball.norm(trace.x_adv - x).double(), eps)
        broken = goal.broken(logits)
        if self.rounding is not None:
            broken &= goal.margin(logits).view(-1) <= -self.rounding[rows]
        better = broken & (norm < self.high[rows])
        self.x_adv[rows[better]], self.high[rows[better]] = trace.x_adv[better], norm[better]
        self.low[rows[~broken]] = eps[~broken]

    def next(self, rows: Tensor, plan: SmallestBall, step: int) -> Tensor:
        """Set the next radii; returns the rows that have one."""
        low, high = self.low[rows], self.high[rows]
        found = high < float("inf")
        self.eps[rows] = torch.where(found, (low + high) / 2, (low * plan.growth).clamp_max(self.largest))
        halve = found & (self.halved[rows] < plan.bisections) & (high - low > plan.tolerance * high)
        self.halved[rows] += halve.double()
        grow = ~found & (low < self.largest) & (step < plan.growths)
        return rows[halve & (not self.goal.first_success) | grow]

    def _scaled(self, eps: float) -> Attack:
        ball = replace(self.attack.ball, eps=eps)
        if not hasattr(self.attack, "step_size"):
            return replace(self.attack, ball=ball)
        return replace(self.attack, ball=ball, step_size=self.attack.step_size * eps / self.attack.ball.eps)
