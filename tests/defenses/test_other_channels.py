"""The field's other input defenses: what holds for each of them, what an attacker sees, what is refused."""

import copy
import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from attacks import Oblivious, StraightThrough
from defenses import Channel, Defended, Stream, frozen, is_random, silenced
from defenses.dropout import DropoutNet, DropoutNoise, InputDropout
from defenses.random_inputs import PixelDeflection, RandomDiscretisation, ResizePad
from defenses.squeezing import JPEG, MedianFilter, TotalVariation
from defenses.thermometer import Thermometer, ThermometerCode
from models import ResNet20
from tests.defenses.toys import drawn, images

CHANNELS: dict[str, Channel] = {
    "jpeg": JPEG(50),
    "median2": MedianFilter(2),
    "median3": MedianFilter(3),
    "tv": TotalVariation(0.05, keep=1, steps=10),
    "tv, random": TotalVariation(0.05, keep=0.5, steps=10),
    "resize": ResizePad(0.5),
    "deflection": PixelDeflection(20, 3),
    "discretisation": RandomDiscretisation(5, 0.05),
    "dropout": InputDropout(0.3),
}
RANDOM = [name for name, channel in CHANNELS.items() if channel.random]
EXACT = [name for name, channel in CHANNELS.items() if channel.differentiable]
THROUGH = [name for name in CHANNELS if name not in EXACT]

every_channel = pytest.mark.parametrize("name", CHANNELS)
every_random = pytest.mark.parametrize("name", RANDOM)


class Squares(nn.Module):
    """Two logits, sums of w x^2: the gradient tells at which images it was taken."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([(x**2).sum((1, 2, 3)), (x**2).flatten(1) @ torch.arange(x[0].numel(), dtype=x.dtype)], 1)


def gradient(model: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    weights = torch.tensor([1.0, 0.5], dtype=x.dtype)
    (slope,) = torch.autograd.grad((drawn(model, x) * weights).sum(), x, materialize_grads=True)
    return slope


@every_channel
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_images_keep_their_shape_dtype_layout_and_stay_untouched(
    name: str, dtype: torch.dtype, layout: torch.memory_format
) -> None:
    x = images(dtype=dtype).contiguous(memory_format=layout)
    before = x.clone()
    y = CHANNELS[name](x)
    assert (y.shape, y.dtype, y.stride()) == (x.shape, x.dtype, x.stride())
    assert torch.equal(x, before)
    assert not torch.equal(y, x)


@every_channel
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_randomness_is_what_the_channel_says(name: str, training: bool) -> None:
    channel, x = copy.deepcopy(CHANNELS[name]).train(training), images()
    assert torch.equal(drawn(channel, x), drawn(channel, x))
    assert torch.equal(drawn(channel, x), drawn(CHANNELS[name], x))
    assert torch.equal(channel(x), channel(x)) is not is_random(channel)
    with silenced():
        assert torch.equal(channel(x), channel(x))
    assert not channel.state_dict()


@every_random
def test_silence_is_the_image_or_total_variation_of_all_of_it(name: str) -> None:
    channel, x = CHANNELS[name], images()
    expected = CHANNELS["tv"](x) if isinstance(channel, TotalVariation) else x
    with silenced():
        assert torch.equal(channel(x), expected)


@every_random
def test_each_image_has_a_draw_of_its_own_that_ignores_the_others(name: str) -> None:
    channel, x = CHANNELS[name], images()
    others = torch.cat([x[:1], images(3)])
    assert torch.equal(drawn(channel, x)[0], drawn(channel, others)[0])
    copies = drawn(channel, x[:1].expand(4, -1, -1, -1))
    assert all(not torch.equal(a, b) for a, b in itertools.combinations(copies, 2))
    with frozen(Stream(0)):
        first, *rest = channel(x[:1].expand(4, -1, -1, -1))
    assert all(torch.equal(first, other) for other in rest)


@pytest.mark.parametrize("name", EXACT)
def test_exact_gradients_are_those_of_finite_differences(name: str) -> None:
    x = images(2, torch.float64, (2, 5, 4)).requires_grad_()
    channel = PixelDeflection(8, 2) if name == "deflection" else CHANNELS[name]
    assert torch.autograd.gradcheck(lambda x: drawn(channel, x), x)


@pytest.mark.parametrize("name", THROUGH)
def test_straight_through_is_the_networks_gradient_behind_the_channel(name: str) -> None:
    x, channel = images(), CHANNELS[name]
    model = Defended(Squares(), [channel])
    seen = StraightThrough().of(model)
    torch.testing.assert_close(gradient(seen, x), gradient(Squares(), drawn(channel, x)))
    assert torch.equal(drawn(seen, x), drawn(model, x))
    assert torch.equal(Oblivious().of(model)(x), Squares()(x))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: JPEG(0), "quality must be a whole number from 1 to 100, got 0"),
        (lambda: JPEG(101), "quality must be a whole number from 1 to 100, got 101"),
        (lambda: JPEG(7.5), "quality must be a whole number from 1 to 100, got 7.5"),
        (lambda: MedianFilter(0), "size must be a whole number >= 1, got 0"),
        (lambda: MedianFilter(2.5), "size must be a whole number >= 1, got 2.5"),
        (lambda: TotalVariation(0), "weight must be a finite number > 0, got 0"),
        (lambda: TotalVariation(float("nan")), "weight must be a finite number > 0, got nan"),
        (lambda: TotalVariation(keep=0), r"keep must lie in \(0, 1\], got 0"),
        (lambda: TotalVariation(keep=1.1), r"keep must lie in \(0, 1\], got 1.1"),
        (lambda: TotalVariation(steps=0), "steps must be a whole number >= 1, got 0"),
        (lambda: ResizePad(0), r"smallest must lie in \(0, 1\], got 0"),
        (lambda: ResizePad(1.5), r"smallest must lie in \(0, 1\], got 1.5"),
        (lambda: PixelDeflection(-1), "deflections must be a whole number >= 0, got -1"),
        (lambda: PixelDeflection(1, 0), "window must be a whole number >= 1, got 0"),
        (lambda: PixelDeflection(65)(images()), "deflections must be at most the number of pixels, 64, got 65"),
        (lambda: RandomDiscretisation(0, 0.1), "clusters must be a whole number >= 1, got 0"),
        (lambda: RandomDiscretisation(1, -0.1), "std must be a finite number >= 0, got -0.1"),
        (lambda: RandomDiscretisation(65, 0)(images()), "clusters must be at most the number of pixels, 64, got 65"),
        (lambda: InputDropout(1), r"rate must lie in \[0, 1\), got 1"),
        (lambda: DropoutNoise(-0.1), r"rate must lie in \[0, 1\), got -0.1"),
        (lambda: DropoutNet(nn.Conv2d(3, 3, 1), 0.1), "Conv2d has no Linear layer to put dropout before"),
        (lambda: ThermometerCode(1), "levels must be a whole number >= 2, got 1"),
        (lambda: Thermometer(ResNet20(), 0), "levels must be a whole number >= 2, got 0"),
        (lambda: Thermometer(nn.Linear(3, 3), 4), "Linear must begin with a convolution of one group to read codes"),
    ],
)
def test_impossible_parameters_are_refused(build: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        build()


@pytest.mark.parametrize("channel", [ResizePad(1.0), PixelDeflection(0), InputDropout(0.0)], ids=str)
def test_no_effect_is_the_image_itself(channel: Channel) -> None:
    x = images()
    assert channel(x) is x
    assert not is_random(channel)
