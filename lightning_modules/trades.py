"""TRADES, Zhang et al. 2019, https://arxiv.org/abs/1901.08573: robustness as agreement with oneself on clean images."""

from dataclasses import dataclass, field
from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F

from attacks import PGD, Attack, Ball, Goal, Linf, Loss, Trace, input_gradient, pixels
from attacks.base import Log
from attacks.shown import Shown
from defenses.randomness import normal_like
from lightning_modules.adversarial import AttackedClassifier
from lightning_modules.classifier import PAPER_PGD7
from lightning_modules.schedule import Schedule


def divergence(clean: Tensor, adversarial: Tensor) -> Tensor:
    """KL(p || q) in nats of p, the clean answer, and q, the adversarial one: logits [B, classes] twice -> [B]."""
    p, q = clean.log_softmax(-1), adversarial.log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1)


@dataclass(frozen=True, eq=False)
class Divergence(Loss):
    """KL between fixed probabilities and an answer.

    Args:
        probabilities: [B, classes], those of the clean images.
    """

    probabilities: Tensor

    def per_draw(self, logits: Tensor, goal: Goal) -> Tensor:
        """See `Loss`."""
        answer = logits.log_softmax(-1)
        return F.kl_div(answer, self.probabilities.expand_as(answer), reduction="none").sum(-1)


@dataclass(frozen=True)
class DivergencePGD(Attack):
    """PGD that leads an answer away from that on the clean image, whatever the label: TRADES' inner maximisation.

    The clean probabilities are asked for once and stay as they are; of several draws (EOT) they are the mean.

    Args:
        ball: the allowed images; 0.031 in the paper.
        step_size: length of a step in the ball's norm, in pixel units; 0.007 in the paper.
        steps: number of gradient steps; 10 in the paper.
        start: standard deviation in pixel units of the Gaussian noise it begins with: at the clean image itself the
            divergence has no gradient. 0.001 in the paper.
    """

    ball: Ball = field(default_factory=lambda: Linf(0.031))
    step_size: float = 0.007
    steps: int = 10
    start: float = 0.001

    def __post_init__(self) -> None:
        PGD(self.ball, self.step_size, self.steps)  # refuses what is impossible
        if not 0 < self.start < float("inf"):
            raise ValueError(f"start must be a finite standard deviation > 0 in pixels of [0, 1], got {self.start}")

    def __str__(self) -> str:
        norm, eps = type(self.ball).__name__, pixels(self.ball.eps)
        return f"DivergencePGD-{self.steps} ({norm}, eps {eps}, step {pixels(self.step_size)}, start {self.start:g})"

    def search(self, model: Shown, x: Tensor, goal: Goal) -> Trace:
        """See `Attack.run`; labels decide nothing."""
        log = Log(self.steps, x, goal)
        clean = log.asked(model.answers(x)).softmax(-1)
        loss = Divergence(clean.view(-1, *clean.shape[-2:]).mean(0))
        x_adv = x + normal_like(x, self.start)
        for step in range(self.steps):
            answer = input_gradient(model, x_adv, partial(loss, goal=goal))
            log.step(step, answer)
            x_adv = self.ball.project(x_adv + self.step_size * self.ball.ascent(answer.gradient, x_adv), x)
        return log.trace(self.ball.project(x_adv, x))


class TRADES(AttackedClassifier):
    """Descends on CE(f(x), y) + beta KL(f(x) || f(x')), x' where that divergence is largest (algorithm 1).

    The gradient passes through both answers. A random network answers with a draw of its own each time, so part of the
    divergence is its own noise.

    Args:
        network: see `Classifier`.
        attack: finds x'; the paper's 10 steps of 0.007 within 0.031.
        beta: weight of the divergence, 1 / lambda of the paper, >= 0; 6 there (1 for more clean accuracy).
        warmup_epochs: epochs of a full run that learn from clean images only; none in the paper.
        schedule: see `Classifier`; that of EEPD and not of the paper, so that networks can be compared.
        validation_attack: see `Classifier`.
        robust_images: see `Classifier`.
        noise_in_training: see `Classifier`.
        seed: see `Classifier`.
    """

    def __init__(
        self,
        network: nn.Module,
        attack: Attack = DivergencePGD(),
        beta: float = 6.0,
        warmup_epochs: float = 0,
        schedule: Schedule = Schedule(),
        validation_attack: Attack = PAPER_PGD7,
        robust_images: int = 1000,
        noise_in_training: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__(
            network, attack, warmup_epochs, schedule, validation_attack, robust_images, noise_in_training, seed
        )
        self.beta = checked_beta(beta)

    def attacked_loss(self, x: Tensor, y: Tensor) -> Tensor:
        """Cross entropy on clean images and the weighted divergence."""
        clean, adversarial = self.both(x, y)
        return F.cross_entropy(clean, y) + self.beta * divergence(clean, adversarial).mean()


def checked_beta(beta: float) -> float:
    """The weight of a divergence.

    Raises:
        ValueError: it is negative or infinite.
    """
    if not 0 <= beta < float("inf"):
        raise ValueError(f"beta must be a finite weight >= 0, got {beta}")
    return beta
