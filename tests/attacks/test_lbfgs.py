"""L-BFGS: the nearest boundary of linear models, and what it does where another library does nothing."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from attacks import Goal, Margin
from attacks.base import Log
from attacks.lbfgs import LBFGS, _Answer, _Problem, _Question
from attacks.losses import CrossEntropy
from attacks.nearest import Nearest
from attacks.shown import Shown
from defenses import Stream, drawing_from
from tests.attacks.toys import Linear, NoisyLinear, distance, images


def batch(classes: int = 2, size: int = 5, dtype: torch.dtype = torch.float64) -> tuple[Linear, Tensor, Tensor]:
    model, x = Linear(classes, (2, 4, 4), dtype=dtype), images(size, (2, 4, 4)).to(dtype)
    return model, x, model(x).argmax(1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_untargeted_it_reaches_the_nearest_boundary(dtype: torch.dtype) -> None:
    model, x, y = batch(dtype=dtype)
    x_adv = LBFGS()(model, x, y)
    assert x_adv.dtype == dtype
    assert (model(x_adv).argmax(1) != y).all()
    found, nearest = distance(x_adv, x, "L2"), model.nearest(x, y, "L2")
    assert (found >= nearest * (1 - 1e-5)).all()
    assert (found <= nearest * 1.02).all()


def test_an_image_on_the_boundary_itself_is_not_broken() -> None:
    """Rounding decides there: in a batch of another size it may be right again."""
    model, x, y = batch(size=1, dtype=torch.float32)
    way = (model.w[1 - y] - model.w[y]).detach()
    right, wrong = 0.0, 1.0
    for _ in range(60):
        middle = (right + wrong) / 2
        right, wrong = (right, middle) if model(x + middle * way).argmax(1) != y else (middle, wrong)
    nearest = Nearest(Shown(model), x, Goal(y), Log(1, x, Goal(y)))
    nearest.offer(x, model(x), torch.tensor([0]))
    problem = _Problem(Shown(model), lambda z, rows: CrossEntropy()(z, Goal(y)[rows]), nearest)
    for share, broken in ((1.0, False), (1.001, True)):
        x_adv = x + share * wrong * way
        assert model(x_adv).argmax(1) != y
        assert problem.answers([_Question(0, 0, 1.0, x_adv.flatten().double().numpy())])[0].broken == broken
        assert nearest.norm.isinf().item() != broken


@pytest.mark.parametrize("c", [1e-6, 1e4])
def test_the_first_c_does_not_matter(c: float) -> None:
    model, x, y = batch(size=2)
    x_adv = LBFGS(searches=20, c=c)(model, x, y)
    assert (model(x_adv).argmax(1) != y).all()
    assert (distance(x_adv, x, "L2") <= model.nearest(x, y, "L2") * 1.02).all()


def test_without_a_target_it_goes_to_the_runner_up() -> None:
    model, x, y = batch(5)
    runner_up = model(x).topk(2).indices[:, 1]
    untargeted, targeted = LBFGS()(model, x, y), LBFGS()(model, x, y, runner_up)
    assert (model(untargeted).argmax(1) != y).all()
    assert torch.equal(model(targeted).argmax(1), runner_up)
    # Any wrong answer is enough for the first, so it is at least as near.
    assert (distance(untargeted, x, "L2") <= distance(targeted, x, "L2") * 1.01).all()


def test_other_targets_are_reached() -> None:
    model, x, y = batch(5, size=3)
    target = (y + 2) % 5
    for loss in (CrossEntropy(), Margin(confidence=0.01)):
        assert torch.equal(model(LBFGS(loss=loss)(model, x, y, target)).argmax(1), target)


def test_the_box_holds() -> None:
    """Black and white images: half of the pixels cannot go where the gradient leads."""
    model, x, y = batch()
    x = x.round()
    y = model(x).argmax(1)
    x_adv = LBFGS()(model, x, y)
    assert 0 <= x_adv.min() <= x_adv.max() <= 1
    assert (model(x_adv).argmax(1) != y).all()
    for row in range(len(x)):
        nearest = in_the_box(
            x[row].flatten(), (model.w[1 - y[row]] - model.w[y[row]]).flatten().detach(), model, y[row]
        )
        assert nearest * (1 - 1e-9) <= (x_adv[row] - x[row]).norm() <= nearest * 1.02


def in_the_box(x: Tensor, w: Tensor, model: Linear, y: Tensor) -> Tensor:
    """Distance to the boundary within the box: r = clip(lambda w), with lambda by bisection."""
    needed = -Margin()(model(x.view(1, 2, 4, 4)), Goal(y.view(1))).detach()
    low, high = 0.0, 100.0
    for _ in range(100):
        middle = (low + high) / 2
        r = (x + middle * w).clamp(0, 1) - x
        low, high = (low, middle) if (w * r).sum() >= needed else (middle, high)
    return ((x + high * w).clamp(0, 1) - x).norm()


def test_the_function_is_minimised_by_its_gradient() -> None:
    model, x, y = batch(4, size=3)
    aim = Goal(y, (y + 1) % 4)
    nearest = Nearest(Shown(model), x, aim, Log(1, x, aim))
    problem = _Problem(Shown(model), lambda z, rows: CrossEntropy()(z, aim[rows]), nearest)
    points = [x[row].flatten().numpy() + 0.05 for row in (2, 0)]

    def asked(points: list[NDArray[np.float64]]) -> list[_Answer]:
        return problem.answers(
            [_Question(row, 0, c, point) for row, c, point in zip((2, 0), (0.3, 7.0), points, strict=True)]
        )

    found = asked(points)
    logs = model(x + 0.05).log_softmax(1)
    for answer, row, c in zip(found, (2, 0), (0.3, 7.0), strict=True):
        assert answer.value == pytest.approx(32 * 0.05**2 - c * logs[row, aim.target[row]].item())
    for pixel in (0, 7, 31):
        moved = [point.copy() for point in points]
        for point in moved:
            point[pixel] += 1e-6
        for before, after in zip(found, asked(moved), strict=True):
            assert before.gradient[pixel] == pytest.approx((after.value - before.value) / 1e-6, rel=1e-3)


def test_a_batch_is_asked_together_and_each_image_ends_where_it_ends_alone() -> None:
    model, x, y = batch(4, size=6)
    asked: list[int] = []

    def listening(images: Tensor) -> Tensor:
        asked.append(len(images))
        return model(images)

    together = LBFGS(searches=5).run(listening, x, y)
    alone = [LBFGS(searches=5).run(model, x[row : row + 1], y[row : row + 1]) for row in range(len(x))]
    torch.testing.assert_close(together.x_adv, torch.cat([trace.x_adv for trace in alone]))
    assert together.queries.tolist() == [int(trace.queries) for trace in alone]
    assert sum(asked) == together.queries.sum()
    assert len(asked) == together.queries.max()
    torch.testing.assert_close(together.loss, torch.cat([trace.loss for trace in alone], 1), equal_nan=True)


def test_a_random_model_is_asked_again_before_it_is_believed() -> None:
    """Noise as large as the margins: one draw alone would call images broken that hardly moved."""
    linear, x, y = batch()
    linear.requires_grad_(False)
    seen: list[Tensor] = []

    class Listening(NoisyLinear):
        def forward(self, images: Tensor) -> Tensor:
            logits: Tensor = super().forward(images)
            seen.append(images.detach().clone())
            return logits

    with drawing_from(Stream(0)):
        x_adv = LBFGS(steps=10, searches=3)(Listening(linear, 0.05), x, y)
    for row in range(len(x)):
        if not torch.equal(x_adv[row], x[row]):
            asked = sum(int((images == x_adv[row]).flatten(1).all(1).sum()) for images in seen)
            assert asked > 1
    assert any(not torch.equal(x_adv[row], x[row]) for row in range(len(x)))


def test_images_wrong_already_and_images_without_a_way_come_back() -> None:
    model, x, y = batch()
    y[0] = 1 - y[0]
    trace = LBFGS().run(model, x, y)
    assert torch.equal(trace.x_adv[0], x[0])
    assert trace.queries[0] == 1
    assert trace.loss[:, 0].isnan().all()
    for nothing in (LBFGS(steps=0), LBFGS(searches=0)):
        assert torch.equal(nothing(model, x, y), x)
    flat = LBFGS(searches=3).run(lambda images: model(images).detach(), x, model(x).argmax(1))
    assert torch.equal(flat.x_adv, x)
    assert flat.zero_gradient.all()


def test_one_success_is_enough_where_the_caller_says_so() -> None:
    model, x, y = batch()
    full, first = (LBFGS().run(model, x, y, first_success=first) for first in (False, True))
    assert (model(first.x_adv).argmax(1) != y).all()
    assert (first.queries < full.queries).all()


def test_every_query_is_counted() -> None:
    model, x, y = batch(3, size=1)
    asked: list[int] = []

    def listening(images: Tensor) -> Tensor:
        asked.append(len(images))
        return model(images)

    trace = LBFGS().run(listening, x, y)
    assert trace.queries.tolist() == [sum(asked)]
    assert set(asked) == {1}


@pytest.mark.parametrize("arguments", [{"steps": -1}, {"searches": -1}, {"c": 0.0}, {"c": float("nan")}])
def test_settings_are_checked_and_printed(arguments: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"^LBFGS takes steps >= 0, searches >= 0 and c > 0, got .*$"):
        LBFGS(**arguments)  # type: ignore[arg-type]
    assert str(LBFGS()) == "LBFGS 12 x 150"
    assert LBFGS() == LBFGS() != LBFGS(c=1.0)
