"""LightningModules: how a network is trained and validated."""

from lightning_modules.adversarial import AdversarialClassifier
from lightning_modules.classifier import Classifier
from lightning_modules.free import FreeClassifier
from lightning_modules.mart import MART
from lightning_modules.metrics import CountedAccuracy
from lightning_modules.schedule import Schedule, parameter_groups
from lightning_modules.trades import TRADES, DivergencePGD

__all__ = [
    "MART",
    "TRADES",
    "AdversarialClassifier",
    "Classifier",
    "CountedAccuracy",
    "DivergencePGD",
    "FreeClassifier",
    "Schedule",
    "parameter_groups",
]
