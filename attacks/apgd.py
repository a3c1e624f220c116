"""Auto-PGD (APGD), Croce & Hein 2020, https://arxiv.org/abs/2003.01690, section 4 and algorithm 1."""

from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from attacks.balls import L2, Ball, Linf, pixels
from attacks.base import Attack, Best, Log, Trace
from attacks.goal import Goal
from attacks.losses import DLR, CrossEntropy, Loss, Margin
from attacks.shown import Gradient, Shown, input_gradient

_ALPHA = 0.75  # weight of the gradient step against the previous step


@dataclass(frozen=True)
class APGD(Attack):
    """Gradient ascent with momentum that halves its own step; the iterate that breaks the image, or the best one.

    Loss, step control and choice of the iterate are means over the draws of an answer, so behind EOT they hold for
    random models, too. All of it is per image.

    Args:
        ball: Linf or L2.
        loss: what grows; `DLR()` is the other one of the paper.
        steps: N_iter, gradients per start; 0 returns x.
        restarts: how many random starts; an image keeps the best over all.
        rho: the share of steps that must raise the loss if the step is to stay as long as it is.
    """

    ball: Ball = field(default_factory=Linf)
    loss: Loss = CrossEntropy()
    steps: int = 100
    restarts: int = 1
    rho: float = 0.75

    def __post_init__(self) -> None:
        if not isinstance(self.ball, Linf | L2):
            raise ValueError(f"APGD takes an Linf or L2 ball, got {self.ball}")
        if self.steps < 0 or self.restarts < 1 or not 0 <= self.rho <= 1:
            given = f"{self.steps}, {self.restarts} and {self.rho}"
            raise ValueError(f"APGD takes steps >= 0, restarts >= 1 and rho in [0, 1], got {given}")

    def __str__(self) -> str:
        loss = "CE" if isinstance(self.loss, CrossEntropy) else type(self.loss).__name__
        return f"APGD-{loss}-{_of(self.steps, self.restarts, self.ball)}"

    def search(self, model: Shown, x: Tensor, goal: Goal) -> Trace:
        """See `Attack.run`."""
        log, best = Log(self.steps * self.restarts, x, goal), Best(x, goal, self.loss)
        for restart in range(self.restarts):
            self.climb(model, x, goal, best, log, restart * self.steps)
        return log.trace(best.x_adv)

    def climb(self, model: Shown, x: Tensor, aim: Goal, best: Best, log: Log, first: int) -> None:
        """Algorithm 1 from one random start, on images that may still be in it.

        Args:
            model: what is attacked.
            x: the whole batch.
            aim: what the loss looks at; what counts as broken is up to `best`.
            best: takes every iterate.
            log: takes `steps` steps from `first` on.
            first: see `log`.
        """
        start = self.ball.sample(x)  # for the whole batch: nobody's start depends on who has left
        rows = best.unbroken() if aim.first_success else torch.arange(len(x), device=x.device)
        if not len(rows) or not self.steps:
            return
        w = checkpoints(self.steps)
        windows = {now: now - before for before, now in pairwise(w)} | {0: 0}
        at = _start(start[rows], rows, 2 * self.ball.eps)
        for k in range(self.steps):
            answer = input_gradient(model, at.x_k, partial(self.loss, goal=aim[at.rows]))
            log.step(first + k, answer, at.rows)
            best.offer(at.x_k, answer.logits, at.rows)
            at = _seen(at, answer)
            if aim.first_success and best.broken[at.rows].any():
                at = _At(*(part[~best.broken[at.rows]] for part in at))
                if not len(at.rows):
                    return
            if k in windows:
                at = _controlled(at, self.rho * windows[k])
            at = _moved(at, self.ball, x[at.rows], _ALPHA if k else 1.0)
        best.offer(at.x_k, log.asked(model.answers(at.x_k), at.rows), at.rows)


@dataclass(frozen=True)
class TargetedAPGD(Attack):
    """APGD towards one class after the other, the likeliest first; any wrong answer will do (APGD-T, section 5.3).

    Towards the `target` alone where one is given.

    Args:
        ball: Linf or L2.
        steps: N_iter, gradients per class and start.
        targets: how many classes, at most; a model has one fewer than classes.
        restarts: how often all classes are gone through.
        loss: what grows; the paper's, `DLR`, needs four classes.
    """

    ball: Ball = field(default_factory=Linf)
    steps: int = 100
    targets: int = 9
    restarts: int = 1
    loss: Loss = DLR()

    def __post_init__(self) -> None:
        APGD(self.ball, self.loss, self.steps, self.restarts)  # refuses what is impossible
        if self.targets < 1:
            raise ValueError(f"TargetedAPGD takes targets >= 1, got {self.targets}")

    def __str__(self) -> str:
        return f"APGD-T{self.targets}-{_of(self.steps, self.restarts, self.ball)}"

    def search(self, model: Shown, x: Tensor, goal: Goal) -> Trace:
        """See `Attack.run`."""
        logits = model.answers(x)
        aims = [goal.toward(target) for target in likely_targets(goal, logits, self.targets)] * self.restarts
        # Losses towards different classes cannot be compared; margins can.
        log, best = Log(self.steps * len(aims), x, goal), Best(x, goal, Margin())
        best.offer(x, log.asked(logits))
        apgd = APGD(self.ball, self.loss, self.steps)
        for number, aim in enumerate(aims):
            apgd.climb(model, x, aim, best, log, number * self.steps)
        return log.trace(best.x_adv)


def likely_targets(goal: Goal, logits: Tensor, number: int) -> list[Tensor]:
    """The `number` likeliest classes [B] but the label, likeliest first, by mean logits; or the goal's target alone."""
    if goal.target is not None:
        return [goal.target]
    others = logits.reshape(-1, *logits.shape[-2:]).mean(0).scatter(1, goal.label.unsqueeze(1), float("-inf"))
    return list(others.topk(min(number, logits.shape[-1] - 1)).indices.unbind(1))


def checkpoints(steps: int) -> list[int]:
    """w_j = ceil(p_j N_iter) below N_iter; p_0 = 0, p_1 = 0.22, p_j+1 = p_j + max(p_j - p_j-1 - 0.03, 0.06).

    >>> checkpoints(100)
    [0, 22, 41, 57, 70, 80, 87, 93, 99]
    """
    p = [0, 22]  # per cent: 0.41 * 100 is not 41 in floating point
    while p[-1] < 100:
        p.append(p[-1] + max(p[-1] - p[-2] - 3, 6))
    return sorted({w for part in p if (w := -(-part * steps // 100)) < steps})


class _At(NamedTuple):
    """Where each image stands, in the paper's letters."""

    rows: Tensor  # places in the batch
    x_k: Tensor
    x_before: Tensor  # x^(k-1)
    x_max: Tensor
    g_k: Tensor  # gradients at x_k and x_max
    g_max: Tensor
    f_k: Tensor
    f_max: Tensor
    f_max_then: Tensor  # at the last checkpoint
    eta: Tensor
    rises: Tensor  # steps since the last checkpoint that raised the loss
    halved: Tensor  # whether eta was, at the last checkpoint


def _start(x: Tensor, rows: Tensor, eta: float) -> _At:
    infinite = torch.full((len(x),), float("inf"), dtype=x.dtype, device=x.device)
    none = torch.zeros_like(rows)
    return _At(rows, x, x, x, x, x, infinite, -infinite, -infinite, torch.full_like(infinite, eta), none, none > 0)


def _seen(at: _At, answer: Gradient) -> _At:
    f = answer.loss
    return at._replace(
        g_k=answer.gradient,
        f_k=f,
        rises=at.rises + (f > at.f_k),
        x_max=_where(f > at.f_max, at.x_k, at.x_max),
        g_max=_where(f > at.f_max, answer.gradient, at.g_max),
        f_max=torch.maximum(f, at.f_max),
    )


def _controlled(at: _At, least: float) -> _At:
    """Conditions 1 and 2: too few steps rose, or the maximum stood still under an unchanged step."""
    halve = (at.rises < least) | (~at.halved & (at.f_max == at.f_max_then))
    return at._replace(
        x_k=_where(halve, at.x_max, at.x_k),
        g_k=_where(halve, at.g_max, at.g_k),
        f_max_then=at.f_max,
        eta=torch.where(halve, at.eta / 2, at.eta),
        rises=torch.zeros_like(at.rises),
        halved=halve,
    )


def _moved(at: _At, ball: Ball, x: Tensor, alpha: float) -> _At:
    x_k = at.x_k
    z = ball.project(x_k + at.eta.view(-1, 1, 1, 1) * ball.ascent(at.g_k), x)
    return at._replace(x_k=ball.project(x_k + alpha * (z - x_k) + (1 - alpha) * (x_k - at.x_before), x), x_before=x_k)


def _where(rows: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    return torch.where(rows.view(-1, 1, 1, 1), yes, no)


def _of(steps: int, restarts: int, ball: Ball) -> str:
    times = f" x {restarts}" if restarts > 1 else ""
    return f"{steps}{times} ({type(ball).__name__}, eps {pixels(ball.eps)})"
