"""Compressions against their definitions: coefficients, ranks, values; what is exact and what is idempotent."""

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from defenses import Brightness, Channel, ColourDepth, FFTCompression, InverseFFTCompression, SVDCompression
from defenses.frequencies import MaskName, corner_disks, disk

MASKS: tuple[MaskName, ...] = ("disk", "corner_disks")
SIZES = [(8, 8), (7, 8), (8, 7), (5, 9), (1, 6), (6, 1), (1, 1)]
# The papers' masks of 32 x 32 images: percent, radius, coefficients kept of 32 x 17.
CORNER_DISKS = [
    *((percent, 18, 498) for percent in (0, 1, 5)),
    *((percent, 17, 470) for percent in (10, 16)),
    (20, 16, 440),
    (30, 15, 378),
    (40, 14, 332),
    (50, 13, 284),
    (60, 11, 208),
    (75, 9, 142),
    (80, 8, 112),
    (85, 7, 86),
    (90, 5, 44),
]

every_mask = pytest.mark.parametrize("mask", MASKS)
every_size = pytest.mark.parametrize("size", SIZES, ids=str)


def images(*shape: int) -> Tensor:
    return torch.rand(shape, dtype=torch.float64)


def two_sided(mask: Tensor, width: int) -> Tensor:
    """The weights [H, W] of all coefficients by those of `rfft2`: what conjugate symmetry says about the others."""
    height, columns = mask.shape
    full = torch.zeros(height, width)
    full[:, :columns] = mask
    for y, x in itertools.product(range(height), range(columns, width)):
        full[y, x] = mask[-y % height, width - x]
    return full


@pytest.mark.parametrize(("percent", "radius", "kept"), CORNER_DISKS)
def test_corner_disks_are_those_of_the_papers(percent: float, radius: int, kept: int) -> None:
    mask = corner_disks(percent, 32, 32)
    assert mask.shape == (32, 17)
    assert int(mask.sum()) == kept
    corners = list(itertools.product((0, 31), repeat=2))
    for y, x in itertools.product(range(32), range(17)):
        assert mask[y, x] == any(((y - a) ** 2 + (x - b) ** 2) ** 0.5 < radius for a, b in corners)


@pytest.mark.parametrize(("percent", "share"), [(5, 0.888), (30, 0.705), (50, 0.498)])
def test_corner_disks_of_large_images(percent: float, share: float) -> None:
    assert float(corner_disks(percent, 224, 224).double().mean()) == pytest.approx(share, abs=5e-4)


@every_size
@pytest.mark.parametrize("percent", [0, 0.1, 10, 33.3, 50, 75, 90, 99, 100])
def test_the_disk_holds_the_lowest_frequencies_and_as_many_as_it_says(size: tuple[int, int], percent: float) -> None:
    height, width = size
    kept = two_sided(disk(percent, height, width), width).bool()
    wanted = round((100 - percent) * height * width / 100)
    assert int(kept.sum()) in (wanted, wanted - 1)
    assert int(kept.sum()) == wanted or percent not in (0, 100)
    assert torch.equal(kept, kept[-torch.arange(height) % height][:, -torch.arange(width) % width])
    distance = torch.fft.fftfreq(height)[:, None].hypot(torch.fft.fftfreq(width))
    if kept.any() and not kept.all():
        assert distance[kept].max() <= distance[~kept].min() + 1e-6


@every_mask
@every_size
@pytest.mark.parametrize("percent", [0, 30, 60])
def test_fft_compression_is_numpys_with_the_mask(mask: MaskName, size: tuple[int, int], percent: float) -> None:
    x = images(2, 3, *size)
    kept = (disk if mask == "disk" else corner_disks)(percent, *size)
    if percent == 0 and mask == "disk":
        torch.testing.assert_close(FFTCompression(percent)(x), x)
    expected = np.fft.irfft2(np.fft.rfft2(x.numpy()) * kept.numpy(), s=size)
    torch.testing.assert_close(FFTCompression(percent, mask)(x), torch.from_numpy(expected))
    torch.testing.assert_close(InverseFFTCompression(percent, mask)(x), x - torch.from_numpy(expected))


@every_size
@pytest.mark.parametrize("percent", [0, 30, 75, 100])
def test_the_disk_is_an_orthogonal_projection_of_its_rank(size: tuple[int, int], percent: float) -> None:
    height, width = size
    channel, basis = FFTCompression(percent), torch.eye(height * width, dtype=torch.float64)
    matrix = channel(basis.view(-1, 1, *size)).view(height * width, -1)
    torch.testing.assert_close(matrix, matrix.T)
    torch.testing.assert_close(matrix @ matrix, matrix)
    kept = two_sided(disk(percent, height, width), width).sum()
    assert float(matrix.trace()) == pytest.approx(float(kept), abs=1e-9)


@pytest.mark.parametrize("percent", [row[0] for row in CORNER_DISKS])
def test_corner_disks_halve_one_wave_at_every_pass_and_the_disk_is_idempotent(percent: float) -> None:
    x = images(2, 3, 32, 32)
    once = FFTCompression(percent)(x)
    torch.testing.assert_close(FFTCompression(percent)(once), once)
    once = FFTCompression(percent, "corner_disks")(x)
    twice = FFTCompression(percent, "corner_disks")(once)
    before, lost = torch.fft.fft2(once).abs(), torch.fft.fft2(once - twice).abs()
    changed = lost[0, 0] > 1e-9
    assert int(changed.sum()) == 2  # a coefficient and its conjugate
    torch.testing.assert_close(lost[..., changed], before[..., changed] / 2)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("percent", "rank"), [(10, 28), (20, 25), (30, 22), (40, 19), (50, 16), (60, 12), (70, 9), (80, 6), (90, 3)]
)
def test_svd_keeps_the_largest_singular_values(percent: float, rank: int, channels: int) -> None:
    x = images(2, channels, 32, 32)
    before, after = torch.linalg.svdvals(x), torch.linalg.svdvals(SVDCompression(percent)(x))
    torch.testing.assert_close(after[..., :rank], before[..., :rank])
    assert (after[..., rank:] < 1e-12).all()
    # The nearest matrix of its rank (Eckart and Young): as far as the dropped values say.
    distance = (SVDCompression(percent)(x) - x).norm(dim=(-2, -1))
    torch.testing.assert_close(distance, before[..., rank:].norm(dim=-1))


def test_ranks_do_not_suffer_from_roundings() -> None:
    x = images(1, 1, 10, 10)
    assert torch.linalg.matrix_rank(SVDCompression(90)(x)).item() == 1  # (1 - 0.9) * 10 < 1


@pytest.mark.parametrize("size", [(8, 8), (7, 9), (9, 7), (1, 5)], ids=str)
def test_svd_is_idempotent(size: tuple[int, int]) -> None:
    channel = SVDCompression(0 if 1 in size else 40)
    once = channel(images(2, 3, *size))
    torch.testing.assert_close(channel(once), once)


def test_an_image_too_small_for_its_percentage_is_refused() -> None:
    message = "^percent=97 leaves no singular value of images of 32 x 40 pixels$"
    with pytest.raises(ValueError, match=message):
        SVDCompression(97)(images(1, 1, 32, 40))


EXACT = [
    *(FFTCompression(percent, mask) for percent in (0, 40) for mask in MASKS),
    *(InverseFFTCompression(40, mask) for mask in MASKS),
    SVDCompression(40),
]


@pytest.mark.parametrize("size", [(5, 5), (4, 6), (6, 4)], ids=str)
@pytest.mark.parametrize("channel", EXACT, ids=str)
def test_exact_gradients_are_those_of_finite_differences(channel: Channel, size: tuple[int, int]) -> None:
    x = images(2, 2, *size).requires_grad_()
    assert channel.differentiable
    assert torch.autograd.gradcheck(channel, (x,))
    through = channel.straight_through(x)
    assert torch.equal(through, channel(x))


def test_the_derivative_of_svd_exists_for_an_image_of_one_colour() -> None:
    x = torch.full((1, 1, 8, 8), 0.5, requires_grad=True)
    (gradient,) = torch.autograd.grad(SVDCompression(50)(x).sum(), x)
    torch.testing.assert_close(gradient, torch.ones_like(x))


STRAIGHT = [ColourDepth(3), ColourDepth(values=5), Brightness(), SVDCompression(50, differentiable=False)]


@pytest.mark.parametrize("channel", STRAIGHT, ids=str)
def test_straight_through_takes_the_networks_gradient_behind_the_channel(channel: Channel) -> None:
    x = images(2, 3, 4, 4).requires_grad_()
    weight = torch.rand_like(x)
    assert not channel.differentiable
    through = channel.straight_through(x)
    assert torch.equal(through, channel(x))
    # Of a nonlinear function, so that it matters where.
    (gradient,) = torch.autograd.grad((through**3 * weight).sum(), x)
    torch.testing.assert_close(gradient, 3 * channel(x).detach() ** 2 * weight)


@pytest.mark.parametrize("channel", [ColourDepth(3), Brightness()], ids=str)
def test_rounding_has_no_gradient_of_its_own(channel: Channel) -> None:
    x = images(2, 3, 4, 4).requires_grad_()
    (gradient,) = torch.autograd.grad(channel(x).sum(), x)
    assert not gradient.any()


@pytest.mark.parametrize(
    ("channel", "values"),
    [(ColourDepth(bits), 2**bits) for bits in range(1, 9)] + [(ColourDepth(values=v), v) for v in (2, 5, 10, 256)],
    ids=str,
)
def test_colour_depth_has_as_many_values_as_it_says(channel: ColourDepth, values: int) -> None:
    x = torch.linspace(0, 1, 100_001, dtype=torch.float64).view(1, 1, 1, -1)
    y = channel(x)
    assert len(y.unique()) == values
    assert (y.min(), y.max()) == (0, 1)
    assert (y - x).abs().max() <= 0.5 / (values - 1) + 1e-12
    assert torch.equal(channel(y), y)


def test_eight_bits_are_those_of_a_file() -> None:
    x = torch.arange(256, dtype=torch.float64).view(1, 1, 16, 16) / 255
    torch.testing.assert_close(ColourDepth(8)(x), x)


def test_brightness_is_taken_from_eight_bits_without_clipping() -> None:
    x = torch.arange(256, dtype=torch.float64).view(1, 1, 16, 16) / 255
    torch.testing.assert_close(Brightness()(x + 0.4 / 255), x - 43 / 255)
    distance = (Brightness(10)(x) - x).norm()
    assert float(distance) == pytest.approx(Brightness(10).expected_l2((1, 16, 16)))


EVERY = [*EXACT, *STRAIGHT]


@pytest.mark.parametrize("channel", EVERY, ids=str)
@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (2, 1, 8, 8), (3, 3, 7, 9)], ids=str)
def test_images_keep_what_they_are(channel: Channel, shape: tuple[int, ...]) -> None:
    x = images(*shape)
    y, before = channel(x), x.clone()
    for memory_format in (torch.contiguous_format, torch.channels_last):
        laid_out = x.contiguous(memory_format=memory_format)
        out = channel(laid_out)
        assert (out.shape, out.dtype, out.stride()) == (laid_out.shape, laid_out.dtype, laid_out.stride())
        torch.testing.assert_close(out, y)
    # Each colour of each image by itself, and nothing is written into the image.
    torch.testing.assert_close(channel(x[:1, :1]), y[:1, :1])
    assert torch.equal(x, before)


@pytest.mark.parametrize("channel", [FFTCompression(50), SVDCompression(50)], ids=str)
def test_half_precision_around_a_channel_does_not_reach_into_it(channel: Channel) -> None:
    x = torch.rand(2, 3, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        inside = channel(x)
    assert torch.equal(inside, channel(x))
    short = channel(x.bfloat16())
    assert short.dtype == torch.bfloat16
    torch.testing.assert_close(short, channel(x.bfloat16().float()).bfloat16())


def test_a_mask_made_without_gradients_serves_with_them() -> None:
    x, channel = torch.rand(1, 1, 11, 13, requires_grad=True), FFTCompression(12.5)
    with torch.inference_mode():
        channel(x)
    (gradient,) = torch.autograd.grad(channel(x).sum(), x)
    torch.testing.assert_close(gradient, torch.ones_like(x))
    assert not channel.state_dict()


@pytest.mark.parametrize("kind", [FFTCompression, InverseFFTCompression, SVDCompression])
@pytest.mark.parametrize("percent", [-1, 100.5, float("nan")])
def test_impossible_percentages_are_refused(kind: type[Channel], percent: float) -> None:
    with pytest.raises(ValueError, match=f"^percent must be a number from 0 to 100, got {percent}$"):
        kind(percent)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        *(({"bits": bits}, f"bits must be a whole number from 1 to 8, got {bits}") for bits in (0, 9, 1.5, -1)),
        *(({"values": v}, f"values must be a whole number from 2 to 256, got {v}") for v in (1, 257, 2.5)),
        ({}, "bits or values must be given, and not both, got bits=None and values=None"),
        ({"bits": 2, "values": 4}, "bits or values must be given, and not both, got bits=2 and values=4"),
    ],
)
def test_impossible_depths_are_refused(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        ColourDepth(**arguments)


def test_other_impossible_settings_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^mask must be one of disk, corner_disks, got square$"):
        FFTCompression(50, "square")
    for shift in (-1, 256, float("nan")):
        with pytest.raises(ValueError, match=f"^shift must be a number from 0 to 255, got {shift}$"):
            Brightness(shift)
