"""Fourier magnitudes of waves, and of images whose high frequencies were removed."""

import math

import pytest
import torch

from analysis.fourier import log_magnitude, log_magnitude_difference, mean_log_magnitude
from defenses import FFTCompression


def test_a_wave_has_two_coefficients() -> None:
    height, width, amplitude = 8, 10, 0.2
    rows, columns = torch.arange(height, dtype=torch.float64)[:, None], torch.arange(width, dtype=torch.float64)
    wave = 0.5 + amplitude * torch.cos(2 * math.pi * (2 * rows / height + 3 * columns / width))
    found = log_magnitude(wave[None, None], floor=-200)
    expected = torch.full((height, width), -200.0, dtype=torch.float64)
    size = (height * width) ** 0.5
    expected[4, 5] = 20 * math.log10(0.5 * size)  # frequency 0 in the middle
    expected[4 + 2, 5 + 3] = expected[4 - 2, 5 - 3] = 20 * math.log10(amplitude / 2 * size)
    assert torch.allclose(found[0, 0], expected)
    corner = log_magnitude(wave, shifted=False, floor=-200)
    assert float(corner[0, 0]) == pytest.approx(float(expected[4, 5]))
    assert torch.equal(torch.fft.fftshift(corner), found[0, 0])


def test_squared_magnitudes_sum_to_those_of_the_pixels() -> None:
    x = torch.rand(3, 2, 7, 9, dtype=torch.float64)
    energy = (10 ** (log_magnitude(x, floor=-300) / 10)).sum((2, 3))
    torch.testing.assert_close(energy, x.square().sum((2, 3)))


def test_nothing_is_shown_as_the_floor() -> None:
    assert torch.equal(log_magnitude(torch.zeros(1, 1, 4, 4)), torch.full((1, 1, 4, 4), -120.0))


def test_the_mean_is_over_images_and_chunks_do_not_matter() -> None:
    x = torch.rand(7, 3, 8, 8, dtype=torch.float64)
    expected = log_magnitude(x).mean(0)
    for chunk in (2, 7, 100):
        torch.testing.assert_close(mean_log_magnitude(x, chunk=chunk), expected)
    assert mean_log_magnitude(x.float()).dtype == torch.float64


def test_compression_takes_high_frequencies_away_and_leaves_the_others() -> None:
    x = torch.rand(5, 3, 16, 16, dtype=torch.float64)
    change = log_magnitude_difference(x, FFTCompression(50)(x), floor=-200)
    kept = change.abs() < 1e-6
    assert (kept | (change < -100)).all()
    assert 0.4 < float(kept.double().mean()) < 0.6
    assert kept[:, 8, 8].all()  # frequency 0
    assert not kept[:, 0, 0].any()  # the highest
    torch.testing.assert_close(log_magnitude_difference(FFTCompression(50)(x), x, floor=-200), -change)


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="floating point"):
        log_magnitude(torch.zeros(4, 4, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"B >= 1, got \(0, 3, 4, 4\)"):
        mean_log_magnitude(torch.zeros(0, 3, 4, 4))
    with pytest.raises(ValueError, match="one shape"):
        log_magnitude_difference(torch.rand(2, 3, 4, 4), torch.rand(2, 1, 4, 4))
