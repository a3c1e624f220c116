"""SVHN: 73,257 training and 26,032 test images of house numbers, 32x32 (Netzer et al. 2011).

http://ufldl.stanford.edu/housenumbers/
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.io import loadmat
from torchvision import datasets
from torchvision.datasets.utils import download_url

from datamodules.base import ImageDataModule, Images


class SVHN(ImageDataModule):
    """The official "cropped digits" files, or .mat files with a part of them, in `root` or `root/svhn`.

    See `ImageDataModule`.
    """

    channels = 3
    num_classes = 10
    image_size = 32
    classes = tuple("0123456789")

    def __init__(self, root: str = "data", *, val_images: int = 1000, flip: bool = False, **options: Any) -> None:
        """Sets other defaults: a mirrored digit is another shape (the papers mirror them: `flip=True`)."""
        super().__init__(root, val_images=val_images, flip=flip, **options)

    def _load(self, train: bool) -> Images:
        url, name, md5 = datasets.SVHN.split_list["train" if train else "test"]
        places = [self.root, self.root / "svhn"]
        path = next((place / name for place in places if (place / name).is_file()), None)
        if path is None:
            self._fetch(lambda: download_url(url, self.root, name, md5), name, places)
            path = self.root / name
        return _read(path)


def _read(path: Path) -> Images:
    """Reads a file with X uint8 [32, 32, 3, N] and y [N, 1] in 1 ... 10, where 10 stands for the digit 0."""
    try:
        content = loadmat(path)
        pixels = torch.from_numpy(np.ascontiguousarray(content["X"].transpose(3, 2, 0, 1)))
        return Images(pixels, torch.from_numpy(content["y"].astype(np.int64)).flatten() % 10)
    # scipy raises errors of many unrelated types for damaged files.
    except Exception as error:
        problem = " ".join(str(error).split())
        raise ValueError(f"SVHN: {path.absolute()} is damaged ({problem}); replace it") from None
