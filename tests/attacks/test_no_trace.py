"""An attack leaves no trace: gradients, statistics, modes and flags are as before, wherever it is called."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from attacks import L2, PGD, Linf, evaluating, undisturbed
from defenses import ParamNet, PNIWeights, RobustNet, Stream, drawing_from
from models import ResNet20

NETWORKS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "plain": lambda network: network,
    "RobustNet": RobustNet,
    "PNIWeights": PNIWeights,
    "ParamNet": ParamNet,
}
CONTEXTS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "plain": nullcontext,
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
}
ATTACK = PGD(Linf(0.05), steps=2)

every_context = pytest.mark.parametrize("context", CONTEXTS)


def prepared(name: str) -> nn.Module:
    """A network in train mode with some frozen parts and some gradients."""
    network = NETWORKS[name](ResNet20()).train()
    frozen = 0
    for index, part in enumerate(network.modules()):
        if isinstance(part, nn.BatchNorm2d) and index % 2:
            part.eval()
            frozen += 1
    assert frozen > 3
    for index, parameter in enumerate(network.parameters()):
        parameter.requires_grad_(index % 3 > 0)
        if index % 2:
            parameter.grad = torch.randn_like(parameter)
    return network


@contextmanager
def unchanged(network: nn.Module) -> Iterator[None]:
    def snapshot() -> list[Any]:
        grads = [None if p.grad is None else p.grad.clone() for p in network.parameters()]
        return [
            {key: value.clone() for key, value in network.state_dict().items()},
            dict(enumerate(grads)),
            {name: part.training for name, part in network.named_modules()},
            {name: p.requires_grad for name, p in network.named_parameters()},
            {name: sorted(vars(part)) for name, part in network.named_modules()},
        ]

    before = snapshot()
    yield
    for old, new in zip(before, snapshot(), strict=True):
        assert list(new) == list(old)
        for key, value in old.items():
            assert torch.equal(new[key], value) if isinstance(value, Tensor) else new[key] == value, key


def batch() -> tuple[Tensor, Tensor]:
    return torch.rand(3, 3, 8, 8), torch.tensor([1, 2, 3])


@every_context
@pytest.mark.parametrize("name", NETWORKS)
def test_everything_is_as_before(name: str, context: str) -> None:
    network = prepared(name)
    assert {key for key in network.state_dict() if "num_batches_tracked" in key}
    with unchanged(network), CONTEXTS[context]():
        x, y = batch()
        x_adv = ATTACK(network, x, y)
        assert not torch.equal(x_adv, x)


@every_context
@pytest.mark.parametrize("attack", [ATTACK, PGD(L2(0.5), 0.1, 2), PGD(random_start=False, steps=1)], ids=str)
def test_the_result_is_the_same_everywhere(attack: PGD, context: str) -> None:
    network = RobustNet(ResNet20())
    x, y = batch()
    with drawing_from(Stream(1)):
        expected = attack(network, x, y)
    with CONTEXTS[context](), drawing_from(Stream(1)):
        x_adv = attack(network, x.clone(), y.clone())  # inside inference_mode these are inference tensors
    assert torch.equal(x_adv, expected)
    assert not x_adv.is_inference()


class Failing(nn.Module):
    """Answers a few times, then raises."""

    def __init__(self, answers: int) -> None:
        super().__init__()
        self.network = prepared("plain")
        self.left = answers

    def forward(self, x: Tensor) -> Tensor:
        if not self.left:
            raise RuntimeError("no more answers")
        self.left -= 1
        logits: Tensor = self.network(x)
        return logits


@pytest.mark.parametrize("answers", [0, 1])
def test_everything_is_as_before_if_the_model_raises(answers: int) -> None:
    network = Failing(answers).train()
    network.network.get_submodule("bn1").eval()
    x, y = batch()
    with torch.no_grad(), unchanged(network.network):
        with pytest.raises(RuntimeError, match="no more answers"):
            ATTACK(network, x, y)
        assert not torch.is_grad_enabled()
    assert network.training


@every_context
def test_the_model_is_asked_in_eval_mode_and_full_precision(context: str) -> None:
    model, seen = prepared("plain"), []

    def watch(model: nn.Module, _: object, logits: Tensor) -> None:
        modes = {part.training for part in model.modules()}
        seen.append((logits.dtype, modes, torch.is_grad_enabled(), torch.is_inference_mode_enabled()))

    model.register_forward_hook(watch)
    with CONTEXTS[context]():
        ATTACK(model, *batch())
    assert seen == [(torch.float32, {False}, True, False)] * ATTACK.steps


def test_the_model_is_found_in_its_state_again_after_evaluating() -> None:
    network = prepared("plain")
    with unchanged(network), evaluating(network):
        assert not any(part.training for part in network.modules())
    with unchanged(network), pytest.raises(RuntimeError, match="stop"), undisturbed(network):
        raise RuntimeError("stop")


def test_a_graph_begun_before_the_attack_can_be_finished_after_it() -> None:
    network = PNIWeights(ResNet20())
    x, y = batch()
    with drawing_from(Stream(1)):
        loss = network(x).logsumexp(1).sum()
        ATTACK(network, x, y)
    loss.backward()
    gradients = [p.grad.clone() for p in network.parameters() if p.grad is not None]
    network.zero_grad()
    with drawing_from(Stream(1)):
        network(x).logsumexp(1).sum().backward()
    assert all(map(torch.equal, gradients, [p.grad for p in network.parameters() if p.grad is not None]))


class Evaluating(pl.LightningModule):
    """Attacks where Lightning evaluates."""

    def __init__(self) -> None:
        super().__init__()
        self.network = ResNet20()
        self.results: list[tuple[Tensor, Tensor]] = []

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        assert torch.is_inference_mode_enabled()
        x, y = batch
        with drawing_from(Stream(batch_idx)):
            self.results.append((x, ATTACK(self.network, x, y)))

    validation_step = test_step


@pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning")  # the images lie in memory
@pytest.mark.filterwarnings("ignore:GPU available but not used:UserWarning")  # a CPU test on purpose
@pytest.mark.parametrize("entry", ["test", "validate"])
def test_attacks_work_where_lightning_evaluates(entry: str) -> None:
    module = Evaluating()
    x, y = torch.rand(4, 3, 8, 8), torch.arange(4)
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    with unchanged(module.network):
        getattr(trainer, entry)(module, DataLoader(TensorDataset(x, y), batch_size=2), verbose=False)
    assert len(module.results) == 2
    for index, (clean, x_adv) in enumerate(module.results):
        with drawing_from(Stream(index)):
            assert torch.equal(x_adv, ATTACK(module.network, clean.clone(), y[2 * index : 2 * index + 2]))
        assert 0 < (x_adv - clean).abs().max() <= 0.05 + 1e-6
