"""Balls: nearest points, steepest directions, uniform draws."""

import math
from dataclasses import FrozenInstanceError

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from attacks import L2, PGD, Ball, Linf, Margin, pixels
from attacks.balls import L1
from defenses import Stream, drawing_from
from tests.attacks.toys import Linear

BALLS = [Linf(8 / 255), Linf(0.5), L2(0.3), L2(4.0), L1(0.3), L1(4.0)]
ORDER = {Linf: float("inf"), L2: 2.0, L1: 1.0}
every_ball = pytest.mark.parametrize("ball", BALLS, ids=str)


def distance(ball: Ball, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.linalg.vector_norm((a - b).flatten(1), ord=ORDER[type(ball)], dim=1)


def farthest(gradient: torch.Tensor, x: torch.Tensor, eps: float) -> torch.Tensor:
    """The largest gradient . (x_adv - x) [B] in an L1 ball and [0, 1]: large gradients first, up to the border."""
    slope = gradient.flatten(1)
    room = torch.where(slope > 0, 1 - x.flatten(1), x.flatten(1))
    slope, order = slope.abs().sort(1, descending=True)
    spent = room.gather(1, order).cumsum(1).clamp_max(eps)
    return (slope * spent.diff(dim=1, prepend=torch.zeros_like(spent[:, :1]))).sum(1)


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from([Linf, L2, L1]),
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


@pytest.mark.parametrize("kind", [Linf, L2, L1])
def test_each_image_may_have_a_radius_of_its_own(kind: type[Ball]) -> None:
    """As if it were projected and drawn into the ball of that radius alone, with the same noise."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(4, 2, 4, 4, generator=generator)
    far = x + torch.randn(x.shape, generator=generator)
    radii = [0.001, 0.03, 0.4, 1.0]
    radius = torch.tensor(radii).view(-1, 1, 1, 1)

    def drawn(ball: Ball, radius: torch.Tensor | None = None) -> torch.Tensor:
        with drawing_from(Stream(0)):
            return ball.sample(x, radius)

    projected, sampled = kind(0.2).project(far, x, radius), drawn(kind(0.2), radius)
    for row, eps in enumerate(radii):
        torch.testing.assert_close(projected[row], kind(eps).project(far, x)[row])
        torch.testing.assert_close(sampled[row], drawn(kind(eps))[row])


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


@pytest.mark.parametrize("ball", [Linf(), L2(), L1(), L1(density=1.0)], ids=repr)
def test_a_zero_gradient_leads_nowhere_and_its_neighbour_is_unharmed(ball: Ball) -> None:
    gradient = torch.randn(2, 3, 4, 4)
    gradient[0] = 0
    direction = ball.ascent(gradient)
    assert torch.equal(direction[0], torch.zeros(3, 4, 4))
    assert torch.equal(direction[1:], ball.ascent(gradient[1:]))


@pytest.mark.parametrize("ball", [Linf(), L2(), L1()], ids=repr)
def test_ascent_is_the_steepest_direction_of_length_1(ball: Ball) -> None:
    gradient = torch.randn(5, 2, 3, 3, dtype=torch.float64)
    direction = ball.ascent(gradient)
    torch.testing.assert_close(distance(ball, direction, torch.zeros_like(direction)), torch.ones(5).double())
    # Hoelder: no direction of length 1 climbs faster than the dual norm of the gradient.
    dual = gradient.flatten(1).norm(p={Linf: 1.0, L2: 2.0, L1: float("inf")}[type(ball)], dim=1)
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


def test_l1_samples_are_uniform_in_the_ball() -> None:
    n, eps = 8, 0.4
    x = torch.full((20_000, 2, 2, 2), 0.5, dtype=torch.float64)
    with drawing_from(Stream(1)):
        offsets = (L1(eps).sample(x) - x).flatten(1) / eps
    radius = offsets.abs().sum(1)
    assert radius.max() <= 1 + 1e-12
    # Error probability 1e-6 each: sizes are uniform on a simplex, so each share of their sum is Beta(1, n - 1).
    assert stats.kstest((radius**n).numpy(), "uniform").pvalue > 1e-6
    for component in (offsets.abs() / radius[:, None]).T:
        assert stats.kstest(component.numpy(), "beta", args=(1, n - 1)).pvalue > 1e-6
    assert (offsets.mean(0).abs() < 5 * offsets.std(0) / len(offsets) ** 0.5).all()


@settings(max_examples=60, deadline=None)
@given(
    eps=st.floats(0, 30),
    spread=st.floats(0, 5),
    border=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    seed=st.integers(0, 2**31),
)
def test_the_l1_projection_is_the_nearest_point_of_ball_and_cube(
    eps: float, spread: float, border: bool, dtype: torch.dtype, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(4, 3, 4, 4, generator=generator, dtype=dtype)
    x = x.round() if border else x
    far = x + spread * torch.randn(x.shape, generator=generator, dtype=dtype)
    nearest = L1(eps).project(far, x)
    assert 0 <= nearest.min() <= nearest.max() <= 1
    x, far, nearest = x.double(), far.double(), nearest.double()
    # Rounding, too, stays inside: by the exact sum of the differences.
    for row in (nearest - x).flatten(1).abs():
        assert math.fsum(row.tolist()) <= eps * (1 + 1e-12) + 1e-14
    # Of a convex set the nearest point is the one from which none lies farther in the missing direction.
    missing = far - nearest
    gained = (missing * (nearest - x)).flatten(1).sum(1)
    exact = 1e-5 if dtype == torch.float32 else 1e-12
    assert (farthest(missing, x, eps) <= gained + exact * (1 + spread * eps)).all()


def test_l1_differences_are_shortened_by_the_same_amount() -> None:
    x = torch.tensor([0.5, 0.5, 0.9, 0.5]).view(1, 1, 1, 4)
    far = torch.tensor([0.8, 0.4, 2.0, 0.45]).view(1, 1, 1, 4)
    # 0.3, 0.1, 1.1 (room for 0.1) and 0.05: cut by 0.15, 0.15 + 0 + 0.1 + 0 is left.
    expected = torch.tensor([0.65, 0.5, 1.0, 0.5]).view(1, 1, 1, 4)
    torch.testing.assert_close(L1(0.25).project(far, x), expected)


@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e-37])
@pytest.mark.parametrize("density", [0.01, 0.25, 1.0])
def test_l1_ascent_takes_the_largest_share(scale: float, density: float) -> None:
    gradient = torch.randn(4, 3, 4, 4)
    direction = L1(density=density).ascent(gradient * scale)
    moved = max(1, round(48 * density))
    assert (direction != 0).sum((1, 2, 3)).tolist() == [moved] * 4
    torch.testing.assert_close(direction.abs().sum((1, 2, 3)), torch.ones(4))
    kept = gradient * (gradient.abs() >= gradient.abs().flatten(1).topk(moved).values[:, -1].view(-1, 1, 1, 1))
    torch.testing.assert_close(direction, kept / kept.abs().sum((1, 2, 3), keepdim=True))


def test_pixels_that_cannot_move_do_not_swallow_an_l1_step() -> None:
    gradient = torch.tensor([5.0, -4.0, 3.0, 2.0, -1.0]).view(1, 1, 1, 5)
    x_adv = torch.tensor([1.0, 0.0, 0.0, 0.5, 0.5]).view(1, 1, 1, 5)
    ball = L1(1.0, density=0.4)  # two pixels
    assert (ball.ascent(gradient) != 0).flatten().tolist() == [True, True, False, False, False]
    direction = ball.ascent(gradient, x_adv)
    # Two that can move share the step; two that cannot are held where they are.
    torch.testing.assert_close(direction.flatten(), torch.tensor([1.0, -0.8, 0.6, 0.4, 0.0]))
    assert torch.equal(ball.ascent(gradient[..., :2], x_adv[..., :2]), torch.zeros(1, 1, 1, 2))


@pytest.mark.parametrize("border", [False, True])
@pytest.mark.parametrize(("density", "steps", "share"), [(0.01, 40, 1 - 1e-9), (0.2, 400, 0.99), (1.0, 400, 0.97)])
@pytest.mark.parametrize("random_start", [False, True])
def test_pgd_reaches_the_worst_l1_loss_of_a_linear_model(
    border: bool, density: float, steps: int, share: float, random_start: bool
) -> None:
    model, x = Linear(2, (1, 5, 5)), torch.rand(6, 1, 5, 5, dtype=torch.float64)
    x = x.round() if border else x
    y, eps = model(x).argmax(1), 3.3
    x_adv = PGD(L1(eps, density), eps / 10, steps, random_start, loss=Margin())(model, x, y)
    slope = (model.w[1 - y] - model.w[y]).detach()
    reached, best = ((x_adv - x) * slope).sum((1, 2, 3)), farthest(slope, x, eps)
    assert (reached <= best * (1 + 1e-9)).all()
    assert (reached >= best * share).all()


@pytest.mark.parametrize("density", [0.0, -0.1, 1.1, float("nan")])
def test_impossible_densities_are_refused(density: float) -> None:
    with pytest.raises(ValueError, match=r"^density must be a share of the pixels in \(0, 1\], got .*$"):
        L1(1.0, density)


@every_ball
def test_the_norm_is_that_of_the_ball(ball: Ball) -> None:
    delta = torch.randn(3, 2, 4, 4).contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(ball.norm(delta), distance(ball, delta, torch.zeros_like(delta)))


@every_ball
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_points_are_like_the_images(ball: Ball, dtype: torch.dtype) -> None:
    x = torch.rand(2, 3, 4, 5, dtype=dtype).contiguous(memory_format=torch.channels_last)
    for point in (ball.sample(x), ball.project(x + 1, x), ball.ascent(x), ball.ascent(x, x)):
        assert (point.shape, point.dtype, point.stride()) == (x.shape, dtype, x.stride())


@pytest.mark.parametrize("kind", [Linf, L2, L1])
def test_radius_0_allows_the_image_only(kind: type[Ball]) -> None:
    x = torch.rand(2, 3, 4, 4)
    assert torch.equal(kind(0.0).sample(x), x)
    assert torch.equal(kind(0.0).project(x + 1, x), x)


@pytest.mark.parametrize("kind", [Linf, L2, L1])
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
