"""The folded network is the same function, and the network comes back as it was."""

import gc
import weakref
from collections.abc import Callable
from typing import TypeVar

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from models import VGG16, Normalized, ResNet18, ResNet20, ResNet50, folded_batchnorm

Network = TypeVar("Network", bound=nn.Module)


def randomised(network: Network) -> Network:
    """Give each BatchNorm statistics and an affine map that matter; return the network in evaluation mode."""
    for bn in network.modules():
        if isinstance(bn, nn.BatchNorm2d) and bn.running_mean is not None and bn.running_var is not None:
            nn.init.normal_(bn.running_mean, std=0.3)
            nn.init.uniform_(bn.running_var, 0.5, 2.0)
            if bn.affine:
                nn.init.uniform_(bn.weight, 0.5, 1.5)
                nn.init.normal_(bn.bias, std=0.3)
    return network.eval()


def small(bias: bool = True, affine: bool = True) -> nn.Sequential:
    conv, bn = nn.Conv2d(2, 4, 3, bias=bias), nn.BatchNorm2d(4, affine=affine)
    return nn.Sequential(conv, bn, nn.ReLU(inplace=True), nn.Flatten(), nn.LazyLinear(5))


def answer(network: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the logits and the gradient of a loss by the image."""
    x = x.clone().requires_grad_()
    logits = network(x)
    (gradient,) = torch.autograd.grad(logits.logsumexp(-1).sum(), x)
    return logits.detach(), gradient


def folded(network: nn.Module) -> int:
    """Count the modules whose `forward` is overridden."""
    return sum("forward" in vars(module) for module in network.modules())


def assert_same(network: nn.Module, x: Tensor, pairs: int, tolerance: float = 1e-10) -> None:
    expected = answer(network, x)
    with folded_batchnorm(network):
        assert folded(network) == 2 * pairs
        for value, reference in zip(answer(network, x), expected, strict=True):
            assert (value - reference).norm() <= tolerance * reference.norm()
    assert folded(network) == 0


NETWORKS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "resnet20": (ResNet20, 19),
    "resnet18": (ResNet18, 20),
    "resnet50": (lambda: ResNet50(stem="maxpool"), 53),
    "vgg16": (VGG16, 13),
    "normalized": (lambda: Normalized(ResNet20(), [0.5] * 3, [0.25] * 3), 19),
    "sequential": (lambda: nn.Sequential(nn.Identity(), ResNet20()), 19),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_logits_and_input_gradients_stay(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    build, pairs = NETWORKS[name]
    torch.manual_seed(0)
    network = randomised(build())
    size = 32 if name == "vgg16" else 16
    x = torch.rand(2, 3, size, size)
    with monkeypatch.context() as patched:
        # In single precision a unit on the kink of its ReLU may fall to the other side: the processor decides.
        patched.setattr(nn.functional, "relu", lambda z, inplace=False: nn.functional.silu(z))
        assert_same(network, x, pairs, tolerance=1e-5)
    assert_same(network.double(), x.double(), pairs, tolerance=1e-10)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("affine", [True, False])
def test_bias_and_affine_map_are_optional(bias: bool, affine: bool) -> None:
    x = torch.rand(3, 2, 6, 6, dtype=torch.float64)
    network = small(bias, affine).double()
    network(x)
    assert_same(randomised(network), x, pairs=1)


def test_parameter_gradients_stay() -> None:
    network = randomised(ResNet20()).double()
    x = torch.rand(2, 3, 8, 8, dtype=torch.float64)
    parameters = list(network.parameters())
    expected = torch.autograd.grad(network(x).logsumexp(1).sum(), parameters)
    with folded_batchnorm(network):
        gradients = torch.autograd.grad(network(x).logsumexp(1).sum(), parameters)
    torch.testing.assert_close(gradients, expected)


def test_channels_last_stays_channels_last() -> None:
    network = randomised(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))).to(memory_format=torch.channels_last)
    x = torch.rand(2, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    with folded_batchnorm(network):
        assert network(x).is_contiguous(memory_format=torch.channels_last)


def test_batchnorm_in_training_mode_is_left_alone() -> None:
    network = randomised(ResNet20())
    network.bn1.train()
    with folded_batchnorm(network):
        assert "forward" not in vars(network.conv1)
        assert folded(network) == 2 * 18
        before = network.bn1.get_buffer("running_mean").clone()
        network(torch.rand(2, 3, 8, 8))
        assert not torch.equal(network.bn1.get_buffer("running_mean"), before)


def test_everything_is_restored_when_the_body_raises() -> None:
    network = randomised(ResNet20())
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(RuntimeError, match="channels"), folded_batchnorm(network):
        network(torch.rand(2, 4, 8, 8))  # four channels where there should be three
    assert folded(network) == 0
    after = network.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert all(p.grad is None for p in network.parameters())


def test_blocks_nest() -> None:
    network = randomised(ResNet20())
    with folded_batchnorm(Normalized(network, [0.5] * 3, [0.25] * 3)):
        with folded_batchnorm(network):
            assert folded(network) == 2 * 19
        assert folded(network) == 2 * 19
    assert folded(network) == 0


class Branching(nn.Module):
    """Looks at values, which torch.fx cannot follow."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(x)
        return out.mean((2, 3)) if x.sum() > 0 else -out.mean((2, 3))


def test_a_network_that_cannot_be_traced_is_left_alone() -> None:
    assert_same(randomised(Branching()), torch.rand(2, 3, 8, 8), pairs=0, tolerance=0.0)


class Wired(nn.Module):
    """A convolution, a BatchNorm and a way to connect them."""

    def __init__(self, wiring: Callable[[nn.Module, nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.bn, self.wiring = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), wiring

    def forward(self, x: Tensor) -> Tensor:
        return self.wiring(self.conv, self.bn, x).mean((2, 3))


@pytest.mark.parametrize(
    ("wiring", "pairs"),
    [
        (lambda conv, bn, x: bn(conv(x)) + bn(conv(2 * x)), 1),
        (lambda conv, bn, x: bn(conv(x)) + conv(x), 0),
        (lambda conv, bn, x: bn(conv(x)) + bn(x), 0),
        (lambda conv, bn, x: bn(conv(x).relu()), 0),
        (lambda conv, bn, x: conv(bn(x)), 0),
    ],
    ids=["called-twice", "conv-also-alone", "bn-also-alone", "relu-between", "bn-first"],
)
def test_only_what_is_always_followed_by_batchnorm_is_folded(
    wiring: Callable[[nn.Module, nn.Module, Tensor], Tensor], pairs: int
) -> None:
    assert_same(randomised(Wired(wiring).double()), torch.rand(2, 3, 8, 8, dtype=torch.float64), pairs)


def test_tracing_leaves_no_mark() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.queries = small()[:2], 0

        def forward(self, x: Tensor) -> Tensor:
            self.queries = self.queries + x.shape[0]
            self.last = x
            return self.body(x).mean((2, 3)) + torch.rand(())

    network = randomised(Counting())
    state = torch.get_rng_state()
    with folded_batchnorm(network):
        assert folded(network) == 2
    assert network.queries == 0
    assert not hasattr(network, "last")
    assert torch.equal(torch.get_rng_state(), state)


def test_a_changed_network_is_looked_at_again() -> None:
    network = randomised(small()[:2])
    x = torch.rand(2, 2, 6, 6)
    assert_same(network, x, pairs=1, tolerance=1e-5)
    network.insert(1, nn.Softplus())
    assert_same(network, x, pairs=0)
    network[1] = randomised(nn.BatchNorm2d(4))
    assert_same(network, x, pairs=1, tolerance=1e-5)


def test_networks_are_not_kept_alive() -> None:
    network = randomised(small()[:2])
    with folded_batchnorm(network):
        pass
    reference = weakref.ref(network)
    del network
    gc.collect()
    assert reference() is None


class Draws(nn.Module):
    """A weight in fresh noise at each access, which it counts."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, weight: Tensor) -> Tensor:
        self.calls += 1
        return weight + 0.1 * torch.randn_like(weight)


def test_random_weights_are_drawn_once_for_each_forward() -> None:
    network = randomised(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).double())
    in_conv, in_bn = Draws(), Draws()
    parametrize.register_parametrization(network[0], "weight", in_conv)
    parametrize.register_parametrization(network[1], "weight", in_bn)
    x = torch.rand(2, 3, 8, 8, dtype=torch.float64)
    torch.manual_seed(1)
    expected = [network(x), network(x)]
    in_conv.calls = in_bn.calls = 0
    with folded_batchnorm(network):
        assert folded(network) == 2
        assert in_conv.calls == in_bn.calls == 0
        torch.manual_seed(1)
        outputs = [network(x), network(x)]
    assert in_conv.calls == in_bn.calls == 2
    assert not torch.allclose(outputs[0], outputs[1])
    torch.testing.assert_close(outputs, expected)


def test_noise_in_front_of_a_convolution_still_comes() -> None:
    network = randomised(ResNet20().double())
    conv = network.get_submodule("layer1.0.conv1")
    conv.input_noise = nn.Dropout(0.5)
    conv.register_forward_pre_hook(lambda module, inputs: module.input_noise.train()(inputs[0]))
    x = torch.rand(2, 3, 8, 8, dtype=torch.float64)
    torch.manual_seed(1)
    expected = network(x)
    with folded_batchnorm(network):
        assert folded(network) == 2 * 19
        torch.manual_seed(1)
        torch.testing.assert_close(network(x), expected)
        assert not torch.allclose(network(x), expected)


@pytest.mark.parametrize(
    "watch",
    [
        lambda conv, bn, see: conv.register_forward_hook(see),
        lambda conv, bn, see: bn.register_forward_pre_hook(see),
        lambda conv, bn, see: conv.register_full_backward_hook(see),
        lambda conv, bn, see: bn.register_full_backward_pre_hook(see),
    ],
    ids=["after-conv", "before-bn", "conv-backward", "bn-backward"],
)
def test_hooks_between_the_two_keep_them_apart(watch: Callable[..., object]) -> None:
    network = randomised(small()[:2])
    watch(network[0], network[1], lambda *_: None)
    with folded_batchnorm(network):
        assert folded(network) == 0


def test_a_subclass_with_its_own_forward_is_left_alone() -> None:
    class Louder(nn.BatchNorm2d):
        def forward(self, input: Tensor) -> Tensor:
            return 2 * super().forward(input)

    assert_same(randomised(nn.Sequential(nn.Conv2d(3, 4, 3), Louder(4))), torch.rand(2, 3, 8, 8), pairs=0)


def test_batchnorm_without_statistics_is_left_alone() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)).eval()
    assert_same(network, torch.rand(2, 3, 8, 8), pairs=0)
