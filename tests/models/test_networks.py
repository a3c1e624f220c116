"""Networks against published parameter counts, closed forms and torchvision itself."""

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import pytest
import torch
import torchvision.models as tv
from torch import nn

from models import VGG16, Normalize, Normalized, ResNet18, ResNet20, ResNet50
from models.resnet import Block, Stem


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def test_resnet20_has_the_parameters_of_the_published_weights() -> None:
    blocks = [
        f"layer{stage}.{i}.{name}{k}.{kind}"
        for stage in (1, 2, 3)
        for i in range(3)
        for k in (1, 2)
        for name, kinds in {"conv": ["weight"], "bn": ["weight", "bias"]}.items()
        for kind in kinds
    ]
    ends = ["conv1.weight", "bn1.weight", "bn1.bias", "linear.weight", "linear.bias"]
    network = ResNet20()
    assert {name for name, _ in network.named_parameters()} == {*ends, *blocks}
    assert count(network) == 269_722


def test_resnet20_weights_start_at_the_stated_scale() -> None:
    weight = ResNet20().layer3[2].get_submodule("conv2").get_parameter("weight")
    # 36,864 draws: 2 % are more than five standard errors of their deviation.
    assert weight.std().item() == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.02)


@pytest.mark.parametrize("size", [7, 8, 32])
@pytest.mark.parametrize(("zeros", "front"), [("after", 0), ("around", 2)])
def test_shortcut_is_every_other_pixel_and_zeros(size: int, zeros: str, front: int) -> None:
    block = Block(4, 8, stride=2, zeros=front).eval()
    nn.init.zeros_(block.conv2.weight)
    x = torch.rand(2, 4, size, size)
    expected = torch.zeros_like(block.conv1(x))
    expected[:, front : front + 4] = x[:, :, ::2, ::2]
    before = x.clone()
    assert torch.equal(block(x), expected)
    assert torch.equal(x, before)


def test_zeros_around_the_shortcut_are_the_same_network_with_its_channels_reordered() -> None:
    after, around = ResNet20(zeros="after").eval(), ResNet20(zeros="around").eval()
    # In "after" a shortcut fills the first half of the channels, in "around" the middle half.
    second = torch.cat([torch.arange(16, 24), torch.arange(16), torch.arange(24, 32)])
    third = torch.cat([torch.arange(32, 48), second, torch.arange(48, 64)])
    order = {"layer2": second, "layer3": third, "linear": third}
    weights = {}
    for name, value in after.state_dict().items():
        stage = order.get(name.split(".")[0])
        if stage is not None and value.dim() > 0 and name.split(".")[0] != "linear":
            value = value[stage] if not name.endswith("conv2.weight") else value[stage][:, stage]
            into = second if name.startswith("layer3.0") else stage
            if name.endswith("conv1.weight") and name != "layer2.0.conv1.weight":
                value = value[:, into]
        weights[name] = value[:, third] if name == "linear.weight" else value
    around.load_state_dict(weights)
    x = torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(around(x), after(x))


def test_resnet20_can_be_traced() -> None:
    network = ResNet20().eval()
    x = torch.rand(2, 3, 32, 32)
    assert torch.equal(torch.fx.symbolic_trace(network)(x), network(x))


@pytest.mark.parametrize(
    ("build", "reference", "parameters"),
    [(ResNet18, tv.resnet18, 11_689_512), (ResNet50, tv.resnet50, 25_557_032)],
)
def test_imagenet_stem_is_torchvisions_network(
    build: type[ResNet18], reference: Callable[[], nn.Module], parameters: int
) -> None:
    network, expected = build(1000, stem="imagenet").eval(), reference().eval()
    assert count(network) == parameters  # as in torchvision's documentation of the weights
    network.load_state_dict(expected.state_dict())
    x = torch.rand(1, 3, 224, 224)
    assert torch.equal(network(x), expected(x))


@pytest.mark.parametrize("build", [ResNet18, ResNet50])
@pytest.mark.parametrize(("stem", "size"), [("cifar", 4), ("maxpool", 2), ("imagenet", 1)])
def test_stem_sets_the_size_of_the_last_maps(build: type[ResNet18], stem: Stem, size: int) -> None:
    network = build(7, in_channels=1, stem=stem).eval()
    shapes = []
    network.avgpool.register_forward_pre_hook(lambda _, inputs: shapes.append(inputs[0].shape[-2:]))
    assert network(torch.rand(1, 1, 32, 32)).shape == (1, 7)
    assert shapes == [(size, size)]


@pytest.mark.parametrize(
    ("network", "shape"),
    [
        (ResNet20(7, in_channels=1), (2, 1, 8, 8)),
        (ResNet20(7, zeros="around"), (2, 3, 32, 32)),
        (VGG16(7), (2, 3, 32, 32)),
        (VGG16(7, in_channels=1), (2, 1, 32, 32)),
    ],
    ids=["resnet20-8x8", "resnet20", "vgg16", "vgg16-grey"],
)
def test_logits_have_one_value_for_each_class(network: nn.Module, shape: tuple[int, ...]) -> None:
    logits = network.eval()(torch.rand(shape))
    assert logits.shape == (shape[0], 7)
    assert logits.isfinite().all()


def test_vgg16_for_small_images_ends_in_one_linear_layer() -> None:
    network = VGG16()
    features = sum(p.numel() for name, p in tv.vgg16_bn(init_weights=False).features.named_parameters())
    assert count(network) == features + 512 * 10 + 10
    assert {p.device.type for p in network.parameters()} == {"cpu"}
    # The first convolution: fan-out 9 * 64, 1,728 draws, 10 % are six standard errors.
    weight = network.features[0].weight
    assert weight.std().item() == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.1)


def test_vgg16_for_large_images_is_torchvisions_network() -> None:
    with torch.device("meta"):  # 138 million weights that nobody needs to compute
        expected = {name: value.shape for name, value in tv.vgg16_bn().state_dict().items()}
    network = VGG16(1000, image_size=224).eval()
    assert {name: value.shape for name, value in network.state_dict().items()} == expected
    assert count(network) == 138_365_992  # as in torchvision's documentation of the weights
    with torch.no_grad():
        assert network(torch.rand(1, 3, 224, 224)).shape == (1, 1000)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (partial(ResNet18, stem=cast(Any, "tiny")), "stem 'tiny' is none of cifar, maxpool, imagenet"),
        (partial(ResNet50, stem=cast(Any, "")), "stem '' is none of cifar, maxpool, imagenet"),
        (partial(ResNet20, zeros=cast(Any, "before")), "zeros 'before' is none of after, around"),
        (lambda: VGG16(image_size=64), "image_size 64 is neither 32 nor 224"),
        (lambda: Normalize([0.5], [0.5, 0.5]), "one value for each channel"),
        (lambda: Normalize([], []), "one value for each channel"),
        (lambda: Normalize([0.5], [0.0]), "must be positive"),
        (lambda: Normalize([0.5] * 3, [0.5] * 3)(torch.rand(2, 1, 4, 4)), "1 channels, mean and std 3"),
    ],
)
def test_bad_arguments_are_named_in_one_line(build: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        build()
    assert "\n" not in str(error.value)


def test_normalized_gives_its_network_the_normalised_image() -> None:
    model = Normalized(nn.Identity(), mean=[0.5, 0.25], std=[0.5, 0.125])
    x = torch.tensor([0.5, 0.5]).view(1, 2, 1, 1)
    assert model(x).flatten().tolist() == [0.0, 2.0]


def test_normalisation_adds_nothing_to_the_state_dict_but_moves_with_the_module() -> None:
    network = ResNet20()
    model = Normalized(network, [0.5] * 3, [0.25] * 3)
    assert list(model.state_dict()) == [f"network.{name}" for name in network.state_dict()]
    assert model.double().normalize.mean.dtype == torch.float64
