"""JPEG, median and total variation against their definitions, SciPy and closed forms.

Statistical tests run with fixed seeds; each comparison has an error probability of 1e-6 with another seed.
"""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import fft, ndimage, optimize, stats
from torch import Tensor

from defenses.squeezing import JPEG, MedianFilter, TotalVariation
from tests.defenses.toys import drawn, images

# The luminance table of the JPEG standard (ITU-T T.81, table K.1), and how libjpeg scales it.
# fmt: off
LUMINANCE = np.array([
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51,
    87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92, 49, 64, 78, 87, 103, 121, 120, 101,
    72, 92, 95, 98, 112, 100, 103, 99,
]).reshape(8, 8)
# fmt: on


@pytest.mark.parametrize("quality", [1, 30, 75, 100])
def test_jpeg_is_a_rounded_cosine_transform_of_8x8_blocks(quality: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 24))
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    table = ((LUMINANCE * scale + 50) // 100).clip(1, 255)
    expected = np.empty((16, 24))
    for top, left in itertools.product(range(0, 16, 8), range(0, 24, 8)):
        block = fft.dctn(pixels[top : top + 8, left : left + 8] - 128.0, norm="ortho")
        expected[top : top + 8, left : left + 8] = fft.idctn((block / table).round() * table, norm="ortho") + 128
    x = torch.from_numpy(pixels / 255).expand(2, 1, 16, 24)
    # The integer transform of libjpeg may round another way, which shifts a coefficient by one step of the table.
    error = (JPEG(quality)(x)[0, 0] * 255 - torch.from_numpy(expected.clip(0, 255))).abs()
    assert error.median() <= 0.5
    assert error.max() <= 1 + table.max() / 4
    # Grey as a colour has no hue to lose.
    torch.testing.assert_close(JPEG(quality)(x.expand(2, 3, 16, 24))[:, :1], JPEG(quality)(x), rtol=0, atol=1.01 / 255)


def test_jpeg_halves_the_resolution_of_hues_and_clips() -> None:
    x = torch.zeros(1, 3, 16, 16)
    x[:, 0, :, ::2] = x[:, 2, :, 1::2] = 1  # red and blue columns
    y = JPEG(100)(x)
    assert (y[:, 0] - y[:, 2]).abs().max() < 0.6
    assert torch.equal(JPEG(90)(3 * x - 1), JPEG(90)(x))


def test_jpeg_takes_grey_and_coloured_images() -> None:
    with pytest.raises(ValueError, match=r"^JPEG takes images of 1 or 3 colours, got 2$"):
        JPEG()(images(shape=(2, 8, 8)))


@pytest.mark.parametrize("size", range(1, 7))
def test_the_median_is_that_of_scipy(size: int) -> None:
    x = images(2, torch.float64, (3, 9, 7))
    expected = ndimage.median_filter(x.numpy(), size=(1, 1, size, size), mode="reflect")
    assert np.array_equal(MedianFilter(size)(x).numpy(), expected)


def variation(z: Tensor, smooth: float = 0.0) -> Tensor:
    down, right = F.pad(z.diff(dim=-2), (0, 0, 0, 1)), F.pad(z.diff(dim=-1), (0, 1))
    return (down**2 + right**2 + smooth**2).sqrt().sum()


@pytest.mark.parametrize("weight", [0.01, 0.03, 0.1, 0.5])
def test_total_variation_brings_two_halves_together_by_the_weight_times_edge_over_area(weight: float) -> None:
    x = torch.zeros(1, 1, 8, 12, dtype=torch.float64)
    x[..., 6:] = 1
    # A contrast of 1 lies on an edge of 8, each half has an area of 48.
    expected = (x + weight * 8 / 48 * (1 - 2 * x)).clamp(0, 1)
    torch.testing.assert_close(TotalVariation(weight, keep=1, steps=2000)(x), expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("keep", [1, 0.5])
def test_total_variation_is_as_small_as_a_smooth_solver_makes_it(keep: float) -> None:
    x = torch.from_numpy(ndimage.gaussian_filter(np.random.default_rng(1).random((12, 12)), 0.7))
    kept = torch.from_numpy(np.random.default_rng(2).random((12, 12)) < keep).double()

    def objective(z: Tensor, smooth: float = 0.0) -> Tensor:
        return 0.5 * (kept * (z - x) ** 2).sum() + 0.05 * variation(z, smooth)

    def smoothed(flat: np.ndarray) -> tuple[float, np.ndarray]:
        z = torch.from_numpy(flat).view(12, 12).requires_grad_()
        value = objective(z, 1e-3)
        return value.item(), torch.autograd.grad(value, z)[0].flatten().numpy()

    best = optimize.minimize(smoothed, x.flatten().numpy(), jac=True, method="L-BFGS-B", options={"maxiter": 3000})
    z = TotalVariation(0.05, keep, steps=1000)._solve(x[None, None], kept[None, None])[0, 0]
    # The smooth minimum bounds the true one from above, and from below less 0.001 * weight for each pixel.
    assert best.fun - 144 * 0.05 * 1e-3 - 1e-4 <= objective(z) <= best.fun + 1e-4
    if keep == 1:
        torch.testing.assert_close(z, torch.from_numpy(best.x).view(12, 12), rtol=0, atol=0.02)


def test_the_default_steps_are_enough_and_dropped_values_are_painted_in() -> None:
    ramp = torch.linspace(0.2, 0.8, 16).expand(2, 3, 16, 16).contiguous()
    few, many = (drawn(TotalVariation(steps=steps), ramp) for steps in (100, 1000))
    assert (few - many).abs().mean() < 0.005
    assert (few - ramp).abs().mean() < 0.03  # a third of what black pixels would make of it


def test_total_variation_keeps_each_value_with_its_probability() -> None:
    # One step moves a dropped value, which starts near 0.5, by 0.12 at most, and a kept one by 4 weights.
    x = images(4, shape=(3, 64, 64)).round()
    kept = (drawn(TotalVariation(1e-3, keep=0.3, steps=1), x) - x).abs() <= 4.001e-3
    for image in kept:
        assert stats.binomtest(int(image.sum()), image.numel(), 0.3).pvalue > 1e-6
    both = kept[:, 0] & kept[:, 1]  # each colour of a pixel by itself
    assert stats.binomtest(int(both.sum()), both.numel(), 0.09).pvalue > 1e-6
