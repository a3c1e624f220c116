"""Training steps against their formulas, and what a run does over its epochs."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from attacks import PGD, Attack, Goal, Linf, Model, Trace
from attacks.base import Log
from defenses import ParamNet, PNIActivations, PNIWeights, RobustNet, Stream, drawing_from
from defenses.randomness import is_silenced, normal_like
from lightning_modules import AdversarialClassifier, Classifier, Schedule, parameter_groups
from models import ResNet20

pytestmark = [
    # The images lie in memory, where workers would only cost.
    pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning"),
    # A machine with an accelerator runs these tests on the CPU on purpose.
    pytest.mark.filterwarnings("ignore:GPU available but not used:UserWarning"),
    # Lightning 2.6.6 itself uses what torch 2.15 has deprecated.
    pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated:FutureWarning"),
]

BATCH, BATCHES, CLASSES = 8, 4, 5
FIXED = PGD(Linf(0.1), step_size=0.05, steps=2, random_start=False)  # no draws of its own


class Pictures(pl.LightningDataModule):
    """Random images [3, 4, 4] with random labels, always in the same order."""

    def __init__(self, val_images: int = 12, batch_size: int = BATCH) -> None:
        super().__init__()
        self.batch_size = self.val_batch_size = batch_size
        generator = torch.Generator().manual_seed(1)
        self.x = torch.rand(BATCH * BATCHES + val_images, 3, 4, 4, generator=generator)
        self.y = torch.randint(CLASSES, (len(self.x),), generator=generator)

    def _loader(self, part: slice) -> DataLoader[Any]:
        return DataLoader(TensorDataset(self.x[part], self.y[part]), self.batch_size)

    def train_dataloader(self) -> DataLoader[Any]:
        return self._loader(slice(0, BATCH * BATCHES))

    def val_dataloader(self) -> DataLoader[Any]:
        return self._loader(slice(BATCH * BATCHES, None))


def small() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, CLASSES)
    )


def linear() -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(48, CLASSES))


def batch() -> tuple[Tensor, Tensor]:
    data = Pictures()
    return data.x[:BATCH], data.y[:BATCH]


def trainer(epochs: int = 1, *callbacks: pl.Callback, **options: Any) -> pl.Trainer:
    return pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=list(callbacks),
        **options,
    )


def fit(module: Classifier, epochs: int = 1, *callbacks: pl.Callback, **options: Any) -> pl.Trainer:
    run = trainer(epochs, *callbacks, **options)
    run.fit(module, datamodule=Pictures())
    return run


def alone(module: Classifier, step: int = 0, rank: int = 0, world_size: int = 1, warmup_steps: int = 0) -> Classifier:
    """A module whose steps can be called without a Trainer."""
    module.__dict__.update(log=Mock(), warmup_steps=warmup_steps)
    module._trainer = SimpleNamespace(  # type: ignore[assignment]
        global_step=step,
        global_rank=rank,
        world_size=world_size,
        fit_loop=SimpleNamespace(total_batch_idx=step),
        datamodule=Pictures(),
    )
    return module


@dataclass(frozen=True)
class Recording(Attack):
    """Changes nothing and keeps what it was asked."""

    asked: list[tuple[Tensor, Tensor]] = field(default_factory=list, compare=False)

    def search(self, model: Model, x: Tensor, goal: Goal) -> Trace:
        self.asked.append((x, goal.label))
        return Log(0, x, goal).trace(x)


class Watch(pl.Callback):
    """Notes learning rate and passes in train mode of each training step."""

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.passes: list[int] = []

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, *_: Any) -> None:
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *_: Any) -> None:
        self.passes.append(int(module.get_buffer("network.1.num_batches_tracked")))


# Schedule


@pytest.mark.parametrize(
    ("epochs", "options", "drops"),
    [
        (8, {}, (16, 24)),  # 80 and 120 of 160 epochs are 4 and 6 of 8; 4 steps each
        (6, {}, (12, 18)),
        (8, {"accumulate_grad_batches": 2}, (16, 24)),  # half as many steps, of two batches each
        (8, {"max_steps": 8}, (4, 6)),
    ],
)
def test_the_schedule_shrinks_with_the_run(epochs: int, options: dict[str, Any], drops: tuple[int, int]) -> None:
    watch = Watch()
    fit(Classifier(small(), robust_images=0), epochs, watch, **options)
    expected = [0.1 * 0.1 ** sum(batch >= drop for drop in drops) for batch in range(len(watch.rates))]
    assert len(watch.rates) == (options.get("max_steps") or epochs * BATCHES)
    assert watch.rates == pytest.approx(expected)


def test_a_schedule_of_its_own() -> None:
    watch = Watch()
    schedule = Schedule(lr=0.5, epochs=4, milestones=(1, 2.5, 3), gamma=0.5)
    fit(Classifier(small(), schedule, robust_images=0), 2, watch)
    assert watch.rates == pytest.approx([0.5] * 2 + [0.25] * 3 + [0.125] + [0.0625] * 2)


def test_the_optimiser_is_that_of_the_papers() -> None:
    run = fit(Classifier(PNIWeights(linear()), robust_images=0))
    (optimizer,) = run.optimizers
    assert isinstance(optimizer, torch.optim.SGD)
    decaying, free = optimizer.param_groups
    for group in (decaying, free):
        assert (group["momentum"], group["nesterov"], group["dampening"]) == (0.9, True, 0)
    assert (decaying["weight_decay"], free["weight_decay"]) == (3e-4, 0.0)
    assert (len(decaying["params"]), len(free["params"])) == (2, 1)


@pytest.mark.parametrize(("defense", "alphas"), [(PNIWeights, 20), (PNIActivations, 20), (RobustNet, 0)])
def test_learned_strengths_are_free_of_weight_decay(defense: Callable[[nn.Module], nn.Module], alphas: int) -> None:
    noisy = defense(ResNet20())
    decaying, free = parameter_groups(noisy, 3e-4)
    assert (decaying["weight_decay"], free["weight_decay"]) == (3e-4, 0.0)
    names = {id(parameter): key for key, parameter in noisy.named_parameters()}
    assert len(free["params"]) == alphas
    assert all(names[id(parameter)].endswith("alpha") for parameter in free["params"])
    # 19 convolutions, 19 times scale and offset of BatchNorm, weight and bias of the classifier.
    assert len(decaying["params"]) == 59
    assert {id(parameter) for parameter in decaying["params"] + free["params"]} == set(names)


def test_a_run_without_an_end_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^the schedule needs an end: give --trainer\.max_epochs or"):
        fit(Classifier(linear()), -1)


@pytest.mark.parametrize("arguments", [{"lr": 0}, {"lr": -1}, {"epochs": 0}])
def test_impossible_schedules_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"^a schedule takes lr > 0 and epochs > 0, got"):
        Schedule(**arguments)


# Losses


def test_clean_training_descends_on_the_cross_entropy() -> None:
    network, (x, y) = small(), batch()
    module = alone(Classifier(network))
    torch.testing.assert_close(module.training_step((x, y), 0), F.cross_entropy(network(x), y))


@pytest.mark.parametrize("target", ["prediction", "label"])
@pytest.mark.parametrize("weight", [0.0, 0.3, 0.5])
def test_the_mix_of_losses_in_closed_form(target: str, weight: float) -> None:
    network, (x, y) = linear(), batch()
    module = alone(AdversarialClassifier(network, FIXED, target, weight))
    clean = network(x)
    avoid = y if target == "label" else clean.argmax(1)
    adversarial = F.cross_entropy(network(FIXED(network, x, avoid)), y)
    expected = weight * F.cross_entropy(clean, y) + (1 - weight) * adversarial
    loss = module.loss(x, y)
    torch.testing.assert_close(loss, expected)
    assert not torch.equal(clean.argmax(1), y)  # otherwise the two targets would be one
    gradients = torch.autograd.grad(loss, list(network.parameters()), retain_graph=True)
    torch.testing.assert_close(gradients, torch.autograd.grad(expected, list(network.parameters())))


def test_the_mix_of_losses_of_a_random_network_draws_anew_for_each() -> None:
    network, (x, y) = RobustNet(small()), batch()
    x = x.contiguous(memory_format=torch.channels_last)
    attack = PGD(Linf(0.1), 0.05, 2)
    module = alone(AdversarialClassifier(network, attack, clean_weight=0.25))
    network = copy.deepcopy(network)  # the attack sees the statistics before this step
    with drawing_from(Stream(3)):
        loss = module.loss(x, y)
    with drawing_from(Stream(3)):
        clean = network(x)
        adversarial = network(attack(network, x, clean.argmax(1)))
    torch.testing.assert_close(loss, 0.25 * F.cross_entropy(clean, y) + 0.75 * F.cross_entropy(adversarial, y))


@pytest.mark.parametrize("weight", [0.0, 0.5])
@pytest.mark.parametrize("target", ["prediction", "label"])
def test_what_the_attack_leads_away_from(target: str, weight: float) -> None:
    network, (x, y) = linear(), batch()
    attack = Recording()
    alone(AdversarialClassifier(network, attack, target, weight)).loss(x, y)
    ((_, avoid),) = attack.asked
    assert torch.equal(avoid, y if target == "label" else network(x).argmax(1))


def test_without_a_clean_loss_the_prediction_is_made_in_eval_mode() -> None:
    network, (x, y) = small(), batch()
    nn.init.normal_(network[1].running_mean)
    attack = Recording()
    module = alone(AdversarialClassifier(network, attack, clean_weight=0.0))
    with torch.no_grad():
        expected = network.eval()(x).argmax(1)
    network.train()
    module.loss(x, y)
    assert torch.equal(attack.asked[0][1], expected)
    assert network.training
    assert int(network[1].num_batches_tracked) == 1  # the adversarial images


@pytest.mark.parametrize(
    ("weight", "passes"),
    [(0.5, 2), (0.0, 1)],
)
def test_batchnorm_sees_each_kind_of_image_once_and_the_attack_not_at_all(weight: float, passes: int) -> None:
    watch = Watch()
    schedule = Schedule(epochs=8)
    module = AdversarialClassifier(
        small(), FIXED, clean_weight=weight, warmup_epochs=4, schedule=schedule, robust_images=4
    )
    fit(module, 2, watch)  # 2 epochs instead of 8: the warm-up is 1 epoch
    steps = [1] * BATCHES + [passes] * BATCHES
    assert watch.passes == torch.tensor(steps).cumsum(0).tolist()


@pytest.mark.parametrize(("epochs", "warmup"), [(2, 4), (4, 8), (1, 2)])
def test_the_warm_up_shrinks_with_the_run_and_is_clean(epochs: int, warmup: int) -> None:
    attack = Recording()
    schedule = Schedule(epochs=8)
    module = AdversarialClassifier(small(), attack, warmup_epochs=4, schedule=schedule, robust_images=0)
    fit(module, epochs)
    assert len(attack.asked) == epochs * BATCHES - warmup
    # The first images that are attacked are those of the step after the warm-up.
    first = Pictures().x[warmup % BATCHES * BATCH :][:BATCH]
    assert torch.equal(attack.asked[0][0], first)


def test_an_adversarial_run_logs_its_accuracies() -> None:
    run = fit(AdversarialClassifier(small(), FIXED, warmup_epochs=0, robust_images=8))
    names = {"train/loss", "train/clean", "train/robust", "val/clean", "val/robust"}
    assert names <= set(run.callback_metrics)
    assert all(0 <= float(run.callback_metrics[name]) <= 1 for name in names - {"train/loss"})


@pytest.mark.parametrize("weight", [-0.1, 1.0, float("nan")])
def test_impossible_weights_are_refused(weight: float) -> None:
    with pytest.raises(ValueError, match=r"^clean_weight must lie in \[0, 1\), got"):
        AdversarialClassifier(linear(), clean_weight=weight)


# Noise


@pytest.mark.parametrize("kind", [Classifier, AdversarialClassifier])
@pytest.mark.parametrize("loud", [True, False])
def test_noise_may_be_silent_in_training_but_never_in_validation(kind: type[Classifier], loud: bool) -> None:
    network = ParamNet(small(), std=0.05)
    heard: dict[bool, set[bool]] = {True: set(), False: set()}
    module = kind(network, noise_in_training=loud, validation_attack=FIXED, robust_images=8)

    def listen(*_: Any) -> None:
        heard[module.trainer.training].add(not is_silenced())

    network.register_forward_hook(listen)
    fit(module)
    assert heard == {True: {loud}, False: {True}}


def test_training_in_silence_is_training_without_noise() -> None:
    network, (x, y) = small(), batch()
    plain = F.cross_entropy(network(x), y)
    module = alone(Classifier(ParamNet(network, std=0.5), noise_in_training=False))
    torch.testing.assert_close(module.training_step((x, y), 0), plain)
    module.noise_in_training = True
    assert abs(module.training_step((x, y), 0) - plain) > 1e-3


class Listener(nn.Module):
    """A linear network that keeps a draw of its stream and one of PyTorch's default generator for each pass."""

    def __init__(self) -> None:
        super().__init__()
        self.network = linear()
        self.draws: list[tuple[float, float]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.draws.append((normal_like(torch.empty(1)).item(), torch.rand(1).item()))
        logits: Tensor = self.network(x)
        return logits


def steps_of(world_size: int, rank: int, seed: int = 0, steps: int = 4) -> list[tuple[float, float]]:
    network = Listener()
    for step in range(steps):
        alone(Classifier(network, seed=seed), step, rank, world_size).training_step(batch(), step)
    return network.draws


def test_draws_differ_between_steps_ranks_and_seeds() -> None:
    draws = [*steps_of(2, 0), *steps_of(2, 1), *steps_of(1, 0, seed=1)]
    for kind in zip(*draws, strict=True):
        assert len(set(kind)) == len(draws)


def test_draws_depend_on_the_step_and_not_on_what_was_drawn_before() -> None:
    first = steps_of(2, 1)
    torch.manual_seed(123)
    assert steps_of(2, 1) == first


def test_a_run_gives_each_step_its_own_draws_and_leaves_validation_apart() -> None:
    def run() -> list[tuple[float, float]]:
        torch.manual_seed(torch.initial_seed() + 1)
        network = Listener()
        fit(Classifier(network, robust_images=0), 2)
        return network.draws

    first = run()
    assert len(first) == 2 * (BATCHES + 2)
    streams = [stream for stream, _ in first]
    # 8 training steps; the two validation batches have the same draws in both epochs.
    assert len(set(streams)) == 2 * BATCHES + 2
    assert [stream for stream, _ in run()] == streams


@pytest.mark.parametrize("kind", [Classifier, AdversarialClassifier])
def test_a_resumed_run_is_the_run_that_was_never_stopped(kind: type[Classifier], tmp_path: Path) -> None:
    class Saver(pl.Callback):
        def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            trainer.save_checkpoint(tmp_path / f"{trainer.current_epoch}.ckpt")

    def module() -> Classifier:
        torch.manual_seed(1)
        network = RobustNet(small())
        return kind(network, schedule=Schedule(epochs=3, milestones=(1, 2)), validation_attack=FIXED, robust_images=4)

    whole, resumed = module(), module()
    fit(whole, 3, Saver())
    trainer(3).fit(resumed, datamodule=Pictures(), ckpt_path=tmp_path / "0.ckpt", weights_only=True)
    assert resumed.trainer.global_step == 3 * BATCHES
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


# Validation


def validated(module: Classifier, data: Pictures) -> dict[str, float]:
    (metrics,) = trainer().validate(module, datamodule=data, verbose=False)
    return dict(metrics)


def test_validation_counts_all_images_clean_and_the_first_ones_attacked() -> None:
    data = Pictures(val_images=500, batch_size=128)
    network = linear()
    metrics = validated(Classifier(network, validation_attack=FIXED, robust_images=300), data)
    x, y = data.x[BATCH * BATCHES :], data.y[BATCH * BATCHES :]
    robust = network(FIXED(network, x[:300], y[:300])).argmax(1) == y[:300]
    clean = network(x).argmax(1) == y
    assert metrics["val/clean"] == pytest.approx(int(clean.sum()) / 500)
    assert metrics["val/robust"] == pytest.approx(int(robust.sum()) / 300)
    assert 0 < robust.sum() < clean.sum()


@pytest.mark.parametrize(
    ("robust_images", "sizes"),
    [(300, [128, 128, 44]), (256, [128, 128]), (1, [1]), (0, []), (1000, [128, 128, 128, 116])],
)
def test_exactly_the_first_images_are_attacked(robust_images: int, sizes: list[int]) -> None:
    attack = Recording()
    metrics = validated(
        Classifier(linear(), validation_attack=attack, robust_images=robust_images), Pictures(500, batch_size=128)
    )
    assert [len(y) for _, y in attack.asked] == sizes
    assert ("val/robust" in metrics) == (robust_images > 0)


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_processes_attack_the_same_images_with_the_same_draws(world_size: int) -> None:
    data = Pictures(40)
    batches = list(data.val_dataloader())
    heard: dict[int, tuple[float, float]] = {}
    attacked = 0
    for rank in range(world_size):
        network, attack = Listener(), Recording()
        module = alone(Classifier(network, validation_attack=attack, robust_images=20), 0, rank, world_size)
        for number, (x, y) in enumerate(batches[rank::world_size]):
            before = len(network.draws)
            module.validation_step((x, y), number)
            heard[number * world_size + rank] = network.draws[before][0]
        attacked += int(module.val_robust.total)
    assert attacked == 20
    expected = []
    for index in range(len(batches)):
        with drawing_from(Stream.named(0, "validation", index=index)):
            expected.append(normal_like(torch.empty(1)).item())
    assert [heard[index] for index in range(len(batches))] == expected


def test_validation_before_and_after_training() -> None:
    data, module = Pictures(), Classifier(linear(), validation_attack=FIXED)
    first = validated(module, data)
    assert validated(module, data) == first
    run = fit(module)
    after = validated(module, data)
    assert after == pytest.approx({name: float(run.callback_metrics[name]) for name in after})


def test_an_unfinished_run_can_be_read_without_code(tmp_path: Path) -> None:
    module = AdversarialClassifier(PNIWeights(small()), FIXED)
    run = fit(module)
    run.save_checkpoint(tmp_path / "last.ckpt")
    content = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert set(content["state_dict"]) == set(module.state_dict())
