"""A small training of images of 4x4 pixels, and a logger that keeps what it is given."""

from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import Logger
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from attacks import PGD, Attack, Linf
from defenses import GaussianNoise, RobustNet
from evaluation.curves import Curve

CLASSES = 3
SUITE: dict[str, Attack] = {
    "pgd2": PGD(Linf(0.1), step_size=0.05, steps=2),
    "pgd3": PGD(Linf(0.2), step_size=0.1, steps=3),
}


class Kept(Logger):
    """Whatever is logged, in the order of the calls."""

    def __init__(self) -> None:
        super().__init__()
        self.metrics: list[dict[str, float]] = []
        self.tables: dict[str, tuple[list[str], list[list[Any]]]] = {}
        self.images: dict[str, tuple[list[Any], list[str]]] = {}
        self.curves: dict[str, list[Curve]] = {}

    name, version = "kept", ""

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.metrics.append(dict(metrics))

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        pass

    def log_table(self, key: str, columns: list[str], data: list[list[Any]], step: int) -> None:
        self.tables[key] = (columns, data)

    def log_image(self, key: str, images: list[Any], step: int, caption: list[str]) -> None:
        self.images[key] = (images, caption)

    def log_curves(self, key: str, curves: list[Curve], x_name: str, step: int) -> None:
        self.curves[key] = curves


class Module(pl.LightningModule):
    """Trains with PyTorch's own random numbers, which nobody sets anew in between."""

    def __init__(self, random: bool = True) -> None:
        super().__init__()
        torch.manual_seed(1)
        body = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.5), nn.Linear(16, CLASSES)]
        network = nn.Sequential(*body)
        self.network = RobustNet(network, GaussianNoise(0.3), GaussianNoise(0.3)) if random else network

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        return F.cross_entropy(self.network(x), y)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        pass

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        pass

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def images(n: int = 22) -> TensorDataset:
    x = torch.rand(n, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    return TensorDataset(x, (x.mean((1, 2, 3)) * 50).long() % CLASSES)


def loader(n: int = 22, shuffle: bool = False) -> DataLoader[Any]:
    return DataLoader(images(n), 8, shuffle=shuffle)


def trainer(*callbacks: pl.Callback, logger: Logger | None = None, **settings: Any) -> pl.Trainer:
    return pl.Trainer(
        accelerator="cpu",
        callbacks=list(callbacks),
        logger=logger or False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **{"devices": 1, "enable_checkpointing": False, "log_every_n_steps": 1, "num_sanity_val_steps": 0, **settings},
    )
