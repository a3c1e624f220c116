"""Networks in noise: each class puts one scheme of noise into any network, in place, and answers like it.

The keys of the state dict stay those of the network behind the prefix `network.`; noise on activations sits in a child
`input_noise` of the noisy layer, noise on parameters in PyTorch's parametrizations.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Literal, get_args

from torch import Tensor, nn
from torch.nn.utils import parametrize

from defenses.depth import Depth, over_depth
from defenses.noise import GaussianNoise, Noise, ScaledNoise, SharedGaussianNoise, SharedScaledNoise

SKIP_PATHS = ("downsample", "shortcut", "skip")  # names of residual branches in torchvision and its kin
Placement = Literal["first", "papers_vgg"]


class Noisy(nn.Module):
    """A network whose noise is part of it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Images [B, C, H, W] in [0, 1] -> logits [B, classes] with a fresh draw."""
        logits: Tensor = self.network(x)
        return logits


class RobustNet(Noisy):
    """Noise before every convolution: `init` before the first (the image itself), `inner` before the others.

    Liu et al. 2018 (https://arxiv.org/abs/1712.00673), EEPD section 3.5 and figure 5: skip paths stay clean, nothing is
    added before the classifier. The papers' ResNet-20: 0.2 / 0.1 alone, 0.1 / 0.1 with adversarial training.

    Args:
        network: any network with convolutions; it is changed in place.
        init: noise before the first convolution in order of definition.
        inner: noise before each other convolution; every layer gets a copy of its own. Level 0 puts noise into the
            first layer only.
        skip_paths: a convolution with one of these words in its name (case ignored) stays clean.
        depth: how the level of the inner noise goes from that of `inner` to `last`, see `over_depth`.
        last: standard deviation before the last convolution, >= 0; None where depth is constant.
        placement: "papers_vgg" puts `init` before the second convolution and `inner` before all others, the image
            included. So do the released VGG-16 of EEPD and of Liu et al., in which "0.2 0.1" is 0.1 on the image.

    Attributes:
        noise_levels: standard deviations "init" and "inner"; None where there is not one such number.

    Raises:
        ValueError: the network has too few convolutions, or the levels do not make a schedule.
    """

    def __init__(
        self,
        network: nn.Module,
        init: Noise | None = None,
        inner: Noise | None = None,
        skip_paths: Sequence[str] = SKIP_PATHS,
        depth: Depth = "constant",
        last: float | None = None,
        placement: Placement = "first",
    ) -> None:
        super().__init__(network)
        if placement not in get_args(Placement):
            raise ValueError(f"placement must be one of {', '.join(get_args(Placement))}, got {placement}")
        init, inner = init or GaussianNoise(0.2), inner or GaussianNoise(0.1)
        self.depth, self.last, self.placement = depth, last, placement
        self.noise_levels = {
            "init": getattr(init, "std", None),
            "inner": getattr(inner, "std", None) if depth == "constant" else None,
        }
        layers = list(_layers(network, (nn.Conv2d,), skip_paths))
        if placement == "papers_vgg" and len(layers) == 1:
            raise ValueError("placement papers_vgg needs two convolutions, got a network with one")
        inners = over_depth(inner, depth, last, len(layers) - 1)
        add_input_noise(layers.pop(1 if placement == "papers_vgg" else 0), init)
        for layer, noise in zip(layers, inners, strict=True):
            add_input_noise(layer, noise)

    def extra_repr(self) -> str:
        """How the noise is placed, for `print(model)`."""
        last = "" if self.last is None else f", last={self.last}"
        return f"depth={self.depth}{last}, placement={self.placement}"


class PNIWeights(Noisy):
    """PNI-W: noise of learned strength on the weight of every convolution and linear layer (He et al. 2019).

    One draw per pass, shared by the batch. The alphas are trained without weight decay (lightning_modules do that).

    Args:
        network: any network; it is changed in place.
        alpha: start value of every alpha.
    """

    def __init__(self, network: nn.Module, alpha: float = 0.25) -> None:
        super().__init__(network)
        for layer in _layers(network, (nn.Conv2d, nn.Linear)):
            parametrize.register_parametrization(layer, "weight", SharedScaledNoise(alpha), unsafe=True)


class PNIActivations(Noisy):
    """PNI-I: noise of learned strength on the input of every convolution and linear layer (He et al. 2019).

    Args:
        network: any network; it is changed in place.
        alpha: start value of every alpha.
    """

    def __init__(self, network: nn.Module, alpha: float = 0.25) -> None:
        super().__init__(network)
        for layer in _layers(network, (nn.Conv2d, nn.Linear)):
            add_input_noise(layer, ScaledNoise(alpha))


class ParamNet(Noisy):
    """N(0, std^2) on every parameter: weights and biases of convolutions, BatchNorm and linear layers.

    EEPD section 3.6 and figure 5: one absolute level for all, one draw per pass, running statistics untouched. "Test
    only" of the paper is a network trained without it: `Classifier(noise_in_training=False)`.

    Args:
        network: any network; it is changed in place.
        std: standard deviation; the papers use 0.01, 0.02 and 0.07.
    """

    def __init__(self, network: nn.Module, std: float = 0.01) -> None:
        super().__init__(network)
        for layer in list(network.modules()):
            for name, parameter in list(layer.named_parameters(recurse=False)):
                if parameter.is_floating_point():
                    parametrize.register_parametrization(layer, name, SharedGaussianNoise(std), unsafe=True)


def add_input_noise(layer: nn.Module, noise: Noise) -> None:
    """Let `layer` see its input through `noise`, which becomes its child `input_noise`."""
    layer.add_module("input_noise", noise)
    layer.register_forward_pre_hook(_through_input_noise)


def _through_input_noise(layer: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    # A plain function that asks its layer: a bound method would keep pointing at the original after a deep copy.
    noise: nn.Module = layer.get_submodule("input_noise")
    return (noise(inputs[0]), *inputs[1:])


def _layers(
    network: nn.Module, kinds: tuple[type[nn.Module], ...], skip_paths: Sequence[str] = ()
) -> Iterator[nn.Module]:
    found = [
        layer
        for name, layer in network.named_modules()
        if isinstance(layer, kinds) and not any(word in name.lower() for word in skip_paths)
    ]
    if not found:
        wanted = " or ".join(kind.__name__ for kind in kinds)
        raise ValueError(f"{type(network).__name__} has no {wanted} layer to put noise on")
    return iter(found)
