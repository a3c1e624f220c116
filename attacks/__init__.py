"""Attacks: each sees a callable model and images in [0, 1], nothing else. docs/attacks.md lists them."""

from attacks.adam_carlini_wagner import AdamCarliniWagner
from attacks.adversary import Adversary
from attacks.advertorch import Advertorch
from attacks.apgd import APGD, TargetedAPGD
from attacks.autoattack import AutoAttack, Worst
from attacks.balls import L1, L2, Ball, Linf, pixels
from attacks.base import Attack, Trace, evaluating, undisturbed
from attacks.bim import BIM, SmallestBall
from attacks.carlini_wagner import CarliniWagner, FixedCarliniWagner
from attacks.closest import Closest
from attacks.corruptions import AdditiveGaussian, AdditiveUniform, ContrastReduction, RotationTranslation
from attacks.ddn import DDN
from attacks.deepfool import DeepFool
from attacks.eot import EOT
from attacks.fab import FAB
from attacks.few_pixels import LocalSearch, MultiplePixels, SinglePixel
from attacks.fgsm import FGSM, GrowingFGSM
from attacks.fmn import FMN
from attacks.goal import Goal
from attacks.hopskipjump import HopSkipJump
from attacks.lbfgs import LBFGS
from attacks.losses import DLR, CrossEntropy, Loss, Margin
from attacks.pgd import PGD
from attacks.shown import Model, input_gradient
from attacks.square import Square
from attacks.views import Exact, Frozen, Oblivious, StraightThrough, Surrogate, View, Voted

__all__ = [
    "APGD",
    "BIM",
    "DDN",
    "DLR",
    "EOT",
    "FAB",
    "FGSM",
    "FMN",
    "L1",
    "L2",
    "LBFGS",
    "PGD",
    "AdamCarliniWagner",
    "AdditiveGaussian",
    "AdditiveUniform",
    "Adversary",
    "Advertorch",
    "Attack",
    "AutoAttack",
    "Ball",
    "CarliniWagner",
    "Closest",
    "ContrastReduction",
    "CrossEntropy",
    "DeepFool",
    "Exact",
    "FixedCarliniWagner",
    "Frozen",
    "Goal",
    "GrowingFGSM",
    "HopSkipJump",
    "Linf",
    "LocalSearch",
    "Loss",
    "Margin",
    "Model",
    "MultiplePixels",
    "Oblivious",
    "RotationTranslation",
    "SinglePixel",
    "SmallestBall",
    "Square",
    "StraightThrough",
    "Surrogate",
    "TargetedAPGD",
    "Trace",
    "View",
    "Voted",
    "Worst",
    "evaluating",
    "input_gradient",
    "pixels",
    "undisturbed",
]
