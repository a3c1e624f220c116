"""BIM, and the smallest ball in which an attack succeeds, on linear models."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from attacks import EOT, L2, PGD, Adversary, Attack, Ball, Goal, Linf, Margin
from attacks.balls import L1
from attacks.bim import BIM, SmallestBall
from attacks.fgsm import FGSM
from attacks.shown import Shown
from defenses import Stream, drawing_from
from tests.attacks.toys import Linear, NoisyLinear, distance, images

every_ball = pytest.mark.parametrize("ball", [Linf(0.1), L2(0.5), L1(0.2)])


def batch(classes: int = 2, size: int = 6, shape: tuple[int, int, int] = (2, 5, 5)) -> tuple[Linear, Tensor, Tensor]:
    model, x = Linear(classes, shape), images(size, shape)
    return model, x, model(x).argmax(1)


@every_ball
def test_bim_reaches_the_worst_image_of_a_linear_model(ball: Ball) -> None:
    model, x, y = batch()
    away = (model.w[1 - y] - model.w[y]).detach()
    trace = BIM(ball, ball.eps / 4, 6).run(model, x, y)
    torch.testing.assert_close(trace.x_adv, x + ball.eps * ball.ascent(away))
    assert trace.queries.tolist() == [6] * 6


def test_bim_is_pgd_from_the_image_itself() -> None:
    model, x, y = batch(5)
    expected = PGD(Linf(0.05), 0.01, 4, random_start=False).run(model, x, y)
    trace = BIM(Linf(0.05), 0.01, 4).run(model, x, y)
    assert torch.equal(trace.x_adv, expected.x_adv)
    assert torch.equal(trace.loss, expected.loss)
    assert torch.equal(BIM(steps=0)(model, x, y), x)


@every_ball
@pytest.mark.parametrize("start", [0.01, 1.0, 30.0])
def test_the_smallest_ball_reaches_to_the_boundary(ball: Ball, start: float) -> None:
    """Whether the search begins inside or far outside."""
    model, x, y = batch()
    # Small margins: L1 perturbations are one pixel then, which the box does not stop.
    name = type(ball).__name__
    nearest = model.nearest(x, y, name)
    x, y = x[nearest < 0.3], y[nearest < 0.3]
    assert len(x) > 2
    eps = min(ball.eps * start, 1.0)
    attack = SmallestBall(BIM(type(ball)(eps), eps / 8, 10))
    x_adv = attack(model, x, y)
    assert (model(x_adv).argmax(1) != y).all()
    found = distance(x_adv, x, name)
    assert (found >= model.nearest(x, y, name) * (1 - 1e-9)).all()
    assert (found <= model.nearest(x, y, name) * 1.02).all()


def test_in_l1_the_box_is_reckoned_with() -> None:
    """Pixels at the border cannot move: the nearest image moves the best that can, up to the border."""
    model, x, y = batch()
    x = x.round()
    y = model(x).argmax(1)
    x_adv = SmallestBall(BIM(L1(1.0), 0.15, 30), tolerance=0.005)(model, x, y)
    slope = (model.w[1 - y] - model.w[y]).detach().flatten(1)
    room = torch.where(slope > 0, 1 - x.flatten(1), x.flatten(1))
    slope, order = slope.abs().sort(1, descending=True)
    room = room.gather(1, order)
    needed = -Margin()(model(x), Goal(y)).detach()
    # Fill the pixels one after the other until the margin is used up.
    left = (needed[:, None] - (slope * room).cumsum(1) + slope * room).clamp_min(0)
    nearest = torch.minimum(room, left / slope).sum(1)
    assert (model(x_adv).argmax(1) != y).all()
    found = distance(x_adv, x, "L1")
    assert (found >= nearest * (1 - 1e-9)).all()
    assert (found <= nearest * 1.02).all()


@pytest.mark.parametrize("attack", [PGD(Linf(0.3), 0.04, 10, loss=Margin()), FGSM(Linf(0.2)), BIM(L2(1.0), 0.3, 5)])
def test_any_attack_with_a_ball_will_do(attack: Attack) -> None:
    model, x, y = batch()
    name = type(attack.ball).__name__  # type: ignore[attr-defined]
    with drawing_from(Stream(0)):
        x_adv = SmallestBall(attack)(model, x, y)
    assert (model(x_adv).argmax(1) != y).all()
    # A random start of PGD with 1.33 eps of steps cannot always reach the worst corner; the rest is exact.
    worst = 1.2 if isinstance(attack, PGD) else 1.02
    assert (distance(x_adv, x, name) <= worst * model.nearest(x, y, name)).all()


def test_images_that_cannot_be_broken_or_are_already_come_back() -> None:
    model, x, y = batch()
    y[0] = 1 - y[0]
    trace = SmallestBall(BIM(Linf(1e-5), 1e-5, 3), growths=4).run(model, x, y)
    assert torch.equal(trace.x_adv, x)
    # The image itself, then five radii of three steps and a look at the end.
    assert trace.queries.tolist() == [1] + [1 + 5 * 4] * 5
    constant = SmallestBall(BIM(Linf(0.5), 0.2, 2)).run(
        lambda images: images.flatten(1)[:, :2] * 0 + y[:1] * 0.0, x, y * 0
    )
    assert torch.equal(constant.x_adv, x)
    for attack in (BIM(Linf(0.0)), BIM(steps=0)):
        assert torch.equal(SmallestBall(attack)(model, x, y), x)


def test_the_radius_does_not_grow_beyond_black_and_white() -> None:
    model, x, y = batch()
    for ball in (Linf(0.9), L2(7.0), L1(40.0)):
        trace = SmallestBall(BIM(ball, 0.1, 0)).run(model, x, y)
        assert trace.queries.tolist() == [1 + 2] * 6  # the first radius, the largest, nothing more


def test_a_search_ends_when_it_is_precise_enough() -> None:
    model, x, y = batch()
    coarse, fine = (SmallestBall(BIM(Linf(0.3), 0.05, 8), tolerance=t).run(model, x, y) for t in (0.1, 0.0))
    assert (coarse.queries < fine.queries).all()
    nearest = model.nearest(x, y, "Linf")
    assert (distance(coarse.x_adv, x, "Linf") <= nearest / 0.9).all()
    # A ten-thousandth is the margin by which images are kept away from rounding.
    assert (distance(fine.x_adv, x, "Linf") <= nearest * 1.0001 * (1 + 1e-5)).all()
    once = SmallestBall(BIM(Linf(0.3), 0.05, 8)).run(model, x, y, first_success=True)
    assert (model(once.x_adv).argmax(1) != y).all()
    assert (once.queries < coarse.queries).all()


@pytest.mark.parametrize("ball", [Linf(0.1), L2(0.5)])
def test_what_is_broken_in_a_batch_is_broken_alone(ball: Ball) -> None:
    """Also where the search goes on until rounding decides."""
    model, x = Linear(3, (2, 5, 5), dtype=torch.float32), images(300, (2, 5, 5)).float()
    y = model(x).argmax(1)
    x_adv = SmallestBall(BIM(ball, ball.eps / 8, 10), tolerance=0.0)(model, x, y)
    assert all(model(one[None]).argmax() != label for one, label in zip(x_adv, y, strict=True))


def test_a_target_is_reached() -> None:
    model, x, y = batch(4)
    target = (y + 1) % 4
    x_adv = SmallestBall(BIM(L2(0.5), 0.1, 10, Margin()))(model, x, y, target)
    assert torch.equal(model(x_adv).argmax(1), target)


def test_batch_mates_do_not_matter() -> None:
    model, x, y = batch(3)
    attack = SmallestBall(BIM(Linf(0.1), 0.02, 8))
    together = attack.run(model, x, y)
    for row in range(len(x)):
        alone = attack.run(model, x[row : row + 1], y[row : row + 1])
        torch.testing.assert_close(alone.x_adv[0], together.x_adv[row])
        assert alone.queries[0] == together.queries[row]


@pytest.mark.parametrize(
    "attack",
    [BIM(L2(0.5), 0.1, 8), PGD(L1(0.5), 0.1, 8, random_start=False, restarts=2, momentum=0.5), BIM(Linf(0.1), 0.02, 8)],
)
def test_images_of_different_radii_are_attacked_together(attack: Attack) -> None:
    """With the same result as one radius after the other."""
    model, x, y = batch(3)
    eps = torch.tensor([0.01, 0.02, 0.05, 0.1, 0.2, 0.3], dtype=torch.float64)
    together = attack.search_each(Shown(model), x, Goal(y, first_success=True), eps)  # type: ignore[attr-defined]
    for row, radius in enumerate(eps.tolist()):
        ball = replace(attack.ball, eps=radius)  # type: ignore[attr-defined]
        step_size = attack.step_size * radius / attack.ball.eps  # type: ignore[attr-defined]
        one = slice(row, row + 1)
        scaled = replace(attack, ball=ball, step_size=step_size)  # type: ignore[type-var]
        alone = scaled.search(Shown(model), x[one], Goal(y[one], first_success=True))
        torch.testing.assert_close(together.x_adv[one], alone.x_adv)
        assert together.queries[row] == alone.queries[0]


def test_the_smallest_balls_of_a_batch_share_their_questions() -> None:
    model, x, y = batch(3)
    asked: list[int] = []

    def listening(images: Tensor) -> Tensor:
        asked.append(len(images))
        return model(images)

    queries = SmallestBall(BIM(Linf(0.1), 0.02, 8)).run(listening, x, y).queries
    assert sum(asked) == queries.sum()
    assert len(asked) < queries.max() * 1.5  # one image at a time: all queries


def test_a_random_model_must_be_broken_on_all_draws_seen() -> None:
    linear, x, y = batch()
    attack = SmallestBall(BIM(Linf(0.1), 0.02, 8))
    with drawing_from(Stream(0)):
        trace = attack.run(EOT(NoisyLinear(linear, 0.05), 6), x, y)
    assert (trace.queries % 6 == 0).all()
    assert (linear(trace.x_adv).argmax(1) != y).all()


@pytest.mark.parametrize(
    "arguments",
    [{"growth": 1.0}, {"growth": math.nan}, {"growths": -1}, {"bisections": -1}, {"tolerance": 1.0}],
)
def test_impossible_settings_are_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"^SmallestBall takes growth > 1, .*, got .*$"):
        SmallestBall(**arguments)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^SmallestBall takes an attack with a ball, got .*$"):
        SmallestBall(Adversary(BIM()))
    for wrong in ({"steps": -1}, {"step_size": -0.1}, {"step_size": math.inf}):
        with pytest.raises(ValueError, match=r"^BIM takes steps >= 0 and step_size >= 0, got .*$"):
            BIM(**wrong)  # type: ignore[arg-type]


def test_settings_print_compare_and_hash() -> None:
    attack = SmallestBall(BIM(Linf(8 / 255), 2 / 255, 20))
    assert str(attack) == "SmallestBall (BIM-20 (Linf, eps 8/255, step 2/255))"
    assert attack == SmallestBall(BIM(Linf(8 / 255), 2 / 255, 20)) != SmallestBall()
    assert hash(attack) == hash(SmallestBall(BIM(Linf(8 / 255), 2 / 255, 20)))
