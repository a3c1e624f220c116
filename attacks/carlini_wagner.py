"""Carlini & Wagner's L2 attack, 2017, https://arxiv.org/abs/1608.04644."""

from dataclasses import dataclass, fields, replace
from functools import partial

import torch
from torch import Tensor

from attacks.base import Attack, Log, Trace
from attacks.goal import Goal, draws_of
from attacks.losses import Margin
from attacks.nearest import Nearest, check_search, falling
from attacks.shown import Gradient, Shown, input_gradient

_EACH = (1, 2, 3)
# The box of tanh is wider than [0, 1] by this on both sides: on its very border tanh has no derivative.
_BORDER = 0.05
# An image's loss is compared over stretches of this many steps: single steps go up and down, on random models most.
_STRETCH = 6
_LATER = 0.7  # every search step begins nearer to its end than the one before, and with smaller steps
_HALVINGS = 5
_BETA1, _BETA2 = 0.8, 0.99
_LARGEST_RATE, _LARGEST_C = 0.05, 1e10  # where the gradient at x vanishes, it says nothing about distances


@dataclass(frozen=True)
class CarliniWagner(Attack):
    """The smallest L2 perturbation: ||x' - x||^2 + c max(margin + kappa, 0) is minimised for a c, found by bisection.

    The nearest of all broken images on the way. An image that is wrong already, or for which nothing was found, comes
    back as it is. On random models: as `DDN`. What differs from the paper makes it several times faster: every image
    has its own c, which begins where a linear model's would lie, and goes on from its nearest image with the next c;
    its steps are as long as the way seems to be; it leaves when its own loss has stopped falling; Adam's second moment
    is one number per image, since a step per pixel turns away from the direction that is shortest in L2; and at last
    the line back to x is searched, five answers per image (not on several draws, of which one is always lucky).

    Args:
        steps: most steps for each c, each one forward and one backward pass.
        search_steps: number of values of c.
        learning_rate: a typical first step, as a share of the distance at which the boundary seems to lie.
        initial_c: the first c, in units of that for which a linear model's minimum lies on the boundary.
        confidence: kappa, by how much an answer has to win.
        tolerance: an image leaves when its loss has fallen by less than this share over 6 steps; 0: when it rises.
    """

    steps: int = 100
    search_steps: int = 5
    learning_rate: float = 0.2
    initial_c: float = 0.7
    confidence: float = 0.0
    tolerance: float = 0.01

    def __post_init__(self) -> None:
        check_search("CarliniWagner", (self.steps, self.search_steps), (self.learning_rate, self.initial_c))
        if not (0 <= self.confidence < float("inf") and 0 <= self.tolerance < 1):
            given = f"{self.confidence} and {self.tolerance}"
            raise ValueError(f"CarliniWagner takes confidence >= 0 and tolerance in [0, 1), got {given}")

    def __str__(self) -> str:
        confidence = f", confidence {self.confidence:g}" if self.confidence else ""
        return f"C&W-{self.search_steps} x {self.steps} (L2{confidence})"

    def search(self, model: Shown, x: Tensor, goal: Goal) -> Trace:
        """See `Attack.run`; the trace's loss is that of the model alone, its first row that at x."""
        log = Log(1 + self.steps * self.search_steps, x, goal)
        nearest = Nearest(model, x, goal, log)
        answer, _ = self._ask(model, nearest, log, 0, x, nearest.wanted())
        images = self._begin(x, answer)
        for number in range(self.search_steps):
            if not len(rows := nearest.wanted()):
                break
            self._minimise(model, nearest, log, images, rows, number)
            images.next_c(2.0 ** (number + 1))
            found = nearest.norm < float("inf")
            images.w = torch.where(_wide(found), _to_w(nearest.x_adv, _BORDER), images.w)
        if draws_of(answer.logits) == 1 and not goal.first_success:
            self._draw_back(model, nearest, log)
        return log.trace(nearest.x_adv)

    def _draw_back(self, model: Shown, nearest: Nearest, log: Log) -> None:
        """Bisection between the nearest image and what lies 5 % nearer to x."""
        rows = ((nearest.norm > 0) & (nearest.norm < float("inf"))).nonzero().squeeze(1)
        x, goal = nearest.x[rows], nearest.goal[rows]
        delta = nearest.x_adv[rows] - x
        low = torch.full_like(nearest.norm[rows], 0.95)
        high = torch.ones_like(low)
        for _ in range(_HALVINGS if len(rows) else 0):
            share = (low + high) / 2
            x_adv = (x + _wide(share) * delta).clamp(0, 1)
            logits = log.asked(model.answers(x_adv), rows)
            broken = nearest.offer(x_adv, _handicapped(logits, goal, self.confidence), rows)
            low, high = torch.where(broken, low, share), torch.where(broken, share, high)

    def _ask(
        self, model: Shown, nearest: Nearest, log: Log, step: int, x_adv: Tensor, rows: Tensor
    ) -> tuple[Gradient, Tensor]:
        goal = nearest.goal[rows]
        loss = Margin(0.0)
        answer = input_gradient(model, x_adv, lambda logits: loss(_handicapped(logits, goal, self.confidence), goal))
        log.step(step, answer, rows, satisfied=answer.loss == 0)
        return answer, nearest.offer(x_adv, _handicapped(answer.logits, goal, self.confidence), rows)

    def _begin(self, x: Tensor, answer: Gradient) -> "_Images":
        slope = answer.gradient.flatten(1).norm(dim=1).clamp_min(torch.finfo(x.dtype).tiny)
        distance = -answer.loss / slope
        rate = self.learning_rate * 2 * distance / x[0].numel() ** 0.5  # per pixel; tanh halves lengths
        zero, infinity = torch.zeros_like(distance), torch.full_like(distance, float("inf"))
        return _Images(
            w=_to_w(x, _BORDER),
            m=torch.zeros_like(x),
            v=zero,
            t=zero,
            rate=rate.clamp_max(_LARGEST_RATE),
            c=(self.initial_c * 2 * distance / slope).clamp(1 / _LARGEST_C, _LARGEST_C),
            low=zero,
            high=infinity,
            broken=zero.bool(),
            total=zero,
            before=infinity,
        )

    def _minimise(self, model: Shown, nearest: Nearest, log: Log, every: "_Images", rows: Tensor, number: int) -> None:
        """At most `steps` steps for one c of each image; where they end is put into `every`."""
        images, x = every[rows], nearest.x[rows]
        for step in range(self.steps):
            tanh = images.w.tanh()
            wide = 0.5 + tanh * (0.5 + _BORDER)
            x_adv = wide.clamp(0, 1)
            answer, broken = self._ask(model, nearest, log, 1 + number * self.steps + step, x_adv, rows)
            # From where [0, 1] is left, the distance alone leads back: the model does not see it.
            gradient = (2 * (wide - x) - _wide(images.c) * answer.gradient) * (1 - tanh.square()) * (0.5 + _BORDER)
            images.step(gradient, _LATER**number * falling(1.0, 0.1, step / self.steps))
            images.broken = images.broken | broken
            done = images.ended(step, (x_adv - x).square().sum(_EACH) - images.c * answer.loss, self.tolerance)
            done = done | (broken & nearest.goal.first_success)
            if done.any():
                every.put(rows[done], images[done])
                images, x, rows = images[~done], x[~done], rows[~done]
                if not len(rows):
                    return
        every.put(rows, images)


@dataclass(frozen=True)
class FixedCarliniWagner(Attack):
    """The papers' variant (EEPD figures 3 to 5): one c for all, Adam in tanh space, the last iterate whatever it is.

    The loss is ||x' - x||^2 + c max(margin, 0). No bisection, no best so far, no early end, and an image that is wrong
    already takes part. On a random model every step sees a fresh draw. For repeating the papers' figures; weak.

    Args:
        c: weight of the margin; 0 leaves the images as they are, up to rounding.
        steps: each one forward and one backward pass; the image of the last pass is returned.
        learning_rate: Adam's, in tanh space.
        freeze_saturated: pixels that are exactly 0 or 1 stay so, as in the papers: tanh has no derivative there. (1.2 %
            of CIFAR-10's test pixels, in half of its images.) False: they begin 1e-6 from there, as in later code.
    """

    c: float = 1.0
    steps: int = 200
    learning_rate: float = 1e-3
    freeze_saturated: bool = True

    def __post_init__(self) -> None:
        if self.steps < 0 or not 0 <= self.c < float("inf"):
            raise ValueError(f"FixedCarliniWagner takes steps >= 0 and c >= 0, got {self.steps} and {self.c}")
        if not 0 < self.learning_rate < float("inf"):
            raise ValueError(f"FixedCarliniWagner takes learning_rate > 0, got {self.learning_rate}")

    def __str__(self) -> str:
        return f"C&W-{self.steps} (L2, c {self.c:g} fixed, last iterate)"

    def search(self, model: Shown, x: Tensor, goal: Goal) -> Trace:
        """See `Attack.run`."""
        log, x_adv = Log(self.steps, x, goal), x
        w = _to_w(x if self.freeze_saturated else x.clamp(1e-6, 1 - 1e-6))
        m, v = torch.zeros_like(x), torch.zeros_like(x)
        for step in range(self.steps):
            tanh = w.tanh()
            x_adv = (tanh + 1) / 2
            answer = input_gradient(model, x_adv, partial(Margin(0.0), goal=goal))
            log.step(step, answer, satisfied=answer.loss == 0)
            gradient = (2 * (x_adv - x) - self.c * answer.gradient) * (1 - tanh.square()) / 2
            m, v = m.lerp(gradient, 0.1), v.lerp(gradient.square(), 0.001)
            size = (v / (1 - 0.999 ** (step + 1))).sqrt() + 1e-8
            w = w - self.learning_rate * m / (1 - 0.9 ** (step + 1)) / size
        return log.trace(x_adv)


@dataclass
class _Images:
    """What each image has of its own: [B], but w and m, which are like x."""

    w: Tensor  # the image, in tanh space
    m: Tensor  # Adam's first and second moment, steps and rate
    v: Tensor
    t: Tensor
    rate: Tensor
    c: Tensor  # and the largest that failed, the smallest that succeeded
    low: Tensor
    high: Tensor
    broken: Tensor  # with this c
    total: Tensor  # loss of this stretch of steps, and of that before
    before: Tensor

    def __getitem__(self, rows: Tensor) -> "_Images":
        return replace(self, **{field.name: getattr(self, field.name)[rows] for field in fields(self)})

    def put(self, rows: Tensor, images: "_Images") -> None:
        for field in fields(self):
            whole = getattr(self, field.name).clone()
            whole[rows] = getattr(images, field.name)
            setattr(self, field.name, whole)

    def step(self, gradient: Tensor, share: float) -> None:
        """A step of Adam, of this share of the rate."""
        self.t = self.t + 1
        self.m = self.m.lerp(gradient, 1 - _BETA1)
        self.v = self.v.lerp(gradient.square().mean(_EACH), 1 - _BETA2)
        size = (self.v / (1 - _BETA2**self.t)).sqrt() + 1e-8
        self.w = self.w - _wide(share * self.rate / (1 - _BETA1**self.t) / size) * self.m

    def ended(self, step: int, loss: Tensor, tolerance: float) -> Tensor:
        """[B], whether the loss has stopped falling; only the ends of stretches tell."""
        self.total = self.total + loss
        if (step + 1) % _STRETCH:
            return torch.zeros_like(self.broken)
        ended = ~(self.total < (1 - tolerance) * self.before)
        self.before, self.total = self.total, torch.zeros_like(self.total)
        return ended

    def next_c(self, factor: float) -> None:
        """The middle between failure and success; as long as nothing succeeded, `factor` times as much."""
        self.high = torch.where(self.broken, torch.minimum(self.high, self.c), self.high)
        self.low = torch.where(self.broken, self.low, torch.maximum(self.low, self.c))
        grown = (factor * self.c).clamp_max(_LARGEST_C)
        self.c = torch.where(self.high < float("inf"), (self.low + self.high) / 2, grown)
        self.broken, self.total = torch.zeros_like(self.broken), torch.zeros_like(self.total)
        self.before = torch.full_like(self.before, float("inf"))


def _to_w(x: Tensor, border: float = 0.0) -> Tensor:
    return torch.atanh((x - 0.5) / (0.5 + border))


def _handicapped(logits: Tensor, goal: Goal, by: float) -> Tensor:
    """Logits of which the goal is reached as soon as it is reached `by` more than that."""
    index = goal.classes.expand(logits.shape[:-1]).unsqueeze(-1)
    return logits.scatter_add(-1, index, torch.full_like(index, goal.sign * by, dtype=logits.dtype)) if by else logits


def _wide(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)
