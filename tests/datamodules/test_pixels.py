"""Pixels: the two ends of a byte, and images that are floats already."""

import torch

from datamodules.pixels import unit_range


def test_bytes_become_the_unit_interval() -> None:
    found = unit_range(torch.tensor([[0, 51, 255]], dtype=torch.uint8))
    assert found.dtype == torch.float32
    assert torch.equal(found, torch.tensor([[0.0, 0.2, 1.0]]))


def test_floats_stay_what_they_are() -> None:
    images = torch.rand(2, 3, 4, 4)
    assert unit_range(images) is images
