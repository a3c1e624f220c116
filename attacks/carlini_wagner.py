"""Carlini & Wagner's L2 attack, 2017, https://arxiv.org/abs/1608.04644."""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from attacks.base import Attack, Log, Trace
from attacks.ddn import Nearest, falling
from attacks.goal import Goal
from attacks.losses import Margin
from attacks.shown import Shown, input_gradient

_EACH = (1, 2, 3)


@dataclass(frozen=True)
class CarliniWagner(Attack):
    steps: int = 100
    search_steps: int = 5
    learning_rate: float = 0.005
    final: float = 0.1
    later: float = 0.7
    initial_c: float = 1.0
    confidence: float = 0.0
    warm: bool = True
    keep: bool = True
    window: int = 10
    tol: float = 1e-2
    rising: float = 2.0
    beta1: float = 0.8
    beta2: float = 0.99
    shared: bool = True
    border: float = 0.05
    share: float = 0.2
    fresh: int = 1
    boost: float = 1.0

    def search(self, model: Shown, x: Tensor, goal: Goal) -> Trace:
        global SHARED
        SHARED = self.shared
        log, nearest = Log(1 + self.steps * self.search_steps, x), Nearest(x, goal)
        rows = nearest.wanted()
        answer = input_gradient(model, x, partial(Margin(self.confidence), goal=goal))
        log.step(0, answer)
        nearest.offer(x, answer.logits, rows)
        rows = nearest.wanted()
        slope = answer.gradient.flatten(1).norm(dim=1)
        tiny = torch.finfo(x.dtype).tiny
        c = self.initial_c * 2 * (self.confidence - answer.loss) / slope.square().clamp_min(tiny)
        c = c.clamp(1e-10, 1e10)
        d_lin = (self.confidence - answer.loss) / slope.clamp_min(tiny)
        lr0 = (
            (self.share * d_lin * 2 / x[0].numel() ** 0.5).clamp_max(0.05)
            if self.share
            else torch.full_like(c, self.learning_rate)
        )
        low, high = torch.zeros_like(c), torch.full_like(c, float("inf"))
        w = to_tanh(x, self.border)
        adam = Adam(w, self.beta1, self.beta2)
        for number in range(self.search_steps):
            first = 1 + number * self.steps
            if not len(rows):
                break
            if not self.keep:
                adam = Adam(w, self.beta1, self.beta2)
            broken = self._minimise(lr0, model, nearest, log, w, adam, c, rows, first, number)
            high = torch.where(broken, torch.minimum(high, c), high)
            low = torch.where(broken, low, torch.maximum(low, c))
            c = torch.where(high == float("inf"), c * self.rising ** (number + 1), (low + high) / 2)
            if number + 1 < self.fresh:
                w = to_tanh(x, self.border)
                adam = Adam(w, self.beta1, self.beta2)
                lr0 = lr0 * self.boost
            elif self.warm:
                found = nearest.norm < float("inf")
                best = to_tanh(nearest.x_adv, self.border)
                w = torch.where(found.view(-1, 1, 1, 1), best, w)
            else:
                w = to_tanh(x, self.border)
            rows = nearest.wanted()
        return log.trace(nearest.x_adv)

    def _minimise(self, lr0, model, nearest, log, w_all, adam_all, c_all, rows, first, number):
        succeeded = torch.zeros(len(c_all), dtype=torch.bool, device=c_all.device)
        w, adam, c = w_all[rows], adam_all[rows], c_all[rows].view(-1, 1, 1, 1)
        x, goal = nearest.x[rows], nearest.goal[rows]
        window = self.window
        total = torch.zeros_like(c.flatten())
        before = torch.full_like(total, float("inf"))
        for step in range(self.steps):
            th = torch.tanh(w)
            raw = 0.5 + th * (0.5 + self.border)
            x_adv = raw.clamp(0, 1)
            answer = input_gradient(model, x_adv, partial(Margin(self.confidence), goal=goal))
            log.step(first + step, answer, rows)
            broken = nearest.offer(x_adv, answer.logits, rows)
            succeeded[rows] |= broken
            delta = x_adv - x
            gradient = (2 * (raw - x) - c * answer.gradient) * (1 - th * th) * (0.5 + self.border)
            lr = (
                falling(1, self.final, step / self.steps)
                * self.later ** max(0, number - self.fresh + 1)
                * lr0[rows].view(-1, 1, 1, 1)
            )
            w = w - lr * adam(gradient)
            loss = delta.square().sum(_EACH) + c.flatten() * (self.confidence - answer.loss)
            total += loss
            if (step + 1) % window == 0:
                done = ~(total < (1 - self.tol) * before)
                before, total = total, torch.zeros_like(total)
                if goal.first_success:
                    done |= broken
                if done.any():
                    w_all[rows[done]] = w[done]
                    adam_all.put(rows[done], adam[done])
                    go = ~done
                    w, c, x, goal, rows, total, before = w[go], c[go], x[go], goal[go], rows[go], total[go], before[go]
                    adam = adam[go]
                    if not len(rows):
                        break
        w_all[rows] = w
        adam_all.put(rows, adam)
        return succeeded


class Adam:
    def __init__(self, w, beta1, beta2, m=None, v=None, t=None):
        self.m = torch.zeros_like(w) if m is None else m
        self.v = torch.zeros_like(w[:, :1, :1, :1] if SHARED else w) if v is None else v
        self.t = torch.zeros_like(w[:, :1, :1, :1]) if t is None else t
        self.beta1, self.beta2 = beta1, beta2

    def __getitem__(self, rows):
        return Adam(None, self.beta1, self.beta2, self.m[rows], self.v[rows], self.t[rows])

    def put(self, rows, other):
        self.m[rows], self.v[rows], self.t[rows] = other.m, other.v, other.t

    def __call__(self, g):
        self.t = self.t + 1
        self.m = self.m * self.beta1 + (1 - self.beta1) * g
        self.v = self.v * self.beta2 + (1 - self.beta2) * ((g * g).mean((1, 2, 3), keepdim=True) if SHARED else g * g)
        m = self.m / (1 - self.beta1**self.t)
        v = self.v / (1 - self.beta2**self.t)
        return m / (v.sqrt() + 1e-8)


def to_tanh(x, border):
    return torch.atanh((x - 0.5) / (0.5 + border))
