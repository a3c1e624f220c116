"""Recovery windows: which class a model answers in the neighbourhood of an adversarial image.

EEPD sections 3.3 and D.3 with figures 2 and 9, ICLR draft figure 9.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from analysis.noisy_copies import NoiseOfLevel, noisy_copies
from attacks import evaluating
from defenses import Channel, PapersGauss, Stream, drawing_from, has_shared_draws
from models import folded_batchnorm


@dataclass(frozen=True, eq=False)
class RecoveryWindows:
    """What became of noisy versions of B adversarial images at L levels of noise.

    Attributes:
        levels: [L], in the unit of the noise.
        passes: noisy versions of each image at each level.
        original: [B, L], how many of them were answered with the original class.
        adversarial: [B, L], with the adversarial class.
        from_original: [B, L], their mean L2 distance from the original image in pixels of [0, 1]: the papers' x axis
            as their code has it.
        from_adversarial: [B, L], from the adversarial image, as EEPD's caption has it.
        distortion: [B], L2 distance of the adversarial image from the original one: the papers' vertical line.
    """

    levels: NDArray[np.float64]
    passes: int
    original: NDArray[np.int64]
    adversarial: NDArray[np.int64]
    from_original: NDArray[np.float64]
    from_adversarial: NDArray[np.float64]
    distortion: NDArray[np.float64]

    @property
    def other(self) -> NDArray[np.int64]:
        """[B, L], how many were answered with another class."""
        return self.passes - self.original - self.adversarial

    @property
    def shares(self) -> dict[str, NDArray[np.float64]]:
        """Shares in [0, 1] of "original", "adversarial" and "other", each [B, L]."""
        counts = {"original": self.original, "adversarial": self.adversarial, "other": self.other}
        return {name: count / self.passes for name, count in counts.items()}

    @property
    def recovered(self) -> NDArray[np.bool_]:
        """[B, L], whether the original class is answered more often than the adversarial and all others together."""
        return 2 * self.original > self.passes


@torch.no_grad()
def recovery_windows(
    model: nn.Module,
    images: tuple[Tensor, Tensor],
    classes: tuple[Tensor, Tensor],
    levels: Sequence[float],
    noise: NoiseOfLevel = PapersGauss,
    *,
    passes: int = 100,
    seed: int = 0,
    first: int = 0,
    most_images: int = 256,
) -> RecoveryWindows:
    """Ask a model about noisy versions of adversarial images.

    The noise depends on (seed, an image's number, level, passes) only. A random model has a stream of its own, so its
    draws depend on `most_images`, too; where a batch shares the draw of noisy weights every pass holds one image, as
    the passes would not be independent otherwise.

    Args:
        model: images -> logits [B, classes]; in eval mode meanwhile, and left as it was.
        images: original and adversarial ones, [B, C, H, W] each.
        classes: what the model answers to them, [B] each.
        levels: of the noise; the papers' are 0, 0.001 to 0.009, 0.01 to 0.09 and so on to 10.
        noise: level -> channel. `PapersGauss` takes the papers' sigma; nothing is clipped.
        passes: noisy versions at each level; the papers' 100.
        seed: of all draws.
        first: number of the first image.
        most_images: in one pass.

    Raises:
        ValueError: shapes do not fit, original and adversarial class are the same, there is no level, or a number is
            below 1.
        FloatingPointError: the model answers NaN or infinity.
    """
    _check(images, classes, levels, most_images)
    x, x_adv = images
    channels = [noise(level) for level in levels]
    shape = (len(x), len(channels))
    counts, distances = np.zeros((2, *shape), np.int64), np.zeros((2, *shape))
    inner, at_once = Stream.named(seed, "windows", index=first), 1 if has_shared_draws(model) else most_images
    with torch.autocast(x.device.type, enabled=False), evaluating(model), folded_batchnorm(model):
        for cells in _groups(shape, max(1, most_images // max(1, passes))):
            made = [_noisy(x_adv, channels, cell, passes, (seed, first)) for cell in cells]
            with drawing_from(inner):
                answers = torch.cat([_answers(model, part) for part in torch.split(torch.cat(made), at_once)])
            for (image, level), copies, answer in zip(cells, made, answers.view(-1, passes), strict=True):
                for side in (0, 1):
                    counts[side, image, level] = int((answer == classes[side][image]).sum())
                    distances[side, image, level] = float(_l2(copies - images[side][image]).mean())
    return RecoveryWindows(
        levels=np.asarray(levels, dtype=np.float64),
        passes=passes,
        original=counts[0],
        adversarial=counts[1],
        from_original=distances[0],
        from_adversarial=distances[1],
        distortion=np.asarray(_l2(x_adv - x).cpu()),
    )


def _groups(shape: tuple[int, int], size: int) -> Iterator[list[tuple[int, int]]]:
    """All (image, level), so many at a time that their copies fill a pass."""
    cells = list(np.ndindex(shape))
    for start in range(0, len(cells), size):
        yield [(image, level) for image, level in cells[start : start + size]]


def _noisy(x: Tensor, channels: Sequence[Channel], cell: tuple[int, int], passes: int, key: tuple[int, int]) -> Tensor:
    (image, level), (seed, first) = cell, key
    return noisy_copies(x[image], channels[level], passes, seed, first + image)


def _answers(model: nn.Module, x: Tensor) -> Tensor:
    logits: Tensor = model(x)
    if not (logits < float("inf")).all():  # NaN compares as False
        raise FloatingPointError("the model answers NaN or infinity; its weights are no use (did training diverge?)")
    return logits.argmax(1)


def _l2(delta: Tensor) -> Tensor:
    return torch.linalg.vector_norm(delta.flatten(1), dim=1, dtype=torch.float64)


def _check(
    images: tuple[Tensor, Tensor], classes: tuple[Tensor, Tensor], levels: Sequence[float], most_images: int
) -> None:
    shapes = [tuple(tensor.shape) for tensor in (*images, *classes)]
    if len(shapes[0]) != 4 or shapes[0] != shapes[1] or shapes[2] != shapes[0][:1] or shapes[2] != shapes[3]:
        raise ValueError(f"need two times images [B, C, H, W] and two times classes [B], got {shapes}")
    if (same := (classes[0] == classes[1]).nonzero()).numel():
        place = int(same[0])
        raise ValueError(
            f"image {place}: original and adversarial class are both {int(classes[0][place])}; leave it out"
        )
    if not levels or most_images < 1:
        raise ValueError(f"need at least 1 level and most_images of at least 1, got {len(levels)} and {most_images}")
