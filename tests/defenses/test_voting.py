"""Votes against counting by hand, gradients against finite differences, abstention against the exact test."""

import copy
from collections import Counter

import numpy as np
import pytest
import torch
from scipy.stats import binom, binomtest
from torch import Tensor, nn

from attacks import PGD, Linf, StraightThrough
from defenses import (
    ColourDepth,
    Defended,
    Gauss,
    ParamNet,
    Stream,
    drawing_from,
    has_shared_draws,
    is_random,
    silenced,
)
from defenses.voting import Vote, abstaining, in_parts
from tests.attacks.toys import RANDOM, SHARED, Linear, NoisyLinear, images, network


class Recorded(nn.Module):
    """Keeps all answers, and how many images each pass had."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.sizes: list[int] = []
        self.logits: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x)
        self.sizes.append(len(x))
        self.logits.append(logits.detach())
        return logits

    def draws(self, batch: int) -> Tensor:
        """[votes, batch, classes]."""
        return torch.cat([logits.view(-1, batch, logits.shape[-1]) for logits in self.logits])


@pytest.mark.parametrize("name", RANDOM)
@pytest.mark.parametrize("most_images", [3, 7, 512])
def test_votes_are_counted(name: str, most_images: int) -> None:
    recorded, x = Recorded(RANDOM[name]().eval()), images(3)
    with torch.no_grad():
        logits = Vote(recorded, 11, most_images=most_images)(x)
    draws = recorded.draws(3)
    assert len(draws) == 11
    for row in range(3):
        ballot = Counter(int(answer.argmax()) for answer in draws[:, row])
        expected = [np.log((ballot[k] + 0.5) / (11 + 5 / 2)) for k in range(5)]
        torch.testing.assert_close(logits[row], torch.tensor(expected, dtype=torch.float64))
    torch.testing.assert_close(logits.exp().sum(1), torch.ones(3, dtype=torch.float64))


@pytest.mark.parametrize("name", RANDOM)
@pytest.mark.parametrize("most_images", [3, 7, 512])
def test_probabilities_are_averaged(name: str, most_images: int) -> None:
    recorded, x = Recorded(RANDOM[name]().eval()), images(3)
    logits = Vote(recorded, 11, "probabilities", most_images)(x)
    mean = sum(answer.exp() / answer.exp().sum(1, keepdim=True) for answer in recorded.draws(3)) / 11
    torch.testing.assert_close(logits.detach().exp(), mean)


@pytest.mark.parametrize("name", SHARED)
def test_votes_of_noisy_weights_are_those_of_a_loop(name: str) -> None:
    model, x = RANDOM[name]().eval(), images(3)
    with drawing_from(Stream(1)):
        counts = Vote(model, 6).counts(x)
    with drawing_from(Stream(1)), torch.no_grad():
        answers = torch.stack([model(x).argmax(1) for _ in range(6)])
    assert counts.dtype == torch.int64
    assert torch.equal(counts, torch.stack([(answers == k).sum(0) for k in range(5)], 1))


class Alternating(nn.Module):
    """Answers class 3 and class 1 in turn."""

    def __init__(self) -> None:
        super().__init__()
        self.passes = 0

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        return torch.eye(4)[3 if self.passes % 2 else 1].expand(len(x), 4)


@pytest.mark.parametrize(("votes", "label"), [(4, 1), (5, 3)])
def test_the_lowest_of_equally_many_votes_wins(votes: int, label: int) -> None:
    logits = Vote(Alternating(), votes, most_images=1)(images(1))
    assert logits.argmax().item() == label


@pytest.mark.parametrize(
    ("batch", "most_images", "expected"), [(3, 512, [21]), (3, 9, [9, 6, 6]), (3, 1, [3] * 7), (600, 512, [600] * 7)]
)
def test_no_pass_holds_more_images_than_allowed(batch: int, most_images: int, expected: list[int]) -> None:
    recorded = Recorded(NoisyLinear(Linear(4), 0.1))
    assert Vote(recorded, 7, most_images=most_images)(images(batch)).shape == (batch, 4)
    assert recorded.sizes == expected
    assert in_parts(7, 3) == [3, 2, 2]


def gradient_of(vote: Vote, x: Tensor, weight: Tensor) -> Tensor:
    image = x.clone().requires_grad_()
    with drawing_from(Stream(1)):
        value = (vote(image) * weight).sum()
    (gradient,) = torch.autograd.grad(value, image)
    return gradient


@pytest.mark.parametrize("name", ["RobustNet", "PNIWeights", "Laplace"])
@pytest.mark.parametrize("most_images", [4, 512])
def test_the_gradient_of_probabilities_is_exact(name: str, most_images: int) -> None:
    """Of one fixed draw, which every way back has to find again."""
    x, weight = images(2), torch.randn(2, 5, dtype=torch.float64)
    vote = Vote(RANDOM[name]().eval(), 5, "probabilities", most_images)
    gradient, direction, step = gradient_of(vote, x, weight), torch.randn_like(x), 1e-5

    def value(along: float) -> float:
        with drawing_from(Stream(1)):
            # With a graph, as draws are taken in another order without one.
            return (vote((x + along * direction).requires_grad_()) * weight).sum().item()

    slope = (value(step) - value(-step)) / (2 * step)
    assert (gradient * direction).sum().item() == pytest.approx(slope, rel=1e-6)


@pytest.mark.parametrize("name", RANDOM)
def test_the_gradient_of_labels_is_that_of_probabilities(name: str) -> None:
    x, weight, model = images(2), torch.randn(2, 5, dtype=torch.float64), RANDOM[name]().eval()
    gradients = [gradient_of(Vote(model, 5, mode, 4), x, weight) for mode in ("labels", "probabilities")]
    assert gradients[0].any()
    assert torch.equal(*gradients)


def test_a_pass_is_repeated_under_the_view_it_was_made_under(monkeypatch: pytest.MonkeyPatch) -> None:
    """Straight through the rounding, though the view is left before the way back."""
    model = Vote(Defended(NoisyLinear(Linear(3), 0.1), [ColourDepth(2)]), 6, "probabilities", 4)
    x, weight = images(2), torch.randn(2, 3, dtype=torch.float64)
    seen = StraightThrough().of(model)
    gradient = gradient_of(seen, x, weight)
    monkeypatch.setattr("defenses.voting.checkpoint", lambda function, x, use_reentrant: function(x))
    assert gradient.any()
    torch.testing.assert_close(gradient, gradient_of(seen, x, weight))


@pytest.mark.parametrize("mode", ["labels", "probabilities"])
@pytest.mark.parametrize("most_images", [8, 512])
def test_attacks_reach_through_the_votes(mode: str, most_images: int) -> None:
    linear, x = Linear(3), images(4)
    y = linear(x).argmax(1)
    vote = Vote(NoisyLinear(linear, 0.01), 9, mode, most_images)
    assert torch.equal(vote(x).argmax(1), y)
    trace = PGD(Linf(0.3), step_size=0.1, steps=10).run(vote, x, y)
    assert not trace.zero_gradient.any()
    assert (vote(trace.x_adv).argmax(1) != y).all()


def test_it_is_as_random_as_its_network() -> None:
    assert not is_random(Vote(network(), 3))
    assert is_random(Vote(RANDOM["Gauss"](), 3))
    assert not has_shared_draws(Vote(RANDOM["Gauss"](), 3))
    assert has_shared_draws(Vote(ParamNet(network()), 3))
    vote = Vote(Defended(network(), [Gauss(5.0)]), 3, "probabilities")
    with silenced(), torch.no_grad():
        torch.testing.assert_close(vote(images(2)), network_logits(vote, images(2)))


def network_logits(vote: Vote, x: Tensor) -> Tensor:
    """Votes of a silent network are its probabilities."""
    return vote.network(x).log_softmax(1)


def test_copies_and_states() -> None:
    vote, x = Vote(RANDOM["RobustNet"]().eval(), 4), images(2)
    twin = copy.deepcopy(vote)
    twin.load_state_dict(vote.state_dict())
    assert set(vote.state_dict()) == {f"network.{key}" for key in vote.network.state_dict()}
    with drawing_from(Stream(3)):
        first = vote(x)
    with drawing_from(Stream(3)):
        assert torch.equal(twin(x), first)


def test_type_and_memory_format_reach_the_network() -> None:
    seen = []

    class Watch(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append((x.dtype, x.is_contiguous(memory_format=torch.channels_last)))
            return x.mean((2, 3))

    x = torch.rand(2, 3, 4, 4).to(torch.bfloat16).contiguous(memory_format=torch.channels_last)
    assert Vote(Watch(), 3)(x).dtype == torch.float32
    assert seen == [(torch.bfloat16, True)]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"votes": 0}, "^votes must be a whole number >= 1, got 0$"),
        ({"votes": 2.5}, "^votes must be a whole number >= 1, got 2.5$"),
        ({"votes": 1, "most_images": 0}, "^most_images must be a whole number >= 1, got 0$"),
        ({"votes": 1, "mode": "mean"}, "^mode must be labels or probabilities, got mean$"),
    ],
)
def test_impossible_settings_are_refused(setting: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Vote(network(), **setting)


@pytest.mark.parametrize("alpha", [0.001, 0.05, 0.5])
def test_abstention_is_the_two_sided_binomial_test(alpha: float) -> None:
    pairs = [(first, second) for first in range(1, 31) for second in range(first + 1)]
    counts = torch.tensor([[second, 0, first] for first, second in pairs])
    labels = abstaining(counts, alpha)
    for (first, second), label in zip(pairs, labels.tolist(), strict=True):
        certain = binomtest(first, first + second, 0.5).pvalue <= alpha
        assert label == (2 if certain else -1), (first, second)


def test_how_often_it_abstains() -> None:
    """20,000 images whose two classes have probabilities p and 1 - p, 101 votes; error probability 1e-6 each."""
    generator, n, votes, alpha = np.random.default_rng(0), 20_000, 101, 0.05
    k = np.arange(votes + 1)
    rejected = np.array([binomtest(int(hits), votes).pvalue <= alpha for hits in k])
    for p in (0.5, 0.6, 0.75):
        hits = generator.binomial(votes, p, n)
        labels = abstaining(torch.from_numpy(np.stack([hits, votes - hits], 1)), alpha)
        decided = binom.pmf(k, votes, p)[rejected].sum()
        assert binomtest(int((labels >= 0).sum()), n, decided).pvalue > 1e-6
        wrong = binom.pmf(k, votes, p)[rejected & (k < votes / 2)].sum()
        assert binomtest(int((labels == 1).sum()), n, wrong).pvalue > 1e-6
    assert decided > 0.99


@pytest.mark.parametrize("alpha", [0.0, 1.0, -1.0, float("nan")])
def test_impossible_levels_are_refused(alpha: float) -> None:
    with pytest.raises(ValueError, match=r"^alpha must lie in \(0, 1\), got"):
        abstaining(torch.ones(1, 2), alpha)
