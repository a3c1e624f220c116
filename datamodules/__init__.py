"""Datasets as Lightning datamodules: images in [0, 1], seeded order and augmentation, exact resume."""

from datamodules.base import ImageDataModule
from datamodules.cifar10 import CIFAR10
from datamodules.digits import Digits
from datamodules.imagenet import ImageNet
from datamodules.mnist import MNIST
from datamodules.svhn import SVHN

__all__ = ["CIFAR10", "MNIST", "SVHN", "Digits", "ImageDataModule", "ImageNet"]
