"""Evaluation on Lightning's devices: which process does which batch, nothing else."""

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset

from attacks import Attack
from datamodules.sampling import ShardedBatches
from evaluation import Records, examine


class Evaluator(pl.LightningModule):
    """Each process examines its share of the batches and writes them; a batch that was written is left out.

    Args:
        network: images in [0, 1] -> logits.
        split: images as uint8 and labels, by index.
        attacks: by name of the adversary; the clean images are judged in any case.
        records: where rows go.
        n: how many images, from the first on.
        batch_size: images per unit of work.
        seed: of attacks and judge.
        draws: passes of the judge.
        first_success: see `examine`.
        keep: of the first so many images, what each adversary made of them is kept.
    """

    def __init__(
        self,
        network: nn.Module,
        split: Dataset[tuple[Tensor, Tensor]],
        attacks: dict[str, Attack],
        records: Records,
        n: int,
        batch_size: int,
        seed: int,
        draws: int,
        first_success: bool,
        keep: int,
    ) -> None:
        super().__init__()
        # With fewer batches than processes some have nothing to do.
        self.allow_zero_length_dataloader_with_multiple_devices = True
        self.network = network.to(memory_format=torch.channels_last)
        self.images = Subset(split, range(n))
        self.adversaries: dict[str, Attack | None] = {"clean": None, **attacks}
        self.records = records
        self.n, self.batch_size, self.seed, self.draws = n, batch_size, seed, draws
        self.first_success, self.keep = first_success, keep

    def test_dataloader(self) -> DataLoader[tuple[Tensor, Tensor]]:
        """Whole batches, dealt round robin to the processes."""
        batches = ShardedBatches(self.n, self.batch_size, self.trainer.global_rank, self.trainer.world_size)
        return DataLoader(self.images, batch_sampler=batches)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Examine one batch under every adversary that has not been done."""
        x, y = batch
        if not x.is_floating_point():
            x = x.float() / 255
        x = x.contiguous(memory_format=torch.channels_last)
        number = batch_idx * self.trainer.world_size + self.trainer.global_rank
        for name, attack in self.adversaries.items():
            if not self.records.done(name, number):
                first = number * self.batch_size
                settings = (self.seed, self.draws, self.first_success)
                found = examine(self.network, (x, y), first, name, attack, *settings)
                kept = found.x_adv[: max(0, self.keep - first)].cpu().numpy()
                self.records.write(name, number, found.rows, kept)
