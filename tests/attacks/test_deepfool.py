"""DeepFool: one step on linear models, the nearest boundary of smooth ones."""

import pytest
import torch
from torch import Tensor

from attacks import EOT
from attacks.deepfool import DeepFool
from defenses import Stream, drawing_from
from tests.attacks.toys import Linear, NoisyLinear, distance, images

every_norm = pytest.mark.parametrize("norm", ["L2", "Linf"])


def batch(classes: int = 5, size: int = 6) -> tuple[Linear, Tensor, Tensor]:
    model, x = Linear(classes, (2, 5, 5)), images(size, (2, 5, 5))
    return model, x, model(x).argmax(1)


@every_norm
@pytest.mark.parametrize("classes", [2, 5, 20])
@pytest.mark.parametrize("overshoot", [0.02, 0.001])
def test_one_step_reaches_the_nearest_boundary_of_a_linear_model(norm: str, classes: int, overshoot: float) -> None:
    model, x, y = batch(classes)
    trace = DeepFool(norm, overshoot=overshoot, classes=classes).run(model, x, y)  # type: ignore[arg-type]
    assert (model(trace.x_adv).argmax(1) != y).all()
    torch.testing.assert_close(distance(trace.x_adv, x, norm), (1 + overshoot) * model.nearest(x, y, norm))
    # The image, every other class at it, and again at the end.
    assert trace.queries.tolist() == [1 + 2 * (classes - 1)] * 6


@every_norm
def test_the_step_is_that_of_the_paper(norm: str) -> None:
    model, x, y = batch(2)
    w, f = (model.w[1 - y] - model.w[y]).detach(), model(x).diff(dim=1)[:, 0].abs().detach()
    if norm == "L2":
        r = (f / w.square().sum((1, 2, 3))).view(-1, 1, 1, 1) * w
    else:
        r = (f / w.abs().sum((1, 2, 3))).view(-1, 1, 1, 1) * w.sign()
    torch.testing.assert_close(DeepFool(norm)(model, x, y), x + 1.02 * r)  # type: ignore[arg-type]


@every_norm
def test_only_the_likeliest_classes_are_looked_at(norm: str) -> None:
    model, x, y = batch(20)
    few, all_of_them = (DeepFool(norm, classes=n).run(model, x, y) for n in (2, 20))  # type: ignore[arg-type]
    runner_up = model(x).topk(2).indices[:, 1]
    assert torch.equal(model(few.x_adv).argmax(1), runner_up)
    assert (distance(few.x_adv, x, norm) >= distance(all_of_them.x_adv, x, norm) - 1e-12).all()
    assert few.queries.tolist() == [3] * 6


class Ball(Linear):
    """Class 1 outside of a sphere around the middle of the cube, of known radius."""

    radius = 0.4

    def forward(self, x: Tensor) -> Tensor:
        z = (x - 0.5).flatten(1).square().sum(1) - self.radius**2
        return torch.stack([-z, z], 1)


def test_a_curved_boundary_takes_steps() -> None:
    model, x = Ball(), 0.5 + 0.02 * torch.randn(5, 2, 5, 5, dtype=torch.float64)
    y = torch.zeros(5, dtype=torch.long)
    expected = model.radius - (x - 0.5).flatten(1).norm(dim=1)
    trace = DeepFool("L2").run(model, x, y)
    assert (model(trace.x_adv).argmax(1) == 1).all()
    # The gradient points outwards: the nearest point is straight ahead.
    found = distance(trace.x_adv, x, "L2")
    assert (found >= expected).all()
    first = DeepFool("L2", steps=1)(model, x, y)
    assert torch.equal(model(first).argmax(1), torch.ones(5))  # the tangent overshoots a convex function
    assert torch.equal(first, trace.x_adv)


def test_steps_that_fall_short_are_followed_by_others() -> None:
    """A logit that flattens: each linearisation promises too much."""
    model, x, y = batch(2)

    def saturating(images: Tensor) -> Tensor:
        z = model(images).diff(dim=1)[:, 0]
        return torch.stack([-z.sign() * (z.abs() + 1).log(), z.sign() * (z.abs() + 1).log()], 1)

    def steep(images: Tensor) -> Tensor:
        z = model(images).diff(dim=1)[:, 0]
        return torch.stack([-(z**3 + z), z**3 + z], 1)

    for bent in (saturating, steep):
        trace = DeepFool("L2").run(bent, x, y)
        assert (model(trace.x_adv).argmax(1) != y).all()
        assert (trace.queries >= 3).all()
    steps = (~DeepFool("L2").run(steep, x, y).loss.isnan()).sum(0)
    assert steps.max() > 2
    found, nearest = distance(DeepFool("L2")(steep, x, y), x, "L2"), model.nearest(x, y, "L2")
    assert (found <= 1.02 * nearest + 1e-9).all()


@every_norm
def test_the_border_of_the_cube_is_no_end(norm: str) -> None:
    model, x, _ = batch(3)
    x = x.round()
    y = model(x).argmax(1)
    x_adv = DeepFool(norm)(model, x, y)  # type: ignore[arg-type]
    assert (model(x_adv).argmax(1) != y).all()
    assert 0 <= x_adv.min() <= x_adv.max() <= 1


@every_norm
def test_a_target_is_reached_past_the_classes_between(norm: str) -> None:
    model, x, y = batch(4)
    for target in (model(x).topk(4).indices[:, place] for place in (1, 2, 3)):
        x_adv = DeepFool(norm)(model, x, y, target)  # type: ignore[arg-type]
        assert torch.equal(model(x_adv).argmax(1), target)


def test_images_wrong_already_and_images_without_a_way_come_back() -> None:
    model, x, y = batch()
    y[0] = (y[0] + 1) % 5
    trace = DeepFool().run(model, x, y)
    assert torch.equal(trace.x_adv[0], x[0])
    assert trace.queries.tolist() == [1, 9, 9, 9, 9, 9]
    assert torch.equal(DeepFool(steps=0)(model, x, y), x)
    flat = DeepFool().run(lambda images: model(images).detach() + 0 * images.sum(), x, model(x).argmax(1))
    assert torch.equal(flat.x_adv, x)
    assert flat.zero_gradient.all()


def test_no_pass_is_larger_than_the_batch() -> None:
    model, x, y = batch(size=4)
    sizes: list[int] = []

    def listening(images: Tensor) -> Tensor:
        sizes.append(len(images))
        return model(images)

    DeepFool()(listening, x, y)
    assert sizes == [4] * (1 + 4 + 4)


def test_draws_are_averaged() -> None:
    linear, x, y = batch(3)
    exact = distance(DeepFool()(linear, x, y), x, "L2")
    with drawing_from(Stream(0)):
        trace = DeepFool().run(EOT(NoisyLinear(linear, 0.01), 16), x, y)
    assert (trace.queries % 16 == 0).all()
    found = distance(trace.x_adv, x, "L2")
    assert (found > 0).all()
    torch.testing.assert_close(found, exact, rtol=0.5, atol=0.05)


def test_tiny_gradients_count() -> None:
    """float32 gradients whose squares underflow."""
    model, x, y = batch(3)
    model, x = model.float(), x.float()
    scaled = DeepFool()(lambda images: model(images) * 1e-25, x, y)
    torch.testing.assert_close(scaled, DeepFool()(model, x, y))


@pytest.mark.parametrize("arguments", [{"norm": "L1"}, {"steps": -1}, {"overshoot": -0.1}, {"classes": 1}])
def test_settings_are_checked_and_printed(arguments: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"^DeepFool takes .*, got .*$"):
        DeepFool(**arguments)  # type: ignore[arg-type]
    assert str(DeepFool("Linf")) == "DeepFool-50 (Linf, 10 classes, overshoot 0.02)"
