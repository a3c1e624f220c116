"""Fast adaptive boundary attack (FAB), Croce & Hein 2020, https://arxiv.org/abs/1907.02044."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from attacks.apgd import likely_targets
from attacks.balls import L2, Ball, Linf, pixels
from attacks.base import Attack, Log, Trace
from attacks.goal import Goal
from attacks.losses import Margin
from attacks.shown import Gradient, Shown, input_gradient

_EACH = (1, 2, 3)


@dataclass(frozen=True)
class FAB(Attack):
    """The nearest image of another class: steps onto the linearised boundary, drawn towards x (FAB-T of AutoAttack).

    The boundaries towards the likeliest classes are followed one after the other, each from x on; any wrong answer
    counts. Towards the `target` alone where one is given. An image that is wrong already comes back as it is, and so
    does one for which nothing was found in the ball.

    Args:
        ball: its norm is made small, its eps is the largest norm that counts: Linf(1) for the nearest image of all.
        steps: N_iter, steps per class; each asks for a gradient and an answer.
        targets: how many classes, at most; a model has one fewer than classes.
        alpha_max: largest weight of the step from x against that from the iterate.
        eta: how far beyond the boundary a step goes, >= 1.
        beta: what is left of the perturbation when a step begins at a broken image, in (0, 1).
    """

    ball: Ball = field(default_factory=lambda: Linf(1.0))
    steps: int = 100
    targets: int = 9
    alpha_max: float = 0.1
    eta: float = 1.05
    beta: float = 0.9

    def __post_init__(self) -> None:
        if not isinstance(self.ball, Linf | L2):
            raise ValueError(f"FAB takes an Linf or L2 ball, got {self.ball}")
        if self.steps < 0 or self.targets < 1:
            raise ValueError(f"FAB takes steps >= 0 and targets >= 1, got {self.steps} and {self.targets}")
        if not (0 <= self.alpha_max <= 1 <= self.eta < float("inf") and 0 < self.beta < 1):
            given = f"{self.alpha_max}, {self.eta} and {self.beta}"
            raise ValueError(f"FAB takes alpha_max in [0, 1], eta >= 1 and beta in (0, 1), got {given}")

    def __str__(self) -> str:
        return f"FAB-T{self.targets}-{self.steps} ({type(self.ball).__name__}, eps {pixels(self.ball.eps)})"

    def search(self, model: Shown, x: Tensor, goal: Goal) -> Trace:
        """See `Attack.run`; the trace's loss is the lead of the class that is followed."""
        logits = model.answers(x)
        targets = likely_targets(goal, logits, self.targets)
        log, nearest = Log(self.steps * len(targets), x, goal), _Nearest(x, goal, self.ball)
        nearest.norm[goal.broken(log.asked(logits))] = 0
        for number, target in enumerate(targets):
            # A third class may be ahead of both: on the way out of y that is a success, on the way into a target not.
            lead = partial(_lead, label=goal.label, target=target) if goal.target is None else None
            self._follow(model, lead, nearest, log, number * self.steps)
        return log.trace(nearest.x_adv)

    def _follow(
        self, model: Shown, lead: Callable[..., Tensor] | None, nearest: "_Nearest", log: Log, first: int
    ) -> None:
        rows = nearest.wanted()
        x_k = nearest.x[rows]
        for k in range(self.steps if len(rows) else 0):
            x, goal = nearest.x[rows], nearest.goal[rows]
            loss = partial(Margin(), goal=goal) if lead is None else partial(lead, rows=rows)
            answer = input_gradient(model, x_k, loss)
            log.step(first + k, answer, rows)
            x_k = self._step(x_k, x, answer)
            broken = goal.broken(log.asked(model.answers(x_k), rows))
            nearest.offer(x_k, broken, rows)
            x_k = torch.where(broken.view(-1, 1, 1, 1), x + self.beta * (x_k - x), x_k)
            if goal.first_success and len(left := nearest.wanted()) < len(rows):
                x_k, rows = x_k[torch.isin(rows, left)], left
                if not len(rows):
                    return

    def _step(self, x_k: Tensor, x: Tensor, answer: Gradient) -> Tensor:
        """Both points onto the boundary z_t = z_y as it is seen from x_k, and a mean of the two."""
        w = answer.gradient
        lead = torch.cat([answer.loss, answer.loss + (w * (x - x_k)).sum(_EACH)])
        d_k, d_x = onto_plane(torch.cat([x_k, x]), torch.cat([w, w]), lead, self.ball).chunk(2)
        size_k, size_x = (_norm(d, self.ball).clamp_min(1e-8).view(-1, 1, 1, 1) for d in (d_k, d_x))
        alpha = (size_k / (size_k + size_x)).clamp_max(self.alpha_max)
        return ((1 - alpha) * (x_k + self.eta * d_k) + alpha * (x + self.eta * d_x)).clamp(0, 1)


class _Nearest:
    """The nearest broken image in the ball for each row of a batch; x itself, at norm infinity, if there is none."""

    def __init__(self, x: Tensor, goal: Goal, ball: Ball) -> None:
        self.x, self.goal, self.ball = x, goal, ball
        self.x_adv = x.clone()
        self.norm = torch.full((len(x),), float("inf"), dtype=x.dtype, device=x.device)

    def offer(self, x_adv: Tensor, broken: Tensor, rows: Tensor) -> None:
        norm = _norm(x_adv - self.x[rows], self.ball)
        better = broken & (norm <= self.ball.eps) & (norm < self.norm[rows])
        self.x_adv[rows[better]], self.norm[rows[better]] = x_adv[better], norm[better]

    def wanted(self) -> Tensor:
        """Rows that can be better: all that were right at first, or those without a success if one is enough."""
        return (self.norm == float("inf") if self.goal.first_success else self.norm > 0).nonzero().squeeze(1)


def onto_plane(x: Tensor, w: Tensor, c: Tensor, ball: Ball) -> Tensor:
    """The d of smallest norm with w . d = -c and x + d in [0, 1]; all the way to the box if nothing reaches the plane.

    Pixel i moves by min(lambda u_i, room_i), u = 1 in Linf and |w| in L2, so sum |w_i| min(lambda u_i, room_i) = |c|.
    That sum is concave in lambda and made of straight lines: Newton's method from below ends, after a few rounds, on
    the solution itself (the paper sorts instead).

    Args:
        x: images [B, C, H, W] in [0, 1].
        w: normals, like x.
        c: [B].
        ball: Linf or L2, whose norm is meant.
    """
    size = w.abs().amax(_EACH, keepdim=True).clamp_min(torch.finfo(w.dtype).tiny)  # or the squares underflow
    w, c = w / size, (c / size.flatten()).view(-1, 1, 1, 1)
    direction = -w.sign() * c.sign()
    room = torch.where(direction > 0, 1 - x, x)
    u = torch.ones_like(w) if isinstance(ball, Linf) else w.abs()
    slopes, rooms = w.abs() * u, w.abs() * room
    step = torch.zeros_like(c)
    while True:
        at_box = step * u >= room
        slope = slopes.masked_fill(at_box, 0).sum(_EACH, keepdim=True)
        missing = c.abs() - rooms.masked_fill(~at_box, 0).sum(_EACH, keepdim=True)
        longer = torch.where(slope > 0, torch.maximum(missing / slope, step), step).clamp_max(torch.finfo(w.dtype).max)
        if torch.equal(longer, step):  # rows that are there stay there: nobody's result depends on its batch mates
            return direction * torch.minimum(step * u, room)
        step = longer


def _lead(logits: Tensor, label: Tensor, target: Tensor, rows: Tensor) -> Tensor:
    """z_t - z_y, averaged over draws."""
    both = torch.stack([label[rows], target[rows]], 1).expand(*logits.shape[:-1], 2)
    return logits.gather(-1, both).diff(dim=-1).view(-1, len(rows)).mean(0)


def _norm(d: Tensor, ball: Ball) -> Tensor:
    return d.abs().amax(_EACH) if isinstance(ball, Linf) else d.flatten(1).norm(dim=1)
