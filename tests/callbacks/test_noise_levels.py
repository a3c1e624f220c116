"""Learned strengths of noise by the names of their layers, once an epoch."""

from collections.abc import Callable

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers.logger import DummyLogger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from callbacks.noise_levels import NoiseLevels, learned_strengths
from defenses import Noisy, ParamNet, PNIActivations, PNIWeights, RobustNet
from defenses.learned_noise import LearnedNoise, RunningScaledNoise
from lightning_modules import Classifier
from models import Normalized, ResNet20

LAYERS = [name for name, part in ResNet20().named_modules() if isinstance(part, nn.Conv2d | nn.Linear)]


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (lambda network: RobustNet(network, LearnedNoise(0.25), LearnedNoise(0.25)), LAYERS[:-1]),
        (lambda network: PNIWeights(network, 0.25), LAYERS),
        (lambda network: PNIActivations(network, 0.25), LAYERS),
        (lambda network: RobustNet(network, LearnedNoise(0.25), RunningScaledNoise(0.1)), LAYERS[:1]),
        (lambda network: ParamNet(network), []),
    ],
    ids=["RobustNet", "PNIWeights", "PNIActivations", "first layer", "ParamNet"],
)
def test_every_learned_strength_is_there_by_its_layer(build: Callable[[nn.Module], Noisy], expected: list[str]) -> None:
    noisy = build(Normalized(ResNet20(), [0.5] * 3, [0.25] * 3))
    for name, parameter in noisy.named_parameters():
        if name.endswith(("scale", "alpha")):
            nn.init.constant_(parameter, -0.125)  # the sign means nothing
    strengths = learned_strengths(Classifier(noisy))
    assert list(strengths) == expected
    assert {float(strength) for strength in strengths.values()} <= {0.125}


# The images lie in memory, where workers would only cost.
@pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning")
@pytest.mark.filterwarnings("ignore:GPU available but not used:UserWarning")
@pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated:FutureWarning")
def test_a_run_logs_them_before_the_first_step_and_after_each_epoch() -> None:
    class Kept(pl.Callback):
        def __init__(self) -> None:
            self.values: list[float] = []

        def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            self.values.append(float(learned_strengths(pl_module)["0"]))

    class Memory(DummyLogger):
        def __init__(self) -> None:
            super().__init__()
            self.rows: list[tuple[int | None, float]] = []

        def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:  # type: ignore[override]
            self.rows += [(step, metrics["noise/0"])] if "noise/0" in metrics else []

    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 5))
    module, kept = Classifier(RobustNet(network, LearnedNoise(0.25)), robust_images=0), Kept()
    trainer = pl.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=(memory := Memory()),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
        callbacks=[NoiseLevels(), kept],
    )
    loader = DataLoader(TensorDataset(torch.rand(16, 3, 4, 4), torch.arange(16) % 5), 8)
    trainer.fit(module, loader, loader)
    assert len(set(kept.values)) == 2
    assert float(trainer.callback_metrics["noise/0"]) == pytest.approx(kept.values[-1])
    assert memory.rows == [
        (0, 0.25),
        *((step, pytest.approx(level)) for step, level in zip((1, 3), kept.values, strict=True)),
    ]
