"""CIFAR-10: 50,000 training and 10,000 test images of 32x32 (Krizhevsky 2009).

https://www.cs.toronto.edu/~kriz/cifar.html
"""

import pickle
from pathlib import Path

import numpy as np
import torch
from torchvision import datasets
from torchvision.datasets.utils import check_md5, download_and_extract_archive

from datamodules.base import ImageDataModule, Images


class CIFAR10(ImageDataModule):
    """The official "python version" files, in `root` or `root/cifar-10-batches-py`; see `ImageDataModule`."""

    channels = 3
    num_classes = 10
    image_size = 32
    classes = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

    def _load(self, train: bool) -> Images:
        files = dict(datasets.CIFAR10.train_list if train else datasets.CIFAR10.test_list)
        folder = self._find(list(files))
        parts = [_read(folder / name, md5) for name, md5 in files.items()]
        return Images(torch.cat([part.pixels for part in parts]), torch.cat([part.labels for part in parts]))

    def _find(self, names: list[str]) -> Path:
        places = [self.root, self.root / datasets.CIFAR10.base_folder]
        for place in places:
            if all((place / name).is_file() for name in names):
                return place
        self._fetch(self._download, ", ".join(names), places)
        return places[1]

    def _download(self) -> None:
        source = datasets.CIFAR10
        download_and_extract_archive(source.url, self.root, filename=source.filename, md5=source.tgz_md5)


def _read(path: Path, md5: str) -> Images:
    """Reads one official batch file, once its checksum has shown that unpickling it is safe."""
    if not check_md5(path, md5):
        raise ValueError(f"CIFAR10: {path.absolute()} is damaged (MD5 is not {md5}); replace it")
    with path.open("rb") as file:
        content = pickle.load(file, encoding="latin1")
    pixels = torch.from_numpy(np.asarray(content["data"]).reshape(-1, 3, 32, 32))
    return Images(pixels, torch.tensor(content["labels"]))
