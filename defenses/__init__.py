"""Perturbation defenses: noise in the network, on its weights, and where their draws come from."""

from defenses.noise import GaussianNoise, Noise, ScaledNoise, SharedGaussianNoise, SharedScaledNoise
from defenses.noisy import Noisy, ParamNet, PNIActivations, PNIWeights, RobustNet, add_input_noise
from defenses.randomness import Stream, drawing_from, has_shared_draws, is_random, silenced

__all__ = [
    "GaussianNoise",
    "Noise",
    "Noisy",
    "PNIActivations",
    "PNIWeights",
    "ParamNet",
    "RobustNet",
    "ScaledNoise",
    "SharedGaussianNoise",
    "SharedScaledNoise",
    "Stream",
    "add_input_noise",
    "drawing_from",
    "has_shared_draws",
    "is_random",
    "silenced",
]
