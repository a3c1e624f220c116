"""An attacker: an attack, the model that he is shown, and how many draws of it he asks for. All of "adaptive"."""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from attacks.balls import Ball
from attacks.base import Attack, Trace
from attacks.eot import EOT
from attacks.goal import Goal
from attacks.shown import Model, Shown, Wrapper
from attacks.views import Exact, View
from defenses.randomness import has_shared_draws, is_random

# Of the largest logit: what the roundings of a network in bfloat16 usually come to. What they exceed is attacked anew.
_CLOSE = 2 * torch.finfo(torch.bfloat16).eps


@dataclass(frozen=True)
class Adversary(Attack):
    """`attack` on the model under `view`, answers holding `draws` draws; repr() is its record.

    Args:
        attack: any attack.
        view: which model it sees: exact, straight through (BPDA), surrogate, oblivious, frozen.
        draws: draws K of a random model that a gradient is averaged over (EOT).
        votes: draws N that decide whether an image is broken, see `EOT`; 0: as many as `draws`.
        most_images: most images in one pass of several draws; bounds the memory.
        precision: of the model's passes while it is attacked. In bfloat16 an image may leave early only if the model
            errs on it in float32, too; one that left otherwise is attacked once more in float32.
    """

    attack: Attack
    view: View = Exact()
    draws: int = 1
    votes: int = 0
    most_images: int = 256
    precision: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self) -> None:
        EOT(lambda x: x, self.draws, self.votes, self.most_images)  # refuses what is impossible
        if self.precision not in ("float32", "bfloat16"):
            raise ValueError(f"precision must be float32 or bfloat16, got {self.precision}")

    @property
    def ball(self) -> Ball | None:
        """The ball of the attack, None if it has none."""
        return getattr(self.attack, "ball", None)

    def __str__(self) -> str:
        view = "" if isinstance(self.view, Exact) else f", view {self.view}"
        draws = "" if self.draws == 1 else f", {self.draws} draws"
        votes = f", {self.votes} votes" if self.votes else ""
        precision = "" if self.precision == "float32" else f", {self.precision}"
        return f"{self.attack}{view}{draws}{votes}{precision}"

    def search(self, model: Shown, x: Tensor, goal: Goal) -> Trace:
        """See `Attack.run`."""
        seen = self.view.of(model.model)
        if not self.view.faithful or is_random(seen):
            goal = Goal(goal.label, goal.target)
        if self.precision == "float32":
            return self._attack(seen, x, goal)
        trace = self._attack(half := _BFloat16(seen, goal.first_success), x, goal)
        return self._confirmed(trace, half, x, goal) if goal.first_success else trace

    def _attack(self, seen: Model, x: Tensor, goal: Goal) -> Trace:
        if is_random(seen) and max(self.draws, self.votes) > 1:
            seen = EOT(seen, self.draws, self.votes, self.most_images)  # outermost, so that it can be asked in pieces
        shown = Shown(seen, goal.label, goal.target)
        trace = self.attack.search(shown, x, goal)
        shown.check()
        return trace

    def _confirmed(self, trace: Trace, half: "_BFloat16", x: Tensor, goal: Goal) -> Trace:
        seen, queries = half.model, trace.queries + 1
        with torch.no_grad():
            unbroken = (~goal.broken(seen(trace.x_adv))).nonzero().squeeze(1)
            if len(unbroken):
                too_soon = goal[unbroken].broken(half(trace.x_adv[unbroken]))
                queries[unbroken] += 1
                if len(trace.loss):  # bfloat16 may round otherwise among other images: who was not asked last had left
                    too_soon |= trace.loss[-1, unbroken].isnan()
                unbroken = unbroken[too_soon]
        if not len(unbroken):
            return replace(trace, queries=queries)
        again = self._attack(seen, x[unbroken], goal[unbroken])
        x_adv, zero, erred = trace.x_adv.clone(), trace.zero_gradient.clone(), trace.erred.clone()
        x_adv[unbroken] = again.x_adv
        queries[unbroken] += again.queries
        zero[unbroken] |= again.zero_gradient
        erred[unbroken] |= again.erred
        return Trace(x_adv, queries, trace.loss, zero, erred)


class _BFloat16(Wrapper):
    """A model whose passes run in bfloat16.

    Args:
        model: any.
        sure: ask again in float32 where two classes are so close that rounding may decide between them. The gradient
            stays that of bfloat16.
    """

    speaks_for_its_parts = True

    def __init__(self, model: Model, sure: bool = False) -> None:
        super().__init__(model)
        self.random, self.shared = is_random(model), has_shared_draws(model)
        self.sure = sure

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, torch.bfloat16):
            logits: Tensor = self.model(x).float()
        if not self.sure:
            return logits
        values = logits.detach()
        first, second = values.topk(2, dim=-1).values.unbind(-1)
        close = (first - second <= _CLOSE * values.abs().amax(-1)).nonzero().squeeze(1)
        if not len(close):
            return logits
        with torch.no_grad():
            exact = values.index_copy(0, close, self.model(x[close]).to(values.dtype))
        return logits + (exact - values)
