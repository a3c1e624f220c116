"""FMN where the nearest boundary point is known in every norm, and its projections against what defines them."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from attacks import Adversary
from attacks.fmn import FMN, projected
from defenses import Stream, drawing_from
from tests.attacks.toys import Linear, NoisyLinear, distance, images


def foot(model: Linear, x: Tensor, y: Tensor, answer: Tensor, order: float) -> Tensor:
    """[B], distance to the boundary between label and answer alone; `order` is that of the dual norm."""
    rows, z, w = torch.arange(len(x)), model(x).detach(), model.w.detach().flatten(1)
    return (z[rows, y] - z[rows, answer]) / torch.linalg.vector_norm(w[y] - w[answer], ord=order, dim=1)


every_norm = pytest.mark.parametrize("norm", ["L2", "Linf", "L1"])


@every_norm
def test_it_finds_the_nearest_boundary_of_a_linear_model(norm: str) -> None:
    model, x = Linear(2), images(8)
    y = model(x).argmax(1)
    x_adv = FMN(norm, steps=200)(model, x, y)  # type: ignore[arg-type]
    assert (model(x_adv).argmax(1) != y).all()
    torch.testing.assert_close(distance(x_adv, x, norm), model.nearest(x, y, norm), rtol=0.02, atol=0)


@pytest.mark.parametrize(("norm", "dual"), [("L2", 2.0), ("Linf", 1.0), ("L1", float("inf"))])
def test_among_many_classes_it_ends_at_the_foot_of_a_boundary(norm: str, dual: float) -> None:
    """Which one is another matter: every foot is a local minimum."""
    model, x = Linear(5), images(16)
    y = model(x).argmax(1)
    x_adv = FMN(norm, steps=200)(model, x, y)  # type: ignore[arg-type]
    answer = model(x_adv).argmax(1)
    assert (answer != y).all()
    torch.testing.assert_close(distance(x_adv, x, norm), foot(model, x, y, answer, dual), rtol=0.02, atol=0)


@every_norm
def test_a_target_is_reached_at_the_nearest_point(norm: str) -> None:
    model, x = Linear(2), images(8)
    y = model(x).argmax(1)
    x_adv = FMN(norm, steps=200)(model, x, y, target=1 - y)  # type: ignore[arg-type]
    assert (model(x_adv).argmax(1) == 1 - y).all()
    torch.testing.assert_close(distance(x_adv, x, norm), model.nearest(x, y, norm), rtol=0.02, atol=0)


@every_norm
def test_images_that_are_wrong_already_leave_and_nobody_notices(norm: str) -> None:
    model, x = Linear(3), images(6)
    y = model(x).argmax(1)
    some = y.clone()
    some[::2] = (some[::2] + 1) % 3
    attack = FMN(norm, steps=30)  # type: ignore[arg-type]
    whole, part = attack.run(model, x, y), attack.run(model, x, some)
    assert torch.equal(part.x_adv[::2], x[::2])
    assert part.queries.tolist() == [1, 31] * 3
    torch.testing.assert_close(whole.x_adv[1::2], part.x_adv[1::2], rtol=0, atol=1e-12)


def test_where_the_mean_margin_is_wrong_at_first_it_goes_on() -> None:
    """Three of eight draws are wrong by far, anywhere: the mean says that the boundary is behind, the votes deny it."""
    linear, x = Linear(2), images(16)
    x = x[linear(x).argmax(1) == 0]
    y, far = torch.zeros(len(x), dtype=torch.long), torch.tensor([0.0, 50.0])
    x_adv = FMN(steps=200)(lambda z: torch.stack([linear(z) + far] * 3 + [linear(z)] * 5), x, y)
    torch.testing.assert_close(distance(x_adv, x, "L2"), linear.nearest(x, y, "L2"), rtol=0.02, atol=0)


def test_without_steps_the_images_come_back() -> None:
    x = images(3)
    assert torch.equal(FMN(steps=0)(Linear(), x, torch.zeros(3, dtype=torch.long)), x)


@pytest.mark.parametrize("norm", ["L2", "Linf"])
def test_a_random_model_errs_mostly_on_fresh_draws(norm: str) -> None:
    linear, x = Linear(3), images(24)
    noisy, y = NoisyLinear(linear, 0.02), linear(x).argmax(1)
    with drawing_from(Stream(1)):
        x_adv = Adversary(FMN(norm), draws=16)(noisy, x, y)  # type: ignore[arg-type]
        wrong = torch.stack([noisy(x_adv).argmax(1) != y for _ in range(200)]).double().mean(0)
    assert (wrong > 0.5).double().mean() >= 0.9


@every_norm
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), eps=st.floats(0, 3))
def test_a_projection_is_the_nearest_point_of_the_ball(norm: str, seed: int, eps: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    delta = torch.randn(3, 2, 3, 3, generator=generator, dtype=torch.float64)
    radius = torch.tensor([eps, 1e3, float("inf")], dtype=torch.float64)
    zero = torch.zeros_like(delta)
    nearest = projected(delta, radius, norm)
    assert torch.equal(nearest[1:], delta[1:])
    assert distance(nearest, zero, norm)[0] <= eps * (1 + 1e-9) + 1e-12
    # The way on to `delta` leads towards no other point of the ball: the angle that defines a projection.
    for _ in range(20):
        other = projected(torch.randn(3, 2, 3, 3, generator=generator, dtype=torch.float64), radius, norm)
        assert ((delta - nearest) * (other - nearest))[0].sum() <= 1e-9


@pytest.mark.parametrize("arguments", [{"norm": "L0"}, {"steps": -1}, {"alpha": 0.0}, {"gamma": 1.0}, {"gamma": 1e-4}])
def test_impossible_settings_are_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"^FMN takes "):
        FMN(**arguments)  # type: ignore[arg-type]


def test_settings_print() -> None:
    assert str(FMN("L1", 50)) == "FMN-50 (L1, alpha 1, gamma 0.05)"
