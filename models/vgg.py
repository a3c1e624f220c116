"""torchvision's VGG-16 with BatchNorm, for CIFAR and ImageNet images."""

import torch
import torchvision.models.vgg as tv
from torch import nn


class VGG16(tv.VGG):
    """VGG-16 with BatchNorm (Simonyan and Zisserman 2015, arXiv:1409.1556, configuration D).

    Args:
        num_classes: length of the logits.
        in_channels: channels of the images, whose values may have any range.
        image_size: 32, a global average pool and one linear layer on its 512 features (the VGG-16 of RSE, Liu
            et al. 2018, arXiv:1712.00673, and of Dziedzic and Krishnan 2020); 224, torchvision's own head.

    Raises:
        ValueError: for another image size.
    """

    def __init__(self, num_classes: int = 10, in_channels: int = 3, image_size: int = 32) -> None:
        if image_size not in (32, 224):
            raise ValueError(f"image_size {image_size} is neither 32 nor 224")
        features = tv.make_layers(tv.cfgs["D"], batch_norm=True)
        features[0] = nn.Conv2d(in_channels, 64, 3, padding=1)
        # The head for 224 has 120 million weights: where it is replaced, they are never allocated.
        with torch.device("cpu" if image_size == 224 else "meta"):
            super().__init__(features, num_classes)
        if image_size == 32:
            self.avgpool = nn.AdaptiveAvgPool2d(1)
            linear = nn.Linear(512, num_classes)
            nn.init.normal_(linear.weight, 0, 0.01)
            nn.init.zeros_(linear.bias)
            self.classifier = linear
