"""Attacks: each sees a callable model and images in [0, 1], nothing else."""

from attacks.balls import L2, Ball, Linf, pixels
from attacks.base import Attack, Model, Trace, evaluating, undisturbed
from attacks.pgd import PGD

__all__ = ["L2", "PGD", "Attack", "Ball", "Linf", "Model", "Trace", "evaluating", "pixels", "undisturbed"]
