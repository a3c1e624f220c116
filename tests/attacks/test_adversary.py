"""An adversary is its attack on what the view shows; and what every attack refuses, through an adversary too."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attacks import (
    EOT,
    PGD,
    Adversary,
    Attack,
    Exact,
    Frozen,
    Goal,
    Linf,
    Oblivious,
    StraightThrough,
    Surrogate,
    Trace,
    View,
)
from attacks.base import Log
from attacks.shown import Shown
from cli.names import UsageError
from cli.parser import read_suite
from defenses import ColourDepth, Defended, Gauss, Laplace, ParamNet, Stream, drawing_from
from defenses.randomness import normal_like
from tests.attacks.toys import Linear, NoisyLinear, images

ATTACK = PGD(Linf(0.1), 0.05, 3, random_start=False)
Y = torch.tensor([0, 1, 2, 3])


@dataclass(frozen=True)
class Spy(Attack):
    """Returns the images and remembers what it was given."""

    seen: list[tuple[Shown, Goal]] = field(default_factory=list, compare=False)
    answers: list[Tensor] = field(default_factory=list, compare=False)

    def search(self, model: Shown, x: Tensor, goal: Goal) -> Trace:
        self.seen.append((model, goal))
        log = Log(0, x, goal)
        self.answers.append(log.asked(model.answers(x)))
        return log.trace(x.clone())


@pytest.mark.parametrize("view", [Exact(), StraightThrough(), StraightThrough(at_image=True), Oblivious()], ids=str)
@pytest.mark.parametrize("target", [None, Y.flip(0)], ids=["untargeted", "targeted"])
def test_it_is_the_attack_on_the_view(view: View, target: Tensor | None) -> None:
    model, x = Defended(Linear(4), [ColourDepth(3)]), images()
    expected = ATTACK.run(view.of(model), x, Y, target)
    trace = Adversary(ATTACK, view).run(model, x, Y, target)
    for name, value in vars(trace).items():
        torch.testing.assert_close(value, getattr(expected, name), equal_nan=True)


def test_it_is_the_attack_on_several_draws() -> None:
    model, x = NoisyLinear(Linear(4), 0.3), images()
    with drawing_from(Stream(1)):
        expected = ATTACK.run(EOT(model, 3, votes=5), x, Y)
    with drawing_from(Stream(1)):
        trace = Adversary(ATTACK, draws=3, votes=5).run(model, x, Y)
    assert torch.equal(trace.x_adv, expected.x_adv)
    assert trace.queries.tolist() == [3 * 5] * 4


@pytest.mark.parametrize(
    ("view", "model", "shape"),
    [
        (Exact(), NoisyLinear(Linear(4), 0.1), (6, 4, 4)),
        (StraightThrough(), Defended(Linear(4), [Gauss(0.1)]), (6, 4, 4)),
        (Surrogate(Laplace(0.1)), Defended(Linear(4), [ColourDepth(3)]), (6, 4, 4)),
        (Surrogate(ColourDepth(3)), Defended(Linear(4), [Gauss(0.1)]), (4, 4)),
        (Exact(), Linear(4), (4, 4)),  # draws of what is not random are a waste
        (Frozen(), NoisyLinear(Linear(4), 0.1), (4, 4)),
        (Oblivious(), Defended(Linear(4), [Gauss(0.1)]), (4, 4)),
    ],
)
def test_several_draws_are_asked_of_random_views_only(view: View, model: nn.Module, shape: tuple[int, ...]) -> None:
    spy = Spy()
    Adversary(spy, view, draws=2, votes=6).run(model, images(), Y)
    assert spy.answers[0].shape == shape


@pytest.mark.parametrize(
    ("view", "model", "allowed"),
    [
        (Exact(), Linear(4), True),
        (StraightThrough(), Defended(Linear(4), [ColourDepth(3)]), True),
        (Surrogate(ColourDepth(2)), Defended(Linear(4), [ColourDepth(3)]), False),
        (Oblivious(), Defended(Linear(4), [ColourDepth(3)]), False),
        (Exact(), Defended(Linear(4), [Gauss(0.1)]), False),
        (Frozen(), Defended(Linear(4), [Gauss(0.1)]), False),
        (Frozen(), Linear(4), False),
        (Exact(), ParamNet(nn.Sequential(nn.Flatten(), nn.Linear(18, 4).double())), False),
    ],
)
def test_images_leave_early_only_where_a_success_is_one_on_the_model(
    view: View, model: nn.Module, allowed: bool
) -> None:
    for wish in (False, True):
        spy = Spy()
        Adversary(spy, view, draws=2).run(model, images(), Y, first_success=wish)
        assert spy.seen[0][1].first_success == (wish and allowed)


def test_label_and_target_are_passed_on() -> None:
    spy = Spy()
    Adversary(spy, Oblivious()).run(Linear(4), images(), Y, Y.flip(0), first_success=True)
    goal = spy.seen[0][1]
    assert torch.equal(goal.label, Y)
    assert goal.target is not None
    assert torch.equal(goal.target, Y.flip(0))


class Coarse(nn.Module):
    """Two logits whose order in bfloat16 is wrong: 0 and x, but a large offset swallows x there."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(18, 2)
        with torch.no_grad():
            self.layer.weight.zero_()
            self.layer.weight[0] = 1 / 18
            self.layer.bias.copy_(torch.tensor([64.0, 64.4]))
        self.dtypes: set[torch.dtype] = set()

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.layer(x.flatten(1))
        if isinstance(logits, Tensor):  # not where BatchNorm folding traces this
            self.dtypes.add(logits.dtype)
        return logits


def test_rounding_in_bfloat16_does_not_decide_who_leaves() -> None:
    """In float32 the mean pixel must fall below 0.4 for class 1; in bfloat16 logits around 64 are 0.25 or 0.5 apart."""
    model, y = Coarse(), torch.zeros(3, dtype=torch.long)
    x = torch.stack([torch.full((2, 3, 3), value) for value in (0.55, 0.45, 0.95)])
    assert model(x).argmax(1).tolist() == [0, 0, 0]
    attack = PGD(Linf(0.3), 0.02, 20, random_start=False)
    trace = Adversary(attack, precision="bfloat16").run(model, x, y, first_success=True)
    assert model.dtypes == {torch.bfloat16, torch.float32}
    assert model(trace.x_adv).argmax(1).tolist() == [1, 1, 0]  # the last is out of reach
    # The third fails in both precisions, after the whole attack: 20 steps and a check in each, nothing anew.
    assert trace.queries[2] == 20 + 2
    in_float32 = attack.run(model, x, y, first_success=True).queries
    # They left when the answer in float32 was wrong, not before; the last one was asked in both precisions at the end.
    assert torch.equal(trace.queries, in_float32 + torch.tensor([1, 1, 2]))
    assert (trace.x_adv - x).abs().max() <= 0.3 + 1e-6


class OnlyInHalf(nn.Module):
    """Errs in bfloat16 on everything, in float32 on dark images."""

    def forward(self, x: Tensor) -> Tensor:
        half = torch.is_autocast_enabled(x.device.type)
        score = x.mean((1, 2, 3)) - 0.3
        return torch.stack([score, -score], 1) * (-1.0 if half else 1.0)


def test_a_success_of_bfloat16_alone_does_not_count() -> None:
    x, y = images().float(), torch.zeros(4, dtype=torch.long)
    attack = PGD(Linf(0.4), 0.05, 10, random_start=False)
    assert torch.equal(attack.run(lambda i: -OnlyInHalf()(i), x, y, first_success=True).x_adv, x)  # left at once
    trace = Adversary(attack, precision="bfloat16").run(OnlyInHalf(), x, y, first_success=True)
    assert (OnlyInHalf()(trace.x_adv).argmax(1) != y).all()
    expected = attack.run(OnlyInHalf(), x, y, first_success=True)
    torch.testing.assert_close(trace.x_adv, expected.x_adv)
    assert torch.equal(trace.queries, 1 + 2 + expected.queries)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_votes_and_memory_are_the_same_in_every_precision(precision: Any) -> None:
    passes = []

    class Watched(nn.Module):
        random, shared = True, False

        def forward(self, x: Tensor) -> Tensor:
            passes.append((len(x), torch.is_grad_enabled()))
            return Linear(4, dtype=torch.float32)(normal_like(x, 0.1) + x)

    attack = PGD(Linf(0.1), 0.05, 1, random_start=False)
    Adversary(attack, draws=2, votes=6, most_images=8, precision=precision).run(Watched(), images().float(), Y)
    assert passes[-3:] == [(8, True), (8, False), (8, False)]


def test_repr_is_the_record_and_str_is_short() -> None:
    adversary = Adversary(ATTACK, Surrogate(Laplace(0.1)), draws=10, votes=20, precision="bfloat16")
    text = repr(adversary)
    for part in (repr(ATTACK), "Surrogate(channel=Laplace(std=0.1), everywhere=False)", "draws=10", "votes=20"):
        assert part in text
    assert "precision='bfloat16'" in text
    assert str(Adversary(ATTACK)) == str(ATTACK)
    assert str(adversary).startswith(str(ATTACK))
    assert str(adversary).endswith(", 10 draws, 20 votes, bfloat16")
    assert Adversary(ATTACK) == Adversary(ATTACK)
    assert Adversary(ATTACK).ball == Linf(0.1)
    assert Adversary(Spy()).ball is None


@pytest.mark.parametrize("settings", [{"draws": 0}, {"draws": 5, "votes": 4}, {"most_images": 0}])
def test_impossible_numbers_are_refused(settings: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="EOT takes draws >= 1"):
        Adversary(ATTACK, **settings)


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(ValueError, match="precision must be float32 or bfloat16, got float16"):
        Adversary(ATTACK, precision="float16")  # type: ignore[arg-type]


SUITE = """
adaptive:
  class_path: attacks.Adversary
  init_args:
    attack: {class_path: attacks.PGD, init_args: {ball: {class_path: attacks.Linf, init_args: {eps: 8/255}}, steps: 5}}
    view: {class_path: attacks.StraightThrough, init_args: {everywhere: true}}
    draws: 10
    votes: 20
surrogate:
  class_path: attacks.Adversary
  init_args:
    attack: {class_path: attacks.PGD}
    view:
      class_path: attacks.Surrogate
      init_args: {channel: {class_path: defenses.Laplace, init_args: {std: 0.1}}}
"""


def test_adversaries_come_from_yaml(tmp_path: Path) -> None:
    file = tmp_path / "suite.yaml"
    file.write_text(SUITE)
    suite = read_suite(file, None)
    pgd = PGD(Linf(8 / 255), steps=5)
    assert suite["adaptive"] == Adversary(pgd, StraightThrough(everywhere=True), draws=10, votes=20)
    surrogate = suite["surrogate"]
    assert isinstance(surrogate, Adversary)
    assert isinstance(surrogate.view, Surrogate)
    assert repr(surrogate.view.channel) == "Laplace(std=0.1)"
    with_eps = read_suite(file, 0.5)["adaptive"]
    assert isinstance(with_eps, Adversary)
    assert with_eps.ball == Linf(0.5)
    trace = surrogate.run(Defended(Linear(4), [ColourDepth(3)]), images(), Y)
    assert trace.queries.tolist() == [10] * 4


def test_a_mistake_in_yaml_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "suite.yaml"
    file.write_text(SUITE.replace("draws: 10", "draws: 0"))
    with pytest.raises(UsageError, match=r"suite.yaml: .*EOT takes draws >= 1") as caught:
        read_suite(file, None)
    assert "\n" not in str(caught.value)


REFUSING = [ATTACK, Adversary(ATTACK, StraightThrough()), Adversary(ATTACK, Oblivious(), draws=2)]
every_attack = pytest.mark.parametrize("attack", REFUSING, ids=["PGD", "StraightThrough", "Oblivious"])


@every_attack
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("everywhere", [False, True])
def test_answers_that_are_no_numbers_are_refused(attack: Attack, bad: float, everywhere: bool) -> None:
    class Bad(Linear):
        def forward(self, x: Tensor) -> Tensor:
            logits = super().forward(x)
            where = torch.full_like(logits, everywhere, dtype=torch.bool)
            where[-1, -1] = True
            return torch.where(where, bad, logits)

    with pytest.raises(FloatingPointError, match="the model answers NaN or infinity"):
        attack.run(Bad(4), images(), Y)


@every_attack
def test_a_class_that_is_never_answered_is_allowed(attack: Attack) -> None:
    """Masked classes have a logit of minus infinity."""

    class Masked(Linear):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([super().forward(x), torch.full((len(x), 1), float("-inf"), dtype=x.dtype)], 1)

    x_adv = attack(Masked(4), images(), Y)
    assert x_adv.isfinite().all()
    torch.testing.assert_close(x_adv, attack(Linear(4), images(), Y))


@every_attack
def test_probabilities_are_refused(attack: Attack) -> None:
    class Probabilities(Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).softmax(-1)

    with pytest.raises(ValueError, match="answers probabilities; an attack needs logits"):
        attack.run(Probabilities(4), images(), Y)


@every_attack
@pytest.mark.parametrize("role", ["label", "target"])
def test_classes_that_do_not_exist_are_refused(attack: Attack, role: str) -> None:
    for wrong, message in ((4, "is 4, the model has classes 0 to 3"), (-1, f"a {role} must be a class number >= 0")):
        classes = torch.tensor([0, 1, wrong, 3])
        with pytest.raises(ValueError, match=message):
            attack.run(Linear(4), images(), *((classes,) if role == "label" else (Y, classes)))


@every_attack
def test_wrong_shapes_are_refused(attack: Attack) -> None:
    x = images()
    for args in ((x[0], Y), (x, Y[:3]), (x, Y, Y[:3]), (x, Y[:, None]), (x.flatten(1), Y)):
        with pytest.raises(ValueError, match=r"an attack takes images \[B, C, H, W\] and labels \[B\], got x"):
            attack.run(Linear(4), *args)
    with pytest.raises(ValueError, match=r"a model answers logits \[\*draws, 4, classes\] here, got \(4,\)"):
        attack.run(lambda images: images.flatten(1).sum(1), x, Y)
    with pytest.raises(ValueError, match=r"answers logits .* got \(3, 18\)"):
        attack.run(lambda images: images.flatten(1)[:3], x, Y)


@every_attack
def test_images_outside_the_cube_are_refused(attack: Attack) -> None:
    x = images()
    with pytest.raises(ValueError, match=r"images must be floating point in \[0, 1\], got torch.uint8"):
        attack.run(Linear(4), (x * 255).byte(), Y)
    for bad in (-0.1, 1.1, float("nan")):
        wrong = x.clone()
        wrong[1, 0, 0, 0] = bad
        with pytest.raises(ValueError, match=r"images must lie in \[0, 1\], got values from"):
            attack.run(Linear(4), wrong, Y)


@every_attack
@pytest.mark.parametrize("target", [None, torch.zeros(0, dtype=torch.long)], ids=["untargeted", "targeted"])
def test_an_empty_batch_asks_nothing(attack: Attack, target: Tensor | None) -> None:
    def silent(x: Tensor) -> Tensor:
        raise AssertionError("asked")

    trace = attack.run(silent, images()[:0], Y[:0], target)
    assert trace.x_adv.shape == (0, 2, 3, 3)
    assert trace.queries.shape == trace.zero_gradient.shape == (0,)


def test_an_error_of_the_model_is_passed_on() -> None:
    def broken(x: Tensor) -> Tensor:
        raise RuntimeError("no answer")

    with pytest.raises(RuntimeError, match="no answer"):
        Adversary(ATTACK).run(broken, images(), Y)
