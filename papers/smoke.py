"""The smallest form of an experiment: does it run at all? A few tiny images, untrained networks, short attacks."""

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from attacks import Attack
from defenses import GaussianNoise, PNIWeights, RobustNet
from models import ResNet20
from papers.experiment import Experiment
from papers.passing import Side
from papers.sweeps import Sweep

CLASSES, SIZE, IMAGES = 10, 16, 64
# Of a list of strengths so many are tried.
_FIRST = {"values": 2, "shown": 2, "parameters": 2, "levels": 2, "trials": 2}
# Settings of attacks and experiments that make them long, and how long they may be.
_AT_MOST = {
    "steps": 3,
    "queries": 40,
    "rounds": 2,
    "search_steps": 2,
    "angles": 2,
    "shifts": 1,
    "trials": 2,
    "growths": 2,
    "bisections": 2,
    "searches": 1,
    "n": 4,
    "n_nearest": 3,
    "tune": 4,
    "tune_from": 32,
    "judged": 4,
    "draws": 3,
    "passes": 3,
    "iterations": 5,
    "top": 2,
    "products": 6,
}


def network(name: str) -> nn.Module:
    """An untrained ResNet-20, with the noise that a name speaks of."""
    torch.manual_seed(sum(map(ord, name)))
    plain = ResNet20(num_classes=CLASSES)
    if "robustnet" in name:
        return RobustNet(plain, init=GaussianNoise(0.1), inner=GaussianNoise(0.1))
    return PNIWeights(plain) if "pni" in name else plain


class Blobs(Dataset[tuple[Tensor, Tensor]]):
    """Smooth random images [3, 16, 16] as uint8 and labels; the same every time."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        coarse = torch.rand(IMAGES, 3, 4, 4, generator=generator)
        self.images = (nn.functional.interpolate(coarse, SIZE, mode="bilinear") * 255).to(torch.uint8)
        self.labels = torch.arange(IMAGES) % CLASSES

    def __len__(self) -> int:
        return IMAGES

    def __getitem__(self, index: Any) -> tuple[Tensor, Tensor]:
        return self.images[index], self.labels[index]


def split(data: str) -> Blobs:
    """Whatever the data set: blobs."""
    return Blobs()


def shortened(part: Any) -> Any:
    """An experiment or attack with everything that makes it long cut short, lists and dictionaries of them too."""
    if isinstance(part, dict):
        return {name: shortened(value) for name, value in part.items()}
    if isinstance(part, list | tuple):
        return type(part)(shortened(value) for value in part)
    if not isinstance(part, Attack | Experiment | Side | Sweep):
        return part
    settings: Any = part  # all are dataclasses, which their types do not say
    names = [field.name for field in dataclasses.fields(settings) if field.init]
    return dataclasses.replace(settings, **{name: _short(name, getattr(settings, name)) for name in names})


def _short(name: str, value: Any) -> Any:
    if isinstance(value, dict):  # such as images by data set
        return {key: _short(name, each) for key, each in value.items()}
    if name in _FIRST and isinstance(value, list):
        return value[: _FIRST[name]]
    return min(value, _AT_MOST[name]) if name in _AT_MOST and isinstance(value, int | float) else shortened(value)
