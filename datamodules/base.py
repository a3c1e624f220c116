"""What all datasets share: splits, loaders, conversion to [0, 1], augmentation and exact resume."""

import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, Subset

from datamodules.augment import crop_and_flip
from datamodules.pixels import unit_range
from datamodules.sampling import SeededBatches, ShardedBatches, mixed_seed, seeded_permutation

Batch = tuple[Tensor, Tensor]
SplitName = Literal["train", "val", "test"]


class Labelled(Dataset[Batch]):
    """Images with labels int64 [N]; an index or a list of indices gives (pixels uint8, labels)."""

    labels: Tensor

    def __len__(self) -> int:
        """Number of images."""
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class Images(Labelled):
    """Images held in memory.

    Args:
        pixels: uint8 [N, C, H, W].
        labels: int64 [N].
    """

    pixels: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        """Checks types and shapes once, so that no loader has to."""
        pixels, labels = self.pixels, self.labels
        if pixels.dtype != torch.uint8 or pixels.ndim != 4:
            raise ValueError(f"pixels must be uint8 [N, C, H, W], not {pixels.dtype} {list(pixels.shape)}")
        if labels.dtype != torch.int64 or labels.shape != pixels.shape[:1]:
            raise ValueError(f"labels must be int64 [{len(pixels)}], not {labels.dtype} {list(labels.shape)}")

    def __getitem__(self, index: int | list[int]) -> Batch:
        """Returns pixels and labels, with a leading axis if `index` is a list."""
        return self.pixels[index], self.labels[index]


class ResumableLoader(DataLoader[Batch]):
    """A DataLoader that tells Lightning that it goes on in the middle of an epoch.

    Its state is empty: `ImageDataModule` keeps the position, and a second count of it could only disagree.
    """

    def state_dict(self) -> dict[str, Any]:
        """Returns nothing: there is nothing to add to Lightning's own counters."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes what `state_dict` returned."""


class ImageDataModule(pl.LightningDataModule, ABC):
    """Labelled images as batches (x, y): x float32 [B, C, H, W] in [0, 1], y int64 [B].

    Loaders deliver uint8; conversion and augmentation happen on the device. Validation images are taken from
    the training set, so that nothing is ever selected on the test set. Create the Trainer with
    `use_distributed_sampler=False`: the loaders themselves deal the images to the processes.

    A run resumed from a checkpoint, written at the end of an epoch or in the middle, sees the same batches,
    augmented in the same way, as one without a break. The exception is a Trainer with `max_steps` and a
    checkpoint from `on_train_epoch_end`: there Lightning 2.6.6 counts an empty epoch, and training goes on
    with the order of the epoch after it; prefer `max_epochs`.

    A dataset is a subclass with the four constants below and `_load`.

    Args:
        root: folder with the dataset's official files, or where to download them to.
        batch_size: images per batch and process.
        val_images: number of training images set aside for validation; 0 for none.
        crop_padding: zero pixels on each side for random crops in training; 0 switches crops off.
        flip: whether training mirrors images at random.
        num_workers: processes that load; 0 is right for images held in memory.
        download: whether missing files may be downloaded.
        seed: of validation split, order and augmentation; not negative.

    Raises:
        ValueError: for a negative or, with `batch_size`, zero value.
    """

    channels: int
    num_classes: int
    image_size: int
    classes: tuple[str, ...]

    def __init__(
        self,
        root: str = "data",
        batch_size: int = 128,
        val_images: int = 5000,
        crop_padding: int = 4,
        flip: bool = True,
        num_workers: int = 0,
        download: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        for name, value, least in (
            ("batch_size", batch_size, 1),
            ("val_images", val_images, 0),
            ("crop_padding", crop_padding, 0),
            ("num_workers", num_workers, 0),
            ("seed", seed, 0),
        ):
            if value < least:
                raise ValueError(f"{name} must be at least {least}, not {value}")
        self.root = Path(root).expanduser()
        self.batch_size = batch_size
        self.val_images = val_images
        self.crop_padding = crop_padding
        self.flip = flip
        self.num_workers = num_workers
        self.download = download
        self.seed = seed
        self._loaded: dict[bool, Labelled] = {}
        self._restored: tuple[int, int] | None = None

    @abstractmethod
    def _load(self, train: bool) -> Labelled:
        """Finds, downloads if allowed, and reads the official training or test set."""

    def _images(self, train: bool) -> Labelled:
        if train not in self._loaded:
            self._loaded[train] = self._load(train)
        return self._loaded[train]

    def prepare_data(self) -> None:
        """Lets one process of each machine find or download the files before all of them read."""
        self._images(train=self.trainer is None or not self.trainer.testing)

    def split(self, name: SplitName) -> Subset[Batch]:
        """Returns the images of one split.

        Args:
            name: "train", "val" (disjoint, together the whole official training set) or "test".

        Returns:
            (pixels uint8, labels int64) for an index or, with a leading axis, a list of indices; its
            `indices` are positions in the official set, in ascending order.

        Raises:
            ValueError: for another name, or if `val_images` leaves nothing to train on.
            FileNotFoundError: if the files are neither there nor to be had.
        """
        if name not in ("train", "val", "test"):
            raise ValueError(f"split must be train, val or test, not {name!r}")
        images = self._images(train=name != "test")
        size = len(images)
        if name == "test":
            return Subset(images, range(size))
        if self.val_images >= size:
            raise ValueError(f"val_images must be 0 ... {size - 1} of {size} images, not {self.val_images}")
        order = seeded_permutation(size, self.seed).tolist()
        return Subset(images, sorted(order[: self.val_images] if name == "val" else order[self.val_images :]))

    def train_dataloader(self) -> DataLoader[Batch]:
        """Shuffled whole batches, from where Lightning's counters say that training stands."""
        images = self.split("train")
        rank, world_size = self._place()
        epoch, start = self._restored or self._position()
        self._restored = None
        key = (self.seed, rank, world_size, epoch, start)
        return self._loader(images, SeededBatches(len(images), self.batch_size, *key))

    def val_dataloader(self) -> DataLoader[Batch] | list[DataLoader[Batch]]:
        """The validation images in fixed order; an empty list if `val_images` is 0.

        Raises:
            ValueError: there are fewer images than processes.
        """
        if not self.val_images:
            return []
        if self.val_images < (processes := self._place()[1]):
            raise ValueError(f"val_images must be 0 or at least the {processes} processes, not {self.val_images}")
        return self._evaluation_loader("val", self.val_batch_size)

    def test_dataloader(self) -> DataLoader[Batch]:
        """The official test images in official order."""
        return self._evaluation_loader("test", self.batch_size)

    @property
    def val_batch_size(self) -> int:
        """Images per validation batch: fewer than `batch_size` where a process would have none.

        A process without a batch would not come to where the others wait for it (DDP's buffers, counts, checkpoints).
        """
        return max(1, min(self.batch_size, self.val_images // self._place()[1]))

    def _evaluation_loader(self, name: SplitName, batch_size: int) -> DataLoader[Batch]:
        images = self.split(name)
        return self._loader(images, ShardedBatches(len(images), batch_size, *self._place()))

    def _loader(self, images: Subset[Batch], batches: Sampler[list[int]]) -> DataLoader[Batch]:
        return ResumableLoader(
            images,
            sampler=batches,
            batch_size=None,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=self.trainer is not None and self.trainer.strategy.root_device.type == "cuda",
        )

    def _place(self) -> tuple[int, int]:
        """Returns (rank, world size)."""
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)

    def state_dict(self) -> dict[str, int]:
        """Returns where training stands, for the checkpoint.

        Lightning restores its counters only after `configure_optimizers`, which has the training loader built already
        if it asks for the number of steps; the state of a datamodule is restored before.
        """
        epoch, batches = self._position()
        return {"epoch": epoch, "batches": batches}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Takes what `state_dict` returned."""
        self._restored = state_dict["epoch"], state_dict["batches"]

    def _position(self) -> tuple[int, int]:
        """Returns the epoch to train next and the number of its batches that have been trained on already.

        After a restart Lightning takes only as many batches as the epoch lacks, but takes them from the start
        of the loader (pytorch-lightning 2.6.6, loops/training_epoch_loop.py). Of its counters `processed` is
        exact at all times: `ready` runs ahead in a step, `completed` lags behind while checkpoints are saved.
        """
        if self.trainer is None:
            return 0, 0
        epochs = self.trainer.fit_loop.epoch_progress.current.state_dict()
        batches = self.trainer.fit_loop.epoch_loop.batch_progress
        if epochs["ready"] == epochs["processed"]:
            return epochs["processed"], 0
        if batches.is_last_batch:
            # Saved after the last batch, before the epoch was closed: the next epoch is loaded next.
            return epochs["processed"] + 1, 0
        return epochs["processed"], batches.current.state_dict()["processed"]

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Augments training images and turns uint8 into float32 in [0, 1], on the device.

        Args:
            batch: x uint8 [B, C, H, W] as loaded, y int64 [B]; a floating x is not ours and passes untouched.
            dataloader_idx: number of the loader, not used.

        Returns:
            x float32 in [0, 1], y.
        """
        x, y = batch
        if x.is_floating_point():
            return batch
        if self.trainer is not None and self.trainer.training and (self.crop_padding or self.flip):
            x = crop_and_flip(x, self.crop_padding, self.flip, self._generator())
        return unit_range(x), y

    def _generator(self) -> torch.Generator:
        """Returns the random numbers of the training batch that Lightning is about to start, on this rank."""
        assert self.trainer is not None
        loop = self.trainer.fit_loop
        # The number that Lightning gives to set_epoch; `trainer.current_epoch` can lag behind it.
        epoch = loop.epoch_progress.current.state_dict()["processed"]
        key = (self.seed, epoch, loop.batch_idx + 1, self.trainer.global_rank)
        return torch.Generator().manual_seed(mixed_seed(*key))

    def _fetch(self, download: Callable[[], object], wanted: str, places: Sequence[Path]) -> None:
        """Downloads what is missing.

        Raises:
            FileNotFoundError: if downloading is not allowed or does not work.
        """
        if not self.download:
            raise self._missing(wanted, places, "download is off")
        try:
            with _short_timeout():
                download()
        # URLError, HTTPError and timeouts are OSErrors; torchvision adds RuntimeErrors of its own.
        except (OSError, RuntimeError) as error:
            raise self._missing(wanted, places, f"download failed: {' '.join(str(error).split())}") from None

    def _missing(
        self, wanted: str, places: Sequence[Path], reason: str, way: str = "download with a network"
    ) -> FileNotFoundError:
        """Returns an error of one line: what was looked for, where, why it is not there, and the ways on."""
        where = " or ".join(str(place.absolute()) for place in places)
        return FileNotFoundError(
            f"{type(self).__name__}: {wanted} not found in {where} ({reason}); {way}, "
            "give --data.root DIR with the official files, or use --data Digits"
        )


@contextmanager
def _short_timeout(seconds: float = 7) -> Iterator[None]:
    """Lets a dead network fail in seconds; torchvision passes no timeout of its own."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
