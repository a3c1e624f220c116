"""A picture of an evaluation: each image clean, attacked, their difference, and behind each channel of a defense."""

import io
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from attacks import evaluating
from defenses import Channel, Defended, Stream, drawing_from

_SMALLEST = 64  # pixels a side: smaller images are enlarged by a whole factor
_GAP = 2  # pixels between two images


@dataclass(frozen=True, eq=False)
class Panel:
    """One row per image, one column per stage.

    Attributes:
        grid: uint8 [H, W, 3].
        columns: what the columns show, from left to right.
    """

    grid: Tensor
    columns: tuple[str, ...]

    @property
    def caption(self) -> str:
        """The columns in words."""
        return "columns: " + ", ".join(self.columns)

    def image(self) -> Image.Image:
        """As a picture that W&B and others take."""
        return Image.fromarray(self.grid.numpy())

    def png(self) -> bytes:
        """As the content of a PNG file."""
        file = io.BytesIO()
        self.image().save(file, "png")
        return file.getvalue()


@torch.no_grad()
def panel(x: Tensor, x_adv: Tensor, network: nn.Module | None = None, seed: int = 0) -> Panel:
    """Draws images beside what an adversary made of them.

    The difference is drawn around mid-grey and enlarged until the largest of all images reaches black or white; the
    factor is in the column's name. Behind a channel the attacked image is shown, cut off at 0 and 1. A channel that
    makes no image (another number of channels than 1 or 3: thermometer codes) ends the row.

    Args:
        x: clean images [B, C, H, W] in [0, 1], C 1 or 3, at least one.
        x_adv: the same, attacked.
        network: the first `Defended` in it gives the channels; None, or none in it: no further columns.
        seed: of the channels' draws.

    Raises:
        ValueError: images that cannot be drawn.
    """
    if x.shape != x_adv.shape or x.dim() != 4 or not len(x) or x.shape[1] not in (1, 3):
        raise ValueError(f"a panel needs two like batches [B, 1 or 3, H, W], got {[*x.shape]} and {[*x_adv.shape]}")
    delta = x_adv - x
    factor = 0.5 / max(float(delta.abs().max()), 1e-6)
    stages = {"clean": x, "attacked": x_adv, f"difference x {factor:.3g}": 0.5 + factor * delta}
    if network is not None:
        stages |= _behind_channels(network, x_adv, seed)
    columns = [_drawn(images, x.shape[-2:]) for images in stages.values()]
    return Panel(_grid(torch.stack(columns, 1)), tuple(stages))


def _behind_channels(network: nn.Module, x: Tensor, seed: int) -> dict[str, Tensor]:
    defended = next((part for part in network.modules() if isinstance(part, Defended)), None)
    stages: dict[str, Tensor] = {}
    if defended is None:
        return stages
    with evaluating(network), drawing_from(Stream.named(seed, "panel")):
        for number, channel in enumerate(defended.channels, 1):
            x = channel(x)
            if x.shape[1] not in (1, 3):
                break
            stages[f"after {_name(channel)}" + f" ({number})" * (len(defended.channels) > 1)] = x
    return stages


def _name(channel: nn.Module) -> str:
    settings = channel.extra_repr() if isinstance(channel, Channel) else ""
    return type(channel).__name__ + (f"({settings})" if settings else "")


def _drawn(images: Tensor, size: torch.Size) -> Tensor:
    """Images of any size as uint8 [B, 3, H, W], enlarged without smoothing: each pixel stays visible."""
    factor = -(-_SMALLEST // min(size))
    large = F.interpolate(images.float().cpu().clamp(0, 1), (factor * size[0], factor * size[1]), mode="nearest")
    return large.mul(255).round().to(torch.uint8).expand(-1, 3, -1, -1)


def _grid(cells: Tensor) -> Tensor:
    """Cells [rows, columns, 3, H, W] -> [H', W', 3] with white lines between them."""
    framed = F.pad(cells, (0, _GAP, 0, _GAP), value=255)
    rows, columns, colours, height, width = framed.shape
    joined = framed.permute(0, 3, 1, 4, 2).reshape(rows * height, columns * width, colours)
    return joined[:-_GAP, :-_GAP].contiguous()
