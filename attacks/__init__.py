"""Attacks: each sees a callable model and images in [0, 1], nothing else."""

from attacks.adversary import Adversary
from attacks.balls import L2, Ball, Linf, pixels
from attacks.base import Attack, Trace, evaluating, undisturbed
from attacks.eot import EOT
from attacks.goal import Goal
from attacks.losses import DLR, CrossEntropy, Loss, Margin
from attacks.pgd import PGD
from attacks.shown import Model, input_gradient
from attacks.views import Exact, Frozen, Oblivious, StraightThrough, Surrogate, View

__all__ = [
    "DLR",
    "EOT",
    "L2",
    "PGD",
    "Adversary",
    "Attack",
    "Ball",
    "CrossEntropy",
    "Exact",
    "Frozen",
    "Goal",
    "Linf",
    "Loss",
    "Margin",
    "Model",
    "Oblivious",
    "StraightThrough",
    "Surrogate",
    "Trace",
    "View",
    "evaluating",
    "input_gradient",
    "pixels",
    "undisturbed",
]
