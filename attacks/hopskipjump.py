"""HopSkipJump: the nearest error from decisions alone, Chen et al. 2020, https://arxiv.org/abs/1904.02144."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from attacks.base import Attack, Log, Trace
from attacks.goal import Goal
from attacks.shown import Shown
from defenses.randomness import is_random, normal_like, uniform_like

_HALVINGS = 24  # of a distance: finer than float32 tells pixels apart
_MOST_IMAGES = 512  # in a pass, unless the batch is larger
_COARSE = (0, 1, 2, 4, 8)  # random starts of so many blocks per side; 0: every pixel by itself


@dataclass(frozen=True)
class HopSkipJump(Attack):
    """From some error to the boundary, along an estimate of its normal, back to the boundary, and so on.

    Sees nothing but whether an answer is as wanted. Of several draws (EOT) the majority votes where a gradient is
    estimated; a point on the way is accepted as `Goal.broken` says. The nearest accepted point is returned; x itself
    where it was broken before, or where no start is found.

    Args:
        norm: whose distance is made small.
        steps: T, most steps.
        queries: most answers about an image; a step that may need more than are left is not begun. An answer of
            several draws counts once.
        initial_evaluations: B_0, answers behind the first estimate; step t takes sqrt(t) times as many.
        starts: random images tried in search of an error; a target other than the label is seldom met.
    """

    norm: Literal["L2", "Linf"] = "L2"
    steps: int = 64
    queries: int = 5000
    initial_evaluations: int = 100
    starts: int = 50

    def __post_init__(self) -> None:
        if self.norm not in ("L2", "Linf"):
            raise ValueError(f"HopSkipJump knows the norms L2 and Linf, got {self.norm}")
        if min(self.steps, self.queries, self.starts) < 0 or self.initial_evaluations < 1:
            raise ValueError(f"HopSkipJump takes steps, queries, starts >= 0, initial_evaluations >= 1; got {self!r}")

    def __str__(self) -> str:
        return f"HopSkipJump-{self.steps} ({self.norm}, {self.queries} queries)"

    def search(self, model: Shown, x: Tensor, goal: Goal) -> Trace:
        """See `Attack.run`; the trace's loss is minus the distance of the point that each step begins at."""
        oracle, rows = _Oracle(model, x, goal, self), torch.arange(len(x), device=x.device)
        at = x.clone()
        rows = self._start(oracle, at, rows[~oracle.accepts(x, rows)]) if self.steps else rows[:0]
        at[rows] = self._to_boundary(oracle, at[rows], x[rows], rows)
        best, smallest = at.clone(), self._distance(at - x)
        for t in range(1, self.steps + 1):
            evaluations = math.ceil(self.initial_evaluations * t**0.5)
            rows = rows[oracle.left[rows] >= evaluations + 2 * _HALVINGS]
            if not len(rows):
                break
            distance = self._distance(at[rows] - x[rows])
            oracle.log.loss[t - 1, rows] = -distance
            delta = torch.full_like(distance, 0.1) if t == 1 else self._probe(distance, x[0].numel(), oracle.random)
            normal = self._normal(oracle, at[rows], rows, delta, evaluations)
            ahead = _jumped(oracle, at[rows], normal, distance / t**0.5, rows)
            at[rows] = self._to_boundary(oracle, ahead, x[rows], rows)
            distance = self._distance(at[rows] - x[rows])
            nearer = distance < smallest[rows]
            best[rows[nearer]], smallest[rows[nearer]] = at[rows[nearer]], distance[nearer]
        return oracle.log.trace(best)

    def _start(self, oracle: "_Oracle", at: Tensor, rows: Tensor) -> Tensor:
        """Writes the first error met into `at`; returns the rows that have one."""
        wanting = rows
        for trial in range(self.starts):
            if not len(wanting):
                break
            blocks, round_ = _COARSE[trial % len(_COARSE)], trial // len(_COARSE)
            noise = uniform_like(at.new_empty(*at.shape[:2], blocks, blocks)) if blocks else uniform_like(at)
            noise = F.interpolate(noise.round() if round_ % 2 else noise, tuple(at.shape[2:]))[wanting]
            accepted = oracle.accepts(noise, wanting)
            at[wanting[accepted]] = noise[accepted]
            wanting = wanting[~accepted]
        return rows[~torch.isin(rows, wanting)]

    def _to_boundary(self, oracle: "_Oracle", at: Tensor, x: Tensor, rows: Tensor) -> Tensor:
        """Bisection between `at`, which is accepted, and x, which is not, to d^(-3/2) (Linf: d^-2) of the way."""
        delta, power = at - x, 1.5 if self.norm == "L2" else 2.0
        whole = self._distance(delta).view(-1, 1, 1, 1)
        low, high = torch.zeros_like(whole), torch.ones_like(whole)
        for _ in range(min(_HALVINGS, math.ceil(power * math.log2(x[0].numel()))) if len(rows) else 0):
            middle = (low + high) / 2
            part = middle * delta if self.norm == "L2" else delta.clamp(-middle * whole, middle * whole)
            image = (x + part).clamp(0, 1)
            accepted = oracle.accepts(image, rows).view(-1, 1, 1, 1)
            at, high, low = (
                torch.where(accepted, image, at),  # the very image that was accepted
                torch.where(accepted, middle, high),
                torch.where(accepted, low, middle),
            )
        return at

    def _probe(self, distance: Tensor, size: int, random: bool) -> Tensor:
        """How far from the boundary the normal is estimated: 1/d of the distance, as the paper has it.

        A random model's boundary is as broad as its noise: there, the whole distance.
        """
        visible = 1e-6 * (size**0.5 if self.norm == "L2" else 1.0)  # about what float32 tells apart in a pixel
        return distance.clamp_min(visible) if random else (distance / size).clamp_min(visible)

    def _normal(self, oracle: "_Oracle", at: Tensor, rows: Tensor, delta: Tensor, evaluations: int) -> Tensor:
        """The direction along which votes grow (equations 9 and 16), at length 1 in the norm."""
        delta, done = delta.view(-1, 1, 1, 1), 0
        of_votes, of_moves, votes = torch.zeros_like(at), torch.zeros_like(at), torch.zeros_like(delta)
        while done < evaluations:
            number = min(max(1, _MOST_IMAGES // len(rows)), evaluations - done)
            # Drawn for the whole batch: nobody's draws depend on who has left.
            points = [(at + delta * self._direction(oracle.x)[rows]).clamp(0, 1) for _ in range(number)]
            for point, vote in zip(points, oracle.votes(points, rows), strict=True):
                move, vote = (point - at) / delta, vote.to(at.dtype).view(-1, 1, 1, 1)
                of_votes, of_moves, votes = of_votes + vote * move, of_moves + move, votes + vote
            done += number
        mean = votes / evaluations
        normal = of_votes - torch.where(mean.abs() < 1, mean, 0.0) * of_moves
        if self.norm == "Linf":
            return normal.sign()
        length = self._distance(normal).clamp_min(torch.finfo(at.dtype).tiny)
        return normal / length.view(-1, 1, 1, 1)

    def _direction(self, x: Tensor) -> Tensor:
        if self.norm == "Linf":
            return 2 * uniform_like(x) - 1
        direction = normal_like(x)
        return direction / self._distance(direction).view(-1, 1, 1, 1)

    def _distance(self, delta: Tensor) -> Tensor:
        return torch.linalg.vector_norm(delta.flatten(1), ord=2 if self.norm == "L2" else float("inf"), dim=1)


class _Oracle:
    """Answers yes or no, as long as the budget lasts."""

    def __init__(self, model: Shown, x: Tensor, goal: Goal, attack: HopSkipJump) -> None:
        self.model, self.x, self.goal, self.log = model, x, goal, Log(attack.steps, x, goal)
        self.left = torch.full((len(x),), attack.queries, device=x.device)
        self.random = is_random(model.model)

    def accepts(self, images: Tensor, rows: Tensor) -> Tensor:
        """Which images are broken; no for those whose budget is spent."""
        accepted = self.left[rows] > 0
        some = rows[accepted]
        if len(some):
            self.left[some] -= 1
            logits = self.log.asked(self.model.answers(images[accepted]), some)
            accepted[accepted.clone()] = self.goal[some].broken(logits)
        return accepted

    def votes(self, images: list[Tensor], rows: Tensor) -> list[Tensor]:
        """1 where most draws are as wanted, else -1; for several images of each row."""
        self.left[rows] -= len(images)
        answers = self.model.answers(torch.cat(images)).chunk(len(images), -2)
        goal = self.goal[rows]
        reached = [goal.reached(self.log.asked(answer, rows)).view(-1, len(rows)) for answer in answers]
        return [2 * (each.sum(0) * 2 > len(each)).long() - 1 for each in reached]


def _jumped(oracle: _Oracle, at: Tensor, normal: Tensor, length: Tensor, rows: Tensor) -> Tensor:
    """A step along the normal, halved until it is accepted; a point where none is stays."""
    at, waiting = at.clone(), torch.arange(len(rows), device=at.device)
    for halving in range(_HALVINGS):
        if not len(waiting):
            break
        move = normal[waiting] * length[waiting].view(-1, 1, 1, 1) / 2**halving
        image = (at[waiting] + move).clamp(0, 1)
        accepted = oracle.accepts(image, rows[waiting])
        at[waiting[accepted]] = image[accepted]
        waiting = waiting[~accepted]
    return at
