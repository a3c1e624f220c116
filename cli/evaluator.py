"""Evaluation on Lightning's devices: which process does which batch, and when to stop; nothing else."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset

from attacks import Attack
from cli.progress import Progress
from datamodules.pixels import unit_range
from datamodules.sampling import ShardedBatches
from evaluation import Cost, Records, counting, examine
from evaluation.sessions import environment, note_session


@dataclass(frozen=True)
class Work:
    """What is to be done to how many images.

    Attributes:
        n: images, from the first on.
        batch_size: images per unit of work.
        seed: of attacks and judge.
        draws: passes of the judge.
        early_exit: see `examine`.
        keep: of the first so many images, what each adversary made of them is kept.
        seconds: by adversary, what an image is likely to take.
        until: `time.monotonic()` beyond which no batch is begun; None: no limit.
    """

    n: int
    batch_size: int
    seed: int
    draws: int
    early_exit: bool
    keep: int
    seconds: Mapping[str, float]
    until: float | None = None

    @property
    def batches(self) -> int:
        """Units of work for each adversary."""
        return -(-self.n // self.batch_size)


class Evaluator(pl.LightningModule):
    """Each process examines its share of the batches and writes them; a batch that was written is left out.

    Args:
        network: images in [0, 1] -> logits.
        split: images as uint8 and labels, by index.
        attacks: by name of the adversary; the clean images are judged in any case.
        records: where rows go.
        work: on what, how.
    """

    def __init__(
        self,
        network: nn.Module,
        split: Dataset[tuple[Tensor, Tensor]],
        attacks: dict[str, Attack],
        records: Records,
        work: Work,
    ) -> None:
        super().__init__()
        # With fewer batches than processes some have nothing to do.
        self.allow_zero_length_dataloader_with_multiple_devices = True
        self.network = network.to(memory_format=torch.channels_last)
        self.images = Subset(split, range(work.n))
        self.adversaries: dict[str, Attack | None] = {"clean": None, **attacks}
        self.records, self.work = records, work
        self._right: dict[str, list[float]] = {}  # by adversary, share of right passes of each image
        self._progress: Progress | None = None
        self._pace = 1.0  # measured time over expected time
        self._spent = self._expected = 0.0

    def test_dataloader(self) -> DataLoader[tuple[Tensor, Tensor]]:
        """Whole batches, dealt round robin to the processes."""
        work = self.work
        batches = ShardedBatches(work.n, work.batch_size, self.trainer.global_rank, self.trainer.world_size)
        return DataLoader(self.images, batch_sampler=batches)

    def on_test_start(self) -> None:
        """The first process notes where this is computed, and tells how far it is; the others are about as far."""
        if not self.trainer.is_global_zero:
            return
        processes = self.trainer.world_size
        note_session(self.records.folder, environment(self.device, processes))
        mine = [(name, number) for number in range(0, self.work.batches, processes) for name in self.adversaries]
        done = [(name, number) for name, number in mine if self.records.done(name, number)]
        if len(done) == len(mine):
            return
        for name, number in done:
            self._right.setdefault(name, []).extend(self.records.right(name, number))
        share = f" of the first of {processes} processes" if processes > 1 else ""
        self._progress = Progress(self._pairs(mine), f"images x adversaries{share}", self._pairs(done))

    def on_test_end(self) -> None:
        """Leave the terminal in order."""
        if self._progress is not None:
            self._progress.close()

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Examine one batch under every adversary that has not been done, if there is time for all of them."""
        number = batch_idx * self.trainer.world_size + self.trainer.global_rank
        missing = [name for name in self.adversaries if not self.records.done(name, number)]
        expected = self._pace * len(batch[1]) * sum(self.work.seconds[name] for name in missing)
        if self.work.until is not None and time.monotonic() + expected > self.work.until:
            return
        x, y = batch
        x = unit_range(x).contiguous(memory_format=torch.channels_last)
        for name in missing:
            self._examine(name, number, x, y)

    def _examine(self, name: str, number: int, x: Tensor, y: Tensor) -> None:
        work, first = self.work, number * self.work.batch_size
        with counting(self.network) as meter:
            found = examine(
                self.network, (x, y), first, name, self.adversaries[name], work.seed, work.draws, work.early_exit
            )
        kept = found.x_adv[: max(0, work.keep - first)].cpu().numpy()
        self.records.write(name, number, found.rows, kept, meter.cost)
        self._measure(name, len(y), meter.cost)
        self._right.setdefault(name, []).extend(found.rows.counts[range(len(y)), found.rows.label] / work.draws)
        if self._progress is not None:
            self._progress.advance(len(y), self._so_far(name))

    def _measure(self, name: str, images: int, cost: Cost) -> None:
        self._spent += cost.seconds
        self._expected += images * self.work.seconds[name]
        self._pace = self._spent / self._expected if self._expected else 1.0

    def _so_far(self, name: str) -> str:
        shares = self._right[name]
        return f"{name} {100 * sum(shares) / len(shares):.1f} % right"

    def _pairs(self, batches: Sequence[tuple[str, int]]) -> int:
        """Each image once for each adversary."""
        size, n = self.work.batch_size, self.work.n
        return sum(min(size, n - number * size) for _, number in batches)
