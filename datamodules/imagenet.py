"""ImageNet (ILSVRC 2012): 1.28 million training and 50,000 validation photographs (Russakovsky et al. 2015).

The official test set has no labels: as in the literature, `test` here is the official validation set.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Subset
from torchvision.models import ResNet50_Weights
from torchvision.transforms import v2

from datamodules.base import Batch, ImageDataModule, Labelled, SplitName
from datamodules.sampling import mixed_seed

# As in torchvision's references/classification/presets.py: shorter side 256, middle 224.
WHOLE = v2.Compose([v2.Resize(256), v2.CenterCrop(224), v2.PILToTensor()])
RANDOM = v2.Compose([v2.RandomResizedCrop(224), v2.PILToTensor()])


@dataclass(frozen=True, eq=False)
class Photos(Labelled):
    """Image files, decoded to uint8 [3, 224, 224] when asked for.

    Args:
        paths: one file per image.
        labels: int64 [N].
        crop_seed: None for the resized middle of each photograph, otherwise the seed of random resized crops.
    """

    paths: list[Path]
    labels: Tensor
    crop_seed: int | None = None

    def __getitem__(self, index: int | list[int]) -> Batch:
        """Returns pixels and labels, with a leading axis if `index` is a list."""
        indices = index if isinstance(index, list) else [index]
        with torch.random.fork_rng(devices=[]):
            if self.crop_seed is not None:
                # The same images do not meet again in another epoch: they tell which batch this is.
                torch.manual_seed(mixed_seed(self.crop_seed, *indices))
            pixels = torch.stack([self._decode(self.paths[i]) for i in indices])
        return pixels if isinstance(index, list) else pixels[0], self.labels[index]

    def _decode(self, path: Path) -> Tensor:
        try:
            with Image.open(path) as image:
                return cast(Tensor, (WHOLE if self.crop_seed is None else RANDOM)(image.convert("RGB")))
        except OSError as error:
            raise ValueError(f"ImageNet: {path.absolute()} is damaged ({error}); replace it") from None


class ImageNet(ImageDataModule):
    """Photographs in `root/train/<wnid>` and `root/val/<wnid>`; `root/val` alone is enough for "test".

    In training the workers cut random resized crops; mirroring and, if wanted, shifting follow on the device.
    See `ImageDataModule`.
    """

    channels = 3
    num_classes = 1000
    image_size = 224
    classes = tuple(ResNet50_Weights.IMAGENET1K_V1.meta["categories"])

    def __init__(
        self,
        root: str = "data",
        *,
        val_images: int = 10000,
        crop_padding: int = 0,
        num_workers: int = 2,
        **options: Any,
    ) -> None:
        """Sets other defaults: `num_workers` because photographs are decoded while training goes on."""
        super().__init__(root, val_images=val_images, crop_padding=crop_padding, num_workers=num_workers, **options)

    def split(self, name: SplitName) -> Subset[Batch]:
        """Returns one split as `ImageDataModule.split` does; "train" crops its photographs at random."""
        part = super().split(name)
        if name != "train":
            return part
        return Subset(replace(cast(Photos, part.dataset), crop_seed=self.seed), part.indices)

    def _load(self, train: bool) -> Photos:
        folder = self.root / ("train" if train else "val")
        if not folder.is_dir():
            way = "download by hand from image-net.org, which asks for registration"
            raise self._missing("<wnid>/*.JPEG", [folder], "no such folder", way)
        classes = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
        # With fewer folders a class's place in the sorted list is not its index, and accuracies are wrong.
        if len(classes) != self.num_classes:
            raise ValueError(f"ImageNet: {folder.absolute()} must hold 1000 class folders, not {len(classes)}")
        files = [sorted((folder / name).iterdir()) for name in classes]
        labels = torch.arange(self.num_classes).repeat_interleave(torch.tensor([len(paths) for paths in files]))
        return Photos([path for paths in files for path in paths], labels)
