"""The adversaries that checks need beside a suite's: shorter, longer, larger, blinder; derived from its strongest."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from math import sqrt
from typing import Literal

import torch
from torch import Tensor, nn

from attacks import (
    APGD,
    FGSM,
    PGD,
    Adversary,
    Attack,
    Ball,
    Exact,
    Frozen,
    HopSkipJump,
    Linf,
    LocalSearch,
    Model,
    MultiplePixels,
    Oblivious,
    SinglePixel,
    Square,
    StraightThrough,
    View,
    pixels,
)
from attacks.corruptions import Trials
from defenses import Channel, is_random
from evaluation.batch import Rows

Level = Literal["quick", "full"]
BLACK_BOX = (Square, HopSkipJump, LocalSearch, SinglePixel, MultiplePixels, Trials)
_RADII = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0)  # times the suite's: "over >= 8 eps values"
# Gradients per image that a quick check spends on an attack of twice or half the budget; "full" takes longer ones, too.
_MOST_DOUBLED, _MOST_HALVED = 100, 120


@dataclass(frozen=True)
class RandomPoints(Trials):
    """Uniform points of a ball, the worst of which is kept.

    Args:
        ball: the allowed images.
        trials: how many points.
    """

    ball: Ball = field(default_factory=Linf)
    trials: int = 100

    def __str__(self) -> str:
        return f"RandomPoints x {self.trials} ({type(self.ball).__name__}, eps {pixels(self.ball.eps)})"

    @property
    def tries(self) -> int:
        """One per point."""
        return self.trials

    def candidates(self, x: Tensor) -> Iterator[Tensor]:
        """See `Trials`."""
        return (self.ball.sample(x) for _ in range(self.trials))


@dataclass(frozen=True)
class Instead(View):
    """Another network in the place of the model: attacks on it are transferred.

    Args:
        network: images in [0, 1] -> logits, in eval mode.
    """

    network: nn.Module = field(repr=False)

    def of(self, model: Model) -> Model:
        """See `View`."""
        return self.network

    def __str__(self) -> str:
        return f"surrogate {type(self.network).__name__}"


@dataclass(frozen=True)
class Reference:
    """The attack that checks vary, as an adversary, and the name of its rows in the suite (None: it is not in it)."""

    adversary: Adversary
    name: str | None

    @property
    def attack(self) -> PGD | APGD:
        """The attack itself."""
        assert isinstance(self.adversary.attack, PGD | APGD), "see `reference`"
        return self.adversary.attack

    @property
    def ball(self) -> Ball:
        """The ball of the attack."""
        return self.attack.ball


@dataclass(frozen=True)
class Diagnostic:
    """One adversary more: who attacks whom. `judged`: the model itself, one frozen draw of it, or the bare network."""

    attack: Attack | None
    judged: View = Exact()


def reference(suite: dict[str, Attack], rows: dict[str, Rows] | None) -> Reference | None:
    """The gradient attack of a suite that leaves the least, in the ball that most of its attacks have.

    One that sees the model itself goes before one that sees another; of several alike the longest is taken. Where no
    PGD or APGD is in the suite, but another attack has a ball: PGD-20 in this ball.

    Args:
        suite: by name.
        rows: what it left, by name; None: not known yet, the longest attack is taken.

    Returns:
        None where no attack has a ball.
    """
    balls = [ball for attack in suite.values() if (ball := ball_of(attack)) is not None]
    if not balls:
        return None
    ball = max(balls, key=balls.count)
    found = {
        name: attack
        for name, attack in suite.items()
        if ball_of(attack) == ball and isinstance(bare(attack), PGD | APGD) and (rows is None or name in rows)
    }
    if not found:
        first = next(attack for attack in suite.values() if ball_of(attack) == ball)
        return Reference(replace(as_adversary(first), attack=PGD(ball, ball.eps / 4, 20)), None)

    def order(name: str) -> tuple[bool, float, int]:
        blind = not as_adversary(found[name]).view.faithful
        left = 0.0 if rows is None else float(rows[name].right.mean())
        return blind, left, -gradients(found[name])

    name = min(found, key=order)
    return Reference(as_adversary(found[name]), name)


def diagnostics(
    at: Reference, network: nn.Module, suite: dict[str, Attack], level: Level, surrogate: nn.Module | None
) -> dict[str, Diagnostic]:
    """All adversaries that the checks of this level ask for, by name.

    Args:
        at: what they vary.
        network: what is evaluated.
        suite: of the evaluation; what is in it is not done again.
        level: "full" lengthens the attack itself, "quick" shortens it.
        surrogate: another network of the same classes.
    """
    random, blind = is_random(network), _steps(at.attack, 20)
    exact = replace(at.adversary, attack=blind, view=Exact(), draws=1, votes=0)
    found = {"reference": Diagnostic(at.adversary)} if at.name is None else {}
    found |= {"single_step": Diagnostic(replace(at.adversary, attack=FGSM(at.ball, at.attack.loss)))}
    sees_draws = is_random(at.adversary.view.of(network))
    found |= {name: Diagnostic(attack) for name, attack in _budgets(at, sees_draws, level).items()}
    found |= {name: Diagnostic(attack) for name, attack in _radii(at, level).items()}
    if not any(isinstance(bare(attack), Square) and ball_of(attack) == at.ball for attack in suite.values()):
        found["square"] = Diagnostic(_square(at.ball, random, level))
    found["random_points"] = Diagnostic(RandomPoints(ball=at.ball, trials=10_000 if level == "full" else 100))
    if hidden(network) or not at.adversary.view.faithful:
        draws = max(at.adversary.draws, 2) if random else 1
        found["adaptive"] = Diagnostic(replace(exact, view=StraightThrough(), draws=draws))
    if random:
        found["frozen_noise"] = Diagnostic(replace(exact, view=StraightThrough()), Frozen())
    if random or _has_channel(network):
        found["oblivious"] = Diagnostic(replace(exact, view=Oblivious()))
        found["bare"] = Diagnostic(exact, Oblivious())
    if surrogate is not None:
        found["surrogate"] = Diagnostic(replace(exact, view=Instead(surrogate)))
    return found


def gradients(attack: Attack | None) -> int:
    """Gradients per image of an attack of this module: steps x restarts x draws."""
    if attack is None or isinstance(bare(attack), BLACK_BOX):
        return 0
    inner = bare(attack)
    return getattr(inner, "steps", 1) * getattr(inner, "restarts", 1) * as_adversary(attack).draws


def bare(attack: Attack) -> Attack:
    """The attack without its view and draws."""
    return attack.attack if isinstance(attack, Adversary) else attack


def as_adversary(attack: Attack) -> Adversary:
    """The attack with a view and draws: the model itself and one, unless it says otherwise."""
    return attack if isinstance(attack, Adversary) else Adversary(attack)


def ball_of(attack: Attack) -> Ball | None:
    """The ball of an attack, None if it has none."""
    return getattr(bare(attack), "ball", None)


def hidden(network: nn.Module) -> bool:
    """Whether a channel of the network has no useful derivative."""
    return any(isinstance(part, Channel) and not part.differentiable for part in network.modules())


def sized(ball: Ball, eps: float) -> Ball:
    """The ball with another radius, at most 1 for Linf."""
    return replace(ball, eps=min(eps, 1.0) if isinstance(ball, Linf) else eps)


def _has_channel(network: nn.Module) -> bool:
    return any(isinstance(part, Channel) for part in network.modules())


def _steps(attack: PGD | APGD, steps: int) -> PGD | APGD:
    """The attack with one start and at most so many steps, each as much longer as there are fewer."""
    steps = min(steps, attack.steps)
    if isinstance(attack, APGD):
        return replace(attack, steps=steps, restarts=1)
    return _climbing(replace(attack, restarts=1), attack.ball, steps)


def _climbing(attack: PGD | APGD, ball: Ball, steps: int) -> PGD | APGD:
    if isinstance(attack, APGD):
        return replace(attack, ball=ball, steps=steps, restarts=1)
    # 2.5 eps / steps: every border can be reached from every start (Madry et al. 2018, section 5, for CIFAR-10 and
    # MNIST alike). The suite's own step is kept where it is longer and in the same ball.
    step = 2.5 * ball.eps / max(steps, 1)
    own = attack.step_size if ball == attack.ball else 0.0
    return replace(attack, ball=ball, step_size=max(step, own), steps=steps, restarts=1)


def _radii(at: Reference, level: Level) -> dict[str, Attack]:
    steps, draws = (20, at.adversary.draws) if level == "full" else (8, 1)
    balls = {factor: sized(at.ball, factor * at.ball.eps) for factor in _RADII}
    distinct = {ball.eps: (factor, ball) for factor, ball in reversed(balls.items())}
    found: dict[str, Attack] = {
        f"radius_x{factor:g}": replace(at.adversary, attack=_climbing(at.attack, ball, steps), draws=draws, votes=0)
        for factor, ball in sorted(distinct.values(), key=lambda pair: pair[0])
    }
    return found


def unbounded(at: Reference, image: Sequence[int], level: Level) -> Diagnostic:
    """The attack in a ball that holds the whole cube.

    Args:
        at: what is varied.
        image: shape of one image, [C, H, W].
        level: "full" takes more steps.
    """
    values = torch.Size(image).numel()
    ball = sized(at.ball, {float("inf"): 1.0, 2.0: sqrt(values), 1.0: float(values)}[at.ball.order])
    steps, draws = (100, at.adversary.draws) if level == "full" else (25, min(at.adversary.draws, 2))
    return Diagnostic(replace(at.adversary, attack=_climbing(at.attack, ball, steps), draws=draws, votes=0))


def _budgets(at: Reference, random: bool, level: Level) -> dict[str, Attack]:
    """The attack with twice the budget, one quantity at a time; in a quick check with half of it if it is long."""
    attack, adversary = at.attack, at.adversary
    double: dict[str, Attack] = {
        "steps": replace(adversary, attack=replace(attack, steps=2 * attack.steps)),
        "restarts": replace(adversary, attack=replace(attack, restarts=2 * attack.restarts)),
    }
    half: dict[str, Attack] = {"steps": replace(adversary, attack=replace(attack, steps=attack.steps // 2))}
    if attack.restarts > 1:
        half["restarts"] = replace(adversary, attack=replace(attack, restarts=attack.restarts // 2))
    if random:
        double["draws"] = replace(adversary, draws=2 * adversary.draws, votes=0)
    if random and adversary.draws > 1:
        half["draws"] = replace(adversary, draws=adversary.draws // 2, votes=0)
    if level == "full" or 2 * gradients(adversary) <= _MOST_DOUBLED:
        return {f"double_{name}": one for name, one in double.items()}
    return {f"half_{name}": one for name, one in half.items() if gradients(one) <= _MOST_HALVED}


def _square(ball: Ball, random: bool, level: Level) -> Attack:
    inside = ball if ball.order != 1 else None
    queries = 1000 if level == "full" else 200
    if inside is None:
        return RandomPoints(ball=ball, trials=queries)  # Square has no L1 version
    return Adversary(Square(inside, queries), Exact(), draws=4 if random else 1)
