"""LightningModules: how a network is trained and validated."""

from lightning_modules.adversarial import AdversarialClassifier
from lightning_modules.classifier import Classifier, Schedule, parameter_groups
from lightning_modules.metrics import CountedAccuracy

__all__ = ["AdversarialClassifier", "Classifier", "CountedAccuracy", "Schedule", "parameter_groups"]
