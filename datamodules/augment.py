"""Random crop with zero padding and horizontal flip of a whole batch at once, on the device where it lies."""

import torch
from torch import Tensor
from torch.nn.functional import pad


def crop_and_flip(x: Tensor, padding: int, flip: bool, generator: torch.Generator) -> Tensor:
    """Shifts each image by its own random offset and mirrors each with probability 1/2.

    The papers' code mirrors, then crops; here the crop comes first and both are one gather. In distribution
    it is the same: a mirrored image's crop at column offset o is the mirrored crop at 2 * padding - o, and
    offsets are uniform.

    Args:
        x: images [B, C, H, W] of any dtype.
        padding: zeros added on each side before a window of H x W is cut out; 0 leaves the position alone.
        flip: whether to mirror at all.
        generator: the only source of randomness; one on the CPU gives the same crops on any device of `x`.

    Returns:
        New images like `x`, [B, C, H, W].
    """
    batch, channels, height, width = x.shape
    device = generator.device
    offsets = torch.randint(2 * padding + 1, (2, batch, 1), generator=generator, device=device)
    mirrored = torch.randint(2, (batch, 1), generator=generator, device=device).bool() & flip
    rows = torch.arange(height, device=device) + offsets[0]
    columns = torch.arange(width, device=device)
    columns = torch.where(mirrored, columns.flip(0), columns) + offsets[1]
    image = torch.arange(batch, device=x.device)[:, None, None, None]
    channel = torch.arange(channels, device=x.device)[:, None, None]
    padded = pad(x, (padding,) * 4)
    return padded[image, channel, rows.to(x.device)[:, None, :, None], columns.to(x.device)[:, None, None, :]]
