"""TRADES, MART, fast and free adversarial training and averaged weights, each against its paper written out here."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EMAWeightAveraging
from torch import Tensor, nn
from torch.distributions import Categorical, kl_divergence
from torch.nn import functional as F

from attacks import PGD, Adversary, Goal, Linf, StraightThrough
from defenses import (
    ColourDepth,
    Defended,
    ParamNet,
    PNIActivations,
    PNIWeights,
    RobustNet,
    Stream,
    drawing_from,
)
from defenses.randomness import normal_like, uniform_like
from lightning_modules import MART, TRADES, AdversarialClassifier, Classifier, DivergencePGD, FreeClassifier, Schedule
from lightning_modules.mart import boosted_cross_entropy
from lightning_modules.trades import Divergence, divergence
from tests.lightning_modules.test_training import (
    BATCH,
    BATCHES,
    CLASSES,
    FIXED,
    Pictures,
    Watch,
    alone,
    batch,
    fit,
    linear,
    pytestmark,  # noqa: F401
    small,
    trainer,
)

VARIANTS = [TRADES, MART, FreeClassifier]
SCHEMES = [RobustNet, PNIWeights, PNIActivations, ParamNet]


def made(kind: type[Classifier], network: nn.Module, **options: Any) -> Classifier:
    """A module of any kind, with a short attack where it has one."""
    short: dict[str, Any] = {
        TRADES: {"attack": DivergencePGD(Linf(0.1), 0.05, 2)},
        MART: {"attack": PGD(Linf(0.1), 0.05, 2)},
        FreeClassifier: {"eps": 0.1, "replays": 3},
    }[kind]
    return kind(network, **{"robust_images": 4, "validation_attack": FIXED, **short, **options})


def gradients(loss: Tensor, network: nn.Module) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss, list(network.parameters()), retain_graph=True)


# TRADES


def test_the_divergence_is_that_of_the_textbook() -> None:
    clean, adversarial = 3 * torch.randn(2, 7, CLASSES).double()
    expected = kl_divergence(Categorical(logits=clean), Categorical(logits=adversarial))
    torch.testing.assert_close(divergence(clean, adversarial), expected)
    as_loss = Divergence(clean.softmax(-1))(adversarial, Goal(torch.zeros(7, dtype=torch.int64)))
    torch.testing.assert_close(as_loss, expected)
    assert divergence(clean, clean).abs().max() == 0


def test_the_divergence_of_several_draws_is_the_mean_one() -> None:
    clean, draws = torch.randn(7, CLASSES), torch.randn(3, 7, CLASSES)
    goal = Goal(torch.zeros(7, dtype=torch.int64))
    each = torch.stack([divergence(clean, draw) for draw in draws])
    torch.testing.assert_close(Divergence(clean.softmax(-1))(draws, goal), each.mean(0))


def test_a_class_without_probability_adds_nothing() -> None:
    clean, adversarial = torch.tensor([[0.0, -1e4]]), torch.tensor([[0.0, 0.0]])
    torch.testing.assert_close(divergence(clean, adversarial), torch.tensor([math.log(2)]))
    goal = Goal(torch.tensor([0]))
    torch.testing.assert_close(Divergence(clean.softmax(-1))(adversarial, goal), torch.tensor([math.log(2)]))


def test_the_inner_attack_is_algorithm_1() -> None:
    network, (x, y) = small().eval(), batch()
    eps, step, start = 0.05, 0.02, 0.01
    with drawing_from(Stream(5)):
        found = DivergencePGD(Linf(eps), step, 3, start)(network, x, y)
    with drawing_from(Stream(5)):
        expected = x + start * normal_like(x)
    clean = network(x).detach()
    for _ in range(3):
        expected.requires_grad_()
        loss = F.kl_div(network(expected).log_softmax(1), clean.softmax(1), reduction="sum")
        (gradient,) = torch.autograd.grad(loss, expected)
        expected = expected.detach() + step * gradient.sign()
        expected = torch.min(torch.max(expected, x - eps), x + eps).clamp(0, 1)
    torch.testing.assert_close(found, expected)


def test_the_inner_attack_needs_no_label_and_finds_a_larger_divergence_than_noise() -> None:
    network, (x, y) = small().eval(), batch()
    found = []
    for labels in (y, (y + 1) % CLASSES):
        with drawing_from(Stream(5)):
            found.append(DivergencePGD(Linf(0.1), 0.02, 10)(network, x, labels))
    assert torch.equal(*found)
    clean, noise = network(x), network(Linf(0.1).sample(x))
    assert (divergence(clean, network(found[0])) > divergence(clean, noise)).all()


def test_the_inner_attack_looks_straight_through_a_channel_and_at_several_draws() -> None:
    network, (x, y) = Defended(RobustNet(small()), [ColourDepth(bits=2)]), batch()
    attack = DivergencePGD(Linf(0.1), 0.05, 3)
    trace = Adversary(attack, StraightThrough(), draws=3).run(network, x, y)
    assert not trace.zero_gradient.any()
    assert trace.queries.tolist() == [3 * (1 + 3)] * BATCH
    assert Adversary(attack).run(network, x, y).zero_gradient.all()  # rounding has no derivative


@pytest.mark.parametrize("beta", [0.0, 1.0, 6.0])
def test_trades_in_closed_form(beta: float) -> None:
    network, (x, y) = linear(), batch()
    loss = alone(TRADES(network, FIXED, beta)).loss(x, y)
    clean, adversarial = network(x), network(FIXED(network, x, y))
    terms = kl_divergence(Categorical(logits=clean), Categorical(logits=adversarial))
    expected = F.cross_entropy(clean, y) + beta * terms.mean()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradients(loss, network), gradients(expected, network))


# MART


def test_the_boosted_cross_entropy_of_the_paper() -> None:
    logits, y = 3 * torch.randn(50, CLASSES).double(), torch.randint(CLASSES, (50,))
    expected = []
    for row, label in zip(logits.softmax(1).tolist(), y.tolist(), strict=True):
        others = [p for k, p in enumerate(row) if k != label]
        expected.append(-math.log(row[label]) - math.log(1 - max(others)))
    torch.testing.assert_close(boosted_cross_entropy(logits, y), torch.tensor(expected, dtype=torch.float64))


def test_the_boosted_cross_entropy_is_exact_where_probabilities_are_0_or_1() -> None:
    logits = torch.tensor([[0.0, 200.0, 0.0], [0.0, 0.0, 200.0]], requires_grad=True)
    loss = boosted_cross_entropy(logits, torch.tensor([0, 2]))
    # -log e^-200 - log(2 e^-200), and two terms of about 2 e^-200 and e^-200.
    torch.testing.assert_close(loss, torch.tensor([400 - math.log(2), 0.0]))
    loss.sum().backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("beta", [0.0, 5.0])
def test_mart_in_closed_form(beta: float) -> None:
    network, (x, y) = linear(), batch()
    loss = alone(MART(network, FIXED, beta)).loss(x, y)
    clean, adversarial = network(x).softmax(1), network(FIXED(network, x, y)).softmax(1)
    rows = torch.arange(len(y))
    others = adversarial.masked_fill(F.one_hot(y, CLASSES).bool(), 0).amax(1)
    boosted = -adversarial[rows, y].log() - (1 - others).log()
    divergences = (clean * (clean / adversarial).log()).sum(1)
    expected = (boosted + beta * divergences * (1 - clean[rows, y])).mean()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradients(loss, network), gradients(expected, network))


# Fast


def test_fast_is_one_step_from_a_random_start() -> None:
    network, (x, y) = linear(), batch()
    weight, bias = network[1].weight.detach(), network[1].bias.detach()
    eps = 0.08
    attack = PGD(Linf(eps), step_size=1.25 * eps, steps=1)
    module = alone(AdversarialClassifier(network, attack, "label", 0.0, 0))
    with drawing_from(Stream(3)):
        loss = module.loss(x, y)
    with drawing_from(Stream(3)):
        start = (x + eps * (2 * uniform_like(x) - 1)).clamp(0, 1)
    # The cross entropy of a linear model has the gradient W^T (p - onehot).
    error = (start.flatten(1) @ weight.T + bias).softmax(1) - F.one_hot(y, CLASSES)
    moved = start + 1.25 * eps * (error @ weight).sign().view_as(x)
    x_adv = torch.min(torch.max(moved, x - eps), x + eps).clamp(0, 1)
    assert (x_adv - start).abs().max() > eps  # clipped into the ball, not cut down to eps
    torch.testing.assert_close(loss, F.cross_entropy(x_adv.flatten(1) @ weight.T + bias, y))


@pytest.mark.parametrize(("epochs", "options", "steps"), [(1, {}, 4), (2, {}, 8), (2, {"max_steps": 7}, 7)])
def test_a_cyclic_learning_rate_is_that_of_pytorch(epochs: int, options: dict[str, Any], steps: int) -> None:
    watch = Watch()
    fit(Classifier(small(), Schedule(lr=0.2, shape="cyclic"), robust_images=0), epochs, watch, **options)
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    half = (steps + 1) / 2
    cyclic = torch.optim.lr_scheduler.CyclicLR(
        optimizer, base_lr=0, max_lr=0.2, step_size_up=half, step_size_down=half, cycle_momentum=False
    )
    expected = []
    for _ in range(steps):
        optimizer.step()
        cyclic.step()
        expected.append(optimizer.param_groups[0]["lr"])
    assert watch.rates == pytest.approx(expected)
    assert max(watch.rates) <= 0.2


# Free


def algorithm_1(network: nn.Sequential, batches: list[tuple[Tensor, Tensor]], eps: float, m: int) -> Tensor:
    """Free training of a linear model by hand; changes its weights and returns the perturbation [B, 3, 4, 4]."""
    schedule = Schedule()
    weight, bias = network[1].weight.data, network[1].bias.data
    velocities = [torch.zeros_like(weight), torch.zeros_like(bias)]
    delta = torch.zeros_like(batches[0][0])
    for x, y in batches:
        for _ in range(m):
            shown = (x + delta).clamp(0, 1)
            error = (shown.flatten(1) @ weight.T + bias).softmax(1) - F.one_hot(y, CLASSES)
            inside = (x + delta >= 0) & (x + delta <= 1)  # the clip has no derivative elsewhere
            image = (error @ weight).view_as(x) * inside
            changes = [error.T @ shown.flatten(1) / len(x), error.mean(0)]
            for value, velocity, change in zip((weight, bias), velocities, changes, strict=True):
                change = change + schedule.weight_decay * value
                velocity.mul_(schedule.momentum).add_(change)
                value -= schedule.lr * (change + schedule.momentum * velocity)  # Nesterov
            delta = (delta + eps * image.sign()).clamp(-eps, eps)
    return delta


def test_free_is_its_algorithm_over_several_batches() -> None:
    network, expected = linear(), linear()
    expected.load_state_dict(network.state_dict())
    data = Pictures()
    batches = [(data.x[i : i + BATCH], data.y[i : i + BATCH]) for i in range(0, BATCH * BATCHES, BATCH)]
    module = FreeClassifier(network, eps=0.06, replays=3, schedule=Schedule(milestones=()), robust_images=0)
    run = fit(module)
    delta = algorithm_1(expected, batches, 0.06, 3)
    torch.testing.assert_close(network.state_dict(), expected.state_dict())
    torch.testing.assert_close(module.perturbation, delta)
    assert run.global_step == 3 * BATCHES


@pytest.mark.parametrize(
    ("epochs", "options", "total"),
    [(4, {}, 48), (4, {"max_steps": 24}, 24), (4, {"max_steps": 1000}, 48), (-1, {"max_steps": 24}, 24)],
)
def test_the_schedule_of_free_training_counts_replays(epochs: int, options: dict[str, Any], total: int) -> None:
    watch = Watch()
    module = FreeClassifier(small(), replays=3, schedule=Schedule(epochs=4, milestones=(2, 3)), robust_images=0)
    run = fit(module, epochs, watch, **options)
    assert run.global_step == total
    drops = [0.1 * 0.1 ** ((step >= total / 2) + (step >= total * 3 / 4)) for step in range(0, total, 3)]
    assert watch.rates == pytest.approx(drops)
    assert watch.passes == list(range(3, total + 1, 3))  # BatchNorm sees every replay


def test_a_smaller_batch_leaves_the_other_perturbations_alone() -> None:
    class Uneven(Pictures):
        def __init__(self) -> None:
            super().__init__(batch_size=BATCH * BATCHES - 5)  # two batches: 27 and 5 images

    seen: list[Tensor | None] = []

    class Note(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *_: Any) -> None:
            assert isinstance(module, FreeClassifier)
            seen.append(module.perturbation)

    run = trainer(1, Note())
    run.fit(FreeClassifier(small(), robust_images=0, replays=2), datamodule=Uneven())
    first, second = seen
    assert first is not None
    assert second is not None
    assert torch.equal(first[5:], second[5:])
    assert not torch.equal(first[:5], second[:5])
    assert second.abs().max() <= 0.031


def test_each_process_goes_on_with_its_own_perturbation() -> None:
    module = FreeClassifier(small())
    saved = torch.rand(2, BATCH, 3, 4, 4)
    for rank in range(2):
        alone(module, rank=rank, world_size=2).on_load_checkpoint({"perturbations": saved})
        assert module.perturbation is not None
        assert torch.equal(module.perturbation, saved[rank])
    alone(module, world_size=1).on_load_checkpoint({"perturbations": saved})
    assert module.perturbation is None
    alone(module).on_load_checkpoint({})  # saved before the first step
    assert module.perturbation is None


# All of them


class Ears(pl.Callback):
    """Keeps losses and the gradients of the noise's strengths."""

    def __init__(self, network: nn.Module) -> None:
        self.losses: list[float] = []
        self.alphas: list[float] = []
        self.network = network

    def on_before_optimizer_step(self, trainer: pl.Trainer, *_: Any) -> None:
        strengths = [p for name, p in self.network.named_parameters() if name.endswith("alpha")]
        self.alphas += [float(p.grad.abs()) for p in strengths if p.grad is not None]

    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, outputs: Any, *_: Any) -> None:
        self.losses.append(float(outputs["loss"]))


@pytest.mark.parametrize("kind", VARIANTS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_variant_trains_with_every_noise(
    kind: type[Classifier], scheme: Callable[[nn.Module], nn.Module]
) -> None:
    network = scheme(small())
    ears = Ears(network)
    run = fit(made(kind, network), 1, ears)
    assert len(ears.losses) == BATCHES
    assert all(math.isfinite(loss) for loss in ears.losses)
    strengths = 2 if scheme in (PNIWeights, PNIActivations) else 0  # one convolution, one linear layer
    assert len(ears.alphas) == strengths * run.global_step
    assert all(gradient > 0 for gradient in ears.alphas)
    assert math.isfinite(float(run.callback_metrics["val/robust"]))


@pytest.mark.parametrize("kind", VARIANTS)
@pytest.mark.parametrize("scheme", [RobustNet, PNIWeights])
def test_draws_differ_from_step_to_step_and_leave_no_stream(
    kind: type[Classifier], scheme: Callable[[nn.Module], nn.Module]
) -> None:
    # Learning rate 0 but for rounding: the same weights and images, so only the draws can make losses differ.
    class Still(Pictures):
        def __init__(self) -> None:
            super().__init__()
            self.x[:], self.y[:] = self.x[:1], self.y[:1]

    options: dict[str, Any] = {"schedule": Schedule(lr=1e-30), "robust_images": 0}
    options |= {"eps": 0.0} if kind is FreeClassifier else {"attack": PGD(Linf(0.0), 0.0, 0, random_start=False)}

    def losses(quiet: bool) -> list[float]:
        torch.manual_seed(1)
        network = scheme(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, CLASSES)))
        module, ears = made(kind, network, **options, noise_in_training=not quiet), Ears(network)
        trainer(1, ears).fit(module, datamodule=Still())
        return ears.losses

    noisy = losses(quiet=False)
    assert len(set(noisy)) == BATCHES
    assert losses(quiet=False) == noisy  # whatever was drawn between the two runs
    assert len(set(losses(quiet=True))) == 1
    state = torch.random.get_rng_state()
    normal_like(torch.empty(1))
    assert not torch.equal(torch.random.get_rng_state(), state)  # draws come from PyTorch's generator again


@pytest.mark.parametrize("kind", VARIANTS)
@pytest.mark.parametrize("averaged", [False, True])
def test_a_resumed_run_is_the_run_that_was_never_stopped(
    kind: type[Classifier], averaged: bool, tmp_path: Path
) -> None:
    class Saver(pl.Callback):
        def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            trainer.save_checkpoint(tmp_path / f"{trainer.current_epoch}.ckpt")

    def callbacks() -> list[pl.Callback]:
        return [EMAWeightAveraging(decay=0.7)] if averaged else []

    def module() -> Classifier:
        torch.manual_seed(1)
        return made(kind, RobustNet(small()), schedule=Schedule(epochs=3, milestones=(1, 2)))

    whole, resumed = module(), module()
    fit(whole, 3, *callbacks(), Saver())
    run = trainer(3, *callbacks())
    run.fit(resumed, datamodule=Pictures(), ckpt_path=tmp_path / "0.ckpt", weights_only=True)
    assert run.global_step == whole.trainer.global_step
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


@pytest.mark.parametrize("kind", [TRADES, MART])
def test_a_warm_up_is_clean(kind: type[Classifier]) -> None:
    network, (x, y) = linear(), batch()
    module = alone(made(kind, network), warmup_steps=1)
    torch.testing.assert_close(module.loss(x, y), F.cross_entropy(network(x), y))


@pytest.mark.parametrize("kind", VARIANTS)
def test_variants_train_in_bfloat16(kind: type[Classifier]) -> None:
    dtypes: set[torch.dtype] = set()
    module = made(kind, small())
    module.network[4].register_forward_hook(lambda layer, inputs, output: dtypes.add(output.dtype))
    run = fit(module, precision="bf16-mixed")
    assert dtypes == {torch.bfloat16, torch.float32}  # the second one in attacks
    assert math.isfinite(float(run.callback_metrics["train/loss"]))
    assert all(value.dtype == torch.float32 for value in module.parameters())


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: TRADES(linear(), beta=-1.0), r"^beta must be a finite weight >= 0, got -1\.0$"),
        (lambda: MART(linear(), beta=float("inf")), r"^beta must be a finite weight >= 0, got inf$"),
        (lambda: FreeClassifier(linear(), eps=8), r"^eps must be an Linf radius in \[0, 1\], got 8$"),
        (lambda: FreeClassifier(linear(), replays=0), r"^replays must be a whole number >= 1, got 0$"),
        (lambda: DivergencePGD(start=0.0), r"^start must be a finite standard deviation > 0 in pixels .* got 0\.0$"),
        (lambda: DivergencePGD(steps=-1), r"^PGD takes steps >= 0"),
        (lambda: Schedule(shape="round"), r"^shape must be steps or cyclic, got round$"),
    ],
)
def test_impossible_settings_are_refused(build: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


# Averaged weights


class Average(pl.Callback):
    """The moving average of the weights by hand, and what validation and checkpoints saw of it."""

    def __init__(self, folder: Path, decay: float) -> None:
        self.folder, self.decay = folder, decay
        self.average: dict[str, Tensor] = {}
        self.validated: list[bool] = []

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *_: Any) -> None:
        for name, value in module.named_parameters():
            last = self.average.get(name, value.detach())
            self.average[name] = self.decay * last + (1 - self.decay) * value.detach()

    def on_validation_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, *_: Any) -> None:
        self.validated.append(all(torch.allclose(value, self.average[n]) for n, value in module.named_parameters()))

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        trainer.save_checkpoint(self.folder / "last.ckpt")


def test_the_average_is_validated_and_is_what_a_checkpoint_holds(tmp_path: Path) -> None:
    watch = Average(tmp_path, 0.6)
    module = AdversarialClassifier(PNIWeights(small()), FIXED, warmup_epochs=0, robust_images=4)
    fit(module, 2, EMAWeightAveraging(decay=0.6), watch)
    assert watch.validated == [True] * 4
    content = torch.load(tmp_path / "last.ckpt", weights_only=True)
    for name, value in watch.average.items():
        torch.testing.assert_close(content["state_dict"][name], value)
        torch.testing.assert_close(module.state_dict()[name], value)  # the network after the run, too
    assert not torch.equal(content["current_model_state"]["network.network.0.bias"], module.network.network[0].bias)


def test_what_is_evaluated_is_the_average(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import logging

    import cli.train
    from cli.names import Invocation
    from cli.targets import from_run

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FRESHDRAW_RUN_DIR", "")
    monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
    words = "--model ema_adv --data Digits --data.batch_size 16 --data.val_images 16 --logger false --run_dir runs"
    words += " --trainer.accelerator cpu --trainer.max_epochs 1 --trainer.limit_train_batches 3"
    words += " --model.robust_images 16 --model.attack.steps 1 --model.warmup_epochs 0"
    try:
        assert cli.train.main(words.split()) == 0
    finally:
        logging.disable(logging.NOTSET)
    (run,) = tmp_path.glob("runs/ema_adv/*")
    for name in ("best", "last"):
        checkpoint = run / "checkpoints" / f"{name}.ckpt"
        content = torch.load(checkpoint, weights_only=True)
        evaluated = from_run(checkpoint, Invocation(options=["--trainer.accelerator=cpu"])).network.state_dict()
        changed = 0
        for key, value in evaluated.items():
            assert torch.equal(value, content["state_dict"][f"network.{key}"]), key
            changed += not torch.equal(value, content["current_model_state"][f"network.{key}"])
        assert changed > 0
