"""Perturbation defenses: input channels, noise in the network and on its weights, and where their draws come from."""

from defenses.bandlimited import BandLimited
from defenses.channels import Chain, Channel, Defended, Identity, standing_in
from defenses.compression import Brightness, ColourDepth, FFTCompression, InverseFFTCompression, SVDCompression
from defenses.dropout import DropoutNet, DropoutNoise, InputDropout
from defenses.learned_noise import LearnedNoise, RunningScaledNoise
from defenses.noise import (
    GaussianNoise,
    LaplaceNoise,
    Noise,
    ScaledNoise,
    SharedGaussianNoise,
    SharedScaledNoise,
    UniformNoise,
)
from defenses.noise_channels import Gauss, Laplace, PapersGauss, PapersLaplace, PapersUniform, Uniform
from defenses.noisy import Noisy, ParamNet, PNIActivations, PNIWeights, RobustNet, add_input_noise
from defenses.random_inputs import PixelDeflection, RandomDiscretisation, ResizePad
from defenses.randomness import Stream, drawing_from, frozen, has_shared_draws, is_random, silenced
from defenses.squeezing import JPEG, MedianFilter, TotalVariation
from defenses.thermometer import Thermometer, ThermometerCode
from defenses.voting import ABSTAINED, Vote, abstaining

__all__ = [
    "ABSTAINED",
    "JPEG",
    "BandLimited",
    "Brightness",
    "Chain",
    "Channel",
    "ColourDepth",
    "Defended",
    "DropoutNet",
    "DropoutNoise",
    "FFTCompression",
    "Gauss",
    "GaussianNoise",
    "Identity",
    "InputDropout",
    "InverseFFTCompression",
    "Laplace",
    "LaplaceNoise",
    "LearnedNoise",
    "MedianFilter",
    "Noise",
    "Noisy",
    "PNIActivations",
    "PNIWeights",
    "PapersGauss",
    "PapersLaplace",
    "PapersUniform",
    "ParamNet",
    "PixelDeflection",
    "RandomDiscretisation",
    "ResizePad",
    "RobustNet",
    "RunningScaledNoise",
    "SVDCompression",
    "ScaledNoise",
    "SharedGaussianNoise",
    "SharedScaledNoise",
    "Stream",
    "Thermometer",
    "ThermometerCode",
    "TotalVariation",
    "Uniform",
    "UniformNoise",
    "Vote",
    "abstaining",
    "add_input_noise",
    "drawing_from",
    "frozen",
    "has_shared_draws",
    "is_random",
    "silenced",
    "standing_in",
]
