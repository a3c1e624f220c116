"""Recovery windows against a linear network, whose answers under Gaussian noise follow the normal distribution."""

import numpy as np
import pytest
import torch
from scipy.stats import chi, norm
from torch import Tensor, nn

from analysis.windows import RecoveryWindows, recovery_windows
from defenses import Gauss, PapersGauss, PNIWeights, RobustNet
from models import ResNet20
from tests.attacks.test_no_trace import CONTEXTS, prepared, unchanged
from tests.attacks.toys import Linear, images

PASSES = 2000


def crossed(model: Linear, x: Tensor, beyond: float) -> tuple[Tensor, Tensor, Tensor]:
    """Images, as far `beyond` the boundary of a network of two classes as it takes; and both classes."""
    w = (model.w[0] - model.w[1]).detach()
    margin = model(x).detach().diff(dim=1).neg()[:, 0]
    step = (margin / w.norm() + beyond * margin.sign()) / w.norm()
    original = model(x).argmax(1)
    return x - step.view(-1, 1, 1, 1) * w, original, 1 - original


def windows(levels: list[float], beyond: float = 0.05, **options: int) -> RecoveryWindows:
    model, x = Linear(), images(3)
    x_adv, original, adversarial = crossed(model, x, beyond)
    return recovery_windows(model, (x, x_adv), (original, adversarial), levels, Gauss, **options)


def test_shares_are_those_of_the_normal_distribution() -> None:
    levels, beyond = [0.02, 0.1, 1.0], 0.05
    found = windows(levels, beyond, passes=PASSES)
    expected = norm.cdf(-beyond / np.array(levels))
    error = 4 * np.sqrt(expected * (1 - expected) / PASSES) + 1 / PASSES
    assert (np.abs(found.shares["original"] - expected) < error).all()
    assert (found.original + found.adversarial == PASSES).all()
    assert (found.other == 0).all()
    assert not found.recovered[:, :2].any()
    assert not np.array_equal(found.original[0], found.original[1])  # each image has noise of its own


def test_distances_are_those_of_the_noise() -> None:
    found = windows([0.0, 0.1], passes=PASSES)
    model, x = Linear(), images(3)
    x_adv, *_ = crossed(model, x, 0.05)
    distortion = (x_adv - x).flatten(1).norm(dim=1).numpy()
    np.testing.assert_allclose(found.distortion, distortion)
    np.testing.assert_allclose(found.from_original[:, 0], distortion)
    assert (found.from_adversarial[:, 0] == 0).all()
    pixels = x[0].numel()
    mean, std = 0.1 * chi(pixels).mean(), 0.1 * chi(pixels).std()
    assert (np.abs(found.from_adversarial[:, 1] - mean) < 4 * std / PASSES**0.5).all()
    squares = np.sqrt(distortion**2 + 0.01 * pixels)
    np.testing.assert_allclose(found.from_original[:, 1], squares, rtol=0.03)


def test_without_noise_all_answers_are_adversarial() -> None:
    found = windows([0.0], passes=7)
    assert (found.adversarial == 7).all()
    assert found.shares["adversarial"].tolist() == [[1.0]] * 3


class Thirds(nn.Module):
    """Class 0, 1 or 2 by the mean pixel: below 0.4, up to 0.6, above."""

    def forward(self, x: Tensor) -> Tensor:
        mean = x.flatten(1).mean(1)
        return torch.stack([0.4 - mean, torch.full_like(mean, 0.0), mean - 0.6], 1)


def test_other_classes_are_counted_as_such() -> None:
    x, x_adv = torch.full((1, 1, 2, 2), 0.5), torch.full((1, 1, 2, 2), 0.61)
    found = recovery_windows(Thirds(), (x, x_adv), (torch.tensor([1]), torch.tensor([2])), [0.4], Gauss, passes=PASSES)
    expected = np.diff(norm.cdf(np.array([-np.inf, 0.4, 0.6, np.inf]), 0.61, 0.2))  # std of the mean of 4 pixels
    shares = [float(found.shares[name][0, 0]) for name in ("other", "original", "adversarial")]
    assert shares == pytest.approx(expected.tolist(), abs=4 * (0.25 / PASSES) ** 0.5)
    assert sum(shares) == pytest.approx(1)


def test_a_count_depends_on_the_image_alone() -> None:
    model, x = Linear(), images(4)
    x_adv, original, adversarial = crossed(model, x, 0.05)
    levels, whole = [0.05, 0.1], {"passes": 50}
    together = recovery_windows(model, (x, x_adv), (original, adversarial), levels, **whole)
    for most_images in (1, 70, 1000):
        again = recovery_windows(model, (x, x_adv), (original, adversarial), levels, **whole, most_images=most_images)
        assert np.array_equal(again.original, together.original)
    last = recovery_windows(model, (x[3:], x_adv[3:]), (original[3:], adversarial[3:]), levels[1:], **whole, first=3)
    assert np.array_equal(last.original, together.original[3:, 1:])
    other = recovery_windows(model, (x, x_adv), (original, adversarial), levels, **whole, seed=1)
    assert not np.array_equal(other.original, together.original)


def test_passes_fill_up_and_hold_one_image_where_weights_are_shared() -> None:
    sizes: list[int] = []
    x, classes = torch.rand(2, 3, 8, 8), (torch.tensor([0, 0]), torch.tensor([1, 1]))
    for network, expected in ((RobustNet(ResNet20()), [8, 4]), (PNIWeights(ResNet20()), [1] * 12)):
        sizes.clear()
        network.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
        recovery_windows(network, (x, x), classes, [0.0, 0.1, 0.2], PapersGauss, passes=2, most_images=8)
        assert sizes == expected


@pytest.mark.parametrize("context", CONTEXTS)
def test_no_trace_is_left(context: str) -> None:
    model, x = prepared("RobustNet"), torch.rand(2, 3, 8, 8)
    classes = torch.tensor([0, 1]), torch.tensor([2, 3])
    with unchanged(model), CONTEXTS[context]():
        found = recovery_windows(model, (x, 1 - x), classes, [0.1], passes=3)
    assert found.other.shape == (2, 1)


def test_bad_input_is_named() -> None:
    model, x, y = Linear(), images(2), torch.tensor([0, 1])
    with pytest.raises(ValueError, match="image 1: original and adversarial class are both 1"):
        recovery_windows(model, (x, x), (y, torch.tensor([1, 1])), [0.1])
    with pytest.raises(ValueError, match="two times classes"):
        recovery_windows(model, (x, x), (y, 1 - y[:1]), [0.1])
    with pytest.raises(ValueError, match="two times images"):
        recovery_windows(model, (x, x[:1]), (y, 1 - y), [0.1])
    with pytest.raises(ValueError, match="at least 1 level"):
        recovery_windows(model, (x, x), (y, 1 - y), [])
    with pytest.raises(ValueError, match="at least 1 noisy copy, got 0"):
        recovery_windows(model, (x, x), (y, 1 - y), [0.1], passes=0)
    model.b.data.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="NaN"):
        recovery_windows(model, (x, x), (y, 1 - y), [0.1])
