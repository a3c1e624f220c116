"""Residual networks: the CIFAR ResNet-20, and torchvision's ResNet-18 and ResNet-50 with a choice of stem."""

import math
from typing import Literal, get_args

import torch.nn.functional as F
import torchvision.models.resnet as tv
from torch import Tensor, nn

Stem = Literal["cifar", "maxpool", "imagenet"]
Zeros = Literal["after", "around"]


class Block(nn.Module):
    """Two 3x3 convolutions and a parameter-free shortcut (He et al. 2015, section 4.2, option A).

    With stride 2 the shortcut is subsampled and gets channels of zeros, `zeros` of them in front of its own
    and the others behind. It holds no convolution: noise on the inputs of convolutions leaves it clean.
    """

    def __init__(self, in_channels: int, channels: int, stride: int = 1, zeros: int = 0) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.stride = stride
        self.zeros = (zeros, channels - in_channels - zeros)

    def shortcut(self, x: Tensor) -> Tensor:
        """Subsample and pad `x` [B, in_channels, H, W] to the shape of the block's output."""
        if self.stride == 1:
            return x
        # The pool picks the same pixels as x[:, :, ::stride, ::stride], whose backward is slow.
        return F.pad(F.avg_pool2d(x, 1, self.stride), (0, 0, 0, 0, *self.zeros))

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, in_channels, H, W] to [B, channels, ceil(H / stride), ceil(W / stride)]."""
        # In place only on what this block has just made: the shortcut still needs x as it came.
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return F.relu(self.bn2(self.conv2(out)) + self.shortcut(x), inplace=True)


class ResNet20(nn.Module):
    """CIFAR ResNet-20: 16-32-64 channels, three blocks per stage, 269,722 parameters by default.

    He et al. 2015, "Deep Residual Learning for Image Recognition" (arXiv:1512.03385), section 4.2;
    initialised as in "Delving Deep into Rectifiers" (arXiv:1502.01852), the convolutions by fan-out. The
    global average pool takes any image size, 8x8 included.

    Args:
        num_classes: length of the logits.
        in_channels: channels of the images, whose values may have any range.
        zeros: where shortcuts add their channels of zeros, which the paper leaves open: "after" their own, as
            the weights of PNI (github.com/elliothe/CVPR_2019_PNI) and of Dziedzic and Krishnan 2020 need it;
            "around", half before and half after, as those of github.com/akamaster/pytorch_resnet_cifar10 do.

    Raises:
        ValueError: for another value of `zeros`.
    """

    def __init__(self, num_classes: int = 10, in_channels: int = 3, zeros: Zeros = "after") -> None:
        super().__init__()
        if zeros not in get_args(Zeros):
            raise ValueError(f"zeros {zeros!r} is none of {', '.join(get_args(Zeros))}")
        around = zeros == "around"
        self.conv1 = nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(Block(16, 16), Block(16, 16), Block(16, 16))
        self.layer2 = nn.Sequential(Block(16, 32, 2, 8 * around), Block(32, 32), Block(32, 32))
        self.layer3 = nn.Sequential(Block(32, 64, 2, 16 * around), Block(64, 64), Block(64, 64))
        self.linear = nn.Linear(64, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, 0.0, math.sqrt(2 / (9 * module.out_channels)))
        nn.init.kaiming_normal_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [B, in_channels, H, W] to logits [B, num_classes]."""
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = self.layer3(self.layer2(self.layer1(out)))
        return self.linear(out.mean((2, 3)))


def _set_stem(network: tv.ResNet, stem: Stem, in_channels: int) -> None:
    """Replace the first layers of a torchvision ResNet, initialised as torchvision initialises them."""
    if stem not in get_args(Stem):
        raise ValueError(f"stem {stem!r} is none of {', '.join(get_args(Stem))}")
    size, stride = (7, 2) if stem == "imagenet" else (3, 1)
    network.conv1 = nn.Conv2d(in_channels, 64, size, stride, padding=size // 2, bias=False)
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    if stem == "cifar":
        network.maxpool = nn.Identity()


class ResNet18(tv.ResNet):
    """torchvision's ResNet-18 (He et al. 2015, table 1) for images [B, in_channels, H, W] in any value range.

    Args:
        num_classes: length of the logits.
        in_channels: channels of the images.
        stem: "cifar", a 3x3 convolution of stride 1 (final maps of 4x4 for 32x32 images); "maxpool", the same
            and a 3x3 max-pool of stride 2 (2x2, the ResNet-18 behind "An Empirical Evaluation of
            Perturbation-based Defenses", Dziedzic and Krishnan 2020); "imagenet", torchvision's own, a 7x7
            convolution of stride 2 and that max-pool.

    Raises:
        ValueError: for another stem.
    """

    def __init__(self, num_classes: int = 10, in_channels: int = 3, stem: Stem = "cifar") -> None:
        super().__init__(tv.BasicBlock, [2, 2, 2, 2], num_classes=num_classes)
        _set_stem(self, stem, in_channels)


class ResNet50(tv.ResNet):
    """torchvision's ResNet-50 (He et al. 2015, table 1); arguments and errors are those of `ResNet18`."""

    def __init__(self, num_classes: int = 10, in_channels: int = 3, stem: Stem = "cifar") -> None:
        super().__init__(tv.Bottleneck, [3, 4, 6, 3], num_classes=num_classes)
        _set_stem(self, stem, in_channels)
