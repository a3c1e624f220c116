"""What attacks for the smallest perturbation share: the nearest image so far, and steps that become shorter."""

from math import cos, pi

import torch
from torch import Tensor

from attacks.base import Log
from attacks.goal import Goal, draws_of
from attacks.shown import Shown
from defenses.randomness import is_random

# By what share of its margin at x a deterministic answer has to be wrong, and by how many roundings of logits at least.
_SLACK, _ROUNDINGS = 1e-4, 32


class Nearest:
    """The nearest broken image for each row of a batch; x itself, at norm infinity, if there is none.

    Args:
        model: what is attacked; a random one is asked again.
        x: the whole batch.
        goal: of the whole batch.
        log: where it is written down that the model was asked.
        order: of the norm, 2 for L2.
    """

    def __init__(self, model: Shown, x: Tensor, goal: Goal, log: Log, order: float = 2.0) -> None:
        self.model, self.x, self.goal, self.log, self.order = model, x, goal, log, order
        self.x_adv = x.clone()
        self.norm = torch.full((len(x),), float("inf"), dtype=x.dtype, device=x.device)
        self.slack = torch.zeros_like(self.norm)
        self.random = is_random(model.model)

    def offer(self, x_adv: Tensor, logits: Tensor, rows: Tensor) -> Tensor:
        """Take over what is nearer: images of some rows, and the model's answers to them. Returns which are broken.

        Of a deterministic model, what lies on the boundary itself is not: rounding decides there, and another batch
        size, layout or BatchNorm that is not folded rounds otherwise. The first offer, x itself, says what is much.
        Of a random model, what the draws of one of many steps call broken was often luck: other draws confirm it.
        """
        goal = self.goal[rows]
        broken = goal.broken(logits)
        norm = (x_adv - self.x[rows]).flatten(1).norm(self.order, dim=1)
        chance = self.random or draws_of(logits) > 1
        if not chance:
            self.slack[rows] = torch.where(norm == 0, slack(goal, logits).to(norm), self.slack[rows])
            broken &= goal.margin(logits).view(-1) <= -self.slack[rows]
        better = broken & (norm < self.norm[rows])
        if chance and better.any():
            lucky = better.nonzero().squeeze(1)
            again = self.log.asked(self.model.answers(x_adv[lucky]), rows[lucky])
            lucky = lucky[~self.goal[rows[lucky]].broken(again)]
            broken[lucky] = better[lucky] = False
        taken = rows[better]
        self.x_adv[taken], self.norm[taken] = x_adv[better], norm[better]
        return broken

    def wanted(self) -> Tensor:
        """Rows that can be better: all that were right at first, or those without a success if one is enough."""
        return (self.norm == float("inf") if self.goal.first_success else self.norm > 0).nonzero().squeeze(1)


def slack(goal: Goal, logits: Tensor) -> Tensor:
    """By how much answers have to be wrong, so that no rounding undoes it; of answers to the images as they were.

    Args:
        goal: of the B images.
        logits: of a single draw, [*1, B, classes].

    Returns:
        [B], a margin in the logits' units.
    """
    margin, spread = goal.margin(logits).view(-1), (logits.amax(-1) - logits.amin(-1)).view(-1)
    return torch.maximum(_SLACK * margin, _ROUNDINGS * torch.finfo(logits.dtype).eps * spread)


def falling(first: float, last: float, share: float) -> float:
    """Between `first` and `last` along half a cosine; `share` of the way in [0, 1]."""
    return last + (first - last) * (1 + cos(pi * share)) / 2


def check_search(name: str, counts: tuple[int, int], rates: tuple[float, float]) -> None:
    """Refuse settings of a search for c that make no sense.

    Args:
        name: of the attack.
        counts: its steps and search_steps.
        rates: its learning_rate and initial_c.

    Raises:
        ValueError: a count is negative, or a rate is not a finite number above 0.
    """
    if min(counts) < 0:
        raise ValueError(f"{name} takes steps >= 0 and search_steps >= 0, got {counts[0]} and {counts[1]}")
    if not all(0 < rate < float("inf") for rate in rates):
        raise ValueError(f"{name} takes learning_rate > 0 and initial_c > 0, got {rates[0]} and {rates[1]}")
