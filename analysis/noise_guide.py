"""How strong noise is beside the tensor that it is added to, layer by layer.

"The standard deviation of each layer is a guiding value for the injected noise level" (EEPD section 3.7).
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from attacks import evaluating
from defenses import Noise, silenced
from evaluation import aligned


class Row(NamedTuple):
    """One tensor that is perturbed, or would be.

    Attributes:
        layer: name of the layer whose input it is, or of the parameter.
        std: its unbiased standard deviation over all elements, all images and noise turned off.
        level: standard deviation of the noise on it in the same units; None if there is none.
    """

    layer: str
    std: float
    level: float | None


def noise_guide(network: nn.Module, x: Tensor) -> list[Row]:
    """Rows of all parameters in noise, then of all inputs of convolutions in the order of their calls.

    One pass in eval mode without noise: deterministic, and no trace is left on the network. The input of another layer
    has a row if there is noise on it.

    Args:
        network: with noise or without.
        x: images [B, C, H, W] in [0, 1]; some hundred say enough.
    """
    rows = list(_parameters(network))
    with ExitStack() as stack, torch.no_grad():
        stack.enter_context(evaluating(network))
        stack.enter_context(silenced())
        for name, layer in network.named_modules():
            if isinstance(layer, nn.Conv2d) or hasattr(layer, "input_noise"):
                stack.enter_context(layer.register_forward_pre_hook(_measuring(rows, name)))
        network(x)
    return rows


def table(rows: list[Row]) -> str:
    """Rows as text, the level also in percent of the standard deviation."""
    cells = [("tensor", "std", "noise", "noise / std %")]
    for layer, std, level in rows:
        share = "-" if not std or level is None else f"{100 * level / std:.1f}"
        cells.append((layer, f"{std:.4f}", "-" if level is None else f"{level:.4f}", share))
    return aligned(cells)


def _measuring(rows: list[Row], name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
    def measure(layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        rows.append(_row(name, inputs[0], getattr(layer, "input_noise", None)))

    return measure


def _parameters(network: nn.Module) -> Iterator[Row]:
    for name, layer in network.named_modules():
        if parametrize.is_parametrized(layer):
            parametrizations: Any = layer.parametrizations
            for parameter, parts in parametrizations.items():
                noise = next((part for part in parts if isinstance(part, Noise)), None)
                yield _row(f"{name}.{parameter}", parts.original.detach(), noise)


def _row(name: str, tensor: Tensor, noise: Noise | None) -> Row:
    level = noise.level(tensor) if noise is not None and noise.random else None
    return Row(name, float(tensor.std()), level)
