"""The judge against a loop by hand, and the unit of work against everything it must not depend on."""

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from attacks import L2, PGD, Attack, Goal, Linf, Model, Trace
from attacks.base import Log
from defenses import PNIWeights, RobustNet, Stream, drawing_from
from defenses.randomness import normal_like
from evaluation import Batch, Verdict, examine, judge
from models import ResNet20

ATTACK = PGD(Linf(0.1), step_size=0.05, steps=2)


def images(batch: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(batch, 3, 8, 8, generator=generator), torch.randint(10, (batch,), generator=generator)


def noisy() -> nn.Module:
    """So loud that answers differ from draw to draw."""
    return RobustNet(ResNet20())


def by_hand(model: nn.Module, x: Tensor, draws: int) -> Verdict:
    model.eval()
    answers, probs = [], torch.zeros(len(x), 10, dtype=torch.float64)
    with torch.no_grad():
        for _ in range(draws):
            logits = model(x)
            answers.append([max(range(10), key=row.__getitem__) for row in logits.tolist()])
            probs += logits.double().softmax(1) / draws
    return Verdict(torch.tensor(answers).T, probs)


def same(a: Batch, b: Batch) -> bool:
    return all(
        np.array_equal(value, vars(b)[name], equal_nan=name in ("loss", "unfinished"))
        for name, value in vars(a).items()
    )


@pytest.mark.parametrize("build", [noisy, lambda: PNIWeights(ResNet20(), alpha=1.0)], ids=["RobustNet", "PNIWeights"])
def test_counts_and_probabilities_are_those_of_a_loop(build: type[nn.Module]) -> None:
    model, (x, _) = build(), images()
    with drawing_from(Stream(1)):
        verdict = judge(model, x, 7)
    with drawing_from(Stream(1)):
        expected = by_hand(model, x, 7)
    assert torch.equal(verdict.answers, expected.answers)
    torch.testing.assert_close(verdict.probs, expected.probs, rtol=1e-4, atol=1e-5)  # BatchNorm is folded
    assert verdict.counts.sum(1).tolist() == [7] * len(x)
    torch.testing.assert_close(verdict.probs.sum(1), torch.ones(len(x), dtype=torch.float64))
    assert (verdict.counts > 0).sum() > len(x)  # not one answer per image only


def test_a_deterministic_model_gives_one_answer() -> None:
    model, (x, _) = ResNet20(), images()
    once, thrice = judge(model, x, 1), judge(model, x, 3)
    assert torch.equal(3 * once.counts, thrice.counts)
    torch.testing.assert_close(once.probs, thrice.probs)
    assert once.counts.dtype == torch.int64


def test_judging_leaves_the_model_as_it_was() -> None:
    model, (x, _) = noisy().train(), images()
    model.get_submodule("network.bn1").eval()
    modes = [part.training for part in model.modules()]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    judge(model, x, 2)
    assert [part.training for part in model.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


class Broken(nn.Module):
    """Answers `value` to the last image, to the second question and later."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value, self.calls = value, 0

    def forward(self, x: Tensor) -> Tensor:
        logits = x.flatten(1)[:, :10].clone()
        self.calls += 1
        if self.calls > 1:
            logits[-1, 3] = self.value
        return logits


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_no_label_follows_from_nan(value: float) -> None:
    x, _ = images()
    with pytest.raises(FloatingPointError, match=r"^the model answers NaN or infinity; .*$") as error:
        judge(Broken(value), x, 2)
    assert "\n" not in str(error.value)


def test_a_diverged_network_is_no_robust_network() -> None:
    network, (x, y) = ResNet20(), images()
    nn.init.constant_(network.linear.bias, float("nan"))
    with pytest.raises(FloatingPointError, match="NaN"):
        examine(network, (x, y), 0, "pgd", ATTACK, seed=0, draws=1)


def test_a_batch_says_what_was_done_to_it() -> None:
    model, (x, y) = ResNet20(), images()
    rows = examine(model, (x, y), first=40, name="pgd", attack=ATTACK, seed=3, draws=1).rows
    with drawing_from(Stream.named(3, "pgd", "attack", index=40)):
        trace = ATTACK.run(model, x, y)
    delta = (trace.x_adv - x).flatten(1)
    assert rows.index.tolist() == list(range(40, 46))
    assert rows.label.tolist() == y.tolist()
    assert rows.draws == 1
    np.testing.assert_allclose(rows.l2, delta.norm(dim=1), rtol=1e-6)
    np.testing.assert_allclose(rows.linf, delta.abs().amax(1), rtol=1e-6)
    assert rows.linf.max() <= 0.1 + 1e-6
    assert (rows.queries == ATTACK.steps).all()
    assert not rows.zero_gradient.any()
    assert rows.counts.argmax(1).tolist() == model.eval()(trace.x_adv).argmax(1).tolist()


def test_images_that_nobody_attacks_are_judged_as_they_are() -> None:
    model, (x, y) = ResNet20(), images()
    rows = examine(model, (x, y), first=0, name="clean", attack=None, seed=0, draws=1).rows
    assert rows.counts.argmax(1).tolist() == model.eval()(x).argmax(1).tolist()
    for nothing in (rows.l2, rows.linf, rows.queries, rows.zero_gradient):
        assert not nothing.any()


def test_counts_of_a_random_network_sum_to_the_draws() -> None:
    rows = examine(noisy(), images(), 0, "pgd", ATTACK, seed=0, draws=9).rows
    assert rows.counts.sum(1).tolist() == [9] * 6
    np.testing.assert_allclose(rows.probs.sum(1), 1, rtol=1e-6)
    assert (rows.counts > 0).sum() > 6


@dataclass(frozen=True)
class Listening(Attack):
    """Keeps the first draws of its stream."""

    heard: list[Tensor] = field(default_factory=list, compare=False)

    def search(self, model: Model, x: Tensor, goal: Goal) -> Trace:
        self.heard.append(normal_like(torch.empty(4)))
        return Log(0, x, goal).trace(x)


class Heard(nn.Module):
    """Keeps the first draws of each pass."""

    def __init__(self) -> None:
        super().__init__()
        self.draws: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(x, Tensor):  # and not when it is traced
            self.draws.append(normal_like(torch.empty(4)))
        return x.flatten(1)[:, :10]


def test_attacker_and_judge_never_share_a_draw() -> None:
    model, attack = Heard(), Listening()
    for first in (0, 6, 12):
        for name in ("a", "b"):
            for seed in (0, 1):
                examine(model, images(), first, name, attack, seed, draws=3)
    assert (len(attack.heard), len(model.draws)) == (12, 36)
    values = torch.cat(attack.heard + model.draws)
    assert len(values.unique()) == len(values)


def test_a_unit_of_work_depends_on_its_arguments_only() -> None:
    model, batch = noisy(), images()
    first = examine(model, batch, 12, "pgd", ATTACK, seed=0, draws=3).rows
    torch.manual_seed(99)
    examine(model, batch, 0, "other", PGD(L2(1.0), 0.5, 1), seed=0, draws=5)
    model.train()
    with drawing_from(Stream(5)):
        again = examine(model, batch, 12, "pgd", ATTACK, seed=0, draws=3).rows
    assert same(first, again)
    for other in (
        examine(model, batch, 18, "pgd", ATTACK, seed=0, draws=3),
        examine(model, batch, 12, "pgd2", ATTACK, seed=0, draws=3),
        examine(model, batch, 12, "pgd", ATTACK, seed=1, draws=3),
    ):
        assert not np.array_equal(other.rows.probs, first.probs)
        assert not np.array_equal(other.rows.l2, first.l2)


def test_the_same_table_inside_inference_mode() -> None:
    model, batch = noisy(), images()
    expected = examine(model, batch, 0, "pgd", ATTACK, seed=0, draws=2).rows
    with torch.inference_mode():
        x, y = images()
        assert same(examine(model, (x, y), 0, "pgd", ATTACK, seed=0, draws=2).rows, expected)
