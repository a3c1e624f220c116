"""Thermometer codes: their bits, a network that reads them, and what an attacker sees."""

import copy
import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from attacks import Exact, Oblivious, StraightThrough, Surrogate, View
from defenses import Channel, Defended, Gauss
from defenses.squeezing import MedianFilter
from defenses.thermometer import Thermometer, ThermometerCode
from models import ResNet20
from tests.defenses.toys import images


def test_thermometer_codes_are_those_of_the_paper() -> None:
    values = torch.tensor([0.13, 0.66, 0.92, 0.0, 1.0])  # the first three: table 1 of Buckman et al.
    bits = ThermometerCode(10)(values.view(5, 1, 1, 1)).view(5, 10).long()
    rows = ["".join(map(str, row)) for row in bits.tolist()]
    assert rows == ["1000000000", "1111110000", "1111111110", "0000000000", "1111111110"]
    x = images(2)
    code = ThermometerCode(4)(x)
    for colour, bit in itertools.product(range(3), range(4)):
        assert torch.equal(code[:, 4 * colour + bit], (x[:, colour] > (bit + 1) / 4).float())


def test_a_network_widened_for_codes_answers_as_to_rounded_pixels() -> None:
    plain = ResNet20().eval()
    model, x = Thermometer(copy.deepcopy(plain), 8).eval(), images()
    rounded = ((x * 8).ceil() - 1).clamp_min(0) / 8
    torch.testing.assert_close(model(x), plain(rounded))
    assert torch.equal(copy.deepcopy(model)(x), model(x))
    again = Thermometer(ResNet20(), 8).eval()
    again.load_state_dict(model.state_dict())
    assert torch.equal(again(x), model(x))
    last = x.contiguous(memory_format=torch.channels_last)
    assert model.channels(last).is_contiguous(memory_format=torch.channels_last)
    assert model.channels(x).is_contiguous()


def test_attackers_see_the_soft_code_behind_a_thermometer() -> None:
    x = images(dtype=torch.float64)
    conv = nn.Conv2d(3, 1, 8, dtype=torch.float64)
    model = Thermometer(nn.Sequential(conv, nn.Flatten()), 4)
    nn.init.normal_(conv.weight)
    seen = StraightThrough().of(model)
    assert torch.equal(seen(x), model(x))

    def slope(of: Callable[[Tensor], Tensor]) -> Tensor:
        at = x.clone().requires_grad_()
        return torch.autograd.grad(of(at).sum(), at, materialize_grads=True)[0]

    # Bit k of 1 to 4 moves with a value where the value is above k / 4.
    weights = conv.weight.detach().view(3, 4, 8, 8)
    expected = sum(weights[:, k - 1] * (x > k / 4) for k in range(1, 5))
    torch.testing.assert_close(slope(seen), expected)
    assert not slope(Exact().of(model)).any()


@pytest.mark.parametrize("view", [Oblivious(), StraightThrough(at_image=True), Surrogate(Gauss(0.0))], ids=str)
@pytest.mark.parametrize("in_front", [[], [MedianFilter(3)]], ids=["alone", "behind a channel"])
def test_what_reaches_a_thermometers_network_is_always_encoded(view: View, in_front: list[Channel]) -> None:
    x = images().requires_grad_()
    model = Defended(Thermometer(ResNet20(), 4), in_front).eval()
    logits = view.of(model)(x)
    expected = model.network(x) if not isinstance(view, StraightThrough) else model(x)
    torch.testing.assert_close(logits, expected)
    assert torch.autograd.grad(logits.square().sum(), x)[0].any()
