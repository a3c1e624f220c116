"""What each view answers, and which gradient it shows."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attacks import (
    EOT,
    PGD,
    CrossEntropy,
    Exact,
    Frozen,
    Goal,
    Linf,
    Oblivious,
    StraightThrough,
    Surrogate,
    View,
    Voted,
    input_gradient,
    undisturbed,
)
from attacks.shown import Shown, innermost
from defenses import (
    Channel,
    ColourDepth,
    Defended,
    Gauss,
    GaussianNoise,
    Laplace,
    ParamNet,
    RobustNet,
    Stream,
    drawing_from,
    has_shared_draws,
    is_random,
)
from models import ResNet20
from tests.attacks.toys import RANDOM, Linear, images
from tests.attacks.toys import network as small_network

Y = torch.tensor([0, 1, 2, 3])


class Square(nn.Module):
    """Logits of a linear model at x^2: its gradient tells at which image it was taken."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = Linear(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x**2)


class Halving(Channel):
    """x / 2, which has a derivative."""

    def transform(self, x: Tensor) -> Tensor:
        return x / 2


every_noise = pytest.mark.parametrize("name", RANDOM)


def gradient_of(model: Any, x: Tensor, y: Tensor = Y) -> Tensor:
    return input_gradient(model, x, partial(CrossEntropy(), goal=Goal(y))).gradient


def through(network: nn.Module, at: Tensor) -> Tensor:
    """The gradient of the network alone at some images."""
    return gradient_of(network, at)


def test_rounding_has_no_gradient_and_straight_through_has_the_networks_behind_it() -> None:
    network, x = Square(), images()
    model = Defended(network, [ColourDepth(2)])
    behind = model.channels(x)
    assert not torch.equal(behind, x)
    assert (gradient_of(Exact().of(model), x) == 0).all()
    torch.testing.assert_close(gradient_of(StraightThrough().of(model), x), through(network, behind))


def test_the_papers_variant_takes_the_gradient_at_the_image() -> None:
    network, x = Square(), images()
    model = Defended(network, [ColourDepth(2)])
    view = StraightThrough(at_image=True).of(model)
    torch.testing.assert_close(view(x), model(x))
    logits = network(x.requires_grad_())
    # Cross entropy of the answer behind the channel, the network's derivative at the image.
    outer = model(x.detach()).softmax(-1) - nn.functional.one_hot(Y, 4)
    (expected,) = torch.autograd.grad(logits, x, outer)
    torch.testing.assert_close(gradient_of(view, x.detach()), expected)


def test_the_papers_variant_passes_twice_only_where_a_gradient_is_wanted() -> None:
    model, x, passes = Defended(Square(), [ColourDepth(2)]), images(), []
    model.register_forward_hook(lambda *_: passes.append(1))
    view = StraightThrough(at_image=True).of(model)
    view(x)
    assert len(passes) == 1
    view(x.requires_grad_())
    assert len(passes) == 3
    with torch.no_grad():
        view(x)
    assert len(passes) == 4


def test_a_derivative_that_exists_is_taken_unless_everywhere_says_otherwise() -> None:
    network, x = Square(), images()
    model = Defended(network, [Halving()])
    exact = gradient_of(Exact().of(model), x)
    torch.testing.assert_close(exact, through(network, x / 2) / 2)
    torch.testing.assert_close(gradient_of(StraightThrough().of(model), x), exact)
    torch.testing.assert_close(gradient_of(StraightThrough(everywhere=True).of(model), x), through(network, x / 2))


def test_a_chain_of_channels_is_passed_in_order() -> None:
    network, x = Square(), images()
    model = Defended(network, [Halving(), ColourDepth(3)])
    behind = model.channels(x)
    torch.testing.assert_close(gradient_of(StraightThrough().of(model), x), through(network, behind) / 2)
    torch.testing.assert_close(gradient_of(StraightThrough(everywhere=True).of(model), x), through(network, behind))


@pytest.mark.parametrize("view", [Exact(), StraightThrough(), StraightThrough(everywhere=True)], ids=str)
def test_a_vanished_gradient_is_told_through_the_exact_view_only(view: View) -> None:
    model, x = Defended(Linear(4), [ColourDepth(2)]), images()
    trace = PGD(Linf(0.1), 0.05, 2, random_start=False).run(view.of(model), x, Y)
    assert trace.zero_gradient.tolist() == [isinstance(view, Exact)] * 4


FAITHFUL: list[View] = [
    Exact(),
    StraightThrough(),
    StraightThrough(everywhere=True),
    StraightThrough(at_image=True),
]


@pytest.mark.parametrize("view", FAITHFUL, ids=str)
@pytest.mark.parametrize("name", [*RANDOM, "ColourDepth"])
def test_faithful_views_answer_what_the_model_answers(view: View, name: str) -> None:
    model = RANDOM[name]().eval() if name in RANDOM else Defended(small_network(), [ColourDepth(3), Halving()])
    x = images()
    assert view.faithful
    with drawing_from(Stream(3)):
        expected = model(x)
    with drawing_from(Stream(3)):
        answer = view.of(model)(x)
    # The variant at the image adds here - here, which is 0.
    assert torch.equal(answer, expected)


@pytest.mark.parametrize("view", [Surrogate(Laplace(0.1)), Oblivious(), Frozen()], ids=str)
def test_the_others_do_not(view: View) -> None:
    assert not view.faithful


def test_a_surrogate_stands_in_for_the_first_channel_alone() -> None:
    network, x = Square(), images()
    model = Defended(network, [Gauss(0.5), ColourDepth(1)])
    view = Surrogate(ColourDepth(2)).of(model)
    at = ColourDepth(2)(x)
    torch.testing.assert_close(view(x), network(at))
    torch.testing.assert_close(gradient_of(view, x), through(network, at))
    with drawing_from(Stream(1)):
        answer = Surrogate(Laplace(0.1)).of(model)(x)
    with drawing_from(Stream(1)):
        expected = network(Laplace(0.1)(x))
    torch.testing.assert_close(answer, expected)
    halved = gradient_of(Surrogate(Halving()).of(model), x)
    torch.testing.assert_close(halved, through(network, x / 2) / 2)
    straight = gradient_of(Surrogate(Halving(), everywhere=True).of(model), x)
    torch.testing.assert_close(straight, through(network, x / 2))


def test_a_surrogate_leaves_other_models_alone() -> None:
    model, x = Defended(Linear(4), [ColourDepth(2)]), images()
    view = Surrogate(Halving()).of(model)
    expected = model(x)
    view(x)
    torch.testing.assert_close(model(x), expected)


@pytest.mark.parametrize("model", [Linear(4), lambda x: x.flatten(1)], ids=["module", "function"])
def test_a_surrogate_needs_a_channel(model: Any) -> None:
    with pytest.raises(ValueError, match=r"Surrogate\(Gauss\(std=0.1\)\) has nothing to stand in for: .* no channel"):
        Surrogate(Gauss(0.1)).of(model)


def test_oblivious_is_the_bare_network() -> None:
    x = images()
    network = small_network()
    expected, gradient = network(x), gradient_of(network, x)
    for model in (Defended(network, [Gauss(0.3), ColourDepth(1)]), RobustNet(network)):
        torch.testing.assert_close(Oblivious().of(model)(x), expected)
        torch.testing.assert_close(gradient_of(Oblivious().of(model), x), gradient)


@every_noise
def test_oblivious_silences_every_noise(name: str) -> None:
    model, x = RANDOM[name]().eval(), images()
    view = Oblivious().of(model)
    assert torch.equal(view(x), view(x))
    assert not torch.equal(model(x), model(x))


@every_noise
def test_frozen_is_a_function_of_the_image(name: str) -> None:
    model, x = RANDOM[name]().eval(), images()
    x[1] = x[0]
    view = Frozen(3).of(model)
    with torch.no_grad():
        together = view(x)
        assert torch.equal(view(x), together)  # the same draw at every pass
        torch.testing.assert_close(together[0], together[1])  # for all images
        # PNI scales noise by the deviation of a whole batch's activations: batch mates matter to the model itself.
        if name != "PNIActivations":
            torch.testing.assert_close(torch.cat([view(image[None]) for image in x]), together)
        assert not torch.allclose(Frozen(4).of(model)(x), together)
        assert not torch.allclose(Oblivious().of(model)(x), together)


@every_noise
def test_frozen_is_a_draw_of_the_model(name: str) -> None:
    model, x = RANDOM[name]().eval(), images(1)
    with drawing_from(Stream.named(3, "frozen")):
        expected = model(x)
    torch.testing.assert_close(Frozen(3).of(model)(x), expected)


@every_noise
def test_frozen_takes_nothing_from_the_stream_around_it(name: str) -> None:
    model, x = RANDOM[name]().eval(), images()
    with drawing_from(Stream(0)):
        expected = model(x)
    with drawing_from(Stream(0)):
        Frozen().of(model)(x)
        assert torch.equal(model(x), expected)


@every_noise
def test_views_know_whether_they_are_random(name: str) -> None:
    model = RANDOM[name]().eval()
    shared = name in ("PNIWeights", "ParamNet")
    for view in FAITHFUL:
        assert is_random(view.of(model))
        assert has_shared_draws(view.of(model)) == shared
    for bare in (Frozen().of(model), Oblivious().of(model)):
        assert not is_random(bare)
        assert not has_shared_draws(bare)


def test_a_surrogate_is_random_if_it_or_the_network_is() -> None:
    noisy, quiet = Gauss(0.1), ColourDepth(3)
    for channel, network, random, shared in (
        (noisy, Linear(4), True, False),
        (quiet, Linear(4), False, False),
        (quiet, RobustNet(small_network(), GaussianNoise(0.1)), True, False),
        (quiet, ParamNet(small_network()), True, True),
        (noisy, ParamNet(small_network()), True, True),
    ):
        view = Surrogate(channel).of(Defended(network, [Gauss(0.2)]))
        assert is_random(view) == random
        assert has_shared_draws(view) == shared
        assert EOT(view, 2).one_by_one == shared


def test_a_model_that_is_not_random_has_views_that_are_not() -> None:
    model = Defended(small_network(), [ColourDepth(3)])
    for view in [*FAITHFUL, Oblivious(), Frozen()]:
        assert not is_random(view.of(model))


@pytest.mark.parametrize("view", [*FAITHFUL, Surrogate(ColourDepth(3)), Oblivious(), Frozen()], ids=str)
def test_batchnorm_is_folded_behind_nested_wrappers(view: View) -> None:
    network = ResNet20().double().eval()
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_(std=0.2)
            part.running_var.uniform_(0.5, 2)
    model = RobustNet(network) if isinstance(view, Frozen) else Defended(network, [ColourDepth(4)])
    x, y = torch.rand(2, 3, 8, 8, dtype=torch.float64), torch.tensor([0, 1])
    seen = EOT(view.of(model), 2)
    assert innermost(seen) is model
    expected, gradient = seen(x), gradient_of(seen, x, y)
    with undisturbed(seen):
        assert "forward" in vars(network.bn1)
        torch.testing.assert_close(seen(x), expected)
        torch.testing.assert_close(gradient_of(seen, x, y), gradient)
    assert "forward" not in vars(network.bn1)


@pytest.mark.parametrize("view", [*FAITHFUL, Surrogate(Gauss(0.1)), Oblivious(), Frozen()], ids=str)
def test_views_are_records(view: View) -> None:
    assert type(view).__name__ in repr(view)
    assert hash(view) == hash(view)
    shown = Shown(view.of(Defended(Linear(4), [ColourDepth(3)])), Y)
    assert shown(images()).shape == (4, 4)
    shown.check()


def test_voted_shows_the_mean_probability_of_as_many_passes() -> None:
    model, x = Defended(nn.Flatten(), [Gauss(0.5)]), torch.rand(3, 1, 2, 2)
    seen = Voted(20_000, most_images=60_000).of(model)
    with drawing_from(Stream(3)):
        shown = seen(x).exp()
    with drawing_from(Stream(4)):
        by_hand = torch.cat([model(x.expand(20_000, 1, 2, 2)).softmax(-1).mean(0, keepdim=True) for x in x.split(1)])
    # The std of a softmax probability is at most 1/2, so that 0.03 are 6 standard deviations of the difference.
    torch.testing.assert_close(shown, by_hand, atol=0.03, rtol=0)


def test_voted_refuses_what_is_no_module_and_no_vote() -> None:
    with pytest.raises(ValueError, match=r"^Voted takes a model that is a module, got function$"):
        Voted(2).of(lambda x: x)
    with pytest.raises(ValueError, match=r"^votes must be a whole number >= 1, got 0$"):
        Voted(0)
