"""Adaptive attacks during validation and test: the numbers that a run is steered by are the ones it is judged by."""

from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor, nn
from torch.utils.data import Dataset, default_collate

from attacks import Attack
from callbacks.findings import ROW_COLUMNS, SUMMARY_COLUMNS, Findings
from callbacks.loggers import keep_file, show_curves, show_panel, show_table
from callbacks.panels import Panel, panel
from callbacks.suites import at_radii, read_suite
from datamodules import ImageDataModule
from datamodules.pixels import unit_range
from defenses import Stream, has_shared_draws, is_random
from evaluation import Setting, examine
from evaluation.parts import parquet
from evaluation.records import write_atomically

_MOST_CLASSES = 20  # with more, the accuracy of each class would bury everything else
_PREFIX = {"val": "adaptive", "test": "test/adaptive"}
_FILE = {"val": "adaptive.parquet", "test": "test_adaptive.parquet"}
_EPOCH = "freshdraw.epoch"  # key of the file's metadata


class AdaptiveEvaluation(Callback):
    """Runs a suite of attacks on the same images again and again, each judged on draws that no attack has seen.

    In training it runs after the first validation, then every `every_n_epochs` epochs and after the last; in
    `trainer.validate` and `trainer.test` always. The numbers are those of evaluate.py for the same images, weights,
    seed, draws and batch size, on any number of devices: batches are dealt to them, never padded, and every draw is
    named by (seed, adversary, first image). Training does not notice: modes, gradients, BatchNorm and random streams
    are afterwards as they were before.

    Logs `adaptive/ADVERSARY/accuracy`, `/low`, `/high` (95 % interval), `/class/LABEL` and `adaptive/worst_case` with
    `/low` and `/high` (over all attacks that have a ball), which `ModelCheckpoint(monitor="adaptive/worst_case",
    mode="max")` and `EarlyStopping` can watch. Epochs in between keep the last value, so a patience counts all
    validations. On test images the names begin with `test/adaptive`: nothing that is watched can be theirs by mistake.
    Loggers that can show more get a table of the adversaries, one of sampled images, accuracy over eps and over L2, and
    pictures; what no logger takes goes to `panels/` in the run's folder as CSV and PNG files. All rows of the last
    evaluation lie in `adaptive.parquet` there (`test_adaptive.parquet` of test images) and become an artifact of W&B.

    Args:
        suite: name of a file in configs/suites, path of a YAML file, or attacks by name.
        every_n_epochs: see above.
        n_images: the first so many of the split; all if it has fewer.
        draws: passes of the judge per image; None: 20 for a random network, else 1.
        eps: radii in pixels of [0, 1], also as 8/255, that take the place of the suite's; several of them give a curve.
        batch_size: images per unit of work. Part of what the numbers of random attacks depend on.
        panel_images: how many images a picture shows, at most `batch_size`; 0 for no pictures.
        seed: of attacks and judge.

    Raises:
        ValueError: a number is out of its range, or there is no such suite.
    """

    def __init__(
        self,
        suite: str | dict[str, Attack],
        every_n_epochs: int = 1,
        n_images: int = 256,
        draws: int | None = None,
        eps: list[float | str] | None = None,
        batch_size: int = 64,
        panel_images: int = 8,
        seed: int = 0,
    ) -> None:
        for name, value, least in (
            ("every_n_epochs", every_n_epochs, 1),
            ("n_images", n_images, 1),
            ("draws", 1 if draws is None else draws, 1),
            ("batch_size", batch_size, 1),
            ("panel_images", panel_images, 0),
            ("seed", seed, 0),
        ):
            if value < least:
                raise ValueError(f"AdaptiveEvaluation: {name} must be at least {least}, got {value}")
        self.attacks, self.radii = at_radii(read_suite(suite), eps or ())
        self.every_n_epochs, self.n_images, self.draws = every_n_epochs, n_images, draws
        self.batch_size, self.panel_images, self.seed = batch_size, min(panel_images, batch_size), seed
        self._share: list[pa.Table] | None = None
        self._panels: dict[str, Panel] = {}
        self._written: Path | None = None
        self._ran = False

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Refuse what would give no honest number.

        Raises:
            ValueError: weights are not in float32 or better, or one draw is to judge a random network.
        """
        if trainer.precision in ("16-true", "bf16-true", "transformer-engine", "transformer-engine-float16"):
            raise ValueError(
                f"AdaptiveEvaluation needs weights in float32, got --trainer.precision {trainer.precision}; "
                "train with bf16-mixed instead"
            )
        if self.draws == 1 and is_random(_network(pl_module)):
            raise ValueError("AdaptiveEvaluation: a random network takes at least 2 draws, got 1")
        self._ran = False

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Attack after the last batch: at the end of the epoch averaged weights (EMA) may have been put back."""
        if batch_idx + 1 == trainer.num_val_batches[dataloader_idx] and self._due(trainer):
            self._examine(trainer, pl_module, "val")

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put the shares of all processes together and log."""
        if self._due(trainer):
            self._report(trainer, pl_module, "val")
            self._ran = True

    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """As in validation."""
        if batch_idx + 1 == trainer.num_test_batches[dataloader_idx]:
            self._examine(trainer, pl_module, "test")

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """As in validation."""
        self._report(trainer, pl_module, "test")

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Hand over the last table, once: each evaluation's would be another version of the artifact."""
        if self._written is not None:
            keep_file(trainer, self._written.stem.replace("_", "-"), self._written)
        self._written = None

    def _due(self, trainer: pl.Trainer) -> bool:
        if trainer.sanity_checking:
            return False
        epoch = trainer.current_epoch + 1
        chosen = epoch % self.every_n_epochs == 0 or epoch == trainer.max_epochs
        return chosen or not self._ran or trainer.state.fn == "validate"

    def _examine(self, trainer: pl.Trainer, pl_module: pl.LightningModule, split: Literal["val", "test"]) -> None:
        """This process's share of the batches."""
        images, network = _images(trainer, split), _network(pl_module)
        n, device = min(self.n_images, len(images)), pl_module.device  # type: ignore[arg-type]
        draws = self.draws or (20 if is_random(network) else 1)
        everyone: dict[str, Attack | None] = {"clean": None, **self.attacks}
        self._panels, parts = {}, []
        own = range(trainer.global_rank * self.batch_size, n, trainer.world_size * self.batch_size)
        # Layers that know nothing of our streams draw from PyTorch's own generators, as training does.
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            for first in own:
                x, y = _batch(images, first, min(first + self.batch_size, n), device)
                for name, attack in everyone.items():
                    torch.manual_seed(Stream.named(self.seed, name, "other layers", index=first).seed)
                    # As evaluate.py by default: without noise, an image on which the network errs is done.
                    found = examine(network, (x, y), first, name, attack, self.seed, draws, first_success=True)
                    parts.append(found.rows.to_arrow(name, first // self.batch_size))
                    if first == 0 and attack is not None and self.panel_images:
                        shown = slice(self.panel_images)
                        self._panels[name] = panel(x[shown], found.x_adv[shown], network, self.seed)
        self._share = parts

    def _report(self, trainer: pl.Trainer, pl_module: pl.LightningModule, split: Literal["val", "test"]) -> None:
        if self._share is None:  # this process has no batch of the split, but may have one of ours
            self._examine(trainer, pl_module, split)
        network = _network(pl_module)
        table = _joined(self._share or [], trainer)
        self._share = None
        # An attack without a ball goes as far as it must: it has no place in a worst case.
        bounded = tuple(name for name, attack in self.attacks.items() if getattr(attack, "ball", None) is not None)
        setting = Setting(is_random(network), has_shared_draws(network), seed=self.seed, bounded=bounded)
        found = Findings(table, setting, self.radii)
        per_class = found.rows["clean"].counts.shape[1] <= _MOST_CLASSES
        logged = {f"{_PREFIX[split]}/{name}": value for name, value in found.logged(per_class).items()}
        # All processes hold the same numbers; the largest of them is exact where a mean would round.
        pl_module.log_dict(logged, on_step=False, on_epoch=True, sync_dist=True, reduce_fx="max", batch_size=1)
        self._show(trainer, found, _PREFIX[split])
        if trainer.is_global_zero:
            self._written = Path(trainer.default_root_dir) / _FILE[split]
            self._written.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(
                self._written, parquet(table.replace_schema_metadata({_EPOCH: str(trainer.current_epoch)}))
            )

    def _show(self, trainer: pl.Trainer, found: Findings, prefix: str) -> None:
        attacks = {name: str(attack) for name, attack in self.attacks.items()}
        show_table(trainer, f"{prefix}/adversaries", SUMMARY_COLUMNS, found.summary_rows(attacks))
        show_table(trainer, f"{prefix}/images", ROW_COLUMNS, found.sampled_rows())
        show_curves(trainer, prefix, found.curves)
        for name, drawn in self._panels.items():
            show_panel(trainer, f"{prefix}/{name}/panel", drawn)


def _network(pl_module: pl.LightningModule) -> nn.Module:
    """What is attacked: the module's `network`, or itself where it has none."""
    network = getattr(pl_module, "network", pl_module)
    assert isinstance(network, nn.Module)
    return network


def _images(trainer: pl.Trainer, split: Literal["val", "test"]) -> Dataset[Any]:
    data = getattr(trainer, "datamodule", None)
    if isinstance(data, ImageDataModule):
        return data.split(split)
    loaders: Any = trainer.val_dataloaders if split == "val" else trainer.test_dataloaders
    images: Dataset[Any] = (loaders[0] if isinstance(loaders, list | tuple) else loaders).dataset
    return images


def _batch(images: Dataset[Any], first: int, end: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Images first..end-1 as x float32 [B, C, H, W] in [0, 1] and y int64 [B]."""
    x, y = default_collate([images[i] for i in range(first, end)])
    x, y = unit_range(x.to(device)), y.to(device)
    return x.contiguous(memory_format=torch.channels_last), y


def _joined(share: list[pa.Table], trainer: pl.Trainer) -> pa.Table:
    """The parts of all processes as one table, on each of them."""
    shares: list[list[pa.Table] | None] = [share]
    if trainer.world_size > 1:
        shares = [None] * trainer.world_size
        torch.distributed.all_gather_object(shares, share)
    return pa.concat_tables([part for parts in shares for part in parts or []])
