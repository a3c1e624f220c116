"""Photographs lie class by class; experiments take the first n of them in a mixed order."""

import torch
from torch import Tensor

from cli.paper import _Mixed


class Sorted:
    """Ten images, each filled with its label; counts how often each is read."""

    def __init__(self) -> None:
        self.read: list[int] = []

    def __len__(self) -> int:
        return 10

    def __getitem__(self, places: list[int]) -> tuple[Tensor, Tensor]:
        self.read += places
        labels = torch.tensor(places)
        return labels.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 2, 2), labels


def test_every_image_comes_once_with_its_label_in_an_order_that_stays() -> None:
    split = Sorted()
    mixed = _Mixed(split)
    pixels, labels = mixed[list(range(10))]
    assert sorted(labels.tolist()) == list(range(10))
    assert labels.tolist() != list(range(10))
    assert (pixels == labels.view(-1, 1, 1, 1)).all()
    again = _Mixed(Sorted())
    assert again[[3, 4]][1].tolist() == labels[3:5].tolist()


def test_an_image_is_decoded_once() -> None:
    split = Sorted()
    mixed = _Mixed(split)
    first = mixed[[0, 1]][1]
    assert mixed[[1, 2, 0]][1].tolist()[0] == first.tolist()[1]
    assert sorted(split.read) == sorted({*split.read})
    assert len(split.read) == 3
