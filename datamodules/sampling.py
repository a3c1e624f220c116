"""Which images form which batch: seeded and resumable in training, fixed and exact in evaluation.

Both classes yield whole lists of indices and are given to a `DataLoader` as `sampler` with `batch_size=None`:
the dataset is indexed once per batch, and Lightning, which calls `set_epoch` on `sampler` but not on
`batch_sampler` (2.6.6, lightning_fabric/utilities/data.py), finds it.
"""

from collections.abc import Iterator
from hashlib import blake2b

import torch
from torch import Tensor
from torch.utils.data import Sampler


def mixed_seed(*key: int) -> int:
    """Mixes integers, such as (seed, epoch, batch, rank), into a 64-bit seed; (0, 1) and (0, 1, 0) differ."""
    return int.from_bytes(blake2b(repr(key).encode(), digest_size=8).digest(), "big")


def seeded_permutation(size: int, *key: int) -> Tensor:
    """Returns a permutation of range(size), int64 [size], that depends on nothing but `key`."""
    return torch.randperm(size, generator=torch.Generator().manual_seed(mixed_seed(*key)))


class SeededBatches(Sampler[list[int]]):
    """Training batches: a permutation drawn from (seed, epoch), dealt to the ranks, whole batches only.

    Batch k of rank r is slice k * world_size + r of the permutation: an epoch never holds an image twice, and
    the images left over at its end (fewer than batch_size * world_size) are others in the next epoch.

    Args:
        size: number of images.
        batch_size: images per batch and rank.
        seed: seed of the run, not negative.
        rank: this process, 0 ... world_size - 1.
        world_size: number of processes.
        epoch: the epoch to begin with.
        start: number of batches of that first epoch to leave out: those trained on before a restart.

    Raises:
        ValueError: if there is not one whole batch for each rank.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        epoch: int = 0,
        start: int = 0,
    ) -> None:
        if batch_size < 1 or size < batch_size * world_size:
            raise ValueError(
                f"batch_size must be 1 ... {size // world_size} with {size} training images and {world_size} "
                f"process(es), not {batch_size}"
            )
        self.size, self.batch_size, self.seed = size, batch_size, seed
        self.rank, self.world_size = rank, world_size
        self.epoch = self.first_epoch = epoch
        self.start = start

    def set_epoch(self, epoch: int) -> None:
        """Chooses the permutation of the next iteration."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Number of batches of a whole epoch, even if entered in the middle: Lightning counts like that."""
        return self.size // (self.batch_size * self.world_size)

    def __iter__(self) -> Iterator[list[int]]:
        """Yields lists of `batch_size` indices."""
        order = seeded_permutation(self.size, self.seed, self.epoch)
        # Tied to the epoch, not to the first call: Lightning may call iter() twice before the first batch.
        start = self.start if self.epoch == self.first_epoch else 0
        for batch in range(start, len(self)):
            first = (batch * self.world_size + self.rank) * self.batch_size
            yield order[first : first + self.batch_size].tolist()


class ShardedBatches(Sampler[list[int]]):
    """Evaluation batches: consecutive indices, whole batches dealt round robin to the ranks.

    No image is seen twice and none is lost, while PyTorch's DistributedSampler pads 129 images on 2 ranks to
    130. A batch holds the same images for any number of ranks; their numbers of batches may differ by one.

    Args:
        size: number of images.
        batch_size: images per batch; the last one of all may be smaller.
        rank: this process, 0 ... world_size - 1.
        world_size: number of processes.

    Raises:
        ValueError: if `batch_size` is not positive.
    """

    def __init__(self, size: int, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        self.size, self.batch_size = size, batch_size
        self.starts = range(rank * batch_size, size, world_size * batch_size)

    def __len__(self) -> int:
        """Number of batches of this rank."""
        return len(self.starts)

    def __iter__(self) -> Iterator[list[int]]:
        """Yields lists of up to `batch_size` indices."""
        for first in self.starts:
            yield list(range(first, min(first + self.batch_size, self.size)))
