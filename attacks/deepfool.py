"""DeepFool, Moosavi-Dezfooli et al. 2016, https://arxiv.org/abs/1511.04599, algorithm 2 and section 3.3 (Linf)."""

from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from attacks.apgd import likely_targets
from attacks.balls import L2, Ball, Linf
from attacks.base import Attack, Log, Trace
from attacks.goal import Goal
from attacks.losses import Margin
from attacks.shown import Gradient, Shown, input_gradient

_LEAST = 1e-5  # length of a step, in pixel units


@dataclass(frozen=True)
class DeepFool(Attack):
    """Again and again to the nearest boundary of the linearised model, until an image has crossed one.

    All candidate classes of all images are differentiated together, in passes that are no larger than the batch. As in
    the authors' code the model is asked at the overshot point, clipped to [0, 1]. An image that is wrong already comes
    back as it is, and so does one that no step breaks. With a `target` the boundary towards it is the only one.

    Args:
        norm: which norm is small.
        steps: how many linearisations at most; 0 returns x. Each asks `classes` - 1 times, or once with a target.
        overshoot: eta, how far beyond the boundary, as a share of the whole perturbation.
        classes: how many classes are looked at, the label and the likeliest others, at least 2.
    """

    norm: Literal["L2", "Linf"] = "L2"
    steps: int = 50
    overshoot: float = 0.02
    classes: int = 10

    def __post_init__(self) -> None:
        if self.norm not in ("L2", "Linf"):
            raise ValueError(f"DeepFool takes the norm L2 or Linf, got {self.norm}")
        if self.steps < 0 or self.classes < 2 or not 0 <= self.overshoot < float("inf"):
            given = f"{self.steps}, {self.overshoot} and {self.classes}"
            raise ValueError(f"DeepFool takes steps >= 0, overshoot >= 0 and classes >= 2, got {given}")

    def __str__(self) -> str:
        return f"DeepFool-{self.steps} ({self.norm}, {self.classes} classes, overshoot {self.overshoot:g})"

    def search(self, model: Shown, x: Tensor, goal: Goal) -> Trace:
        """See `Attack.run`; the trace's loss is the lead of the class whose boundary is nearest."""
        log, x_adv, ball = Log(self.steps, x, goal), x.clone(), L2() if self.norm == "L2" else Linf()
        logits = log.asked(model.answers(x))
        targets = torch.stack(likely_targets(goal, logits, self.classes - 1))
        rows = (~goal.broken(logits)).nonzero().squeeze(1)
        r = torch.zeros_like(x)
        for i in range(self.steps):
            if not len(rows):
                break
            x_i = self._overshot(x[rows], r[rows])
            nearest, broken = _nearest(model, x_i, goal[rows], targets[:, rows], ball, most=len(x))
            log.step(i, nearest, rows)
            x_adv[rows[broken]] = x_i[broken]
            r[rows] += _onto(nearest, x_i, ball)
            rows = rows[~broken]
        if len(rows):
            x_i = self._overshot(x[rows], r[rows])
            broken = goal[rows].broken(log.asked(model.answers(x_i), rows))
            x_adv[rows[broken]] = x_i[broken]
        return log.trace(x_adv)

    def _overshot(self, x: Tensor, r: Tensor) -> Tensor:
        return (x + (1 + self.overshoot) * r).clamp(0, 1)


def _nearest(model: Shown, x: Tensor, goal: Goal, targets: Tensor, ball: Ball, most: int) -> tuple[Gradient, Tensor]:
    """The class [B] whose linearised boundary is nearest: its lead, the gradient of that, all logits; who is broken.

    Args:
        model: what is attacked.
        x: images [B, C, H, W].
        goal: theirs.
        targets: [K, B], candidate classes.
        ball: whose norm is meant.
        most: images in one pass.
    """
    copies, labels = torch.cat([x] * len(targets)), goal.label.repeat(len(targets))
    passes = zip(
        torch.split(copies, most), torch.split(labels, most), torch.split(targets.flatten(), most), strict=True
    )
    lead = _lead if goal.target is None else _margin
    answers = [input_gradient(model, part, partial(lead, label=y, target=t)) for part, y, t in passes]
    f = torch.cat([answer.loss for answer in answers]).view(targets.shape)
    w = torch.unflatten(torch.cat([answer.gradient for answer in answers]), 0, targets.shape)
    logits = torch.unflatten(torch.cat([answer.logits for answer in answers], -2), -2, targets.shape).movedim(-3, 0)
    dual = torch.stack([_dual_norm(_free(each, x), ball) for each in w])
    distance = torch.where(dual > 0, f.abs() / dual, float("inf"))
    nearest, row = distance.argmin(0), torch.arange(len(x), device=x.device)
    asked = logits.reshape(-1, *logits.shape[-2:])  # of every copy
    return Gradient(asked, f[nearest, row], w[nearest, row]), goal.broken(logits[0])


def _onto(nearest: Gradient, x: Tensor, ball: Ball) -> Tensor:
    """r_i = |f| / ||w||_q times the direction of norm 1 along which f grows fastest; 0 where w is 0."""
    w = _free(nearest.gradient, x)
    dual = _dual_norm(w, ball)
    # On the boundary itself a step of 0 would be the last one.
    size = torch.where(dual > 0, (nearest.loss.abs() / dual).clamp_min(_LEAST), 0.0)
    return size.view(-1, 1, 1, 1) * ball.ascent(w)


def _free(w: Tensor, x: Tensor) -> Tensor:
    """0 where the box holds a pixel back (the paper knows no box): otherwise steps fall short there."""
    return w * ~torch.where(w > 0, x >= 1, x <= 0)


def _dual_norm(w: Tensor, ball: Ball) -> Tensor:
    return (w * ball.ascent(w)).sum((1, 2, 3))


def _lead(logits: Tensor, label: Tensor, target: Tensor) -> Tensor:
    """f_k - f_label, averaged over draws."""
    both = torch.stack([label, target], 1).expand(*logits.shape[:-1], 2)
    return logits.gather(-1, both).diff(dim=-1).view(-1, len(label)).mean(0)


def _margin(logits: Tensor, label: Tensor, target: Tensor) -> Tensor:
    """f_target - max other: a third class may be in between."""
    return Margin()(logits, Goal(label, target))
