"""Channels that throw away what the eye hardly sees: JPEG, median filter, total variation."""

import io

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from defenses.channels import Channel
from defenses.randomness import drawn_for, is_silenced, uniform_like

# Of the TV solver, in pixels: of 0.003 to 0.3 the best compromise on photographs between quick painting in (large) and
# quick denoising (small); after 100 steps the objective is within 0.5 % of its minimum for weights of 0.01 to 0.1.
STEP = 0.03


class JPEG(Channel):
    """Through a JPEG file: 8 bits, 8x8 cosine transform, colours at half the resolution (4:2:0), quantised, and back.

    Das et al. 2017 (https://arxiv.org/abs/1705.02900); Guo et al. 2018 (https://arxiv.org/abs/1711.00117), with
    quality 75. The codec is Pillow's libjpeg, on the CPU. Values outside [0, 1] are clipped.

    Args:
        quality: of libjpeg, 1 to 100.
    """

    differentiable = False

    def __init__(self, quality: int = 75) -> None:
        super().__init__()
        if quality not in range(1, 101):
            raise ValueError(f"quality must be a whole number from 1 to 100, got {quality}")
        self.quality = int(quality)

    def transform(self, x: Tensor) -> Tensor:
        """See `Channel`.

        Raises:
            ValueError: the images have neither 1 nor 3 colours.
        """
        if x.shape[1] not in (1, 3):
            raise ValueError(f"JPEG takes images of 1 or 3 colours, got {x.shape[1]}")
        pixels = (x.detach().float().clamp(0, 1) * 255).round().to("cpu", torch.uint8).permute(0, 2, 3, 1)
        read = np.stack([self._through_file(image) for image in pixels.numpy()])
        return torch.empty_like(x).copy_(torch.from_numpy(read).permute(0, 3, 1, 2)) / 255

    def _through_file(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        with io.BytesIO() as file:
            Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(
                file, "JPEG", quality=self.quality
            )
            return np.asarray(Image.open(file)).reshape(image.shape)

    def extra_repr(self) -> str:
        """The setting, for `print(model)`."""
        return f"quality={self.quality}"


class MedianFilter(Channel):
    """Every value becomes the median of the size x size values around it, colour by colour.

    Feature squeezing, Xu et al. 2018 (https://arxiv.org/abs/1704.01155), whose other half is `ColourDepth`. As in
    SciPy's `median_filter`, borders are mirrored, edge included, and a window of even size reaches further up and
    left and takes the larger of its two middle values. The derivative is exact: that of the value which is the
    median.

    Args:
        size: of the window in pixels, >= 1; the paper's are 2 and 3.
    """

    def __init__(self, size: int = 2) -> None:
        super().__init__()
        if size < 1 or size != int(size):
            raise ValueError(f"size must be a whole number >= 1, got {size}")
        self.size = int(size)

    def transform(self, x: Tensor) -> Tensor:
        """See `Channel`."""
        rows, columns = (self._mirrored(length, x.device) for length in x.shape[-2:])
        windows = x[..., rows, :][..., columns].unfold(2, self.size, 1).unfold(3, self.size, 1).flatten(-2)
        return torch.empty_like(x).copy_(windows.kthvalue(windows.shape[-1] // 2 + 1).values)

    def _mirrored(self, length: int, device: torch.device) -> Tensor:
        """Which of `length` lines lies at each of [length + size - 1], from `size // 2` before the first one on."""
        line = torch.arange(length + self.size - 1, device=device) - self.size // 2
        line = line % (2 * length)
        return torch.minimum(line, 2 * length - 1 - line)

    def extra_repr(self) -> str:
        """The setting, for `print(model)`."""
        return f"size={self.size}"


class TotalVariation(Channel):
    """The image z of the least 1/2 sum of (z - x)^2 over the kept values + weight * TV(z), colour by colour.

    Total variation minimisation, Guo et al. 2018 (https://arxiv.org/abs/1711.00117): each value of each colour is
    kept with probability `keep`, the others are painted in. TV is the sum over pixels of the length of the gradient
    (Rudin, Osher and Fatemi 1992), as in https://github.com/facebookarchive/adversarial_image_defenses. Its settings
    are the defaults here, but its solver (split Bregman) may scale the weight in another way.

    Solved for the whole batch by the primal-dual method of Chambolle and Pock (2011,
    https://doi.org/10.1007/s10851-010-0251-1, algorithm 1).

    Args:
        weight: of the variation, > 0, in pixels of [0, 1]: about the contrast which an area of a few pixels loses.
        keep: share of values that is looked at, in (0, 1]; below 1 each image has a draw of its own.
        steps: of the solver, >= 1.
    """

    differentiable = False

    def __init__(self, weight: float = 0.03, keep: float = 0.5, steps: int = 100) -> None:
        super().__init__()
        if not 0 < weight < float("inf"):
            raise ValueError(f"weight must be a finite number > 0, got {weight}")
        if not 0 < keep <= 1:
            raise ValueError(f"keep must lie in (0, 1], got {keep}")
        if steps < 1 or steps != int(steps):
            raise ValueError(f"steps must be a whole number >= 1, got {steps}")
        self.weight, self.keep, self.steps = weight, keep, int(steps)
        self.random = keep < 1

    @torch.no_grad()
    def transform(self, x: Tensor) -> Tensor:
        """See `Channel`; inside `silenced()` all values are kept."""
        kept = torch.ones_like(x)
        if self.random and not is_silenced():
            # Drawn in float32: in half precision a draw has few values.
            kept = (uniform_like(torch.empty_like(drawn_for(x), dtype=torch.float32)) < self.keep).expand_as(x)
        dtype = torch.promote_types(x.dtype, torch.float32)
        return torch.empty_like(x).copy_(self._solve(x.to(dtype), kept.to(dtype)))

    def _solve(self, x: Tensor, kept: Tensor) -> Tensor:
        # Lines and columns first: their differences are then long stretches of memory.
        x, kept = (part.permute(2, 3, 0, 1).contiguous() for part in (x, kept))
        tau = STEP / self.weight
        sigma = 1 / (8 * tau)  # tau * sigma * 8 <= 1 is what convergence needs
        mean = (x * kept).sum((0, 1)) / kept.sum((0, 1)).clamp_min(1)
        z = ahead = torch.where(kept > 0, x, mean)
        pull, share = tau * kept * x, 1 / (1 + tau * kept)
        down, right = torch.zeros_like(x), torch.zeros_like(x)  # the last row, the last column stays 0
        for _ in range(self.steps):
            down[:-1].add_(ahead[1:] - ahead[:-1], alpha=sigma)
            right[:, :-1].add_(ahead[:, 1:] - ahead[:, :-1], alpha=sigma)
            length = torch.hypot(down, right).div_(self.weight).clamp_min_(1)
            moved = pull + z
            for dim, dual in enumerate((down.div_(length), right.div_(length))):
                end = x.shape[dim] - 1
                moved.add_(dual, alpha=tau).narrow(dim, 1, end).sub_(dual.narrow(dim, 0, end), alpha=tau)
            moved.mul_(share)
            ahead, z = 2 * moved - z, moved
        return z.permute(2, 3, 0, 1)

    def extra_repr(self) -> str:
        """The setting, for `print(model)`."""
        return f"weight={self.weight}, keep={self.keep}, steps={self.steps}"
