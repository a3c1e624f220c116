"""What a training step costs: ratios from one run, the same work on both sides, interleaved.

    python benchmarks/training.py [--rounds N] [--threads N]

ResNet-20, batch 128 of 3x32x32, PGD-7 (eps 0.031, step 0.01, random start), SGD. Ours: Lightning's loop over
AdversarialClassifier, channels_last. Reference: a plain PyTorch loop with advertorch's LinfPGDAttack, default layout,
noise as `x + std * torch.randn_like(x)`. Both learn from the adversarial images alone, from the label, and both
attack the network in eval mode. Times are medians over the steps of all rounds; leave the machine alone meanwhile.
"""

import argparse
import logging
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from attacks.advertorch import advertorch_attacks
from datamodules.base import ImageDataModule, Images
from defenses import GaussianNoise, RobustNet, Stream, drawing_from
from lightning_modules import AdversarialClassifier, Classifier
from models import ResNet20

BATCH, STEPS, WARM = 128, 4, 2
LEVEL = 0.1
# What the project promises, and where that comes from: 1 forward = 1, backward = 2, input gradient alone = 1. A clean
# step is 3, seven attack steps are 14, so adversarial-only is (14 + 3) / 3 and the mix (14 + 6) / 3.
BOUNDS = {
    "adversarial-only / clean step": ("at most", 6.0, "without folding BatchNorm the arithmetic floor is 5.67"),
    "papers' mix / clean step": ("at most", 7.0, "likewise 6.67"),
    "advertorch loop / ours": ("at least", 1.5, "adversarial-only, no noise"),
    "advertorch loop / ours, RobustNet noise": ("at least", 1.8, "adversarial-only, 0.1 / 0.1"),
    "noise layer / bare torch.randn": ("at most", 1.1, "128x16x32x32, torch.randn contiguous, on one thread as always"),
}


class RandomImages(ImageDataModule):
    """Enough random images for some steps."""

    channels, num_classes, image_size, classes = 3, 10, 32, tuple("0123456789")

    def _load(self, train: bool) -> Images:
        size = BATCH * (STEPS + WARM)
        return Images(torch.randint(256, (size, 3, 32, 32), dtype=torch.uint8), torch.randint(10, (size,)))


class StepTimes(pl.Callback):
    """Seconds of each step after the first ones."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Start the watch."""
        self._start = time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop it."""
        if batch_idx >= WARM:
            self.seconds.append(time.perf_counter() - self._start)


def ours(module: Callable[[], Classifier]) -> Callable[[], list[float]]:
    """A few steps of Lightning's loop."""
    torch.manual_seed(0)
    kept = module()

    def run() -> list[float]:
        times = StepTimes()
        trainer = pl.Trainer(
            max_epochs=1,
            callbacks=[times],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
        trainer.fit(kept, datamodule=RandomImages(batch_size=BATCH, val_images=0, crop_padding=0, flip=False))
        return times.seconds

    return run


class RandnLike(nn.Module):
    """Noise as one would write it."""

    def forward(self, x: Tensor) -> Tensor:
        """Input plus noise."""
        return x + LEVEL * torch.randn_like(x)


def advertorchs(noisy: bool) -> Callable[[], list[float]]:
    """A few steps of a plain PyTorch loop with advertorch's PGD."""
    torch.manual_seed(0)
    network: nn.Module = ResNet20()
    if noisy:
        for layer in [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]:
            layer.noise = RandnLike()
            layer.register_forward_pre_hook(lambda layer, inputs: (layer.noise(inputs[0]),))
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9, nesterov=True, weight_decay=3e-4)
    attack = advertorch_attacks().LinfPGDAttack(
        network, nn.CrossEntropyLoss(), eps=0.031, nb_iter=7, eps_iter=0.01, rand_init=True, clip_min=0.0, clip_max=1.0
    )

    def step(x: Tensor, y: Tensor) -> float:
        start = time.perf_counter()
        network.eval()
        x_adv = attack.perturb(x, y)
        network.train()
        loss = F.cross_entropy(network(x_adv), y)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return time.perf_counter() - start

    def run() -> list[float]:
        return [step(torch.rand(BATCH, 3, 32, 32), torch.randint(10, (BATCH,))) for _ in range(STEPS + WARM)][WARM:]

    return run


def repeated(draw: Callable[[], Tensor]) -> Callable[[], list[float]]:
    """A few calls of something short."""

    def run() -> list[float]:
        seconds = []
        for _ in range(20):
            start = time.perf_counter()
            draw()
            seconds.append(time.perf_counter() - start)
        return seconds

    return run


def adversarial(noisy: bool, clean_weight: float) -> AdversarialClassifier:
    """The module whose steps are timed."""
    network = RobustNet(ResNet20(), init=GaussianNoise(LEVEL), inner=GaussianNoise(LEVEL)) if noisy else ResNet20()
    target: Literal["prediction", "label"] = "prediction" if clean_weight else "label"
    return AdversarialClassifier(network, clean_weight=clean_weight, target=target, warmup_epochs=0)


def noise_layer() -> Callable[[], Tensor]:
    """The layer on a channels_last activation, drawing from a stream as in training."""
    layer, stream = GaussianNoise(LEVEL), Stream(0)
    x = torch.rand(BATCH, 16, 32, 32).contiguous(memory_format=torch.channels_last)

    def draw() -> Tensor:
        with drawing_from(stream), torch.no_grad():
            return layer(x)

    return draw


def main() -> None:
    """Time all variants in turns and print the ratios beside their bounds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    variants = {
        "clean step": ours(lambda: Classifier(ResNet20())),
        "adversarial-only": ours(lambda: adversarial(noisy=False, clean_weight=0)),
        "papers' mix": ours(lambda: adversarial(noisy=False, clean_weight=0.5)),
        "adversarial-only, noise": ours(lambda: adversarial(noisy=True, clean_weight=0)),
        "advertorch": advertorchs(noisy=False),
        "advertorch, noise": advertorchs(noisy=True),
        "torch.randn": repeated(lambda: torch.randn(BATCH, 16, 32, 32)),
        "noise layer": repeated(noise_layer()),
    }
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(arguments.rounds):
        for name, run in variants.items():
            seconds[name] += run()
    report({name: median(values) for name, values in seconds.items()}, arguments.rounds)


def report(times: dict[str, float], rounds: int) -> None:
    """Print the table."""
    ratios = {
        "adversarial-only / clean step": times["adversarial-only"] / times["clean step"],
        "papers' mix / clean step": times["papers' mix"] / times["clean step"],
        "advertorch loop / ours": times["advertorch"] / times["adversarial-only"],
        "advertorch loop / ours, RobustNet noise": times["advertorch, noise"] / times["adversarial-only, noise"],
        "noise layer / bare torch.randn": times["noise layer"] / times["torch.randn"],
    }
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {rounds} rounds, medians\n")
    print("| ratio | measured | wanted | what it is |\n|---|---|---|---|")
    for name, (relation, bound, note) in BOUNDS.items():
        print(f"| {name} | {ratios[name]:.2f} | {relation} {bound} | {note} |")


if __name__ == "__main__":
    main()
