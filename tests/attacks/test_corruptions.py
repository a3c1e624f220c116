"""Corruptions where the corrupted image is known: whole pixels, right angles, grey."""

import pytest
import torch
from torch import Tensor

from attacks import Goal, Margin
from attacks.corruptions import AdditiveGaussian, AdditiveUniform, ContrastReduction, RotationTranslation, moved
from defenses import Stream, drawing_from
from tests.attacks.toys import Linear, NoisyLinear, images


def rolled(x: Tensor, down: int, right: int) -> Tensor:
    """`torch.roll` with zeros where pixels would come back in."""
    out = torch.zeros_like(x)
    height, width = x.shape[2:]
    out[:, :, max(down, 0) : height + min(down, 0), max(right, 0) : width + min(right, 0)] = x[
        :, :, max(-down, 0) : height + min(-down, 0), max(-right, 0) : width + min(-right, 0)
    ]
    return out


def test_nothing_moved_is_the_image() -> None:
    x = torch.rand(2, 3, 7, 9)
    assert torch.equal(moved(x, 0, 0, 0), x)
    torch.testing.assert_close(moved(x, 1e-9, 0, 0), x)


@pytest.mark.parametrize(("down", "right"), [(1, 0), (0, 1), (-2, 3), (4, -1), (-3, -3)])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 7, 10)])
def test_whole_pixels_roll_with_zeros(down: int, right: int, shape: tuple[int, int, int]) -> None:
    x = torch.rand(2, *shape, dtype=torch.float64)
    torch.testing.assert_close(moved(x, 0, down, right), rolled(x, down, right))


def test_right_angles_are_turns_counterclockwise() -> None:
    x = torch.rand(2, 3, 8, 8, dtype=torch.float64)
    for turns in (1, 2, 3):
        torch.testing.assert_close(moved(x, 90 * turns, 0, 0), torch.rot90(x, turns, (2, 3)))
    wide = torch.rand(1, 1, 5, 9, dtype=torch.float64)
    torch.testing.assert_close(moved(wide, 180, 0, 0), wide.flip(2, 3))
    # Of an image that is not square, a quarter turn keeps the lengths: the middle column becomes the middle line.
    torch.testing.assert_close(moved(wide, 90, 0, 0)[0, 0, 2, 2:7], wide[0, 0, :, 4])
    assert moved(wide, 90, 0, 0)[0, 0, :, :2].max() < 1e-12


def test_first_turned_then_shifted() -> None:
    x = torch.rand(2, 1, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(moved(x, 90, 2, -1), rolled(torch.rot90(x, 1, (2, 3)), 2, -1))


def test_half_a_pixel_is_the_mean_of_two() -> None:
    x = torch.rand(2, 3, 6, 6, dtype=torch.float64)
    expected = (x[..., 1:] + x[..., :-1]) / 2
    torch.testing.assert_close(moved(x, 0, 0, 0.5)[..., 1:], expected)
    torch.testing.assert_close(moved(x, 0, 0, 0.5)[..., 0], x[..., 0] / 2)


def test_the_worst_of_the_grid_is_found() -> None:
    model, x = Linear(3, (3, 8, 8)), images(4, (3, 8, 8))
    y = model(x).argmax(1)
    attack = RotationTranslation(90, 2, 3, 3)
    trace = attack.run(model, x, y)
    grid = [moved(x, a, d, r) for a in (-90, 0, 90) for d in (-2, 0, 2) for r in (-2, 0, 2)]
    losses = torch.stack([Margin()(model(point), Goal(y)) for point in grid])
    torch.testing.assert_close(trace.loss[-1], losses.amax(0).detach())
    torch.testing.assert_close(Margin()(model(trace.x_adv), Goal(y)), losses.amax(0))
    assert trace.queries.tolist() == [27] * 4


def test_grey_is_where_contrast_ends() -> None:
    x = torch.rand(3, 3, 4, 4, dtype=torch.float64)
    steps = list(ContrastReduction(1.0, 4).candidates(x))
    for level, step in enumerate(steps, 1):
        torch.testing.assert_close(step, (1 - level / 4) * x + level / 8)
    torch.testing.assert_close(steps[-1], torch.full_like(x, 0.5))


def test_noise_has_the_size_it_says() -> None:
    x = torch.full((4, 3, 64, 64), 0.5, dtype=torch.float64)
    y = torch.zeros(4, dtype=torch.long)
    model = Linear(2, (3, 64, 64))
    uniform = AdditiveUniform(0.2, 1)(model, x, y) - x
    assert 0.195 < uniform.abs().max() <= 0.2
    assert abs(uniform.std() - 0.2 / 3**0.5) < 0.002
    gauss = AdditiveGaussian(0.1, 1)(model, x, y) - x
    assert abs(gauss.std() - 0.1) < 0.002


@pytest.mark.parametrize("kind", [AdditiveUniform, AdditiveGaussian])
def test_more_trials_are_never_weaker_and_the_first_success_leaves(kind: type) -> None:
    model, x = Linear(3, (3, 8, 8)), images(8, (3, 8, 8))
    y, losses = model(x).argmax(1), []
    for trials in (1, 5, 25):
        with drawing_from(Stream(0)):
            losses.append(kind(0.05, trials).run(model, x, y).loss[-1])
    assert (losses[0] <= losses[1]).all()
    assert (losses[1] <= losses[2]).all()
    with drawing_from(Stream(0)):
        trace = kind(0.05, 25).run(model, x, y, first_success=True)
    broken = model(trace.x_adv).argmax(1) != y
    assert torch.equal(broken, losses[2] > 0)
    assert broken.any()
    assert (trace.queries[~broken] == 25).all()
    assert (trace.queries[broken] < 25).any()


def test_random_models_are_asked_to_the_end() -> None:
    model, x = Linear(3, (3, 8, 8)), images(3, (3, 8, 8))
    trace = AdditiveUniform(0.2, 7).run(NoisyLinear(model, 0.1), x, model(x).argmax(1), first_success=True)
    assert trace.queries.tolist() == [7] * 3


def test_nothing_tried_is_the_image() -> None:
    model, x = Linear(), images()
    y = model(x).argmax(1)
    for attack in (AdditiveUniform(trials=0), AdditiveGaussian(trials=0), ContrastReduction(levels=0)):
        assert torch.equal(attack(model, x, y), x)
    for attack in (AdditiveUniform(0.0, 3), AdditiveGaussian(0.0, 3), RotationTranslation(0, 0, 2, 2)):
        assert torch.equal(attack(model, x, y), x)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (AdditiveUniform, (-0.1, 1)),
        (AdditiveGaussian, (0.1, -1)),
        (ContrastReduction, (1.1, 3)),
        (RotationTranslation, (200, 1, 3, 3)),
        (RotationTranslation, (20, 1, 0, 3)),
    ],
)
def test_impossible_settings_are_refused(kind: type, settings: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=rf"^{kind.__name__} takes .*; got {kind.__name__}\("):
        kind(*settings)
