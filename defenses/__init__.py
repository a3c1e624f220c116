"""Perturbation defenses: input channels, noise in the network and on its weights, and where their draws come from."""

from defenses.channels import Channel, ColourDepth, Defended, Gauss, Identity, Laplace, Uniform, standing_in
from defenses.noise import GaussianNoise, Noise, ScaledNoise, SharedGaussianNoise, SharedScaledNoise
from defenses.noisy import Noisy, ParamNet, PNIActivations, PNIWeights, RobustNet, add_input_noise
from defenses.randomness import Stream, drawing_from, frozen, has_shared_draws, is_random, silenced

__all__ = [
    "Channel",
    "ColourDepth",
    "Defended",
    "Gauss",
    "GaussianNoise",
    "Identity",
    "Laplace",
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
    "Uniform",
    "add_input_noise",
    "drawing_from",
    "frozen",
    "has_shared_draws",
    "is_random",
    "silenced",
    "standing_in",
]
