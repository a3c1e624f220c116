"""Box-constrained L-BFGS, Szegedy et al. 2014, https://arxiv.org/abs/1312.6199, section 4.1."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import Bounds, minimize
from torch import Tensor

from attacks.base import Attack, Log, Trace
from attacks.goal import Goal
from attacks.losses import CrossEntropy, Loss
from attacks.nearest import Nearest
from attacks.shown import Shown, input_gradient
from attacks.side_by_side import side_by_side

# A minimisation ends where a step gains no more than this share of c (of what is minimised, where c or that is above
# 1): about 1e-4 of the cross-entropy of an image at the boundary. Without an end each one takes all its steps, several
# times as many, for images that are hardly nearer.
_PRECISION = 1e-4


@dataclass(frozen=True)
class LBFGS(Attack):
    """Minimises ||r||^2 + c loss(x + r, target) over images in [0, 1], for the smallest c whose minimum is broken.

    SciPy's L-BFGS-B in double precision around the model, an independent minimisation for each image; what those of a
    batch ask of the model at a time is asked together. Up to `searches` x `steps` gradients of an image and more, where
    a line search needs several. Without a target the way leads to the likeliest class that is not the label, and any
    wrong answer counts, if it is wrong by more than rounding (and, on a random model, on other draws, too). The nearest
    of all images that were asked about is returned, x itself if it is wrong already or nothing broke. Fresh noise looks
    like a rough function to L-BFGS: on random models use a frozen view.

    Args:
        steps: iterations of one minimisation at most (150 in the papers' experiments); 0 returns x.
        searches: values of c: tenfold or a tenth until the smallest is enclosed, then the geometric mean.
        c: the first one.
        loss: its negative is minimised; with the target as `Goal`.
    """

    steps: int = 150
    searches: int = 12
    c: float = 0.01
    loss: Loss = CrossEntropy()

    def __post_init__(self) -> None:
        if self.steps < 0 or self.searches < 0 or not 0 < self.c < float("inf"):
            given = f"{self.steps}, {self.searches} and {self.c}"
            raise ValueError(f"LBFGS takes steps >= 0, searches >= 0 and c > 0, got {given}")

    def __str__(self) -> str:
        return f"LBFGS {self.searches} x {self.steps}"

    def search(self, model: Shown, x: Tensor, goal: Goal) -> Trace:
        """See `Attack.run`; the trace's loss is the last one of each minimisation."""
        log = Log(self.searches, x, goal)
        logits = log.asked(model.answers(x))
        nearest = Nearest(model, x, goal, log)
        nearest.offer(x, logits, torch.arange(len(x), device=x.device))
        mean = logits.reshape(-1, *logits.shape[-2:]).mean(0)
        aim = goal if goal.target is not None else goal.toward(goal.runner_up(mean))
        problem = _Problem(model, lambda logits, rows: self.loss(logits, aim[rows]), nearest)
        rows = nearest.wanted().tolist() if self.steps else []
        starts = x.double().flatten(1).cpu().numpy()
        side_by_side([partial(self._nearest, row, starts[row], goal.first_success) for row in rows], problem.answers)
        return log.trace(nearest.x_adv)

    def _nearest(self, row: int, start: NDArray[np.float64], one_is_enough: bool, ask: "_Ask") -> None:
        low, high, c = 0.0, float("inf"), self.c
        for number in range(self.searches):
            if self._minimum_is_broken(row, start, c, number, ask):
                high = c
                if one_is_enough:
                    break
            else:
                low = c
            c = 10 * c if high == float("inf") else c / 10 if low == 0 else (low * high) ** 0.5

    def _minimum_is_broken(self, row: int, start: NDArray[np.float64], c: float, number: int, ask: "_Ask") -> bool:
        """Whether the image of least ||r||^2 - c loss has reached the goal."""

        def value_and_gradient(vector: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
            answer = ask(_Question(row, number, c, vector))
            return answer.value, answer.gradient

        result = minimize(
            value_and_gradient,
            start,
            jac=True,
            method="L-BFGS-B",
            bounds=Bounds(np.zeros_like(start), np.ones_like(start)),
            # SciPy's ftol is a share of the value, or absolute where that is below 1. Gradients are in units of c.
            options={"maxiter": self.steps, "ftol": _PRECISION * min(c, 1.0), "gtol": 1e-10},
        )
        return ask(_Question(row, number, c, result.x)).broken


@dataclass(frozen=True)
class _Question:
    """An image of the batch as a vector, in the minimisation of its `number`-th c."""

    row: int
    number: int
    c: float
    vector: NDArray[np.float64]


@dataclass(frozen=True)
class _Answer:
    """The function that is minimised and its gradient, and whether the image is broken."""

    value: float
    gradient: NDArray[np.float64]
    broken: bool


_Ask = Callable[[_Question], _Answer]


class _Problem:
    """The images of a batch in SciPy's terms.

    Args:
        model: what is attacked.
        loss: logits [*draws, K, classes] of K rows, and these rows -> [K], what is to grow.
        nearest: of the whole batch; it takes every image that is asked about.
    """

    def __init__(self, model: Shown, loss: Callable[[Tensor, Tensor], Tensor], nearest: Nearest) -> None:
        self.model, self.loss, self.nearest, self.x = model, loss, nearest, nearest.x

    def answers(self, questions: list[_Question]) -> list[_Answer]:
        """What SciPy wants to know of K images at a time."""
        rows = torch.tensor([question.row for question in questions], device=self.x.device)
        numbers = torch.tensor([question.number for question in questions], device=self.x.device)
        images = self._images(np.stack([question.vector for question in questions]), rows)
        answer = input_gradient(self.model, images, lambda logits: self.loss(logits, rows))
        self.nearest.log.step(numbers, answer, rows)
        broken = self.nearest.offer(images, answer.logits, rows)
        c = torch.tensor([question.c for question in questions], dtype=torch.float64, device=self.x.device)
        r = images.double() - self.x[rows]
        values = r.square().flatten(1).sum(1) - c * answer.loss.double()
        gradients = (2 * r - c.view(-1, 1, 1, 1) * answer.gradient).flatten(1).cpu().numpy()
        return list(map(_Answer, values.tolist(), gradients, broken.tolist()))

    def _images(self, vectors: NDArray[np.float64], rows: Tensor) -> Tensor:
        like = self.x[rows]
        return torch.empty_like(like).copy_(torch.from_numpy(vectors).view(like.shape)).clamp_(0, 1)
