"""Networks, their normalisation, and BatchNorm folding for attacks."""

from models.folding import folded_batchnorm
from models.normalize import Normalize, Normalized
from models.resnet import ResNet18, ResNet20, ResNet50
from models.vgg import VGG16
from models.weights import load_tensors, load_weights, network_tensors, read_weights

__all__ = [
    "VGG16",
    "Normalize",
    "Normalized",
    "ResNet18",
    "ResNet20",
    "ResNet50",
    "folded_batchnorm",
    "load_tensors",
    "load_weights",
    "network_tensors",
    "read_weights",
]
