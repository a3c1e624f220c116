"""Carlini & Wagner's L2 attack with their own optimiser, 2017, https://arxiv.org/abs/1608.04644, as in foolbox 1.9."""

from dataclasses import dataclass, fields, replace
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from attacks.base import Attack, Log, Trace
from attacks.goal import Goal
from attacks.losses import Margin
from attacks.nearest import Nearest, check_search
from attacks.shown import Shown, input_gradient

# Adam's, as in foolbox 1.9; there the last is ten times the usual 1e-8.
_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-7
_INSIDE = 0.999999  # images are drawn towards the middle of the box by this: on its border atanh is infinite
_CHECKS, _FALLEN = 10, 0.9999  # an image leaves when its loss is above this share of the one at the check before
_LARGEST_C = 1e10


@dataclass(frozen=True)
class AdamCarliniWagner(Attack):
    """C&W as its authors and foolbox 1.9 run it: Adam in tanh space, c tenfold until a success, then bisection.

    For each c, ||x' - x||^2 / D^2 + c max(margin + kappa, 0) is minimised from x on; D is the range of `bounds`. The
    nearest of all broken images on the way. An image that is wrong already, or for which nothing was found, comes back
    as it is. Every image has its own c and its own end. For repeating the papers' numbers (EEPD, Dziedzic & Krishnan
    2020): where nothing is clipped, 6 of 7 images of a small network were foolbox 1.8.0's to 1e-6, and the distance of
    the other to 1e-3. `CarliniWagner` is faster.

    The papers' box was that of normalised images, wider than their true range: for CIFAR-10 from 2.6 standard
    deviations below a channel's mean to 2.9 above. With mean 0.4734 and deviation 0.2009, those of a channel on
    average, this is `bounds=(-0.049, 1.056)` in pixels. It matters for pixels that are 0 or 1: on the border of the
    box tanh has hardly a derivative, so that with (0, 1) they hardly move. The model is asked at the image clipped to
    [0, 1] and the distance of that image counts, so what is called adversarial is adversarial; the gradient passes
    the clipping as if it were not there. Their normalised images were not clipped.

    On a random model, each step sees a fresh draw and one lucky draw is enough, as in the papers' attack on channels:
    `Adversary(AdamCarliniWagner(...), StraightThrough(everywhere=True, at_image=True))`. Many images found so are
    right again on other draws. With several draws in an answer, success is as for `DDN`.

    Args:
        steps: most steps for each c, each one forward and one backward pass; 100 in EEPD table 1. 0 returns x.
        search_steps: number of values of c; 1 leaves it at `initial_c`.
        learning_rate: Adam's, in tanh space.
        initial_c: the first c, in units of squared distance over D^2 per logit.
        confidence: kappa, by how much an answer has to win. (In foolbox 1.9 only the loss asks for it.)
        abort_early: an image is done with a c if its loss has not fallen by 1e-4 of itself over a tenth of the steps.
        bounds: the box of tanh in pixels, which holds [0, 1].

    Raises:
        ValueError: a setting is impossible.
    """

    steps: int = 1000
    search_steps: int = 5
    learning_rate: float = 5e-3
    initial_c: float = 0.01
    confidence: float = 0.0
    abort_early: bool = True
    bounds: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        check_search("AdamCarliniWagner", (self.steps, self.search_steps), (self.learning_rate, self.initial_c))
        if not 0 <= self.confidence < float("inf"):
            raise ValueError(f"AdamCarliniWagner takes confidence >= 0, got {self.confidence}")
        if len(self.bounds) != 2 or not float("-inf") < self.bounds[0] <= 0 < 1 <= self.bounds[1] < float("inf"):
            raise ValueError(f"AdamCarliniWagner takes bounds (low, high) that hold [0, 1], got {self.bounds}")

    def __str__(self) -> str:
        confidence = f", confidence {self.confidence:g}" if self.confidence else ""
        low, high = self.bounds
        box = "" if (low, high) == (0, 1) else f", box {low:g} to {high:g}"
        return f"C&W-Adam-{self.search_steps} x {self.steps} (L2{confidence}{box})"

    def search(self, model: Shown, x: Tensor, goal: Goal) -> Trace:
        """See `Attack.run`; the trace's loss is that of the model alone."""
        log = Log(self.steps * self.search_steps, x, goal)
        nearest = Nearest(model, x, goal, log)
        nearest.random = False  # one draw of a step is believed: no others are asked
        c = torch.full_like(nearest.norm, self.initial_c)
        low, high = torch.zeros_like(c), torch.full_like(c, float("inf"))
        for number in range(self.search_steps):
            if not len(rows := nearest.wanted()):
                break
            broken = self._minimise(model, nearest, log, rows, c, number)
            low, high = torch.where(broken, low, c), torch.where(broken, c, high)
            c = torch.where(high < float("inf"), (low + high) / 2, (10 * c).clamp_max(_LARGEST_C))
        return log.trace(nearest.x_adv)

    def _minimise(self, model: Shown, nearest: Nearest, log: Log, rows: Tensor, c: Tensor, number: int) -> Tensor:
        """[B], whether an image of these rows was broken on the way, with this c [B]."""
        found = torch.zeros_like(c, dtype=torch.bool)
        images = self._begin(nearest.x[rows], c[rows])
        for step in range(self.steps):
            goal = nearest.goal[rows]
            moved, x_adv = images.at(self._range)
            answer = input_gradient(model, x_adv, partial(self._loss, goal=goal))
            log.step(number * self.steps + step, answer, rows, satisfied=answer.loss == 0)
            found[rows] |= nearest.offer(x_adv, self._handicapped(answer.logits, goal), rows)
            loss = moved.square().sum((1, 2, 3)) - images.c * answer.loss
            images.step(2 * moved - _wide(images.c) * self._range * answer.gradient, step, self.learning_rate)
            stays = torch.isin(rows, nearest.wanted())
            if self.abort_early and step % max(1, self.steps // _CHECKS) == 0:
                stays &= loss <= _FALLEN * images.before
                images.before = loss
            if not stays.all():
                images, rows = images[stays], rows[stays]
                if not len(rows):
                    break
        return found

    @property
    def _range(self) -> float:
        return self.bounds[1] - self.bounds[0]

    def _begin(self, x: Tensor, c: Tensor) -> "_Images":
        w = torch.atanh(_INSIDE * (2 * (x - self.bounds[0]) / self._range - 1))
        zero = torch.zeros_like(x)
        return _Images(x, w.tanh(), w, zero, zero, c, torch.full_like(c, float("inf")))

    def _loss(self, logits: Tensor, goal: Goal) -> Tensor:
        return Margin(0.0)(self._handicapped(logits, goal), goal)

    def _handicapped(self, logits: Tensor, goal: Goal) -> Tensor:
        """Logits of which the goal is reached as soon as it is reached by kappa."""
        return logits + goal.sign * self.confidence * F.one_hot(goal.classes, logits.shape[-1])


@dataclass
class _Images:
    """The images that are still in the batch: [B, C, H, W], but c and before, which are [B]."""

    x: Tensor
    start: Tensor  # x in the box of tanh, (-1, 1)
    w: Tensor  # the iterate, in tanh space: its atanh at first
    m: Tensor  # Adam's first and second moment
    v: Tensor
    c: Tensor
    before: Tensor  # loss at the check before

    def __getitem__(self, rows: Tensor) -> "_Images":
        return replace(self, **{field.name: getattr(self, field.name)[rows] for field in fields(self)})

    def at(self, size: float) -> tuple[Tensor, Tensor]:
        """How far the iterate is from its start, as a share of a box of this size, and its image in [0, 1].

        The image is x plus the way gone, so that the search begins at x itself.
        """
        moved = (self.w.tanh() - self.start) / 2
        return moved, (self.x + size * moved).clamp(0, 1)

    def step(self, gradient: Tensor, step: int, learning_rate: float) -> None:
        """Step number `step` of Adam, from 0 on; `gradient` is by the iterate as a share of the box."""
        gradient = gradient * (1 - self.w.tanh().square()) / 2
        self.m = self.m.lerp(gradient, 1 - _BETA1)
        self.v = self.v.lerp(gradient.square(), 1 - _BETA2)
        size = (self.v / (1 - _BETA2 ** (step + 1))).sqrt() + _EPSILON
        self.w = self.w - learning_rate * self.m / (1 - _BETA1 ** (step + 1)) / size


def _wide(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)
