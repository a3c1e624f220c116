"""AutoAttack, Croce & Hein 2020, https://arxiv.org/abs/2003.01690, and ensembles of attacks in general."""

from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from attacks.apgd import APGD, TargetedAPGD
from attacks.balls import Ball, Linf, pixels
from attacks.base import Attack, Best, Trace
from attacks.eot import EOT
from attacks.fab import FAB
from attacks.goal import Goal, draws_of
from attacks.losses import DLR, CrossEntropy, Margin
from attacks.shown import Model, Shown, Wrapper
from attacks.square import Square
from defenses.randomness import Stream, drawing_from, is_random, uniform_like


@dataclass(frozen=True)
class Worst(Attack):
    """Attacks one after the other; an image keeps what breaks it, or else what has the largest margin.

    Where the first success is enough, an attack sees only images that none before it has broken: cheap ones first. Its
    draws go by the place among those, so there they depend on batch mates.

    Args:
        attacks: any attacks.
    """

    attacks: tuple[Attack, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "attacks", tuple(self.attacks))  # YAML has lists only; a tuple hashes
        if not self.attacks:
            raise ValueError("Worst needs at least one attack")

    def __str__(self) -> str:
        return f"worst of {', '.join(map(str, self.attacks))}"

    def search(self, model: Shown, x: Tensor, goal: Goal) -> Trace:
        """See `Attack.run`; the trace's loss is that of the attacks, each its own, one after the other."""
        best, losses = Best(x, goal, Margin()), [x.new_empty(0, len(x))]
        queries = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        zero, erred = torch.zeros_like(best.broken), torch.zeros_like(best.broken)
        if goal.first_success:  # else every image is attacked, whatever is answered here
            logits = model.answers(x)
            best.offer(x, logits)
            queries += draws_of(logits)
        rows = torch.arange(len(x), device=x.device)
        # Each has a stream of its own, so that what one draws does not depend on how many images those before it saw.
        seeds = uniform_like(torch.empty(len(self.attacks), dtype=torch.float64)) * 2**32
        for attack, seed in zip(self.attacks, seeds.tolist(), strict=True):
            rows = best.unbroken() if goal.first_success else rows
            if not len(rows):
                break
            with drawing_from(Stream(int(seed))):
                trace = attack.search(model, x[rows], goal[rows])
                logits = model.answers(trace.x_adv)
            best.offer(trace.x_adv, logits, rows)
            queries[rows] += trace.queries + draws_of(logits)
            zero[rows] |= trace.zero_gradient
            erred[rows] |= trace.erred
            losses.append(x.new_full((len(trace.loss), len(x)), float("nan")).index_copy(1, rows, trace.loss))
        return Trace(best.x_adv, queries, torch.cat(losses), zero, erred)


@dataclass(frozen=True)
class AutoAttack(Attack):
    """The standard protocol without free settings. An attack on a defense that was not looked at is never enough.

    "standard", for deterministic models: APGD-CE, APGD towards 9 classes, FAB towards 9 classes, Square. "rand", for
    random ones: APGD-CE and APGD-DLR with gradients over 20 draws.

    Other than the authors' code (pyautoattack 0.2.0), and why:

    - What steers APGD on a random model, and what is kept, is the mean over all draws. There it is the last draw
      alone, and an image counts as broken, and is done, after one lucky draw: their number is too low, and their images
      are weak. Ours leave the batch early on no random model, and fresh draws decide (`evaluation`).
    - An image that nothing breaks comes back as strong as it got, not unchanged, so that fresh draws and votes mean
      something. Among images that break, the largest loss wins, not the latest.
    - An image leaves in the middle of an attack. That changes the time only.
    - APGD starts anywhere in the ball, not only on its surface, and ends with an answer instead of a last gradient.
    - There is no seed here: draws come from the stream around the attack.

    Args:
        ball: Linf or L2.
        version: "standard" or "rand"; "auto" is "rand" if the model is random and "standard" if not.
        steps: of APGD and FAB; below 100 it is no AutoAttack any more, which goes for the others, too.
        queries: of Square.
        targets: of the targeted attacks.
        draws: of "rand", behind one answer. An `Adversary` around this attack that asks for several draws goes first.
    """

    ball: Ball = field(default_factory=Linf)
    version: Literal["auto", "standard", "rand"] = "auto"
    steps: int = 100
    queries: int = 5000
    targets: int = 9
    draws: int = 20

    def __post_init__(self) -> None:
        if self.version not in ("auto", "standard", "rand"):
            raise ValueError(f"AutoAttack has the versions auto, standard and rand, got {self.version}")
        if self.draws < 1:
            raise ValueError(f"AutoAttack takes draws >= 1, got {self.draws}")
        _ = self.attacks  # refuse what is impossible

    @property
    def attacks(self) -> tuple[Attack, ...]:
        """What is run, in this order ("auto": on a deterministic model)."""
        ce = APGD(self.ball, CrossEntropy(), self.steps)
        if self.version == "rand":
            return ce, APGD(self.ball, DLR(), self.steps)
        return (
            ce,
            TargetedAPGD(self.ball, self.steps, self.targets),
            FAB(self.ball, self.steps, self.targets),
            Square(self.ball, self.queries),
        )

    def __str__(self) -> str:
        standard = AutoAttack(self.ball, self.version)
        reduced = "" if self == standard else ", reduced"
        version = "" if self.version == "auto" else f" {self.version}"
        return f"AutoAttack{version} ({type(self.ball).__name__}, eps {pixels(self.ball.eps)}{reduced})"

    def search(self, model: Shown, x: Tensor, goal: Goal) -> Trace:
        """See `Attack.run`."""
        seen, worst = model.model, Worst(self.attacks)
        if self.version == "auto":
            return replace(self, version="rand" if is_random(seen) else "standard").search(model, x, goal)
        if self.version == "standard" or not is_random(seen) or _averaged(seen) or self.draws == 1:
            return worst.search(model, x, goal)
        shown = Shown(EOT(seen, self.draws), goal.label, goal.target)
        trace = worst.search(shown, x, goal)
        shown.check()
        return trace


def _averaged(model: Model) -> bool:
    """Whether answers hold several draws already."""
    while isinstance(model, Wrapper):
        if isinstance(model, EOT):
            return True
        model = model.model
    return False
