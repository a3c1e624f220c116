"""What a data set holds becomes what networks see."""

from torch import Tensor


def unit_range(images: Tensor) -> Tensor:
    """Images as float32 in [0, 1]: uint8 of any shape over 255; floating images are returned as they are."""
    return images if images.is_floating_point() else images.float() / 255
