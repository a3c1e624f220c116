"""PGD where the best answer is known: on linear models, and at the ends of its settings."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from attacks import L2, PGD, Ball, CrossEntropy, Goal, Linf, input_gradient
from defenses import Stream, drawing_from
from models import ResNet20

every_norm = pytest.mark.parametrize("kind", [Linf, L2])


def images(batch: int = 4, dtype: torch.dtype = torch.float64) -> Tensor:
    """Images far enough from 0 and 1 for the balls of these tests."""
    return 0.4 + 0.2 * torch.rand(batch, 2, 3, 3, dtype=dtype)


class Linear(nn.Module):
    """Two logits w x and -w x: cross entropy grows along -w for label 0 and along w for label 1."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(2, 3, 3, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        z = (x * self.w).flatten(1).sum(1)
        return torch.stack([z, -z], 1)

    def best(self, x: Tensor, y: Tensor, ball: Ball) -> Tensor:
        """The point of the ball with the highest loss, in closed form."""
        away = torch.where(y == 0, -1.0, 1.0).view(-1, 1, 1, 1) * self.w.detach()
        if isinstance(ball, Linf):
            return (x + ball.eps * away.sign()).clamp(0, 1)
        return x + ball.eps * away / self.w.detach().norm()


@every_norm
@pytest.mark.parametrize("steps", [4, 7])
def test_pgd_finds_the_optimum_of_a_linear_model(kind: type[Ball], steps: int) -> None:
    model, x, y = Linear(), images(), torch.tensor([0, 1, 1, 0])
    ball = kind(0.2)
    attack = PGD(ball, step_size=0.05, steps=steps, random_start=False)
    torch.testing.assert_close(attack(model, x, y), model.best(x, y, ball))


@every_norm
def test_pgd_finds_the_optimum_from_any_start(kind: type[Ball]) -> None:
    model, x, y = Linear(), images(), torch.tensor([0, 1, 1, 0])
    ball = kind(0.2)
    # The farthest start is 2 eps away; in L2 each projected step then halves an angle at least.
    attack = PGD(ball, step_size=0.2, steps=60)
    torch.testing.assert_close(attack(model, x, y), model.best(x, y, ball))


def test_pgd_finds_the_optimum_at_the_border_of_the_cube() -> None:
    model, y = Linear(), torch.tensor([0, 1, 1, 0])
    x = torch.rand(4, 2, 3, 3, dtype=torch.float64).round()
    assert torch.equal(PGD(Linf(0.2), 0.1, 5)(model, x, y), model.best(x, y, Linf(0.2)))


@every_norm
def test_a_target_is_approached(kind: type[Ball]) -> None:
    model, x, y = Linear(), images(), torch.tensor([0, 1, 1, 0])
    ball = kind(0.2)
    attack = PGD(ball, step_size=0.05, steps=8, random_start=False)
    trace = attack.run(model, x, y, target=1 - y)
    torch.testing.assert_close(trace.x_adv, model.best(x, y, ball))
    assert (trace.loss.diff(dim=0) >= -1e-6).all()
    # The label is not looked at where there is a target.
    assert torch.equal(trace.x_adv, attack(model, x, torch.zeros_like(y), target=1 - y))


@every_norm
def test_the_trace_tells_loss_and_queries(kind: type[Ball]) -> None:
    model, x, y = Linear(), images(), torch.tensor([0, 1, 1, 0])
    trace = PGD(kind(0.2), step_size=0.05, steps=6, random_start=False).run(model, x, y)
    assert trace.loss.shape == (6, 4)
    assert (trace.loss.diff(dim=0) >= -1e-6).all()
    torch.testing.assert_close(trace.loss[0], F.cross_entropy(model(x), y, reduction="none").detach())
    assert trace.queries.tolist() == [6] * 4
    assert trace.zero_gradient.tolist() == [False] * 4
    assert not any(tensor.requires_grad for tensor in vars(trace).values())


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from([Linf, L2]),
    eps=st.floats(0, 1),
    step_size=st.floats(0, 3),
    steps=st.integers(0, 4),
    random_start=st.booleans(),
    targeted=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_the_result_is_an_image_in_the_ball(
    kind: type[Ball], eps: float, step_size: float, steps: int, random_start: bool, targeted: bool, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(3, 2, 4, 4, generator=generator).round(decimals=1)  # some pixels are 0 or 1
    weight = torch.randn(5, 32, generator=generator)
    y = torch.tensor([0, 1, 4])
    attack = PGD(kind(eps), step_size, steps, random_start)
    with drawing_from(Stream(seed)):
        trace = attack.run(lambda images: images.flatten(1).tanh() @ weight.T, x, y, 4 - y if targeted else None)
    delta = (trace.x_adv - x).flatten(1)
    norm = delta.norm(dim=1) if kind is L2 else delta.abs().amax(1)
    assert 0 <= trace.x_adv.min() <= trace.x_adv.max() <= 1
    assert (norm <= eps * (1 + 1e-6) + 1e-7).all()  # float32 rounds pixels to 6e-8
    assert trace.loss.shape == (steps, 3)


@every_norm
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("steps", [0, 2])
def test_the_result_is_like_x(
    kind: type[Ball], dtype: torch.dtype, memory_format: torch.memory_format, steps: int
) -> None:
    x = torch.rand(2, 3, 8, 8, dtype=dtype).contiguous(memory_format=memory_format).requires_grad_()
    before = x.detach().clone()
    x_adv = PGD(kind(0.1), steps=steps)(ResNet20().to(dtype), x, torch.tensor([0, 1]))
    assert (x_adv.shape, x_adv.dtype, x_adv.stride()) == (x.shape, dtype, x.stride())
    assert not x_adv.requires_grad
    assert x_adv.data_ptr() != x.data_ptr()
    assert torch.equal(x, before)
    assert x.grad is None


def test_without_steps_the_start_is_returned() -> None:
    x, y = images(), torch.zeros(4, dtype=torch.long)
    model = Linear()
    assert torch.equal(PGD(steps=0, random_start=False)(model, x, y), x)
    with drawing_from(Stream(1)):
        trace = PGD(Linf(0.1), steps=0).run(model, x, y)
    with drawing_from(Stream(1)):
        assert torch.equal(trace.x_adv, Linf(0.1).sample(x))
    assert (trace.loss.shape, trace.queries.tolist()) == ((0, 4), [0] * 4)
    assert not trace.zero_gradient.any()


@every_norm
def test_radius_0_returns_the_images(kind: type[Ball]) -> None:
    x = images()
    assert torch.equal(PGD(kind(0.0))(Linear(), x, torch.zeros(4, dtype=torch.long)), x)


def test_an_empty_batch_is_an_answer() -> None:
    trace = PGD().run(Linear(), images(0), torch.zeros(0, dtype=torch.long))
    assert trace.x_adv.shape == (0, 2, 3, 3)
    assert trace.loss.shape == (0, 0)


@every_norm
def test_batch_mates_do_not_matter(kind: type[Ball]) -> None:
    network, y = ResNet20().double(), torch.tensor([3, 1, 4, 1])
    x = torch.rand(4, 3, 8, 8, dtype=torch.float64)
    others = x.clone()
    others[1:] = torch.rand(3, 3, 8, 8)
    attack = PGD(kind(0.1), steps=3)
    results = []
    for batch, labels in ((x, y), (others, torch.tensor([3, 0, 0, 0]))):
        with drawing_from(Stream(1)):
            results.append(attack(network, batch, labels)[0])
    torch.testing.assert_close(results[0], results[1])
    assert not torch.equal(results[0], x[0])
    alone = PGD(kind(0.1), steps=3, random_start=False)
    torch.testing.assert_close(alone(network, x, y)[:1], alone(network, x[:1], y[:1]))


def test_draws_average_losses_not_logits() -> None:
    logits, y = torch.randn(3, 2, 4, 5), torch.tensor([0, 1, 4, 2])
    each = [[F.cross_entropy(logits[i, j], y, reduction="none") for j in range(2)] for i in range(3)]
    expected = torch.stack([loss for row in each for loss in row]).mean(0)
    torch.testing.assert_close(CrossEntropy()(logits, Goal(y)), expected)
    torch.testing.assert_close(CrossEntropy()(logits[0, 0], Goal(y)), each[0][0])


def test_several_draws_of_a_deterministic_model_are_one() -> None:
    model, x, y = Linear(), images(), torch.tensor([0, 1, 1, 0])
    attack = PGD(L2(0.2), step_size=0.03, steps=3, random_start=False)
    single = attack.run(model, x, y)
    many = attack.run(lambda images: torch.stack([model(images)] * 6).unflatten(0, (2, 3)), x, y)
    torch.testing.assert_close(many.x_adv, single.x_adv)
    torch.testing.assert_close(many.loss, single.loss)


def test_the_gradient_over_draws_is_the_mean_of_their_gradients() -> None:
    models, x, y = [Linear() for _ in range(3)], images(), torch.tensor([0, 1, 1, 0])
    loss_of: Callable[[Tensor], Tensor] = lambda logits: CrossEntropy()(logits, Goal(y))  # noqa: E731
    _, losses, gradient = input_gradient(lambda images: torch.stack([model(images) for model in models]), x, loss_of)
    each = [input_gradient(model, x, loss_of) for model in models]
    torch.testing.assert_close(losses, torch.stack([part.loss for part in each]).mean(0))
    torch.testing.assert_close(gradient, torch.stack([part.gradient for part in each]).mean(0))


def test_images_whose_gradient_vanished_are_marked() -> None:
    model, y = Linear(), torch.tensor([0, 1, 1, 0])
    x = images()
    x[1] = x[3] = 0.9

    def saturated(images: Tensor) -> Tensor:
        return model(images) * (images[:, 0, 0, 0] < 0.7).double().detach()[:, None]

    trace = PGD(Linf(0.02), steps=3, random_start=False).run(saturated, x, y)
    assert trace.zero_gradient.tolist() == [False, True, False, True]
    assert torch.equal(trace.x_adv[[1, 3]], x[[1, 3]])
    assert not torch.equal(trace.x_adv[[0, 2]], x[[0, 2]])
    assert torch.equal(trace.loss[:, 1], torch.full((3,), math.log(2), dtype=torch.float64))


def test_a_gradient_that_vanished_once_is_remembered() -> None:
    model, calls = Linear(), iter([0.0, 1.0, 1.0])
    trace = PGD(steps=3).run(lambda images: model(images) * next(calls), images(), torch.zeros(4, dtype=torch.long))
    assert trace.zero_gradient.all()


@pytest.mark.parametrize(
    ("x", "values"),
    [
        (torch.full((1, 1, 2, 2), -0.1), "-0.1 to -0.1"),
        (torch.full((1, 1, 2, 2), 1.5), "1.5 to 1.5"),
        (torch.full((1, 1, 2, 2), float("nan")), "nan to nan"),
        (torch.tensor([0.0, 255.0]).view(1, 1, 1, 2), "0 to 255"),
    ],
)
def test_images_outside_0_and_1_are_refused(x: Tensor, values: str) -> None:
    with pytest.raises(ValueError, match=rf"^images must lie in \[0, 1\], got values from {values}$"):
        PGD()(Linear(), x, torch.tensor([0]))


@pytest.mark.parametrize(
    ("x", "y", "target"),
    [
        ((2, 3), (2,), None),
        ((3, 4, 4), (3,), None),
        ((2, 1, 4, 4), (3,), None),
        ((2, 1, 4, 4), (2, 1), None),
        ((2, 1, 4, 4), (2,), (1,)),
    ],
)
def test_shapes_that_do_not_fit_are_named(
    x: tuple[int, ...], y: tuple[int, ...], target: tuple[int, ...] | None
) -> None:
    labels = None if target is None else torch.zeros(target, dtype=torch.long)
    with pytest.raises(ValueError, match=r"an attack takes images \[B, C, H, W\] and labels \[B\], got x") as error:
        PGD()(Linear(), torch.rand(x), torch.zeros(y, dtype=torch.long), labels)
    assert "\n" not in str(error.value)
    assert all(str(shape) in str(error.value) for shape in (x, y, target) if shape)


@pytest.mark.parametrize("arguments", [{"steps": -1}, {"step_size": -0.1}, {"step_size": float("nan")}])
def test_impossible_settings_are_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"^PGD takes steps >= 0 and step_size >= 0, got .*$"):
        PGD(**arguments)  # type: ignore[arg-type]


def test_settings_print_compare_and_hash() -> None:
    attack = PGD(Linf(8 / 255), 2 / 255, 20)
    assert str(attack) == "PGD-20 (Linf, eps 8/255, step 2/255)"
    assert attack == PGD(Linf(8 / 255), 2 / 255, 20) != PGD(Linf(8 / 255), 2 / 255, 21)
    assert hash(attack) == hash(PGD(Linf(8 / 255), 2 / 255, 20))
    assert eval(repr(attack)) == attack


def test_an_answer_on_the_way_that_errs_is_told_even_if_the_last_image_is_right() -> None:
    class Bump(nn.Module):
        """Class 1 for pixels of about 0.5, class 0 elsewhere; the slope leads through and beyond."""

        def forward(self, x: Tensor) -> Tensor:
            pixel = x.flatten(1)[:, :1]
            inside = ((pixel - 0.5).abs() < 0.1).to(x.dtype)
            return torch.cat([-pixel, -pixel + 10 * pixel.detach() * 0 + 20 * inside - 10], 1) * torch.tensor(
                [1.0, 0.5]
            )

    x, y = torch.tensor([0.2, 0.9]).view(2, 1, 1, 1), torch.zeros(2, dtype=torch.long)
    trace = PGD(Linf(0.6), step_size=0.15, steps=4, random_start=False).run(Bump(), x, y)
    answers = Bump()(trace.x_adv).argmax(1)
    assert trace.erred.tolist() == [True, False]
    assert answers.tolist() == [0, 0]
