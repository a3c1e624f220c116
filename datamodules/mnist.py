"""MNIST: 60,000 training and 10,000 test images of handwritten digits, 28x28 (LeCun, Cortes, Burges 1998)."""

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision import datasets

from datamodules.base import ImageDataModule, Images


class MNIST(ImageDataModule):
    """The official idx files, packed or not, in `root` or `root/MNIST/raw`; see `ImageDataModule`."""

    channels = 1
    num_classes = 10
    image_size = 28
    classes = tuple("0123456789")

    def __init__(self, root: str = "data", *, flip: bool = False, **options: Any) -> None:
        """Sets another default: a mirrored digit is another shape."""
        super().__init__(root, flip=flip, **options)

    def _load(self, train: bool) -> Images:
        part = "train" if train else "t10k"
        pixels = _read(self._find(f"{part}-images-idx3-ubyte"))
        labels = _read(self._find(f"{part}-labels-idx1-ubyte"))
        return Images(pixels[:, None], labels.long())

    def _find(self, name: str) -> Path:
        # The folder that torchvision downloads to.
        places = [self.root, self.root / "MNIST" / "raw"]
        for path in (place / (name + packed) for place in places for packed in ("", ".gz")):
            if path.is_file():
                return path
        self._fetch(lambda: datasets.MNIST(str(self.root), download=True), f"{name}[.gz]", places)
        return places[1] / name


def _read(path: Path) -> Tensor:
    """Reads an idx file: 0, 0, type (8: uint8), number of axes, big-endian length of each axis, values."""
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        axes = content[3]
        shape = np.frombuffer(content, ">i4", axes, offset=4)
        return torch.from_numpy(np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(shape).copy())
    except (ValueError, IndexError, EOFError, OSError) as error:
        raise ValueError(f"MNIST: {path.absolute()} is damaged ({error}); replace it") from None
