"""DDN where the nearest boundary point is known, and where chance decides."""

import pytest
import torch
from torch import Tensor

from attacks import Adversary, Goal, Margin
from attacks.base import Log
from attacks.ddn import DDN
from attacks.nearest import Nearest
from attacks.shown import Shown
from defenses import Stream, drawing_from
from tests.attacks.toys import Linear, NoisyLinear, distance, images


@pytest.mark.parametrize("attack", [DDN(), DDN(init_norm=0.05), DDN(loss=Margin())])
def test_it_finds_the_nearest_boundary_of_a_linear_model(attack: DDN) -> None:
    model, x = Linear(2), images(8)
    y = model(x).argmax(1)
    x_adv = attack(model, x, y)
    assert (model(x_adv).argmax(1) != y).all()
    torch.testing.assert_close(distance(x_adv, x, "L2"), model.nearest(x, y, "L2"), rtol=0.02, atol=0)


def test_a_target_is_reached_at_the_nearest_point() -> None:
    model, x = Linear(2), images(8)
    y = model(x).argmax(1)
    x_adv = DDN()(model, x, y, target=1 - y)
    assert (model(x_adv).argmax(1) == 1 - y).all()
    torch.testing.assert_close(distance(x_adv, x, "L2"), model.nearest(x, y, "L2"), rtol=0.02, atol=0)


def test_a_target_is_reached_among_many_classes() -> None:
    model, x = Linear(5), images(8)
    y = model(x).argmax(1)
    target = (y + 2) % 5
    x_adv = DDN(steps=200)(model, x, y, target)
    assert (model(x_adv).argmax(1) == target).all()
    assert (distance(x_adv, x, "L2") >= model.nearest(x, y, "L2")).all()


def test_quantised_images_survive_a_png() -> None:
    model, x = Linear(3), (images(6) * 255).round() / 255
    y = model(x).argmax(1)
    x_adv = DDN(quantise=True)(model, x, y)
    assert (model(x_adv).argmax(1) != y).all()
    torch.testing.assert_close(x_adv * 255, (x_adv * 255).round())
    near = model.nearest(x, y, "L2")
    assert (distance(x_adv, x, "L2") <= 1.02 * near + 18**0.5 / 255).all()  # at most half a level per pixel, or two


def test_images_that_are_wrong_already_come_back_and_leave() -> None:
    model, x = Linear(3), images(6)
    y = model(x).argmax(1)
    y[::2] = (y[::2] + 1) % 3
    trace = DDN(steps=20).run(model, x, y)
    assert torch.equal(trace.x_adv[::2], x[::2])
    assert trace.queries.tolist() == [1, 21] * 3
    assert trace.loss[1:, ::2].isnan().all()
    assert not trace.loss[:, 1::2].isnan().any()


def test_who_leaves_does_not_matter_to_the_others() -> None:
    model, x = Linear(3), images(6)
    y = model(x).argmax(1)
    some = y.clone()
    some[::2] = (some[::2] + 1) % 3
    whole, part = DDN(steps=30).run(model, x, y), DDN(steps=30).run(model, x, some)
    torch.testing.assert_close(whole.x_adv[1::2], part.x_adv[1::2], rtol=0, atol=1e-12)
    early = DDN(steps=30).run(model, x, y, first_success=True)
    assert (model(early.x_adv).argmax(1) != y).all()
    assert (early.queries < whole.queries).all()


def test_what_cannot_be_broken_comes_back() -> None:
    x, y = images(3), torch.zeros(3, dtype=torch.long)
    weight = torch.tensor([[1e-3], [-1e-3]], dtype=torch.float64)
    trace = DDN(steps=5).run(lambda z: z.mean((1, 2, 3)).unsqueeze(1) @ weight.T + torch.tensor([1.0, 0.0]), x, y)
    assert torch.equal(trace.x_adv, x)


def test_without_steps_the_images_come_back() -> None:
    x = images(3)
    trace = DDN(steps=0).run(Linear(), x, torch.zeros(3, dtype=torch.long))
    assert torch.equal(trace.x_adv, x)
    assert trace.loss.shape == (0, 3)


def test_a_random_model_errs_mostly_on_fresh_draws() -> None:
    linear, x = Linear(3), images(24)
    noisy, y = NoisyLinear(linear, 0.02), linear(x).argmax(1)
    with drawing_from(Stream(1)):
        x_adv = Adversary(DDN(), draws=16)(noisy, x, y)
        wrong = torch.stack([noisy(x_adv).argmax(1) != y for _ in range(200)]).double().mean(0)
    assert (wrong > 0.5).double().mean() >= 0.9
    assert (distance(x_adv, x, "L2") < 1.5 * linear.nearest(x, y, "L2") + 0.02).all()


class Steps:
    """A label that stays ahead by these margins, whatever the image is."""

    def __init__(self, *margins: float) -> None:
        self.margins = iter(margins)

    def logits(self) -> Tensor:
        margin = next(self.margins)
        return torch.tensor([[margin, 0.0]])


def test_luck_is_not_taken() -> None:
    x, rows = torch.zeros(1, 1, 1, 1), torch.tensor([0])
    wrong, right = torch.tensor([[[0.0, 2.0]]] * 4), torch.tensor([[[2.0, 0.0]]] * 4)
    answers, log = iter([right, wrong]), Log(0, x, Goal(torch.zeros(len(x), dtype=torch.long)))
    nearest = Nearest(Shown(lambda z: next(answers)), x, Goal(rows), log)
    assert nearest.offer(x + 0.1, right, rows).tolist() == [False]
    assert nearest.offer(x + 0.1, wrong, rows).tolist() == [False]
    assert nearest.offer(x + 0.2, wrong, rows).tolist() == [True]
    torch.testing.assert_close(nearest.norm, torch.tensor([0.2]))
    assert log.queries.tolist() == [8]


def test_what_lies_on_the_boundary_itself_is_not_taken() -> None:
    x = torch.zeros(1, 1, 1, 1)
    answers, rows = Steps(3.0, -1e-6, -1e-2), torch.tensor([0])
    nearest = Nearest(Shown(lambda z: z.flatten(1)), x, Goal(rows), Log(0, x, Goal(rows)))
    assert nearest.offer(x, answers.logits(), rows).tolist() == [False]
    assert nearest.offer(x + 0.1, answers.logits(), rows).tolist() == [False]
    assert nearest.offer(x + 0.2, answers.logits(), rows).tolist() == [True]
    torch.testing.assert_close(nearest.norm, torch.tensor([0.2]))


@pytest.mark.parametrize(
    "arguments", [{"steps": -1}, {"gamma": 0.0}, {"gamma": 1.0}, {"init_norm": 0.0}, {"step_size": float("inf")}]
)
def test_impossible_settings_are_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"^DDN takes "):
        DDN(**arguments)  # type: ignore[arg-type]


def test_settings_print() -> None:
    assert str(DDN(50, quantise=True)) == "DDN-50 (L2, gamma 0.05, quantised)"
