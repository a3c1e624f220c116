"""Attacks on few pixels: at random, and by local search (Narodytska & Kasiviswanathan 2016, https://arxiv.org/abs/1612.06299).

The papers' black-box experiments (EEPD figure 17) ran them as foolbox does.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from attacks.base import Attack, Best, Log, Trace
from attacks.corruptions import Trials
from attacks.goal import Goal, draws_of
from attacks.losses import CrossEntropy, Loss
from attacks.shown import Shown
from defenses.randomness import uniform_like


@dataclass(frozen=True)
class SinglePixel(Trials):
    """One pixel set to 0 and to 1 in all colours, then another: the worst of them.

    Args:
        trials: pixels that are tried, in random order, no pixel twice; each costs two queries. 0 returns x.
    """

    trials: int = 1000

    def __post_init__(self) -> None:
        if self.trials < 0:
            raise ValueError(f"SinglePixel takes trials >= 0, got {self.trials}")

    def __str__(self) -> str:
        return f"SinglePixel x {self.trials}"

    @property
    def tries(self) -> int:
        """Both values of each pixel."""
        return 2 * self.trials

    def candidates(self, x: Tensor) -> Iterator[Tensor]:
        """See `Trials`; fewer than `tries` where the image has fewer pixels."""
        order = _order(x)
        for trial in range(min(self.trials, order.shape[1])):
            for value in (0.0, 1.0):
                yield _painted(x, order[:, trial : trial + 1], x.new_full((len(x), 1), value))


@dataclass(frozen=True)
class MultiplePixels(Trials):
    """Some random pixels, each set to 0 or 1 (at random) in all colours: the worst of several draws.

    Args:
        pixels: how many of an image; no more than it has.
        trials: draws of all of them; 0 returns x.
    """

    pixels: int = 10
    trials: int = 10

    def __post_init__(self) -> None:
        if self.trials < 0 or self.pixels < 0:
            raise ValueError(f"MultiplePixels takes pixels and trials >= 0, got {self.pixels} and {self.trials}")

    def __str__(self) -> str:
        return f"MultiplePixels x {self.trials} ({self.pixels} pixels)"

    @property
    def tries(self) -> int:
        """One per trial."""
        return self.trials

    def candidates(self, x: Tensor) -> Iterator[Tensor]:
        """See `Trials`."""
        for _ in range(self.trials):
            places = _order(x)[:, : self.pixels]
            yield _painted(x, places, uniform_like(x.new_empty(places.shape)).round())


@dataclass(frozen=True)
class LocalSearch(Attack):
    """Rounds of two steps: which of some pixels matter most, and a push for these; then their neighbours are asked.

    Letters are the paper's, constants foolbox's. An image is finished when it is broken; one that was before comes back
    as it is, one that resists as the round of largest loss left it.

    Args:
        r: how far a pixel is pushed: v -> r v with v = pixel - 1/2, wrapped into [0, 1]; in [0, 2).
        p: a pixel is probed as 1/2 + p sign(v), far outside of [0, 1]. The result lies inside.
        d: half the side of the square around a pushed pixel that is asked about in the next round.
        t: pixels pushed in a round.
        rounds: R; 0 returns x.
        candidates: most pixels asked about in a round, at random.
        loss: what says how much a pixel matters; the paper takes the probability of the label.
        most_images: most images in one pass.
    """

    r: float = 1.5
    p: float = 10.0
    d: int = 5
    t: int = 5
    rounds: int = 150
    candidates: int = 128
    loss: Loss = CrossEntropy()
    most_images: int = 512

    def __post_init__(self) -> None:
        if not 0 <= self.r < 2 or not 0 <= self.p < float("inf") or min(self.d, self.rounds) < 0:
            raise ValueError(f"LocalSearch takes r in [0, 2), p, d and rounds >= 0, got {self!r}")
        if min(self.t, self.candidates, self.most_images) < 1:
            raise ValueError(f"LocalSearch takes t, candidates and most_images >= 1, got {self!r}")

    def __str__(self) -> str:
        return f"LocalSearch-{self.rounds} (t {self.t}, d {self.d}, p {self.p:g}, r {self.r:g})"

    def search(self, model: Shown, x: Tensor, goal: Goal) -> Trace:
        """See `Attack.run`; the trace's loss is that of the image before each round."""
        log, best, current = Log(self.rounds, x, goal), Best(x, goal, self.loss), x.clone()
        if self.rounds == 0:
            return log.trace(current)
        places = _order(x)[:, : max(1, min(x[0, 0].numel() // 10, self.candidates))]
        near = torch.zeros_like(x[:, 0]).flatten(1).bool().scatter(1, places, True)
        rows = torch.arange(len(x), device=x.device)
        best.offer(x, log.asked(model.answers(x), rows), rows)
        rows = best.unbroken()
        for step in range(self.rounds):
            if not len(rows):
                break
            log.loss[step, rows] = best.loss[rows]
            chosen = self._most_important(model, current, goal, near, rows, log)
            current[rows] = _where(chosen, self._pushed(current[rows]), current[rows])
            best.offer(current[rows], log.asked(model.answers(current[rows]), rows), rows)
            near[rows] = self._neighbours(chosen, x)
            rows = best.unbroken()
        return log.trace(best.x_adv)

    def _most_important(self, model: Shown, x: Tensor, goal: Goal, near: Tensor, rows: Tensor, log: Log) -> Tensor:
        """Which t of the pixels nearby raise the loss most: [rows, H * W], the paper's function g."""
        order = torch.where(near, uniform_like(near.to(x.dtype)), -1.0)[rows]  # drawn for the whole batch
        top = order.topk(min(self.candidates, order.shape[1]), dim=1)
        place, pixel = torch.nonzero(top.values >= 0)[:, 0], top.indices[top.values >= 0]
        losses = []
        for some, one in zip(*(torch.split(part, self.most_images) for part in (place, pixel)), strict=True):
            image = x[rows[some]]
            mask = F.one_hot(one, order.shape[1]).bool()
            probe = _where(mask, 0.5 + self.p * (image - 0.5).sign(), image)
            logits = model.answers(probe)
            log.queries += draws_of(logits) * torch.bincount(rows[some], minlength=len(x))
            losses.append(self.loss(logits, goal[rows[some]]))
        score = torch.full_like(order, float("-inf"))
        score[place, pixel] = torch.cat(losses).to(score.dtype)
        best = score.topk(min(self.t, order.shape[1]), dim=1)
        return torch.zeros_like(order).bool().scatter(1, best.indices, best.values != float("-inf"))

    def _pushed(self, x: Tensor) -> Tensor:
        """The paper's CYCLIC: r v, back into [-1/2, 1/2] by a full turn; in pixels."""
        pushed = self.r * (x - 0.5)
        return (pushed - (pushed > 0.5).to(x.dtype) + (pushed < -0.5).to(x.dtype) + 0.5).clamp(0, 1)

    def _neighbours(self, chosen: Tensor, x: Tensor) -> Tensor:
        plane = chosen.to(x.dtype).view(-1, 1, *x.shape[2:])
        return F.max_pool2d(plane, 2 * self.d + 1, 1, self.d).flatten(1) > 0


def _order(x: Tensor) -> Tensor:
    """The pixels of each image in random order, [B, H * W]."""
    return uniform_like(x.new_empty(len(x), x[0, 0].numel())).argsort(1)


def _painted(x: Tensor, places: Tensor, values: Tensor) -> Tensor:
    """`x` with one value in all colours at each place; both [B, n]."""
    paint = torch.full_like(x[:, 0], -1.0).flatten(1).scatter(1, places, values).view(-1, 1, *x.shape[2:])
    return torch.where(paint >= 0, paint, x)


def _where(mask: Tensor, there: Tensor, elsewhere: Tensor) -> Tensor:
    """`there` in all colours where mask [B, H * W] says so."""
    return torch.where(mask.view(-1, 1, *there.shape[2:]), there, elsewhere)
