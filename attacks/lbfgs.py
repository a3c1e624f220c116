"""Box-constrained L-BFGS, Szegedy et al. 2014, https://arxiv.org/abs/1312.6199, section 4.1."""

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
from attacks.shown import Shown, input_gradient


@dataclass(frozen=True)
class LBFGS(Attack):
    """Minimises ||r||^2 + c loss(x + r, target) over images in [0, 1], for the smallest c whose minimum is broken.

    SciPy's L-BFGS-B, one image after the other, in double precision around the model: slow by nature, up to
    `searches` x `steps` gradients of single images. Without a target the way leads to the likeliest class that is not
    the label, and any wrong answer counts. Every image that was asked about counts, and the nearest broken one is
    returned; x itself if it is wrong already or nothing broke. Fresh noise looks like a rough function to L-BFGS: on
    random models use a frozen view.

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
        log, x_adv = Log(self.searches, x, goal), x.clone()
        logits = log.asked(model.answers(x))
        mean = logits.reshape(-1, *logits.shape[-2:]).mean(0)
        aim = goal if goal.target is not None else goal.toward(goal.runner_up(mean))
        rows = (~goal.broken(logits)).nonzero() if self.steps else torch.empty(0, 1)  # each a batch of one
        for row in rows:
            loss = partial(self.loss, goal=aim[row])
            x_adv[row] = self._nearest(_Problem(model, x[row], goal[row], loss, log, row))
        return log.trace(x_adv)

    def _nearest(self, problem: "_Problem") -> Tensor:
        low, high, c = 0.0, float("inf"), self.c
        for number in range(self.searches):
            if problem.minimum_is_broken(c, self.steps, number):
                high = c
                if problem.goal.first_success:
                    break
            else:
                low = c
            c = 10 * c if high == float("inf") else c / 10 if low == 0 else (low * high) ** 0.5
        return problem.nearest


class _Problem:
    """One image [1, C, H, W] in SciPy's terms."""

    def __init__(self, model: Shown, x: Tensor, goal: Goal, loss: "partial[Tensor]", log: Log, row: Tensor) -> None:
        self.model, self.x, self.goal, self.loss, self.log, self.row = model, x, goal, loss, log, row
        self.nearest, self.norm = x, float("inf")

    def minimum_is_broken(self, c: float, steps: int, number: int) -> bool:
        """Whether the image of least ||r||^2 - c loss has reached the goal."""
        start = self.x.double().flatten().cpu().numpy()
        result = minimize(
            self.value_and_gradient,
            start,
            args=(c, number),
            jac=True,
            method="L-BFGS-B",
            bounds=Bounds(np.zeros_like(start), np.ones_like(start)),
            options={"maxiter": steps, "ftol": 1e-10, "gtol": 1e-10},  # in units of c, which may be tiny
        )
        image = self._image(result.x)
        return self._offer(image, self.log.asked(self.model.answers(image), self.row))

    def value_and_gradient(
        self, vector: NDArray[np.float64], c: float, number: int
    ) -> tuple[float, NDArray[np.float64]]:
        """Of the function that is minimised, at an image as a vector."""
        image = self._image(vector)
        answer = input_gradient(self.model, image, self.loss)
        self.log.step(number, answer, self.row)
        self._offer(image, answer.logits)
        r = image.double() - self.x
        gradient = 2 * r - c * answer.gradient
        return float(r.square().sum() - c * answer.loss.double()), gradient.flatten().cpu().numpy()

    def _image(self, vector: NDArray[np.float64]) -> Tensor:
        return torch.empty_like(self.x).copy_(torch.from_numpy(vector).view(self.x.shape)).clamp_(0, 1)

    def _offer(self, image: Tensor, logits: Tensor) -> bool:
        broken, norm = bool(self.goal.broken(logits)), float((image - self.x).double().norm())
        if broken and norm < self.norm:
            self.nearest, self.norm = image, norm
        return broken
