"""Digits: 1,797 real handwritten digits of 8x8 pixels that come with scikit-learn; no download.

Source: E. Alpaydin, C. Kaynak (1998), UCI "Optical Recognition of Handwritten Digits", its test part.
"""

from typing import Any

import torch

from datamodules.base import ImageDataModule, Images
from datamodules.sampling import seeded_permutation

TEST_IMAGES = 360


class Digits(ImageDataModule):
    """scikit-learn's `load_digits`; as it has no official test set, 360 images are set aside for good."""

    channels = 1
    num_classes = 10
    image_size = 8
    classes = tuple("0123456789")

    def __init__(
        self,
        root: str = "data",
        *,
        val_images: int = 200,
        crop_padding: int = 0,
        flip: bool = False,
        **options: Any,
    ) -> None:
        """Sets other defaults: no crops (one pixel of 8 is much) and no flips; `root` is not used."""
        super().__init__(root, val_images=val_images, crop_padding=crop_padding, flip=flip, **options)

    def _load(self, train: bool) -> Images:
        # Takes a second, which the other datasets need not pay.
        from sklearn.datasets import load_digits

        digits = load_digits()
        # Values 0 ... 16 are counts of set pixels in 4x4 blocks.
        pixels = torch.from_numpy(digits.images).mul(255 / 16).round().to(torch.uint8)[:, None]
        labels = torch.from_numpy(digits.target).long()
        # A key of its own: the test set must not move with the `seed` of a run.
        order = seeded_permutation(len(labels), 0)
        chosen = (order[TEST_IMAGES:] if train else order[:TEST_IMAGES]).sort().values
        return Images(pixels[chosen], labels[chosen])
