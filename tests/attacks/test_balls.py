"""Balls: nearest points, steepest directions, uniform draws."""

from dataclasses import FrozenInstanceError

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from attacks import L2, Ball, Linf, pixels
from defenses import Stream, drawing_from

BALLS = [Linf(8 / 255), Linf(0.5), L2(0.3), L2(4.0)]
every_ball = pytest.mark.parametrize("ball", BALLS, ids=str)


def distance(ball: Ball, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.linalg.vector_norm((a - b).flatten(1), ord=2 if isinstance(ball, L2) else float("inf"), dim=1)


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from([Linf, L2]),
    eps=st.floats(0, 1),
    spread=st.floats(0, 5),
    seed=st.integers(0, 2**31),
)
def test_projections_are_inside_and_stay_where_they_are(kind: type[Ball], eps: float, spread: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(3, 2, 4, 4, generator=generator, dtype=torch.float64)
    far = x + spread * torch.randn(x.shape, generator=generator, dtype=torch.float64)
    ball = kind(eps)
    projected = ball.project(far, x)
    assert 0 <= projected.min() <= projected.max() <= 1
    assert (distance(ball, projected, x) <= eps * (1 + 1e-12) + 1e-15).all()
    torch.testing.assert_close(ball.project(projected, x), projected, rtol=1e-12, atol=1e-12)
    assert torch.equal(ball.project(x, x), x)


@every_ball
def test_no_other_point_of_the_ball_is_nearer(ball: Ball) -> None:
    # Away from 0 and 1, where the L2 projection is not the nearest point of the intersection and does not say so.
    x = 0.5 + torch.zeros(1, 2, 3, 3, dtype=torch.float64)
    scale = 0.4 / ball.eps if isinstance(ball, L2) and ball.eps > 0.4 else 1.0
    ball = type(ball)(ball.eps * scale)
    with drawing_from(Stream(0)):
        others = ball.sample(x.expand(2000, -1, -1, -1))
        far = x + 2 * torch.randn(20, 2, 3, 3, dtype=torch.float64)
    for point in far.unsqueeze(1):
        nearest = ball.project(point, x)
        assert (others - point).flatten(1).norm(dim=1).min() >= (nearest - point).norm() - 1e-12


def test_the_linf_projection_is_nearest_at_the_border_of_the_cube_too() -> None:
    x = torch.tensor([0.0, 0.05, 0.5, 0.97, 1.0]).view(1, 1, 1, 5)
    far = torch.tensor([-1.0, 0.3, 0.55, 2.0, 0.0]).view(1, 1, 1, 5)
    expected = torch.tensor([0.0, 0.15, 0.55, 1.0, 0.9]).view(1, 1, 1, 5)
    torch.testing.assert_close(Linf(0.1).project(far, x), expected)


def test_the_l2_projection_shortens_the_difference_of_each_image() -> None:
    x = torch.full((3, 1, 1, 2), 0.5)
    delta = torch.tensor([[0.3, 0.4], [0.03, 0.04], [0.0, 0.0]]).view(3, 1, 1, 2)
    expected = torch.tensor([[0.06, 0.08], [0.03, 0.04], [0.0, 0.0]]).view(3, 1, 1, 2)
    torch.testing.assert_close(L2(0.1).project(x + delta, x), x + expected)


@pytest.mark.parametrize("scale", [1.0, 1e-12, 1e-22, 1e-30, 1e-37])
def test_l2_ascent_has_length_1_however_small_the_gradient(scale: float) -> None:
    gradient = torch.randn(4, 3, 8, 8)
    direction = L2().ascent(gradient * scale)
    torch.testing.assert_close(direction, gradient / gradient.flatten(1).norm(dim=1).view(4, 1, 1, 1))


@pytest.mark.parametrize("ball", [Linf(), L2()], ids=str)
def test_a_zero_gradient_leads_nowhere_and_its_neighbour_is_unharmed(ball: Ball) -> None:
    gradient = torch.randn(2, 3, 4, 4)
    gradient[0] = 0
    direction = ball.ascent(gradient)
    assert torch.equal(direction[0], torch.zeros(3, 4, 4))
    assert torch.equal(direction[1:], ball.ascent(gradient[1:]))


@pytest.mark.parametrize("ball", [Linf(), L2()], ids=str)
def test_ascent_is_the_steepest_direction_of_length_1(ball: Ball) -> None:
    gradient = torch.randn(5, 2, 3, 3, dtype=torch.float64)
    direction = ball.ascent(gradient)
    torch.testing.assert_close(distance(ball, direction, torch.zeros_like(direction)), torch.ones(5).double())
    # Hoelder: no direction of length 1 climbs faster than the dual norm of the gradient.
    dual = gradient.flatten(1).norm(p=1 if isinstance(ball, Linf) else 2, dim=1)
    torch.testing.assert_close((direction * gradient).flatten(1).sum(1), dual)


def test_linf_samples_are_uniform_in_the_ball() -> None:
    x = torch.full((200, 1, 10, 10), 0.5, dtype=torch.float64)
    with drawing_from(Stream(1)):
        offsets = (Linf(0.1).sample(x) - x) / 0.1
    # Error probability 1e-6.
    assert stats.kstest(offsets.flatten().numpy(), "uniform", args=(-1, 2)).pvalue > 1e-6


def test_l2_samples_are_uniform_in_the_ball() -> None:
    n, eps = 8, 0.4
    x = torch.full((20_000, 2, 2, 2), 0.5, dtype=torch.float64)
    with drawing_from(Stream(1)):
        offsets = (L2(eps).sample(x) - x).flatten(1) / eps
    radius = offsets.norm(dim=1)
    assert radius.max() <= 1 + 1e-12
    # Each with an error probability of 1e-6: the n-th power of the radius is uniform, and so is the direction, of
    # which one squared component has the distribution Beta(1/2, (n - 1)/2).
    assert stats.kstest((radius**n).numpy(), "uniform").pvalue > 1e-6
    for component in (offsets / radius[:, None]).square().T:
        assert stats.kstest(component.numpy(), "beta", args=(0.5, (n - 1) / 2)).pvalue > 1e-6
    # Five standard errors each: no preferred orthant.
    assert (offsets.mean(0).abs() < 5 * offsets.std(0) / len(offsets) ** 0.5).all()


@every_ball
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_points_are_like_the_images(ball: Ball, dtype: torch.dtype) -> None:
    x = torch.rand(2, 3, 4, 5, dtype=dtype).contiguous(memory_format=torch.channels_last)
    for point in (ball.sample(x), ball.project(x + 1, x), ball.ascent(x)):
        assert (point.shape, point.dtype, point.stride()) == (x.shape, dtype, x.stride())


@pytest.mark.parametrize("kind", [Linf, L2])
def test_radius_0_allows_the_image_only(kind: type[Ball]) -> None:
    x = torch.rand(2, 3, 4, 4)
    assert torch.equal(kind(0.0).sample(x), x)
    assert torch.equal(kind(0.0).project(x + 1, x), x)


@pytest.mark.parametrize("kind", [Linf, L2])
@pytest.mark.parametrize("eps", [-0.1, float("nan"), float("inf")])
def test_impossible_radii_are_refused(kind: type[Ball], eps: float) -> None:
    with pytest.raises(ValueError, match=r"^eps must be a finite radius >= 0 in pixels of \[0, 1\], got .*$"):
        kind(eps)


def test_balls_are_values() -> None:
    assert Linf(0.1) == Linf(0.1) != L2(0.1)
    assert len({Linf(0.1), Linf(0.1), L2(0.1), Linf(0.2)}) == 3
    with pytest.raises(FrozenInstanceError):
        Linf(0.1).eps = 0.2  # type: ignore[misc]


@pytest.mark.parametrize(
    ("value", "text"),
    [(8 / 255, "8/255"), (0.5 / 255, "0.5/255"), (1.0, "1"), (0.2, "0.2"), (0.0, "0"), (0.031, "0.031")],
)
def test_radii_are_written_as_people_write_them(value: float, text: str) -> None:
    assert pixels(value) == text
