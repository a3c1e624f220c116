"""FGSM and its growing version where the answer is known."""

import pytest
import torch
from torch import Tensor

from attacks import EOT, L2, PGD, Ball, Goal, Linf, Margin
from attacks.balls import L1
from attacks.fgsm import FGSM, GrowingFGSM
from defenses import Stream, drawing_from
from tests.attacks.toys import Linear, NoisyLinear, distance, images


def batch(classes: int = 2, size: int = 6) -> tuple[Linear, Tensor, Tensor]:
    model, x = Linear(classes, (2, 5, 5)), images(size, (2, 5, 5))
    return model, x, model(x).argmax(1)


@pytest.mark.parametrize("ball", [Linf(0.03), L2(0.2), L1(0.1)])
def test_fgsm_is_the_worst_image_for_a_linear_model(ball: Ball) -> None:
    model, x, y = batch()
    away = (model.w[1 - y] - model.w[y]).detach()
    x_adv = FGSM(ball)(model, x, y)
    torch.testing.assert_close(x_adv, x + ball.eps * ball.ascent(away))


def test_fgsm_asks_once_and_goes_towards_a_target() -> None:
    model, x, y = batch(5)
    target = (y + 1) % 5
    trace = FGSM(Linf(0.02), Margin()).run(model, x, y, target)
    assert trace.queries.tolist() == [1] * 6
    torch.testing.assert_close(trace.loss[0], Margin().per_draw(model(x), Goal(y, target)).detach())
    assert (Margin()(model(trace.x_adv), Goal(y, target)) > trace.loss[0]).all()
    assert torch.equal(FGSM(Linf(0.0))(model, x, y), x)


def test_fgsm_at_the_border_of_the_cube() -> None:
    model, x, y = batch()
    x = x.round()
    expected = (x + 0.1 * (model.w[1 - y] - model.w[y]).sign()).clamp(0, 1)
    assert torch.equal(FGSM(Linf(0.1))(model, x, y), expected)


def test_growing_finds_the_nearest_boundary() -> None:
    model, x, y = batch()
    x_adv = GrowingFGSM()(model, x, y)
    assert (model(x_adv).argmax(1) != y).all()
    nearest, found = model.nearest(x, y, "Linf"), distance(x_adv, x, "Linf")
    # A part of a step more at most: 0.001 / 20.
    assert (found >= nearest).all()
    assert (found <= nearest + 0.001 / 20 + 1e-9).all()


@pytest.mark.parametrize(("steps", "refine"), [(7, 1), (7, 3), (25, 20), (1, 20)])
def test_growing_tries_what_it_says_and_counts_it(steps: int, refine: int) -> None:
    """One logit that falls at 0.3: the first success is known exactly, and so are all queries."""

    def step_at(images: Tensor) -> Tensor:
        z = 0.301 - images.flatten(1).mean(1)
        return torch.stack([z, -z], 1)

    x, y = torch.zeros(2, 1, 2, 2, dtype=torch.float64), torch.tensor([0, 1])
    trace = GrowingFGSM(1.0, steps, refine).run(step_at, x, y)
    first = -(-301 * steps // 1000)  # ceil(0.301 steps)
    part = 1 / steps / refine
    parts = next(k for k in range(1, refine + 1) if (first - 1) / steps + k * part > 0.301)
    torch.testing.assert_close(trace.x_adv[0].amax().item(), (first - 1) / steps + parts * part)
    asked = min(steps, -(-first // 10) * 10)
    again = min(refine - 1, -(-parts // 10) * 10)
    assert trace.queries.tolist() == [1 + asked + again, 1]
    assert torch.equal(trace.x_adv[1], x[1])  # wrong already


def test_growing_gives_up_at_the_largest_radius() -> None:
    model, x, y = batch()
    near = model.nearest(x, y, "Linf").median().item() * 1.01
    trace = GrowingFGSM(near, 37).run(model, x, y)
    kept = (trace.x_adv == x).flatten(1).all(1)
    assert torch.equal(kept, model.nearest(x, y, "Linf") > near)
    assert 0 < kept.sum() < 6
    assert (trace.queries[kept] == 38).all()
    assert distance(trace.x_adv, x, "Linf").max() <= near
    assert torch.equal(GrowingFGSM(0.0)(model, x, y), x)
    assert torch.equal(GrowingFGSM(steps=0)(model, x, y), x)


def test_one_success_is_enough_where_the_caller_says_so() -> None:
    model, x, y = batch()
    full, first = (GrowingFGSM().run(model, x, y, first_success=first) for first in (False, True))
    assert (model(first.x_adv).argmax(1) != y).all()
    assert (first.queries < full.queries).all()


def test_growing_goes_towards_a_target() -> None:
    model, x, y = batch(4)
    target = (y + 1) % 4
    x_adv = GrowingFGSM(loss=Margin())(model, x, y, target)
    reached = model(x_adv).argmax(1) == target
    assert reached.any()
    assert torch.equal(x_adv[~reached], x[~reached])


def test_no_pass_is_larger_than_the_batch() -> None:
    model, x, y = batch(size=5)
    sizes: list[int] = []

    def listening(images: Tensor) -> Tensor:
        sizes.append(len(images))
        return model(images)

    GrowingFGSM()(listening, x, y)
    assert max(sizes) == 5


def test_growing_on_draws_needs_them_all() -> None:
    linear, x, y = batch()
    with drawing_from(Stream(0)):
        trace = GrowingFGSM().run(EOT(NoisyLinear(linear, 0.02), 4), x, y)
    assert (trace.queries % 4 == 0).all()
    sure = distance(trace.x_adv, x, "Linf")
    assert (sure > GrowingFGSM().run(linear, x, y).x_adv.sub(x).abs().amax((1, 2, 3)) * 0.9).all()


def test_growing_is_never_farther_than_where_pgd_needs_one_step() -> None:
    """The same direction: where FGSM succeeds with eps, the growing one needs no more."""
    model, x, y = batch(3)
    grown = distance(GrowingFGSM()(model, x, y), x, "Linf")
    for eps in (0.01, 0.02, 0.05):
        broken = model(PGD(Linf(eps), eps, 1, random_start=False)(model, x, y)).argmax(1) != y
        assert (grown[broken] <= eps + 1e-9).all()


@pytest.mark.parametrize("arguments", [{"max_eps": -0.1}, {"max_eps": 1.5}, {"steps": -1}, {"refine": 0}])
def test_impossible_settings_are_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"^(max_eps must be|GrowingFGSM takes) .*, got .*$"):
        GrowingFGSM(**arguments)  # type: ignore[arg-type]


def test_settings_print() -> None:
    assert str(FGSM(Linf(8 / 255))) == "FGSM (Linf, eps 8/255)"
    assert str(GrowingFGSM()) == "GrowingFGSM (1000 eps up to 1, refined by 20)"
