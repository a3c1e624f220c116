"""Square attack where the best answer is known, and what each of its queries must do."""

import dataclasses

import pytest
import torch
from torch import Tensor

from attacks import EOT, L2, PGD, Ball, CrossEntropy, Goal, Linf, Margin
from attacks.square import Square, _bump, _square
from defenses import Stream, drawing_from
from tests.attacks.toys import Linear, NoisyLinear, distance, images

every_ball = pytest.mark.parametrize("ball", [Linf(0.05), L2(0.4)])


def worst_margin(model: Linear, x: Tensor, y: Tensor, ball: Ball) -> Tensor:
    """The largest margin in the ball, where [0, 1] does not matter."""
    z, w = model(x).detach(), model.w.detach().flatten(1)
    slopes = torch.linalg.vector_norm(w - w[y].unsqueeze(1), ord=1 if isinstance(ball, Linf) else 2, dim=2)
    best = z - z.gather(1, y.unsqueeze(1)) + ball.eps * slopes
    return best.scatter(1, y.unsqueeze(1), float("-inf")).amax(1)


def test_it_reaches_the_worst_loss_of_a_linear_model() -> None:
    model, x = Linear(3, (3, 8, 8)), images(4, (3, 8, 8))
    y = model(x).argmax(1)
    with drawing_from(Stream(0)):
        trace = Square(Linf(0.05), queries=2000).run(model, x, y)
    worst = worst_margin(model, x, y, Linf(0.05))
    assert (trace.loss[-1] <= worst + 1e-9).all()
    assert (trace.loss[-1] >= 0.98 * worst).all()


def test_in_l2_it_comes_near_the_worst_loss_where_bumps_can() -> None:
    """Weights that are a bump: bumps of one scale suffice."""
    model = Linear(2, (1, 9, 9))
    with torch.no_grad():
        model.w[0] = _bump(9, model.w)
        model.w[1] = -model.w[0]
        model.b.zero_()
    x = images(4, (1, 9, 9))
    y, ball = model(x).argmax(1), L2(0.4)
    with drawing_from(Stream(0)):
        trace = Square(ball, queries=1000).run(model, x, y)
    worst = worst_margin(model, x, y, ball)
    assert (trace.loss[-1] <= worst + 1e-9).all()
    start = Margin()(model(x), Goal(y)).detach()
    assert ((trace.loss[-1] - start) >= 0.75 * (worst - start)).all()


@every_ball
def test_the_loss_only_grows_and_is_that_of_the_result(ball: Ball) -> None:
    model, x = Linear(4, (3, 8, 8)), images(4, (3, 8, 8))
    y = model(x).argmax(1)
    trace = Square(ball, queries=200).run(model, x, y)
    assert trace.loss.shape == (200, 4)
    assert (trace.loss.diff(dim=0) >= 0).all()
    assert (trace.loss[-1] > trace.loss[0]).all()
    torch.testing.assert_close(trace.loss[-1], Margin()(model(trace.x_adv), Goal(y)).detach())
    assert trace.queries.tolist() == [200] * 4
    norm = distance(trace.x_adv, x, type(ball).__name__)
    torch.testing.assert_close(norm, torch.full_like(norm, ball.eps))  # the budget is used up


@every_ball
@pytest.mark.parametrize("shape", [(3, 1, 1), (1, 2, 5), (2, 3, 3), (3, 16, 9)])
@pytest.mark.parametrize("border", [False, True])
def test_images_of_any_shape_stay_in_the_ball(ball: Ball, shape: tuple[int, int, int], border: bool) -> None:
    x = torch.rand(3, *shape)
    x = x.round() if border else x
    y = torch.zeros(3, dtype=torch.long)
    x_adv = Square(ball, queries=60)(Linear(3, shape, dtype=torch.float32), x, y)
    assert 0 <= x_adv.min() <= x_adv.max() <= 1
    torch.testing.assert_close(x_adv, ball.project(x_adv, x), rtol=1e-5, atol=1e-6)
    assert border or (x_adv != x).flatten(1).any(1).all()


def test_no_query_asks_about_the_image_that_stands() -> None:
    model, x = Linear(2, (1, 4, 4)), images(1, (1, 4, 4)).round()
    asked: list[Tensor] = []

    def listening(batch: Tensor) -> Tensor:
        asked.append(batch.clone())
        return model(batch)

    trace = Square(Linf(0.1), queries=100).run(listening, x, model(x).argmax(1))
    stands = asked[0]
    for step, proposal in enumerate(asked[1:], 1):
        assert (proposal != stands).any()
        if trace.loss[step] > trace.loss[step - 1]:
            stands = proposal


@pytest.mark.parametrize("ball", [Linf(0.02), L2(0.3)])
def test_images_that_left_change_nothing_for_the_others(ball: Ball) -> None:
    model, x = Linear(3, (3, 8, 8)), images(8, (3, 8, 8))
    y = model(x).argmax(1)
    y[0] = (y[0] + 1) % 3  # leaves at once
    attack, traces = Square(ball, queries=50), []
    for first_success in (False, True):
        with drawing_from(Stream(1)):
            traces.append(attack.run(model, x, y, first_success=first_success))
    slow = traces[1].queries == 50
    broken = (model(traces[1].x_adv).argmax(1) != y) & ~slow
    assert 0 < slow.sum() < 8
    assert (broken | slow).all()
    torch.testing.assert_close(traces[1].x_adv[slow], traces[0].x_adv[slow])
    left = traces[1].queries
    for row in range(8):
        torch.testing.assert_close(traces[1].loss[: left[row], row], traces[0].loss[: left[row], row])
        assert traces[1].loss[left[row] :, row].isnan().all()


def test_a_target_is_reached() -> None:
    model, x = Linear(4, (3, 8, 8)), images(4, (3, 8, 8))
    y = model(x).argmax(1)
    x_adv = Square(Linf(0.1), queries=1000)(model, x, y, (y + 1) % 4)
    assert torch.equal(model(x_adv).argmax(1), (y + 1) % 4)


@pytest.mark.parametrize("draws", [1, 4])
def test_a_random_model_is_searched_within_the_budget(draws: int) -> None:
    linear, x = Linear(3, (3, 8, 8)), images(6, (3, 8, 8))
    y, noisy = linear(x).argmax(1), NoisyLinear(linear, 0.01)
    with drawing_from(Stream(2)):
        trace = Square(Linf(0.05), queries=600).run(EOT(noisy, draws), x, y, first_success=True)
    assert trace.queries.tolist() == [600 * draws] * 6  # nobody left early, nobody asked more
    assert (Margin()(linear(trace.x_adv), Goal(y)) > 0.4 * worst_margin(linear, x, y, Linf(0.05))).all()


def test_luck_does_not_stand_in_the_way() -> None:
    """With one answer about each proposal, the luckiest stands; races find more for the same queries."""
    linear, x = Linear(3, (3, 8, 8)), images(16, (3, 8, 8))
    y, found = linear(x).argmax(1), []
    for confirmed in (1, 5):
        with drawing_from(Stream(0)):
            attack = Square(Linf(0.05), 1000, confirmed=confirmed)
            found.append(Margin()(linear(attack(NoisyLinear(linear, 0.02), x, y)), Goal(y)).mean())
    assert found[1] > 1.2 * found[0]


def test_a_start_without_confirmation_is_better_than_none() -> None:
    linear, x = Linear(3, (3, 8, 8)), images(6, (3, 8, 8))
    x_adv = Square(Linf(0.05), queries=2)(NoisyLinear(linear, 0.02), x, linear(x).argmax(1))
    assert (x_adv != x).flatten(1).any(1).all()


def test_it_is_as_strong_as_pgd_on_a_smooth_model() -> None:
    class Smooth(Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(torch.tanh(4 * (x - 0.5)))

    model, x = Smooth(3, (3, 8, 8)), images(6, (3, 8, 8))
    y, ball = model(x).argmax(1), Linf(0.03)
    losses = []
    for attack in (Square(ball, 1500), PGD(ball, 0.01, 20, loss=Margin())):
        with drawing_from(Stream(0)):
            losses.append(Margin()(model(attack(model, x, y)), Goal(y)).detach())
    torch.testing.assert_close(losses[0], losses[1], rtol=0.03, atol=0)


@pytest.mark.parametrize("side", [1, 2, 3, 6, 7])
def test_bumps_have_norm_1_and_squares_lie_inside(side: int) -> None:
    bump = _bump(side, torch.zeros((), dtype=torch.float64))
    assert bump.shape == (side, side)
    assert abs(bump.norm() - 1) < 1e-12
    if side > 1:
        assert bump[: side // 2].min() > 0 > bump[side // 2 :].max()
    mask, down, across = _square(torch.zeros(500, 3, 9, 7), side)
    assert mask.sum((1, 2, 3)).unique().tolist() == [side**2]
    assert mask.any(0).all()  # every place is hit by some
    assert {down.amax().item(), across.amax().item()} == {side - 1}


def test_without_queries_or_radius_the_image_is_returned() -> None:
    model, x = Linear(), images()
    y = model(x).argmax(1)
    for attack in (Square(queries=0), Square(Linf(0.0), 5), Square(L2(0.0), 5)):
        assert torch.equal(attack(model, x, y), x)


def test_settings_are_checked_and_printed() -> None:
    for wrong in ({"queries": -1}, {"p_init": 0.0}, {"p_init": 1.5}):
        with pytest.raises(ValueError, match=r"^Square takes queries >= 0 and p_init in \(0, 1\], got"):
            dataclasses.replace(Square(), **wrong)
    assert str(Square(L2(0.5), 100)) == "Square-100 (L2, eps 0.5)"
    assert Square(loss=CrossEntropy()) != Square()
