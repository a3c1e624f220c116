"""Several draws in one answer: independent for every kind of noise, and gradients that average over them."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from attacks import DLR, EOT, CrossEntropy, Goal, Loss, Margin, input_gradient
from attacks.shown import Shown
from defenses import (
    RobustNet,
    Stream,
    drawing_from,
    has_shared_draws,
    is_random,
)
from models import ResNet20
from tests.attacks.toys import RANDOM, SHARED, Linear, NoisyLinear, images, network

every_noise = pytest.mark.parametrize("name", RANDOM)


class Sizes(nn.Module):
    """Records how many images each pass holds, and whether it has a graph."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.seen: list[int] = []
        self.graphs: list[bool] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(len(x))
        self.graphs.append(torch.is_grad_enabled() and x.requires_grad)
        logits: Tensor = self.model(x)
        return logits


@every_noise
@pytest.mark.parametrize("most_images", [1, 6, 512])
def test_the_draws_of_one_answer_differ(name: str, most_images: int) -> None:
    model, x = RANDOM[name]().eval(), images(2)
    x[1] = x[0]
    assert is_random(model)
    assert has_shared_draws(model) == (name in SHARED)
    logits = EOT(model, 5, most_images=most_images)(x).detach()
    assert logits.shape == (5, 2, 5)
    for row in range(2):
        assert (torch.cdist(logits[:, row], logits[:, row]) + torch.eye(5) > 1e-6).all()
    # One draw of weights serves the batch; activations have one draw per image.
    same = torch.isclose(logits[:, 0], logits[:, 1]).all(1)
    assert same.all() if name in SHARED else not same.any()


def test_the_draws_of_a_deterministic_model_are_equal() -> None:
    model, x = network(), images(3)
    logits = EOT(model, 4)(x)
    torch.testing.assert_close(logits, model(x).expand(4, 3, 5))


@every_noise
def test_a_draw_has_the_distribution_of_a_pass(name: str) -> None:
    model, x = RANDOM[name]().eval(), images(2)
    with torch.no_grad():
        together = EOT(model, 1000)(x)
        apart = torch.stack([model(x) for _ in range(1000)])
    spread = apart.std(0)
    assert ((together.mean(0) - apart.mean(0)).abs() < 5 * spread * (2 / 1000) ** 0.5).all()
    torch.testing.assert_close(together.std(0), spread, rtol=0.15, atol=0)


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("most_images", [4, 512])
def test_the_gradient_of_a_margin_is_that_of_the_linear_model(targeted: bool, most_images: int) -> None:
    """The margin of two linear logits is linear: noise on the image changes its value and not its gradient."""
    linear, x, y = Linear(2), images(), torch.tensor([0, 1, 1, 0])
    goal = Goal(y, 1 - y if targeted else None)
    model = EOT(NoisyLinear(linear, 0.3), 8, most_images=most_images)
    answer = input_gradient(model, x, partial(Margin(), goal=goal))
    other = linear.w.detach()[1 - y] - linear.w.detach()[y]
    torch.testing.assert_close(answer.gradient, other)
    assert answer.logits.shape == (8, 4, 2)
    torch.testing.assert_close(answer.loss, Margin()(answer.logits, goal))


@pytest.mark.parametrize("loss", [CrossEntropy(), DLR(), Margin(0.5)], ids=str)
@pytest.mark.parametrize("most_images", [4, 9, 512])
def test_the_gradient_is_the_mean_of_the_gradients_of_the_draws(loss: Loss, most_images: int) -> None:
    # Of 32 values an image: PyTorch fills 16 at a time, so 7 x 3 images draw the same values at once as one by one.
    linear, x, y = Linear(4, (2, 4, 4)), images(3, (2, 4, 4)), torch.tensor([0, 1, 3])
    goal, model = Goal(y), NoisyLinear(linear, 0.3)
    with drawing_from(Stream(1)):
        answer = input_gradient(EOT(model, 7, most_images=most_images), x, partial(loss, goal=goal))
    gradients, losses = [], []
    with drawing_from(Stream(1)):
        for _ in range(7):
            image = x.clone().requires_grad_()
            value = loss(model(image), goal)
            gradients.append(torch.autograd.grad(value.sum(), image)[0])
            losses.append(value.detach())
    torch.testing.assert_close(answer.gradient, torch.stack(gradients).mean(0))
    torch.testing.assert_close(answer.loss, torch.stack(losses).mean(0))


@every_noise
def test_pieces_are_the_whole(name: str) -> None:
    """With the noise of weights every draw is a pass anyway; with that of activations the closed forms above hold."""
    model, x, goal = RANDOM[name]().eval(), images(3), Goal(torch.tensor([0, 1, 2]))
    loss = partial(CrossEntropy(), goal=goal)
    shown = EOT(model, 5, most_images=3)
    with drawing_from(Stream(2)):
        answer = input_gradient(Shown(shown), x, loss)
    with drawing_from(Stream(2)):
        image = x.clone().requires_grad_()
        logits = shown(image)
        losses = loss(logits)
        (gradient,) = torch.autograd.grad(losses.sum(), image)
    torch.testing.assert_close(answer.logits, logits.detach())
    torch.testing.assert_close(answer.loss, losses.detach())
    torch.testing.assert_close(answer.gradient, gradient)


@pytest.mark.parametrize(
    ("batch", "draws", "votes", "most_images", "expected"),
    [
        (3, 4, 0, 512, [12]),
        (3, 4, 0, 7, [6, 6]),
        (3, 5, 0, 7, [6, 6, 3]),
        (3, 4, 0, 1, [3] * 4),  # the batch itself is larger
        (2, 3, 10, 8, [6, 8, 6]),
        (1, 1, 1, 512, [1]),
    ],
)
def test_no_pass_holds_more_images_than_allowed(
    batch: int, draws: int, votes: int, most_images: int, expected: list[int]
) -> None:
    model = Sizes(NoisyLinear(Linear(4), 0.1))
    goal = Goal(torch.zeros(batch, dtype=torch.long))
    input_gradient(EOT(model, draws, votes, most_images), images(batch), partial(CrossEntropy(), goal=goal))
    assert model.seen == expected
    model.seen.clear()
    EOT(model, draws, votes, most_images)(images(batch))
    assert model.seen == expected


@pytest.mark.parametrize("name", SHARED)
def test_noise_on_weights_is_asked_for_draw_by_draw(name: str) -> None:
    model = Sizes(RANDOM[name]().eval())
    assert EOT(model, 4)(images(3)).shape == (4, 3, 5)
    assert model.seen == [3] * 4


def test_votes_decide_and_have_no_gradient() -> None:
    linear, x, goal = Linear(4, (2, 4, 4)), images(3, (2, 4, 4)), Goal(torch.tensor([0, 1, 3]))
    model = Sizes(NoisyLinear(linear, 0.3))
    with drawing_from(Stream(1)):
        answer = input_gradient(EOT(model, 2, votes=9, most_images=6), x, partial(CrossEntropy(), goal=goal))
    assert answer.logits.shape == (9, 3, 4)
    assert model.graphs == [True] + [False] * 4
    with drawing_from(Stream(1)):
        alone = input_gradient(EOT(model.model, 2), x, partial(CrossEntropy(), goal=goal))
    torch.testing.assert_close(answer.gradient, alone.gradient)
    torch.testing.assert_close(answer.loss, alone.loss)
    torch.testing.assert_close(answer.logits[:2], alone.logits)


@pytest.mark.parametrize("most_images", [4, 512])
def test_the_memory_format_is_kept(most_images: int) -> None:
    formats = []

    class Watch(nn.Module):
        random = True

        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(3, 5, 3)

        def forward(self, x: Tensor) -> Tensor:
            formats.append(x.is_contiguous(memory_format=torch.channels_last))
            return self.layer(x).mean((2, 3))

    x = torch.rand(2, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    goal = Goal(torch.tensor([0, 1]))
    answer = input_gradient(
        EOT(Watch().to(memory_format=torch.channels_last), 6, most_images=most_images),
        x,
        partial(CrossEntropy(), goal=goal),
    )
    assert formats
    assert all(formats)
    assert answer.gradient.stride() == x.stride()


def test_nothing_is_asked_for_an_empty_batch_of_draws() -> None:
    logits = EOT(NoisyLinear(Linear(4), 0.1), 3)(images(2)[:0])
    assert logits.shape == (3, 0, 4)


@pytest.mark.parametrize(("draws", "votes", "most_images"), [(0, 0, 1), (2, 1, 1), (1, -1, 1), (1, 0, 0)])
def test_impossible_numbers_are_refused(draws: int, votes: int, most_images: int) -> None:
    with pytest.raises(ValueError, match="EOT takes draws >= 1"):
        EOT(network(), draws, votes, most_images)


def test_a_network_of_this_project_can_be_asked() -> None:
    logits = EOT(RobustNet(ResNet20()).eval(), 3)(torch.rand(2, 3, 8, 8))
    assert logits.shape == (3, 2, 10)
    assert not torch.equal(logits[0], logits[1])
