"""The vectorised augmentation against one image at a time."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import pad

from datamodules.augment import crop_and_flip


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def distinct(*shape: int) -> Tensor:
    """Pixels that are all different and not 0, so that each tells where it came from."""
    return torch.arange(1, 1 + torch.Size(shape).numel()).reshape(shape).float()


def candidates(image: Tensor, padding: int, flip: bool) -> list[Tensor]:
    """All that may become of one image, in the papers' order: mirror, pad, cut out."""
    height, width = image.shape[1:]
    offsets = [(top, left) for top in range(2 * padding + 1) for left in range(2 * padding + 1)]
    images = [image, image.flip(2)] if flip else [image]
    padded = [pad(each, (padding,) * 4) for each in images]
    return [each[:, top : top + height, left : left + width] for each in padded for top, left in offsets]


@pytest.mark.parametrize("padding", [0, 1, 2])
@pytest.mark.parametrize("flip", [False, True])
def test_every_result_is_possible_and_all_are_equally_likely(padding: int, flip: bool) -> None:
    image = distinct(2, 3, 4)
    copies = 400 * (2 * padding + 1) ** 2 * (1 + flip)
    results = crop_and_flip(image.expand(copies, -1, -1, -1), padding, flip, generator())
    possible = torch.stack(candidates(image, padding, flip))
    hits = (results[:, None] == possible).flatten(2).all(2)
    assert torch.equal(hits.sum(1), torch.ones(copies, dtype=torch.long))
    # 400 expected for each; 100 are five standard deviations.
    assert (hits.sum(0) - 400).abs().max() < 100


def test_equals_the_slow_way_with_the_same_draws() -> None:
    x = distinct(6, 3, 5, 4)
    got = crop_and_flip(x, 2, True, generator(3))
    draws = generator(3)
    top, left = torch.randint(5, (2, 6), generator=draws)
    mirrored = torch.randint(2, (6,), generator=draws)
    for i in range(6):
        crop = pad(x[i], (2,) * 4)[:, top[i] : top[i] + 5, left[i] : left[i] + 4]
        assert torch.equal(got[i], crop.flip(2) if mirrored[i] else crop)


def test_nothing_to_do_returns_equal_pixels() -> None:
    x = distinct(3, 1, 4, 4)
    assert torch.equal(crop_and_flip(x, 0, False, generator()), x)


def test_keeps_uint8_and_draws_from_its_generator_only() -> None:
    x = torch.randint(256, (16, 3, 8, 8), dtype=torch.uint8, generator=generator())
    state = torch.get_rng_state()
    first = crop_and_flip(x, 4, True, generator(1))
    assert first.dtype == torch.uint8
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(crop_and_flip(x, 4, True, generator(1)), first)
    assert not torch.equal(crop_and_flip(x, 4, True, generator(2)), first)


def test_an_images_offsets_do_not_depend_on_its_pixels_or_mates_after_it() -> None:
    x = distinct(4, 1, 6, 6)
    changed = x.clone()
    changed[1:] = 0
    assert torch.equal(crop_and_flip(x, 2, True, generator())[0], crop_and_flip(changed, 2, True, generator())[0])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_device_does_not_change_the_result() -> None:
    x = distinct(8, 3, 8, 8)
    assert torch.equal(crop_and_flip(x.cuda(), 2, True, generator()).cpu(), crop_and_flip(x, 2, True, generator()))
