"""Channels that draw what they do to each image: where it lies, which pixels are moved or recoloured."""

import torch
from torch import Tensor

from defenses.channels import Channel
from defenses.randomness import drawn_for, is_silenced, normal_like, uniform_like


class ResizePad(Channel):
    """The image shrunk to a random size (nearest pixel) and put at a random place on a black image of its old size.

    Xie et al. 2018 (https://arxiv.org/abs/1711.01991), who enlarge images of 299 pixels to a random size below 331
    and pad to 331. Here images keep the size that the network was trained on, so they shrink: 299 / 331 = 0.9. Size
    and place are drawn for each image. The derivative is exact: every output pixel is a pixel of the image, or black.

    Args:
        smallest: share of the height from which on sizes are drawn, up to 1, all whole numbers of pixels with the same
            probability; in (0, 1]. The width follows.
    """

    def __init__(self, smallest: float = 0.9) -> None:
        super().__init__()
        if not 0 < smallest <= 1:
            raise ValueError(f"smallest must lie in (0, 1], got {smallest}")
        self.smallest = smallest
        self.random = smallest < 1

    def transform(self, x: Tensor) -> Tensor:
        """See `Channel`."""
        if not self.random or is_silenced():
            return x
        height, width = x.shape[-2:]
        size, top, left = _uniform(x, 3).unbind(1)
        least = max(1, round(self.smallest * height))
        rows = least + _whole(size, height - least + 1)
        columns = (rows * width / height).round().long().clamp_min(1)
        row, in_rows = _lying(rows, _whole(top, height - rows + 1), height)
        column, in_columns = _lying(columns, _whole(left, width - columns + 1), width)
        inside = in_rows[:, :, None] & in_columns[:, None, :]
        shrunk = _taken(x, row[:, :, None] * width + column[:, None, :]) * inside[:, None]
        return torch.empty_like(x).copy_(shrunk)  # in the memory format of x

    def extra_repr(self) -> str:
        """The setting, for `print(model)`."""
        return f"smallest={self.smallest}"


class PixelDeflection(Channel):
    """Some pixels, all colours of them, take the value of a pixel near them.

    Prakash et al. 2018 (https://arxiv.org/abs/1801.08926), without their activation map (all pixels are equally
    likely) and without their wavelet denoising behind it. Pixels are drawn without repetition, for each image;
    all values are those of the image as it came. The derivative is exact: every output pixel is a pixel of the image.

    Args:
        deflections: pixels of an image that are changed, >= 0; the paper's 200 are of 224 x 224.
        window: greatest distance to the new pixel in rows and in columns, in pixels, >= 1. All pixels of that square
            inside the image are equally likely, the pixel itself too.
    """

    def __init__(self, deflections: int = 200, window: int = 10) -> None:
        super().__init__()
        if deflections < 0 or deflections != int(deflections):
            raise ValueError(f"deflections must be a whole number >= 0, got {deflections}")
        if window < 1 or window != int(window):
            raise ValueError(f"window must be a whole number >= 1, got {window}")
        self.deflections, self.window = int(deflections), int(window)
        self.random = deflections > 0

    def transform(self, x: Tensor) -> Tensor:
        """See `Channel`.

        Raises:
            ValueError: the images have fewer pixels.
        """
        if not self.random or is_silenced():
            return x
        height, width = x.shape[-2:]
        own = torch.arange(height * width, device=x.device)
        order, down, right = _uniform(x, 3, height * width).unbind(1)
        near = self._near(own // width, down, height) * width + self._near(own % width, right, width)
        chosen = _distinct("deflections", self.deflections, order)
        moved = torch.zeros_like(near, dtype=torch.bool).scatter(1, chosen, True)
        source = torch.where(moved, near, own).view(-1, height, width)
        return torch.empty_like(x).copy_(_taken(x, source))  # in the memory format of x

    def _near(self, line: Tensor, draw: Tensor, length: int) -> Tensor:
        first = (line - self.window).clamp_min(0)
        last = (line + self.window).clamp_max(length - 1)
        return first + _whole(draw, last - first + 1)

    def extra_repr(self) -> str:
        """The settings, for `print(model)`."""
        return f"deflections={self.deflections}, window={self.window}"


class RandomDiscretisation(Channel):
    """Gaussian noise; then each pixel takes the colours of the nearest (L2) of some random pixels of the noisy image.

    Zhang & Liang 2019 (https://arxiv.org/abs/1903.10586). Noise and pixels are drawn for each image; the pixels are
    distinct and equally likely. The exact derivative reaches only the pixels drawn: the choice of the nearest has none.

    Args:
        clusters: number of pixels drawn, >= 1.
        std: standard deviation of the noise in pixels of [0, 1], >= 0.
    """

    random = True
    differentiable = False

    def __init__(self, clusters: int, std: float) -> None:
        super().__init__()
        if clusters < 1 or clusters != int(clusters):
            raise ValueError(f"clusters must be a whole number >= 1, got {clusters}")
        if not 0 <= std < float("inf"):
            raise ValueError(f"std must be a finite number >= 0, got {std}")
        self.clusters, self.std = int(clusters), std

    def transform(self, x: Tensor) -> Tensor:
        """See `Channel`.

        Raises:
            ValueError: the images have fewer pixels than clusters.
        """
        if is_silenced():
            return x
        noisy = x + self.std * normal_like(drawn_for(x))
        drawn = _distinct("clusters", self.clusters, _uniform(x, x[0, 0].numel()))
        centres = _taken(noisy, drawn[:, None])  # [B, C, 1, clusters]
        with torch.no_grad():
            pixels, colours = (part.float().flatten(2).mT for part in (noisy, centres))
            # The faster mode loses digits where colours are close.
            distance = torch.cdist(pixels, colours, compute_mode="donot_use_mm_for_euclid_dist")
            nearest = distance.argmin(-1).view(len(x), *x.shape[-2:])
        return torch.empty_like(x).copy_(_taken(centres, nearest))

    def extra_repr(self) -> str:
        """The settings, for `print(model)`."""
        return f"clusters={self.clusters}, std={self.std}"


def _uniform(x: Tensor, *shape: int) -> Tensor:
    """Draws from U[0, 1) for each image of `x`, [B, *shape]; [1, *shape] where draws are frozen.

    Always in float32: in half precision few values would be left.
    """
    drawn = drawn_for(x)
    return uniform_like(drawn.new_empty((len(drawn), *shape), dtype=torch.float32))


def _whole(draw: Tensor, count: int | Tensor) -> Tensor:
    """Whole numbers 0 to count - 1, equally likely, from draws of U[0, 1)."""
    return (draw * count).long()  # rounding never reaches count: the largest draw is 1 - 2^-24


def _distinct(name: str, count: int, order: Tensor) -> Tensor:
    """Indices [B, count] of the largest of `order` [B, N]: if it is random, a random choice without repetition."""
    if count > order.shape[1]:
        raise ValueError(f"{name} must be at most the number of pixels, {order.shape[1]}, got {count}")
    return order.topk(count).indices


def _lying(size: Tensor, start: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Lines shrunk to `size` [B] of them, from `start` [B] on: which one lies at each [B, length], if any."""
    line = torch.arange(length, device=size.device) - start[:, None]
    size = size[:, None]
    source = (2 * line + 1) * length // (2 * size)  # of the centre of the line, in whole numbers
    return source.clamp(0, length - 1), (line >= 0) & (line < size)


def _taken(x: Tensor, index: Tensor) -> Tensor:
    """The pixels of `x` [B, C, H, W] at `index` [B or 1, h, w], counted row by row -> [B, C, h, w]."""
    flat = index.flatten(1)[:, None].expand(*x.shape[:2], -1)
    return x.flatten(2).gather(2, flat).view(*x.shape[:2], *index.shape[1:])
