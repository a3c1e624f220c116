"""How channels stand in a model, alone and as a chain, and how an attacker sees them there."""

import copy
from collections.abc import Callable

import pytest
import torch
import yaml
from jsonargparse import ArgumentParser
from torch import Tensor, nn

from attacks.views import Exact, Oblivious, StraightThrough, Surrogate, View
from defenses import (
    Brightness,
    Chain,
    Channel,
    ColourDepth,
    Defended,
    FFTCompression,
    Gauss,
    Identity,
    InverseFFTCompression,
    Laplace,
    PapersLaplace,
    Stream,
    SVDCompression,
    Uniform,
    drawing_from,
    has_shared_draws,
    is_random,
    standing_in,
)


class Times(Channel):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def transform(self, x: Tensor) -> Tensor:
        return x * self.factor


class SharedNoise(Gauss):
    shared = True


class Cubes(nn.Module):
    """Logits whose derivative depends on where it is taken."""

    def forward(self, x: Tensor) -> Tensor:
        return (x**3).flatten(1)


# What stands behind one another in the papers, and a chain in a chain.
CHAINS: dict[str, Callable[[], list[Channel]]] = {
    "CD+FC": lambda: [ColourDepth(4), FFTCompression(50)],
    "FC+CD": lambda: [FFTCompression(50, "corner_disks"), ColourDepth(4)],
    "CD+uniform": lambda: [ColourDepth(4), Uniform(0.02)],
    "FC+uniform": lambda: [FFTCompression(50), Uniform(0.02)],
    "nested": lambda: [Times(0.5), Chain([ColourDepth(3), Chain([Times(3.0)])]), SVDCompression(50)],
    "none": list,
}
VIEWS: list[View] = [
    Exact(),
    StraightThrough(),
    StraightThrough(everywhere=True),
    StraightThrough(at_image=True),
    Surrogate(Times(0.25)),
    Surrogate(Laplace(0.1), everywhere=True),
    Oblivious(),
]

every_chain = pytest.mark.parametrize("name", CHAINS)


def seen(view: View, model: nn.Module) -> tuple[Tensor, Tensor]:
    """The answer under a view and its gradient."""
    x = torch.rand(2, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(5)).requires_grad_()
    with drawing_from(Stream(1)):
        answer = view.of(model)(x)
    (gradient,) = torch.autograd.grad((answer * torch.linspace(0, 1, 48)).sum(), x)
    return answer, gradient


def test_channels_are_passed_in_order_and_can_be_stood_in_for() -> None:
    model = Defended(nn.Flatten(), [ColourDepth(1), Times(0.25)])
    x = torch.full((1, 1, 1, 1), 0.7)
    assert model(x).item() == 0.25
    with standing_in(lambda channel, images: images + 1):
        assert model(x).item() == pytest.approx(2.7)
    assert model(x).item() == 0.25
    assert model.network is model.get_submodule("network")


@every_chain
@pytest.mark.parametrize("view", VIEWS, ids=str)
def test_an_attacker_sees_a_chain_as_its_members_in_a_row(view: View, name: str) -> None:
    if name == "none" and isinstance(view, Surrogate):
        pytest.skip("nothing to stand in for")
    row, chain = Defended(Cubes(), CHAINS[name]()), Defended(Cubes(), [Chain(CHAINS[name]())])
    for in_a_row, chained in zip(seen(view, row), seen(view, chain), strict=True):
        assert torch.equal(in_a_row, chained)


@every_chain
@pytest.mark.parametrize("everywhere", [False, True])
def test_an_attacker_can_assume_a_chain(name: str, everywhere: bool) -> None:
    model = Defended(Cubes(), [Brightness(), Gauss(0.5)])
    assumed = seen(Surrogate(Chain(CHAINS[name]()), everywhere), model)
    expected = seen(StraightThrough(everywhere), Defended(Cubes(), CHAINS[name]()))
    for answer, wanted in zip(assumed, expected, strict=True):
        assert torch.equal(answer, wanted)


def test_a_chain_goes_round_its_members_without_a_derivative_only() -> None:
    x = torch.rand(2, 3, 4, 4, requires_grad=True)
    compression, depth = FFTCompression(50), ColourDepth(3)
    model = Defended(Cubes(), [Chain([compression, depth])])
    (gradient,) = torch.autograd.grad(StraightThrough().of(model)(x).sum(), x)
    # The compression is a symmetric linear map: the gradient of the network behind the chain goes back through it.
    torch.testing.assert_close(gradient, compression(3 * depth(compression(x)) ** 2).detach())


def test_a_chain_is_what_its_members_are() -> None:
    quiet = Chain([Identity(), FFTCompression(50)])
    assert (quiet.random, quiet.shared, quiet.differentiable) == (False, False, True)
    assert not Chain([FFTCompression(50), ColourDepth(3)]).differentiable
    loud = Chain([ColourDepth(3), Gauss(0.1)])
    assert (is_random(loud), has_shared_draws(loud)) == (True, False)
    assert has_shared_draws(Chain([SharedNoise(0.1), Gauss(0.1)]))
    assert not is_random(Chain([SharedNoise(0.0)]))


def test_distances_are_known_where_one_member_moves_images() -> None:
    shape = (3, 8, 8)
    assert Identity().expected_l2(shape) == Chain([]).expected_l2(shape) == 0
    assert Chain([Identity(), Gauss(0.1)]).expected_l2(shape) == Gauss(0.1).expected_l2(shape)
    assert Chain([Gauss(0.1), Uniform(0.1)]).expected_l2(shape) is None
    assert Chain([Gauss(0.0), ColourDepth(3)]).expected_l2(shape) is None
    assert FFTCompression(50).expected_l2(shape) is None


EVERY = [
    Identity(),
    ColourDepth(3),
    Brightness(),
    FFTCompression(30),
    InverseFFTCompression(30),
    SVDCompression(30),
    Gauss(0.1),
    Laplace(0.1),
    Chain([ColourDepth(3), Uniform(0.1)]),
]


@pytest.mark.parametrize("channel", EVERY, ids=lambda channel: type(channel).__name__)
def test_channels_are_copied_and_have_no_state(channel: Channel) -> None:
    x = torch.rand(2, 3, 8, 8)
    with drawing_from(Stream(0)):
        expected = channel(x)
    with drawing_from(Stream(0)):
        assert torch.equal(copy.deepcopy(channel)(x), expected)
    assert not channel.state_dict()


def test_a_defended_network_is_written_in_yaml() -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--model", type=nn.Module)
    text = """
    class_path: defenses.Defended
    init_args:
      network: {class_path: torch.nn.Flatten}
      channels:
      - class_path: defenses.Chain
        init_args:
          channels:
          - {class_path: defenses.ColourDepth, init_args: {values: 5}}
          - {class_path: defenses.FFTCompression, init_args: {percent: 50, mask: corner_disks}}
      - {class_path: defenses.SVDCompression, init_args: {percent: 50}}
      - {class_path: defenses.Brightness, init_args: {shift: 43}}
      - {class_path: defenses.PapersLaplace, init_args: {sigma: 0.03}}
    """
    model = parser.instantiate(parser.parse_object({"model": yaml.safe_load(text)})).model
    (depth, fft), svd, brightness, noise = model.channels[0].channels, *model.channels[1:]
    assert (depth.values, fft.percent, fft.mask, svd.percent, brightness.shift) == (5, 50, "corner_disks", 50, 43)
    assert noise.std == PapersLaplace(0.03).std
