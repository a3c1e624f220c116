"""Real Trainer runs: one that is resumed sees the same pixels in the same order as one without a break."""

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor

from datamodules import Digits

pytestmark = [
    # Digits lie in memory, where workers would only cost; Lightning advises them whatever the dataset.
    pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning"),
    # Lightning 2.6.6 itself uses what torch 2.15 has deprecated.
    pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated:FutureWarning"),
    # No validation images are asked for in some tests; Lightning makes sure that this is meant.
    pytest.mark.filterwarnings("ignore:Total length of `list` across ranks is zero:UserWarning"),
    # A machine with an accelerator runs these tests on the CPU on purpose.
    pytest.mark.filterwarnings("ignore:GPU available but not used:UserWarning"),
]

BATCHES = 3


class Recorder(pl.LightningModule):
    """A linear model that keeps a fingerprint of each training batch: position-weighted pixels and labels."""

    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Linear(64, 10)
        self.seen: list[tuple[float, int]] = []
        self.validated = 0

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        weights = torch.arange(1, 1 + x.numel(), dtype=torch.float64)
        self.seen.append((float(x.flatten().double() @ weights), int(y.sum())))
        return torch.nn.functional.cross_entropy(self.net(x.flatten(1)), y)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.validated += len(batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Saver(pl.Callback):
    """Writes a checkpoint wherever ModelCheckpoint may, and notes how many batches had been seen."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.saved: list[tuple[str, Path, int]] = []

    def _save(self, trainer: pl.Trainer, model: pl.LightningModule, hook: str) -> None:
        assert isinstance(model, Recorder)
        path = self.folder / f"{len(self.saved)}.ckpt"
        trainer.save_checkpoint(path)
        self.saved.append((hook, path, len(model.seen)))

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        self._save(trainer, pl_module, "batch")

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._save(trainer, pl_module, "validation")

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._save(trainer, pl_module, "epoch")


def fit(data: Digits, ckpt_path: Path | None = None, callback: pl.Callback | None = None, **options: Any) -> Recorder:
    model = Recorder()
    trainer = pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        callbacks=callback,
        **options,
    )
    trainer.fit(model, datamodule=data, ckpt_path=ckpt_path, weights_only=True)
    return model


def digits(**options: Any) -> Digits:
    return Digits(batch_size=400, crop_padding=1, flip=True, **options)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"max_epochs": 2}, id="plain"),
        pytest.param({"max_epochs": 2, "val_check_interval": 0.5}, id="validation within the epoch"),
        pytest.param({"max_epochs": 2, "limit_train_batches": 2}, id="short epochs"),
        pytest.param({"max_epochs": 2, "accumulate_grad_batches": 2}, id="accumulation"),
    ],
)
def test_every_checkpoint_goes_on_with_the_same_batches(options: dict[str, Any], tmp_path: Path) -> None:
    saver = Saver(tmp_path)
    whole = fit(digits(), callback=saver, **options).seen
    assert len(set(whole)) == len(whole), "order and augmentation change from epoch to epoch"
    assert {hook for hook, _, _ in saver.saved} == {"batch", "validation", "epoch"}
    for hook, path, trained in saver.saved:
        assert fit(digits(), path, **options).seen == whole[trained:], f"{hook} after {trained} batches"


def test_workers_that_read_ahead_go_on_with_the_same_batches(tmp_path: Path) -> None:
    saver = Saver(tmp_path)
    whole = fit(digits(num_workers=2, val_images=0), callback=saver, max_epochs=2).seen
    assert whole == fit(digits(val_images=0), max_epochs=2).seen
    chosen = [saved for saved in saver.saved if saved[2] in (1, BATCHES)]
    assert [hook for hook, _, _ in chosen] == ["batch", "batch", "epoch"]
    for hook, path, trained in chosen:
        seen = fit(digits(num_workers=2, val_images=0), path, max_epochs=2).seen
        assert seen == whole[trained:], f"{hook} after {trained} batches"


def test_a_run_that_goes_on_under_max_steps_in_the_middle_of_an_epoch(tmp_path: Path) -> None:
    saver = Saver(tmp_path)
    whole = fit(digits(), callback=saver, max_steps=6).seen
    path, trained = next((path, trained) for _, path, trained in saver.saved if trained == 5)
    assert fit(digits(), path, max_steps=6).seen == whole[trained:]


def test_global_randomness_changes_nothing() -> None:
    torch.manual_seed(1)
    first = fit(digits(), max_epochs=1).seen
    torch.manual_seed(2)
    assert fit(digits(), max_epochs=1).seen == first
    assert fit(digits(seed=1), max_epochs=1).seen != first


def test_validation_and_test_images_are_not_augmented() -> None:
    data = digits()
    expected = [data.on_after_batch_transfer(batch, 0)[0] for batch in data.test_dataloader()]

    class Collector(Recorder):
        def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
            assert torch.equal(batch[0], expected[batch_idx])
            self.validated += len(batch[1])

        def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
            raw = data.split("val")[list(range(len(batch[1])))][0]
            assert torch.equal(batch[0], raw / 255)

    model = Collector()
    trainer = pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        max_epochs=1,
    )
    trainer.fit(model, datamodule=data)
    trainer.test(model, datamodule=data, verbose=False)
    assert model.validated == 360


def test_fitting_without_validation_images_validates_nothing() -> None:
    assert fit(digits(val_images=0), max_epochs=1).validated == 0


def test_a_batch_larger_than_the_training_set_ends_the_run_with_one_line() -> None:
    with pytest.raises(ValueError, match=r"^batch_size must be 1 \.\.\. 1237 with 1237 training images[^\n]*$"):
        fit(Digits(batch_size=1238), max_epochs=1)
