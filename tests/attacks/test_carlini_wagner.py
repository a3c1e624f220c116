"""C&W where the nearest boundary point is known, and the papers' variant against torch.optim.Adam and autograd."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from attacks import Adversary, CarliniWagner, FixedCarliniWagner
from defenses import Stream, drawing_from
from tests.attacks.toys import Linear, NoisyLinear, distance, images


def foot(model: Linear, x: Tensor, y: Tensor, answer: Tensor, order: float) -> Tensor:
    """[B], distance to the boundary between label and answer alone; `order` is that of the dual norm."""
    rows, z, w = torch.arange(len(x)), model(x).detach(), model.w.detach().flatten(1)
    return (z[rows, y] - z[rows, answer]) / torch.linalg.vector_norm(w[y] - w[answer], ord=order, dim=1)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e3])
def test_it_finds_the_nearest_boundary_of_a_linear_model(scale: float) -> None:
    model, x = Linear(2, scale=scale), images(8)
    y = model(x).argmax(1)
    x_adv = CarliniWagner()(model, x, y)
    assert (model(x_adv).argmax(1) != y).all()
    torch.testing.assert_close(distance(x_adv, x, "L2"), model.nearest(x, y, "L2"), rtol=0.02, atol=0)


def test_among_many_classes_it_ends_at_the_foot_of_a_boundary() -> None:
    """Which one is another matter: every foot is a local minimum."""
    model, x = Linear(5), images(16)
    y = model(x).argmax(1)
    x_adv = CarliniWagner()(model, x, y)
    answer = model(x_adv).argmax(1)
    assert (answer != y).all()
    torch.testing.assert_close(distance(x_adv, x, "L2"), foot(model, x, y, answer, 2), rtol=0.02, atol=0)


def test_a_target_is_reached_at_the_nearest_point() -> None:
    model, x = Linear(2), images(8)
    y = model(x).argmax(1)
    x_adv = CarliniWagner()(model, x, y, target=1 - y)
    assert (model(x_adv).argmax(1) == 1 - y).all()
    torch.testing.assert_close(distance(x_adv, x, "L2"), model.nearest(x, y, "L2"), rtol=0.02, atol=0)
    model = Linear(5)
    target = (model(x).argmax(1) + 2) % 5
    assert (model(CarliniWagner()(model, x, y, target)).argmax(1) == target).all()


@pytest.mark.parametrize("targeted", [False, True])
def test_a_confident_answer_wins_by_kappa(targeted: bool) -> None:
    model, x = Linear(3), images(8)
    y = model(x).argmax(1)
    target = (y + 1) % 3 if targeted else None
    z = model(CarliniWagner(confidence=0.5)(model, x, y, target)).detach()
    chosen = y if target is None else target
    own, others = z.gather(1, chosen[:, None]).squeeze(1), z.scatter(1, chosen[:, None], -1e9).amax(1)
    lead = own - others if targeted else others - own
    assert (lead >= 0.5).all()
    assert (lead <= 0.6).all()


class OneWay(torch.nn.Module):
    """Two classes, told apart by the mean of the pixels alone: below or above 0.1."""

    def forward(self, x: Tensor) -> Tensor:
        z = 10 * (x.mean((1, 2, 3)) - 0.1)
        return torch.stack([-z, z], 1)


def test_pixels_at_the_border_of_the_cube_go_all_the_way() -> None:
    x = torch.zeros(2, 1, 4, 4, dtype=torch.float64)
    x_adv = CarliniWagner()(OneWay(), x, torch.tensor([0, 0]))
    torch.testing.assert_close(distance(x_adv, x, "L2"), torch.full((2,), 0.4, dtype=torch.float64), rtol=0.02, atol=0)
    # Half of them 1 and in nobody's way: they cannot go on.
    x[:, :, :2] = 1
    x_adv = CarliniWagner()(lambda z: OneWay()(z - 0.5), x, torch.tensor([0, 0]))
    torch.testing.assert_close((x_adv - x)[:, :, 2:].mean((1, 2, 3)), torch.full((2,), 0.2).double(), rtol=0.02, atol=0)
    assert (x_adv[:, :, :2] == 1).all()


def test_images_that_are_wrong_already_come_back_and_leave() -> None:
    model, x = Linear(3), images(6)
    y = model(x).argmax(1)
    y[::2] = (y[::2] + 1) % 3
    trace = CarliniWagner(steps=20).run(model, x, y)
    assert torch.equal(trace.x_adv[::2], x[::2])
    assert trace.queries[::2].tolist() == [1] * 3
    assert (trace.queries[1::2] > 20).all()
    assert (trace.queries <= 1 + 5 * 20 + 5).all()


def test_who_leaves_does_not_matter_to_the_others() -> None:
    linear, x = Linear(3), images(6)
    model: Callable[[Tensor], Tensor] = lambda z: linear(z) + 5 * linear(z) ** 3  # noqa: E731
    y = model(x).argmax(1)
    whole = CarliniWagner().run(model, x, y)
    assert len(set(whole.queries.tolist())) > 1  # everybody leaves in his own time
    for row in range(6):
        alone = CarliniWagner().run(model, x[[row]], y[[row]])
        torch.testing.assert_close(alone.x_adv[0], whole.x_adv[row], rtol=0, atol=1e-9)
        assert alone.queries[0] == whole.queries[row]
    early = CarliniWagner().run(model, x, y, first_success=True)
    assert (model(early.x_adv).argmax(1) != y).all()
    assert (early.queries < whole.queries).all()


@pytest.mark.parametrize("attack", [CarliniWagner(steps=0), CarliniWagner(search_steps=0), FixedCarliniWagner(steps=0)])
def test_without_steps_the_images_come_back(attack: CarliniWagner | FixedCarliniWagner) -> None:
    x = images(3)
    assert torch.equal(attack(Linear(), x, torch.zeros(3, dtype=torch.long)), x)


def test_a_random_model_errs_mostly_on_fresh_draws() -> None:
    linear, x = Linear(3), images(24)
    noisy, y = NoisyLinear(linear, 0.02), linear(x).argmax(1)
    with drawing_from(Stream(1)):
        x_adv = Adversary(CarliniWagner(), draws=16)(noisy, x, y)
        wrong = torch.stack([noisy(x_adv).argmax(1) != y for _ in range(200)]).double().mean(0)
    assert (wrong > 0.5).double().mean() >= 0.9


def reference(model: Linear, x: Tensor, y: Tensor, c: float, steps: int, learning_rate: float) -> Tensor:
    """The papers' variant with PyTorch's own Adam and autograd; the image of the last forward pass."""
    w = (0.5 * torch.log(x / (1 - x))).requires_grad_()
    adam = torch.optim.Adam([w], lr=learning_rate)
    for _ in range(steps):
        x_adv = (torch.tanh(w) + 1) / 2
        z = model(x_adv)
        other = z.masked_fill(torch.nn.functional.one_hot(y, z.shape[1]).bool(), -10000.0).amax(1)
        hinge = (z.gather(1, y[:, None]).squeeze(1) - other).clamp_min(0)
        adam.zero_grad()
        ((x_adv - x).square().sum() + c * hinge.sum()).backward()
        adam.step()
    return x_adv.detach()


@pytest.mark.parametrize("c", [0.01, 1.0, 100.0])
@pytest.mark.parametrize("learning_rate", [1e-3, 0.05])
def test_the_papers_variant_is_adam_in_tanh_space(c: float, learning_rate: float) -> None:
    model, x = Linear(5), images(6)
    y = model(x).argmax(1)
    ours = FixedCarliniWagner(c, 40, learning_rate)(model, x, y)
    torch.testing.assert_close(ours, reference(model, x, y, c, 40, learning_rate), rtol=0, atol=1e-7)
    assert (ours - x).abs().amax() > 1e-3


def test_the_papers_variant_freezes_pixels_at_the_border() -> None:
    model, x = Linear(2), images(8)
    x[:, :, 0], x[:, :, 1] = 0, 1
    y = model(x).argmax(1)
    frozen = FixedCarliniWagner(100.0, 100, 0.1)(model, x, y)
    assert torch.equal(frozen[:, :, :2], x[:, :, :2])
    assert (frozen[:, :, 2] != x[:, :, 2]).all()
    free = FixedCarliniWagner(100.0, 100, 0.1, freeze_saturated=False)(model, x, y)
    assert ((free - x)[:, :, :2].abs() > 1e-5).any()
    assert free.isfinite().all()


@pytest.mark.parametrize(
    "arguments",
    [
        {"steps": -1},
        {"search_steps": -1},
        {"learning_rate": 0.0},
        {"initial_c": 0.0},
        {"confidence": -1.0},
        {"tolerance": 1.0},
    ],
)
def test_impossible_settings_are_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"^CarliniWagner takes "):
        CarliniWagner(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("arguments", [{"steps": -1}, {"c": -1.0}, {"learning_rate": 0.0}])
def test_impossible_settings_of_the_papers_variant_are_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"^FixedCarliniWagner takes "):
        FixedCarliniWagner(**arguments)  # type: ignore[arg-type]


def test_settings_print() -> None:
    assert str(CarliniWagner(confidence=1.0)) == "C&W-5 x 100 (L2, confidence 1)"
    assert str(FixedCarliniWagner(0.1)) == "C&W-200 (L2, c 0.1 fixed, last iterate)"
